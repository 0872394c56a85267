"""The healthy upper arm that `trainer.phantom` sends its X-rays through: outlines in millimetres, and path lengths through them.

Every part is a `Body`: two smooth boundaries along an axis with an elliptical cross-section between them, so that the path
of a ray through it is known in closed form. Arm frame: `s` mm along the humerus from the top of its head towards the elbow,
`t` mm across it towards the trunk. Trunk frame: origin in the centre of the humeral head, `s` mm towards the feet, `t` mm
towards the spine.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter1d

STEP = 0.25  # mm between the entries of a boundary table

# Linear attenuation in 1/mm. Muscle, fat and cortex: within 5 % of the tables at 48 keV (Hubbell and Seltzer, NISTIR 5632);
# the others are mixtures that look right.
MUSCLE, FAT, CORTEX, SPONGIOSA, MARROW, PLASTER = 0.0245, 0.0202, 0.092, 0.036, 0.0225, 0.050

Array = npt.NDArray[Any]


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
        """Table rows, int32, for positions along the axis; take them with mode="clip": at the ends the width is zero."""
        return (s * np.float32(1 / STEP) + np.float32(0.5 - self.start / STEP)).astype(np.int32)

    def path(self, s: Array, t: Array) -> tuple[Array, Array]:
        """Path lengths in mm at (s, t): through the outer surface, and through the space inside the cortex."""
        row = self.rows(s)
        left, right = t - self.left.take(row, mode="clip"), self.right.take(row, mode="clip") - t
        depth, cortex = self.depth.take(row, mode="clip"), self.cortex.take(row, mode="clip")
        outer = chord(left * right) * depth
        # The wall facing the tube is as thick as the walls at the side, so a flat bone loses relatively more.
        facing = depth - 2 * cortex * (1 - depth) / np.maximum(left + right, 1)
        left, right = np.maximum(left - cortex, 0), np.maximum(right - cortex, 0)
        return outer, chord(left * right) * np.maximum(facing, 0)

    def thickness(self, s: Array, t: Array, layers: Sequence[float] = (0.0,)) -> list[Array]:
        """Path lengths in mm through what lies deeper than each of `layers` mm below the side of the body."""
        row = self.rows(s)
        left, right = self.left.take(row, mode="clip"), self.right.take(row, mode="clip")
        depth, ends = self.depth.take(row, mode="clip"), np.minimum((right - left) * np.float32(0.1), 1)
        middle, half = (left + right) / 2, (right - left) / 2
        offset = np.square(t - middle)
        return [chord(np.square(np.maximum(half - layer * ends, 0)) - offset) * depth for layer in layers]


def chord(square: Array) -> Array:
    """2 * sqrt(square), 0 where `square` is negative: the chord of a circle at distances a and b from its edges, square = ab."""
    return 2 * np.sqrt(np.maximum(square, 0))


Knots = tuple[tuple[float, ...], tuple[float, ...]]  # positions in mm, and the value at each


def through(positions: Array, knots: Knots) -> Array:
    """float64 [n]: a cubic that does not overshoot, through the knots, at `positions` among them."""
    return interpolator(knots)(np.clip(positions, knots[0][0], knots[0][-1]))


@functools.cache
def interpolator(knots: Knots) -> PchipInterpolator:
    """The curve through the knots; making it costs more than using it."""
    return PchipInterpolator(*knots)


def ramp(distance: Array, width: float) -> Array:
    """0 to 1 across `width` mm around distance 0."""
    return np.clip(distance * np.float32(1 / width) + 0.5, 0, 1)


def tube(knots: Sequence[tuple[float, float, float]], cortex: float, depth: float = 1.0) -> Body:
    """A round bone with closed ends from (position, centre, half width) knots in mm."""
    place, centre, half = zip(*knots, strict=True)
    s = np.arange(place[0], place[-1] + STEP / 2, STEP)
    middle, width = through(s, (place, centre)), through(s, (place, half)) * cap(len(s), half[0], half[-1])
    full = np.ones(len(s))
    tables = middle - width, middle + width, depth * full, cortex * full
    return Body(float(place[0]), *(table.astype(np.float32) for table in tables))


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
WALL = ((0, 40, 60, 85, 125, 200, 235, 258, 275, 312), (0.9, 1.2, 1.9, 3.3, 4.6, 4.6, 3.6, 2.4, 1.5, 0.9))
FILLING = ((0, 30, 50, 75, 100, 215, 250, 280, 312), (1, 0.8, 0.45, 0.15, 0, 0, 0.3, 0.7, 0.9))
ARM = ((-30, 0, 45, 100, 150, 200, 250, 287, 332, 422), (20, 40, 47, 43, 39.5, 38, 35, 36, 37, 31))
ARM_MIDDLE = ((-30, 40, 100, 150, 200, 250, 312, 422), (6, -4, -2, 3, 4, 1, 0, 0))


def reference(build: Build, start: float = 0.0, beyond: float = 0.0) -> Array:
    """float64 [n]: positions on a humerus 312 mm long, of which only the shaft is stretched, each STEP mm of the patient's."""
    s = np.arange(start, build.length + beyond + STEP / 2, STEP)
    return np.interp(
        s, (start, 0, 80, build.length - 82, build.length, build.length + beyond + 1), (start, 0, 80, 230, 312, 313 + beyond)
    )


