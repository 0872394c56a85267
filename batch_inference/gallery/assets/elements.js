"use strict";
// Elements of the page. Whatever a file name or a manifest says reaches it as text, never as HTML.
// What turns the direction of the text around it is shown by its code, as it could make 0.97 read 79.0; so are newlines and the like.
const visible = (text) => String(text).replace(/[\0-\x1f\u202A-\u202E\u2066-\u2069]/g, (mark) => `\\u${mark.charCodeAt(0).toString(16).padStart(4, "0")}`);

// Children are elements, or text.
function make(tag, kind = "", ...children) {
  const element = document.createElement(tag);
  if (kind) element.className = kind;
  element.append(...children.map((child) => (child instanceof Node ? child : visible(child))));
  return element;
}

// A name keeps its own direction, and shows whole where it is pointed at.
function makeNamed(tag, kind, name) {
  return Object.assign(make(tag, kind, make("bdi", "", name)), { title: visible(name) });
}

function makeImage(source, text, kind = "") {
  return Object.assign(new Image(), { decoding: "async", draggable: false, className: kind, alt: visible(text), src: source });
}

function makeButton(text, action) {
  return Object.assign(make("button", "", text), { type: "button", onclick: action });
}

// The address, from the page, of a file of the run or of a manifest; null where a page can't reach it.
function addressOf(uri) {
  const { from, to } = RUN.originals;
  return uri.startsWith(from) ? to + uri.slice(from.length).split("/").map(encodeURIComponent).join("/") : null;
}

function download(name, type, text) {
  const link = Object.assign(make("a"), { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
