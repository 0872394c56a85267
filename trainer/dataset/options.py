"""The options of humerus-prepare, by the names of its flags."""

import dataclasses

from trainer.program.flag_types import SCHEMES
from trainer.program.flags_from_dataclass import option

MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 32, 4096


@dataclasses.dataclass(frozen=True)
class Options:
    """The flags of humerus-prepare; `prepare.prepare` describes each."""

    source: str = option(
        "Folder (layouts mura, folders) or CSV file (manifest); local or gs://.", schemes=SCHEMES
    )
    layout: str = option("Layout of the source.", choices=("mura", "folders", "manifest"))
    data_dir: str = option("Folder for the prepared data; local or gs://.", schemes=SCHEMES)
    image_size: int = option(
        "Side of the square that every image is letterboxed to, in pixels.",
        320,
        low=MIN_IMAGE_SIZE,
        high=MAX_IMAGE_SIZE,
    )
    body_parts: tuple[str, ...] = option(
        "Layout mura: comma-separated body parts to take, or all.", ("XR_HUMERUS",)
    )
    validation_fraction: float = option(
        "Share of the patients, if the source has no validation split.", 0.15, low=0, high=1
    )
    test_fraction: float = option(
        "Share of the patients, if the source has no test split.", 0.2, low=0, high=1
    )
    seed: int = option("Seed of the assignment of patients to splits.", 0, low=0, high=2**32 - 1)
    overwrite: bool = option("Replace other data prepared in the same place.", False)
