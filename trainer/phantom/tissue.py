"""Add the attenuation of the healthy body, its layers and its bones, to a film."""

import dataclasses
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from trainer.phantom import anatomy, geometry
from trainer.phantom.geometry import Array

# Linear attenuation in 1/mm. Muscle, fat and cortex are within 5 % of the tables at 48 keV (Hubbell
# and Seltzer, NISTIR 5632). The others are mixtures that look right.
MUSCLE, FAT, CORTEX, SPONGIOSA, MARROW, PLASTER = 0.0245, 0.0202, 0.092, 0.036, 0.0225, 0.050


@dataclasses.dataclass(frozen=True)
class Piece:
    """A part of the humerus, between two positions in mm, that has moved on its own.

    `frame` maps px to where the piece came from. `share(s, t, thickness)` returns the share of the
    bone along a ray that belongs to the piece, 0 to 1.
    """

    frame: Array
    first: float
    last: float
    share: Callable[[Array, Array, Array], Array] | None = None


def add_soft_tissue(
    film: geometry.Film,
    build: anatomy.Build,
    trunk_frame: Array,
    bend: Array,
    rng: np.random.Generator,
) -> None:
    """Add skin, fat, muscle, trunk and lung at half resolution, since nothing in them is sharp."""
    half = np.diag([2.0, 2.0, 1.0])
    height, width = (side // 2 + 1 for side in film.total.shape)
    region = slice(0, height), slice(0, width)
    place = geometry.coordinates(film.frame @ half, *region)
    skin, fat, muscle = anatomy.make_arm(build, bend).thickness(*place, (0.0, 1.7, build.fat))
    u, v = geometry.coordinates(trunk_frame @ half, *region)
    chest = anatomy.make_trunk(build).thickness(v, u)[0]
    skin, fat, muscle = (
        merge_thicknesses(skin, chest),
        merge_thicknesses(fat, 0.985 * chest),
        merge_thicknesses(muscle, 0.86 * chest),
    )
    fat = np.maximum(fat, muscle)
    reach = np.square((u - 165) / 165) + np.square((v - 140) / 68)
    lung = np.minimum(150 * np.sqrt(np.maximum(1 - reach, 0)), 0.62 * muscle)
    streaks = 1 + 0.025 * geometry.sample_grain(
        1, film.frame @ half, region, 1.5, rng.uniform(0, 512, 2)
    ) * np.minimum(muscle / 40, 1)
    total = MUSCLE * (muscle * streaks - 0.85 * lung + skin - fat) + FAT * (fat - muscle)
    total = cv2.GaussianBlur(total, (0, 0), 0.8)
    matrix = np.array([[0.5, 0, 0], [0, 0.5, 0]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    film.total += cv2.warpAffine(
        total, matrix, film.total.shape[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE
    )


def merge_thicknesses(a: Array, b: Array) -> Array:
    """Return the thickness of two bodies that merge without a seam."""
    a, b = a * a, b * b
    return np.sqrt(np.sqrt(a * a + b * b))


def add_bones(
    film: geometry.Film, group: anatomy.Bones, frame: Array, origin: Array, strength: float = 1.0
) -> None:
    """Add bodies without a finding that have grown together: where they overlap, no seam shows."""
    placed = [
        (body, geometry.rotation(np.radians(degrees), s, t) @ frame)
        for body, (s, t, degrees) in group
    ]
    corners = np.concatenate([geometry.to_pixels(body.corners(), place) for body, place in placed])
    region = film.region(corners, np.eye(3))
    if film.total[region].size == 0:
        return
    outer4, inner4 = np.zeros((2, *film.total[region].shape), np.float32)
    top, left = region[0].start, region[1].start
    for body, place in placed:
        (rows, columns), s, t = film.body(body, place)
        inside = (
            slice(rows.start - top, rows.stop - top),
            slice(columns.start - left, columns.stop - left),
        )
        outer, inner = body.path(s, t)
        outer4[inside] += np.square(np.square(outer))
        inner4[inside] += np.square(np.square(inner))
    outer, inner = np.sqrt(np.sqrt(outer4)), np.sqrt(np.sqrt(inner4))
    filling = 0.5 * (SPONGIOSA - MUSCLE) * inner
    if len(group) > 1:  # on the thin bones no grain can be seen
        filling *= 1 + 0.15 * geometry.sample_grain(0, frame, region, 2.8, origin)
    film.total[region] += strength * ((CORTEX - MUSCLE) * (outer - inner) + filling)


def add_head_landmarks(
    film: geometry.Film, build: anatomy.Build, turn: float, frame: Array
) -> None:
    """Add the growth plate and the groove of the biceps inside the head.

    The growth plate is a bright scar or, in the young, dark and open.
    """
    face, k = float(np.cos(turn)), build.girth
    region = film.region(np.array([(a, b * k) for a in (4.0, 56.0) for b in (-24.0, 32.0)]), frame)
    s, t = geometry.coordinates(frame, *region)
    if not s.size:
        return
    across = t - 6 * face * k
    roof = s - 38 + 0.45 * np.sqrt(across * across + 40) - 0.16 * across
    strength, width = (-0.33, 1.2) if build.young else (0.09, 1.0)
    floor = t + 9 * face * k - 0.05 * s
    groove = np.exp(-np.square(floor / 2.2)) - 0.7 * np.exp(
        -np.square((floor + 3.5 * face * k) / 1.6)
    )
    lines = strength * np.exp(-np.square(roof / width)) - 0.11 * groove * np.exp(
        -np.square((s - 25) / 15)
    )
    film.total[region] += lines * geometry.ramp(24 * k - np.abs(across - 2), 5)


def add_elbow_fossa(film: geometry.Film, build: anatomy.Build, turn: float, frame: Array) -> None:
    """Add the thin place above the trochlea, which is dark from the front."""
    face, end = float(np.cos(turn)), build.length
    region = film.region(
        np.array([(end + a, b) for a in (-60.0, -5.0) for b in (-24.0, 28.0)]), frame
    )
    s, t = geometry.coordinates(frame, *region)
    hollow = np.exp(-np.square((s - end + 31) / 9) - np.square((t - 2) / 9))
    film.total[region] += (-0.24 * face * face * hollow).astype(np.float32)


def add_humerus(
    film: geometry.Film,
    build: anatomy.Build,
    body: geometry.Body,
    turn: float,
    pieces: Sequence[Piece],
    origin: Array,
) -> None:
    """Add the humerus, intact or in pieces.

    The first piece holds the head; the second, if any, holds the end at the elbow.
    """
    filling = anatomy.compute_trabecular_share(build)
    for piece in pieces:
        corners = body.corners()
        corners[:, 0] = np.clip(corners[:, 0], piece.first - 2, piece.last + 2)
        region = film.region(corners, piece.frame)
        s, t = geometry.coordinates(piece.frame, *region)
        if not s.size:
            continue
        outer, inner = body.path(s, t)
        grains = geometry.sample_grain(0, piece.frame, region, 2.8, origin)
        share = filling.take(body.rows(s), mode="clip") * (1 + 0.15 * grains)
        bone = (CORTEX - MUSCLE) * (outer - inner) * (1 + 0.025 * grains)
        bone += (MARROW - MUSCLE + share * (SPONGIOSA - MARROW)) * inner
        film.total[region] += bone if piece.share is None else bone * piece.share(s, t, outer)
    add_head_landmarks(film, build, turn, pieces[0].frame)
    add_elbow_fossa(film, build, turn, pieces[min(1, len(pieces) - 1)].frame)


def add_forearm(
    film: geometry.Film,
    build: anatomy.Build,
    turn: float,
    flexion: float,
    frame: Array,
    origin: Array,
) -> None:
    """Add ulna and radius, bent at the elbow by `flexion` radians.

    `frame` is that of the piece of the humerus that they meet.
    """
    elbow = geometry.rotation(flexion, build.length - 9, 0.0) @ frame
    for group in anatomy.make_forearm_bones(abs(np.sin(turn)) > 0.5):
        add_bones(film, group, elbow, origin, 0.85)


def add_shoulder(film: geometry.Film, frame: Array, origin: Array) -> None:
    """Add scapula, clavicle and ribs; `frame` maps px to the trunk."""
    for index, group in enumerate(anatomy.make_shoulder_bones()):
        add_bones(film, group, frame, origin, (0.8, 0.9)[index] if index < 2 else 0.55)
