"""Compute path lengths of rays through bodies, and where these fall in the image.

A `Body` is two smooth boundaries along an axis with an elliptical cross-section between them. The
path of a ray through it is therefore known in closed form. A frame [3, 3] maps (x, y, 1) px to
(s, t, 1) mm.

In the arm frame, `s` runs along the humerus from the top of its head towards the elbow, and `t`
across it towards the trunk. The trunk frame has its origin in the centre of the humeral head; `s`
runs towards the feet and `t` towards the spine.
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
    """Boundary tables of a body, float32 [n], with one row each STEP mm from `start`.

    `left`, `right` and `cortex` are in mm; `depth` is the ratio of thickness to width.
    """

    start: float
    left: Array
    right: Array
    depth: Array
    cortex: Array

    @property
    def end(self) -> float:
        return self.start + STEP * (len(self.left) - 1)

    def corners(self, margin: float = 2.0) -> Array:
        """Return a rectangle that holds the body, float64 [4, 2] of (s, t) mm."""
        low, high = float(self.left.min()) - margin, float(self.right.max()) + margin
        first, last = self.start - margin, self.end + margin
        return np.array([(first, low), (first, high), (last, high), (last, low)])

    def rows(self, s: Array) -> Array:
        """Return the table rows, int32, of positions along the axis.

        Take them with mode="clip": the width is zero at both ends.
        """
        return (s * np.float32(1 / STEP) + np.float32(0.5 - self.start / STEP)).astype(np.int32)

    def path(self, s: Array, t: Array) -> tuple[Array, Array]:
        """Return two path lengths in mm at (s, t): through the body, and inside its cortex."""
        row = self.rows(s)
        left, right = t - self.left.take(row, mode="clip"), self.right.take(row, mode="clip") - t
        depth, cortex = self.depth.take(row, mode="clip"), self.cortex.take(row, mode="clip")
        outer = chord(left * right) * depth
        # The wall facing the tube is as thick as the walls at the side. A flat bone therefore loses
        # relatively more.
        facing = depth - 2 * cortex * (1 - depth) / np.maximum(left + right, 1)
        left, right = np.maximum(left - cortex, 0), np.maximum(right - cortex, 0)
        return outer, chord(left * right) * np.maximum(facing, 0)

    def thickness(self, s: Array, t: Array, layers: Sequence[float] = (0.0,)) -> list[Array]:
        """Return the path length in mm through what lies deeper than each of `layers` mm."""
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
    """Return 2 * sqrt(square), or 0 where `square` is negative.

    This is the chord of a circle at the distances a and b from its edges, if square = a * b.
    """
    return 2 * np.sqrt(np.maximum(square, 0))


def ramp(distance: Array, width: float) -> Array:
    """Rise from 0 to 1 across `width` mm around distance 0."""
    return np.clip(distance * np.float32(1 / width) + 0.5, 0, 1)


def interpolate(positions: Array, knots: Knots) -> Array:
    """Return a cubic through the knots that does not overshoot, float64 [n], at `positions`."""
    return make_interpolator(knots)(np.clip(positions, knots[0][0], knots[0][-1]))


@functools.cache
def make_interpolator(knots: Knots) -> PchipInterpolator:
    """Return the curve through the knots; it is cached, because making it is slow."""
    return PchipInterpolator(*knots)


def make_tube(
    knots: Sequence[tuple[float, float, float]], cortex: float, depth: float = 1.0
) -> Body:
    """Return a round bone with closed ends from (position, centre, half width) knots in mm."""
    place, centre, half = zip(*knots, strict=True)
    s = np.arange(place[0], place[-1] + STEP / 2, STEP)
    middle, width = (
        interpolate(s, (place, centre)),
        interpolate(s, (place, half)) * cap(len(s), half[0], half[-1]),
    )
    full = np.ones(len(s))
    tables = middle - width, middle + width, depth * full, cortex * full
    return Body(float(place[0]), *(table.astype(np.float32) for table in tables))


def cap(count: int, first: float, last: float) -> Array:
    """Return the factor that rounds the ends of a body, float32 [count], 0 to 1.

    It is 1 along the body and falls to 0 as a circle does over the outermost `first` and `last` mm.
    """
    s = np.arange(count, dtype=np.float32) * STEP
    near = np.clip(1 - s / max(first, STEP), 0, 1)
    far = np.clip(1 - s[::-1] / max(last, STEP), 0, 1)
    return np.sqrt((1 - near**2) * (1 - far**2)).astype(np.float32)


def rotation(angle: float, s: float = 0.0, t: float = 0.0) -> Array:
    """Return the map to a frame with its origin at (s, t), turned by `angle` from s towards t.

    The result is float64 [3, 3]; the angle is in radians.
    """
    c, d = np.cos(angle), np.sin(angle)
    return np.array([[c, d, -c * s - d * t], [-d, c, d * s - c * t], [0, 0, 1.0]])


def to_pixels(points: Array, frame: Array) -> Array:
    """Return (x, y) px, float64 [n, 2], of points (s, t) in the coordinates of `frame`."""
    inverse = np.linalg.inv(frame)
    return np.asarray(points) @ inverse[:2, :2].T + inverse[:2, 2]


def coordinates(frame: Array, rows: slice, columns: slice) -> tuple[Array, Array]:
    """Return s and t in mm, each float32 [h, w], at the centres of the pixels."""
    x = np.arange(columns.start, columns.stop, dtype=np.float32)
    y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None]
    m = frame.astype(np.float32)
    return m[0, 0] * x + (m[0, 1] * y + m[0, 2]), m[1, 0] * x + (m[1, 1] * y + m[1, 2])


class Film:
    """The plane of the image while it is drawn.

    `total` float32 [h, w] collects attenuation; `frame` maps px to mm of the arm.
    """

    def __init__(self, height: int, width: int, frame: Array) -> None:
        self.total: Array = np.zeros((height, width), np.float32)
        self.frame = frame

    def region(self, corners: Array, frame: Array) -> Region:
        """Return the rows and columns that a quadrilateral [4, 2] in `frame` touches."""
        points = to_pixels(corners, frame)
        low = np.floor(points.min(axis=0)).astype(int)
        high = np.ceil(points.max(axis=0)).astype(int) + 1
        height, width = self.total.shape
        x, y = np.clip([low[0], high[0]], 0, width), np.clip([low[1], high[1]], 0, height)
        return slice(int(y[0]), int(y[1])), slice(int(x[0]), int(x[1]))

    def body(self, body: Body, frame: Array) -> tuple[Region, Array, Array]:
        """Return the region that a body covers, and s and t, float32 [h, w], in its frame."""
        rows, columns = self.region(body.corners(), frame)
        return (rows, columns), *coordinates(frame, rows, columns)


@functools.cache
def make_texture(kind: int) -> Array:
    """Return a texture of mean 0 and standard deviation 1 that repeats each 512 texels.

    The result is float32 [1536, 1536]. Kind 0 is trabeculae (fine), kind 1 is muscle (coarse, along
    the rows).
    """
    noise = np.random.default_rng(kind).standard_normal((512, 512), dtype=np.float32)
    shape, coarse = (((1.3, 0.8), (5.0, 4.0)), ((16, 5), (60, 20)))[kind]
    wide = np.pad(noise, 128, mode="wrap")
    fine = cv2.GaussianBlur(wide, (0, 0), sigmaX=shape[1], sigmaY=shape[0])
    rough = cv2.GaussianBlur(wide, (0, 0), sigmaX=coarse[1], sigmaY=coarse[0])
    band = np.subtract(fine, rough)[128:-128, 128:-128]
    return np.tile(band / band.std(), (3, 3))


def sample_grain(kind: int, frame: Array, region: Region, scale: float, origin: Array) -> Array:
    """Return the texture fixed to the tissue of `frame`, float32 [h, w], `scale` texels per mm."""
    rows, columns = region
    corner = np.array([[1, 0, columns.start], [0, 1, rows.start], [0, 0, 1.0]])
    to_texel = np.array([[0, scale, origin[0]], [scale, 0, origin[1]]]) @ frame @ corner
    size = (columns.stop - columns.start, rows.stop - rows.start)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(
        make_texture(kind), to_texel, size, flags=flags, borderMode=cv2.BORDER_WRAP
    )
