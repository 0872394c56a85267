"""Make good, unusual and bad image files as bytes, each with the documented outcome.

Everything is generated from one small picture; nothing comes from a patient. `image_files()` is the
whole collection.
"""

import functools
import struct
import zlib
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageChops
from pydicom import uid

from tests.support.dicom_files import bad_dicom_files, dicom_file, good_dicom_files
from tests.support.pictures import (
    HEIGHT,
    WIDTH,
    encode,
    interlaced_png,
    oriented,
    patched,
    picture,
    png,
    png_chunk,
    without_adobe_marker,
)


class ImageFile(NamedTuple):
    """The content of a file, and the reason it is refused for (None: it is decoded)."""

    data: bytes
    reason: str | None


@functools.cache
def image_files() -> dict[str, ImageFile]:
    """Return the content and the promised outcome of each file, by file name.

    Every name says what is special. Some endings are wrong on purpose.
    """
    good = {**_good_png(), **_good_jpeg(), **_good_tiff(), **_good_other(), **good_dicom_files()}
    bad = {
        **_no_images(),
        **_other_formats(),
        **_cut_or_damaged(),
        **_too_large(),
        **_several(),
        **bad_dicom_files(),
    }
    return {name: ImageFile(data, None) for name, data in good.items()} | {
        name: ImageFile(data, reason) for name, (data, reason) in bad.items()
    }


def _good_png() -> dict[str, bytes]:
    grey = Image.fromarray(picture())
    alpha = Image.fromarray(255 - picture())
    deep = picture().astype(np.uint16)
    row = b"\0" + bytes(range(16))
    bomb = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(20_000_000), 1))
    return {
        "grey.png": encode(grey, "PNG"),
        "rgb.png": encode(grey.convert("RGB"), "PNG"),
        "palette.png": encode(grey.convert("P"), "PNG"),
        "palette with a transparent colour.png": encode(grey.convert("P"), "PNG", transparency=3),
        "grey with a transparent value.png": encode(grey, "PNG", transparency=0),
        "one bit.png": encode(grey.convert("1"), "PNG"),
        "four bits.png": png([row[:9]] * 16, 16, 16, 4, 0),
        "sixteen bits.png": cv2.imencode(".png", deep * 257)[1].tobytes(),
        "twelve of sixteen bits.png": cv2.imencode(".png", deep * 16)[1].tobytes(),
        "sixteen bits rgb.png": cv2.imencode(".png", np.dstack([deep * 257] * 3))[1].tobytes(),
        "sixteen bits with alpha.png": png([b"\0" + bytes([9, 9, 255, 255] * 8)] * 4, 8, 4, 16, 4),
        "grey and alpha.png": encode(Image.merge("LA", (grey, alpha)), "PNG"),
        "rgb and alpha.png": encode(Image.merge("RGBA", (grey, grey, grey, alpha)), "PNG"),
        "interlaced.png": interlaced_png(picture()),
        "turned by exif.png": encode(grey, "PNG", exif=oriented(6)),
        "text that inflates to 20 MB.png": png([row] * 16, 16, 16, 8, 0, more=bomb),
        "bytes after the end.png": encode(grey, "PNG") + b"\0" * 1000,
        "one pixel.png": encode(np.full((1, 1), 200, np.uint8), "PNG"),
        "20000 wide.png": encode(np.full((1, 20_000), 200, np.uint8), "PNG"),
        "20000 high.png": encode(np.full((20_000, 1), 200, np.uint8), "PNG"),
        "a png without ending": encode(grey, "PNG"),
        "a png called jpeg.jpg": encode(grey, "PNG"),
        "a png called text.txt": encode(grey, "PNG"),
    }


