"""Sample a patient's build and outline the healthy arm and its neighbours in mm."""

import dataclasses
import functools

import numpy as np
from scipy.ndimage import gaussian_filter1d

from trainer.phantom import geometry
from trainer.phantom.geometry import Array, make_tube

# The place of a body: (s, t) of its start in mm, and its axis in degrees from s towards t.
Place = tuple[float, float, float]
Bones = tuple[tuple[geometry.Body, Place], ...]


@dataclasses.dataclass(frozen=True)
class Build:
    """The body of one patient: lengths in mm, factors around 1."""

    length: float  # of the humerus
    girth: float  # factor on bone widths
    cortex: float  # factor on cortical thickness
    muscle: float  # half width of the arm's muscle
    fat: float  # thickness of the fat layer
    young: bool  # an open growth plate


def sample_build(rng: np.random.Generator) -> Build:
    """Sample the body of an adult or, in 12 % of the cases, of a growing patient."""
    young = rng.random() < 0.12
    return Build(
        length=float(rng.normal(250, 14) if young else rng.normal(312, 14)),
        girth=float(np.clip(rng.normal(0.86 if young else 1.0, 0.07), 0.7, 1.2)),
        cortex=float(np.clip(rng.normal(1.0, 0.18), 0.55, 1.4)),
        muscle=float(np.clip(rng.normal(27 if young else 35, 4), 22, 46)),
        fat=float(np.clip(rng.gamma(3.0, 3.0), 3, 26)),
        young=bool(young),
    )