def humerus(build: Build, turn: float) -> Body:
    """The humerus seen from the front (turn 0) to the side (turn 90 degrees, in radians)."""
    s, face, side = reference(build), np.cos(turn), abs(np.sin(turn))
    lateral, medial, depth = (
        (1 - side) * through(s, (place, front)) + side * through(s, (place, lateral_view))
        for place, front, lateral_view in (LATERAL, MEDIAL, DEPTH)
    )
    radius, centre = 22.5, 9.5 * face
    ball = np.sqrt(np.maximum(radius**2 - (s - radius) ** 2, 0))
    left = np.where(s < 2 * radius, np.minimum(lateral, centre - ball), lateral)
    right = np.where(s < 2 * radius, np.maximum(medial, centre + ball), medial)
    middle, half = (left + right) / 2, (right - left) / 2
    soften = np.clip((s - 3) / 8, 0, 1)  # the top of the head must stay a circle
    middle = soften * gaussian_filter1d(middle, 1.6 / STEP, mode="nearest") + (1 - soften) * middle
    half = soften * gaussian_filter1d(half, 1.6 / STEP, mode="nearest") + (1 - soften) * half
    half = half * cap(len(s), STEP, 9 + 4 * side) * build.girth
    middle = (middle + 3 * face * ramp(s - 308, 8)) * build.girth
    tables = middle - half, middle + half, depth, build.cortex * through(s, WALL)
    return Body(0.0, *(table.astype(np.float32) for table in tables))


def spongiosa(build: Build) -> Array:
    """float32 [n]: share of the space inside the humerus's cortex that trabeculae fill, each STEP mm."""
    return through(reference(build), FILLING).astype(np.float32)


def arm(build: Build, bend: Array) -> Body:
    """The arm inside its skin, from above the shoulder to below the elbow, following `bend` [n] mm."""
    s = reference(build, -30.0, 110.0)
    middle = through(s, ARM_MIDDLE) + bend
    half = (build.muscle / 35 * through(s, ARM) + build.fat) * cap(len(s), 26, STEP)
    tables = middle - half, middle + half, np.full(len(s), 0.95), np.zeros(len(s))
    return Body(-30.0, *(table.astype(np.float32) for table in tables))


def trunk(build: Build) -> Body:
    """Shoulder, chest wall and trunk in the trunk frame, as one thick body whose axis runs towards the spine (`s` there)."""
    s = np.arange(-20, 330 + STEP / 2, STEP)
    top = through(s, ((-20, 20, 70, 130, 190, 330), (-28, -44, -52, -74, -120, -160))) - build.fat
    places = (-20, 10, 38, 58, 70, 80, 100, 330)
    bottom = through(s, (places, (0, 45, 84, 150, 260, 420, 560, 640))) + build.fat
    depth = through(s, (places, (0.03, 0.35, 0.42, 0.40, 0.36, 0.35, 0.37, 0.5)))
    return Body(-20.0, *(table.astype(np.float32) for table in (top, bottom, depth, np.zeros_like(s))))


Region = tuple[slice, slice]  # rows and columns of the film
Place = tuple[float, float, float]  # of a body: (s, t) of its start in mm, and its axis in degrees from s towards t
Bones = tuple[tuple[Body, Place], ...]


