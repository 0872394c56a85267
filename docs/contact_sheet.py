"""Draw the first picture of the README: a contact sheet of a scored folder.

python docs/contact_sheet.py runs/demo/scored docs/overlays.jpg
"""

import csv
import io
import json
import pathlib
import sys

import cv2
import numpy as np

from trainer import artifact, radiograph
from trainer.drawing import legend

SIDE, COLUMNS, ROWS = 230, 6, 2


def main(scored: str, output: str) -> None:
    shards = sorted(pathlib.Path(scored).glob("predictions.csv*"))
    rows = [row for path in shards for row in csv.DictReader(io.StringIO(path.read_text()))]
    rows.sort(key=lambda row: float(row["probability"]))
    count = COLUMNS * ROWS // 2
    chosen = [
        *np.linspace(len(rows) - 1, len(rows) * 0.72, count),
        *np.linspace(len(rows) * 0.28, 0, count),
    ]
    spread = [rows[int(i)] for i in chosen]
    tiles = [
        _tile(pathlib.Path(scored) / row["cam"], f"{row['label']} {float(row['probability']):.2f}")
        for row in spread
    ]
    sheet = np.vstack([np.hstack(tiles[r * COLUMNS : (r + 1) * COLUMNS]) for r in range(ROWS)])
    sheet = np.vstack([sheet, _draw_legend(pathlib.Path(scored), sheet.shape[1])])
    cv2.imwrite(output, sheet, [cv2.IMWRITE_JPEG_QUALITY, 88])


def _draw_legend(scored: pathlib.Path, width: int) -> np.ndarray:
    run = json.loads((scored / "run.json").read_text())
    model = artifact.load(run["options"]["model"])
    cam = model.cam
    described = legend.Legend(
        scale=cam["scale"],
        unit=legend.UNIT,
        method=artifact.METHOD_TITLES[artifact.ONE_PASS_METHOD],
        model=model.model_id,
        rows=cam["height"],
        columns=cam["width"],
        image_size=model.image_size,
    )
    return legend.draw_strip(width, round(SIDE / min(cam["height"], cam["width"])), described)


def _tile(path: pathlib.Path, caption: str) -> np.ndarray:
    picture = cv2.imread(str(path))
    place = radiograph.placement(*picture.shape[:2], SIDE)
    tile = np.zeros((SIDE + 24, SIDE + 6, 3), np.uint8)
    tile[place.top : place.top + place.height, place.left : place.left + place.width] = cv2.resize(
        picture, (place.width, place.height), interpolation=cv2.INTER_AREA
    )
    cv2.putText(
        tile,
        caption,
        (6, SIDE + 17),
        cv2.FONT_HERSHEY_SIMPLEX,
        0.48,
        (235, 235, 235),
        1,
        cv2.LINE_AA,
    )
    return tile


if __name__ == "__main__":
    main(*sys.argv[1:])
