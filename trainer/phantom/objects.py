"""Draw hardware and casts of positive studies, and the clutter of both labels."""

import cv2
import numpy as np

from trainer.phantom import anatomy, geometry, tissue
from trainer.phantom.geometry import Array


class Ink:
    """Draws dense objects as polygons in mm; each adds `attenuation` where it lies.

    `points` collects the corners of all polygons in px.
    """

    def __init__(self, film: geometry.Film, frame: Array) -> None:
        self.film, self.frame = film, frame
        self.points: list[Array] = []

    def fill(self, outline: Array, attenuation: float) -> None:
        """Add a filled polygon [n, 2] of (s, t) mm."""
        points = geometry.to_pixels(outline, self.frame)
        self.points.append(points)
        low = np.maximum(np.floor(points.min(axis=0)).astype(int) - 2, 0)
        high = np.minimum(np.ceil(points.max(axis=0)).astype(int) + 3, self.film.total.shape[::-1])
        if (high <= low).any():
            return
        mask = np.zeros((high - low)[::-1], np.uint8)
        cv2.fillPoly(mask, [np.round((points - low) * 256).astype(np.int32)], 255, cv2.LINE_AA, 8)
        self.film.total[low[1] : high[1], low[0] : high[0]] += mask * np.float32(attenuation / 255)

    def bar(
        self, start: tuple[float, float], end: tuple[float, float], width: float, attenuation: float
    ) -> None:
        """Add a straight bar with rounded ends."""
        a, b = np.array(start), np.array(end)
        along = (b - a) / max(np.hypot(*(b - a)), 1e-6)
        turn = np.linspace(-np.pi / 2, np.pi / 2, 8)
        arc = np.stack([np.cos(turn), np.sin(turn)], 1) * width / 2
        basis = np.stack([along, [-along[1], along[0]]])
        self.fill(np.concatenate([b + arc @ basis, a - arc @ basis]), attenuation)

    def disc(self, centre: tuple[float, float], radius: float, attenuation: float) -> None:
        """Add a round disc."""
        turn = np.linspace(0, 2 * np.pi, 25)[:-1]
        self.fill(
            np.array(centre) + radius * np.stack([np.cos(turn), np.sin(turn)], 1), attenuation
        )