# The humerus in mm: positions from the top of its head, then the value at each position from the
# front and from the side.
# fmt: off
LATERAL = (
    (0, 4, 8, 13, 22, 32, 46, 62, 80, 100, 120, 138, 180, 225, 250, 268, 281, 289, 297, 305, 312),
    (6, -2, -15, -21.5, -24, -23.5, -20.5, -17.5, -14.6, -12.7, -12.4, -12.5, -11, -10.8, -13.5,
     -19, -24.5, -24, -20, -20.5, -19),
    (6, -2, -11, -16.5, -19.5, -19.5, -18, -15.8, -13.8, -12.4, -12, -12, -11, -10.8, -10.5, -10,
     -9.5, -10, -10.5, -9.5, -6),
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


def map_to_reference(build: Build, start: float = 0.0, beyond: float = 0.0) -> Array:
    """Return positions on the reference humerus of 312 mm, one for each STEP mm of the patient's.

    The result is float64 [n] in mm. Only the shaft is stretched.
    """
    s = np.arange(start, build.length + beyond + geometry.STEP / 2, geometry.STEP)
    return np.interp(
        s,
        (start, 0, 80, build.length - 82, build.length, build.length + beyond + 1),
        (start, 0, 80, 230, 312, 313 + beyond),
    )


def make_humerus(build: Build, turn: float) -> geometry.Body:
    """Return the humerus as seen at `turn` radians: 0 from the front, pi / 2 from the side."""
    s, face, side = map_to_reference(build), np.cos(turn), abs(np.sin(turn))
    lateral, medial, depth = (
        (1 - side) * geometry.interpolate(s, (place, front))
        + side * geometry.interpolate(s, (place, lateral_view))
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
    tables = middle - half, middle + half, depth, build.cortex * geometry.interpolate(s, WALL)
    return geometry.Body(0.0, *(table.astype(np.float32) for table in tables))


def compute_trabecular_share(build: Build) -> Array:
    """Return the share of the space inside the cortex that trabeculae fill.

    The result is float32 [n], 0 to 1, one value for each STEP mm of the humerus.
    """
    return geometry.interpolate(map_to_reference(build), FILLING).astype(np.float32)


def make_arm(build: Build, bend: Array) -> geometry.Body:
    """Return the arm inside its skin, from above the shoulder to below the elbow.

    Its middle is shifted by `bend` [n] mm.
    """
    s = map_to_reference(build, -30.0, 110.0)
    middle = geometry.interpolate(s, ARM_MIDDLE) + bend
    half = (build.muscle / 35 * geometry.interpolate(s, ARM) + build.fat) * geometry.cap(
        len(s), 26, geometry.STEP
    )
    tables = middle - half, middle + half, np.full(len(s), 0.95), np.zeros(len(s))
    return geometry.Body(-30.0, *(table.astype(np.float32) for table in tables))


def make_trunk(build: Build) -> geometry.Body:
    """Return shoulder, chest wall and trunk in the trunk frame, as one thick body.

    The axis of the body (its `s`) runs towards the spine.
    """
    s = np.arange(-20, 330 + geometry.STEP / 2, geometry.STEP)
    top = (
        geometry.interpolate(s, ((-20, 20, 70, 130, 190, 330), (-28, -44, -52, -74, -120, -160)))
        - build.fat
    )
    places = (-20, 10, 38, 58, 70, 80, 100, 330)
    bottom = geometry.interpolate(s, (places, (0, 45, 84, 150, 260, 420, 560, 640))) + build.fat
    depth = geometry.interpolate(s, (places, (0.03, 0.35, 0.42, 0.40, 0.36, 0.35, 0.37, 0.5)))
    return geometry.Body(
        -20.0, *(table.astype(np.float32) for table in (top, bottom, depth, np.zeros_like(s)))
    )


@functools.cache
def make_shoulder_bones() -> tuple[Bones, ...]:
    """Return scapula, clavicle and ribs in the trunk frame, each a group of bodies that merge.

    A direction of 90 degrees points to the spine.
    """
    scapula = (
        (
            make_tube([(0, 0, 4), (18, 2.5, 6.5), (38, 0, 4.5)], 1.0, 1.8),
            (-19.0, 28.0, 6.0),
        ),  # glenoid
        (
            make_tube([(0, 0, 15), (16, 0, 13), (34, -2, 16), (52, -6, 20)], 0.9, 0.35),
            (-4.0, 33.0, 70.0),
        ),  # neck
        (
            make_tube([(0, 0, 8), (24, 0, 6.5), (80, 2, 5), (128, 3, 4)], 1.3, 0.8),
            (8.0, 35.0, 22.0),
        ),  # lateral border
        (
            make_tube(
                [(0, 0, 12), (30, 6, 28), (70, 10, 40), (118, 6, 24), (140, 0, 8)], 0.6, 0.07
            ),
            (8.0, 50.0, 34.0),
        ),  # blade
        (
            make_tube([(0, 0, 7), (14, 1, 6.5), (30, -4, 7)], 0.9, 0.9),
            (-17.0, 40.0, -102.0),
        ),  # coracoid
        (
            make_tube(
                [(0, 0, 6), (14, 1.5, 8.5), (36, 0, 8), (62, -5, 6.5), (100, -12, 4)], 0.9, 0.5
            ),
            (-30.0, -15.0, 92.0),
        ),  # acromion
    )
    clavicle = (
        (
            make_tube(
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
        rib = make_tube(
            [(0, 0, 5.5), (0.25 * reach, -17, 5.5), (0.6 * reach, -14, 5.5), (reach, 8, 5.5)],
            1.0,
            0.7,
        )
        ribs.append(((rib, (42.0 + 33 * index, 74.0 + 4 * index, 72.0)),))
    return scapula, clavicle, *ribs


@functools.cache
def make_forearm_bones(side: bool) -> tuple[Bones, ...]:
    """Return ulna and radius from the side or from the front.

    The origin of their frame is the axis of the elbow; `s` points towards the hand.
    """
    if side:
        ulna = make_tube(
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
        radius = make_tube(
            [(14, 7, 11), (22, 7, 10.5), (32, 6, 7.5), (48, 7, 8.5), (80, 9, 7.5), (150, 12, 7)],
            1.4,
            0.9,
        )
    else:
        ulna = make_tube(
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
        radius = make_tube(
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
