"""Simulated radiographs of the upper arm in the layout of MURA: a demo and a test bed, never patients.

X-rays are attenuated along their paths through the bodies of `trainer.phantom_anatomy` (Beer-Lambert), scattered, counted
with quantum noise, blurred by the detector, collimated, marked, and shown through a contrast curve. Every image is a pure
function of (seed, patient, study, image), so any number of patients, in any order, gives the same bytes as long as NumPy,
SciPy and OpenCV stay the same.
"""

import concurrent.futures
import dataclasses
import functools
import json
import pathlib
import shutil
import sys
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import tqdm
from absl import logging

from trainer import phantom_anatomy as anatomy
from trainer.errors import ConfigError

VERSION = "1"
ROOT = "MURA-v1.1"
OVERSAMPLING = 1.25  # the attenuation is drawn this much finer than the image, then averaged

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Finding:
    """What makes a study positive, and where: box = (x, y, width, height) in pixels."""

    kind: str
    box: tuple[int, int, int, int]


@dataclasses.dataclass(frozen=True)
class View:
    """One radiograph: pixels uint8 [height, width], bone bright; `colour` says whether its file has three equal channels."""

    pixels: Array
    colour: bool
    label: int
    findings: tuple[Finding, ...]


@dataclasses.dataclass(frozen=True)
class Study:
    """One visit: label 0 or 1, number of images, and the place `site` mm along the humerus that the views look at."""

    label: int
    images: int
    site: float


@dataclasses.dataclass(frozen=True)
class Pose:
    """How one image was taken: size in pixels, angles, and `frame` [3, 3] from (x, y, 1) px to (s, t, 1) mm of the arm."""

    height: int
    width: int
    turn: float  # radians about the humerus: 0 from the front, pi / 2 from the side
    abduction: float  # radians between humerus and trunk
    flexion: float  # radians of the elbow in the image plane
    frame: Array


@dataclasses.dataclass(frozen=True)
class Fracture:
    """A break across the shaft in the plane of the image: lengths in mm, angles in radians."""

    site: float
    slope: float  # mm along the shaft per mm across: 0 is transverse
    skew: float  # the same from front to back: a spiral shows two lines
    gap: float
    shift: float  # of the distal fragment, across
    shorten: float  # of the distal fragment, towards the head
    angle: float
    wedge: float  # length of a butterfly fragment, 0 without
    wedge_out: float  # how far that fragment has moved
    callus: float  # 0 to 1
    teeth: Array  # float32 [161]: roughness in mm of the broken edge, each 0.5 mm across from -40


def stream(*key: int) -> np.random.Generator:
    """Random numbers that depend on nothing but the key (purpose, seed, patient, ...)."""
    return np.random.default_rng(key)


PLAN, BUILD, FINDING, REPAIR, POSE, EXTRAS, NOISE = range(1, 8)


# ---- What exists -------------------------------------------------------------------------------------------------


def split(patient: int) -> str:
    """Two patients of eleven are kept for the official validation set, whatever the number of patients."""
    return "valid" if patient % 11 in (3, 8) else "train"


def studies(seed: int, patient: int) -> tuple[anatomy.Build, tuple[Study, ...]]:
    """The patient's body and studies."""
    rng = stream(PLAN, seed, patient)
    build = anatomy.sample_build(stream(BUILD, seed, patient))
    plan = []
    for _ in range(rng.choice(3, p=[0.87, 0.1, 0.03]) + 1):
        images = int(rng.choice(4, p=[0.2, 0.5, 0.22, 0.08])) + 1
        region = rng.choice(3, p=[0.3, 0.5, 0.2])
        low, high = ((0.15, 0.24), (0.28, 0.72), (0.74, 0.86))[region]
        plan.append(Study(int(rng.random() < 0.47), images, float(rng.uniform(low, high) * build.length)))
    return build, tuple(plan)


