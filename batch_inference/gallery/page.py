"""Write a page to look through a scored folder: `gallery.html`, its rows in `gallery_rows/`.

The page needs no server: a browser opens it from a folder, or from the static site of a bucket. The
rows are scripts, because a page that is opened from a file may load scripts but no data.
"""

import base64
import dataclasses
import fnmatch
import hashlib
import itertools
import json
import os
import posixpath
from collections.abc import Iterator, Mapping, Set
from typing import Any

import jinja2

from batch_inference.options import GalleryOptions
from batch_inference.outputs import (
    cam_store,
    output_folder,
    page_files,
    picture_paths,
    row_files,
    run_record,
)
from batch_inference.outputs.records import Prediction, escape_reversibly
from batch_inference.storage import filesystem, storage_errors
from trainer.artifact import METHOD_TITLES, ONE_PASS_METHOD
from trainer.drawing import legend, overlay
from trainer.errors import ConfigError, DataError

MAX_ROWS = 100_000
"""The most that a page may show: a browser would need a minute and gigabytes for a million rows."""
ROWS_PER_FILE = 5_000
VENDORED = "vendor/d3-zoom.min.js"
"""The library of the page that zooms and pans, in `assets/`; see `assets/vendor/README.md`."""

_OWN = {field.name for field in dataclasses.fields(Prediction)}
_NEEDED: dict[str, dict[str, type]] = {
    run_record.RUN_JSON: {"options": dict},
    output_folder.SUMMARY_JSON: {"scored": int, "rejected": int, "model": str, "engine": str},
}
_SHOWN_WHERE_KNOWN = ("modality", "body_part", "view", "warnings")


@dataclasses.dataclass(frozen=True)
class Gallery:
    """The number of images and rejected files that a page shows, and its URI."""

    images: int
    rejected: int
    page: str

    def __str__(self) -> str:
        return f"{self.images} images and {self.rejected} rejected files; open {self.page}"


def write(options: GalleryOptions) -> Gallery:
    """Write the page of a scored folder, in place of an earlier one that shows no more rows.

    Raises:
      ConfigError: the name of the page is not allowed, or the page would replace one that shows
        more rows.
      DataError: the folder holds no finished run, the options select nothing, or they select more
        than `MAX_ROWS`.
    """
    if not page_files.PAGE.fullmatch(options.page):
        raise ConfigError(
            f"--page={options.page} cannot be the name of a page; expected letters, digits, dots, "
            "- and _ before .html, such as positives.html"
        )
    scored = filesystem.absolute(options.scored)
    run, summary = (
        _read_json(scored, name) for name in (run_record.RUN_JSON, output_folder.SUMMARY_JSON)
    )
    if not options.selects_part():
        _check_number(scored, summary["scored"] + summary["rejected"])
    with storage_errors.explain_failure(DataError, f"{scored} cannot be read", "check access"):
        rows = _collect_rows(scored, options, _find_drawn_later(scored, run, options))
    images, rejected = len(rows["images"]), len(rows["rejected"])
    if not images + rejected:
        raise DataError(
            f"no row in {scored} is selected by --uri, --min_probability and --label; "
            "change or omit them"
        )
    _check_number(scored, images + rejected)
    if not options.overwrite:
        _check_replaceable(scored, options.page, images + rejected)
    described = _describe_run(scored, run, summary, options)
    page = filesystem.join(scored, options.page)
    with storage_errors.explain_write_failure(page):
        files = _write_rows(scored, options.page, rows)
        html = _render(described, [*files.values()], page_files.COUNT.format(images + rejected))
        filesystem.write(page, html.encode("utf-8"), "text/html")
        page_files.delete_rows(scored, options.page, kept=files)
    return Gallery(images, rejected, page)


def _check_number(scored: str, rows: int) -> None:
    """Raise `DataError` where a page would show more than `MAX_ROWS`."""
    if rows > MAX_ROWS:
        raise DataError(
            f"{scored} has more than the {MAX_ROWS:,} rows that a gallery may hold; select a part: "
            f"humerus-gallery --scored={scored} --label=positive --min_probability=0.9"
        )