def _good_jpeg() -> dict[str, bytes]:
    grey = Image.fromarray(picture())
    cmyk = grey.convert("RGB").convert("CMYK")
    thumbnail = oriented(1)
    thumbnail.get_ifd(0x8769)
    exif = b"Exif\0\0" + thumbnail.tobytes()[6:] + encode(grey.resize((16, 12)), "JPEG")
    return {
        "grey.jpg": encode(grey, "JPEG"),
        "rgb.JPEG": encode(grey.convert("RGB"), "JPEG"),
        "progressive.jpg": encode(grey.convert("RGB"), "JPEG", progressive=True),
        "restart markers.jpg": encode(grey, "JPEG", restart_marker_rows=1),
        "cmyk by adobe.jpg": encode(cmyk, "JPEG"),
        "cmyk plain.jpg": without_adobe_marker(encode(ImageChops.invert(cmyk), "JPEG")),
        "turned by exif.jpg": encode(grey, "JPEG", exif=oriented(6)),
        "exif with a thumbnail.jpg": encode(grey, "JPEG", exif=exif),
        "exif of garbage.jpg": encode(grey, "JPEG", exif=b"Exif\0\0" + b"\xff" * 64),
        "no end marker.jpg": encode(grey, "JPEG")[:-2],
        "no end marker rgb.jpg": encode(grey.convert("RGB"), "JPEG")[:-2],
        "half an end marker.jpg": encode(grey, "JPEG")[:-1],
        "two pictures in one.jpg": encode(grey, "MPO", save_all=True, append_images=[grey]),
        "bytes after the end.jpg": encode(grey, "JPEG") + b"\0" * 5000,
        "a jpeg called png.png": encode(grey, "JPEG"),
    }


def _good_tiff() -> dict[str, bytes]:
    grey = Image.fromarray(picture())
    deep = picture().astype(np.uint16) * 257
    holes = picture().astype(np.float32)
    holes[0, :3] = np.nan, np.inf, -np.inf
    compressed = {
        f"{c}.tif": encode(grey, "TIFF", compression=c)
        for c in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
    }
    return compressed | {
        "uncompressed.tiff": encode(grey, "TIFF"),
        "fax.tif": encode(grey.convert("1"), "TIFF", compression="group4"),
        "big.tif": encode(grey, "TIFF", big_tiff=True),
        "palette.tif": encode(grey.convert("P"), "TIFF"),
        "rgb and alpha.tif": encode(grey.convert("RGBA"), "TIFF"),
        "cmyk.tif": encode(grey.convert("CMYK"), "TIFF"),
        "lab.tif": encode(grey.convert("RGB").convert("LAB"), "TIFF"),
        "sixteen bits.tif": encode(deep, "TIFF"),
        "sixteen bits big endian.tif": encode(
            Image.frombytes("I;16B", (WIDTH, HEIGHT), deep.astype(">u2").tobytes()), "TIFF"
        ),
        "white is zero.tif": encode(65535 - deep, "TIFF", tiffinfo={262: 0}),
        "thirty-two bits.tif": encode(picture().astype(np.int32) * 70_000 - 5, "TIFF"),
        "floating point.tif": encode(picture().astype(np.float32) / 7 - 3, "TIFF"),
        "not a number.tif": encode(holes, "TIFF"),
        "constant floating point.tif": encode(np.full((5, 4), 7, np.float32), "TIFF"),
        "turned by its tag.tif": encode(grey, "TIFF", exif=oriented(6)),
        "planes of eight bits.tif": tiff_file(np.dstack([picture()] * 3), planes=True),
        "pixels of sixteen bits.tif": tiff_file(np.dstack([deep] * 3)),
        "signed sixteen bits.tif": tiff_file(picture().astype(np.int16) * 200 - 25_000, 2),
    }


