"use strict";
// Rows come in by gallery.add(); whatever a file name or a manifest says reaches the page as text, never as HTML.
const gallery = (() => {
  const ROW = 64, SPARE = 6;
  const SYMBOL = { positive: "▲", negative: "▽", uncertain: "◇" };
  const NOUN = { images: "images", studies: "studies", rejected: "rejected files" };
  const $ = (id) => document.getElementById(id);
  const rows = { images: [], studies: [], rejected: [] };
  const imagesOf = new Map();  // study -> its images
  const state = { view: "images", map: true, opacity: 100, beside: false };
  let shown = [], position = -1, drawn = new Map(), waiting = false, loaded = false;

  const PICKERS = {
    images: (r) => ({ key: `${r[0]}#${r[5] ?? ""}`, uri: r[0], label: r[1], probability: r[2], study: r[3], cam: r[4], frame: r[5], further: r[6] }),
    studies: (r) => ({ key: `study ${r[0]}`, uri: r[0], study: r[0], label: r[1], probability: r[2], images: r[3], frame: null, further: {} }),
    rejected: (r) => ({ key: `${r[0]}#${r[3] ?? ""}`, uri: r[0], reason: r[1], detail: r[2], frame: r[3], study: "", further: {} }),
  };

  function add(kind, more) {
    for (const values of more) {
      const row = PICKERS[kind](values);
      row.words = [row.uri, row.study, row.detail, ...Object.values(row.further)].join("\n").toLowerCase();
      rows[kind].push(row);
      if (kind === "images") imagesOf.has(row.study) ? imagesOf.get(row.study).push(row) : imagesOf.set(row.study, [row]);
    }
    choices("label", "images", (row) => row.label);
    choices("reason", "rejected", (row) => row.reason);
    later();
  }

  function choices(id, kind, value) {
    const known = new Set([...$(id).options].map((option) => option.value));
    for (const name of [...new Set(rows[kind].map(value))].sort()) if (!known.has(name)) $(id).append(new Option(name, name));
  }

  // ---- marks -------------------------------------------------------------------------------------------------------------
  const STORE = `humerus-gallery:${RUN.key}`;
  let marks = {};
  try { marks = JSON.parse(localStorage.getItem(STORE)) ?? {}; } catch { /* no storage, or none of ours */ }

  function mark(row, value) {
    if (!row || state.view === "rejected") return;
    if (value) marks[row.key] = [value, new Date().toISOString()];
    else delete marks[row.key];
    keep();
    const next = shown[position + 1]?.key;
    refresh(value && next ? next : row.key);
  }

  function keep() {
    let kept = true;
    try { localStorage.setItem(STORE, JSON.stringify(marks)); } catch { kept = false; }
    const number = Object.keys(marks).length;
    $("marked").textContent = `${number} marked${kept ? "" : "; this browser keeps none of it: export before you close"}`;
    $("export").disabled = $("forget").disabled = !number;
  }

  function exportMarks() {
    const quoted = (value) => /[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value;
    const lines = [["kind", "uri", "frame", "study", "label", "probability", "mark", "marked_at", "model"]];
    for (const kind of ["images", "studies"]) {
      for (const row of rows[kind]) {
        const marked = marks[row.key];
        if (marked) lines.push([kind === "images" ? "image" : "study", kind === "images" ? row.uri : "", row.frame ?? "", row.study, row.label, row.probability, ...marked, RUN.model]);
      }
    }
    const text = lines.map((line) => line.map((value) => quoted(String(value))).join(",")).join("\r\n") + "\r\n";
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = "marks.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  // ---- what is listed ----------------------------------------------------------------------------------------------------
  const ORDERS = {
    high: (a, b) => b.probability - a.probability,
    low: (a, b) => a.probability - b.probability,
    near: (a, b) => Math.abs(a.probability - RUN.threshold) - Math.abs(b.probability - RUN.threshold),
    path: (a, b) => (a.uri < b.uri ? -1 : a.uri > b.uri ? 1 : (a.frame ?? 0) - (b.frame ?? 0)),
  };

  function listed() {
    const text = $("text").value.toLowerCase(), study = $("study").value.toLowerCase();
    const label = $("label").value, reason = $("reason").value, wanted = $("mark").value;
    const words = (row) => !text || row.words.includes(text);
    const found = rows[state.view].filter((row) => {
      if (state.view === "rejected") return (!reason || row.reason === reason) && words(row) && !study;
      return (!label || row.label === label) && (!study || row.study.toLowerCase().includes(study))
        && (words(row) || (state.view === "studies" && (imagesOf.get(row.study) ?? []).some(words)))
        && (!wanted || (marks[row.key]?.[0] ?? "none") === wanted);
    });
    // Rows come sorted by probability, highest first; sorting is stable.
    const order = $("order").value;
    return state.view !== "rejected" && order !== "high" ? found.sort(ORDERS[order]) : found;
  }

  function refresh(key = shown[position]?.key) {
    const before = position;
    shown = listed();
    position = shown.findIndex((row) => row.key === key);
    if (position < 0 && shown.length) position = Math.max(0, Math.min(before, shown.length - 1));
    document.body.dataset.view = state.view;
    for (const button of document.querySelectorAll("nav button")) button.setAttribute("aria-pressed", button.dataset.view === state.view);
    const of = rows[state.view].length;
    $("count").textContent = `${shown.length === of ? of : `${shown.length} of ${of}`} ${NOUN[state.view]}${loaded ? "" : ", loading"}`;
    $("height").style.height = `${shown.length * ROW}px`;
    for (const element of drawn.values()) element.remove();
    drawn = new Map();
    select(position);
  }

  function later() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; refresh(); });
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
    element.addEventListener("click", () => select(index));
    const words = make("span", "words");
    words.append(make("span", "name", nameOf(row)), make("span", "where", state.view === "rejected" ? row.reason : whereOf(row)));
    if (state.view === "rejected") { element.append(words); return element; }
    const thumb = make("span", "thumb"), cam = row.cam ?? (imagesOf.get(row.study) ?? [])[0]?.cam;
    if (cam) thumb.append(thumbnail(cam));
    const figures = make("span", "figures");
    const marked = { agree: " ✓ agree", disagree: " ✗ disagree" }[marks[row.key]?.[0]] ?? "";
    figures.append(make("span", `chip ${row.label}`, row.probability.toFixed(3)), make("small", "", `${SYMBOL[row.label] ?? ""} ${row.label}${marked}`));
    element.append(thumb, words, figures);
    return element;
  }

  // ---- the selected image or study ---------------------------------------------------------------------------------------
  function drawSelected() {
    const row = shown[position], area = $("selected");
    area.replaceChildren();
    const marked = marks[row?.key]?.[0];
    for (const name of ["agree", "disagree"]) { $(name).setAttribute("aria-pressed", marked === name); $(name).disabled = !row; }
    $("note").hidden = true;
    if (!row) { area.append(make("p", "absent", loaded ? "Nothing is listed: no row fits the filters." : "Loading.")); return; }
    area.append(make("h2", "", nameOf(row)), facts(row));
    if (state.view === "rejected") area.append(make("p", "", row.detail));
    if (state.view === "images") {
      const pictures = make("div", "pictures single");
      area.append(pictures);
      // What the window leaves below the facts; where the page scrolls as a whole, most of the window.
      const room = area.scrollHeight > area.clientHeight || innerWidth <= 760 ? 0 : area.clientHeight - (pictures.offsetTop - area.offsetTop) - 20;
      pictures.append(pair(row, Math.max(room, 0.5 * innerHeight)));
    }
    if (state.view === "studies") {
      const pictures = make("div", "pictures");
      for (const image of imagesOf.get(row.study) ?? []) {
        const figure = make("figure");
        figure.append(pair(image, 0.45 * innerHeight), caption(image));
        pictures.append(figure);
      }
      area.append(pictures);
    }
    look();
  }

  function facts(row) {
    const list = make("div", "facts");
    const fact = (name, value, kind = "") => { const span = make("span", "", `${name} `); span.append(make("b", kind, value)); list.append(span); };
    if (state.view === "rejected") { fact("reason", row.reason); fact("file", row.uri); return list; }
    fact("probability", row.probability.toFixed(4));
    fact("label", `${SYMBOL[row.label] ?? ""} ${row.label}`, row.label);
    if (state.view === "studies") fact("images", String(row.images));
    else {
      const study = make("span", "", "study "), button = make("button", "", row.study);
      button.type = "button";
      button.addEventListener("click", () => openStudy(row));
      study.append(button);
      list.append(study);
      if (row.frame !== null) fact("frame", String(row.frame));
      for (const [name, value] of Object.entries(row.further)) fact(name, String(value));
      fact("file", row.uri);
    }
    return list;
  }

  function caption(image) {
    const text = make("figcaption", "", `${nameOf(image)} `);
    text.append(make("b", image.label, `${SYMBOL[image.label] ?? ""} ${image.label} ${image.probability.toFixed(3)}`));
    return text;
  }

  // The picture with its map over the original, at most `height` pixels high, and the original alone to stand beside it.
  function pair(row, height) {
    const both = make("div", "pair"), original = originalOf(row);
    const name = `${nameOf(row)}, ${row.label}, probability ${row.probability.toFixed(3)}`;
    if (!row.cam && !original) { both.append(make("p", "absent", RUN.packed ? "The map is packed: humerus-overlay draws it." : "No picture was kept of this image.")); return both; }
    const picture = make("div", "picture"), plain = make("div", "picture plain");
    const sized = (wide, high) => {
      for (const box of [picture, plain]) {
        box.style.aspectRatio = `${wide} / ${high}`;
        box.style.width = `min(100%, ${Math.round((height * wide) / high)}px)`;
      }
    };
    const absent = () => picture.replaceWith(make("p", "absent", RUN.packed ? "The map is packed: humerus-overlay draws it." : "The picture is not where it was written."));
    if (RUN.style === "side_by_side" && row.cam) {
      const under = half(row.cam, "", "");
      under.firstChild.addEventListener("load", (event) => sized(event.target.naturalWidth / 2, event.target.naturalHeight));
      under.firstChild.addEventListener("error", absent);
      picture.append(under, Object.assign(half(row.cam, `${name}, with its map`, "right"), { className: "half right over" }));
      plain.append(half(row.cam, `${name}, original`, ""));
      picture.classList.add("fades");
    } else {
      if (row.cam) {
        const over = image(row.cam, `${name}, with its map`);
        over.className = "over";
        over.addEventListener("load", () => { sized(over.naturalWidth, over.naturalHeight); if (original) addOriginal(picture, plain, original, over, name); });
        over.addEventListener("error", absent);
        picture.append(over);
      } else {
        const only = image(original, name);
        only.addEventListener("load", () => sized(only.naturalWidth, only.naturalHeight));
        only.addEventListener("error", absent);
        picture.append(only);
      }
    }
    both.append(picture);
    if (row.cam) both.append(plain);
    return both;
  }

  function addOriginal(picture, plain, original, over, name) {
    const under = image(original, "");
    under.addEventListener("load", () => {
      // Another shape is another picture, or one that the browser turns and the program doesn't.
      const shape = (img) => img.naturalWidth / img.naturalHeight;
      if (Math.abs(shape(under) / shape(over) - 1) > 0.03) return look();
      picture.prepend(under);
      picture.classList.add("fades");
      plain.append(image(original, `${name}, original`));
      look();
    });
    under.addEventListener("error", look);
  }

  function look() {
    const viewer = $("viewer"), fades = Boolean(document.querySelector("#selected .fades"));
    viewer.style.setProperty("--map", state.map ? state.opacity / 100 : 0);
    viewer.classList.toggle("beside", state.beside && fades);
    $("map").setAttribute("aria-pressed", state.map);
    $("beside").setAttribute("aria-pressed", state.beside);
    $("opacity").value = state.opacity;
    $("percent").textContent = `${state.opacity} %`;
    for (const id of ["map", "opacity", "beside"]) $(id).disabled = !fades;
    const overlays = document.querySelector("#selected .over");
    $("note").hidden = fades || !overlays;
    $("note").textContent = "The original can't be shown from here (not a picture for browsers, or not where it was): the map is drawn in and doesn't fade. humerus-score --cam=side_by_side keeps both.";
  }

  function originalOf(row) {
    const { from, to } = RUN.originals;
    if (row.frame !== null || !row.uri.startsWith(from) || /\.(dcm|dicom|tiff?)$/i.test(row.uri)) return null;
    return to + path(row.uri.slice(from.length));
  }

  const path = (name) => name.split("/").map(encodeURIComponent).join("/");

  function image(source, text) {
    const element = new Image();
    element.decoding = "async";
    element.alt = text;
    element.src = source;
    return element;
  }

  function half(source, text, side) {
    const element = make("div", `half ${side}`);
    element.append(image(source, text));
    return element;
  }

  function thumbnail(cam) {
    const element = image(cam, "");
    if (RUN.style !== "side_by_side") return element;
    const box = make("div", "picture");
    element.addEventListener("load", () => { box.style.aspectRatio = `${element.naturalWidth / 2} / ${element.naturalHeight}`; });
    const right = make("div", "half right");
    right.append(element);
    box.append(right);
    return box;
  }

  function make(tag, kind = "", text) {
    const element = document.createElement(tag);
    if (kind) element.className = kind;
    if (text !== undefined) element.textContent = text;
    return element;
  }

  const nameOf = (row) => (state.view === "studies" && row.images ? row.study : row.uri.slice(row.uri.lastIndexOf("/") + 1)) + (row.frame === null ? "" : `, frame ${row.frame}`);
  const whereOf = (row) => (state.view === "studies" ? `${row.images} image${row.images === 1 ? "" : "s"}` : row.study);

  function openStudy(row) {
    if (!row || state.view === "rejected") return;
    if (state.view === "studies") { view("images", (imagesOf.get(row.study) ?? [])[0]?.key); return; }
    view("studies", `study ${row.study}`);
  }

  function view(name, key) {
    state.view = name;
    position = 0;
    $("list").scrollTop = 0;
    refresh(key ?? "");
  }

  function fade(change) {
    state.opacity = Math.max(0, Math.min(100, state.opacity + change));
    state.map = true;
    look();
  }

  // ---- what the reader does ----------------------------------------------------------------------------------------------
  const toggle = (name) => { state[name] = !state[name]; look(); };
  const help = () => { $("help").hidden = !$("help").hidden; $("help-button").setAttribute("aria-expanded", !$("help").hidden); };
  const page = () => Math.max(1, Math.floor($("list").clientHeight / ROW) - 1);
  const KEYS = {
    j: () => select(position + 1), k: () => select(position - 1),
    ArrowDown: () => select(position + 1), ArrowUp: () => select(position - 1),
    PageDown: () => select(position + page()), PageUp: () => select(position - page()),
    Home: () => select(0), End: () => select(shown.length - 1),
    a: () => mark(shown[position], "agree"), d: () => mark(shown[position], "disagree"), u: () => mark(shown[position], ""),
    m: () => toggle("map"), b: () => toggle("beside"), s: () => openStudy(shown[position]),
    "[": () => fade(-10), "]": () => fade(10), "/": () => $("text").focus(), "?": help,
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const field = event.target.closest?.("input, select");
    if (field && event.key === "Escape") { field.blur(); $("list").focus(); return; }
    if (field && (field.type !== "range" || event.key.startsWith("Arrow") || ["Home", "End", "PageUp", "PageDown"].includes(event.key))) return;
    const action = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (action) { event.preventDefault(); action(); }
  });
  $("filters").addEventListener("input", () => view(state.view));
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("list").addEventListener("scroll", drawList);
  addEventListener("resize", () => select(position));
  $("opacity").addEventListener("input", () => { state.opacity = Number($("opacity").value); state.map = true; look(); });
  $("map").addEventListener("click", () => toggle("map"));
  $("beside").addEventListener("click", () => toggle("beside"));
  $("help-button").addEventListener("click", help);
  $("agree").addEventListener("click", () => mark(shown[position], marks[shown[position]?.key]?.[0] === "agree" ? "" : "agree"));
  $("disagree").addEventListener("click", () => mark(shown[position], marks[shown[position]?.key]?.[0] === "disagree" ? "" : "disagree"));
  $("export").addEventListener("click", exportMarks);
  $("forget").addEventListener("click", () => { if (confirm("Forget every mark of this gallery?")) { marks = {}; keep(); refresh(); } });
  for (const button of document.querySelectorAll("nav button")) button.addEventListener("click", () => view(button.dataset.view));

  keep();
  return { add, complete() { loaded = true; later(); } };
})();
