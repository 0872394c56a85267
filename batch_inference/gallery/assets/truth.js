"use strict";
// Compare the labels of a manifest's column with the calls at a threshold that the reader moves.
const truth = (() => {
  const POSITIVE = /^(1(\.0+)?|true|yes|pos(itive)?|abnormal|fractured?)$/i,
    NEGATIVE = /^(0(\.0+)?|false|no|neg(ative)?|normal)$/i;
  const FIRST = ["truth", "manifest_label", "target", "ground_truth"],
    START = RUN.threshold ?? 0.5;
  const OMITTED = ", or images that this page omits";
  const METHOD = " Wilson 95 %, each counted as independent.";
  let threshold = START;

  // Return 1, 0 or null for the cell of a manifest, which may have spaces around its word.
  function parse(cell) {
    const word = String(cell ?? "").trim();
    return POSITIVE.test(word) ? 1 : NEGATIVE.test(word) ? 0 : null;
  }

  // Return the columns that hold labels only, those with a usual name first.
  function findColumns(images) {
    const known = new Map();
    for (const { further } of images) {
      for (const [name, value] of Object.entries(further))
        known.set(name, (known.get(name) ?? true) && parse(value) !== null);
    }
    const place = (name) => FIRST.indexOf(name) + 1 || FIRST.length + 1;
    return [...known]
      .filter(([, isTruth]) => isTruth)
      .map(([name]) => name)
      .sort((a, b) => place(a) - place(b));
  }

  // Return 1, 0 or null. A study is positive if one of its images is, and null if no image has a
  // label or the page omits some.
  function truthOf(row, imagesIn) {
    const images = row.kind === "study" ? imagesIn(row.study) : [row];
    if (row.kind === "study" && images.length < row.images) return null;
    const column = $("truth").value, values = images.map((image) => parse(image.further[column]));
    return values.includes(1) ? 1 : values.includes(0) ? 0 : null;
  }

  function outcome(row, imagesIn) {
    const label = $("truth").value && row.kind !== "rejected" ? truthOf(row, imagesIn) : null;
    if (label === null) return "";
    return confusion.outcomeOf(label, row.probability, threshold);
  }

  function show(rows, imagesIn, noun) {
    const count = { tp: 0, fp: 0, fn: 0, tn: 0, "": 0 };
    for (const row of rows) count[outcome(row, imagesIn)] += 1;
    const rates = confusion.show(count, $("outcome").value).join(", ");
    // Rates of images that were selected by label or probability are not those of the model.
    const chosen = RUN.selected
      ? "this page was selected by label or probability"
      : $("label").value
        ? "the list is filtered by label"
        : "";
    $("rates").textContent = chosen
      ? `No rates are shown: ${chosen}, so they would not be those of the model.`
      : `${rates}.`;
    const none = count[""]
      ? `; ${count[""]} have none${RUN.part && noun === "studies" ? OMITTED : ""}`
      : "";
    $("counted").textContent =
      `Of ${rows.length - count[""]} ${noun} with a label${none}.${chosen ? "" : METHOD}`;
    $("threshold-value").textContent = shownProbability(threshold);
    $("reset-threshold").disabled = threshold === START;
    $("threshold").value = threshold;
  }

  function moveTo(value) {
    threshold = Number.isFinite(value) ? Math.max(0, Math.min(1, value)) : START;
  }

  return {
    findColumns,
    outcome,
    show,
    moveTo,
    threshold: () => threshold,
    isMoved: () => threshold !== START,
  };
})();
