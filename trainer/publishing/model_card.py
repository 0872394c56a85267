"""Render the model card of an artifact: what the model is for, how good it is, and its limits."""

import hashlib
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from absl import logging

from trainer.artifact import HUB_CARD, MODEL_CARD
from trainer.evaluation import fit_scaling
from trainer.evaluation.metric_tables import NO_INTERVAL, describe_coverage, describe_size
from trainer.inference import engine_records
from trainer.network import flips
from trainer.network.flips import Flips
from trainer.publishing import page_templates

_COLLECTIONS = {"mura": "MURA", "fracatlas": "FracAtlas", "graz": "GRAZPEDWRI-DX"}
"""Names of collections by the layout of the source."""


def write(
    directory: pathlib.Path, fields: Mapping[str, Any], files: Mapping[str, str]
) -> dict[str, str]:
    """Write the card into an artifact, as `MODEL_CARD` and, for the Hugging Face Hub, `HUB_CARD`.

    A card that was edited stays as it is.

    Args:
      directory: local folder of the artifact.
      fields: as for `render`.
      files: the checksums of the artifact's files as this program wrote them, by name.

    Returns:
      `files` with the checksums of the cards that were written.
    """
    checksums = dict(files)
    for name, text in _render_cards(fields).items():
        path, content = directory / name, text.encode()
        if path.exists() and _compute_checksum(path.read_bytes()) != files.get(name):
            logging.warning("%s was edited, and is left as it is.", path)
        else:
            path.write_bytes(content)
            checksums[name] = _compute_checksum(content)
    return checksums


def _compute_checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _render_cards(fields: Mapping[str, Any]) -> dict[str, str]:
    """Return the text of each card, by its file's name."""
    card = render(fields)
    hub_card = page_templates.make_environment(autoescape=False).get_template("hub_card.md.j2")
    rendered = hub_card.render(
        card=card,
        **fields,
        measured=_list_measured(fields),
        dataset_name=_name_dataset(fields["dataset"]),
    )
    return {MODEL_CARD: card, HUB_CARD: rendered}


def _name_dataset(dataset: Mapping[str, Any]) -> str:
    """Return the name under which the Hub lists figures: not MURA's for simulated radiographs."""
    if dataset.get("simulated"):
        return "simulated radiographs"
    return _COLLECTIONS.get(str(dataset.get("layout")), "radiographs")


def render(fields: Mapping[str, Any]) -> str:
    """Return the card as Markdown.

    Args:
      fields: the fields of `artifact.Artifact` that are known before it is sealed: `image_size`,
        `threshold`, `temperature`, `uncertain_band`, `cam`, `architecture`, `dataset`, `metrics`,
        `versions` and `created`; `intercept`, `study_calibration`, `calibration`, `map_checks` and
        `engines` where they were measured.
    """
    measured = _list_measured(fields)
    metric_names = list(next(iter(measured.values()))["image"]) if measured else []
    environment = page_templates.make_environment(autoescape=False)
    environment.filters["term"] = _format_term
    card = environment.get_template("model_card.md.j2").render(
        **fields,
        checks=fields.get("map_checks", {}),
        scoring=engine_records.explain_fastest(fields.get("engines", {})),
        measured=measured,
        metric_names=metric_names,
        no_interval=NO_INTERVAL,
        notes=_list_notes(measured),
        flips=describe_flips(fields["architecture"]),
        calibrations=fit_scaling.describe(fields.get("calibration", {})),
    )
    return re.sub(r"\n{3,}", "\n\n", card).strip() + "\n"


def _list_measured(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics of the splits that hold images."""
    return {split: levels for split, levels in fields["metrics"].items() if levels}


def _list_notes(measured: Mapping[str, Any]) -> list[str]:
    """Return the sentences that limit what the metrics say."""
    notes = describe_coverage(*measured.values())
    if not measured:
        return notes
    judged = "test" if "test" in measured else next(iter(measured))
    words = judged.replace("_", " ")
    name = f"the {words}" if judged == "out_of_fold" else f"the {words} split"
    return [*notes, *describe_size(measured[judged], name)]


def _format_term(value: float) -> str:
    """Format a term of a sum, ` - 1.391`; nothing for 0."""
    return f" {'-' if value < 0 else '+'} {abs(value):.4g}" if value else ""


def describe_flips(architecture: Mapping[str, Any]) -> str:
    """Return a sentence on the flipped copies that are scored too, and what they gain.

    Args:
      architecture: the field of `model.json`.
    """
    said = _SAID[flips.read(architecture)]
    gains = architecture.get("flip_gains")
    if not gains:
        return f"{said}."
    listed = ", ".join(f"{_NAMES[name]} {gain:+.3f}" for name, gain in gains.items())
    return f"{said}. Change in AUROC of held-out images: {listed}."


_SAID: Mapping[Flips, str] = {
    "none": "No flipped copies of an image are scored",
    "horizontal": (
        "Each image is also scored mirrored left to right, and the two outputs are averaged, which"
        " takes twice as long"
    ),
    "both": (
        "Each image is also scored mirrored left to right, upside down, and both, and the four"
        " outputs are averaged, which takes four times as long"
    ),
}
_NAMES: Mapping[Flips, str] = {
    "horizontal": "with the mirror image",
    "both": "with all flipped copies",
}
