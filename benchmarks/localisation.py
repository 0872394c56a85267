r"""Measure how well the maps of every method lie on known findings, and what each costs.

    humerus-phantom --output=simulated --patients=1000
    humerus-prepare --source=simulated/MURA-v1.1 --layout=mura --data_dir=data --image_size=112
    humerus-train --data_dir=data --workdir=runs/simulated --config=smoke
    python -m benchmarks.localisation --simulated=simulated/MURA-v1.1 \
        --model=runs/simulated/artifact --fracatlas=fracatlas --folds=runs/cross_validation/humerus

`--folds` is a run of `humerus-train --folds=5` on FracAtlas: each image is asked of the network
that hasn't seen its patient. `--single` is an artifact of one network, which has seen most of the
images. Writes its tables into benchmarks/README.md; `--table` names them.

    python -m benchmarks.localisation --table=finer --methods=grad_cam,refined_cam,fused_layer_cam \
        --simulated=simulated/MURA-v1.1 --model=runs/simulated/artifact \
        --fracatlas=fracatlas --single=runs/humerus/artifact
"""

import argparse
import csv
import functools
import pathlib
import time
from collections.abc import Callable

import cv2
import keras
import numpy as np
import tensorflow as tf

from benchmarks.tables import markdown, replace_table
from trainer import artifact, radiograph
from trainer.artifact import ONE_PASS_METHOD, Artifact
from trainer.evaluation import finding_masks, localisation
from trainer.network import model as model_lib
from trainer.network import saliency, trained_network
from trainer.network.serving import Member, Network, serving_function

TIMED, LEAST_SECONDS = 16, 10
"""Images, and processor time for which they are asked again, at least twice; the fastest pass
counts.
"""

TWICE = "twice"
"""In `--methods`: the one-pass map of images at twice the side."""

Maps = Callable[[keras.Model, np.ndarray], np.ndarray]
"""uint8 [N, size, size] -> float32 [N, h, w]."""


def main() -> None:
    options = _options()
    methods = {
        name: method
        for name, method in saliency.METHODS.items()
        if name in options.methods.split(",")
    }
    twice = TWICE in options.methods.split(",")
    if options.simulated:
        info = artifact.load(options.model)
        (member,) = trained_network.load(options.model, info).members
        pictures, masks = simulated(pathlib.Path(options.simulated), info.image_size)
        asked = [(member.model, np.arange(len(pictures)))]
        replace_table(
            f"{options.table}_simulated", table(info, methods, asked, pictures, masks, twice)
        )
    if options.fracatlas and options.single:
        info = artifact.load(options.single)
        (member,) = trained_network.load(options.single, info).members
        pictures, masks = fracatlas(pathlib.Path(options.fracatlas), None, info.image_size)[:2]
        asked = [(member.model, np.arange(len(pictures)))]
        replace_table(
            f"{options.table}_fracatlas", table(info, methods, asked, pictures, masks, twice)
        )
    elif options.fracatlas:
        info = artifact.load(f"{options.folds}/artifact")
        members = [
            member.model
            for member in trained_network.load(f"{options.folds}/artifact", info).members
        ]
        pictures, masks, fold = fracatlas(
            pathlib.Path(options.fracatlas), pathlib.Path(options.folds), info.image_size
        )
        asked = [(model, np.flatnonzero(fold == k)) for k, model in enumerate(members)]
        replace_table(
            f"{options.table}_fracatlas", table(info, methods, asked, pictures, masks, twice)
        )


