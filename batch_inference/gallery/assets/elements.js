"use strict";
// Make the elements of the page. Names and values of files enter as text, never as HTML.

// Escape bidirectional controls (they could show 0.97 as 79.0) and control characters.
const visible = (text) =>
  String(text).replace(
    /[\0-\x1f\u202A-\u202E\u2066-\u2069]/g,
    (mark) => `\\u${mark.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );

// Children are elements, or text.
function make(tag, kind = "", ...children) {
  const element = document.createElement(tag);
  if (kind) element.className = kind;
  element.append(...children.map((child) => (child instanceof Node ? child : visible(child))));
  return element;
}

// Isolate the direction of a name, and show the whole name as a tooltip.
function makeNamed(tag, kind, name) {
  return Object.assign(make(tag, kind, make("bdi", "", name)), { title: visible(name) });
}

function makeImage(source, text, kind = "") {
  return Object.assign(new Image(), {
    decoding: "async",
    draggable: false,
    className: kind,
    alt: visible(text),
    src: source,
  });
}

function makeButton(text, action) {
  return Object.assign(make("button", "", text), { type: "button", onclick: action });
}

// Return the address of a file of the run or a manifest; null where the page can't reach it.
function addressOf(uri) {
  const { from, to } = RUN.originals;
  return uri.startsWith(from)
    ? to + uri.slice(from.length).split("/").map(encodeURIComponent).join("/")
    : null;
}

function download(name, type, text) {
  const link = Object.assign(make("a"), {
    href: URL.createObjectURL(new Blob([text], { type })),
    download: name,
  });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