@functools.cache
def shoulder_bones() -> tuple[Bones, ...]:
    """Groups of bodies in the trunk frame, each group grown together: scapula, clavicle, ribs. Direction 90 is to the spine."""
    scapula = (
        (tube([(0, 0, 4), (18, 2.5, 6.5), (38, 0, 4.5)], 1.0, 1.8), (-19.0, 28.0, 6.0)),  # glenoid
        (tube([(0, 0, 15), (16, 0, 13), (34, -2, 16), (52, -6, 20)], 0.9, 0.35), (-4.0, 33.0, 70.0)),  # neck
        (tube([(0, 0, 8), (24, 0, 6.5), (80, 2, 5), (128, 3, 4)], 1.3, 0.8), (8.0, 35.0, 22.0)),  # lateral border
        (tube([(0, 0, 12), (30, 6, 28), (70, 10, 40), (118, 6, 24), (140, 0, 8)], 0.6, 0.07), (8.0, 50.0, 34.0)),  # blade
        (tube([(0, 0, 7), (14, 1, 6.5), (30, -4, 7)], 0.9, 0.9), (-17.0, 40.0, -102.0)),  # coracoid
        (
            tube([(0, 0, 6), (14, 1.5, 8.5), (36, 0, 8), (62, -5, 6.5), (100, -12, 4)], 0.9, 0.5),
            (-30.0, -15.0, 92.0),
        ),  # acromion
    )
    clavicle = (
        (
            tube([(0, 0, 8), (18, 3, 7.5), (50, 1, 6), (95, -7, 6), (140, -6, 7.5), (158, -4, 10)], 1.7, 0.85),
            (-34.0, 18.0, 104.0),
        ),
    )
    ribs = []
    for index in range(6):
        reach = 165.0 + 6 * index
        rib = tube([(0, 0, 5.5), (0.25 * reach, -17, 5.5), (0.6 * reach, -14, 5.5), (reach, 8, 5.5)], 1.0, 0.7)
        ribs.append(((rib, (42.0 + 33 * index, 74.0 + 4 * index, 72.0)),))
    return scapula, clavicle, *ribs


@functools.cache
def forearm_bones(side: bool) -> tuple[Bones, ...]:
    """Ulna and radius in a frame whose origin is the elbow's axis, `s` towards the hand, from the side or from the front."""
    if side:
        ulna = tube([(-19, -13, 7), (-6, -13, 9), (8, -13, 11), (22, -8, 12), (45, -6, 8), (90, -4, 7), (150, -3, 6)], 1.4, 0.9)
        radius = tube([(14, 7, 11), (22, 7, 10.5), (32, 6, 7.5), (48, 7, 8.5), (80, 9, 7.5), (150, 12, 7)], 1.4, 0.9)
    else:
        ulna = tube([(-21, 3, 10), (-8, 4, 12), (6, 6, 13), (20, 7, 11.5), (38, 5, 8), (80, 5, 7), (150, 4, 6.5)], 1.0, 0.7)
        radius = tube([(9, -13, 11), (18, -13, 10.5), (28, -12, 7.5), (46, -10, 8.5), (80, -13, 7.5), (150, -16, 7)], 1.4, 0.9)
    return ((ulna, (0.0, 0.0, 0.0)),), ((radius, (0.0, 0.0, 0.0)),)


def rotation(angle: float, s: float = 0.0, t: float = 0.0) -> Array:
    """float64 [3, 3]: coordinates in a frame with its origin at (s, t), turned by `angle` from s towards t."""
    c, d = np.cos(angle), np.sin(angle)
    return np.array([[c, d, -c * s - d * t], [-d, c, d * s - c * t], [0, 0, 1.0]])


class Film:
    """The plane of the image while it is drawn: `total` float32 [h, w] collects attenuation, and `frame` maps px to arm mm."""

    def __init__(self, height: int, width: int, frame: Array) -> None:
        self.total: Array = np.zeros((height, width), np.float32)
        self.frame = frame

    def region(self, corners: Array, frame: Array) -> Region:
        """The rows and columns that a quadrilateral [4, 2] in `frame` coordinates touches."""
        points = pixels(corners, frame)
        low = np.floor(points.min(axis=0)).astype(int)
        high = np.ceil(points.max(axis=0)).astype(int) + 1
        height, width = self.total.shape
        x, y = np.clip([low[0], high[0]], 0, width), np.clip([low[1], high[1]], 0, height)
        return slice(int(y[0]), int(y[1])), slice(int(x[0]), int(x[1]))

    def body(self, body: Body, frame: Array) -> tuple[Region, Array, Array]:
        """The region that a body covers, with coordinates s and t float32 [h, w] in the body's frame."""
        rows, columns = self.region(body.corners(), frame)
        return (rows, columns), *coordinates(frame, rows, columns)


