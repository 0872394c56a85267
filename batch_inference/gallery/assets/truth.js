"use strict";
// Truth against call: a column of the manifest that holds labels, and a threshold that the reader moves.
const truth = (() => {
  const POSITIVE = /^(1(\.0+)?|true|yes|pos(itive)?|abnormal|fractured?)$/i, NEGATIVE = /^(0(\.0+)?|false|no|neg(ative)?|normal)$/i;
  const FIRST = ["truth", "manifest_label", "target", "ground_truth"], START = RUN.threshold ?? 0.5, Z = 1.959964;
  let threshold = START;

  const parse = (value) => (POSITIVE.test(value ?? "") ? 1 : NEGATIVE.test(value ?? "") ? 0 : null);

  // The columns whose every value is a label, those of a usual name first.
  function findColumns(images) {
    const known = new Map();
    for (const { further } of images) {
      for (const [name, value] of Object.entries(further)) known.set(name, (known.get(name) ?? true) && parse(String(value).trim()) !== null);
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
    return row.probability >= threshold ? (label ? "tp" : "fp") : (label ? "fn" : "tn");
  }

  // Wilson's 95 % interval of k of n.
  function wilson(k, n) {
    const share = k / n, square = Z * Z, centre = (share + square / (2 * n)) / (1 + square / n);
    const half = (Z * Math.sqrt(share * (1 - share) / n + square / (4 * n * n))) / (1 + square / n);
    return [Math.max(0, centre - half), Math.min(1, centre + half)];
  }

  function rate(name, k, n) {
    if (!n) return `${name} undefined`;
    const [low, high] = wilson(k, n);
    return `${name} ${(k / n).toFixed(3)} (${low.toFixed(3)} to ${high.toFixed(3)})`;
  }

  function show(rows, imagesIn, noun) {
    const count = { tp: 0, fp: 0, fn: 0, tn: 0, "": 0 };
    for (const row of rows) count[outcome(row, imagesIn)] += 1;
    for (const name of ["tp", "fp", "fn", "tn"]) {
      $(name).querySelector("b").textContent = count[name];
      $(name).setAttribute("aria-pressed", $("outcome").value === name);
    }
    $("rates").textContent = `${rate("Sensitivity", count.tp, count.tp + count.fn)}, ${rate("specificity", count.tn, count.tn + count.fp)}.`;
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