def draw_screw(ink: Ink, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draw core, thread and head of a cortical screw; `start` is the head."""
    a, b = np.array(start), np.array(end)
    length = float(np.hypot(*(b - a)))
    ink.disc(start, 3.2, 2.0)
    ink.bar(start, end, 2.3, 2.4)
    for place in np.arange(2.0, length - 1, 1.7):
        middle = a + (b - a) * place / max(length, 1e-6)
        normal = np.array([-(b - a)[1], (b - a)[0]]) / max(length, 1e-6) * 1.85
        ink.bar(tuple(middle - normal), tuple(middle + normal), 0.7, 0.9)


def draw_plate(
    ink: Ink,
    build: anatomy.Build,
    body: geometry.Body,
    site: float,
    turn: float,
    rng: np.random.Generator,
) -> None:
    """Draw a plate with screws on the shaft, edge-on, en face, or between."""
    length = rng.uniform(75, 150)
    middle = site + rng.uniform(-20, 20)
    first, last = max(middle - length / 2, 12), min(middle + length / 2, build.length - 14)
    azimuth = turn + rng.choice([0.0, np.pi]) + np.radians(rng.normal(70, 25))
    across, face = float(np.sin(azimuth)), abs(float(np.cos(azimuth)))
    s = np.linspace(first, last, 60)
    row = body.rows(s)
    middle_line = (body.left[row] + body.right[row]) / 2
    skin = middle_line + across * ((body.right[row] - body.left[row]) / 2 + 1.8)
    surface = np.polyval(np.polyfit(s, skin, 3), s)  # a plate is bent less sharply than a bone
    ends = np.sqrt(np.clip(np.minimum(s - first, last - s) / 5, 0.05, 1))
    half = (1.9 * abs(across) + 6.2 * face) * (face * ends + 1 - face)
    outline = np.concatenate(
        [np.stack([s, surface - half], 1), np.stack([s, surface + half], 1)[::-1]]
    )
    ink.fill(outline, 1.5 + 1.7 * abs(across))
    spacing = rng.uniform(11, 15)
    for place in np.arange(first + 7, last - 4, spacing):
        at = float(np.interp(place, s, surface))
        hole = np.array(
            [(-3.6, 0), (-2.4, 2.2), (2.4, 2.2), (3.6, 0), (2.4, -2.2), (-2.4, -2.2)]
        ) * (1, max(face, 0.15))
        ink.fill(hole + np.array([place, at]), -1.3 * face)
        if abs(place - site) < 7 or rng.random() < 0.15:
            continue
        depth = float(np.interp(place, s, body.right[row] - body.left[row])) + 4
        lean = rng.normal(0, 0.06) * depth
        draw_screw(ink, (place, at), (place + lean, at - across * depth))


def draw_nail(
    ink: Ink,
    build: anatomy.Build,
    body: geometry.Body,
    site: float,
    turn: float,
    rng: np.random.Generator,
) -> None:
    """Draw a nail inside the canal, locked by screws at its ends."""
    first, last = rng.uniform(3, 12), rng.uniform(0.78, 0.87) * build.length
    radius = rng.uniform(3.6, 4.6)
    s = np.linspace(first, last, 24)
    row = body.rows(s)
    line = np.where(s < 60, -1.0 - 0.05 * (60 - s), (body.left[row] + body.right[row]) / 2)
    line = np.polyval(np.polyfit(s, line, 4), s)
    half = radius * np.where(s < 45, 1.15, 1.0)
    ink.fill(
        np.concatenate([np.stack([s, line - half], 1), np.stack([s, line + half], 1)[::-1]]), 3.2
    )
    for place in (
        *(first + np.sort(rng.uniform(8, 34, rng.integers(1, 4)))),
        *(last - rng.uniform(5, 26, rng.integers(1, 3))),
    ):
        if rng.random() < 0.25:
            ink.disc((place, float(np.interp(place, s, line))), 2.4, 1.2)
            continue
        wall = int(body.rows(np.array(place)))
        draw_screw(
            ink, (place - 2, float(body.left[wall]) - 1.5), (place + 3, float(body.right[wall]) + 1)
        )


def draw_pins(
    ink: Ink,
    build: anatomy.Build,
    body: geometry.Body,
    site: float,
    turn: float,
    rng: np.random.Generator,
) -> None:
    """Draw two to four wires that cross each other at the site."""
    for index in range(rng.integers(2, 5)):
        length, angle = rng.uniform(55, 95), np.radians(rng.uniform(12, 32)) * (-1) ** index
        centre = np.array([site + rng.uniform(-8, 8), rng.uniform(-4, 4)])
        reach = length / 2 * np.array([np.cos(angle), np.sin(angle)])
        ink.bar(tuple(centre - reach), tuple(centre + reach), rng.uniform(2.0, 3.2), 3.2)


HARDWARE = {"plate": draw_plate, "nail": draw_nail, "pins": draw_pins}


def draw_cast(
    film: geometry.Film, build: anatomy.Build, site: float, bend: Array, rng: np.random.Generator
) -> Array:
    """Draw a plaster shell around the arm; return its outline [n, 2] px.

    The plaster has a coarse texture of its own and soft ends.
    """
    region = slice(0, film.total.shape[0]), slice(0, film.total.shape[1])
    s, t = geometry.coordinates(film.frame, *region)
    body = anatomy.make_arm(build, bend)
    outside, inside = body.thickness(s, t, (-8.0, -2.0))
    first, last = site - rng.uniform(70, 120), site + rng.uniform(70, 120)
    ends = geometry.ramp(s - first, 6) * geometry.ramp(last - s, 6)
    layers = 1 + 0.12 * geometry.sample_grain(1, film.frame, region, 3.0, rng.uniform(0, 512, 2))
    film.total += tissue.PLASTER * np.minimum(outside - inside, 45) * ends * layers
    along = np.linspace(first - 3, last + 3, 20)
    edges = [
        np.interp(along, body.start + geometry.STEP * np.arange(len(side)), side)
        for side in (body.left - 8, body.right + 8)
    ]
    return np.concatenate(
        [geometry.to_pixels(np.stack([along, edge], 1), film.frame) for edge in edges]
    )


def draw_clutter(film: geometry.Film, build: anatomy.Build, rng: np.random.Generator) -> None:
    """Draw what a reader must ignore, in images of either label.

    These are vascular canals, skin folds, wires, buttons, zips and jewellery.
    """
    ink = Ink(film, film.frame)
    if rng.random() < 0.35:
        s, side = rng.uniform(0.35, 0.6) * build.length, rng.choice([-1, 1])
        end = s + rng.uniform(12, 22), side * rng.uniform(0, 5)
        ink.bar((s, side * rng.uniform(5, 9)), end, rng.uniform(0.8, 1.3), -0.13)
    for _ in range(rng.poisson(0.6)):
        draw_skin_fold(film, build, rng)
    if rng.random() < 0.14:
        draw_wire(ink, build, rng)
    if rng.random() < 0.12:
        for index in range(rng.integers(1, 4)):
            at = (rng.uniform(-10, build.length), rng.uniform(-60, 75))
            ink.disc(at, 4.5 + index, 0.9)
            ink.disc(at, 2.0, rng.choice([-0.8, 0.6]))
    if rng.random() < 0.1:
        start, slope, off = (
            rng.uniform(-20, 0.5 * build.length),
            rng.normal(0, 0.15),
            rng.uniform(-45, 70),
        )
        for step in np.arange(0, rng.uniform(60, 160), 3.2):
            ink.bar(
                (start + step, off + slope * step - 2),
                (start + step, off + slope * step + 2),
                1.6,
                1.6,
            )
    if rng.random() < 0.06:
        turn = np.linspace(0, np.pi, rng.integers(16, 34))
        for s, t in zip(-15 + 30 * np.sin(turn), 75 - 60 * np.cos(turn), strict=True):
            ink.disc((float(s), float(t)), 1.3, 1.6)


def draw_skin_fold(film: geometry.Film, build: anatomy.Build, rng: np.random.Generator) -> None:
    """Draw a fold of skin: a soft edge, denser on one side."""
    s0, t0 = rng.uniform(0, build.length), rng.uniform(-30, 30)
    angle = rng.uniform(-0.6, 0.6) + rng.choice([0.0, np.pi / 2])
    region = slice(0, film.total.shape[0]), slice(0, film.total.shape[1])
    s, t = geometry.coordinates(geometry.rotation(angle, s0, t0) @ film.frame, *region)
    edge = t + 0.004 * s * s
    height = rng.uniform(0.04, 0.12) * np.exp(-np.square(s / rng.uniform(20, 50)))
    step = (height * geometry.ramp(edge, 1.2) * np.exp(-np.maximum(edge, 0) / 7)).astype(np.float32)
    film.total += step * (film.total > 0.15)


def draw_wire(ink: Ink, build: anatomy.Build, rng: np.random.Generator) -> None:
    """Draw a monitoring lead: a thin curve to an electrode."""
    s = np.linspace(-40, rng.uniform(60, build.length), 40)
    t = (
        rng.uniform(-20, 70)
        + rng.normal(0, 0.2) * s
        + rng.uniform(5, 18) * np.sin(s / rng.uniform(25, 60) + rng.uniform(0, 6))
    )
    normal = 0.5 * rng.uniform(1.0, 1.8)
    ink.fill(
        np.concatenate([np.stack([s, t - normal], 1), np.stack([s, t + normal], 1)[::-1]]), 1.4
    )
    ink.disc((float(s[-1]), float(t[-1])), 4.0, 1.5)
