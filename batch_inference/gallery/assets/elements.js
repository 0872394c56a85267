"use strict";
// Elements of the page. Whatever a file name or a manifest says reaches it as text, never as HTML.
const $ = (id) => document.getElementById(id);

// What turns the direction of the text around it is shown by its code: it could make 0.97 read 79.0.
const visible = (text) => String(text).replace(/[\u202A-\u202E\u2066-\u2069]/g, (mark) => `\\u${mark.charCodeAt(0).toString(16)}`);

function make(tag, kind = "", text = "") {
  const element = document.createElement(tag);
  if (kind) element.className = kind;
  element.textContent = visible(text);
  return element;
}

// A name keeps its own direction, and shows whole where it is pointed at.
function makeNamed(tag, kind, name) {
  const element = make(tag, kind);
  element.title = visible(name);
  element.append(make("bdi", "", name));
  return element;
}

function makeImage(source, text, kind = "") {
  const element = new Image();
  element.decoding = "async";
  element.draggable = false;
  element.className = kind;
  element.alt = visible(text);
  element.src = source;
  return element;
}

function makeButton(text, action) {
  const element = make("button", "", text);
  element.type = "button";
  element.addEventListener("click", action);
  return element;
}

// The address, from the page, of a file of the run or of a manifest; null where a page can't reach it.
function addressOf(uri) {
  const { from, to } = RUN.originals;
  return uri.startsWith(from) ? to + uri.slice(from.length).split("/").map(encodeURIComponent).join("/") : null;
}

function download(name, type, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
