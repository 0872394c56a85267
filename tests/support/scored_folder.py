"""Write what the scorer leaves, for any number of images, without scoring."""

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence

import cv2
import numpy as np

from trainer.drawing import overlay

MODEL = "0123456789abcdef"
HOSTILE = """<img src=x onerror="document.title='taken'">&amp;'<b>%41 #1?\u202e.png"""
"""A file name that a page must escape: a browser would run it, or read from right to left."""
HOSTILE_SHOWN = HOSTILE.replace("\u202e", r"\u202e")
HOSTILE_STUDY = "=1+1</script><script>document.title='taken'</script>"
"""The same of a study; a spreadsheet takes it for a formula."""


def jpeg(seed: int, height: int = 90, width: int = 60, style: str = "overlay") -> bytes:
    """Draw a picture as the scorer does: a bright bar under a coloured map."""
    grey = np.full((height, width), 30 + seed % 40, np.uint8)
    grey[:, width // 3 : width // 2] = 200
    cam = np.zeros((4, 4), np.float32)
    cam[seed % 4, seed // 4 % 4] = 1.0
    return overlay.encode(overlay.draw(grey, cam, 64, 1.0, style), "jpeg")


def original(seed: int, height: int = 90, width: int = 60) -> bytes:
    """Return the picture that `jpeg` draws on, as PNG."""
    grey = np.full((height, width), 30 + seed % 40, np.uint8)
    grey[:, width // 3 : width // 2] = 200
    return cv2.imencode(".png", grey)[1].tobytes()


def write(
    root: pathlib.Path,
    images: int,
    style: str = "overlay",
    originals: int | None = None,
    per_study: int = 2,
    threshold: float = 0.5,
    cautions: Sequence[str] = (),
    further: Callable[[int], Mapping[str, str]] = lambda image: {},
    **options: str,
) -> pathlib.Path:
    """`root/scored` of so many images and three rejections, and `root/in` with the first
    `originals` (all) of the images.

    Image i has probability (i + 1) / (images + 1) and is positive from the threshold on;
    `per_study` images make a study, which is positive where its first image is. The last image,
    which stands first, is named `HOSTILE`, and the last study `HOSTILE_STUDY`. Written again, the
    rows are others and the pictures the same.

    Args:
      further: returns the columns that a manifest gives to an image.
      options: further ones of the run.
    """
    scored, source = root / "scored", root / "in"
    (scored / "cams").mkdir(parents=True, exist_ok=True)
    source.mkdir(exist_ok=True)
    pictures = [jpeg(i, style=style) for i in range(16)] if style != "none" else []
    rows = []
    for i in range(images):
        name = HOSTILE if i == images - 1 else f"image{i}.png"
        if pictures:
            (scored / "cams" / f"{i}.jpg").write_bytes(pictures[i % 16])
        if i < (images if originals is None else originals):
            (source / name).write_bytes(original(i % 16))
        probability = (i + 1) / (images + 1)
        row = {
            "uri": str(source / name),
            "label": "positive" if probability >= threshold else "negative",
            "probability": probability,
            "logit": 0.0,
            "study": HOSTILE_STUDY
            if i // per_study == (images - 1) // per_study
            else f"study{i // per_study}",
            "cam": f"cams/{i}.jpg" if pictures else None,
            "model": MODEL,
        }
        rows.append(
            row
            | {
                "engine": "tensorflow/float32",
                "frame": None,
                "view": "AP" if i % 2 else None,
                "ward": f"W{i % 3}",
                **further(i),
            }
        )
    studies = [
        {
            "study": of_study[0]["study"],
            "label": of_study[0]["label"],
            "probability": sum(row["probability"] for row in of_study) / len(of_study),
            "images": len(of_study),
        }
        for of_study in (rows[i : i + per_study] for i in range(0, images, per_study))
    ]
    rejections = [
        {
            "uri": str(source / f"broken{i}.png"),
            "reason": reason,
            "detail": f"<i>detail</i> {i}",
            "frame": None,
        }
        for i, reason in enumerate(("truncated", "not_an_image", "truncated"))
    ]
    for name, table in (("predictions", rows), ("studies", studies), ("rejections", rejections)):
        (scored / f"{name}.jsonl-00000-of-00001").write_text(
            "".join(json.dumps(row) + "\n" for row in table)
        )
    summary = {"model": MODEL, "engine": "tensorflow/float32", "scored": images, "rejected": 3}
    (scored / "summary.json").write_text(
        json.dumps(summary | {"threshold": threshold, "cautions": list(cautions)})
    )
    run = {
        "state": "finished",
        "cam_scale": 0.13204,
        "options": {"cam": style, "cam_store": "files", "input": str(source)} | options,
    }
    (scored / "run.json").write_text(json.dumps(run))
    return scored
