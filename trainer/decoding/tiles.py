"""Tiles of a Pillow image, so that a conversion copies a part of the picture at a time."""

from collections.abc import Iterator

from PIL import Image

_SIDE = 2048
Slices = tuple[slice, slice]
Box = tuple[int, int, int, int]


def iterate_boxes(image: Image.Image, side: int = _SIDE) -> Iterator[tuple[Slices, Box]]:
    """Yield the place (rows, columns) and the Pillow box of each tile of at most `side` pixels."""
    for top in range(0, image.height, side):
        bottom = min(top + side, image.height)
        for left in range(0, image.width, side):
            right = min(left + side, image.width)
            yield (slice(top, bottom), slice(left, right)), (left, top, right, bottom)


def iterate_tiles(image: Image.Image) -> Iterator[tuple[Slices, Image.Image]]:
    """Yield the place (rows, columns) and the pixels of each tile; a small image is its only tile,
    and is not copied."""
    for place, box in iterate_boxes(image):
        yield place, image if box == (0, 0, *image.size) else image.crop(box)
