"""Check an encoded frame of a DICOM file before a decoder gets it: its header and its end."""

import struct

import pydicom

from trainer.decoding.jpeg_segments import END_MARKER, read_frame_header
from trainer.decoding.jpeg_soundness import check_damage, check_scans, complete
from trainer.decoding.refusal import refuse


def check_end(frame: bytes, notes: set[str]) -> None:
    """Refuse a JPEG or JPEG-LS frame that is cut or damaged: decoders fill what is missing with
    grey.
    """
    if frame[:2] != b"\xff\xd8":
        return
    name = "the JPEG data of the DICOM file"
    ended = complete(frame, name)
    if ended is not frame:
        notes.add("no_end_marker")
    check_damage(ended, name)


def has_end(frame: bytes) -> bool:
    """Return whether a JPEG, JPEG-LS or JPEG 2000 frame ends in their common end marker.

    Bytes of zero may follow it.
    """
    return frame.rstrip(b"\0").endswith(END_MARKER)


def read_bit_depth(frame: bytes, dataset: pydicom.Dataset) -> int:
    """Return the bits of a sample from the header of an encoded frame.

    The decoders believe that header, whatever its size, and cut off bits that don't fit.

    Raises:
      RadiographError: it contradicts the data set (bad_dicom), or the frame has too many scans or
        an image offset (unsupported).
    """
    if frame[:2] == b"\xff\xd8":
        check_scans(frame)
        _, bits, *found = read_frame_header(frame) or (0, 0)
    else:
        begin = _find_codestream(frame)
        right, bottom, left, top = struct.unpack_from(">4I", frame, begin + 8)
        (depth,) = struct.unpack_from(">B", frame, begin + 42)
        bits, found = (depth & 0x7F) + 1, [bottom - top, right - left]
        if left or top:  # the decoder returns the empty margin too
            refuse(
                "unsupported",
                "expected JPEG 2000 data without an image offset, those of the DICOM file have one",
            )
    if found != [dataset.Rows, dataset.Columns]:
        refuse(
            "bad_dicom",
            f"the DICOM data set announces {dataset.Columns} x {dataset.Rows} pixels, "
            "which its encoded pixel data contradict",
        )
    if bits > dataset.BitsAllocated:
        refuse(
            "bad_dicom",
            f"the DICOM data set announces {dataset.BitsAllocated} bits per sample, "
            f"its encoded pixel data have {bits}",
        )
    return int(bits)


def _find_codestream(frame: bytes) -> int:
    """Return where the JPEG 2000 codestream of a frame begins, which may be inside a JP2 file.

    The boxes of JP2 have a length and a type each (ISO 15444-1, I.4).
    """
    begin = 0
    while frame[4:8] == b"jP  " and frame[begin + 4 : begin + 8] not in (b"jp2c", b""):
        length = int.from_bytes(frame[begin : begin + 4], "big")
        if length == 1:
            length = int.from_bytes(frame[begin + 8 : begin + 16], "big")
        begin += length if length >= 8 else len(frame)
    if begin:
        begin += 16 if frame[begin : begin + 4] == b"\0\0\0\1" else 8
    if frame[begin : begin + 4] != b"\xff\x4f\xff\x51":
        refuse("bad_dicom", "expected JPEG 2000 data, the pixel data of the DICOM file hold none")
    return begin
