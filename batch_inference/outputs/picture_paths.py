"""Name the pictures and DICOM results of inputs by safe, readable, different paths."""

import hashlib
import re

CAMS = "cams"
DICOM = "dicom_results"
ORIGINALS = "originals"
"""Grey 8-bit copies of radiographs that no browser shows, named as their pictures in `CAMS`."""
_FOLDERS = (CAMS, DICOM)
_ENDINGS = (".jpg", ".png", ".webp", ".parquet", ".sc.dcm", ".sr.dcm")
_PLAIN_PATH = re.compile(
    r"(?!.*\.(jpg|png|webp|s[cr]\.dcm)/)([a-z0-9_][a-z0-9_.-]*/)*[a-z0-9_][a-z0-9_.-]*"
)
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")
_MAX_PART = 120
_MAX_PATH = 480


def cam_path(name: str, suffix: str, frame: int | None = None) -> str:
    """Return the path of a picture, relative to the output, as `_name` names it."""
    return f"{CAMS}/{_name(name, suffix, frame)}"


def dicom_path(name: str, kind: str, frame: int | None = None) -> str:
    """Return the path of a result in DICOM of a kind (`sc` or `sr`), relative to the output."""
    return f"{DICOM}/{_name(name, f'.{kind}.dcm', frame)}"


def find_stem(path: str) -> str:
    """Return what the paths of the picture and of the DICOM results of one image share."""
    folder, _, name = path.partition("/")
    name = name if folder in _FOLDERS else path
    return next((name.removesuffix(end) for end in _ENDINGS if name.endswith(end)), name)


def _name(name: str, suffix: str, frame: int | None) -> str:
    """Return the path of a file that is made of an input.

    A plain name (lower-case ASCII letters, digits, `_`, `-`, `.`) is kept and `suffix` appended, so
    that `a.png` and `a.jpg` have different pictures. In any other name, unsafe characters are
    replaced and `~` and a hash of the name appended. So two names never have the same path, even
    if they differ only in case, in a replaced character or beyond the length limit.

    Args:
      name: `Source.name`, the path relative to the input's root, or a whole URI.
      suffix: the ending of the picture's file format, such as `.jpg`.
      frame: which of the file's frames the picture shows, where each has its own.
    """
    if frame is not None:
        # No file name holds a NUL, so this hash differs from that of any file.
        name = f"{name}\0frame{frame}"
    if (
        len(name) <= _MAX_PATH
        and _PLAIN_PATH.fullmatch(name)
        and all(len(part) <= _MAX_PART for part in name.split("/"))
    ):
        return f"{name}{suffix}"
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    *folders, file = [_replace_unsafe(part) for part in name.split("/")]
    # The picture of `a` is the file `a.jpg`, so the folder of `a.jpg/b` needs another name.
    path = "/".join(
        [
            *(f"{folder}~" if folder.lower().endswith(_ENDINGS) else folder for folder in folders),
            file,
        ]
    )
    return f"{path[-_MAX_PATH:].lstrip('/.-')}~{digest}{suffix}"


def original_path(cam: str) -> str:
    """Return the path of the copy of a radiograph, for the path of its picture in `CAMS`."""
    return f"{ORIGINALS}{cam.removeprefix(CAMS).rpartition('.')[0]}.jpg"


def _replace_unsafe(part: str) -> str:
    """Return one part of a path, shortened, with `_` for each unsafe character."""
    part = _UNSAFE.sub("_", part)[:_MAX_PART]
    return f"_{part}" if not part or part[0] in ".-" else part
