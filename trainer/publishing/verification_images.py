"""Choose the images that the engines of an artifact are compared on and calibrated with."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
from absl import logging

from trainer import radiograph
from trainer.artifact import Artifact
from trainer.dataset import prepared_split
from trainer.dataset.prepared_split import Split
from trainer.evaluation import cases, evaluate, finding_masks
from trainer.evaluation.cases import Cases, sample_rows
from trainer.program import path_checks

CALIBRATION_IMAGES = 64
MEASURED_IMAGES = 512


@dataclasses.dataclass(frozen=True)
class Sample:
    """Images to measure on.

    Attributes:
      images: uint8 [N, size, size, 1].
      known: labels and patients of the images; None where labels aren't known.
      name: where they come from, such as `validation`.
    """

    images: np.ndarray
    known: Cases | None
    name: str

    def __len__(self) -> int:
        return len(self.images)

    def select(self, rows: np.ndarray) -> "Sample":
        """Return the images at `rows`, int [M]."""
        known = None if self.known is None else self.known.take(rows)
        return Sample(self.images[rows], known, self.name)

    @property
    def truth(self) -> np.ndarray | None:
        """Labels, int [N], 1 for positive; None where they aren't known."""
        return None if self.known is None else self.known.label


def choose_samples(
    train: Split, *held_out: Split, most: int = MEASURED_IMAGES
) -> tuple[Sample, Sample]:
    """Choose images to measure on, at most `most`, and images to calibrate 8-bit arithmetic with.

    Calibration takes no labels, so its images come from `train`, and all of `held_out` is left to
    measure on. Where nothing was held out, `train` is divided. Only where hardly any image would
    remain are some images in both.
    """
    calibration = _spread(_to_sample(train), CALIBRATION_IMAGES)
    measured = _join([_to_sample(split) for split in held_out if len(split)] or [_to_sample(train)])
    return _spread(_leave_out(measured, calibration), most), calibration


@dataclasses.dataclass(frozen=True)
class Images:
    """The images that an artifact is verified on.

    Attributes:
      measured: images that the engines are compared on.
      calibration: images that 8-bit arithmetic is calibrated with.
      for_maps: images that the maps are checked on.
      masks: bool [N, size, size], the findings in `for_maps`, where they are known.
    """

    measured: Sample
    calibration: Sample
    for_maps: Sample
    masks: np.ndarray | None = None


def load_prepared(described: Artifact, data_dir: str, masks: str | None) -> Images:
    """Load the images of prepared data, and the masks of a file."""
    info = prepared_split.read_dataset_info(data_dir)
    evaluate.check_compatible(described, info, data_dir)
    if described.dataset.get("fingerprint") != info.fingerprint:
        logging.warning(
            "%s holds other data than the model was trained on, or a former preparation of them: if"
            " images of its training are among these, engines are accepted too easily",
            data_dir,
        )
    train, validation, test = (
        prepared_split.load_split(data_dir, name) for name in ("train", "validation", "test")
    )
    most = len(validation) + len(test) or MEASURED_IMAGES
    measured, calibration = choose_samples(train, validation, test, most=most)
    checked = validation if len(validation) else train
    placed = finding_masks.place_masks(finding_masks.read(masks), checked) if masks else None
    for_maps = _to_sample(checked)
    return Images(measured, calibration, for_maps, placed)


def load_folder(folder: pathlib.Path, size: int) -> Images:
    """Load every image below `folder` that can be read, and warn of the others.

    Raises:
      DataError: there is no such folder.
    """
    path_checks.check_images(str(folder))
    pixels = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            pixels.append(radiograph.load(path.read_bytes(), size))
        except (OSError, radiograph.RadiographError) as error:
            logging.warning("%s is left out: %s", path, getattr(error, "strerror", None) or error)
    found = Sample(np.array(pixels, np.uint8).reshape(-1, size, size, 1), None, "images")
    calibration = _spread(found, CALIBRATION_IMAGES)
    return Images(_leave_out(found, calibration), calibration, for_maps=found)


def _to_sample(split: Split) -> Sample:
    known = evaluate.make_cases(split, np.zeros(len(split)))
    return Sample(split.images[:], known, split.name)


def _join(samples: Sequence[Sample]) -> Sample:
    """Return the images of all samples, whose labels are known, as one sample."""
    if len(samples) == 1:
        return samples[0]
    known = cases.concatenate([sample.known for sample in samples if sample.known is not None])
    images = np.concatenate([sample.images for sample in samples])
    return Sample(images, known, " and ".join(sample.name for sample in samples))


def _spread(sample: Sample, most: int) -> Sample:
    return sample.select(sample_rows(len(sample), most))


def _leave_out(sample: Sample, others: Sample) -> Sample:
    """Return the images of `sample` that are not in `others`, or all if too few would remain."""
    taken = {image.tobytes() for image in others.images}
    rows = [row for row, image in enumerate(sample.images) if image.tobytes() not in taken]
    return sample.select(np.array(rows, int)) if 2 * len(rows) >= len(sample) else sample
