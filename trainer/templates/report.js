"use strict";
// The threshold of the report, moved by the slider or on a curve: confusion, rates and cases follow.
(() => {
  const { threshold: fitted, cases, drawn } = JSON.parse($("cases").textContent);
  const { OUTCOME, rate } = confusion, MOST = 50, PAD = 0.02;  // rows listed; around the axes
  let threshold = fitted, outcome = "";

  const outcomeOf = ([, label, probability], at) => confusion.outcomeOf(label, probability, at);

  function count(at) {
    const found = { tp: 0, fp: 0, fn: 0, tn: 0 };
    for (const row of cases) found[outcomeOf(row, at)] += 1;
    return found;
  }

  // The points of each curve, one for each probability: x, y, threshold.
  const POINTS = {
    "figure-roc": ({ tp, fp, fn, tn }) => [fp / (fp + tn), tp / (tp + fn)],
    "figure-pr": ({ tp, fp, fn }) => [tp / (tp + fn), tp + fp ? tp / (tp + fp) : NaN],
  };
  const curves = [...document.querySelectorAll(".plot[data-axes]")].map((plot) => {
    const [left, top, right, bottom] = plot.dataset.axes.split(" ").map(Number), point = POINTS[plot.parentElement.id];
    const total = count(2), points = [], found = { ...total };
    const sorted = [...cases].sort((a, b) => b[2] - a[2]);
    sorted.forEach((row, i) => {
      found[row[1] ? "tp" : "fp"] += 1;
      found[row[1] ? "fn" : "tn"] -= 1;
      if (i + 1 === sorted.length || sorted[i + 1][2] !== row[2]) points.push([...point(found), row[2]]);
    });
    const dot = document.createElement("i"), tip = document.createElement("output");
    dot.className = "dot";
    tip.className = "tip";
    plot.append(dot, tip);
    const x = (value) => left + ((value + PAD) / (1 + 2 * PAD)) * (right - left), y = (value) => bottom - ((value + PAD) / (1 + 2 * PAD)) * (bottom - top);
    const nearest = (event) => {
      const box = plot.getBoundingClientRect(), at = [(event.clientX - box.x) / box.width, (event.clientY - box.y) / box.height];
      const far = ([px, py]) => Math.hypot((x(px) - at[0]) * box.width, (y(py) - at[1]) * box.height);
      return points.filter(([, py]) => !Number.isNaN(py)).reduce((best, other) => (far(other) < far(best) ? other : best));
    };
    const place = (values) => {
      dot.hidden = values.some(Number.isNaN);
      dot.style.left = `${100 * x(values[0])}%`;
      dot.style.top = `${100 * y(values[1])}%`;
    };
    plot.addEventListener("pointermove", (event) => {
      const found = nearest(event);
      place(found);
      tip.textContent = `threshold ${shownProbability(found[2])}: ${plot.dataset.x} ${found[0].toFixed(3)}, ${plot.dataset.y} ${found[1].toFixed(3)}`;
    });
    plot.addEventListener("pointerleave", () => { tip.textContent = ""; show(); });
    plot.addEventListener("click", (event) => {
      [, , threshold] = nearest(event);
      outcome = "";
      show();
      $("explore").scrollIntoView({ block: "nearest" });
    });
    return () => place(point(count(threshold)));
  });

  function list() {
    const rows = cases.filter((row) => !outcome || outcomeOf(row, threshold) === outcome);
    rows.sort((a, b) => Math.abs(a[2] - threshold) - Math.abs(b[2] - threshold));
    $("listed").replaceChildren(...rows.slice(0, MOST).map((row) => {
      const line = document.createElement("tr"), [path, label, probability] = row;
      for (const text of [path, shownProbability(probability), probability >= threshold ? "positive" : "negative", label ? "positive" : "negative"]) line.insertCell().textContent = text;
      if (path in drawn) {
        const link = document.createElement("a");
        link.href = `#error-${drawn[path]}`;
        link.textContent = path;
        line.cells[0].replaceChildren(link);
      }
      return line;
    }));
    $("listing").textContent = `${outcome ? `${OUTCOME[outcome]}s` : "images"}, nearest to the threshold first: ${Math.min(MOST, rows.length)} of ${rows.length}`;
  }

  function show() {
    const found = count(threshold);
    const rates = [...confusion.show(found, outcome), rate("PPV", found.tp, found.tp + found.fp), rate("NPV", found.tn, found.tn + found.fn)];
    $("moved").textContent = rates.join(", ");
    $("threshold").value = threshold;
    $("at").textContent = shownProbability(threshold);
    $("fitted").disabled = threshold === fitted;
    curves.forEach((place) => place());
    list();
  }

  $("threshold").addEventListener("input", () => { threshold = Number($("threshold").value); show(); });
  $("fitted").addEventListener("click", () => { threshold = fitted; show(); });
  for (const name of Object.keys(OUTCOME)) $(name).addEventListener("click", () => { outcome = outcome === name ? "" : name; show(); });
  $("explore").hidden = false;
  show();
})();
