"""Sample patients, their studies and the pose of each image.

Every choice is a pure function of its purpose and (seed, patient, study, image). The result is
therefore the same for any number of patients in any order.
"""

import dataclasses

import numpy as np

from trainer.phantom import anatomy, geometry
from trainer.phantom.geometry import Array


@dataclasses.dataclass(frozen=True)
class Study:
    """One visit: label 0 or 1, number of images, and the `site` that its views show.

    The site is in mm along the humerus.
    """

    label: int
    images: int
    site: float


@dataclasses.dataclass(frozen=True)
class Pose:
    """The view of one image: its size in pixels, its angles and its frame.

    `frame` [3, 3] maps (x, y, 1) px to (s, t, 1) mm of the arm.
    """

    height: int
    width: int
    turn: float  # radians about the humerus: 0 from the front, pi / 2 from the side
    abduction: float  # radians between humerus and trunk
    flexion: float  # radians of the elbow in the image plane
    frame: Array


PLAN, BUILD, FINDING, REPAIR, POSE, EXTRAS, NOISE = range(1, 8)


def make_generator(*key: int) -> np.random.Generator:
    """Return a generator that depends only on the key (purpose, seed, patient, ...)."""
    return np.random.default_rng(key)


def choose_split(patient: int) -> str:
    """Return the split of a patient: two of eleven are in the official validation set."""
    return "valid" if patient % 11 in (3, 8) else "train"


def plan_studies(seed: int, patient: int) -> tuple[anatomy.Build, tuple[Study, ...]]:
    """Return the patient's body and studies."""
    rng = make_generator(PLAN, seed, patient)
    build = anatomy.sample_build(make_generator(BUILD, seed, patient))
    visits = []
    for _ in range(rng.choice(3, p=[0.87, 0.1, 0.03]) + 1):
        images = int(rng.choice(4, p=[0.2, 0.5, 0.22, 0.08])) + 1
        region = rng.choice(3, p=[0.3, 0.5, 0.2])
        low, high = ((0.15, 0.24), (0.28, 0.72), (0.74, 0.86))[region]
        visits.append(
            Study(int(rng.random() < 0.47), images, float(rng.uniform(low, high) * build.length))
        )
    return build, tuple(visits)


def sample_pose(rng: np.random.Generator, build: anatomy.Build, study: Study, image: int) -> Pose:
    """Sample where the tube, the arm and the detector stand.

    The pose depends on the site, which every study has, but not on the label.
    """
    side = rng.random() < (0.06, 0.85, 0.3, 0.5)[image]
    turn = np.radians(rng.normal(80, 9) if side else rng.normal(0, 12))
    whole = rng.random() < 0.22
    field = rng.uniform(1.05, 1.3) * build.length if whole else rng.uniform(145, 235)
    middle = (
        build.length * rng.uniform(0.42, 0.58)
        if whole
        else study.site + rng.uniform(-0.26, 0.26) * field
    )
    middle = np.clip(middle, 0.42 * field - 30, build.length + 35 - 0.42 * field)
    lean = rng.choice(3, p=[0.86, 0.09, 0.05])
    tilt = np.radians(rng.normal(0, 9) if lean == 0 else rng.choice([-1, 1]) * rng.uniform(20, 55))
    if lean == 2:
        tilt = np.radians(rng.choice([-90, 90]) + rng.normal(0, 8))
    long = 512 if rng.random() < 0.86 else int(rng.integers(300, 512))
    short = (
        int(np.clip(long * rng.uniform(0.38, 0.92), 164, 512))
        if lean != 1
        else int(long * rng.uniform(0.7, 1.0))
    )
    height, width = (short, long) if lean == 2 else (long, short)
    pixel = field / long
    across = rng.uniform(-0.18, 0.18) * short * pixel + (10 if middle < 0.4 * build.length else 0)
    flip = np.diag([rng.choice([-1.0, 1.0]), 1, 1])
    centred = np.array([[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1.0]])
    # s runs down the image, t to the right.
    swap = np.array([[0, pixel, 0], [pixel, 0, 0], [0, 0, 1.0]])
    to_arm = np.array([[1, 0, middle], [0, 1, across], [0, 0, 1.0]])
    frame = keep_inside(
        to_arm @ geometry.rotation(tilt) @ swap @ flip @ centred, study.site, height, width
    )
    abduction = np.radians(rng.uniform(45, 85) if side else np.clip(rng.normal(16, 12), 3, 70))
    flexion = np.radians(rng.uniform(35, 95) if side else rng.normal(4, 4))
    return Pose(height, width, float(turn), float(abduction), float(flexion), frame)


def keep_inside(frame: Array, site: float, height: int, width: int) -> Array:
    """Return the frame [3, 3], shifted so that the site isn't at the edge of the image."""
    x_y = geometry.to_pixels(np.array([(site, 0.0)]), frame)[0]
    move = x_y - np.clip(x_y, (0.22 * width, 0.18 * height), (0.78 * width, 0.82 * height))
    return frame @ np.array([[1, 0, move[0]], [0, 1, move[1]], [0, 0, 1.0]])
