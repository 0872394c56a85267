"use strict";
// Show the facts and pictures of the selected image, study or rejected file.
const details = (() => {
  const FIGURES = 24;  // images drawn at a time
  const MARK = { agree: "✓ agree", disagree: "✗ disagree", changed: "label changed since" };
  const { imagesIn, labelOf, nameOf, describe, sizeOf } = table;

  // Draw the images of a study as the reader scrolls: it may have thousands.
  function drawStudy(row, area) {
    const grid = make("div", "pictures"),
      rest = make("p", "rest"),
      images = imagesIn(row.study);
    const reached = new IntersectionObserver((entries) => {
      if (entries.at(-1).isIntersecting) more();
    });
    let from = 0;
    function more() {
      grid.append(...images.slice(from, from + FIGURES).map(figureOf));
      from += FIGURES;
      rest.textContent = from < images.length ? `${from} of ${images.length} images` : "";
      // An observer reports changes only; observe again in case the end is still in view.
      reached.disconnect();
      if (from < images.length) reached.observe(rest);
      pictures.applyState();
    }
    area.append(grid, rest);
    more();
  }

  function figureOf(image) {
    const call = make("b", image.label, `${labelOf(image)} ${shownProbability(image.probability)}`);
    return make(
      "figure",
      "",
      pictures.pair(image, describe(image)),
      make(
        "figcaption",
        "",
        make("bdi", "", nameOf(image)),
        " ",
        call,
        ` ${image.further.view ?? ""}`,
      ),
    );
  }

  const fact = (name, value) => make("span", "", `${name} `, make("bdi", "", value));

  function headOf(row) {
    const head = make("div", "facts", makeNamed("h2", "", nameOf(row)));
    if (row.kind === "rejected") {
      head.append(fact("reason", row.reason));
      return head;
    }
    head.append(
      fact("probability", shownProbability(row.probability, 4)),
      fact("label", labelOf(row)),
    );
    const outcome = truth.outcome(row, imagesIn);
    if (outcome) head.append(fact("at the threshold a", confusion.OUTCOME[outcome]));
    if (row.kind === "study") head.append(fact("study of", sizeOf(row)));
    if (marks.markState(row) === "changed") {
      const { mark, label, probability } = marks.entryOf(row);
      const then = `${labelOf({ label })} ${shownProbability(probability, 4)}`;
      head.append(fact("marked", `${MARK[mark]} with ${then}; ${MARK.changed}`));
    }
    return head;
  }

  function originOf(row, openStudy) {
    const origin = make("div", "facts origin");
    if (row.study) origin.append(make("span", "", "study ", makeButton(row.study, openStudy)));
    if (row.frame !== null) origin.append(fact("frame", row.frame));
    origin.append(
      ...Object.entries(row.further).map(([name, value]) => fact(name, value)),
      pathOf(row),
    );
    return origin;
  }

  function pathOf(row) {
    const address = row.lost ? null : addressOf(row.uri),
      copy = makeButton("Copy path", () => {
        copyText(row.uri);
        copy.textContent = "Copied";
      });
    const name = address
      ? Object.assign(make("a", "", row.uri), {
          href: address,
          target: "_blank",
          rel: "noreferrer",
        })
      : make("bdi", "", row.uri);
    return make("span", "", "file ", name, " ", copy);
  }

  // Without a server, a page may copy only what is selected in it.
  function copyText(text) {
    const field = Object.assign(make("textarea"), { value: text });
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }

  function draw(row, area, openStudy) {
    area.append(headOf(row));
    if (row.uri) area.append(originOf(row, openStudy));
    if (row.kind === "image")
      area.append(make("div", "pictures single", pictures.pair(row, describe(row))));
    else if (row.kind === "study") drawStudy(row, area);
    else area.append(make("p", "", row.detail));
  }

  return { draw, headOf, MARK };
})();
