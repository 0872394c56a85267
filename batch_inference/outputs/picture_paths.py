"""Where the picture of an input lies: a path that is safe, readable, and different for different inputs."""

import hashlib
import re

CAMS = "cams"
_PLAIN_PATH = re.compile(r"(?!.*\.(jpg|png|webp)/)([a-z0-9_][a-z0-9_.-]*/)*[a-z0-9_][a-z0-9_.-]*")
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")
_MAX_PART = 120
_MAX_PATH = 480


def cam_path(name: str, suffix: str, frame: int | None = None) -> str:
    """Path of a picture relative to the output.

    A plain name (lower-case ASCII letters, digits, `_`, `-`, `.`) is kept and `suffix` appended, so `a.png` and `a.jpg` stay apart.
    Any other name has what is unsafe replaced and gets `~` and a hash of the original, so that names that differ
    only in case, in replaced characters or beyond the length limit stay apart too, on file systems that ignore case as well.

    Args:
      name: `Source.name`: path relative to the input's root, or a whole URI.
      suffix: as `.jpg`.
      frame: which of the file's frames it shows, where each has its own picture.
    """
    if frame is not None:
        # No name holds a NUL, so the hash of this one is that of no file.
        name = f"{name}\0frame{frame}"
    if (
        len(name) <= _MAX_PATH
        and _PLAIN_PATH.fullmatch(name)
        and all(len(part) <= _MAX_PART for part in name.split("/"))
    ):
        return f"{CAMS}/{name}{suffix}"
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    *folders, file = [_safe(part) for part in name.split("/")]
    # The mark on folders keeps them apart from files: `a.jpg/b` must not ask for a folder where the picture of `a` lies.
    path = "/".join(
        [
            *(
                f"{folder}~" if folder.lower().endswith((".jpg", ".png", ".webp")) else folder
                for folder in folders
            ),
            file,
        ]
    )
    return f"{CAMS}/{path[-_MAX_PATH:].lstrip('/.-')}~{digest}{suffix}"


def _safe(part: str) -> str:
    part = _UNSAFE.sub("_", part)[:_MAX_PART]
    return f"_{part}" if not part or part[0] in ".-" else part
