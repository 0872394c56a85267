"use strict";
// The rows of the page, how they are named, and their orders.
const table = (() => {
  const SYMBOL = { positive: "▲", negative: "▽", uncertain: "◇" };
  const rows = { images: [], studies: [], rejected: [] };
  const byStudy = new Map();  // study -> its images
  const PICKERS = {
    images: (r) => ({
      kind: "image",
      key: `${r[0]}#${r[5] ?? ""}`,
      uri: r[0],
      label: r[1],
      probability: r[2],
      study: r[3],
      cam: r[4],
      frame: r[5],
      further: r[6],
      original: r[7],
    }),
    studies: (r) => ({
      kind: "study",
      key: `study ${r[0]}`,
      uri: "",
      study: r[0],
      label: r[1],
      probability: r[2],
      images: r[3],
      frame: null,
      further: {},
    }),
    rejected: (r) => ({
      kind: "rejected",
      key: `${r[0]}#${r[3] ?? ""}`,
      uri: r[0],
      reason: r[1],
      detail: r[2],
      frame: r[3],
      study: "",
      further: {},
    }),
  };

  function add(kind, more) {
    for (const values of more) {
      const row = PICKERS[kind](values);
      row.words = [row.uri, row.study, row.detail, ...Object.values(row.further)]
        .join("\n")
        .toLowerCase();
      rows[kind].push(row);
      if (kind === "images")
        byStudy.has(row.study) ? byStudy.get(row.study).push(row) : byStudy.set(row.study, [row]);
    }
  }

  const imagesIn = (study) => byStudy.get(study) ?? [];
  const labelOf = ({ label }) => `${SYMBOL[label] ?? ""} ${label}`;
  const nameOf = (row) =>
    (row.kind === "study" ? row.study : row.uri.slice(row.uri.lastIndexOf("/") + 1)) +
    (row.frame === null ? "" : `, frame ${row.frame}`);
  const describe = (row) =>
    `${nameOf(row)}, ${row.label}, probability ${shownProbability(row.probability)}`;
  const many = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

  function sizeOf({ images, study }) {
    const here = imagesIn(study).length;
    return many(images, "image") + (here < images ? `, ${here} shown` : "");
  }

  const byText = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
  const fromThreshold = (row) => Math.abs(row.probability - truth.threshold());
  const ORDERS = {
    high: (a, b) => b.probability - a.probability,
    low: (a, b) => a.probability - b.probability,
    near: (a, b) => fromThreshold(a) - fromThreshold(b),
    path: (a, b) =>
      byText(a.uri, b.uri) || byText(a.study, b.study) || (a.frame ?? 0) - (b.frame ?? 0),
  };

  return { rows, add, imagesIn, labelOf, nameOf, describe, many, sizeOf, ORDERS };
})();
