"""Good, odd and bad image files as bytes, each with the outcome that the project promises for it.

Everything is generated here, from one small picture; nothing comes from a patient. `image_files()` is the whole collection;
`dicom_file()` makes one DICOM file with chosen attributes.
"""

import functools
import io
import struct
import zlib
from typing import Any, NamedTuple

import cv2
import numpy as np
import pydicom
from PIL import Image, ImageChops
from pydicom import encaps, uid
from pydicom.dataset import Dataset, FileMetaDataset

# Planted in every DICOM file: none of these may ever be seen in an output, a log or an error.
PATIENT = {
    "PatientName": "Planted^Patient",
    "PatientID": "PLANTED-ID-4711",
    "PatientBirthDate": "19010203",
    "ReferringPhysicianName": "Planted^Physician",
    "InstitutionName": "Planted Hospital",
    "StudyDescription": "Planted description",
    "PatientComments": "Planted comment",
    "AccessionNumber": "PLANTEDACC",
}
STUDY_UID = "1.2.826.0.1.3680043.8.498.1"
WIDTH, HEIGHT = 60, 44


class ImageFile(NamedTuple):
    """The content of a file, and the reason it is refused for (None: it is decoded)."""

    data: bytes
    reason: str | None


@functools.cache
def picture() -> np.ndarray:
    """uint8 [HEIGHT, WIDTH], 0 to 255, without symmetry: a bright slanted bar on a soft gradient."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float64)
    bar = 150 * np.exp(-(((x - 22 - 0.4 * y) / 6) ** 2))
    values = bar + 60 * x / WIDTH + 40 * (y / HEIGHT) ** 2
    return np.rint((values - values.min()) * (255 / np.ptp(values))).astype(np.uint8)


def encode(image: Image.Image | np.ndarray, kind: str, **options: Any) -> bytes:
    """A picture -> the bytes of a file, by Pillow."""
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, kind, **options)
    return buffer.getvalue()


def oriented(orientation: int) -> Image.Exif:
    """EXIF data with an orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(
    rows: list[bytes], width: int, height: int, bits: int, colour: int, interlaced: bool = False, more: bytes = b""
) -> bytes:
    """A PNG file from filtered rows: the kinds that no common writer writes."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, int(interlaced))
    data = png_chunk(b"IDAT", zlib.compress(b"".join(rows), 1))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + more + data + png_chunk(b"IEND", b"")


def interlaced_png(pixels: np.ndarray) -> bytes:
    """uint8 [h, w] -> a PNG file in Adam7 order."""
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    rows = [b"\0" + row.tobytes() for top, left, down, right in passes for row in pixels[top::down, left::right] if row.size]
    return png(rows, pixels.shape[1], pixels.shape[0], 8, 0, interlaced=True)


def patched(data: bytes, marker: bytes, offset: int, new: bytes) -> bytes:
    """Overwrites the bytes at `offset` from the first occurrence of `marker`."""
    position = data.index(marker) + offset
    return data[:position] + new + data[position + len(new) :]


def without_adobe_marker(jpeg: bytes) -> bytes:
    start = jpeg.index(b"Adobe") - 4
    return jpeg[:start] + jpeg[start + 2 + int.from_bytes(jpeg[start + 2 : start + 4], "big") :]


def dicom_file(
    pixels: np.ndarray | None, syntax: str = uid.ExplicitVRLittleEndian, preamble: bool = True, **attributes: Any
) -> bytes:
    """A computed-radiography DICOM file with planted patient attributes.

    Args:
      pixels: uint8, uint16 or int16 [h, w], or uint8 [h, w, 3]; None for a file without pixel data.
      syntax: transfer syntax; the native ones, RLE, JPEG-LS and JPEG 2000 are encoded, others are taken as a label.
      preamble: False leaves out preamble, prefix and file meta information.
      **attributes: DICOM keywords that replace or complete the usual ones; None removes one.
    """
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = uid.ComputedRadiographyImageStorage, STUDY_UID + ".1.1"
    usual: dict[str, Any] = {
        "Modality": "CR",
        "BodyPartExamined": "HUMERUS",
        "ViewPosition": "AP",
        "StudyInstanceUID": STUDY_UID,
        **PATIENT,
    }
    if pixels is not None:
        bits, colour = 8 * pixels.itemsize, pixels.ndim == 3
        usual |= {"Rows": pixels.shape[0], "Columns": pixels.shape[1], "SamplesPerPixel": 3 if colour else 1}
        usual |= {
            "BitsAllocated": bits,
            "BitsStored": bits,
            "HighBit": bits - 1,
            "PixelRepresentation": int(pixels.dtype.kind == "i"),
        }
        usual |= {"PhotometricInterpretation": "RGB" if colour else "MONOCHROME2"}
        usual |= {"PlanarConfiguration": 0} if colour else {}
    # The representation comes first: pydicom takes the sign of other attributes from it.
    for keyword in sorted(usual | attributes, key=lambda keyword: keyword != "PixelRepresentation"):
        value = (usual | attributes)[keyword]
        if value is not None:
            setattr(dataset, keyword, value)
    target = uid.UID(syntax)
    little = target != uid.ExplicitVRBigEndian
    if pixels is not None and "PixelData" not in attributes:
        content = pixels.astype(pixels.dtype.newbyteorder("<" if little else ">")).tobytes()
        dataset.PixelData = content + b"\0" * (len(content) % 2)
        dataset["PixelData"].VR = "OW" if pixels.itemsize == 2 else "OB"
        if target in (uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless):
            dataset.compress(target, generate_instance_uid=False)
    elif "PixelData" in attributes:
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = target.is_encapsulated
    dataset.file_meta.TransferSyntaxUID = target
    buffer = io.BytesIO()
    if preamble:
        known = not target.is_private and target in uid.AllTransferSyntaxes
        how = {} if known else {"implicit_vr": False, "little_endian": True}
        pydicom.dcmwrite(buffer, dataset, enforce_file_format=True, **how)
    else:
        del dataset.file_meta
        pydicom.dcmwrite(buffer, dataset, implicit_vr=target.is_implicit_VR, little_endian=True, enforce_file_format=False)
    return buffer.getvalue()


@functools.cache
def image_files() -> dict[str, ImageFile]:
    """File name -> content and promised outcome. Every name says what is special; the endings are plausible or wrong on purpose."""
    good = {**_good_png(), **_good_jpeg(), **_good_tiff(), **_good_other(), **_good_dicom()}
    bad = {**_no_images(), **_other_formats(), **_cut_or_damaged(), **_too_large(), **_several(), **_bad_dicom()}
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
        f"{c}.tif": encode(grey, "TIFF", compression=c) for c in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
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
        "sixteen bits big endian.tif": encode(Image.frombytes("I;16B", (WIDTH, HEIGHT), deep.astype(">u2").tobytes()), "TIFF"),
        "white is zero.tif": encode(65535 - deep, "TIFF", tiffinfo={262: 0}),
        "thirty-two bits.tif": encode(picture().astype(np.int32) * 70_000 - 5, "TIFF"),
        "floating point.tif": encode(picture().astype(np.float32) / 7 - 3, "TIFF"),
        "not a number.tif": encode(holes, "TIFF"),
        "constant floating point.tif": encode(np.full((5, 4), 7, np.float32), "TIFF"),
        "turned by its tag.tif": encode(grey, "TIFF", exif=oriented(6)),
    }


def _good_other() -> dict[str, bytes]:
    grey = Image.fromarray(picture())
    rgb = grey.convert("RGB")
    return {
        "grey.bmp": encode(grey, "BMP"),
        "rgb.BMP": encode(rgb, "BMP"),
        "one bit.bmp": encode(grey.convert("1"), "BMP"),
        "lossy.webp": encode(rgb, "WEBP"),
        "lossless.webp": encode(rgb, "WEBP", lossless=True),
        "alpha.webp": encode(Image.merge("RGBA", (grey, grey, grey, ImageChops.invert(grey))), "WEBP", lossless=True),
        "turned by exif.webp": encode(rgb, "WEBP", lossless=True, exif=oriented(6)),
    }


def _good_dicom() -> dict[str, bytes]:
    deep = picture().astype(np.uint16) * 16
    twelve = {"BitsStored": 12, "HighBit": 11}
    syntaxes = {
        "implicit": uid.ImplicitVRLittleEndian,
        "explicit": uid.ExplicitVRLittleEndian,
        "big endian": uid.ExplicitVRBigEndian,
        "deflated": uid.DeflatedExplicitVRLittleEndian,
        "rle": uid.RLELossless,
        "jpeg-ls": uid.JPEGLSLossless,
        "jpeg 2000": uid.JPEG2000Lossless,
    }
    window = {"WindowCenter": 2048, "WindowWidth": 4096}
    frame = encaps.encapsulate([encode(picture(), "JPEG")])
    files = {f"{name}.dcm": dicom_file(deep, syntax, **twelve, **window) for name, syntax in syntaxes.items()}
    return files | {
        "jpeg baseline.dcm": dicom_file(picture(), uid.JPEGBaseline8Bit, PixelData=frame),
        "eight bits.dcm": dicom_file(picture()),
        "no window.dcm": dicom_file(deep, **twelve),
        "white is zero.dcm": dicom_file(4095 - deep, PhotometricInterpretation="MONOCHROME1", **twelve, **window),
        "signed with padding.dcm": dicom_file(
            deep.astype(np.int16) - 2000, PixelPaddingValue=-2000, RescaleSlope=1, RescaleIntercept=0
        ),
        "rgb.dcm": dicom_file(np.dstack([picture()] * 3)),
        "no preamble.dcm": dicom_file(deep, preamble=False, **twelve),
        "no preamble implicit": dicom_file(deep, uid.ImplicitVRLittleEndian, preamble=False, **twelve),
        "dual with a tiff header.dcm": encode(picture(), "TIFF")[:128] + dicom_file(deep, **twelve)[128:],
        "more pixel data than announced.dcm": dicom_file(picture(), PixelData=picture().tobytes() + b"\0" * 100),
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
                "signature in the wrong case.png": encode(picture(), "PNG").replace(b"PNG", b"png", 1),
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
        "drawing.svg": b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="4" height="4"/>',
        "layers.psd": b"8BPS\0\x01" + bytes(40),
        "icon.ico": b"\0\0\1\0\1\0\x10\x10" + bytes(30),
        "netpbm.pgm": encode(picture(), "PPM"),
        "jpeg-ls.jls": b"\xff\xd8\xff\xf7\0\x0b\x08\0\x04\0\x04\x01\x01\x11\0" + bytes(20),
        "twelve bits.jpg": patched(encode(picture(), "JPEG"), b"\xff\xc0", 4, b"\x0c"),
        "double precision.tif": cv2.imencode(".tif", picture().astype(np.float64))[1].tobytes(),
        "unknown compression.tif": patched(encode(picture(), "TIFF"), b"\x03\x01\x03\0\1\0\0\0", 8, struct.pack("<H", 34712)),
        "unknown compression.bmp": patched(encode(picture(), "BMP"), b"BM", 30, b"\x06"),
    }
    return {name: (data, "unsupported") for name, data in contents.items()}


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
    cuts = {f"cut in half.{name}": data[: len(data) // 2] for name, data in whole.items() if "2000" not in name}
    cuts |= {f"cut near the end.{name}": data[:-9] for name, data in whole.items()}
    cuts |= {
        f"one byte short.{name}": whole[name][:-1] for name in ("png", "jpg", "progressive.jpg", "tif", "webp", "bmp", "dcm")
    }
    cuts |= {f"cut in the header.{name}": whole[name][:20] for name in ("png", "jpg", "tif", "webp", "bmp")}
    middle = len(whole["png"]) // 2
    tail = len(whole["jpg"]) * 2 // 3
    damaged = {
        "one bit flipped.png": whole["png"][:middle] + bytes([whole["png"][middle] ^ 1]) + whole["png"][middle + 1 :],
        "no end chunk.png": whole["png"][:-12],
        "only the signature.png": whole["png"][:8],
        "tail of zeros.jpg": whole["jpg"][:tail] + bytes(100_000),
        "deflated and cut.dcm": dicom_file(picture(), uid.DeflatedExplicitVRLittleEndian)[:-20],
        "fewer pixels than announced.dcm": dicom_file(picture(), PixelData=picture().tobytes()[:-2]),
    }
    return {name: (data, "truncated") for name, data in (cuts | damaged).items()}


def _too_large() -> dict[str, tuple[bytes, str]]:
    zeros = zlib.compressobj(1)
    deflated = b"".join(zeros.compress(bytes(10_001)) for _ in range(10_100)) + zeros.flush()
    bomb = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 10_000, 10_100, 8, 0, 0, 0, 0))
    bomb += png_chunk(b"IDAT", deflated) + png_chunk(b"IEND", b"")
    tiff = encode(picture(), "TIFF")
    for width_or_height in (256, 257):
        entry = struct.pack("<HHI", width_or_height, 4, 1)
        tiff = patched(tiff, entry, 0, entry + struct.pack("<I", 1_000_000))
    small = dicom_file(picture(), uid.DeflatedExplicitVRLittleEndian)
    start = 144 + struct.unpack_from("<I", small, 140)[0]  # behind the file meta information
    zeros = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    inflating = small[:start] + b"".join(zeros.compress(bytes(1_000_000)) for _ in range(240)) + zeros.flush()
    contents = {
        "header of a terapixel.png": png([b"\0"], 1_000_000, 1_000_000, 8, 0),
        "bomb of 101 megapixels.png": bomb,
        "header of four gigapixels.jpg": patched(encode(picture(), "JPEG"), b"\xff\xc0", 5, b"\xff\xff\xff\xff"),
        "header of a terapixel.tif": tiff,
        "header of four gigapixels.bmp": patched(encode(picture(), "BMP"), b"BM", 18, struct.pack("<II", 65_535, 65_535)),
        "header of 268 megapixels.webp": patched(encode(picture(), "WEBP", lossless=True), b"VP8L", 9, b"\xff\xff\xff\x0f"),
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
        "animated.webp": encode(grey.convert("RGB"), "WEBP", save_all=True, append_images=[other.convert("RGB")]),
        "frames.dcm": dicom_file(picture(), NumberOfFrames=2, PixelData=picture().tobytes() * 2),
    }
    return {name: (data, "unsupported") for name, data in contents.items()}


def _bad_dicom() -> dict[str, tuple[bytes, str]]:
    deep = picture().astype(np.uint16)
    wrong_size = encaps.encapsulate([encode(np.zeros((4000, 4000), np.uint8), "JPEG")])
    # A scan header that sequential JPEG forbids; a real scanner writes it, and no decoder takes it.
    extended = patched(encode(picture(), "JPEG"), b"\xff\xc0", 1, b"\xc1\0\x0b\x0c")
    extended = encaps.encapsulate([patched(extended, b"\xff\xda\0\x08", 8, b"\0")])
    garbage = encaps.encapsulate([np.random.default_rng(5).bytes(400)])
    return {
        "no pixel data.dcm": (dicom_file(None), "bad_dicom"),
        "no rows.dcm": (dicom_file(picture(), Rows=None), "bad_dicom"),
        "zero columns.dcm": (dicom_file(picture(), Columns=0), "bad_dicom"),
        "no photometric interpretation.dcm": (dicom_file(picture(), PhotometricInterpretation=None), "bad_dicom"),
        "three samples in monochrome.dcm": (dicom_file(picture(), SamplesPerPixel=3), "bad_dicom"),
        "more bits stored than allocated.dcm": (dicom_file(picture(), BitsStored=12), "bad_dicom"),
        "garbage after the prefix.dcm": (bytes(128) + b"DICM" + np.random.default_rng(4).bytes(500), "bad_dicom"),
        "nothing after the prefix.dcm": (bytes(128) + b"DICM", "bad_dicom"),
        "encoded frame of another size.dcm": (dicom_file(picture(), uid.JPEGBaseline8Bit, PixelData=wrong_size), "bad_dicom"),
        "encoded frame of garbage.dcm": (dicom_file(picture(), uid.JPEG2000Lossless, PixelData=garbage), "bad_dicom"),
        "thirty-two bits.dcm": (dicom_file(deep.astype(np.uint32)), "unsupported"),
        "unknown transfer syntax.dcm": (dicom_file(picture(), "1.2.826.0.1.3680043.8.498.99"), "unsupported"),
        "video transfer syntax.dcm": (dicom_file(picture(), uid.MPEG2MPML, PixelData=garbage), "unsupported"),
        "jpeg extended.dcm": (
            dicom_file(deep, uid.JPEGExtended12Bit, PixelData=extended, BitsStored=12, HighBit=11),
            "unsupported",
        ),
    }