def _check_replaceable(scored: str, page: str, rows: int) -> None:
    """Raise `ConfigError` where a page of this name shows more rows than `rows`."""
    uri = filesystem.join(scored, page)
    shown = (page_files.count_rows(uri) or 0) if filesystem.exists(uri) else 0
    if shown > rows:
        raise ConfigError(
            f"{uri} shows {shown} rows and this selection has {rows}; write this selection to "
            "another page (--page=part.html), or replace the fuller page with --overwrite"
        )


def _collect_rows(
    scored: str, options: GalleryOptions, drawn: Mapping[tuple[str, int | None], str]
) -> dict[str, list[tuple[Any, str]]]:
    """Return the selected rows: `images`, their `studies`, and `rejected`.

    Each is a list of (sort key, row as JavaScript, which takes half the memory of a list). Images
    and rejected files are together at most `MAX_ROWS` + 1.
    """
    rows: dict[str, list[tuple[Any, str]]] = {"images": [], "studies": [], "rejected": []}
    shown = set()
    copies = set(filesystem.files(filesystem.join(scored, picture_paths.ORIGINALS)))
    for kind, row in itertools.islice(_select_rows(scored, options), MAX_ROWS + 1):
        if kind == "predictions":
            image = _describe_image(row, drawn, copies)
            rows["images"].append((-image[2], _format_script(image)))
            shown.add(row["study"])
        else:
            rejected = [row["uri"], row["reason"], row["detail"], row_files.read_frame(row)]
            rows["rejected"].append((row["reason"], _format_script(rejected)))
    for row in row_files.read(scored, "studies"):
        if row["study"] in shown:
            study = [row["study"], row["label"], float(row["probability"]), int(row["images"])]
            rows["studies"].append((-study[2], _format_script(study)))
    return rows


