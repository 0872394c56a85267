"""The upper arm that `trainer.phantom` sends its X-rays through: outlines in millimetres, and path lengths through them.

Every part is a `Body`: two smooth boundaries along an axis with an elliptical cross-section between them, so that the path
of a ray through it is known in closed form. Arm frame: `s` mm along the humerus from the top of its head towards the elbow,
`t` mm across it towards the trunk. Trunk frame: origin in the centre of the humeral head, `s` mm towards the feet, `t` mm
towards the spine.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter1d

STEP = 0.25  # mm between the entries of a boundary table

# Linear attenuation in 1/mm at an effective 45 keV or so, rounded from the NIST tables (Hubbell and Seltzer, NISTIR 5632).
MUSCLE, FAT, CORTEX, SPONGIOSA, MARROW, PLASTER, METAL = 0.0245, 0.0205, 0.092, 0.036, 0.0225, 0.050, 1.6

Array = np.ndarray


@dataclasses.dataclass(frozen=True)
class Body:
    """Boundary tables, float32 [n] in mm, one row each STEP mm from `start`; `depth` is the ratio of thickness to width."""

    start: float
    left: Array
    right: Array
    depth: Array
    cortex: Array

    @property
    def end(self) -> float:
        return self.start + STEP * (len(self.left) - 1)

    def corners(self, margin: float = 2.0) -> Array:
        """float64 [4, 2] of (s, t): a rectangle that holds the body."""
        low, high = float(self.left.min()) - margin, float(self.right.max()) + margin
        first, last = self.start - margin, self.end + margin
        return np.array([(first, low), (first, high), (last, high), (last, low)])

    def rows(self, s: Array) -> Array:
        """Table rows for positions along the axis; positions beyond the ends meet the ends, where the width is zero."""
        return np.clip((s - self.start) * (1 / STEP) + 0.5, 0, len(self.left) - 1).astype(np.int32)

    def path(self, s: Array, t: Array) -> tuple[Array, Array]:
        """Path lengths in mm at (s, t): through the outer surface, and through the space inside the cortex."""
        row = self.rows(s)
        left, right = t - self.left[row], self.right[row] - t
        depth, cortex = self.depth[row], self.cortex[row]
        outer = chord(left * right) * depth
        inner = chord((left - cortex) * (right - cortex), left > cortex, right > cortex)
        # The wall facing the tube is as thick as the walls at the side, so a flat bone loses relatively more.
        inner *= np.maximum(depth - cortex * 2 * (1 - depth) / np.maximum(left + right, 1), 0)
        return outer, inner


def chord(square: Array, *inside: Array) -> Array:
    """2 * sqrt(square), 0 where `square` is negative: the chord of a circle at distances a and b from its two edges, square = ab."""
    length = 2 * np.sqrt(np.maximum(square, 0))
    for condition in inside:
        length *= condition
    return length


def through(positions: Array, knots: Sequence[tuple[float, float]]) -> Array:
    """float64 [n]: a cubic that does not overshoot, through (position, value) knots, at `positions` between them."""
    at, value = zip(*knots, strict=True)
    return PchipInterpolator(at, value)(np.clip(positions, at[0], at[-1]))


def curve(length: float, knots: Sequence[tuple[float, float]], start: float = 0.0) -> Array:
    """float32 [n]: the curve `through` the knots, sampled each STEP mm from `start` to `length`."""
    return through(np.arange(start, length + STEP / 2, STEP), knots).astype(np.float32)


def tube(knots: Sequence[tuple[float, float, float]], cortex: float, depth: float = 1.0) -> Body:
    """A round bone with closed ends from (position, centre, half width) knots in mm."""
    start, end = knots[0][0], knots[-1][0]
    centre = curve(end, [(s, c) for s, c, _ in knots], start)
    half = curve(end, [(s, w) for s, _, w in knots], start)
    half = half * cap(len(half), float(half[0]), float(half[-1]))
    full = np.ones_like(half)
    return Body(start, centre - half, centre + half, depth * full, cortex * full)


def cap(count: int, first: float, last: float) -> Array:
    """float32 [count]: 1 along the body, falling to 0 as a circle does over the last `first` and `last` mm of its ends."""
    s = np.arange(count, dtype=np.float32) * STEP
    near = np.clip(1 - s / max(first, STEP), 0, 1)
    far = np.clip(1 - s[::-1] / max(last, STEP), 0, 1)
    return np.sqrt((1 - near**2) * (1 - far**2)).astype(np.float32)


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


def reference(build: Build) -> Array:
    """float64 [n]: positions on a humerus 312 mm long, of which only the shaft is stretched, each STEP mm of the patient's."""
    s = np.arange(0, build.length + STEP / 2, STEP)
    return np.interp(s, (0, 80, build.length - 82, build.length), (0, 80, 230, 312))