def sample_pose(rng: np.random.Generator, build: anatomy.Build, study: Study, image: int) -> Pose:
    """Where the tube, the arm and the detector stand. It knows the site, which every study has, but not the label."""
    side = rng.random() < (0.06, 0.85, 0.3, 0.5)[image]
    turn = np.radians(rng.normal(80, 9) if side else rng.normal(0, 12))
    whole = rng.random() < 0.22
    field = rng.uniform(1.05, 1.3) * build.length if whole else rng.uniform(145, 235)
    middle = build.length * rng.uniform(0.42, 0.58) if whole else study.site + rng.uniform(-0.26, 0.26) * field
    middle = np.clip(middle, 0.42 * field - 30, build.length + 35 - 0.42 * field)
    lean = rng.choice(3, p=[0.86, 0.09, 0.05])
    tilt = np.radians(rng.normal(0, 9) if lean == 0 else rng.choice([-1, 1]) * rng.uniform(20, 55))
    if lean == 2:
        tilt = np.radians(rng.choice([-90, 90]) + rng.normal(0, 8))
    long = 512 if rng.random() < 0.86 else int(rng.integers(300, 512))
    short = int(np.clip(long * rng.uniform(0.38, 0.92), 164, 512)) if lean != 1 else int(long * rng.uniform(0.7, 1.0))
    height, width = (short, long) if lean == 2 else (long, short)
    pixel = field / long
    across = rng.uniform(-0.18, 0.18) * short * pixel + (10 if middle < 0.4 * build.length else 0)
    flip = np.diag([rng.choice([-1.0, 1.0]), 1, 1])
    centred = np.array([[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1.0]])
    swap = np.array([[0, pixel, 0], [pixel, 0, 0], [0, 0, 1.0]])  # s runs down the image, t to the right
    to_arm = np.array([[1, 0, middle], [0, 1, across], [0, 0, 1.0]])
    frame = to_arm @ anatomy.rotation(tilt) @ swap @ flip @ centred
    site = anatomy.pixels(np.array([(study.site, 0.0)]), frame)[0]
    move = site - np.clip(site, (0.22 * width, 0.18 * height), (0.78 * width, 0.82 * height))  # never at the edge
    frame = frame @ np.array([[1, 0, move[0]], [0, 1, move[1]], [0, 0, 1.0]])
    abduction = np.radians(rng.uniform(45, 85) if side else np.clip(rng.normal(16, 12), 3, 70))
    flexion = np.radians(rng.uniform(35, 95) if side else rng.normal(4, 4))
    return Pose(height, width, float(turn), float(abduction), float(flexion), frame)


def sample_fracture(rng: np.random.Generator, build: anatomy.Build, study: Study, turn: float) -> Fracture:
    """The study's fracture as this view sees it: what is hidden from the front shows from the side, in part."""
    kind = rng.choice(4, p=[0.3, 0.3, 0.18, 0.22])  # transverse, oblique, spiral, comminuted
    slope = (rng.uniform(0, 0.25), rng.uniform(0.5, 1.3), rng.uniform(0.6, 1.3), rng.uniform(0.1, 0.8))[kind]
    skew = (rng.uniform(0, 0.15), rng.uniform(0, 0.4), rng.uniform(0.7, 1.5), rng.uniform(0, 0.4))[kind]
    severity = rng.uniform(0.1, 0.4) if rng.random() < 0.1 else rng.uniform(0.55, 1.0)
    azimuth = rng.uniform(-1, 1) * np.pi
    seen = float(np.cos(azimuth - turn))
    seen = np.sign(seen) * (0.6 + 0.4 * abs(seen))
    narrow = 1.0 if 75 < study.site < build.length - 65 else 0.4  # wide bone breaks across more than along
    teeth = anatomy.gaussian_filter1d(rng.normal(0, 1, 161), 2.2)
    return Fracture(
        site=study.site,
        slope=float(narrow * slope * rng.choice([-1, 1])),
        skew=float(narrow * skew * rng.choice([-1, 1])),
        gap=float(1.6 + 3.6 * severity * rng.random()),
        shift=float(seen * severity * rng.uniform(6, 19)),
        shorten=float(severity * rng.uniform(-3, 9)),
        angle=float(seen * severity * np.radians(rng.uniform(5, 34))),
        wedge=float(rng.uniform(22, 48)) if kind == 3 else 0.0,
        wedge_out=float(rng.uniform(3, 11)),
        callus=float(rng.uniform(0.3, 1.0)) if rng.random() < 0.2 else 0.0,
        teeth=(teeth / teeth.std() * rng.uniform(0.3, 1.0)).astype(np.float32),
    )


@dataclasses.dataclass(frozen=True)
class Case:
    """What is wrong in one view: any of a fracture, hardware ("plate", "nail", "pins" or "") and a cast."""

    hardware: str
    fracture: Fracture | None
    cast: bool


def sample_case(rng: np.random.Generator, build: anatomy.Build, study: Study, turn: float) -> Case:
    """Fractures in 55 % of the positives, one in ten in a cast; hardware in the others, half of them over a set fracture."""
    hardware = str(rng.choice(["", "plate", "nail", "pins"], p=[0.55, 0.22, 0.14, 0.09]))
    set_fracture, in_cast = rng.random() < 0.5, rng.random() < 0.1
    fracture = sample_fracture(rng, build, study, turn)
    if not hardware:
        return Case("", fracture, bool(in_cast))
    small = dataclasses.replace(fracture, shift=0.0, angle=0.0, shorten=0.0, gap=0.9)
    return Case(hardware, small if set_fracture else None, False)


