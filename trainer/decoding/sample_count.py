"""Check that a JPEG frame holds the picture's samples, if the decoder does not report it.

libjpeg does not warn when lossless or 12-bit data end early or continue after the last sample.
"""

from collections.abc import Callable, Iterator

import numpy as np

from trainer.decoding.jpeg_segments import END_MARKER, find_pixels, read_frame_header
from trainer.decoding.refusal import refuse

_LOSSLESS = 0xC3
_SEQUENTIAL = (0xC0, 0xC1)
_BLOCK = 8
_FILLS = (b"\xff", b"\0\xff")
"""Bytes that some encoders write ahead of the end marker, where they do no harm."""
_REPLACED_BYTES = 8
_MIXED = b"\x1b\x4e\x72\x39\x6c\x2d\x93\xc6"  # code words of all kinds, of both signs
_LAST_SAMPLES = 128  # more than the bits that `_replace_last_bytes` replaces
_LAST_BLOCKS = 40  # a block takes at least two bits: a code for its mean and one for its end


def check_sample_count(
    encoded: bytes, pixels: np.ndarray, decode: Callable[[bytes], np.ndarray]
) -> None:
    """Refuse a lossless or a grey 12-bit frame whose data hold fewer or more samples than the
    picture.

    The last bytes are replaced and the frame is decoded again. If the data are sound, some of the
    last samples change and no others. If samples are missing, earlier ones change. If there are too
    many, no sample changes.

    Args:
      encoded: the frame's JPEG stream.
      pixels: its decoded values, [height, width] or [height, width, 3].
      decode: returns the values of another stream; raises RuntimeError for damaged data.

    Raises:
      RadiographError: truncated.
    """
    process, bits, *_ = read_frame_header(encoded) or (0, 0)
    is_in_blocks = process in _SEQUENTIAL and bits > 8 and pixels.ndim == 2
    if process != _LOSSLESS and not is_in_blocks:
        return
    streams = [encoded]
    if is_in_blocks:
        data = encoded.rstrip(b"\0").removesuffix(END_MARKER)
        streams += [data.rstrip(fill) + END_MARKER for fill in _FILLS]

    def find_changed(replaced: bytes) -> np.ndarray:
        differing = decode(replaced) != pixels
        return _reduce_to_blocks(differing) if is_in_blocks else differing.ravel()

    last = _LAST_BLOCKS if is_in_blocks else _LAST_SAMPLES
    if not any(_is_whole(stream, find_changed, last) for stream in streams):
        refuse("truncated", "the JPEG data of the DICOM file are cut short or damaged")


def _is_whole(stream: bytes, find_changed: Callable[[bytes], np.ndarray], last: int) -> bool:
    """Return whether only some of the `last` units depend on the last bytes of a stream."""
    has_decoded = False
    for replaced in _replace_last_bytes(stream):
        try:
            changed = find_changed(replaced)
        except RuntimeError:  # The new bytes are no code words; this says nothing about the old.
            continue
        has_decoded = True
        if changed[:-last].any():
            return False
        if changed.any():
            return True
    return not has_decoded


def _replace_last_bytes(data: bytes) -> Iterator[bytes]:
    """Yield streams in which other bytes stand in the place of the last eight or a few more.

    The first bit of the new bytes differs from that of the old ones. So the sample that this bit
    belongs to changes. A sample has at least one bit, so only the last samples can change. The
    streams differ in the new bytes, since a decoder may refuse some of them. There are none for a
    stream that is very short or has several scans, whose last bytes don't belong to the last
    samples of the picture.
    """
    start = find_pixels(data)
    end = data.find(END_MARKER, start)
    cut = end - _REPLACED_BYTES
    while data[cut - 1 : cut] == b"\xff":  # The byte behind it belongs to it.
        cut -= 1
    if cut <= start or data.find(b"\xff\xda", start) >= 0:
        return
    for turn in range(len(_MIXED)):
        mixed = (_MIXED[turn:] + _MIXED[:turn]) * 2
        flip = 0xFF if (data[cut] ^ mixed[0]) < 0x80 else 0
        yield data[:cut] + bytes(byte ^ flip for byte in mixed[: end - cut]) + END_MARKER


def _reduce_to_blocks(differing: np.ndarray) -> np.ndarray:
    """Return whether a block of 8 x 8 holds a True of bool [height, width], in coded order."""
    height, width = (-(-side // _BLOCK) for side in differing.shape)
    padded = np.zeros((height * _BLOCK, width * _BLOCK), bool)
    padded[: differing.shape[0], : differing.shape[1]] = differing
    return padded.reshape(height, _BLOCK, width, _BLOCK).any((1, 3)).ravel()