def pixels(points: Array, frame: Array) -> Array:
    """float64 [n, 2] of (x, y) px for points (s, t) in the coordinates of `frame`."""
    inverse = np.linalg.inv(frame)
    return np.asarray(points) @ inverse[:2, :2].T + inverse[:2, 2]


def coordinates(frame: Array, rows: slice, columns: slice) -> tuple[Array, Array]:
    """s and t, float32 [h, w], at the centres of the pixels."""
    x = np.arange(columns.start, columns.stop, dtype=np.float32)
    y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None]
    m = frame.astype(np.float32)
    return m[0, 0] * x + (m[0, 1] * y + m[0, 2]), m[1, 0] * x + (m[1, 1] * y + m[1, 2])


@functools.cache
def texture(kind: int) -> Array:
    """float32 [1536, 1536], mean 0, deviation 1, repeating each 512: 0 trabeculae (fine), 1 muscle (coarse, along the rows)."""
    noise = np.random.default_rng(kind).standard_normal((512, 512), dtype=np.float32)
    shape, coarse = (((1.3, 0.8), (5.0, 4.0)), ((16, 5), (60, 20)))[kind]
    wide = np.pad(noise, 128, mode="wrap")
    fine = cv2.GaussianBlur(wide, (0, 0), sigmaX=shape[1], sigmaY=shape[0])
    rough = cv2.GaussianBlur(wide, (0, 0), sigmaX=coarse[1], sigmaY=coarse[0])
    band = np.subtract(fine, rough)[128:-128, 128:-128]
    return np.tile(band / band.std(), (3, 3))


def grain(kind: int, frame: Array, region: Region, scale: float, origin: Array) -> Array:
    """float32 [h, w]: the texture fixed to the tissue of `frame`, `scale` texels per mm."""
    rows, columns = region
    corner = np.array([[1, 0, columns.start], [0, 1, rows.start], [0, 0, 1.0]])
    to_texel = np.array([[0, scale, origin[0]], [scale, 0, origin[1]]]) @ frame @ corner
    size = (columns.stop - columns.start, rows.stop - rows.start)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(texture(kind), to_texel, size, flags=flags, borderMode=cv2.BORDER_WRAP)