def humerus(build: Build, turn: float) -> Body:
    """The humerus seen from the front (turn 0) to the side (turn 90 degrees, in radians)."""
    s, face, side = reference(build), np.cos(turn), abs(np.sin(turn))
    radius, centre, tubercle = 22.5, 9.5 * face, 1 - 0.28 * side
    ball = np.sqrt(np.maximum(radius**2 - (s - radius) ** 2, 0))
    lateral = through(
        s,
        [
            (0, 6),
            (4, -2),
            (8, -15 * tubercle),
            (13, -21.5 * tubercle),
            (22, -24 * tubercle),
            (32, -22.5 * tubercle),
            (46, -17.5),
        ]
        + [(62, -14), (85, -12.2), (118, -12.3), (138, -12.4), (180, -11), (225, -10.8), (250, -13 + 2 * side)]
        + [
            (268, -18 + 6 * side),
            (281, -25 + 11 * side),
            (291, -25.5 + 9 * side),
            (300, -22.5 + 5 * side),
            (312, -21 + 4 * side),
        ],
    )
    medial = through(
        s,
        [
            (0, 2),
            (30, 17 - 4 * side),
            (42, 16),
            (56, 14.6),
            (80, 12.4),
            (118, 11),
            (180, 10.6),
            (225, 11.2),
            (250, 15 - 4 * side),
        ]
        + [(268, 24 - 11 * side), (277, 31 - 17 * side), (284, 31 - 16 * side), (293, 26 - 8 * side), (302, 22 - 3 * side)]
        + [(312, 20.5 - 2 * side)],
    )
    left = np.where(s < 2 * radius, np.minimum(lateral, centre - ball), lateral)
    right = np.where(s < 2 * radius, np.maximum(medial, centre + ball), medial)
    middle, half = (left + right) / 2, (right - left) / 2
    soften = np.clip((s - 3) / 8, 0, 1)  # the top of the head must stay a circle
    middle = soften * gaussian_filter1d(middle, 1.6 / STEP, mode="nearest") + (1 - soften) * middle
    half = soften * gaussian_filter1d(half, 1.6 / STEP, mode="nearest") + (1 - soften) * half
    half = half * cap(len(s), STEP, 13) * build.girth
    middle = middle * build.girth
    flat = [(250, 0.85), (275, 0.42 + 0.6 * side), (290, 0.36 + 0.6 * side), (300, 0.45 + 0.5 * side), (312, 0.5 + 0.5 * side)]
    depth = through(s, [(0, 0.85), (30, 0.9), (60, 1), (215, 1), *flat])
    wall = [(0, 0.9), (40, 1.3), (60, 2.2), (85, 3.6), (125, 4.6), (200, 4.6), (235, 3.6), (258, 2.2), (275, 1.3), (312, 1.0)]
    cortex = build.cortex * through(s, wall)
    return Body(0.0, *(table.astype(np.float32) for table in (middle - half, middle + half, depth, cortex)))


def spongiosa(build: Build) -> Array:
    """float32 [n]: share of the space inside the humerus's cortex that trabeculae fill, each STEP mm."""
    knots = [(0, 1), (30, 0.8), (50, 0.42), (75, 0.12), (100, 0), (215, 0), (250, 0.3), (280, 0.8), (312, 0.9)]
    return through(reference(build), knots).astype(np.float32)


def arm(build: Build, bend: Array, layer: float) -> Body:
    """The arm's soft tissue, `layer` mm inside the skin, from above the shoulder to below the elbow, following `bend` [n] mm."""
    start, k = -30.0, build.muscle / 35
    s = np.arange(start, build.length + 110.0 + STEP / 2, STEP)
    s = np.interp(s, (-30, 0, 80, build.length - 82, build.length, build.length + 110), (-30, 0, 80, 230, 312, 422))
    half = k * through(
        s, [(-30, 20), (0, 40), (45, 47), (100, 42), (150, 39), (200, 38), (250, 35), (287, 35), (332, 36), (422, 31)]
    )
    skew = through(s, [(-30, 6), (40, -3), (100, -2), (180, 3), (250, 1), (312, 0), (422, 0)])
    half = (half + build.fat - layer) * cap(len(half), 26, STEP)
    tables = skew + bend - half, skew + bend + half, np.full_like(half, 0.95), np.zeros_like(half)
    return Body(start, *(table.astype(np.float32) for table in tables))


