"use strict";
// Keep a reader's marks of images and studies (agree or disagree, tags, a note), each with the
// label and probability at that time. The browser stores each entry by itself, so that other
// windows and galleries of other parts add to the same marks.
const marks = (() => {
  const PREFIX = `humerus-mark:${RUN.key}:`;
  const COLUMNS = [
    "kind",
    "uri",
    "frame",
    "study",
    "label",
    "probability",
    "mark",
    "marked_at",
    "model",
    "tags",
    "note",
  ];
  let given = new Map(),
    kept = true;

  function tryStorage(action) {
    try { action(); } catch { kept = false; }  // no storage, or no room in it
  }

  function read() {
    tryStorage(() => {
      const names = Object.keys(localStorage).filter((name) => name.startsWith(PREFIX));
      given = new Map(
        names.map((name) => [name.slice(PREFIX.length), JSON.parse(localStorage.getItem(name))]),
      );
    });
  }

  // Change `mark`, `tags` or `note`, and remove an entry that has none of them left. A new mark
  // refers to the row's present label.
  function set({ key, kind, uri, frame, study, label, probability }, change) {
    const before = given.get(key);
    const now = "mark" in change || !before ? { label, probability } : {};
    const entry = {
      kind,
      uri,
      frame,
      study,
      mark: "",
      tags: "",
      note: "",
      ...before,
      ...now,
      ...change,
      marked_at: new Date().toISOString(),
    };
    if (!entry.mark && !entry.tags && !entry.note) return remove(key);
    given.set(key, entry);
    tryStorage(() => localStorage.setItem(PREFIX + key, JSON.stringify(entry)));
  }

  function remove(key) {
    given.delete(key);
    tryStorage(() => localStorage.removeItem(PREFIX + key));
  }

  // Return the keys of all entries, those of other windows too.
  function keys() {
    if (kept) read();
    return [...given.keys()];
  }

  // Return none, agree or disagree; or changed, where the label has changed since the mark.
  function markState(row) {
    const entry = given.get(row.key);
    if (!entry?.mark) return "none";
    return entry.label === row.label ? entry.mark : "changed";
  }

  const words = (row) => {
    const entry = given.get(row.key);
    return entry ? `${entry.tags ?? ""} ${entry.note ?? ""}`.toLowerCase() : "";
  };

  function entries() {
    const rows = keys()
      .map((key) => ({ ...given.get(key), model: RUN.model }))
      .sort((a, b) => (a.marked_at < b.marked_at ? -1 : 1));
    return rows.map((row) =>
      Object.fromEntries(
        COLUMNS.map((name) => [name, row[name] ?? (name === "frame" ? null : "")]),
      ),
    );
  }

  // Put an apostrophe before text that a spreadsheet would take for a formula.
  function cell(value) {
    const text = String(value ?? "").replace(/^[=+\-@\t\r]/, "'$&");
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }

  const csv = () =>
    [COLUMNS, ...entries().map(Object.values)]
      .map((line) => `${line.map(cell).join(",")}\r\n`)
      .join("");
  const json = () => `${JSON.stringify(entries(), null, 2)}\n`;

  read();
  return {
    set,
    remove,
    keys,
    markState,
    words,
    csv,
    json,
    entryOf: (row) => given.get(row.key),
    number: () => given.size,
    areKept: () => kept,
  };
})();
