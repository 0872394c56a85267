r"""Measure what an overlay leaves to be seen of a radiograph where it colours it.

    python -m benchmarks.overlay_contrast --fracatlas=fracatlas --model=runs/first/artifact \
        --sheet=sheet.png

For each annotated fracture of FracAtlas it takes the box around its mask, widened by a quarter on
each side, in the original and in the overlay. Both become grey values as OpenCV converts colour to
grey. The maps are those of the model, and one that has the full colour on the fracture, the worst
case. Without `--model` only the latter is measured. `--sheet` draws some cases to look at. Writes
its table into benchmarks/README.md.
"""

import argparse
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from benchmarks.tables import markdown, replace_table
from trainer import radiograph
from trainer.drawing import overlay
from trainer.evaluation import finding_masks

SIZE, CELLS = 256, 8
_WIDENED = 0.25
_SHEET_ROWS, _SHEET_HEIGHT = 5, 420

Draw = Callable[[np.ndarray, np.ndarray, int, float], np.ndarray]
"""Picture, map, side of the square and scale -> overlay, uint8 [height, width, 3] in BGR."""


class Case(NamedTuple):
    """A radiograph and the box of one of its fractures: rows and columns, as slices."""

    picture: np.ndarray
    box: tuple[slice, slice]
    centre: tuple[float, float]


def blend(picture: np.ndarray, cam: np.ndarray, image_size: int, scale: float) -> np.ndarray:
    """Blend viridis over the radiograph, opaque up to 0.62, as heat maps are usually drawn."""
    level = overlay.levels(cam, *picture.shape, image_size, scale)
    strength = level / 255
    alpha = (0.62 * np.sqrt(strength) * np.clip(strength / 0.15, 0, 1))[..., None]
    colour = cv2.applyColorMap(level, overlay.colour_table("viridis"))
    return (picture[..., None] * (1 - alpha) + colour * alpha).round().astype(np.uint8)


def tint_only(picture: np.ndarray, cam: np.ndarray, image_size: int, scale: float) -> np.ndarray:
    level = overlay.levels(cam, *picture.shape, image_size, scale)
    return overlay.tint(picture, level, "viridis")


def tint_and_lines(
    picture: np.ndarray, cam: np.ndarray, image_size: int, scale: float
) -> np.ndarray:
    return overlay.draw(picture, cam, image_size, scale, "overlay")


WAYS: dict[str, Draw] = {
    "colours blended over it": blend,
    "the tint alone": tint_only,
    "tint and lines": tint_and_lines,
}


def main() -> None:
    options = _options()
    cases = read_cases(pathlib.Path(options.fracatlas))
    maps = {"full colour on the fracture": ([centre_map(case) for case in cases], SIZE, 1.0)}
    if options.model:
        maps["the model's map"] = compute_maps(options.model, cases)
    rows = [
        _row(name, way, measure(cases, draw, *of_cases))
        for name, of_cases in maps.items()
        for way, draw in WAYS.items()
    ]
    head = (
        f"{len(cases)} fractures of FracAtlas; median (5 % to 95 %) over their boxes. Contrast: "
        "standard deviation of the grey values, relative to the original. Detail: slope of the "
        "grey values on those of the original; what a line adds doesn't count in it. Colour: mean "
        "distance from grey in CIELAB."
    )
    columns = ["map", "drawn as", "contrast", "below 0.95, %", "detail", "colour"]
    replace_table("overlay_contrast", f"{head}\n\n{markdown(columns, rows)}")
    if options.sheet:
        cv2.imwrite(options.sheet, draw_sheet(cases, *list(maps.values())[-1]))


def read_cases(root: pathlib.Path) -> list[Case]:
    """Read the fractured radiographs, as large as they are drawn on, with a case per fracture."""
    cases = []
    for name, outlines in sorted(
        finding_masks.read(str(root / "fracture_masks.coco.json")).items()
    ):
        try:
            pixels = radiograph.read((root / "images" / "positive" / name).read_bytes()).pixels
        except (radiograph.RadiographError, OSError):  # one file is truncated
            continue
        picture = overlay.shrink(pixels)
        enlarged = picture.shape[0] / pixels.shape[0]
        for outline in outlines:
            low, high = outline.min(0) * enlarged, outline.max(0) * enlarged
            margin = _WIDENED * (high - low) + 1
            left, top = np.maximum(low - margin, 0).astype(int)
            right, bottom = np.ceil(high + margin).astype(int)
            centre = (low + high) / 2
            box = slice(top, bottom), slice(left, right)
            cases.append(Case(picture, box, (float(centre[1]), float(centre[0]))))
    return cases


