"use strict";
// What a reader says of images and studies. Each mark holds what stood there when it was given, and is kept in the browser by itself:
// galleries of other parts, and other windows, add to the same marks.
const marks = (() => {
  const PREFIX = `humerus-mark:${RUN.key}:`;
  const COLUMNS = ["kind", "uri", "frame", "study", "label", "probability", "mark", "marked_at", "model"];
  let given = new Map(), kept = true;

  function keep(action) {
    try { action(); } catch { kept = false; }  // no storage, or no room in it
  }

  function read() {
    keep(() => {
      const names = Object.keys(localStorage).filter((name) => name.startsWith(PREFIX));
      given = new Map(names.map((name) => [name.slice(PREFIX.length), JSON.parse(localStorage.getItem(name))]));
    });
  }

  // An empty `mark` takes back the one that is there.
  function set({ key, kind, uri, frame, study, label, probability }, mark) {
    if (!mark) return remove(key);
    given.set(key, { kind, uri, frame, study, label, probability, mark, marked_at: new Date().toISOString() });
    keep(() => localStorage.setItem(PREFIX + key, JSON.stringify(given.get(key))));
  }

  function remove(key) {
    given.delete(key);
    keep(() => localStorage.removeItem(PREFIX + key));
  }

  // Keys of all marks, those of other windows too.
  function keys() {
    if (kept) read();
    return [...given.keys()];
  }

  // none, agree, disagree; or changed: the mark was given to another label than the row has now.
  function standing(row) {
    const mark = given.get(row.key);
    if (!mark) return "none";
    return mark.label === row.label ? mark.mark : "changed";
  }

  // Spreadsheets take what begins so for a formula, unless an apostrophe stands before it.
  function cell(value) {
    const text = String(value ?? "").replace(/^[=+\-@\t\r]/, "'$&");
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }

  function csv() {
    const rows = keys().map((key) => ({ ...given.get(key), model: RUN.model })).sort((a, b) => (a.marked_at < b.marked_at ? -1 : 1));
    return [COLUMNS, ...rows.map((row) => COLUMNS.map((name) => row[name]))].map((line) => `${line.map(cell).join(",")}\r\n`).join("");
  }

  read();
  return { set, remove, keys, standing, csv, of: (row) => given.get(row.key), number: () => given.size, areKept: () => kept };
})();
