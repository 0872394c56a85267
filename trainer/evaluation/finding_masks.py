"""Read annotated findings and draw them as masks in the square image that a model takes.

Two file formats are supported. One is COCO: `images` with `file_name`, `annotations` with `bbox` or
`segmentation` polygons. The other is `findings.json`, which `humerus-phantom` writes beside its
radiographs: boxes by path. Coordinates are pixels of the original image.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from trainer import radiograph, storage
from trainer.dataset.prepared_split import Split
from trainer.errors import DataError

Polygon = np.ndarray
"""Outline of a finding, float [n, 2]: x and y in pixels of the original image."""


def read(file: str) -> dict[str, list[Polygon]]:
    """Read outlines by the path or name of their image; an image without outlines has no finding.

    Raises:
      DataError: the file cannot be read, or has neither of the two formats.
    """
    if (contents := storage.read_bytes(file)) is None:
        raise DataError(
            f"{file} cannot be read; name a COCO file or the findings.json of humerus-phantom"
        )
    try:
        content = json.loads(contents)
        return _parse_coco(content) if "annotations" in content else _parse_findings(content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{file} is neither a COCO file nor the findings.json of humerus-phantom "
            f"({type(error).__name__})"
        ) from error


def place_masks(outlines: Mapping[str, Sequence[Polygon]], split: Split) -> np.ndarray:
    """Draw the masks of a split, bool [N, size, size]; the mask of an unnamed image is empty.

    Raises:
      DataError: `outlines` names none of the images.
    """
    size = split.images.shape[1]
    names = [path if path in outlines else pathlib.PurePosixPath(path).name for path in split.path]
    if not set(names) & set(outlines):
        raise DataError(
            f"the masks name none of the images of the {split.name} split, such as {split.path[0]};"
            " name the file that was made for these images"
        )
    masks = [
        draw_mask(outlines.get(name, ()), int(row["source_height"]), int(row["source_width"]), size)
        for name, row in zip(names, split.attributes, strict=True)
    ]
    return np.stack(masks)


def draw_mask(outlines: Sequence[Polygon], height: int, width: int, size: int) -> np.ndarray:
    """Draw outlines of an image of [height, width] pixels into its letterbox, bool [size, size].

    A finding covers at least one pixel, however small it is.
    """
    mask = np.zeros((height, width), np.uint8)
    for outline in outlines:
        cv2.fillPoly(mask, [np.asarray(outline).round().astype(np.int32)], 255)
    placed = radiograph.letterbox(mask, size)[..., 0]
    return placed >= min(128, max(1, int(placed.max())))


def _parse_coco(content: Mapping[str, Any]) -> dict[str, list[Polygon]]:
    outlines: dict[str, list[Polygon]] = {image["file_name"]: [] for image in content["images"]}
    names = {image["id"]: image["file_name"] for image in content["images"]}
    for annotation in content["annotations"]:
        parts = annotation.get("segmentation")
        polygons = (
            [np.asarray(part, float).reshape(-1, 2) for part in parts]
            if parts
            else [_outline_box(*annotation["bbox"])]
        )
        outlines[names[annotation["image_id"]]] += polygons
    return outlines


def _parse_findings(content: Mapping[str, Any]) -> dict[str, list[Polygon]]:
    return {
        path: [_outline_box(*finding["box"]) for finding in found]
        for path, found in content.items()
    }


def _outline_box(x: float, y: float, width: float, height: float) -> Polygon:
    return np.array(
        [[x, y], [x + width - 1, y], [x + width - 1, y + height - 1], [x, y + height - 1]]
    )
