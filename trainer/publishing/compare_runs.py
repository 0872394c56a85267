"""Set finished runs side by side on one page: metrics, curves, and the settings that differ."""

import csv
import dataclasses
import html
import io
import json
import os
import posixpath
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score, roc_curve

from trainer import storage
from trainer.artifact import MODEL_JSON
from trainer.errors import ConfigError
from trainer.evaluation import figures
from trainer.evaluation.metric_tables import NO_INTERVAL, format_interval
from trainer.evaluation.metrics import METRICS
from trainer.program import text_table
from trainer.program.text_escaping import escape_name
from trainer.publishing import page_templates, report
from trainer.publishing.report import REPORT

_SPLITS = ("test", "out_of_fold", "validation")
"""The splits that a run may be judged by, the best first."""
_CASES = re.compile(r'<script type="application/json" id="cases">(.*?)</script>', re.DOTALL)
_COLOURS = ("#2f86c8", "#d9730d", "#3a9a5b", "#b0559c", "#8c6d31", "#808890")
_DASHES = ("-", "--", "-.", ":")


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
      name: its folder's name; the whole path where two runs have one name.
      folder: its folder, local or in a bucket.
      split: by which it is judged.
      measured: the content of `metrics.json` for this split.
      settings: as in `config.json`.
      model: the content of `model.json`.
      epochs: number and AUROC of each epoch on validation images, where it has one.
      scores: labels, 0 or 1, and probabilities of the images of the split; empty where the report
        of the run does not hold them.
    """

    name: str
    folder: str
    split: str
    measured: Mapping[str, Any]
    settings: Mapping[str, Any]
    model: Mapping[str, Any]
    epochs: Sequence[tuple[int, float]]
    scores: Sequence[tuple[int, float]]


def write(folders: Sequence[str], output: str) -> list[Run]:
    """Write the page to `output`, local or in a bucket, and return the runs.

    Raises:
      ConfigError: there is no folder, or one that no finished run left.
    """
    if not folders:
        raise ConfigError("name the folders of one or several finished runs, such as runs/first")
    plain = [folder.rstrip("/") for folder in folders]
    if twice := [folder for folder in plain if plain.count(folder) > 1]:
        raise ConfigError(f"{twice[0]} is named twice; name each run once")
    names = [posixpath.basename(folder) for folder in plain]
    named = map(escape_name, plain if len(set(names)) < len(names) else names)
    runs = [_read(folder, name) for folder, name in zip(plain, named, strict=True)]
    storage.write_text(output, render(runs, posixpath.dirname(output)))
    return runs


def _read(folder: str, name: str) -> Run:
    """Return the run of a folder; raise `ConfigError` where it holds none that is finished."""
    content = storage.read_bytes(f"{folder}/metrics.json")
    if content is None:
        raise ConfigError(
            f"{folder} holds no finished run (no metrics.json there); name the --workdir of a "
            "humerus-train that has ended"
        )
    try:
        metrics = json.loads(content)
        split = next(split for split in _SPLITS if metrics.get(split))
        measured = metrics[split]
        settings = json.loads(storage.read_bytes(f"{folder}/config.json") or b"{}")
        model = json.loads(storage.read_bytes(f"{folder}/artifact/{MODEL_JSON}") or b"{}")
        history = (storage.read_bytes(f"{folder}/history.csv") or b"").decode("utf-8")
        epochs = [
            (int(float(row["epoch"])), float(row["val_auroc"]))
            for row in csv.DictReader(io.StringIO(history))
            if row.get("val_auroc") not in (None, "", "nan")
        ]
        run = Run(name, folder, split, measured, settings, model, epochs, _read_scores(folder))
        _list_facts([run])  # fails here where something is missing
    except (ValueError, AttributeError, KeyError, TypeError, StopIteration) as error:
        reason = str(error) or "no split is measured"
        raise ConfigError(
            f"the results of {folder} are damaged ({reason}); run the same humerus-train again"
        ) from error
    return run


def _read_scores(folder: str) -> list[tuple[int, float]]:
    """Return label and probability of each image that the report of a run lists."""
    page = (storage.read_bytes(f"{folder}/{REPORT}") or b"").decode("utf-8", "replace")
    found = _CASES.search(page)
    if not found:
        return []
    return [(label, score) for _, label, score in json.loads(html.unescape(found[1]))["cases"]]


def render(runs: Sequence[Run], beside: str) -> str:
    """Return the page; `beside` is the folder that it will lie in."""
    environment = page_templates.make_environment()
    return environment.get_template("compare.html.j2").render(
        title="One run" if len(runs) == 1 else f"{len(runs)} runs side by side",
        runs=runs,
        reports=[_locate(f"{run.folder}/{REPORT}", beside) for run in runs],
        metrics=[(name, report.NAMES[name]) for name in METRICS],
        facts=_list_facts(runs),
        differing=list_differing([run.settings for run in runs]),
        incomparable=_list_warnings(runs),
        simulated=any((run.model.get("dataset") or {}).get("simulated") for run in runs),
        no_interval=NO_INTERVAL,
        figures=_draw(runs),
    )


def list_differing(settings: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """Return each setting that differs between runs, with the value of each run.

    The value is empty where a run lacks the setting.

    Args:
      settings: those of each run, as `config.json` has them.
    """
    keys = dict.fromkeys(key for of_run in settings for key in of_run)
    rows = [(key, [str(of_run.get(key, "")) for of_run in settings]) for key in keys]
    return [(key.removeprefix("config."), values) for key, values in rows if len(set(values)) > 1]


def _list_facts(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Return what was trained and measured, by name, for each run."""

    def describe(run: Run) -> dict[str, str]:
        built, counts = run.model.get("architecture", {}), run.measured["counts"]
        return {
            "network that was trained": str(built.get("backbone", "unknown")),
            "model": str(run.model.get("model_id", "unknown")),
            "made": str(run.model.get("created", "unknown")),
            "data": _find_data(run)[:16],
            "measured on": f"{run.split.replace('_', ' ')}: {counts['images']} images "
            f"({counts['positive_images']} positive) of {counts['patients']} patients",
            "threshold": f"{run.measured['threshold']:.3f}",
        }

    described = [describe(run) for run in runs]
    return [(name, [facts[name] for facts in described]) for name in described[0]]