def soft_tissue(film: Film, build: Build, trunk_frame: Array, bend: Array, rng: np.random.Generator) -> None:
    """Skin, fat, muscle, trunk and lung, drawn at half resolution: nothing in them is sharp."""
    half = np.diag([2.0, 2.0, 1.0])
    height, width = (side // 2 + 1 for side in film.total.shape)
    region = slice(0, height), slice(0, width)
    skin, fat, muscle = arm(build, bend).thickness(*coordinates(film.frame @ half, *region), (0.0, 1.7, build.fat))
    u, v = coordinates(trunk_frame @ half, *region)
    chest = trunk(build).thickness(v, u)[0]
    skin, fat, muscle = join(skin, chest), join(fat, 0.985 * chest), join(muscle, 0.86 * chest)
    fat = np.maximum(fat, muscle)
    reach = np.square((u - 165) / 165) + np.square((v - 140) / 68)
    lung = np.minimum(150 * np.sqrt(np.maximum(1 - reach, 0)), 0.62 * muscle)
    streaks = 1 + 0.025 * grain(1, film.frame @ half, region, 1.5, rng.uniform(0, 512, 2)) * np.minimum(muscle / 40, 1)
    total = MUSCLE * (muscle * streaks - 0.85 * lung + skin - fat) + FAT * (fat - muscle)
    total = cv2.GaussianBlur(total, (0, 0), 0.8)
    matrix = np.array([[0.5, 0, 0], [0, 0.5, 0]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    film.total += cv2.warpAffine(total, matrix, film.total.shape[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)


def join(a: Array, b: Array) -> Array:
    """The thickness of two bodies that merge without a seam."""
    a, b = a * a, b * b
    return np.sqrt(np.sqrt(a * a + b * b))


def bones(film: Film, group: Bones, frame: Array, origin: Array, strength: float = 1.0) -> None:
    """Bodies without a finding that have grown together: where they overlap, no seam shows."""
    placed = [(body, rotation(np.radians(degrees), s, t) @ frame) for body, (s, t, degrees) in group]
    corners = np.concatenate([pixels(body.corners(), place) for body, place in placed])
    region = film.region(corners, np.eye(3))
    if film.total[region].size == 0:
        return
    outer4, inner4 = np.zeros((2, *film.total[region].shape), np.float32)
    top, left = region[0].start, region[1].start
    for body, place in placed:
        (rows, columns), s, t = film.body(body, place)
        inside = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
        outer, inner = body.path(s, t)
        outer4[inside] += np.square(np.square(outer))
        inner4[inside] += np.square(np.square(inner))
    outer, inner = np.sqrt(np.sqrt(outer4)), np.sqrt(np.sqrt(inner4))
    filling = 0.5 * (SPONGIOSA - MUSCLE) * inner
    if len(group) > 1:  # on the thin bones no grain can be seen
        filling *= 1 + 0.15 * grain(0, frame, region, 2.8, origin)
    film.total[region] += strength * ((CORTEX - MUSCLE) * (outer - inner) + filling)


def landmarks_of_head(film: Film, build: Build, turn: float, frame: Array) -> None:
    """Lines inside the head: the growth plate, a bright scar or, in the young, dark and open; the groove of the biceps."""
    face, k = float(np.cos(turn)), build.girth
    region = film.region(np.array([(a, b * k) for a in (4.0, 56.0) for b in (-24.0, 32.0)]), frame)
    s, t = coordinates(frame, *region)
    if not s.size:
        return
    across = t - 6 * face * k
    roof = s - 38 + 0.45 * np.sqrt(across * across + 40) - 0.16 * across
    strength, width = (-0.33, 1.2) if build.young else (0.09, 1.0)
    floor = t + 9 * face * k - 0.05 * s
    groove = np.exp(-np.square(floor / 2.2)) - 0.7 * np.exp(-np.square((floor + 3.5 * face * k) / 1.6))
    lines = strength * np.exp(-np.square(roof / width)) - 0.11 * groove * np.exp(-np.square((s - 25) / 15))
    film.total[region] += lines * ramp(24 * k - np.abs(across - 2), 5)


def fossa_of_elbow(film: Film, build: Build, turn: float, frame: Array) -> None:
    """The thin place above the trochlea, dark from the front."""
    face, end = float(np.cos(turn)), build.length
    region = film.region(np.array([(end + a, b) for a in (-60.0, -5.0) for b in (-24.0, 28.0)]), frame)
    s, t = coordinates(frame, *region)
    hollow = np.exp(-np.square((s - end + 31) / 9) - np.square((t - 2) / 9))
    film.total[region] += (-0.24 * face * face * hollow).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Piece:
    """A part of the humerus between two positions in mm that has its own place: `frame` maps px to where it came from.

    `share(s, t, thickness)` gives the share of the bone along a ray that belongs to the piece, 0 to 1.
    """

    frame: Array
    first: float
    last: float
    share: Callable[[Array, Array, Array], Array] | None = None


def humerus_bone(film: Film, build: Build, body: Body, turn: float, pieces: Sequence[Piece], origin: Array) -> None:
    """The humerus, whole or in pieces; the first piece holds the head and the second, if any, the elbow's end."""
    filling = spongiosa(build)
    for piece in pieces:
        corners = body.corners()
        corners[:, 0] = np.clip(corners[:, 0], piece.first - 2, piece.last + 2)
        region = film.region(corners, piece.frame)
        s, t = coordinates(piece.frame, *region)
        if not s.size:
            continue
        outer, inner = body.path(s, t)
        grains = grain(0, piece.frame, region, 2.8, origin)
        share = filling.take(body.rows(s), mode="clip") * (1 + 0.15 * grains)
        bone = (CORTEX - MUSCLE) * (outer - inner) * (1 + 0.025 * grains)
        bone += (MARROW - MUSCLE + share * (SPONGIOSA - MARROW)) * inner
        film.total[region] += bone if piece.share is None else bone * piece.share(s, t, outer)
    landmarks_of_head(film, build, turn, pieces[0].frame)
    fossa_of_elbow(film, build, turn, pieces[min(1, len(pieces) - 1)].frame)


def forearm(film: Film, build: Build, turn: float, flexion: float, frame: Array, origin: Array) -> None:
    """Ulna and radius, bent at the elbow by `flexion` radians; `frame` is that of the piece of humerus they meet."""
    elbow = rotation(flexion, build.length - 9, 0.0) @ frame
    for group in forearm_bones(abs(np.sin(turn)) > 0.5):
        bones(film, group, elbow, origin, 0.85)


def shoulder(film: Film, frame: Array, origin: Array) -> None:
    """Scapula, clavicle and ribs; `frame` maps px to the trunk."""
    for index, group in enumerate(shoulder_bones()):
        bones(film, group, frame, origin, (0.8, 0.9)[index] if index < 2 else 0.55)
