"""One patient's build, and the outlines in millimetres of the healthy upper arm and its neighbours."""

import dataclasses
import functools

import numpy as np
from scipy.ndimage import gaussian_filter1d

from trainer.phantom import geometry
from trainer.phantom.geometry import Array, tube

Place = tuple[
    float, float, float
]  # of a body: (s, t) of its start in mm, and its axis in degrees from s towards t
Bones = tuple[tuple[geometry.Body, Place], ...]


@dataclasses.dataclass(frozen=True)
class Build:
    """One patient: lengths in mm, factors around 1."""

    length: float  # of the humerus
    girth: float  # factor on bone widths
    cortex: float  # factor on cortical thickness
    muscle: float  # half width of the arm's muscle
    fat: float  # thickness of the fat layer
    young: bool  # an open growth plate


def sample_build(rng: np.random.Generator) -> Build:
    """An adult, now and then a youngster."""
    young = rng.random() < 0.12
    return Build(
        length=float(rng.normal(250, 14) if young else rng.normal(312, 14)),
        girth=float(np.clip(rng.normal(0.86 if young else 1.0, 0.07), 0.7, 1.2)),
        cortex=float(np.clip(rng.normal(1.0, 0.18), 0.55, 1.4)),
        muscle=float(np.clip(rng.normal(27 if young else 35, 4), 22, 46)),
        fat=float(np.clip(rng.gamma(3.0, 3.0), 3, 26)),
        young=bool(young),
    )


# The humerus in millimetres: positions from the top of its head, then the value at each from the front and from the side.
# fmt: off
LATERAL = (
    (0, 4, 8, 13, 22, 32, 46, 62, 80, 100, 120, 138, 180, 225, 250, 268, 281, 289, 297, 305, 312),
    (6, -2, -15, -21.5, -24, -23.5, -20.5, -17.5, -14.6, -12.7, -12.4, -12.5, -11, -10.8, -13.5, -19, -24.5, -24, -20, -20.5, -19),
    (6, -2, -11, -16.5, -19.5, -19.5, -18, -15.8, -13.8, -12.4, -12, -12, -11, -10.8, -10.5, -10, -9.5, -10, -10.5, -9.5, -6),
)
MEDIAL = (
    (0, 30, 42, 52, 62, 80, 100, 118, 180, 225, 250, 266, 276, 283, 290, 297, 305, 312),
    (2, 18, 19, 18, 16.4, 13.6, 11.8, 11, 10.6, 11.2, 15.5, 23.5, 30.5, 31.5, 27, 23, 23.5, 23),
    (2, 15, 16.5, 16, 15, 13.2, 11.8, 11, 10.6, 10.8, 11, 11.5, 13, 15, 17, 18.5, 18, 14),
)
# fmt: on
DEPTH = (
    (0, 30, 60, 215, 250, 272, 288, 300, 312),
    (0.85, 0.9, 1, 1, 0.82, 0.42, 0.34, 0.46, 0.5),
    (0.95, 1, 1, 1, 1, 1, 1, 1, 1),
)
WALL = (
    (0, 40, 60, 85, 125, 200, 235, 258, 275, 312),
    (0.9, 1.2, 1.9, 3.3, 4.6, 4.6, 3.6, 2.4, 1.5, 0.9),
)
FILLING = ((0, 30, 50, 75, 100, 215, 250, 280, 312), (1, 0.8, 0.45, 0.15, 0, 0, 0.3, 0.7, 0.9))
ARM = ((-30, 0, 45, 100, 150, 200, 250, 287, 332, 422), (20, 40, 47, 43, 39.5, 38, 35, 36, 37, 31))
ARM_MIDDLE = ((-30, 40, 100, 150, 200, 250, 312, 422), (6, -4, -2, 3, 4, 1, 0, 0))


def reference(build: Build, start: float = 0.0, beyond: float = 0.0) -> Array:
    """float64 [n]: positions on a humerus 312 mm long, of which only the shaft is stretched, each STEP mm of the patient's."""
    s = np.arange(start, build.length + beyond + geometry.STEP / 2, geometry.STEP)
    return np.interp(
        s,
        (start, 0, 80, build.length - 82, build.length, build.length + beyond + 1),
        (start, 0, 80, 230, 312, 313 + beyond),
    )


def humerus(build: Build, turn: float) -> geometry.Body:
    """The humerus seen from the front (turn 0) to the side (turn 90 degrees, in radians)."""
    s, face, side = reference(build), np.cos(turn), abs(np.sin(turn))
    lateral, medial, depth = (
        (1 - side) * geometry.through(s, (place, front))
        + side * geometry.through(s, (place, lateral_view))
        for place, front, lateral_view in (LATERAL, MEDIAL, DEPTH)
    )
    radius, centre = 22.5, 9.5 * face
    ball = np.sqrt(np.maximum(radius**2 - (s - radius) ** 2, 0))
    left = np.where(s < 2 * radius, np.minimum(lateral, centre - ball), lateral)
    right = np.where(s < 2 * radius, np.maximum(medial, centre + ball), medial)
    middle, half = (left + right) / 2, (right - left) / 2
    soften = np.clip((s - 3) / 8, 0, 1)  # the top of the head must stay a circle
    middle = (
        soften * gaussian_filter1d(middle, 1.6 / geometry.STEP, mode="nearest")
        + (1 - soften) * middle
    )
    half = (
        soften * gaussian_filter1d(half, 1.6 / geometry.STEP, mode="nearest") + (1 - soften) * half
    )
    half = half * geometry.cap(len(s), geometry.STEP, 9 + 4 * side) * build.girth
    middle = (middle + 3 * face * geometry.ramp(s - 308, 8)) * build.girth
    tables = middle - half, middle + half, depth, build.cortex * geometry.through(s, WALL)
    return geometry.Body(0.0, *(table.astype(np.float32) for table in tables))


