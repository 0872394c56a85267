"""Fractures of the humerus: how they vary, which fragment a ray's bone belongs to, and where the fragments have moved."""

import dataclasses
import functools

import numpy as np
from scipy.ndimage import gaussian_filter1d

from trainer.phantom import anatomy, geometry, plan, tissue
from trainer.phantom.geometry import Array


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


def sample(
    rng: np.random.Generator, build: anatomy.Build, study: plan.Study, turn: float
) -> Fracture:
    """The study's fracture as this view sees it: what is hidden from the front shows from the side, in part."""
    kind = rng.choice(4, p=[0.3, 0.3, 0.18, 0.22])  # transverse, oblique, spiral, comminuted
    slope = (
        rng.uniform(0, 0.25),
        rng.uniform(0.5, 1.3),
        rng.uniform(0.6, 1.3),
        rng.uniform(0.1, 0.8),
    )[kind]
    skew = (rng.uniform(0, 0.15), rng.uniform(0, 0.4), rng.uniform(0.7, 1.5), rng.uniform(0, 0.4))[
        kind
    ]
    severity = rng.uniform(0.1, 0.4) if rng.random() < 0.1 else rng.uniform(0.55, 1.0)
    azimuth = rng.uniform(-1, 1) * np.pi
    seen = float(np.cos(azimuth - turn))
    seen = np.sign(seen) * (0.6 + 0.4 * abs(seen))
    narrow = (
        1.0 if 75 < study.site < build.length - 65 else 0.4
    )  # wide bone breaks across more than along
    teeth = gaussian_filter1d(rng.normal(0, 1, 161), 2.2)
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


def fragment(fracture: Fracture, piece: int, s: Array, t: Array, thickness: Array) -> Array:
    """float32 [h, w]: the share of a ray's bone that belongs to a piece (0 proximal, 1 distal, 2 butterfly), 0 to 1."""
    teeth = fracture.teeth[np.clip((t + 40) * 2, 0, 160).astype(np.int32)]
    edge = s - fracture.site - fracture.slope * t - teeth
    depth, gap = 0.5 * fracture.skew * thickness, 0.5 * fracture.gap
    if piece == 0:
        return 0.5 * (
            geometry.ramp(-edge + depth - gap, 0.8) + geometry.ramp(-edge - depth - gap, 0.8)
        )
    side = t if fracture.slope > 0 else -t
    taper = 24 * (s - fracture.site) / max(fracture.wedge, 1) - 11
    wedge = geometry.ramp(side - taper + teeth, 0.8) if fracture.wedge else np.float32(0)
    if piece == 1:
        return (
            0.5
            * (geometry.ramp(edge - depth - gap, 0.8) + geometry.ramp(edge + depth - gap, 0.8))
            * (1 - wedge)
        )
    return geometry.ramp(edge - gap, 0.8) * wedge


def reach_of(body: geometry.Body, fracture: Fracture) -> tuple[float, float]:
    """How far the break extends from its site, in mm along the shaft and to either side.

    On a round bone of half width w it runs through slope * t + skew * sqrt(w^2 - t^2), at most w * hypot(slope, skew).
    """
    rows = np.clip(body.rows(fracture.site + np.linspace(-30, 30, 61)), 0, len(body.left) - 1)
    half = float(max(-body.left[rows].min(), body.right[rows].max()))
    return half * float(np.hypot(fracture.slope, fracture.skew)) + fracture.gap / 2 + 3, half + 2


def pieces_of(body: geometry.Body, fracture: Fracture | None, frame: Array) -> list[tissue.Piece]:
    """The whole humerus, or its proximal, distal and butterfly fragments where they have moved to."""
    if fracture is None:
        return [tissue.Piece(frame, 0.0, body.end)]
    site, out = fracture.site, fracture.wedge_out if fracture.slope > 0 else -fracture.wedge_out
    home = np.array([[1, 0, site], [0, 1, 0], [0, 0, 1.0]])
    distal = (
        home @ geometry.rotation(fracture.angle, site - fracture.shorten, fracture.shift) @ frame
    )
    loose = home @ geometry.rotation(0.6 * fracture.angle + 0.02 * out, site, out) @ frame
    reach = reach_of(body, fracture)[0] + 3
    spans = [
        (frame, 0.0, site + reach),
        (distal, site - reach, body.end),
        (loose, site - reach, site + fracture.wedge + reach),
    ]
    shares = [functools.partial(fragment, fracture, piece) for piece in range(3)]
    return [tissue.Piece(*span, share) for span, share in zip(spans, shares, strict=True)][
        : 3 if fracture.wedge else 2
    ]


def bend_of(build: anatomy.Build, fracture: Fracture | None) -> Array:
    """float32 [n] in mm: how the arm's soft tissue follows the distal fragment, on the table of `anatomy.arm`."""
    s = np.arange(-30.0, build.length + 110.0 + geometry.STEP / 2, geometry.STEP)
    if fracture is None:
        return np.zeros(len(s), np.float32)
    beyond = np.logaddexp(0, (s - fracture.site) / 14) * 14
    return (
        np.tan(fracture.angle) * beyond + fracture.shift * geometry.ramp(s - fracture.site, 60)
    ).astype(np.float32)


def callus(film: geometry.Film, body: geometry.Body, fracture: Fracture, origin: Array) -> None:
    """A cuff of young bone around the break."""
    corners = np.array([(fracture.site + a, b) for a in (-45, 45) for b in (-40, 40)])
    region = film.region(corners, film.frame)
    s, t = geometry.coordinates(film.frame, *region)
    row = body.rows(np.array(fracture.site))
    left, right = float(body.left[row]), float(body.right[row])
    along = np.exp(-np.square((s - fracture.site) / (9 + 7 * fracture.callus)))
    radius = (right - left) / 2 + 5.5 * fracture.callus * along
    offset = t - (left + right + fracture.shift) / 2
    cuff = geometry.chord(np.square(radius) - np.square(offset)) * along
    cuff *= 0.75 + 0.25 * geometry.grain(0, film.frame, region, 0.9, origin)
    film.total[region] += 0.030 * fracture.callus * cuff


def outline(body: geometry.Body, fracture: Fracture, pieces: list[tissue.Piece]) -> Array:
    """float64 [n, 2] px around the break, in the proximal, the distal and the loose fragment."""
    reach, half = reach_of(body, fracture)
    if fracture.callus:
        reach, half = max(reach, 24 * fracture.callus), half + 3
    last = max(reach, fracture.wedge + 2)
    spans = ((-reach, reach), (-reach, last), (-reach, last))
    corners = [[(fracture.site + a, b) for a in span for b in (-half, half)] for span in spans]
    return np.concatenate(
        [
            geometry.pixels(np.array(c), piece.frame)
            for c, piece in zip(corners, pieces, strict=False)
        ]
    )
