"""What the healthy body takes from the beam: attenuation coefficients, and the layers and bones that are added to a film."""

import dataclasses
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from trainer.phantom import anatomy, geometry
from trainer.phantom.geometry import Array

# Linear attenuation in 1/mm. Muscle, fat and cortex: within 5 % of the tables at 48 keV (Hubbell and Seltzer, NISTIR 5632);
# the others are mixtures that look right.
MUSCLE, FAT, CORTEX, SPONGIOSA, MARROW, PLASTER = 0.0245, 0.0202, 0.092, 0.036, 0.0225, 0.050


@dataclasses.dataclass(frozen=True)
class Piece:
    """A part of the humerus between two positions in mm that has its own place: `frame` maps px to where it came from.

    `share(s, t, thickness)` gives the share of the bone along a ray that belongs to the piece, 0 to 1.
    """

    frame: Array
    first: float
    last: float
    share: Callable[[Array, Array, Array], Array] | None = None


def soft_tissue(
    film: geometry.Film,
    build: anatomy.Build,
    trunk_frame: Array,
    bend: Array,
    rng: np.random.Generator,
) -> None:
    """Skin, fat, muscle, trunk and lung, drawn at half resolution: nothing in them is sharp."""
    half = np.diag([2.0, 2.0, 1.0])
    height, width = (side // 2 + 1 for side in film.total.shape)
    region = slice(0, height), slice(0, width)
    place = geometry.coordinates(film.frame @ half, *region)
    skin, fat, muscle = anatomy.arm(build, bend).thickness(*place, (0.0, 1.7, build.fat))
    u, v = geometry.coordinates(trunk_frame @ half, *region)
    chest = anatomy.trunk(build).thickness(v, u)[0]
    skin, fat, muscle = join(skin, chest), join(fat, 0.985 * chest), join(muscle, 0.86 * chest)
    fat = np.maximum(fat, muscle)
    reach = np.square((u - 165) / 165) + np.square((v - 140) / 68)
    lung = np.minimum(150 * np.sqrt(np.maximum(1 - reach, 0)), 0.62 * muscle)
    streaks = 1 + 0.025 * geometry.grain(
        1, film.frame @ half, region, 1.5, rng.uniform(0, 512, 2)
    ) * np.minimum(muscle / 40, 1)
    total = MUSCLE * (muscle * streaks - 0.85 * lung + skin - fat) + FAT * (fat - muscle)
    total = cv2.GaussianBlur(total, (0, 0), 0.8)
    matrix = np.array([[0.5, 0, 0], [0, 0.5, 0]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    film.total += cv2.warpAffine(
        total, matrix, film.total.shape[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE
    )


def join(a: Array, b: Array) -> Array:
    """The thickness of two bodies that merge without a seam."""
    a, b = a * a, b * b
    return np.sqrt(np.sqrt(a * a + b * b))


def bones(
    film: geometry.Film, group: anatomy.Bones, frame: Array, origin: Array, strength: float = 1.0
) -> None:
    """Bodies without a finding that have grown together: where they overlap, no seam shows."""
    placed = [
        (body, geometry.rotation(np.radians(degrees), s, t) @ frame)
        for body, (s, t, degrees) in group
    ]
    corners = np.concatenate([geometry.pixels(body.corners(), place) for body, place in placed])
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
        filling *= 1 + 0.15 * geometry.grain(0, frame, region, 2.8, origin)
    film.total[region] += strength * ((CORTEX - MUSCLE) * (outer - inner) + filling)


def landmarks_of_head(film: geometry.Film, build: anatomy.Build, turn: float, frame: Array) -> None:
    """Lines inside the head: the growth plate, a bright scar or, in the young, dark and open; the groove of the biceps."""
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


def fossa_of_elbow(film: geometry.Film, build: anatomy.Build, turn: float, frame: Array) -> None:
    """The thin place above the trochlea, dark from the front."""
    face, end = float(np.cos(turn)), build.length
    region = film.region(
        np.array([(end + a, b) for a in (-60.0, -5.0) for b in (-24.0, 28.0)]), frame
    )
    s, t = geometry.coordinates(frame, *region)
    hollow = np.exp(-np.square((s - end + 31) / 9) - np.square((t - 2) / 9))
    film.total[region] += (-0.24 * face * face * hollow).astype(np.float32)


def humerus_bone(
    film: geometry.Film,
    build: anatomy.Build,
    body: geometry.Body,
    turn: float,
    pieces: Sequence[Piece],
    origin: Array,
) -> None:
    """The humerus, whole or in pieces; the first piece holds the head and the second, if any, the elbow's end."""
    filling = anatomy.spongiosa(build)
    for piece in pieces:
        corners = body.corners()
        corners[:, 0] = np.clip(corners[:, 0], piece.first - 2, piece.last + 2)
        region = film.region(corners, piece.frame)
        s, t = geometry.coordinates(piece.frame, *region)
        if not s.size:
            continue
        outer, inner = body.path(s, t)
        grains = geometry.grain(0, piece.frame, region, 2.8, origin)
        share = filling.take(body.rows(s), mode="clip") * (1 + 0.15 * grains)
        bone = (CORTEX - MUSCLE) * (outer - inner) * (1 + 0.025 * grains)
        bone += (MARROW - MUSCLE + share * (SPONGIOSA - MARROW)) * inner
        film.total[region] += bone if piece.share is None else bone * piece.share(s, t, outer)
    landmarks_of_head(film, build, turn, pieces[0].frame)
    fossa_of_elbow(film, build, turn, pieces[min(1, len(pieces) - 1)].frame)


def forearm(
    film: geometry.Film,
    build: anatomy.Build,
    turn: float,
    flexion: float,
    frame: Array,
    origin: Array,
) -> None:
    """Ulna and radius, bent at the elbow by `flexion` radians; `frame` is that of the piece of humerus they meet."""
    elbow = geometry.rotation(flexion, build.length - 9, 0.0) @ frame
    for group in anatomy.forearm_bones(abs(np.sin(turn)) > 0.5):
        bones(film, group, elbow, origin, 0.85)


def shoulder(film: geometry.Film, frame: Array, origin: Array) -> None:
    """Scapula, clavicle and ribs; `frame` maps px to the trunk."""
    for index, group in enumerate(anatomy.shoulder_bones()):
        bones(film, group, frame, origin, (0.8, 0.9)[index] if index < 2 else 0.55)
