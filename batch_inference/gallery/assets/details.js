"use strict";
// What stands of the selected image, study or rejected file: its facts, and its pictures.
const details = (() => {
  const FIGURES = 24;  // images drawn at a time
  const MARK = { agree: "✓ agree", disagree: "✗ disagree", changed: "label changed since" };
  const OUTCOME = { tp: "true positive", fp: "false positive", fn: "false negative", tn: "true negative" };
  const { imagesIn, labelOf, nameOf, toldOf, sizeOf } = table;

  function drawImage(row, area) {
    const single = make("div", "pictures single");
    single.append(pictures.pair(row, toldOf(row)));
    area.append(single);
  }

  // Of the thousands of images that a class folder makes one study, only as many are drawn as are looked at.
  function drawStudy(row, area) {
    const grid = make("div", "pictures"), rest = make("p", "rest"), images = imagesIn(row.study);
    const reached = new IntersectionObserver((entries) => { if (entries.at(-1).isIntersecting) more(); });
    let from = 0;
    function more() {
      grid.append(...images.slice(from, from + FIGURES).map(figureOf));
      from += FIGURES;
      rest.textContent = from < images.length ? `${from} of ${images.length} images` : "";
      // Observed anew, it tells once more where the end is in sight still.
      reached.disconnect();
      if (from < images.length) reached.observe(rest);
      pictures.look();
    }
    area.append(grid, rest);
    more();
  }

  function drawRejected(row, area) {
    area.append(make("p", "", row.detail));
  }

  function figureOf(image) {
    const figure = make("figure"), caption = make("figcaption");
    caption.append(make("bdi", "", nameOf(image)), " ", make("b", image.label, `${labelOf(image)} ${image.probability.toFixed(3)}`), ` ${image.further.view ?? ""}`);
    figure.append(pictures.pair(image, toldOf(image)), caption);
    return figure;
  }

  function fact(name, value) {
    const element = make("span", "", `${name} `);
    element.append(make("bdi", "", value));
    return element;
  }

  function headOf(row) {
    const head = make("div", "facts");
    head.append(makeNamed("h2", "", nameOf(row)));
    if (row.kind === "rejected") { head.append(fact("reason", row.reason)); return head; }
    head.append(fact("probability", row.probability.toFixed(4)), fact("label", labelOf(row)));
    const outcome = truth.outcome(row, imagesIn);
    if (outcome) head.append(fact("at the threshold a", OUTCOME[outcome]));
    if (row.kind === "study") head.append(fact("study of", sizeOf(row)));
    if (marks.standing(row) === "changed") {
      const { mark, label, probability } = marks.of(row);
      head.append(fact("marked", `${MARK[mark]} with ${labelOf({ label })} ${probability.toFixed(4)}; ${MARK.changed}`));
    }
    return head;
  }

  function originOf(row, openStudy) {
    const origin = make("div", "facts origin");
    if (row.study) {
      const study = make("span", "", "study ");
      study.append(makeButton(row.study, openStudy));
      origin.append(study);
    }
    if (row.frame !== null) origin.append(fact("frame", row.frame));
    origin.append(...Object.entries(row.further).map(([name, value]) => fact(name, value)), pathOf(row));
    return origin;
  }

  function pathOf(row) {
    const file = make("span", "", "file "), address = addressOf(row.uri), copy = makeButton("Copy path", () => {
      copyText(row.uri);
      copy.textContent = "Copied";
    });
    const name = make(address ? "a" : "bdi", "", row.uri);
    if (address) Object.assign(name, { href: address, target: "_blank", rel: "noreferrer" });
    file.append(name, " ", copy);
    return file;
  }

  // The clipboard of a page without a server takes only what is selected in it.
  function copyText(text) {
    const field = make("textarea");
    field.value = text;
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }

  function draw(row, area, openStudy) {
    area.append(headOf(row));
    if (row.uri) area.append(originOf(row, openStudy));
    ({ image: drawImage, study: drawStudy, rejected: drawRejected })[row.kind](row, area);
  }

  return { draw, headOf, MARK, OUTCOME };
})();