# ---- Attenuation -------------------------------------------------------------------------------------------------


def fragment(fracture: Fracture, piece: int, s: Array, t: Array, thickness: Array) -> Array:
    """float32 [h, w]: the share of a ray's bone that belongs to a piece (0 proximal, 1 distal, 2 butterfly), 0 to 1."""
    teeth = fracture.teeth[np.clip((t + 40) * 2, 0, 160).astype(np.int32)]
    edge = s - fracture.site - fracture.slope * t - teeth
    depth, gap = 0.5 * fracture.skew * thickness, 0.5 * fracture.gap
    if piece == 0:
        return 0.5 * (anatomy.ramp(-edge + depth - gap, 0.8) + anatomy.ramp(-edge - depth - gap, 0.8))
    side = t if fracture.slope > 0 else -t
    taper = 24 * (s - fracture.site) / max(fracture.wedge, 1) - 11
    wedge = anatomy.ramp(side - taper + teeth, 0.8) if fracture.wedge else np.float32(0)
    if piece == 1:
        return 0.5 * (anatomy.ramp(edge - depth - gap, 0.8) + anatomy.ramp(edge + depth - gap, 0.8)) * (1 - wedge)
    return anatomy.ramp(edge - gap, 0.8) * wedge


def reach_of(body: anatomy.Body, fracture: Fracture) -> tuple[float, float]:
    """How far the break extends from its site, in mm along the shaft and to either side.

    On a round bone of half width w it runs through slope * t + skew * sqrt(w^2 - t^2), at most w * hypot(slope, skew).
    """
    rows = np.clip(body.rows(fracture.site + np.linspace(-30, 30, 61)), 0, len(body.left) - 1)
    half = float(max(-body.left[rows].min(), body.right[rows].max()))
    return half * float(np.hypot(fracture.slope, fracture.skew)) + fracture.gap / 2 + 3, half + 2


def pieces_of(body: anatomy.Body, fracture: Fracture | None, frame: Array) -> list[anatomy.Piece]:
    """The whole humerus, or its proximal, distal and butterfly fragments where they have moved to."""
    if fracture is None:
        return [anatomy.Piece(frame, 0.0, body.end)]
    site, out = fracture.site, fracture.wedge_out if fracture.slope > 0 else -fracture.wedge_out
    home = np.array([[1, 0, site], [0, 1, 0], [0, 0, 1.0]])
    distal = home @ anatomy.rotation(fracture.angle, site - fracture.shorten, fracture.shift) @ frame
    loose = home @ anatomy.rotation(0.6 * fracture.angle + 0.02 * out, site, out) @ frame
    reach = reach_of(body, fracture)[0] + 3
    spans = [
        (frame, 0.0, site + reach),
        (distal, site - reach, body.end),
        (loose, site - reach, site + fracture.wedge + reach),
    ]
    shares = [functools.partial(fragment, fracture, piece) for piece in range(3)]
    return [anatomy.Piece(*span, share) for span, share in zip(spans, shares, strict=True)][: 3 if fracture.wedge else 2]


def bend_of(build: anatomy.Build, fracture: Fracture | None) -> Array:
    """float32 [n] in mm: how the arm's soft tissue follows the distal fragment, on the table of `anatomy.arm`."""
    s = np.arange(-30.0, build.length + 110.0 + anatomy.STEP / 2, anatomy.STEP)
    if fracture is None:
        return np.zeros(len(s), np.float32)
    beyond = np.logaddexp(0, (s - fracture.site) / 14) * 14
    return (np.tan(fracture.angle) * beyond + fracture.shift * anatomy.ramp(s - fracture.site, 60)).astype(np.float32)


def callus(film: anatomy.Film, body: anatomy.Body, fracture: Fracture, origin: Array) -> None:
    """A cuff of young bone around the break."""
    corners = np.array([(fracture.site + a, b) for a in (-45, 45) for b in (-40, 40)])
    region = film.region(corners, film.frame)
    s, t = anatomy.coordinates(film.frame, *region)
    row = body.rows(np.array(fracture.site))
    left, right = float(body.left[row]), float(body.right[row])
    along = np.exp(-np.square((s - fracture.site) / (9 + 7 * fracture.callus)))
    radius = (right - left) / 2 + 5.5 * fracture.callus * along
    offset = t - (left + right + fracture.shift) / 2
    cuff = anatomy.chord(np.square(radius) - np.square(offset)) * along
    cuff *= 0.75 + 0.25 * anatomy.grain(0, film.frame, region, 0.9, origin)
    film.total[region] += 0.030 * fracture.callus * cuff


# ---- Metal, plaster and what else lies in the beam ----------------------------------------------------------------


