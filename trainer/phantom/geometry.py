"""Bodies, frames and the film of the simulated radiographs: path lengths in closed form, and where in the image they fall.

A `Body` is two smooth boundaries along an axis with an elliptical cross-section between them, so that the path of a ray
through it is known in closed form. A frame [3, 3] maps (x, y, 1) px to (s, t, 1) mm. Arm frame: `s` mm along the humerus from
the top of its head towards the elbow, `t` mm across it towards the trunk. Trunk frame: origin in the centre of the humeral
head, `s` mm towards the feet, `t` mm towards the spine.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.interpolate import PchipInterpolator

Array = npt.NDArray[Any]
Region = tuple[slice, slice]  # rows and columns of the film
STEP = 0.25  # mm between the entries of a boundary table
Knots = tuple[tuple[float, ...], tuple[float, ...]]  # positions in mm, and the value at each


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
        depth, ends = (
            self.depth.take(row, mode="clip"),
            np.minimum((right - left) * np.float32(0.1), 1),
        )
        middle, half = (left + right) / 2, (right - left) / 2
        offset = np.square(t - middle)
        return [
            chord(np.square(np.maximum(half - layer * ends, 0)) - offset) * depth
            for layer in layers
        ]


def chord(square: Array) -> Array:
    """2 * sqrt(square), 0 where `square` is negative: the chord of a circle at distances a and b from its edges, square = ab."""
    return 2 * np.sqrt(np.maximum(square, 0))


def ramp(distance: Array, width: float) -> Array:
    """0 to 1 across `width` mm around distance 0."""
    return np.clip(distance * np.float32(1 / width) + 0.5, 0, 1)


def through(positions: Array, knots: Knots) -> Array:
    """float64 [n]: a cubic that does not overshoot, through the knots, at `positions` among them."""
    return interpolator(knots)(np.clip(positions, knots[0][0], knots[0][-1]))


@functools.cache
def interpolator(knots: Knots) -> PchipInterpolator:
    """The curve through the knots; making it costs more than using it."""
    return PchipInterpolator(*knots)


def tube(knots: Sequence[tuple[float, float, float]], cortex: float, depth: float = 1.0) -> Body:
    """A round bone with closed ends from (position, centre, half width) knots in mm."""
    place, centre, half = zip(*knots, strict=True)
    s = np.arange(place[0], place[-1] + STEP / 2, STEP)
    middle, width = (
        through(s, (place, centre)),
        through(s, (place, half)) * cap(len(s), half[0], half[-1]),
    )
    full = np.ones(len(s))
    tables = middle - width, middle + width, depth * full, cortex * full
    return Body(float(place[0]), *(table.astype(np.float32) for table in tables))


def cap(count: int, first: float, last: float) -> Array:
    """float32 [count]: 1 along the body, falling to 0 as a circle does over the last `first` and `last` mm of its ends."""
    s = np.arange(count, dtype=np.float32) * STEP
    near = np.clip(1 - s / max(first, STEP), 0, 1)
    far = np.clip(1 - s[::-1] / max(last, STEP), 0, 1)
    return np.sqrt((1 - near**2) * (1 - far**2)).astype(np.float32)


def rotation(angle: float, s: float = 0.0, t: float = 0.0) -> Array:
    """float64 [3, 3]: coordinates in a frame with its origin at (s, t), turned by `angle` from s towards t."""
    c, d = np.cos(angle), np.sin(angle)
    return np.array([[c, d, -c * s - d * t], [-d, c, d * s - c * t], [0, 0, 1.0]])


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
