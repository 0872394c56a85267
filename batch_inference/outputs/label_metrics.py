"""Measure a finished run against the labels of its manifest, as `humerus-evaluate` does."""

import dataclasses
import posixpath
from collections.abc import Iterable
from typing import Any

import numpy as np

from batch_inference.outputs import journal
from batch_inference.outputs.records import escape_reversibly
from batch_inference.storage import filesystem
from trainer.artifact import Artifact
from trainer.dataset.example import Example
from trainer.errors import DataError

SHOWN = ("auroc", "accuracy", "sensitivity", "specificity")
"""Metrics that the last lines of a run show."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """The metrics of a run, measured against labels.

    Attributes:
      metrics: as `metrics.evaluate` returns them; None where the labels can't be used.
      cautions: sentences on what was not measured.
    """

    metrics: dict[str, Any] | None
    cautions: list[str]


def measure(manifest: str, output: str, attempt: str, described: Artifact) -> Measured:
    """Compare the predictions of a run with the labels of its manifest.

    Of images with the same content in one study, only the first counts, as in the rows of studies.
    Labels that `humerus-evaluate` would refuse cost the metrics, not the run.

    Args:
      manifest: absolute URI of a CSV file with labels.
      output: folder of the run.
      attempt: prefix of the journal's parts that hold its rows.
      described: the model's artifact, with the threshold of the run.
    """
    # They need SciPy, whose import takes half a second.
    from trainer.dataset import manifest as labels
    from trainer.dataset import mura, splits
    from trainer.evaluation import metric_tables, metrics
    from trainer.evaluation.cases import Cases

    rows, multi_frame = _read_rows(output, attempt)
    try:
        listed = labels.list_source(manifest, posixpath.dirname(manifest), (mura.ALL_BODY_PARTS,))
        named = (
            (escape_reversibly(filesystem.absolute(each.uri)), each) for each in listed.examples
        )
        scored = [(*rows[uri], each) for uri, each in named if uri in rows]
        if not scored:
            caution = (
                "no scored file has a label of its own (single frames have none); nothing was "
                "measured"
            )
            return Measured(None, [caution])
        splits.check_groups(dataclasses.replace(each, split=None) for _, _, each in scored)
        counted = _drop_copies(scored)
        logit = np.array([value for value, _ in counted])
        cases = Cases(
            probability=described.scaling.compute_probability(logit),
            logit=logit,
            label=np.array([each.label for _, each in counted]),
            study_id=np.array([each.study_id for _, each in counted]),
            patient_id=np.array([each.patient_id for _, each in counted]),
            path=np.array([each.path for _, each in counted]),
        )
        found = metrics.evaluate(
            cases,
            described.threshold,
            described.uncertain_band,
            study_scaling=described.study_scaling,
        )
    except (DataError, OSError) as error:
        return Measured(
            None, [f"the labels of the manifest were not used for the metrics: {error}"]
        )
    cautions = [
        *listed.warnings,
        *metric_tables.describe_coverage(found),
        *metric_tables.describe_size(found),
    ]
    if copies := len(scored) - len(counted):
        cautions.append(
            f"files with the same bytes count once per study: {copies} copies were not measured"
        )
    if multi_frame:
        cautions.append(f"frames have no label of their own: {multi_frame} rows were not measured")
    return Measured(found, cautions)


def format_line(found: dict[str, Any]) -> str:
    """Return `Measured.metrics` as a line, with the metrics of `SHOWN` per image."""
    from trainer.evaluation.metric_tables import format_interval

    counts = found["counts"]
    shown = ", ".join(f"{name} {format_interval(found['image'][name])}" for name in SHOWN)
    return (
        f"against the labels of {counts['images']} images ({counts['positive_images']} positive, "
        f"{counts['patients']} patients), threshold {found['threshold']:.3f}: {shown}"
    )


def _drop_copies(scored: Iterable[tuple[float, str, Example]]) -> list[tuple[float, Example]]:
    """Return the first image of each content in a study, of (logit, SHA-256, image)."""
    firsts: dict[tuple[str, str, str], tuple[float, Example]] = {}
    for logit, sha256, image in scored:
        firsts.setdefault((image.patient_id, image.study_id, sha256), (logit, image))
    return list(firsts.values())


def _read_rows(output: str, attempt: str) -> tuple[dict[str, tuple[float, str]], int]:
    """Return (logit, SHA-256) of a run's images by URI, and the number of rows of single frames,
    left out."""
    rows: dict[str, tuple[float, str]] = {}
    frames = set()
    for part in journal.list_parts(output):
        if not part.rpartition("/")[2].startswith(f"{attempt}-"):
            continue
        for row in journal.read_predictions(part):
            if row.frame is None:
                rows[row.uri] = row.logit, row.sha256
            else:
                frames.add((row.uri, row.frame))
    return rows, len(frames)
