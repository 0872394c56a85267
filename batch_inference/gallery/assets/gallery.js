"use strict";
// List the rows and show the selected one. The files of rows call gallery.add().
const gallery = (() => {
  const ROW = 64, SPARE = 6, SETTLED = 200;  // px, rows, ms
  const NOUN = { images: "images", studies: "studies", rejected: "rejected files" };
  const { rows, imagesIn, labelOf, nameOf, many, sizeOf, ORDERS } = table;
  const { MARK } = details;
  const FIELDS = ["text", "study", "label", "reason", "mark", "order", "truth", "outcome"];
  // As in the style sheet.
  const narrow = matchMedia("(max-width: 760px)"), low = matchMedia("(max-height: 700px)");
  let listing = "images", shown = [], position = -1, drawn = new Map(), drawnKey;
  let waiting = false, loaded = false, saving = 0;

  function add(kind, more) {
    table.add(kind, more);
    addOptions("label", rows.images.map((row) => row.label));
    addOptions("reason", rows.rejected.map((row) => row.reason));
    scheduleRefresh();
  }

  function addOptions(id, values) {
    const known = new Set([...$(id).options].map((option) => option.value));
    for (const name of [...new Set(values)].sort())
      if (!known.has(name)) $(id).append(new Option(visible(name), name));
  }

  // ---- the list --------------------------------------------------------------------------------
  const valueOf = (id) => $(id).value;

  function filterRows() {
    const [label, reason, mark, outcome] = ["label", "reason", "mark", "outcome"].map(valueOf);
    const [text, study] = ["text", "study"].map((id) => valueOf(id).toLowerCase());
    const words = (row) => !text || row.words.includes(text) || marks.words(row).includes(text);
    if (listing === "rejected")
      return rows.rejected.filter((row) => (!reason || row.reason === reason) && words(row));
    const found = rows[listing].filter(
      (row) =>
        (!label || row.label === label) &&
        (!study || row.study.toLowerCase().includes(study)) &&
        (words(row) || (row.kind === "study" && imagesIn(row.study).some(words))) &&
        (!mark || marks.markState(row) === mark),
    );
    if ($("truth").value) truth.show(found, imagesIn, NOUN[listing]);
    const kept =
      outcome && $("truth").value
        ? found.filter((row) => truth.outcome(row, imagesIn) === outcome)
        : found;
    // Rows come sorted by probability, highest first; sorting is stable.
    const order = $("order").value;
    return order === "high" ? kept : kept.sort(ORDERS[order]);
  }

  function refresh(key = shown[position]?.key) {
    const before = position, of = rows[listing].length;
    shown = filterRows();
    position = shown.findIndex((row) => row.key === key);
    if (position < 0) position = before;
    document.body.dataset.view = listing;
    for (const button of document.querySelectorAll("nav button"))
      button.setAttribute("aria-pressed", button.dataset.view === listing);
    const number = shown.length === of ? of : `${shown.length} of ${of}`;
    $("count").textContent = `${number} ${NOUN[listing]}${loaded ? "" : ", loading"}`;
    $("height").style.height = `${shown.length * ROW}px`;
    for (const element of drawn.values()) element.remove();
    drawn = new Map();
    select(position);
    if (shown.length && !performance.getEntriesByName("first view").length)
      performance.mark("first view");
  }

  function scheduleRefresh() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; refresh(); });
  }

  function view(name, key = "") {
    listing = name;
    position = 0;
    $("list").scrollTop = 0;
    refresh(key);
  }

  // ---- the address: a link opens the same case, filters and threshold --------------------------
  function save() {
    clearTimeout(saving);
    // Browsers refuse addresses that change too often, as with a key held down.
    if (loaded)
      saving = setTimeout(() => history.replaceState(null, "", `#${describe()}`), SETTLED);
  }

  function describe() {
    const params = new URLSearchParams({ view: listing });
    for (const name of FIELDS)
      if ($(name).value && $(name).value !== $(name).dataset.start) params.set(name, $(name).value);
    if (truth.isMoved()) params.set("threshold", truth.threshold());
    if (shown[position]) params.set("case", shown[position].key);
    return params;
  }

  function restore() {
    const params = new URLSearchParams(location.hash.slice(1)), name = params.get("view");
    for (const field of FIELDS) {
      $(field).value = params.get(field) ?? $(field).dataset.start ?? "";
      if ($(field).selectedIndex === -1) $(field).selectedIndex = 0;
    }
    truth.moveTo(params.has("threshold") ? Number(params.get("threshold")) : NaN);
    view(name in rows ? name : "images", params.get("case") ?? "");
  }

  function select(index) {
    position = shown.length ? Math.max(0, Math.min(index, shown.length - 1)) : -1;
    const list = $("list"), top = position * ROW;
    if (position >= 0) {
      if (top < list.scrollTop) list.scrollTop = top;
      else if (top + ROW > list.scrollTop + list.clientHeight)
        list.scrollTop = top + ROW - list.clientHeight;
    }
    drawList();
    drawSelected();
    save();
  }

  function drawList() {
    const list = $("list");
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - SPARE);
    const last = Math.min(
      shown.length,
      Math.ceil((list.scrollTop + list.clientHeight) / ROW) + SPARE,
    );
    for (const [index, element] of drawn)
      if (index < first || index >= last) {
        element.remove();
        drawn.delete(index);
      }
    for (let index = first; index < last; index++) {
      if (!drawn.has(index)) {
        drawn.set(index, listRow(shown[index], index));
        list.append(drawn.get(index));
      }
      drawn.get(index).setAttribute("aria-selected", index === position);
    }
    if (drawn.has(position)) list.setAttribute("aria-activedescendant", drawn.get(position).id);
    else list.removeAttribute("aria-activedescendant");
  }

  function listRow(row, index) {
    const element = make("div", "row");
    element.id = `row-${index}`;
    element.style.top = `${index * ROW}px`;
    element.setAttribute("role", "option");
    element.setAttribute("aria-setsize", shown.length);
    element.setAttribute("aria-posinset", index + 1);
    element.addEventListener("click", () => {
      select(index);
      if (narrow.matches) $("viewer").scrollIntoView();
    });
    const where = { image: () => row.study, study: () => sizeOf(row), rejected: () => row.reason }[
      row.kind
    ]();
    const words = make(
      "span",
      "words",
      makeNamed("span", "name", nameOf(row)),
      makeNamed("span", "where", where),
    );
    element.append(words);
    if (row.kind === "rejected") return element;
    const image = row.kind === "study" ? imagesIn(row.study)[0] : row,
      outcome = truth.outcome(row, imagesIn);
    words.before(make("span", "thumb", ...(image?.cam ? [pictures.thumbnail(image)] : [])));
    const label = make(
      "small",
      "",
      labelOf(row),
      ...(outcome ? [" ", make("abbr", `outcome ${outcome}`, outcome.toUpperCase())] : []),
    );
    words.after(
      make(
        "span",
        "figures",
        make("span", `chip ${row.label}`, shownProbability(row.probability)),
        label,
        make("small", "mark", MARK[marks.markState(row)] ?? ""),
      ),
    );
    return element;
  }

  // ---- the selected image or study -------------------------------------------------------------
  function drawSelected() {
    const row = shown[position], area = $("selected"), entry = row && marks.entryOf(row);
    for (const name of ["agree", "disagree"]) {
      $(name).disabled = !row;
      $(name).setAttribute("aria-pressed", Boolean(row) && marks.markState(row) === name);
    }
    for (const name of ["tags", "note-text"]) {
      $(name).disabled = !row;
      $(name).value = entry?.[name === "tags" ? name : "note"] ?? "";
    }
    // A row that is shown already keeps its pictures and their zoom.
    if (row && loaded && row.key === drawnKey) {
      area.firstChild.replaceWith(details.headOf(row));
      return;
    }
    drawnKey = loaded ? row?.key : undefined;
    area.replaceChildren();
    pictures.clear();
    area.scrollTop = 0;
    if (row) details.draw(row, area, openStudy);
    else
      area.append(
        make("p", "absent", loaded ? "Nothing is listed: no row fits the filters." : "Loading."),
      );
    pictures.applyState();
  }

  function openStudy() {
    const row = shown[position];
    if (row?.kind === "image") view("studies", `study ${row.study}`);
    if (row?.kind === "study") view("images", imagesIn(row.study)[0]?.key);
  }

  // ---- marks, tags and notes -------------------------------------------------------------------
  function mark(name) {
    const row = shown[position];
    if (!row || row.kind === "rejected") return;
    const next = (name && shown[position + 1]) || row;
    marks.set(row, { mark: name });
    showMarkCount();
    if ($("mark").value) { refresh(next.key); return; }
    redraw(position);
    select(next === row ? position : position + 1);
  }

  // Redraw one row only, so that the time doesn't grow with the list.
  function redraw(index) {
    drawn.get(index)?.remove();
    drawn.delete(index);
  }

  function note() {
    const row = shown[position];
    if (!row || row.kind === "rejected") return;
    marks.set(row, { tags: $("tags").value.trim(), note: $("note-text").value.trim() });
    showMarkCount();
  }

  function showMarkCount() {
    const number = marks.number();
    const advice = "; this browser doesn't keep them: export before you close";
    $("marked").textContent = `${number} marked${marks.areKept() ? "" : advice}`;
    for (const name of ["export", "export-json", "delete-marks"]) $(name).disabled = !number;
  }

  function deleteMarks() {
    const keys = marks.keys(),
      here = new Set([...rows.images, ...rows.studies].map((row) => row.key));
    const outside = keys.filter((key) => !here.has(key)).length;
    const others = outside ? ` ${outside} of them lie outside this page.` : "";
    if (!confirm(`Delete ${many(keys.length, "mark")}?${others}`)) return;
    keys.forEach(marks.remove);
    showMarkCount();
    refresh();
  }

  // ---- keys and controls -----------------------------------------------------------------------
  const page = () => Math.max(1, Math.floor($("list").clientHeight / ROW) - 1);
  const MOVES = {
    j: () => select(position + 1), k: () => select(position - 1),
    ArrowDown: () => select(position + 1), ArrowUp: () => select(position - 1),
    PageDown: () => select(position + page()), PageUp: () => select(position - page()),
    Home: () => select(0), End: () => select(shown.length - 1),
  };
  const PANS = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };
  const ACTIONS = {
    a: () => mark("agree"),
    d: () => mark("disagree"),
    u: () => mark(""),
    s: openStudy,
    n: () => $("note-text").focus(),
    m: () => pictures.toggle("map"),
    o: () => pictures.toggle("masks"),
    b: () => pictures.toggle("beside"),
    w: () => pictures.toggle("windows"),
    i: () => pictures.toggle("invert"),
    r: pictures.reset,
    "[": () => pictures.fade(-10),
    "]": () => pictures.fade(10),
    "+": () => pictures.zoomBy(1.5),
    "-": () => pictures.zoomBy(1 / 1.5),
    "/": search,
    "?": () => help($("help").hidden),
    Escape: leave,
  };

  function help(open) {
    $("help").hidden = !open;
    $("help-button").setAttribute("aria-expanded", open);
  }

  function search() {
    $("filter-fold").open = true;
    $("text").focus();
  }

  function leave() {
    if ($("help").hidden) $("list").focus();
    else help(false);
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    // Fields, sliders and scrolled areas handle their own keys while they have the focus.
    if (event.target.matches("input:not([type=range]), select, textarea") && key !== "Escape")
      return;
    if (event.shiftKey && PANS[key]) {
      event.preventDefault();
      pictures.pan(...PANS[key]);
      return;
    }
    if (/^(Arrow|Page|Home|End)/.test(key) && event.target.closest("input[type=range], #selected"))
      return;
    const action = MOVES[key] ?? ACTIONS[key];
    // A key held down repeats moves only; other keys, and Enter on a button, act once.
    const isDone = event.repeat && (key in ACTIONS || key === "Enter");
    if (action || isDone) event.preventDefault();
    if (action && !isDone) action();
  });
  $("filters").addEventListener("input", () => view(listing));
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("list").addEventListener("scroll", drawList);
  addEventListener("resize", drawList);
  addEventListener("hashchange", restore);
  $("help-button").addEventListener("click", ACTIONS["?"]);
  for (const name of ["agree", "disagree"])
    $(name).addEventListener("click", () =>
      mark(marks.markState(shown[position]) === name ? "" : name),
    );
  for (const name of ["tags", "note-text"]) $(name).addEventListener("input", note);
  $("export").addEventListener("click", () => download("marks.csv", "text/csv", marks.csv()));
  $("export-json").addEventListener("click", () =>
    download("marks.json", "application/json", marks.json()),
  );
  $("delete-marks").addEventListener("click", deleteMarks);
  $("truth").addEventListener("input", () => view(listing));
  $("threshold").addEventListener("input", () => {
    truth.moveTo(Number($("threshold").value));
    scheduleRefresh();
  });
  $("reset-threshold").addEventListener("click", () => {
    truth.moveTo(NaN);
    scheduleRefresh();
  });
  for (const name of Object.keys(confusion.OUTCOME))
    $(name).addEventListener("click", () => {
      $("outcome").value = $("outcome").value === name ? "" : name;
      view(listing);
    });
  for (const button of document.querySelectorAll("nav button"))
    button.addEventListener("click", () => view(button.dataset.view));

  function complete() {
    loaded = true;
    const columns = truth.findColumns(rows.images);
    addOptions("truth", columns);
    $("truth").dataset.start = $("truth").value = columns[0] ?? "";
    $("outcome-field").hidden = $("truth-table").hidden = !columns.length;
    if (location.hash) restore();
    else scheduleRefresh();
  }

  const fold = () => {
    $("filter-fold").open = $("truth-table").open = !narrow.matches && !low.matches;
  };
  for (const query of [narrow, low]) query.addEventListener("change", fold);
  fold();
  showMarkCount();
  return { add, complete };
})();