def spongiosa(build: Build) -> Array:
    """float32 [n]: share of the space inside the humerus's cortex that trabeculae fill, each STEP mm."""
    return geometry.through(reference(build), FILLING).astype(np.float32)


def arm(build: Build, bend: Array) -> geometry.Body:
    """The arm inside its skin, from above the shoulder to below the elbow, following `bend` [n] mm."""
    s = reference(build, -30.0, 110.0)
    middle = geometry.through(s, ARM_MIDDLE) + bend
    half = (build.muscle / 35 * geometry.through(s, ARM) + build.fat) * geometry.cap(
        len(s), 26, geometry.STEP
    )
    tables = middle - half, middle + half, np.full(len(s), 0.95), np.zeros(len(s))
    return geometry.Body(-30.0, *(table.astype(np.float32) for table in tables))


def trunk(build: Build) -> geometry.Body:
    """Shoulder, chest wall and trunk in the trunk frame, as one thick body whose axis runs towards the spine (`s` there)."""
    s = np.arange(-20, 330 + geometry.STEP / 2, geometry.STEP)
    top = (
        geometry.through(s, ((-20, 20, 70, 130, 190, 330), (-28, -44, -52, -74, -120, -160)))
        - build.fat
    )
    places = (-20, 10, 38, 58, 70, 80, 100, 330)
    bottom = geometry.through(s, (places, (0, 45, 84, 150, 260, 420, 560, 640))) + build.fat
    depth = geometry.through(s, (places, (0.03, 0.35, 0.42, 0.40, 0.36, 0.35, 0.37, 0.5)))
    return geometry.Body(
        -20.0, *(table.astype(np.float32) for table in (top, bottom, depth, np.zeros_like(s)))
    )


@functools.cache
def shoulder_bones() -> tuple[Bones, ...]:
    """Groups of bodies in the trunk frame, each group grown together: scapula, clavicle, ribs. Direction 90 is to the spine."""
    scapula = (
        (tube([(0, 0, 4), (18, 2.5, 6.5), (38, 0, 4.5)], 1.0, 1.8), (-19.0, 28.0, 6.0)),  # glenoid
        (
            tube([(0, 0, 15), (16, 0, 13), (34, -2, 16), (52, -6, 20)], 0.9, 0.35),
            (-4.0, 33.0, 70.0),
        ),  # neck
        (
            tube([(0, 0, 8), (24, 0, 6.5), (80, 2, 5), (128, 3, 4)], 1.3, 0.8),
            (8.0, 35.0, 22.0),
        ),  # lateral border
        (
            tube([(0, 0, 12), (30, 6, 28), (70, 10, 40), (118, 6, 24), (140, 0, 8)], 0.6, 0.07),
            (8.0, 50.0, 34.0),
        ),  # blade
        (tube([(0, 0, 7), (14, 1, 6.5), (30, -4, 7)], 0.9, 0.9), (-17.0, 40.0, -102.0)),  # coracoid
        (
            tube([(0, 0, 6), (14, 1.5, 8.5), (36, 0, 8), (62, -5, 6.5), (100, -12, 4)], 0.9, 0.5),
            (-30.0, -15.0, 92.0),
        ),  # acromion
    )
    clavicle = (
        (
            tube(
                [(0, 0, 8), (18, 3, 7.5), (50, 1, 6), (95, -7, 6), (140, -6, 7.5), (158, -4, 10)],
                1.7,
                0.85,
            ),
            (-34.0, 18.0, 104.0),
        ),
    )
    ribs = []
    for index in range(6):
        reach = 165.0 + 6 * index
        rib = tube(
            [(0, 0, 5.5), (0.25 * reach, -17, 5.5), (0.6 * reach, -14, 5.5), (reach, 8, 5.5)],
            1.0,
            0.7,
        )
        ribs.append(((rib, (42.0 + 33 * index, 74.0 + 4 * index, 72.0)),))
    return scapula, clavicle, *ribs


@functools.cache
def forearm_bones(side: bool) -> tuple[Bones, ...]:
    """Ulna and radius in a frame whose origin is the elbow's axis, `s` towards the hand, from the side or from the front."""
    if side:
        ulna = tube(
            [
                (-19, -13, 7),
                (-6, -13, 9),
                (8, -13, 11),
                (22, -8, 12),
                (45, -6, 8),
                (90, -4, 7),
                (150, -3, 6),
            ],
            1.4,
            0.9,
        )
        radius = tube(
            [(14, 7, 11), (22, 7, 10.5), (32, 6, 7.5), (48, 7, 8.5), (80, 9, 7.5), (150, 12, 7)],
            1.4,
            0.9,
        )
    else:
        ulna = tube(
            [
                (-21, 3, 10),
                (-8, 4, 12),
                (6, 6, 13),
                (20, 7, 11.5),
                (38, 5, 8),
                (80, 5, 7),
                (150, 4, 6.5),
            ],
            1.0,
            0.7,
        )
        radius = tube(
            [
                (9, -13, 11),
                (18, -13, 10.5),
                (28, -12, 7.5),
                (46, -10, 8.5),
                (80, -13, 7.5),
                (150, -16, 7),
            ],
            1.4,
            0.9,
        )
    return ((ulna, (0.0, 0.0, 0.0)),), ((radius, (0.0, 0.0, 0.0)),)