class Ink:
    """Dense things drawn as polygons in millimetres: each adds `attenuation` where it lies; `points` px remember their place."""

    def __init__(self, film: anatomy.Film, frame: Array) -> None:
        self.film, self.frame = film, frame
        self.points: list[Array] = []

    def fill(self, outline: Array, attenuation: float) -> None:
        """Add a filled polygon [n, 2] of (s, t) mm."""
        points = anatomy.pixels(outline, self.frame)
        self.points.append(points)
        low = np.maximum(np.floor(points.min(axis=0)).astype(int) - 2, 0)
        high = np.minimum(np.ceil(points.max(axis=0)).astype(int) + 3, self.film.total.shape[::-1])
        if (high <= low).any():
            return
        mask = np.zeros((high - low)[::-1], np.uint8)
        cv2.fillPoly(mask, [np.round((points - low) * 256).astype(np.int32)], 255, cv2.LINE_AA, 8)
        self.film.total[low[1] : high[1], low[0] : high[0]] += mask * np.float32(attenuation / 255)

    def bar(self, start: tuple[float, float], end: tuple[float, float], width: float, attenuation: float) -> None:
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
        self.fill(np.array(centre) + radius * np.stack([np.cos(turn), np.sin(turn)], 1), attenuation)


def screw(ink: Ink, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Core, thread and head of a cortical screw; `start` is the head."""
    a, b = np.array(start), np.array(end)
    length = float(np.hypot(*(b - a)))
    ink.disc(start, 3.2, 2.0)
    ink.bar(start, end, 2.3, 2.4)
    for place in np.arange(2.0, length - 1, 1.7):
        middle = a + (b - a) * place / max(length, 1e-6)
        normal = np.array([-(b - a)[1], (b - a)[0]]) / max(length, 1e-6) * 1.85
        ink.bar(tuple(middle - normal), tuple(middle + normal), 0.7, 0.9)


def fix_plate(ink: Ink, build: anatomy.Build, body: anatomy.Body, site: float, turn: float, rng: np.random.Generator) -> None:
    """A plate with screws on the shaft, edge on, en face, or between."""
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
    outline = np.concatenate([np.stack([s, surface - half], 1), np.stack([s, surface + half], 1)[::-1]])
    ink.fill(outline, 1.5 + 1.7 * abs(across))
    spacing = rng.uniform(11, 15)
    for place in np.arange(first + 7, last - 4, spacing):
        at = float(np.interp(place, s, surface))
        hole = np.array([(-3.6, 0), (-2.4, 2.2), (2.4, 2.2), (3.6, 0), (2.4, -2.2), (-2.4, -2.2)]) * (1, max(face, 0.15))
        ink.fill(hole + np.array([place, at]), -1.3 * face)
        if abs(place - site) < 7 or rng.random() < 0.15:
            continue
        depth = float(np.interp(place, s, body.right[row] - body.left[row])) + 4
        lean = rng.normal(0, 0.06) * depth
        screw(ink, (place, at), (place + lean, at - across * depth))


def fix_nail(ink: Ink, build: anatomy.Build, body: anatomy.Body, site: float, turn: float, rng: np.random.Generator) -> None:
    """A nail inside the canal, locked by screws at its ends."""
    first, last = rng.uniform(3, 12), rng.uniform(0.78, 0.87) * build.length
    radius = rng.uniform(3.6, 4.6)
    s = np.linspace(first, last, 24)
    row = body.rows(s)
    line = np.where(s < 60, -1.0 - 0.05 * (60 - s), (body.left[row] + body.right[row]) / 2)
    line = np.polyval(np.polyfit(s, line, 4), s)
    half = radius * np.where(s < 45, 1.15, 1.0)
    ink.fill(np.concatenate([np.stack([s, line - half], 1), np.stack([s, line + half], 1)[::-1]]), 3.2)
    for place in (*(first + np.sort(rng.uniform(8, 34, rng.integers(1, 4)))), *(last - rng.uniform(5, 26, rng.integers(1, 3)))):
        if rng.random() < 0.25:
            ink.disc((place, float(np.interp(place, s, line))), 2.4, 1.2)
            continue
        wall = int(body.rows(np.array(place)))
        screw(ink, (place - 2, float(body.left[wall]) - 1.5), (place + 3, float(body.right[wall]) + 1))


def fix_pins(ink: Ink, build: anatomy.Build, body: anatomy.Body, site: float, turn: float, rng: np.random.Generator) -> None:
    """Two to four wires across the site, crossing."""
    for index in range(rng.integers(2, 5)):
        length, angle = rng.uniform(55, 95), np.radians(rng.uniform(12, 32)) * (-1) ** index
        centre = np.array([site + rng.uniform(-8, 8), rng.uniform(-4, 4)])
        reach = length / 2 * np.array([np.cos(angle), np.sin(angle)])
        ink.bar(tuple(centre - reach), tuple(centre + reach), rng.uniform(2.0, 3.2), 3.2)


def cast(film: anatomy.Film, build: anatomy.Build, site: float, bend: Array, rng: np.random.Generator) -> Array:
    """A plaster shell around the arm, with its own coarse texture and soft ends; returns its outline [n, 2] px."""
    region = slice(0, film.total.shape[0]), slice(0, film.total.shape[1])
    s, t = anatomy.coordinates(film.frame, *region)
    body = anatomy.arm(build, bend)
    outside, inside = body.thickness(s, t, (-8.0, -2.0))
    first, last = site - rng.uniform(70, 120), site + rng.uniform(70, 120)
    ends = anatomy.ramp(s - first, 6) * anatomy.ramp(last - s, 6)
    layers = 1 + 0.12 * anatomy.grain(1, film.frame, region, 3.0, rng.uniform(0, 512, 2))
    film.total += anatomy.PLASTER * np.minimum(outside - inside, 45) * ends * layers
    along = np.linspace(first - 3, last + 3, 20)
    edges = [
        np.interp(along, body.start + anatomy.STEP * np.arange(len(side)), side) for side in (body.left - 8, body.right + 8)
    ]
    return np.concatenate([anatomy.pixels(np.stack([along, edge], 1), film.frame) for edge in edges])


HARDWARE = {"plate": fix_plate, "nail": fix_nail, "pins": fix_pins}


def innocent(film: anatomy.Film, build: anatomy.Build, rng: np.random.Generator) -> None:
    """What a reader must look past, in images of either label: vessels' canals, folds, wires, buttons, zips, jewellery."""
    ink = Ink(film, film.frame)
    if rng.random() < 0.35:
        s, side = rng.uniform(0.35, 0.6) * build.length, rng.choice([-1, 1])
        end = s + rng.uniform(12, 22), side * rng.uniform(0, 5)
        ink.bar((s, side * rng.uniform(5, 9)), end, rng.uniform(0.8, 1.3), -0.13)
    for _ in range(rng.poisson(0.6)):
        fold(film, build, rng)
    if rng.random() < 0.14:
        wire(ink, build, rng)
    if rng.random() < 0.12:
        for index in range(rng.integers(1, 4)):
            at = (rng.uniform(-10, build.length), rng.uniform(-60, 75))
            ink.disc(at, 4.5 + index, 0.9)
            ink.disc(at, 2.0, rng.choice([-0.8, 0.6]))
    if rng.random() < 0.1:
        start, slope, off = rng.uniform(-20, 0.5 * build.length), rng.normal(0, 0.15), rng.uniform(-45, 70)
        for step in np.arange(0, rng.uniform(60, 160), 3.2):
            ink.bar((start + step, off + slope * step - 2), (start + step, off + slope * step + 2), 1.6, 1.6)
    if rng.random() < 0.06:
        turn = np.linspace(0, np.pi, rng.integers(16, 34))
        for s, t in zip(-15 + 30 * np.sin(turn), 75 - 60 * np.cos(turn), strict=True):
            ink.disc((float(s), float(t)), 1.3, 1.6)


def fold(film: anatomy.Film, build: anatomy.Build, rng: np.random.Generator) -> None:
    """A fold of skin: a soft edge, denser on one side."""
    s0, t0 = rng.uniform(0, build.length), rng.uniform(-30, 30)
    angle = rng.uniform(-0.6, 0.6) + rng.choice([0.0, np.pi / 2])
    region = slice(0, film.total.shape[0]), slice(0, film.total.shape[1])
    s, t = anatomy.coordinates(anatomy.rotation(angle, s0, t0) @ film.frame, *region)
    edge = t + 0.004 * s * s
    height = rng.uniform(0.04, 0.12) * np.exp(-np.square(s / rng.uniform(20, 50)))
    film.total += (height * anatomy.ramp(edge, 1.2) * np.exp(-np.maximum(edge, 0) / 7)).astype(np.float32) * (film.total > 0.15)


def wire(ink: Ink, build: anatomy.Build, rng: np.random.Generator) -> None:
    """A monitoring lead: a thin curve to an electrode."""
    s = np.linspace(-40, rng.uniform(60, build.length), 40)
    t = rng.uniform(-20, 70) + rng.normal(0, 0.2) * s + rng.uniform(5, 18) * np.sin(s / rng.uniform(25, 60) + rng.uniform(0, 6))
    normal = 0.5 * rng.uniform(1.0, 1.8)
    ink.fill(np.concatenate([np.stack([s, t - normal], 1), np.stack([s, t + normal], 1)[::-1]]), 1.4)
    ink.disc((float(s[-1]), float(t[-1])), 4.0, 1.5)


# ---- From attenuation to a picture ----------------------------------------------------------------------------------


def transmitted(attenuation: Array) -> Array:
    """Beer-Lambert: the share of the photons that pass, for the sum of coefficient times path length."""
    return np.exp(-attenuation)


def expose(film: anatomy.Film, pose: Pose, rng: np.random.Generator, noise: np.random.Generator) -> Array:
    """Log exposure float32 [height, width]: beam profile, scatter, detector blur, quantum noise."""
    image = transmitted(np.minimum(np.maximum(film.total, 0), 9))
    small = cv2.resize(image, None, fx=1 / 12, fy=1 / 12, interpolation=cv2.INTER_AREA)
    scatter = cv2.GaussianBlur(np.minimum(small, 0.5), (0, 0), rng.uniform(5, 8), borderType=cv2.BORDER_REPLICATE)
    sharp = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.6, 1.1))
    size = (pose.width, pose.height)
    haze = rng.uniform(0.10, 0.35) * cv2.resize(scatter, size, interpolation=cv2.INTER_CUBIC)
    image = np.add(cv2.resize(sharp, size, interpolation=cv2.INTER_AREA), haze)
    heel, direction = rng.uniform(0, 0.25), rng.uniform(0, 2 * np.pi)
    x = np.linspace(-1, 1, pose.width, dtype=np.float32) * np.float32(np.cos(direction) * heel)
    y = np.linspace(-1, 1, pose.height, dtype=np.float32)[:, None] * np.float32(np.sin(direction) * heel)
    image *= 1 + x + y
    photons = rng.uniform(4000, 16000)
    grains = noise.standard_normal((pose.height, pose.width), dtype=np.float32)
    grains = cv2.GaussianBlur(grains, (0, 0), 0.55) * 1.6
    image = np.maximum(image, 1e-4)
    image += np.sqrt(image / photons).astype(np.float32) * grains
    return -np.log(np.maximum(image, 2e-4))