def _select_rows(scored: str, options: GalleryOptions) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the kind and the row of what the options select.

    Rejected files have no label or probability, so an option on either omits them.
    """
    for row in row_files.read(scored, "predictions"):
        if options.selects(row["uri"], row["label"], float(row["probability"])):
            yield "predictions", row
    if options.label is None and not options.min_probability:
        for row in row_files.read(scored, "rejections"):
            if fnmatch.fnmatchcase(row["uri"], options.uri):
                yield "rejections", row


def _describe_image(
    row: Mapping[str, Any], drawn: Mapping[tuple[str, int | None], str], copies: Set[str]
) -> list[Any]:
    """Return uri, label, probability, study, picture, frame, further columns and the path of the
    copy of its radiograph, for gallery.js.
    """
    frame = row_files.read_frame(row)
    cam = row.get("cam") or None
    if cam and cam.endswith(".parquet"):
        cam = drawn.get((row["uri"], frame))
    further = {
        name: ", ".join(row[name]) if isinstance(row[name], list) else row[name]
        for name in (*_SHOWN_WHERE_KNOWN, *(key for key in row if key not in _OWN))
        if row.get(name)
    }
    values = [row["uri"], row["label"], float(row["probability"]), row["study"], cam, frame]
    copy = picture_paths.original_path(cam) if cam else ""
    kept = copy.removeprefix(f"{picture_paths.ORIGINALS}/") in copies
    return [*values, further, copy if kept else None]


def _find_drawn_later(
    scored: str, run: Mapping[str, Any], options: GalleryOptions
) -> dict[tuple[str, int | None], str]:
    """Return the paths, by uri and frame, where `humerus-overlay --output=SCORED` draws maps."""
    if run["options"].get("cam_store") != "parquet":
        return {}
    return {
        image: path + overlay.FORMATS["jpeg"]
        for image, path in cam_store.list_named_maps(scored, options).items()
    }


def _describe_run(
    scored: str, run: Mapping[str, Any], summary: Mapping[str, Any], options: GalleryOptions
) -> dict[str, Any]:
    """Return what the head of the page and the scripts need to know of the run."""
    asked = run["options"]
    packed, method = asked.get("cam_store") == "parquet", asked.get("method", ONE_PASS_METHOD)
    return {
        "folder": escape_reversibly(posixpath.basename(scored)),
        **{name: summary[name] for name in _NEEDED[output_folder.SUMMARY_JSON]},
        "part": options.selects_part(),
        "selected": options.label is not None or options.min_probability > 0,
        "method": METHOD_TITLES.get(method, method),
        "full_colour": (scale := run.get("cam_scale")) and f"{scale:.3g} {legend.UNIT}",
        # Packed maps are drawn by humerus-overlay, by default in this way.
        "style": "overlay" if packed else asked.get("cam", "overlay"),
        "colours": "viridis" if packed else asked.get("cam_colours", "viridis"),
        "packed": packed,
        "legend": asked.get("cam_legend", False) and legend.SIZES,
        "threshold": summary.get("threshold"),
        "cautions": summary.get("cautions", []),
        "originals": locate_originals(scored),
        # Where the paths of masks begin that a manifest names: beside it, as those of its images.
        "base": filesystem.absolute(posixpath.dirname(asked.get("input") or "")),
        # The browser keeps marks under this name, so that they survive a move of the folder.
        "key": hashlib.sha256(
            f"{summary['model']}\0{asked.get('input', '')}".encode("utf-8", "surrogatepass")
        ).hexdigest()[:16],
    }


def locate_originals(scored: str) -> dict[str, str]:
    """Return how the page addresses originals: the start `from` of a URI is replaced by `to`."""
    if not filesystem.is_remote(scored):
        return {"from": "/", "to": f"{os.path.relpath('/', scored)}/"}
    scheme, _, path = scored.partition("://")
    bucket, *folders = path.split("/")
    return {"from": f"{scheme}://{bucket}/", "to": "../" * len(folders)}


def _format_script(row: list[Any]) -> str:
    """Return a row as JavaScript."""
    return json.dumps(row, separators=(",", ":"))


def _write_rows(
    scored: str, page: str, rows: Mapping[str, list[tuple[Any, str]]]
) -> dict[str, str]:
    """Write the files of rows, and return the address of each from the page by its path.

    The address has a hash of the content, so that no cache returns an earlier file.
    """
    addresses = {}
    for kind, of_kind in rows.items():
        # In the order in which the page opens, so that its first view needs only the first file.
        of_kind.sort()
        for number, start in enumerate(range(0, len(of_kind), ROWS_PER_FILE)):
            scripts = ",".join(script for _, script in of_kind[start : start + ROWS_PER_FILE])
            content = f"gallery.add({json.dumps(kind)}, [{scripts}]);\n".encode("ascii")
            path = page_files.rows_path(page, kind, number)
            filesystem.write(filesystem.join(scored, path), content, "text/javascript")
            addresses[path] = f"{path}?v={hashlib.sha256(content).hexdigest()[:8]}"
    return addresses


def _render(described: Mapping[str, Any], files: list[str], count: str) -> str:
    """Return the HTML of the page."""
    own = jinja2.PackageLoader("batch_inference.gallery", "assets")
    environment = jinja2.Environment(
        # confusion.js is the report's too
        loader=jinja2.ChoiceLoader([own, jinja2.PackageLoader("trainer")]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("gallery.html.j2").render(
        run=described,
        colour_bar=_draw_colour_bar(described["style"], described["colours"]),
        files=files,
        count=count,
        vendored=VENDORED,
    )


def _draw_colour_bar(style: str, colours: str) -> str | None:
    """Return a bar from no evidence to full colour, drawn as the maps are, as a `data:` address;
    None where there are no maps.
    """
    if style == "none":
        return None
    bar = legend.draw_bar(64, "heatmap" if style == "heatmap" else "overlay", colours)
    png = base64.b64encode(overlay.encode(bar, "png")).decode("ascii")
    return f"data:image/png;base64,{png}"


def _read_json(scored: str, name: str) -> dict[str, Any]:
    """Return the content of a JSON file; raise `DataError` where it is missing or damaged."""
    try:
        content = json.loads(filesystem.read(filesystem.join(scored, name)))
        for key, kind in _NEEDED[name].items():
            if not isinstance(content, dict) or not isinstance(content.get(key), kind):
                raise ValueError(f"its {key} is missing or damaged")
        return content
    except (storage_errors.StorageError, ValueError) as error:
        raise DataError(
            f"{scored} is not the folder of a finished run: its {name} cannot be read ({error})"
        ) from error
