"""Render the model card of an artifact: what the model is for, how good it is, and its limits."""

import re
from collections.abc import Mapping
from typing import Any

import jinja2

from trainer import engine_records
from trainer.evaluation import fit_scaling
from trainer.evaluation.metrics import NO_INTERVAL, describe_coverage, format_interval
from trainer.publishing.trained import describe_mirroring


def render(fields: Mapping[str, Any]) -> str:
    """Return the card as Markdown.

    Args:
      fields: the fields of `artifact.Artifact` that are known before it is sealed: `image_size`,
        `threshold`, `temperature`, `uncertain_band`, `cam`, `architecture`, `dataset`, `metrics`,
        `versions` and `created`; `intercept`, `study_calibration`, `calibration`, `map_checks` and
        `engines` where they were measured.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("trainer"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["interval"] = format_interval
    measured = {split: levels for split, levels in fields["metrics"].items() if levels}
    metric_names = list(next(iter(measured.values()))["image"]) if measured else []
    card = environment.get_template("model_card.md.j2").render(
        **fields,
        checks=fields.get("map_checks", {}),
        scoring=engine_records.explain_fastest(fields.get("engines", {})),
        measured=measured,
        metric_names=metric_names,
        no_interval=NO_INTERVAL,
        coverage=describe_coverage(*measured.values()),
        mirroring=describe_mirroring(fields["architecture"]),
        calibrations=fit_scaling.describe(fields.get("calibration", {})),
    )
    return re.sub(r"\n{3,}", "\n\n", card).strip() + "\n"