def develop(log: Array, build: anatomy.Build, rng: np.random.Generator) -> Array:
    """The reading station's picture, float32 [h, w] 0 to 255: local contrast, window, gamma; fixed by the body, not by the image."""
    small = cv2.resize(log, None, fx=0.125, fy=0.125, interpolation=cv2.INTER_AREA)
    wide = cv2.GaussianBlur(small, (0, 0), 5)
    wide = cv2.resize(wide, log.shape[::-1], interpolation=cv2.INTER_LINEAR)
    level = anatomy.MUSCLE * 2 * 0.95 * build.muscle
    boost = rng.uniform(0.25, 0.5)
    value = log + boost * (log - wide) - 0.25 * np.maximum(wide - level - 0.6, 0)
    low = rng.uniform(-0.15, 0.45) * level
    high = level + rng.uniform(1.15, 2.3)
    value = np.clip((value - low) / (high - low), 0, 1.25)
    value = value / (1 + np.maximum(value - 0.8, 0) * 0.55)
    value = np.minimum(value, 1) ** rng.uniform(0.8, 1.5)
    return rng.uniform(2, 26) * (1 - value) + rng.uniform(190, 255) * value


def frame_and_mark(picture: Array, rng: np.random.Generator) -> Array:
    """Collimator edges and the side marker."""
    height, width = picture.shape
    if rng.random() < 0.6:
        mark(picture, rng)
    if rng.random() < 0.6:
        inset = rng.uniform(0, 0.11, 4) * (rng.random(4) < 0.65)
        corners = np.array(
            [(inset[0], inset[1]), (1 - inset[2], inset[1]), (1 - inset[2], 1 - inset[3]), (inset[0], 1 - inset[3])]
        )
        corners = corners * (width, height) - (width / 2, height / 2)
        angle = np.radians(rng.normal(0, 2.5))
        c, s = np.cos(angle), np.sin(angle)
        grown = corners * (1 + 0.05 * (inset == 0).mean())
        points = grown @ np.array([[c, s], [-s, c]]) + (width / 2, height / 2)
        mask = np.zeros(picture.shape, np.uint8)
        cv2.fillPoly(mask, [np.round(points * 256).astype(np.int32)], 255, cv2.LINE_AA, 8)
        open_field = cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.7, 1.6)).astype(np.float32) / 255
        picture = picture * open_field + rng.uniform(0, 14) * (1 - open_field)
    return picture