def trunk(build: Build) -> Body:
    """Shoulder, chest wall and trunk in the trunk frame, as one thick body whose axis runs towards the spine (`s` there)."""
    end, fat = 330.0, build.fat
    top = curve(end, [(-20, -28 - fat), (20, -44 - fat), (70, -52 - fat), (130, -74 - fat), (190, -120), (330, -160)], -20)
    bottom = curve(end, [(-20, 0), (15, 40), (45, 70 + fat), (58, 130), (66, 300), (80, 520), (330, 620)], -20)
    depth = curve(end, [(-20, 0.05), (10, 0.55), (45, 0.5), (70, 0.38), (110, 0.42), (200, 0.46), (330, 0.5)], -20)
    return Body(-20.0, top, bottom, depth, np.zeros_like(top))


def shoulder_bones() -> dict[str, tuple[Body, tuple[float, float, float]]]:
    """Name -> body and its place in the trunk frame: (s, t) of its start in mm and the direction of its axis in degrees.

    Direction 0 points to the feet, 90 to the spine.
    """
    bones = {
        "clavicle": (
            tube([(0, 0, 8), (18, 3, 7.5), (50, 1, 6), (95, -7, 6), (140, -6, 7.5), (158, -4, 10)], 1.9, 0.85),
            (-35.0, 16.0, 103.0),
        ),
        "acromion": (tube([(0, 0, 6), (14, 1.5, 8), (34, 0, 7.5), (60, -5, 6), (88, -9, 4)], 1.1, 0.6), (-31.0, -15.0, 94.0)),
        "coracoid": (tube([(0, 0, 6.5), (14, 1, 6), (30, -3, 7)], 1.2, 0.9), (-20.0, 8.0, 82.0)),
        "glenoid": (tube([(0, 0, 5), (17, 2.2, 7.5), (36, 0, 5.5)], 1.5, 1.6), (-19.0, 30.5, 4.0)),
        "neck": (tube([(0, 0, 13), (14, 0, 11), (30, -2, 14), (48, -6, 18)], 1.0, 0.35), (-4.0, 32.0, 72.0)),
        "border": (tube([(0, 0, 6.5), (24, 0, 5), (80, 2, 4), (128, 3, 4)], 1.8, 0.8), (14.0, 36.0, 26.0)),
        "blade": (tube([(0, 0, 12), (30, 6, 26), (70, 10, 38), (118, 6, 22), (140, 0, 8)], 0.5, 0.05), (8.0, 50.0, 36.0)),
        "spine": (tube([(0, 0, 5), (40, 3, 4.5), (90, 2, 3)], 1.2, 0.7), (-18.0, 40.0, 92.0)),
    }
    for index in range(6):
        reach = 150.0 + 6 * index
        knots = [(0, 0, 5.5), (0.25 * reach, -15, 5.5), (0.6 * reach, -13, 5.5), (reach, 8, 5.5)]
        bones[f"rib{index}"] = (tube(knots, 1.0, 0.7), (42.0 + 33 * index, 72.0 + 5 * index * (3 - index) / 3, 74.0))
    return bones


def forearm_bones(build: Build, turn: float) -> dict[str, tuple[Body, tuple[float, float, float]]]:
    """Ulna and radius: name -> body and place in a frame whose origin is the elbow's axis, `s` towards the hand."""
    side = abs(np.sin(turn))
    ulna = tube([(-24, 3, 9), (-10, 4, 11.5), (8, 4, 10.5), (30, 3, 8), (70, 4, 7), (140, 4, 6.5)], 1.9, 0.95)
    radius = tube([(5, -14, 11), (14, -13.5, 10.5), (24, -12, 7), (42, -9, 8), (75, -12, 7), (140, -14, 7)], 1.8, 1.0)
    shift = 10 * side
    return {"ulna": (ulna, (0.0, 4.0 - shift * 0.5, 0.0)), "radius": (radius, (0.0, -1.0 + shift, 0.0))}
