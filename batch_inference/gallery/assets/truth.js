"use strict";
// Truth against call: a column of the manifest that holds labels, and a threshold that the reader moves.
const truth = (() => {
  const POSITIVE = /^(1(\.0+)?|true|yes|pos(itive)?|abnormal|fractured?)$/i, NEGATIVE = /^(0(\.0+)?|false|no|neg(ative)?|normal)$/i;
  const FIRST = ["truth", "manifest_label", "target", "ground_truth"], START = RUN.threshold ?? 0.5;
  let threshold = START;

  // 1, 0 or null, of a cell of a manifest, which may have spaces around its word.
  function parse(cell) {
    const word = String(cell ?? "").trim();
    return POSITIVE.test(word) ? 1 : NEGATIVE.test(word) ? 0 : null;
  }

  // The columns whose every value is a label, those of a usual name first.
  function findColumns(images) {
    const known = new Map();
    for (const { further } of images) {
      for (const [name, value] of Object.entries(further)) known.set(name, (known.get(name) ?? true) && parse(value) !== null);
    }
    const place = (name) => (FIRST.indexOf(name) + 1 || FIRST.length + 1);
    return [...known].filter(([, isTruth]) => isTruth).map(([name]) => name).sort((a, b) => place(a) - place(b));
  }

  // 1, 0 or null. A study is positive where one of its images is, and unknown where none has a label.
  function of(row, imagesIn) {
    const column = $("truth").value, values = (row.kind === "study" ? imagesIn(row.study) : [row]).map((image) => parse(image.further[column]));
    return values.includes(1) ? 1 : values.includes(0) ? 0 : null;
  }

  function outcome(row, imagesIn) {
    const label = $("truth").value && row.kind !== "rejected" ? of(row, imagesIn) : null;
    if (label === null) return "";
    return confusion.outcomeOf(label, row.probability, threshold);
  }

  function show(rows, imagesIn, noun) {
    const count = { tp: 0, fp: 0, fn: 0, tn: 0, "": 0 };
    for (const row of rows) count[outcome(row, imagesIn)] += 1;
    $("rates").textContent = `${confusion.show(count, $("outcome").value).join(", ")}.`;
    $("counted").textContent = `Of ${rows.length - count[""]} ${noun} with a label${count[""] ? `; ${count[""]} have none` : ""}. Wilson 95 %, each counted as independent.`;
    $("at").textContent = threshold.toFixed(3);
    $("run-threshold").disabled = threshold === START;
    $("threshold").value = threshold;
  }

  function moveTo(value) {
    threshold = Number.isFinite(value) ? Math.max(0, Math.min(1, value)) : START;
  }

  return { findColumns, outcome, show, moveTo, threshold: () => threshold, isMoved: () => threshold !== START };
})();
