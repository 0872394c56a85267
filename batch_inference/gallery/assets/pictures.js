"use strict";
// The picture of an image: its map over the original, and how much of it is seen.
const pictures = (() => {
  const state = { map: true, opacity: 100, beside: false };
  const PACKED = "The map is packed: humerus-overlay draws it.";

  // The picture with its map, and the original alone to stand beside it. The style sheet says how high they may be.
  function pair(row, name) {
    const both = make("div", "pair"), picture = make("div", "picture"), plain = make("div", "picture plain"), original = originalOf(row);
    if (!row.cam && !original) { both.append(make("p", "absent", RUN.packed ? PACKED : "No picture was kept of this image.")); return both; }
    const sized = (wide, high) => { for (const box of [picture, plain]) box.style.setProperty("--shape", wide / high); };
    const absent = () => picture.replaceWith(make("p", "absent", RUN.packed ? PACKED : "The picture is not where it was written."));
    const shown = (image, isLoaded) => { image.addEventListener("load", isLoaded); image.addEventListener("error", absent); };
    if (!row.cam) {
      const only = makeImage(original, name);
      shown(only, () => sized(only.naturalWidth, only.naturalHeight));
      picture.append(only);
    } else if (RUN.style === "side_by_side") {
      const under = half(row.cam, "");
      shown(under.firstChild, () => sized(under.firstChild.naturalWidth / 2, under.firstChild.naturalHeight));
      picture.append(under, half(row.cam, `${name}, with its map`, "right over"));
      picture.classList.add("fades");
      plain.append(half(row.cam, `${name}, original`));
    } else {
      const over = makeImage(row.cam, `${name}, with its map`);
      over.className = "over";
      shown(over, () => { sized(over.naturalWidth, over.naturalHeight); if (original) addOriginal(picture, plain, original, over, name); });
      picture.append(over);
    }
    both.append(picture);
    if (row.cam) both.append(plain);
    return both;
  }

  function addOriginal(picture, plain, original, over, name) {
    const under = makeImage(original, "");
    under.addEventListener("load", () => {
      // Another shape is another picture, or one that the browser turns and the program doesn't.
      const shape = (image) => image.naturalWidth / image.naturalHeight;
      if (Math.abs(shape(under) / shape(over) - 1) > 0.03) return look();
      picture.prepend(under);
      picture.classList.add("fades");
      plain.append(makeImage(original, `${name}, original`));
      look();
    });
    under.addEventListener("error", look);
  }

  function originalOf(row) {
    const { from, to } = RUN.originals;
    if (row.frame !== null || !row.uri.startsWith(from) || /\.(dcm|dicom|tiff?)$/i.test(row.uri)) return null;
    return to + row.uri.slice(from.length).split("/").map(encodeURIComponent).join("/");
  }

  function half(source, text, side = "") {
    const element = make("div", `half ${side}`);
    element.append(makeImage(source, text));
    return element;
  }

  function thumbnail(cam) {
    if (RUN.style !== "side_by_side") return makeImage(cam, "");
    const picture = make("div", "picture"), right = half(cam, "", "right"), image = right.firstChild;
    image.addEventListener("load", () => picture.style.setProperty("--shape", image.naturalWidth / 2 / image.naturalHeight));
    picture.append(right);
    return picture;
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
    $("note").hidden = fades || !document.querySelector("#selected .over");
  }

  function toggle(name) {
    state[name] = !state[name];
    look();
  }

  function fadeTo(opacity) {
    state.opacity = Math.max(0, Math.min(100, opacity));
    state.map = true;
    look();
  }

  $("map").addEventListener("click", () => toggle("map"));
  $("beside").addEventListener("click", () => toggle("beside"));
  $("opacity").addEventListener("input", () => fadeTo(Number($("opacity").value)));
  return { pair, thumbnail, look, toggle, fade: (change) => fadeTo(state.opacity + change) };
})();
