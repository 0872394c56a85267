"use strict";
// Draw the pictures of images, the map over the original, with zoom, window and opacity.
const pictures = (() => {
  const state = {
    map: true, masks: true, opacity: 100, beside: false,
    windows: false, level: 128, width: 256, invert: false,
  };
  const DRAW = `humerus-overlay --scored=${RUN.folder} --output=${RUN.folder}`;
  const PACKED = `The map is packed: ${DRAW} draws it.`, MOST = 16;
  let pairs = [];  // those that are shown

  // Return the picture with its map, and the original to stand beside it. The style sheet limits
  // their height.
  function pair(row, name) {
    const both = make("div", "pair"),
      picture = makePane(),
      plain = makePane("plain"),
      original = originalOf(row);
    if (!row.cam && !original) {
      both.append(make("p", "absent", RUN.packed ? PACKED : "No picture was kept of this image."));
      return both;
    }
    const sized = (wide, high) => {
      for (const box of [picture, plain]) box.style.setProperty("--shape", wide / high);
    };
    const absent = () =>
      picture.replaceWith(
        make("p", "absent", RUN.packed ? PACKED : "The picture is not where it was written."),
      );
    const shown = (image, isLoaded) => {
      image.addEventListener("load", isLoaded);
      image.addEventListener("error", absent);
    };
    const layers = picture.firstChild;
    const showAlone = (source) => {
      const only = makeImage(source, name);
      if (source === original) only.addEventListener("error", () => markUnavailable(row, original));
      shown(only, () => {
        sized(only.naturalWidth, only.naturalHeight);
        if (source === original) addMask(row, only, picture);
      });
      layers.replaceChildren(only);
    };
    if (!row.cam || (RUN.legend && RUN.style === "side_by_side")) showAlone(row.cam ?? original);
    else if (RUN.style === "side_by_side") {
      const under = half(row.cam, "");
      shown(under.firstChild, () =>
        sized(under.firstChild.naturalWidth / 2, under.firstChild.naturalHeight),
      );
      layers.append(under, half(row.cam, `${name}, with its map`, "right over"));
      picture.classList.add("fades");
      plain.firstChild.append(half(row.cam, `${name}, original`));
    } else {
      const over = makeImage(row.cam, `${name}, with its map`, "over");
      over.addEventListener("error", () => {
        if (original) { picture.classList.add("mapless"); showAlone(original); } else absent();
        applyState();
      });
      over.addEventListener("load", () => {
        sized(over.naturalWidth, over.naturalHeight);
        if (original) addOriginal(row, picture, plain, original, over, name);
        else keepMap(picture);
        addMask(row, over, picture, plain);
      });
      layers.append(over);
    }
    both.append(picture);
    if (row.cam) both.append(plain);
    zoomTogether(both);
    return both;
  }

  const makePane = (kind = "") => make("div", `picture ${kind}`, make("div", "layers"));

  // If the shapes differ, the original is another picture, or the browser rotates it (EXIF) and
  // humerus-score doesn't.
  const shapeOf = (image) => image.naturalWidth / image.naturalHeight;
  const isAlike = (one, other) => Math.abs(shapeOf(one) / shapeOf(other) - 1) <= 0.03;

  // Return whether a radiograph or mask has the shape of the drawn picture. Crop the strip with the
  // legend, which would move with the zoom (the head of the page has the legend too), and the
  // margin beside a picture that is narrower than the strip.
  function fits(image, over, panes) {
    if (!RUN.legend || !over.classList.contains("over")) return isAlike(image, over);
    const wide = over.naturalWidth > RUN.legend.width ? over.naturalWidth : narrowWidth(image),
      high = wide / shapeOf(image);
    const strip = over.naturalHeight - high;
    if (strip < RUN.legend.low || strip > RUN.legend.high) return false;
    for (const pane of panes) pane.style.setProperty("--shape", shapeOf(image));
    over.style.width = `${(100 * over.naturalWidth) / wide}%`;
    over.style.height = `${(100 * over.naturalHeight) / high}%`;
    return true;
  }

  // Return the width at which a narrow picture was drawn.
  const narrowWidth = ({ naturalWidth, naturalHeight }) =>
    Math.min(RUN.legend.width, naturalWidth * Math.min(1, RUN.legend.side / naturalHeight));

  // Leave the map as it was drawn; the page says why.
  function keepMap(picture) {
    picture.classList.add("kept");
    applyState();
  }

  // Show the path of a missing file as text, not as a link.
  function markUnavailable(row, address) {
    if (address !== addressOf(row.uri)) return;
    row.lost = true;
    const link = $("selected").querySelector(".origin a");
    if (link?.getAttribute("href") === address) link.replaceWith(make("bdi", "", row.uri));
  }

  function addOriginal(row, picture, plain, original, over, name) {
    const under = makeImage(original, "");
    under.addEventListener("load", () => {
      if (!fits(under, over, [picture, plain])) return keepMap(picture);
      picture.firstChild.prepend(under);
      picture.classList.add("fades");
      plain.firstChild.prepend(makeImage(original, `${name}, original`));
      applyState();
    });
    under.addEventListener("error", () => { markUnavailable(row, original); keepMap(picture); });
  }

  // Outline the mask that the manifest names; an outline hides nothing inside it.
  function addMask(row, over, ...panes) {
    const named = row.further.mask ?? row.further.mask_path;
    const address = named && addressOf(/^\/|:\/\//.test(named) ? named : `${RUN.base}/${named}`);
    if (!address) return;
    const mask = makeImage(address, `outline of the mask of ${fileName(row)}`, "mask");
    mask.addEventListener("load", () => {
      if (!fits(mask, over, panes)) return;
      for (const pane of panes)
        pane.firstChild.append(pane === panes[0] ? mask : makeImage(address, "", "mask"));
      applyState();
    });
  }

  const fileName = (row) => row.uri.slice(row.uri.lastIndexOf("/") + 1);

  function originalOf(row) {
    if (row.original) return row.original;
    if (row.frame !== null || /\.(dcm|dicom|tiff?)$/i.test(row.uri)) return null;
    return addressOf(row.uri);
  }

  const half = (source, text, side = "") => make("div", `half ${side}`, makeImage(source, text));

  function thumbnail(row) {
    const right = RUN.style === "side_by_side" && half(row.cam, "", "right"),
      image = right ? right.firstChild : makeImage(row.cam, "");
    const picture = right ? make("div", "picture", right) : image,
      original = originalOf(row);
    image.addEventListener("load", () => {
      // Without the strip at its lowest; a higher one leaves an edge.
      const high = image.naturalHeight - (RUN.legend ? RUN.legend.low : 0);
      image.style.height = `${(100 * image.naturalHeight) / high}%`;
      if (right) picture.style.setProperty("--shape", image.naturalWidth / 2 / high);
    });
    // A packed map isn't drawn yet.
    image.addEventListener("error", () => {
      if (original) picture.replaceWith(makeImage(original, ""));
      else picture.remove();
    });
    return picture;
  }

  // ---- zoom ------------------------------------------------------------------------------------
  // Where the page itself scrolls, the wheel zooms with Ctrl only, or once a picture is zoomed.
  const isScrolled = () =>
    [$("selected"), document.scrollingElement].some(
      (area) => area.scrollHeight > area.clientHeight + 1,
    );

  function zoomTogether(both) {
    const panes = [...both.querySelectorAll(".picture")];
    let seen = { x: 0, y: 0, k: 1 };  // offsets as shares of the pane
    const zoom = d3.zoom().scaleExtent([1, MOST])
      .extent(function () { return [[0, 0], [this.clientWidth, this.clientHeight]]; })
      .filter(function (event) {
        if (event.type === "wheel")
          return event.ctrlKey || d3.zoomTransform(this).k > 1 || !isScrolled();
        if (event.type !== "dblclick" && isForWindow(event)) return false;
        return event.type.startsWith("touch")
          ? event.touches.length > 1 || d3.zoomTransform(this).k > 1
          : !event.button;
      })
      // The picture always fills its pane, however large that is just now.
      .constrain((transform, [, [wide, high]]) => {
        const within = (offset, size) => Math.min(0, Math.max(offset, size * (1 - transform.k)));
        return d3.zoomIdentity
          .translate(within(transform.x, wide), within(transform.y, high))
          .scale(transform.k);
      })
      .on("zoom", function ({ transform }) {
        seen = {
          x: transform.x / this.clientWidth,
          y: transform.y / this.clientHeight,
          k: transform.k,
        };
        both.style.setProperty(
          "--zoom",
          `translate(${100 * seen.x}%, ${100 * seen.y}%) scale(${seen.k})`,
        );
        both.classList.toggle("zoomed", seen.k > 1);
        fit();
      });
    // d3 keeps its transform in pixels, which a pane of another size must convert.
    const fit = () =>
      panes.forEach((pane) => {
        pane.__zoom = d3.zoomIdentity
          .translate(seen.x * pane.clientWidth, seen.y * pane.clientHeight)
          .scale(seen.k);
      });
    // The style sheet sets touch-action.
    panes.forEach((pane) => d3.select(pane).call(zoom).call(windowing).style("touch-action", null));
    new ResizeObserver(fit).observe(both);
    pairs.push({ zoom, pane: d3.select(panes[0]) });
  }

  const zoomBy = (factor) => pairs.forEach(({ zoom, pane }) => zoom.scaleBy(pane, factor));
  const pan = (x, y) =>
    pairs.forEach(({ zoom, pane }) => {
      const { k } = d3.zoomTransform(pane.node());
      zoom.translateBy(pane, x / k, y / k);
    });

  // ---- window ----------------------------------------------------------------------------------
  const isWindowed = () => state.level !== 128 || state.width !== 256 || state.invert;

  // Spread the grey levels from level - width / 2 to level + width / 2 from black to white.
  function setWindow(level, width) {
    state.level = Math.round(Math.max(0, Math.min(255, level)));
    state.width = Math.round(Math.max(2, Math.min(512, width)));
    applyState();
  }

  let started = state;  // the state when a drag began
  const isForWindow = (event) =>
    event.button !== 1 && (state.windows || event.shiftKey || event.button === 2);
  const windowing = d3
    .drag()
    .filter(isForWindow)
    .on("start", () => {
      started = { ...state };
    })
    .on("drag", ({ x, y, subject }) =>
      setWindow(started.level + (y - subject.y) / 2, started.width + x - subject.x),
    );

  function reset() {
    Object.assign(state, { level: 128, width: 256, invert: false });
    pairs.forEach(({ zoom, pane }) => zoom.transform(pane, d3.zoomIdentity));
    applyState();
  }

  // ---- state of the viewer ---------------------------------------------------------------------
  function applyState() {
    const viewer = $("viewer"), fades = Boolean(document.querySelector("#selected .fades"));
    viewer.style.setProperty("--map", state.map ? state.opacity / 100 : 0);
    for (const [name, isOn] of Object.entries({
      beside: state.beside && fades,
      windows: state.windows,
      windowed: isWindowed(),
      unmasked: !state.masks,
    }))
      viewer.classList.toggle(name, isOn);
    const slope = (state.invert ? -255 : 255) / state.width,
      low = (state.level - state.width / 2) / 255;
    for (const transfer of $("window").querySelectorAll("feFuncR, feFuncG, feFuncB")) {
      transfer.setAttribute("slope", slope);
      transfer.setAttribute("intercept", (state.invert ? 1 : 0) - slope * low);
    }
    for (const name of ["map", "masks", "beside", "windows", "invert"])
      $(name).setAttribute("aria-pressed", state[name]);
    for (const name of ["opacity", "level", "width"]) $(name).value = state[name];
    $("opacity-value").textContent = `${state.opacity} %`;
    $("window-values").textContent = `level ${state.level}, width ${state.width}`;
    for (const id of ["map", "opacity", "beside"]) $(id).disabled = !fades;
    $("masks").hidden = !document.querySelector("#selected .mask");
    // Until the original is loaded or fails, leave the notice as it is, so that nothing moves.
    const isKept = document.querySelector("#selected .kept"),
      isDrawn = document.querySelector("#selected .over");
    if (fades || isKept || !isDrawn) $("note").hidden = fades || !isKept;
    $("mapless").hidden = !document.querySelector("#selected .mapless");
    $("mapless").textContent = RUN.packed ? PACKED : "The map is not where it was written.";
  }

  function toggle(name) {
    state[name] = !state[name];
    applyState();
  }

  function fadeTo(opacity) {
    state.opacity = Math.max(0, Math.min(100, opacity));
    state.map = true;
    applyState();
  }

  for (const name of ["map", "masks", "beside", "windows", "invert"])
    $(name).addEventListener("click", () => toggle(name));
  for (const name of ["level", "width"])
    $(name).addEventListener("input", () =>
      setWindow(Number($("level").value), Number($("width").value)),
    );
  $("opacity").addEventListener("input", () => fadeTo(Number($("opacity").value)));
  $("reset").addEventListener("click", reset);
  $("selected").addEventListener("contextmenu", (event) => {
    if (event.target.closest(".picture")) event.preventDefault();
  });
  return {
    pair,
    clear: () => {
      pairs = [];
    },
    thumbnail,
    applyState,
    toggle,
    originalOf,
    zoomBy,
    pan,
    reset,
    fade: (change) => fadeTo(state.opacity + change),
  };
})();