def simulated(root: pathlib.Path, size: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Read the positive radiographs of the test split, uint8 [height, width], and the boxes of
    their findings as masks.
    """
    findings = finding_masks.read(str(root / "findings.json"))
    paths = sorted(path for path, found in findings.items() if found and path.startswith("valid/"))
    pictures = [cv2.imread(str(root / path), cv2.IMREAD_GRAYSCALE) for path in paths]
    masks = [
        finding_masks.draw_mask(findings[path], *picture.shape, size)
        for path, picture in zip(paths, pictures, strict=True)
    ]
    return pictures, np.stack(masks)


def fracatlas(
    root: pathlib.Path, run: pathlib.Path | None, size: int
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Read the fractured training radiographs, their polygons as masks, and the fold of each,
    counted from 0; without a run, all that can be read.
    """
    outlines = finding_masks.read(str(root / "fracture_masks.coco.json"))
    folds = dict.fromkeys(outlines, 0)
    if run:
        with (run / "out_of_fold.csv").open(newline="") as lines:
            folds = {
                pathlib.PurePath(row["path"]).name: int(row["fold"])
                for row in csv.DictReader(lines)
            }
    pictures, masks, fold = [], [], []
    for name in sorted(outlines):
        if name not in folds:  # truncated
            continue
        picture = radiograph.read((root / "images" / "positive" / name).read_bytes()).pixels
        pictures.append(picture)
        masks.append(finding_masks.draw_mask(outlines[name], *picture.shape, size))
        fold.append(folds[name])
    first = min(folds.values())
    return pictures, np.stack(masks), np.array(fold) - first


def table(
    info: Artifact,
    methods: dict[str, saliency.Method],
    asked: list[tuple[keras.Model, np.ndarray]],
    pictures: list[np.ndarray],
    masks: np.ndarray,
    twice: bool,
) -> str:
    """Format a row for each method and baseline; `asked` selects the pictures of each network.

    `twice` adds the map of the images at twice the side.
    """
    images = _squares(pictures, info.image_size)
    forward = _seconds(saliency.logit, asked[0][0], images)
    rows = []

    def measure(
        name: str, method: Maps, members: list[tuple[keras.Model, np.ndarray]], pixels: np.ndarray
    ) -> None:
        maps, seconds = _gathered(method, members, pixels), _seconds(method, members[0][0], pixels)
        rows.append(
            _row(
                f"{name}, {maps.shape[1]} x {maps.shape[2]}",
                maps,
                masks,
                f"{seconds / forward:.2f}",
            )
        )

    for name, method in methods.items():
        at_the_end = (
            _served
            if name == ONE_PASS_METHOD
            else functools.partial(method, layer=model_lib.FEATURES)
        )
        measure(f"`{name}`", at_the_end, asked, images)
    if twice:
        side = 2 * info.image_size
        large = [(_enlarged(model, side), rows_) for model, rows_ in asked]
        name = f"`{ONE_PASS_METHOD}` of the image at twice the side"
        measure(name, _served, large, _squares(pictures, side))
    for name, baseline in localisation.BASELINES.items():
        rows.append(
            _row(
                {
                    "centre": "no network: the middle",
                    "brightest": "no network: the brightest region",
                }[name],
                baseline(images),
                masks,
                "",
            )
        )
    area = localisation.compute_interval(masks.mean(axis=(1, 2)))
    head = (
        f"{len(masks)} positive images at {info.image_size} px, {info.architecture['backbone']};"
        f" masks cover {area['value']:.1%} of the square."
    )
    columns = [
        "method",
        "hit rate",
        "inside the mask, %",
        "times the mask's share",
        "IoU, %",
        "forward passes",
    ]
    return f"{head}\n\n{markdown(columns, rows)}"


def _row(name: str, maps: np.ndarray, masks: np.ndarray, cost: str) -> list[str]:
    """Format one row; its third figure is 1 for a constant map, however small the mask is."""
    scored = localisation.score_maps(maps, masks)
    inside = scored["energy"]
    columns = [
        scored["hit_rate"],
        100 * inside,
        inside / masks.mean(axis=(1, 2)),
        100 * scored["iou"],
    ]
    cells = map(localisation.compute_interval, columns)
    return [
        name,
        *(f"{cell['value']:.2f} ({cell['low']:.2f}-{cell['high']:.2f})" for cell in cells),
        cost,
    ]


@functools.lru_cache(maxsize=4)
def _serving(model: keras.Model) -> tf.types.experimental.GenericFunction:
    return serving_function(Network((Member(model, model_lib.Architecture()),)))


def _served(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Compute the maps of `humerus-score`, which come with the forward pass."""
    parts = [images[start : start + TIMED] for start in range(0, len(images), TIMED)]
    return np.concatenate([_serving(model)(tf.constant(part))["cam"].numpy() for part in parts])


def _gathered(
    method: Maps, asked: list[tuple[keras.Model, np.ndarray]], images: np.ndarray
) -> np.ndarray:
    parts = [(rows, method(model, images[rows])) for model, rows in asked if len(rows)]
    maps = np.empty((len(images), *parts[0][1].shape[1:]), np.float32)
    for rows, found in parts:
        maps[rows] = found
    return maps


def _seconds(method: Maps, model: keras.Model, images: np.ndarray) -> float:
    """Processor time for `TIMED` images, compiled before."""
    method(model, images[:TIMED])
    taken: list[float] = []
    while len(taken) < 2 or sum(taken) < LEAST_SECONDS:
        # Of the processor, over all threads: what else runs on the machine doesn't count.
        start = time.process_time()
        method(model, images[:TIMED])
        taken.append(time.process_time() - start)
    return min(taken)


def _enlarged(model: keras.Model, size: int) -> keras.Model:
    """Return a model of the same weights for squares of another size."""
    layer = model.get_layer(model_lib.POOLED)
    pooling = "avg" if isinstance(layer, keras.layers.GlobalAveragePooling2D) else "max"
    widths = tuple(head.units for head in model_lib.head_layers(model)[:-1])
    backbone = model.name.removeprefix("humerus_")
    larger = model_lib.build(model_lib.Architecture(backbone, pooling, widths), size)
    larger.set_weights(model.get_weights())
    return larger


def _squares(pictures: list[np.ndarray], size: int) -> np.ndarray:
    return np.stack([radiograph.letterbox(picture, size) for picture in pictures])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--simulated", help="MURA-v1.1 folder that humerus-phantom rendered")
    parser.add_argument("--model", help="artifact of one network, trained on them")
    parser.add_argument("--fracatlas", help="folder with images/ and fracture_masks.coco.json")
    parser.add_argument("--folds", help="workdir of humerus-train --folds on FracAtlas")
    parser.add_argument("--single", help="artifact of one network, instead of --folds")
    parser.add_argument("--table", default="localisation", help="start of the tables' names")
    parser.add_argument(
        "--methods",
        default=",".join([*saliency.METHODS, TWICE]),
        help="rows to measure; score_cam and occlusion cost a hundred passes",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
