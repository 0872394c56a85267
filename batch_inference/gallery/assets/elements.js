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

function makeImage(source, text) {
  const element = new Image();
  element.decoding = "async";
  element.alt = visible(text);
  element.src = source;
  return element;
}