def centre_map(case: Case) -> np.ndarray:
    """Return a map of a fifth of the square's side that has the full colour on the fracture."""
    place = radiograph.placement(*case.picture.shape, SIZE)
    y = place.top + case.centre[0] * place.height / case.picture.shape[0]
    x = place.left + case.centre[1] * place.width / case.picture.shape[1]
    centres = (np.arange(CELLS) + 0.5) * SIZE / CELLS
    rows, columns = (np.exp(-((centres - at) ** 2) / (2 * (SIZE / 5) ** 2)) for at in (y, x))
    found = np.outer(rows, columns).astype(np.float32)
    return found / found.max()


def compute_maps(model: str, cases: Sequence[Case]) -> tuple[list[np.ndarray], int, float]:
    """Return the maps of an artifact, the side of its square and the scale of its colours."""
    from trainer.predictor import Predictor  # TensorFlow takes seconds to import

    predict = Predictor(model, engine="tensorflow")
    files = [cv2.imencode(".png", case.picture)[1].tobytes() for case in cases]
    found = [one.cam for one in predict(files)]
    return found, predict.model.image_size, float(predict.model.cam["scale"])


def measure(
    cases: Sequence[Case], draw: Draw, maps: Sequence[np.ndarray], size: int, scale: float
) -> dict[str, np.ndarray]:
    """Return contrast, detail and colour of each case, float [N] each."""
    measured = []
    for case, cam in zip(cases, maps, strict=True):
        drawn = draw(case.picture, cam, size, scale)
        before = case.picture[case.box].astype(float)
        after = cv2.cvtColor(drawn, cv2.COLOR_BGR2GRAY)[case.box].astype(float)
        slope = ((before - before.mean()) * (after - after.mean())).mean() / before.var()
        lab = cv2.cvtColor(drawn[case.box].astype(np.float32) / 255, cv2.COLOR_BGR2Lab)
        colour = np.hypot(lab[..., 1], lab[..., 2]).mean()
        measured.append((after.std() / before.std(), slope, colour))
    names = "contrast", "detail", "colour"
    return dict(zip(names, np.array(measured).T, strict=True))


def draw_sheet(
    cases: Sequence[Case], maps: Sequence[np.ndarray], size: int, scale: float
) -> np.ndarray:
    """Return rows of original and ways to draw, with a corner at each end of the box."""
    rows = []
    for index in np.linspace(0, len(cases) - 1, _SHEET_ROWS).astype(int):
        case, cam = cases[index], maps[index]
        tiles = [cv2.cvtColor(case.picture, cv2.COLOR_GRAY2BGR)]
        tiles += [draw(case.picture, cam, size, scale) for draw in (blend, tint_and_lines)]
        rows.append(np.hstack([_mark(tile, case.box) for tile in tiles]))
    width = max(row.shape[1] for row in rows)
    return np.vstack([cv2.copyMakeBorder(row, 0, 6, 0, width - row.shape[1], 0) for row in rows])


def _mark(tile: np.ndarray, box: tuple[slice, slice]) -> np.ndarray:
    enlarged = _SHEET_HEIGHT / len(tile)
    shown = cv2.resize(tile, None, fx=enlarged, fy=enlarged, interpolation=cv2.INTER_AREA)
    for y, x, step in ((box[0].start, box[1].start, 9), (box[0].stop, box[1].stop, -9)):
        corner = int(x * enlarged), int(y * enlarged)
        for end in ((corner[0] + step, corner[1]), (corner[0], corner[1] + step)):
            cv2.line(shown, corner, end, (255, 255, 255), 1)
    return shown


def _row(name: str, way: str, measured: dict[str, np.ndarray]) -> list[str]:
    def spread(values: np.ndarray, digits: int) -> str:
        low, middle, high = np.quantile(values, (0.05, 0.5, 0.95))
        return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"

    return [
        name,
        way,
        spread(measured["contrast"], 2),
        f"{100 * (measured['contrast'] < 0.95).mean():.0f}",
        spread(measured["detail"], 2),
        spread(measured["colour"], 0),
    ]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--fracatlas", required=True, help="folder with images/ and fracture_masks.coco.json"
    )
    parser.add_argument("--model", help="artifact whose maps are drawn too")
    parser.add_argument("--sheet", help="PNG file with some of the pictures")
    return parser.parse_args()


if __name__ == "__main__":
    main()
