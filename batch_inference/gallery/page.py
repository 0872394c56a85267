"""A page to look through a scored folder: `gallery.html`, and its rows as scripts beside it in `gallery_rows/`.

The page asks no server and no network: a browser opens it from a folder or from a bucket's static site. Rows come as scripts
because a page that was opened from a file may load those, but no data.
"""

import base64
import dataclasses
import fnmatch
import hashlib
import itertools
import json
import os
import posixpath
from collections.abc import Iterator, Mapping
from typing import Any

import jinja2
import numpy as np

from batch_inference.outputs import cam_store, output_folder, picture_paths, row_files
from batch_inference.outputs.records import Prediction, printable
from batch_inference.storage import filesystem
from trainer import overlay
from trainer.artifact import FREE_METHOD
from trainer.errors import DataError

MAX_ROWS = 100_000
"""A browser would take a minute and gigabytes for a million: so many are looked through in parts."""
ROWS_PER_FILE = 5_000

_OWN = {field.name for field in dataclasses.fields(Prediction)}
_SHOWN_WHERE_KNOWN = ("modality", "body_part", "view")


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line asks for; names and meanings are those of the flags."""

    scored: str
    uri: str = "*"
    min_probability: float = 0.0
    label: str | None = None

    def is_of_a_part(self) -> bool:
        """Whether images are left out."""
        return self != Options(self.scored)


@dataclasses.dataclass(frozen=True)
class Gallery:
    """How many images and rejections the page shows, and where it is."""

    images: int
    rejected: int
    page: str

    def __str__(self) -> str:
        return f"{self.images} images and {self.rejected} rejected files; open {self.page}"


def write(options: Options) -> Gallery:
    """Writes the page of a scored folder over any earlier one.

    Raises:
      DataError: not the folder of a finished run, nothing in it that was asked for, or more than `MAX_ROWS`.
    """
    scored = filesystem.absolute(options.scored)
    run, summary = (
        _read_json(scored, name) for name in (output_folder.RUN_JSON, output_folder.SUMMARY_JSON)
    )
    if not options.is_of_a_part() and summary["scored"] + summary["rejected"] > MAX_ROWS:
        raise _too_many(scored)
    rows, shown = _rows(scored, options, _drawn_later(scored, run))
    images, rejected = len(rows["images"]), len(rows["rejected"])
    if not images + rejected:
        raise DataError(
            f"{scored} holds no row of what was asked for; see --uri, --min_probability and --label"
        )
    if images + rejected > MAX_ROWS:
        raise _too_many(scored)
    for row in row_files.read(scored, "studies"):
        if row["study"] in shown:
            study = [row["study"], row["label"], float(row["probability"]), int(row["images"])]
            rows["studies"].append((-study[2], _script(study)))
    filesystem.delete(filesystem.join(scored, output_folder.GALLERY))
    files = []
    for kind, of_kind in rows.items():
        # In the order that the page opens with, so that its first view needs the first file alone.
        of_kind.sort()
        for number, start in enumerate(range(0, len(of_kind), ROWS_PER_FILE)):
            scripts = [script for _, script in of_kind[start : start + ROWS_PER_FILE]]
            files.append(_write_rows(scored, kind, number, scripts))
    page = filesystem.join(scored, output_folder.GALLERY_HTML)
    described = _described(scored, run, summary, options)
    filesystem.write(page, _page(described, files).encode("utf-8"), "text/html")
    return Gallery(images, rejected, page)


def _too_many(scored: str) -> DataError:
    return DataError(
        f"{scored} has more than the {MAX_ROWS:,} rows that a gallery may hold; make one of a part: "
        f"humerus-gallery --scored={scored} --label=positive --min_probability=0.9"
    )


def _rows(
    scored: str, options: Options, drawn: Mapping[tuple[str, int | None], str]
) -> tuple[dict[str, list[tuple[Any, str]]], set[str]]:
    """What is shown of each kind, by what it is sorted by and as the script has it, which takes half the memory; and the studies.

    One row more than `MAX_ROWS` at most.
    """
    rows: dict[str, list[tuple[Any, str]]] = {"images": [], "studies": [], "rejected": []}
    shown = set()
    for kind, row in itertools.islice(_wanted(scored, options), MAX_ROWS + 1):
        if kind == "predictions":
            image = _image(row, drawn)
            rows["images"].append((-image[2], _script(image)))
            shown.add(row["study"])
        else:
            rows["rejected"].append(
                (
                    row["reason"],
                    _script([row["uri"], row["reason"], row["detail"], row.get("frame")]),
                )
            )
    return rows, shown


def _wanted(scored: str, options: Options) -> Iterator[tuple[str, dict[str, Any]]]:
    """Kind and row of what the page shows; asked for by label or probability, files without either are left out."""
    for row in row_files.read(scored, "predictions"):
        if (
            options.label in (None, row["label"])
            and float(row["probability"]) >= options.min_probability
            and fnmatch.fnmatchcase(row["uri"], options.uri)
        ):
            yield "predictions", row
    if options.label is None and not options.min_probability:
        for row in row_files.read(scored, "rejections"):
            if fnmatch.fnmatchcase(row["uri"], options.uri):
                yield "rejections", row


def _image(row: Mapping[str, Any], drawn: Mapping[tuple[str, int | None], str]) -> list[Any]:
    """uri, label, probability, study, picture, frame, further columns: as gallery.js takes it."""
    frame = int(row["frame"]) if row.get("frame") not in (None, "") else None
    cam = row.get("cam") or None
    if cam and cam.endswith(".parquet"):
        cam = drawn.get((row["uri"], frame))
    further = {
        name: row[name]
        for name in (*_SHOWN_WHERE_KNOWN, *(key for key in row if key not in _OWN))
        if row.get(name)
    }
    return [row["uri"], row["label"], float(row["probability"]), row["study"], cam, frame, further]


def _drawn_later(scored: str, run: Mapping[str, Any]) -> dict[tuple[str, int | None], str]:
    """Where `humerus-overlay --output=SCORED` draws, or has drawn, the picture of a packed map, by uri and frame."""
    if run["options"].get("cam_store") != "parquet":
        return {}
    folder, ending = filesystem.join(scored, picture_paths.CAMS), overlay.FORMATS["jpeg"]
    packs = [
        filesystem.join(folder, name)
        for name in sorted(filesystem.names(folder))
        if name.endswith(".parquet")
    ]
    return {
        (uri, frame): path + ending
        for pack in packs
        for uri, frame, path in cam_store.list_maps(pack)
    }


def _described(
    scored: str, run: Mapping[str, Any], summary: Mapping[str, Any], options: Options
) -> dict[str, Any]:
    """What the head of the page says, and what the scripts must know of the run."""
    asked = run["options"]
    packed = asked.get("cam_store") == "parquet"
    return {
        "folder": printable(posixpath.basename(scored)),
        "model": summary["model"],
        "engine": summary["engine"],
        "scored": summary["scored"],
        "rejected": summary["rejected"],
        "part": options.is_of_a_part(),
        "method": asked.get("method", FREE_METHOD),
        # Of packed maps, what humerus-overlay draws unless it is told otherwise.
        "style": "overlay" if packed else asked.get("cam", "overlay"),
        "colours": "viridis" if packed else asked.get("cam_colours", "viridis"),
        "packed": packed,
        "threshold": summary.get("threshold"),
        "cautions": summary.get("cautions", []),
        "originals": _originals(scored),
        # Marks are kept in the browser under this name: the same run in another place finds them again.
        "key": hashlib.sha256(
            f"{summary['model']}\0{asked.get('input', '')}".encode("utf-8", "surrogatepass")
        ).hexdigest()[:16],
    }


def _originals(scored: str) -> dict[str, str]:
    """`from`, the start of a URI that the browser may reach, and `to`, what stands for it in an address relative to the page."""
    if not filesystem.is_remote(scored):
        return {"from": "/", "to": f"{os.path.relpath('/', scored)}/"}
    scheme, _, path = scored.partition("://")
    bucket, *folders = path.split("/")
    return {"from": f"{scheme}://{bucket}/", "to": "../" * len(folders)}


def _script(row: list[Any]) -> str:
    return json.dumps(row, separators=(",", ":"))


def _write_rows(scored: str, kind: str, number: int, scripts: list[str]) -> str:
    """The file's address from the page, with a mark of its content: no cache can give the page what was there before."""
    name = f"{output_folder.GALLERY}/{kind}-{number:05d}.js"
    script = f"gallery.add({json.dumps(kind)}, [{','.join(scripts)}]);\n".encode("ascii")
    filesystem.write(filesystem.join(scored, name), script, "text/javascript")
    return f"{name}?v={hashlib.sha256(script).hexdigest()[:8]}"


def _page(described: Mapping[str, Any], files: list[str]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("batch_inference.gallery", "assets"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    bar = (
        None
        if described["style"] == "none"
        else _colour_bar(described["style"], described["colours"])
    )
    return environment.get_template("gallery.html.j2").render(
        run=described, colour_bar=bar, files=files
    )


def _colour_bar(style: str, colours: str) -> str:
    """From no evidence to full colour, drawn as the maps are, on the grey of soft tissue: a picture as a `data:` address."""
    evidence = np.tile(np.linspace(0, 1, 64, dtype=np.float32), (64, 1))
    grey = np.full(evidence.shape, 64, np.uint8)
    drawn = overlay.draw(
        grey, evidence, 64, 1.0, "heatmap" if style == "heatmap" else "overlay", colours
    )
    return f"data:image/png;base64,{base64.b64encode(overlay.encode(drawn[:1], 'png')).decode('ascii')}"


def _read_json(scored: str, name: str) -> dict[str, Any]:
    try:
        return json.loads(filesystem.read(filesystem.join(scored, name)))
    except (filesystem.StorageError, ValueError) as error:
        raise DataError(
            f"{scored} is not the folder of a finished run: its {name} cannot be read ({error})"
        ) from error