def _find_data(run: Run) -> str:
    """Return the fingerprint of the prepared data."""
    return str(run.settings.get("data.fingerprint", "unknown"))


def _list_warnings(runs: Sequence[Run]) -> list[str]:
    """Return sentences where the metrics of runs can't be compared, or are optimistic."""
    warnings = []
    if len({_find_data(run) for run in runs}) > 1:
        warnings.append(
            "These runs were trained and measured on different data: their metrics can't be "
            "compared with each other."
        )
    elif len({(run.split, run.measured["counts"]["images"]) for run in runs}) > 1:
        warnings.append(
            "These runs were measured on different splits of the data (`measured on` below): their "
            "metrics can't be compared with each other."
        )
    if any(run.split == "validation" for run in runs):
        warnings.append(
            "Figures of a validation split are optimistic: threshold and calibration were fitted on"
            " it."
        )
    return warnings


def _locate(path: str, beside: str) -> str:
    """Return the address of a file from a page in the folder `beside`."""
    if storage.is_remote(path) or storage.is_remote(beside):
        return path
    # Quoted, so that a folder's name is neither a scheme nor a query.
    return urllib.parse.quote(os.path.relpath(path, beside or "."))


def _draw(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Return text alternative and SVG of the ROC curves and of the AUROC by epoch."""
    styles: list[dict[str, Any]] = [
        {"color": _COLOURS[i % len(_COLOURS)], "linestyle": _DASHES[i // len(_COLOURS) % 4]}
        for i in range(len(runs))
    ]
    roc, epochs = (Figure(figsize=(5.2, 4.2), layout="constrained") for _ in range(2))
    axes, by_epoch = roc.subplots(), epochs.subplots()
    axes.plot([0, 1], [0, 1], color=figures.NEUTRAL, linestyle=":", linewidth=1.2, label="chance")
    for run, style in zip(runs, styles, strict=True):
        # Matplotlib takes text between $ for a formula, and omits what begins with _.
        label = f"\N{ZERO WIDTH SPACE}{run.name}".replace("$", r"\$")
        if len({label for label, _ in run.scores}) == 2:
            labels, scores = zip(*run.scores, strict=True)
            x, y, _ = roc_curve(labels, scores)
            area = roc_auc_score(labels, scores)
            axes.plot(x, y, label=f"{label}, AUROC {area:.3f}", **style)
        if run.epochs:
            by_epoch.plot(*zip(*run.epochs, strict=True), label=label, **style)
    figures.finish_axes(axes, "ROC per image", "1 - specificity", "sensitivity", "lower right")
    figures.finish_axes(by_epoch, "AUROC on validation images", "epoch", "")
    drawn = [
        (any(run.scores for run in runs), "ROC curves per image", roc, "roc"),
        (any(run.epochs for run in runs), "AUROC on validation images by epoch", epochs, "epochs"),
    ]
    names = ", ".join(run.name for run in runs)
    return [
        (f"{title} of {names}.", figures.render_svg(figure, name))
        for has_values, title, figure, name in drawn
        if has_values
    ]


def format_table(runs: Sequence[Run], output: str) -> str:
    """Format the AUROC and accuracy of each run as lines for a terminal."""
    rows = [
        [
            run.name,
            *(format_interval(run.measured["image"][name]) for name in ("auroc", "accuracy")),
            run.split.replace("_", " "),
        ]
        for run in runs
    ]
    table = text_table.align(("run", "AUROC", "accuracy", "measured on"), rows)
    return "\n".join([table, *_list_warnings(runs), f"Page: {output}"])
