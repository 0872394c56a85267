"use strict";
// Calls against labels at a threshold: outcomes, and rates with Wilson's 95 % intervals. For the report and the gallery.
const $ = (id) => document.getElementById(id);

// A probability that is not 0 or 1 never reads as one.
function shownProbability(value, digits = 3) {
  const step = 10 ** -digits;
  if (value < 1 && value > 1 - step) return `> ${(1 - step).toFixed(digits)}`;
  return value > 0 && value < step ? `< ${step.toFixed(digits)}` : value.toFixed(digits);
}

const confusion = (() => {
  const OUTCOME = { tp: "true positive", fp: "false positive", fn: "false negative", tn: "true negative" };
  const Z = 1.959964;

  const outcomeOf = (label, probability, threshold) => (probability >= threshold ? (label ? "tp" : "fp") : (label ? "fn" : "tn"));

  function rate(name, k, n) {
    if (!n) return `${name} undefined`;
    const share = k / n, square = Z * Z, centre = (share + square / (2 * n)) / (1 + square / n);
    const half = (Z * Math.sqrt(share * (1 - share) / n + square / (4 * n * n))) / (1 + square / n);
    return `${name} ${share.toFixed(3)} (${Math.max(0, centre - half).toFixed(3)} to ${Math.min(1, centre + half).toFixed(3)})`;
  }

  // The four buttons of the matrix: their counts, and which outcome is listed.
  function show(count, listed) {
    for (const name of Object.keys(OUTCOME)) {
      $(name).querySelector("b").textContent = count[name];
      $(name).setAttribute("aria-pressed", listed === name);
    }
    return [rate("Sensitivity", count.tp, count.tp + count.fn), rate("specificity", count.tn, count.tn + count.fp)];
  }

  return { OUTCOME, outcomeOf, rate, show };
})();
