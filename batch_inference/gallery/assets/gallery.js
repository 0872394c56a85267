"use strict";
// The queue, and what is selected in it. Rows come in by gallery.add().
const gallery = (() => {
  const ROW = 64, SPARE = 6, SETTLED = 200;  // px, rows, ms
  const NOUN = { images: "images", studies: "studies", rejected: "rejected files" };
  const { rows, imagesIn, labelOf, nameOf, many, sizeOf, ORDERS } = table;
  const { MARK } = details;
  const FIELDS = ["text", "study", "label", "reason", "mark", "order", "truth", "outcome"];
  const narrow = matchMedia("(max-width: 760px)"), low = matchMedia("(max-height: 700px)");  // as in the style sheet
  let listing = "images", shown = [], position = -1, drawn = new Map(), waiting = false, loaded = false, saving = 0, drawnKey;

  function add(kind, more) {
    table.add(kind, more);
    choices("label", rows.images.map((row) => row.label));
    choices("reason", rows.rejected.map((row) => row.reason));
    later();
  }

  function choices(id, values) {
    const known = new Set([...$(id).options].map((option) => option.value));
    for (const name of [...new Set(values)].sort()) if (!known.has(name)) $(id).append(new Option(visible(name), name));
  }

  // ---- what is listed ----------------------------------------------------------------------------------------------------
  function listed() {
    const text = $("text").value.toLowerCase(), study = $("study").value.toLowerCase();
    const label = $("label").value, reason = $("reason").value, mark = $("mark").value, outcome = $("outcome").value;
    const words = (row) => !text || row.words.includes(text) || marks.words(row).includes(text);
    if (listing === "rejected") return rows.rejected.filter((row) => (!reason || row.reason === reason) && words(row));
    const found = rows[listing].filter((row) => (!label || row.label === label)
      && (!study || row.study.toLowerCase().includes(study))
      && (words(row) || (row.kind === "study" && imagesIn(row.study).some(words)))
      && (!mark || marks.standing(row) === mark));
    if ($("truth").value) truth.show(found, imagesIn, NOUN[listing]);
    const kept = outcome && $("truth").value ? found.filter((row) => truth.outcome(row, imagesIn) === outcome) : found;
    // Rows come sorted by probability, highest first; sorting is stable.
    const order = $("order").value;
    return order === "high" ? kept : kept.sort(ORDERS[order]);
  }

  function refresh(key = shown[position]?.key) {
    const before = position, of = rows[listing].length;
    shown = listed();
    position = shown.findIndex((row) => row.key === key);
    if (position < 0) position = before;
    document.body.dataset.view = listing;
    for (const button of document.querySelectorAll("nav button")) button.setAttribute("aria-pressed", button.dataset.view === listing);
    $("count").textContent = `${shown.length === of ? of : `${shown.length} of ${of}`} ${NOUN[listing]}${loaded ? "" : ", loading"}`;
    $("height").style.height = `${shown.length * ROW}px`;
    for (const element of drawn.values()) element.remove();
    drawn = new Map();
    select(position);
    if (shown.length && !performance.getEntriesByName("first view").length) performance.mark("first view");
  }

  function later() {
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

  // ---- the address: a link opens the same case, filters and threshold -------------------------------------------------------
  function save() {
    clearTimeout(saving);
    // Browsers refuse addresses that change too often, as with a key held down.
    if (loaded) saving = setTimeout(() => history.replaceState(null, "", `#${describe()}`), SETTLED);
  }

  function describe() {
    const said = new URLSearchParams({ view: listing });
    for (const name of FIELDS) if ($(name).value && $(name).value !== $(name).dataset.start) said.set(name, $(name).value);
    if (truth.isMoved()) said.set("threshold", truth.threshold());
    if (shown[position]) said.set("case", shown[position].key);
    return said;
  }

  function restore() {
    const said = new URLSearchParams(location.hash.slice(1)), name = said.get("view");
    for (const field of FIELDS) {
      $(field).value = said.get(field) ?? $(field).dataset.start ?? "";
      if ($(field).selectedIndex === -1) $(field).selectedIndex = 0;
    }
    truth.moveTo(said.has("threshold") ? Number(said.get("threshold")) : NaN);
    view(name in rows ? name : "images", said.get("case") ?? "");
  }

  function select(index) {
    position = shown.length ? Math.max(0, Math.min(index, shown.length - 1)) : -1;
    const list = $("list"), top = position * ROW;
    if (position >= 0) {
      if (top < list.scrollTop) list.scrollTop = top;
      else if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
    }
    drawList();
    drawSelected();
    save();
  }

  function drawList() {
    const list = $("list");
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - SPARE);
    const last = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + SPARE);
    for (const [index, element] of drawn) if (index < first || index >= last) { element.remove(); drawn.delete(index); }
    for (let index = first; index < last; index++) {
      if (!drawn.has(index)) { drawn.set(index, listRow(shown[index], index)); list.append(drawn.get(index)); }
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
    element.addEventListener("click", () => { select(index); if (narrow.matches) $("viewer").scrollIntoView(); });
    const where = { image: () => row.study, study: () => sizeOf(row), rejected: () => row.reason }[row.kind]();
    const words = make("span", "words", makeNamed("span", "name", nameOf(row)), makeNamed("span", "where", where));
    element.append(words);
    if (row.kind === "rejected") return element;
    const image = row.kind === "study" ? imagesIn(row.study)[0] : row, outcome = truth.outcome(row, imagesIn);
    words.before(make("span", "thumb", ...(image?.cam ? [pictures.thumbnail(image)] : [])));
    const label = make("small", "", labelOf(row), ...(outcome ? [" ", make("abbr", `outcome ${outcome}`, outcome.toUpperCase())] : []));
    words.after(make("span", "figures", make("span", `chip ${row.label}`, shownProbability(row.probability)), label, make("small", "mark", MARK[marks.standing(row)] ?? "")));
    return element;
  }

  // ---- the selected image or study ---------------------------------------------------------------------------------------
  function drawSelected() {
    const row = shown[position], area = $("selected"), said = row && marks.of(row);
    for (const name of ["agree", "disagree"]) {
      $(name).disabled = !row;
      $(name).setAttribute("aria-pressed", Boolean(row) && marks.standing(row) === name);
    }
    for (const name of ["tags", "note-text"]) { $(name).disabled = !row; $(name).value = said?.[name === "tags" ? name : "note"] ?? ""; }
    // What is shown already keeps its pictures, and with them its zoom.
    if (row && loaded && row.key === drawnKey) { area.firstChild.replaceWith(details.headOf(row)); return; }
    drawnKey = loaded ? row?.key : undefined;
    area.replaceChildren();
    pictures.clear();
    area.scrollTop = 0;
    if (row) details.draw(row, area, openStudy);
    else area.append(make("p", "absent", loaded ? "Nothing is listed: no row fits the filters." : "Loading."));
    pictures.look();
  }

  function openStudy() {
    const row = shown[position];
    if (row?.kind === "image") view("studies", `study ${row.study}`);
    if (row?.kind === "study") view("images", imagesIn(row.study)[0]?.key);
  }

  // ---- marks, tags and notes ---------------------------------------------------------------------------------------------
  function mark(name) {
    const row = shown[position];
    if (!row || row.kind === "rejected") return;
    const next = (name && shown[position + 1]) || row;
    marks.set(row, { mark: name });
    tellMarks();
    if ($("mark").value) { refresh(next.key); return; }
    redraw(position);
    select(next === row ? position : position + 1);
  }

  // The list stays as it is, which takes no time however long it is.
  function redraw(index) {
    drawn.get(index)?.remove();
    drawn.delete(index);
  }

  function note() {
    const row = shown[position];
    if (!row || row.kind === "rejected") return;
    marks.set(row, { tags: $("tags").value.trim(), note: $("note-text").value.trim() });
    tellMarks();
  }

  function tellMarks() {
    const number = marks.number();
    $("marked").textContent = `${number} marked${marks.areKept() ? "" : "; this browser doesn't keep them: export before you close"}`;
    for (const name of ["export", "export-json", "forget"]) $(name).disabled = !number;
  }

  function forgetMarks() {
    const keys = marks.keys(), here = new Set([...rows.images, ...rows.studies].map((row) => row.key));
    const outside = keys.filter((key) => !here.has(key)).length;
    if (!confirm(`Forget ${many(keys.length, "mark")}?${outside ? ` ${outside} of them lie outside this page.` : ""}`)) return;
    keys.forEach(marks.remove);
    tellMarks();
    refresh();
  }

  // ---- what the reader does ----------------------------------------------------------------------------------------------
  const page = () => Math.max(1, Math.floor($("list").clientHeight / ROW) - 1);
  const MOVES = {
    j: () => select(position + 1), k: () => select(position - 1),
    ArrowDown: () => select(position + 1), ArrowUp: () => select(position - 1),
    PageDown: () => select(position + page()), PageUp: () => select(position - page()),
    Home: () => select(0), End: () => select(shown.length - 1),
  };
  const PANS = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };
  const ACTIONS = {
    a: () => mark("agree"), d: () => mark("disagree"), u: () => mark(""), s: openStudy, n: () => $("note-text").focus(),
    m: () => pictures.toggle("map"), o: () => pictures.toggle("masks"), b: () => pictures.toggle("beside"),
    w: () => pictures.toggle("windows"), i: () => pictures.toggle("invert"), r: pictures.reset,
    "[": () => pictures.fade(-10), "]": () => pictures.fade(10), "+": () => pictures.zoomBy(1.5), "-": () => pictures.zoomBy(1 / 1.5),
    "/": search, "?": () => help($("help").hidden), Escape: leave,
  };

  function help(open) {
    $("help").hidden = !open;
    $("help-button").setAttribute("aria-expanded", open);
  }

  function search() {
    $("fold").open = true;
    $("text").focus();
  }

  function leave() {
    if ($("help").hidden) $("list").focus();
    else help(false);
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    // A field takes its keys itself, and what scrolls or slides moves itself while it has the focus.
    if (event.target.matches("input:not([type=range]), select, textarea") && key !== "Escape") return;
    if (event.shiftKey && PANS[key]) { event.preventDefault(); pictures.pan(...PANS[key]); return; }
    if (/^(Arrow|Page|Home|End)/.test(key) && event.target.closest("input[type=range], #selected")) return;
    const action = MOVES[key] ?? ACTIONS[key];
    // A key held down moves on and on, but does anything else once: so does Enter on a button.
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
  for (const name of ["agree", "disagree"]) $(name).addEventListener("click", () => mark(marks.standing(shown[position]) === name ? "" : name));
  for (const name of ["tags", "note-text"]) $(name).addEventListener("input", note);
  $("export").addEventListener("click", () => download("marks.csv", "text/csv", marks.csv()));
  $("export-json").addEventListener("click", () => download("marks.json", "application/json", marks.json()));
  $("forget").addEventListener("click", forgetMarks);
  $("truth").addEventListener("input", () => view(listing));
  $("threshold").addEventListener("input", () => { truth.moveTo(Number($("threshold").value)); later(); });
  $("run-threshold").addEventListener("click", () => { truth.moveTo(NaN); later(); });
  for (const name of Object.keys(confusion.OUTCOME)) $(name).addEventListener("click", () => { $("outcome").value = $("outcome").value === name ? "" : name; view(listing); });
  for (const button of document.querySelectorAll("nav button")) button.addEventListener("click", () => view(button.dataset.view));

  function complete() {
    loaded = true;
    const columns = truth.findColumns(rows.images);
    choices("truth", columns);
    $("truth").dataset.start = $("truth").value = columns[0] ?? "";
    $("outcome-field").hidden = $("against").hidden = !columns.length;
    if (location.hash) restore();
    else later();
  }

  const fold = () => { $("fold").open = $("against").open = !narrow.matches && !low.matches; };
  for (const query of [narrow, low]) query.addEventListener("change", fold);
  fold();
  tellMarks();
  return { add, complete };
})();
