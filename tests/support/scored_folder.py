"""A scored folder of any size, written in a moment: what the scorer leaves, without scoring."""

import json
import pathlib

import cv2
import numpy as np

from trainer import overlay

HOSTILE = """<img src=x onerror="document.title='taken'">&amp;'<b>%41 #1?.png"""
"""A file name that shows as it stands, or else has done something."""
HOSTILE_STUDY = "</script><script>document.title='taken'</script>"


def jpeg(seed: int, height: int = 90, width: int = 60, style: str = "overlay") -> bytes:
    """A picture as the scorer draws it: a bright bar, and on it a map in colour."""
    grey = np.full((height, width), 30 + seed % 40, np.uint8)
    grey[:, width // 3 : width // 2] = 200
    cam = np.zeros((4, 4), np.float32)
    cam[seed % 4, seed // 4 % 4] = 1.0
    return overlay.encode(overlay.draw(grey, cam, 64, 1.0, style), "jpeg")


def original(seed: int, height: int = 90, width: int = 60) -> bytes:
    """The picture that `jpeg` draws on, as PNG."""
    grey = np.full((height, width), 30 + seed % 40, np.uint8)
    grey[:, width // 3 : width // 2] = 200
    return cv2.imencode(".png", grey)[1].tobytes()


def write(root: pathlib.Path, images: int, style: str = "overlay", originals: int | None = None, **summary) -> pathlib.Path:
    """`root/scored` of so many images and three rejections, and `root/in` with the first `originals` (all) of the images.

    Image i has probability (i + 1) / (images + 1), is positive from 0.5 on, and two images make a study. The last one, which
    stands first, is named `HOSTILE`, and the last study `HOSTILE_STUDY`.
    """
    scored, source = root / "scored", root / "in"
    (scored / "cams").mkdir(parents=True)
    source.mkdir()
    pictures = [jpeg(i, style=style) for i in range(16)] if style != "none" else []
    rows = []
    for i in range(images):
        name = HOSTILE if i == images - 1 else f"image{i}.png"
        if pictures:
            (scored / "cams" / f"{i}.jpg").write_bytes(pictures[i % 16])
        if i < (images if originals is None else originals):
            (source / name).write_bytes(original(i % 16))
        probability = (i + 1) / (images + 1)
        row = {"uri": str(source / name), "label": "positive" if probability >= 0.5 else "negative", "probability": probability}
        row |= {
            "logit": 0.0,
            "study": HOSTILE_STUDY if i // 2 == (images - 1) // 2 else f"study{i // 2}",
            "cam": f"cams/{i}.jpg" if pictures else None,
            "model": "0123456789abcdef",
        }
        rows.append(row | {"engine": "tensorflow/float32", "frame": None, "view": "AP" if i % 2 else None, "ward": f"W{i % 3}"})
    studies = [
        {
            "study": pair[0]["study"],
            "label": pair[0]["label"],
            "probability": sum(r["probability"] for r in pair) / len(pair),
            "images": len(pair),
        }
        for pair in (rows[i : i + 2] for i in range(0, images, 2))
    ]
    rejections = [
        {"uri": str(source / f"broken{i}.png"), "reason": reason, "detail": f"<i>detail</i> {i}", "frame": None}
        for i, reason in enumerate(("truncated", "not_an_image", "truncated"))
    ]
    for name, table in (("predictions", rows), ("studies", studies), ("rejections", rejections)):
        (scored / f"{name}.jsonl-00000-of-00001").write_text("".join(json.dumps(row) + "\n" for row in table))
    told = {"model": "0123456789abcdef", "engine": "tensorflow/float32", "scored": images, "rejected": 3, "threshold": 0.5}
    (scored / "summary.json").write_text(json.dumps(told | {"cautions": []} | summary))
    options = {"cam": style, "cam_store": "files", "input": str(source)}
    (scored / "run.json").write_text(json.dumps({"state": "finished", "options": options}))
    return scored