def mark(picture: Array, rng: np.random.Generator) -> None:
    """A lead letter, sometimes with a mirror or a tilt, sometimes with the technician's initials."""
    height, width = picture.shape
    size = rng.uniform(0.6, 1.15) * max(height, width) / 512
    text = str(rng.choice(["L", "R"])) + str(rng.choice(["", "", "", " AB", " JM", " 2"]))
    (w, h), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 2)
    tile = np.zeros((2 * max(w, h) + 8,) * 2, np.uint8)
    middle = tile.shape[0] // 2
    thick = int(rng.integers(1, 4))
    cv2.putText(tile, text, (middle - w // 2, middle + h // 2), cv2.FONT_HERSHEY_SIMPLEX, size, 255, thick, cv2.LINE_AA)
    angle = rng.normal(0, 6) + rng.choice([0, 0, 0, 90, -90])
    turned = cv2.warpAffine(tile, cv2.getRotationMatrix2D((middle, middle), angle, 1.0), tile.shape[::-1])
    side = min(tile.shape[0], height, width)
    cut = (tile.shape[0] - side) // 2
    lead = turned[cut : cut + side, cut : cut + side].astype(np.float32) / 255
    if rng.random() < 0.15:
        lead = lead[:, ::-1]
    margin = 0.02
    x = int((margin if rng.random() < 0.5 else 1 - margin) * (width - side))
    y = int(rng.uniform(0.03, 0.97) * (height - side))
    patch = picture[y : y + side, x : x + side]
    patch += lead * rng.uniform(0.8, 1.0) * (250 - patch)


# ---- One image --------------------------------------------------------------------------------------------------------


def render(seed: int, patient: int, study: int, image: int, finding: bool = True) -> View:
    """One radiograph, study and image counted from 0. Without `finding` a positive is drawn healthy, all else the same."""
    build, plan = studies(seed, patient)
    visit, key = plan[study], (seed, patient, study, image)
    pose = sample_pose(stream(POSE, *key), build, visit, image)
    extras = stream(EXTRAS, *key)
    abnormal = bool(finding and visit.label)
    fine = pose.frame @ np.diag([1 / OVERSAMPLING, 1 / OVERSAMPLING, 1.0])
    film = anatomy.Film(round(pose.height * OVERSAMPLING), round(pose.width * OVERSAMPLING), fine)
    case = sample_case(stream(FINDING, seed, patient, study), build, visit, pose.turn) if abnormal else Case("", None, False)
    outlines = attenuate(film, build, visit, pose, case, extras, stream(REPAIR, seed, patient, study))
    log = expose(film, pose, extras, stream(NOISE, *key))
    picture = frame_and_mark(develop(log, build, extras), extras)
    findings = tuple(Finding(kind, box_of(points / OVERSAMPLING, pose)) for kind, points in outlines)
    colour = bool(extras.random() < 0.5)
    return View(np.clip(np.round(picture), 0, 255).astype(np.uint8), colour, int(abnormal), findings)


def attenuate(
    film: anatomy.Film,
    build: anatomy.Build,
    visit: Study,
    pose: Pose,
    case: Case,
    rng: np.random.Generator,
    repair: np.random.Generator,
) -> list[tuple[str, Array]]:
    """Add everything in the beam to `film`; return (kind, points [n, 2] px of the film) of each finding."""
    origin = rng.uniform(0, 512, 2)
    body = anatomy.humerus(build, pose.turn)
    bend = bend_of(build, case.fracture)
    pieces = pieces_of(body, case.fracture, film.frame)
    trunk = anatomy.rotation(pose.abduction, 22.5, 9.5 * np.cos(pose.turn) * build.girth) @ film.frame
    anatomy.soft_tissue(film, build, trunk, bend, rng)
    anatomy.shoulder(film, trunk, origin)
    anatomy.humerus_bone(film, build, body, pose.turn, pieces, origin)
    anatomy.forearm(film, build, pose.turn, pose.flexion, pieces[min(1, len(pieces) - 1)].frame, origin)
    innocent(film, build, rng)
    outlines = []
    if case.fracture:
        outlines.append(("fracture", fracture_outline(body, case.fracture, pieces)))
        if case.fracture.callus:
            callus(film, body, case.fracture, origin)
    if case.hardware:
        ink = Ink(film, film.frame)
        HARDWARE[case.hardware](ink, build, body, visit.site, pose.turn, repair)
        outlines.append((case.hardware, np.concatenate(ink.points)))
    if case.cast:
        outlines.append(("cast", cast(film, build, visit.site, bend, repair)))
    return outlines


def fracture_outline(body: anatomy.Body, fracture: Fracture, pieces: list[anatomy.Piece]) -> Array:
    """float64 [n, 2] px around the break, in the proximal, the distal and the loose fragment."""
    reach, half = reach_of(body, fracture)
    if fracture.callus:
        reach, half = max(reach, 24 * fracture.callus), half + 3
    last = max(reach, fracture.wedge + 2)
    spans = ((-reach, reach), (-reach, last), (-reach, last))
    corners = [[(fracture.site + a, b) for a in span for b in (-half, half)] for span in spans]
    return np.concatenate([anatomy.pixels(np.array(c), piece.frame) for c, piece in zip(corners, pieces, strict=False)])


def box_of(points: Array, pose: Pose) -> tuple[int, int, int, int]:
    """The box around points [n, 2] px, cut to the image."""
    low = np.clip(np.floor(points.min(axis=0)), 0, (pose.width - 1, pose.height - 1)).astype(int)
    high = np.clip(np.ceil(points.max(axis=0)), low + 1, (pose.width, pose.height)).astype(int)
    return int(low[0]), int(low[1]), int(high[0] - low[0]), int(high[1] - low[1])


# ---- Files --------------------------------------------------------------------------------------------------------------


def encode(view: View) -> bytes:
    """PNG, grey or with three equal channels."""
    pixels = cv2.cvtColor(view.pixels, cv2.COLOR_GRAY2BGR) if view.colour else view.pixels
    return cv2.imencode(".png", pixels)[1].tobytes()


def write_patient(root: pathlib.Path, seed: int, patient: int) -> dict[str, list[dict[str, Any]]]:
    """Write one patient's files; return the findings of each image by its path relative to `root`."""
    found: dict[str, list[dict[str, Any]]] = {}
    for number, study in enumerate(studies(seed, patient)[1]):
        name = f"study{number + 1}_{'positive' if study.label else 'negative'}"
        folder = pathlib.PurePosixPath(split(patient), "XR_HUMERUS", f"patient{patient:05d}", name)
        (root / folder).mkdir(parents=True)
        for image in range(study.images):
            view = render(seed, patient, number, image)
            path = folder / f"image{image + 1}.png"
            (root / path).write_bytes(encode(view))
            found[str(path)] = [dataclasses.asdict(finding) for finding in view.findings]
    return found


def write(output: str, patients: int = 400, seed: int = 0) -> dict[str, int]:
    """Write OUTPUT/MURA-v1.1 and return counts of patients and images.

    A finished folder of the same version, seed and number of patients is kept; any other raises `ConfigError`.
    """
    if "://" in output:
        raise ConfigError(
            f"--output of simulated radiographs must be a local folder, got {output}; write locally, then copy it"
        )
    if not 1 <= patients <= 99999 or seed < 0:
        raise ConfigError(f"expected 1 <= --patients <= 99999 and --seed >= 0, got {patients} and {seed}")
    root, note = pathlib.Path(output) / ROOT, describe(patients, seed)
    if root.exists():
        return keep(root, note)
    partial = root.with_name(root.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(f"--output must be a folder that can be written, got {output} ({error.strerror})") from error
    try:
        findings = write_patients(partial, patients, seed)
        (partial / "findings.json").write_text(json.dumps(findings, indent=1, sort_keys=True) + "\n")
        (partial / "SIMULATED.txt").write_text(note)
        partial.rename(root)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    logging.info("wrote %d simulated radiographs of %d patients to %s", len(findings), patients, root)
    return {"patients": patients, "images": len(findings)}


def write_patients(root: pathlib.Path, patients: int, seed: int) -> dict[str, list[dict[str, Any]]]:
    """Write all images; return the findings of each by its path. Two threads: most of the work is outside Python's lock."""
    findings: dict[str, list[dict[str, Any]]] = {}
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(write_patient, root, seed, patient) for patient in range(1, patients + 1)]
        try:
            for job in tqdm.tqdm(jobs, desc="simulating", unit="patient", disable=not sys.stderr.isatty()):
                findings.update(job.result())
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return findings


def describe(patients: int, seed: int) -> str:
    """The note beside the images; two folders with the same note hold the same images."""
    return (
        "These radiographs are SIMULATED by humerus-phantom. They show no patient and prove nothing about patients.\n"
        f"version: {VERSION}\nseed: {seed}\npatients: {patients}\n"
    )


def keep(root: pathlib.Path, note: str) -> dict[str, int]:
    """Counts of the finished folder `root` if it is what `note` describes."""
    written = root / "SIMULATED.txt"
    if not written.is_file() or written.read_text() != note:
        raise ConfigError(
            f"expected to write simulated radiographs to {root}, but it exists and holds something else; "
            "remove it, or name another --output"
        )
    findings = json.loads((root / "findings.json").read_text())
    missing = [path for path in findings if not (root / path).is_file()]
    if missing:
        raise ConfigError(
            f"{root} has lost {len(missing)} of its {len(findings)} images, {missing[0]} first; remove the folder"
        )
    logging.info("kept the %d simulated radiographs that stand in %s", len(findings), root)
    return {"patients": len({path.split("/")[2] for path in findings}), "images": len(findings)}
