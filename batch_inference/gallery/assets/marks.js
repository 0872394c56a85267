"use strict";
// What a reader says of images and studies: agree or disagree, tags, a note. Each entry holds what stood there when it was given, and is
// kept in the browser by itself: galleries of other parts, and other windows, add to the same entries.
const marks = (() => {
  const PREFIX = `humerus-mark:${RUN.key}:`;
  const COLUMNS = ["kind", "uri", "frame", "study", "label", "probability", "mark", "marked_at", "model", "tags", "note"];
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

  // Change `mark`, `tags` or `note`; an entry without any of them goes. A mark is of the label that stands there now.
  function set({ key, kind, uri, frame, study, label, probability }, change) {
    const before = given.get(key);
    const now = "mark" in change || !before ? { label, probability } : {};
    const entry = { kind, uri, frame, study, mark: "", tags: "", note: "", ...before, ...now, ...change, marked_at: new Date().toISOString() };
    if (!entry.mark && !entry.tags && !entry.note) return remove(key);
    given.set(key, entry);
    keep(() => localStorage.setItem(PREFIX + key, JSON.stringify(entry)));
  }

  function remove(key) {
    given.delete(key);
    keep(() => localStorage.removeItem(PREFIX + key));
  }

  // Keys of all entries, those of other windows too.
  function keys() {
    if (kept) read();
    return [...given.keys()];
  }

  // none, agree, disagree; or changed: the mark was given to another label than the row has now.
  function standing(row) {
    const entry = given.get(row.key);
    if (!entry?.mark) return "none";
    return entry.label === row.label ? entry.mark : "changed";
  }

  const words = (row) => { const entry = given.get(row.key); return entry ? `${entry.tags ?? ""} ${entry.note ?? ""}`.toLowerCase() : ""; };

  function entries() {
    const rows = keys().map((key) => ({ ...given.get(key), model: RUN.model })).sort((a, b) => (a.marked_at < b.marked_at ? -1 : 1));
    return rows.map((row) => Object.fromEntries(COLUMNS.map((name) => [name, row[name] ?? (name === "frame" ? null : "")])));
  }

  // Spreadsheets take what begins so for a formula, unless an apostrophe stands before it.
  function cell(value) {
    const text = String(value ?? "").replace(/^[=+\-@\t\r]/, "'$&");
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }

  const csv = () => [COLUMNS, ...entries().map(Object.values)].map((line) => `${line.map(cell).join(",")}\r\n`).join("");
  const json = () => `${JSON.stringify(entries(), null, 2)}\n`;

  read();
  return { set, remove, keys, standing, words, csv, json, of: (row) => given.get(row.key), number: () => given.size, areKept: () => kept };
})();
