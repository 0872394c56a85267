"""Decode the pixels of JPEG files: those of grey and YCbCr to their luma, without the colours."""

import numpy as np
import simplejpeg
from PIL import JpegImagePlugin

from trainer.decoding.grey import convert_to_grey
from trainer.decoding.jpeg_segments import is_usual, iterate_segments
from trainer.decoding.jpeg_soundness import check_damage, check_scans
from trainer.decoding.refusal import refuse

# Lossless and differential processes: Pillow opens them, libjpeg decodes none.
_NOT_DECODED = frozenset({0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF})
_WITH_LUMA = ("Gray", "YCbCr")


def load(image: JpegImagePlugin.JpegImageFile, data: bytes) -> np.ndarray:
    """Return the grey pixels of an open JPEG file; refuse one whose pixel data are damaged."""
    _prepare(image, data)
    if (luma := _decode_luma(data)) is not None:
        return luma
    check_damage(data, "the JPEG file")
    image.load()
    return convert_to_grey(image, None)


def _prepare(image: JpegImagePlugin.JpegImageFile, data: bytes) -> None:
    """Make Pillow decode an open JPEG file to its luma plane, and CMYK in the right polarity.

    Raises RadiographError for what libjpeg does not decode and for too many scans.
    """
    check_scans(data)
    for marker, _, _ in iterate_segments(data):
        if marker in _NOT_DECODED:
            refuse("unsupported", "no decoder for lossless and differential JPEG")
    image.draft("L", image.size)
    if image.mode == "CMYK" and "adobe" not in image.info:
        # Pillow treats every CMYK JPEG as one of Adobe's, which are stored inverted.
        image.tile = [tile._replace(args=("CMYK", "")) for tile in image.tile]


def _decode_luma(data: bytes) -> np.ndarray | None:
    """Decode a sound stream in grey or YCbCr of a usual process: uint8 [height, width].

    The values are those of Pillow's `draft("L")`. None stands for any other stream, also for one of
    which libjpeg warns: `check_damage` tells why.
    """
    if not is_usual(data):
        return None
    try:
        *_, space, _ = simplejpeg.decode_jpeg_header(data)
        return simplejpeg.decode_jpeg(data, "GRAY")[..., 0] if space in _WITH_LUMA else None
    except ValueError:
        return None