def tiff_file(
    pixels: np.ndarray,
    sample_format: int = 1,
    planes: bool = False,
    next_page: int = 0,
    order: str = "<",
    extra_sample: int | None = None,
    is_deflated: bool = False,
) -> bytes:
    """Return a TIFF file of a kind that no encoder here writes.

    Args:
      pixels: [h, w], or [h, w, bands] of RGB and perhaps one more band.
      sample_format: 1 for unsigned, 2 for signed, 3 for floating point.
      planes: whether the bands follow each other as planes.
      next_page: the offset of a second page.
      order: "<" for little endian, ">" for big endian.
      extra_sample: what the fourth band is: 0 nothing, 1 premultiplied alpha, 2 alpha.
    """
    (height, width), samples = pixels.shape[:2], pixels.shape[2] if pixels.ndim == 3 else 1
    planar = pixels.transpose(2, 0, 1) if planes else pixels
    content = planar.astype(pixels.dtype.newbyteorder(order)).tobytes()
    strips = samples if planes else 1
    if is_deflated:  # of a single strip
        content = zlib.compress(content)
    offsets = [8 + index * len(content) // strips for index in range(strips)]
    tags = {
        256: [width],
        257: [height],
        258: [8 * pixels.itemsize] * samples,
        259: [8 if is_deflated else 1],
        262: [2 if samples >= 3 else 1],
    }
    tags |= {273: offsets, 277: [samples], 278: [height], 279: [len(content) // strips] * strips}
    tags |= {284: [2 if planes else 1]}
    tags |= {} if extra_sample is None else {338: [extra_sample]}
    tags |= {339: [sample_format] * samples}
    more = b""
    entries = struct.pack(f"{order}H", len(tags))
    for tag, values in tags.items():
        packed = struct.pack(f"{order}{len(values)}I", *values)
        if len(values) > 1:
            packed, more = struct.pack(f"{order}I", 8 + len(content) + len(more)), more + packed
        entries += struct.pack(f"{order}HHI", tag, 4, len(values)) + packed
    directory = 8 + len(content) + len(more)
    return (
        (b"II*\0" if order == "<" else b"MM\0*")
        + struct.pack(f"{order}I", directory)
        + content
        + more
        + entries
        + struct.pack(f"{order}I", next_page)
    )


def _good_other() -> dict[str, bytes]:
    grey = Image.fromarray(picture())
    rgb = grey.convert("RGB")
    return {
        "grey.bmp": encode(grey, "BMP"),
        "rgb.BMP": encode(rgb, "BMP"),
        "one bit.bmp": encode(grey.convert("1"), "BMP"),
        "lossy.webp": encode(rgb, "WEBP"),
        "lossless.webp": encode(rgb, "WEBP", lossless=True),
        "alpha.webp": encode(
            Image.merge("RGBA", (grey, grey, grey, ImageChops.invert(grey))), "WEBP", lossless=True
        ),
        "turned by exif.webp": encode(rgb, "WEBP", lossless=True, exif=oriented(6)),
    }


def _no_images() -> dict[str, tuple[bytes, str]]:
    return {
        "empty.png": (b"", "empty"),
        "empty.dcm": (b"", "empty"),
        **{
            name: (data, "not_an_image")
            for name, data in {
                "zeros.png": bytes(1000),
                "one byte.jpg": b"\x89",
                "text.png": b"this is no picture\n",
                "page.jpg": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
                "table starting with BM.bmp": b"BMI,age\n21.5,43\n30.2,61\n",
                "json.png": b'{"error": "not found"}',
                "script.tif": b"#!/bin/sh\nexit 0\n",
                "archive.dcm": b"PK\x03\x04" + bytes(100),
                "gzip of a png.png": zlib.compress(encode(picture(), "PNG"), wbits=31),
                "video.jpg": b"\0\0\0\x20ftypisom" + bytes(200),
                "sound.webp": b"RIFF\x24\0\0\0WAVEfmt " + bytes(40),
                "program.png": b"\x7fELF" + bytes(60),
                "noise.png": np.random.default_rng(3).bytes(5000),
                "signature in the wrong case.png": encode(picture(), "PNG").replace(
                    b"PNG", b"png", 1
                ),
                "line ends converted.png": encode(picture(), "PNG").replace(b"\r\n", b"\n", 1),
            }.items()
        },
    }


def _other_formats() -> dict[str, tuple[bytes, str]]:
    contents = {
        "animation.gif": encode(picture(), "GIF"),
        "gif called png.png": encode(picture(), "GIF"),
        "jpeg 2000.jp2": encode(picture(), "JPEG2000"),
        "jpeg 2000 stream.j2k": encode(picture(), "JPEG2000", no_jp2=True),
        "high efficiency.heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100),
        "alliance.avif": b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + bytes(100),
        "jpeg xl.jxl": b"\xff\x0a" + bytes(50),
        "document.pdf": b"%PDF-1.7\n" + bytes(100),
        "drawing.svg": b'<?xml version="1.0"?>\n'
        b'<svg xmlns="http://www.w3.org/2000/svg" width="4" height="4"/>',
        "layers.psd": b"8BPS\0\x01" + bytes(40),
        "icon.ico": b"\0\0\1\0\1\0\x10\x10" + bytes(30),
        "netpbm.pgm": encode(picture(), "PPM"),
        "jpeg-ls.jls": b"\xff\xd8\xff\xf7\0\x0b\x08\0\x04\0\x04\x01\x01\x11\0" + bytes(20),
        "twelve bits.jpg": patched(encode(picture(), "JPEG"), b"\xff\xc0", 4, b"\x0c"),
        "lossless.jpg": patched(encode(picture(), "JPEG"), b"\xff\xc0", 1, b"\xc3"),
        "a thousand scans.jpg": _with_scans(encode(picture(), "JPEG", progressive=True), 1000),
        "planes of sixteen bits.tif": tiff_file(
            np.dstack([picture().astype(np.uint16) * 257] * 3), planes=True
        ),
        "planes of grey and alpha.tif": tiff_file(
            np.dstack([picture()] * 2), planes=True, extra_sample=2
        ),
        "signed eight bits.tif": tiff_file((picture() - 128).view(np.int8), 2),
        "more than signed thirty-two bits.tif": tiff_file(picture().astype(np.uint32) << 24),
        "double precision.tif": cv2.imencode(".tif", picture().astype(np.float64))[1].tobytes(),
        "unknown compression.tif": patched(
            encode(picture(), "TIFF"), b"\x03\x01\x03\0\1\0\0\0", 8, struct.pack("<H", 34712)
        ),
        "unknown compression.bmp": patched(encode(picture(), "BMP"), b"BM", 30, b"\x06"),
    }
    return {name: (data, "unsupported") for name, data in contents.items()}


def _with_scans(progressive: bytes, number: int) -> bytes:
    """Return a progressive JPEG file with `number` copies of its last scan."""
    last = progressive.rindex(b"\xff\xda")
    return progressive[:last] + progressive[last:-2] * number + progressive[-2:]


def _cut_or_damaged() -> dict[str, tuple[bytes, str]]:
    grey = Image.fromarray(picture())
    rgb = grey.convert("RGB")
    whole = {
        "png": encode(grey, "PNG"),
        "jpg": encode(grey, "JPEG"),
        "progressive.jpg": encode(rgb, "JPEG", progressive=True),
        "tif": encode(grey, "TIFF"),
        "lzw.tif": encode(grey, "TIFF", compression="tiff_lzw"),
        "webp": encode(rgb, "WEBP"),
        "bmp": encode(grey, "BMP"),
        "dcm": dicom_file(picture().astype(np.uint16)),
        "jpeg 2000.dcm": dicom_file(picture().astype(np.uint16), uid.JPEG2000Lossless),
    }
    # Eight: past TIFF's closing zero offset and DICOM's closing delimiter, which nothing needs.
    cuts = {
        f"cut in half.{name}": data[: len(data) // 2]
        for name, data in whole.items()
        if "2000" not in name
    }
    cuts |= {f"cut near the end.{name}": data[:-9] for name, data in whole.items()}
    cuts |= {
        f"one byte short.{name}": whole[name][:-1]
        for name in ("png", "progressive.jpg", "tif", "webp", "bmp", "dcm")
    }
    cuts |= {
        f"cut in the header.{name}": whole[name][:20]
        for name in ("png", "jpg", "tif", "webp", "bmp")
    }
    fax = encode(grey.convert("1"), "TIFF", compression="group4")
    middle = len(whole["png"]) // 2
    tail = len(whole["jpg"]) * 2 // 3
    damaged = {
        "one bit flipped.png": whole["png"][:middle]
        + bytes([whole["png"][middle] ^ 1])
        + whole["png"][middle + 1 :],
        "no end chunk.png": whole["png"][:-12],
        "only the signature.png": whole["png"][:8],
        "one scan of three.jpg": encode(rgb, "JPEG", progressive=True).rpartition(b"\xff\xda")[0],
        "tail of zeros.jpg": whole["jpg"][:tail] + bytes(100_000),
        "deflated and cut.dcm": dicom_file(picture(), uid.DeflatedExplicitVRLittleEndian)[:-20],
        "second page that is none.tif": tiff_file(picture(), next_page=0xFFFFFF),
        # After a bad code word libtiff leaves the rest of the picture unwritten.
        "fax with a bad code word.tif": fax[:300] + bytes(8) + fax[308:],
        "ten million frames.dcm": dicom_file(picture(), NumberOfFrames=10_000_000),
        "fewer pixels than announced.dcm": dicom_file(
            picture(), PixelData=picture().tobytes()[:-2]
        ),
    }
    return {name: (data, "truncated") for name, data in (cuts | damaged).items()}


def _too_large() -> dict[str, tuple[bytes, str]]:
    zeros = zlib.compressobj(1)
    deflated = b"".join(zeros.compress(bytes(10_001)) for _ in range(10_100)) + zeros.flush()
    bomb = b"\x89PNG\r\n\x1a\n" + png_chunk(
        b"IHDR", struct.pack(">IIBBBBB", 10_000, 10_100, 8, 0, 0, 0, 0)
    )
    bomb += png_chunk(b"IDAT", deflated) + png_chunk(b"IEND", b"")
    tiff = encode(picture(), "TIFF")
    for width_or_height in (256, 257):
        entry = struct.pack("<HHI", width_or_height, 4, 1)
        tiff = patched(tiff, entry, 0, entry + struct.pack("<I", 1_000_000))
    small = dicom_file(picture(), uid.DeflatedExplicitVRLittleEndian)
    start = 144 + struct.unpack_from("<I", small, 140)[0]  # behind the file meta information
    zeros = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    inflating = (
        small[:start]
        + b"".join(zeros.compress(bytes(1_000_000)) for _ in range(240))
        + zeros.flush()
    )
    contents = {
        "header of a terapixel.png": png([b"\0"], 1_000_000, 1_000_000, 8, 0),
        "bomb of 101 megapixels.png": bomb,
        "header of four gigapixels.jpg": patched(
            encode(picture(), "JPEG"), b"\xff\xc0", 5, b"\xff\xff\xff\xff"
        ),
        "header of a terapixel.tif": tiff,
        "header of four gigapixels.bmp": patched(
            encode(picture(), "BMP"), b"BM", 18, struct.pack("<II", 65_535, 65_535)
        ),
        "header of 268 megapixels.webp": patched(
            encode(picture(), "WEBP", lossless=True), b"VP8L", 9, b"\xff\xff\xff\x0f"
        ),
        "header of four gigapixels.dcm": dicom_file(picture(), Rows=65_535, Columns=65_535),
        "inflates to 240 MB.dcm": inflating,
    }
    return {name: (data, "too_large") for name, data in contents.items()}


def _several() -> dict[str, tuple[bytes, str]]:
    grey = Image.fromarray(picture())
    other = Image.fromarray(255 - picture())
    contents = {
        "pages.tif": encode(grey, "TIFF", save_all=True, append_images=[other]),
        "animated.png": encode(grey, "PNG", save_all=True, append_images=[other]),
        "animated.webp": encode(
            grey.convert("RGB"), "WEBP", save_all=True, append_images=[other.convert("RGB")]
        ),
        "frames.dcm": dicom_file(picture(), NumberOfFrames=2, PixelData=picture().tobytes() * 2),
    }
    return {name: (data, "unsupported") for name, data in contents.items()}
