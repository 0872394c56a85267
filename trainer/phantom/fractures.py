"""Sample fractures of the humerus and place their fragments."""

import dataclasses
import functools

import numpy as np
from scipy.ndimage import gaussian_filter1d

from trainer.phantom import anatomy, geometry, plan, tissue
from trainer.phantom.geometry import Array


@dataclasses.dataclass(frozen=True)
class Fracture:
    """A break across the shaft in the image plane: lengths in mm, angles in radians."""

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
    """Sample the study's fracture as this view shows it.

    A displacement that is hidden from the front shows in part from the side.
    """
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
    # Wide bone breaks across more than along.
    narrow = 1.0 if 75 < study.site < build.length - 65 else 0.4
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


def compute_fragment_share(
    fracture: Fracture, piece: int, s: Array, t: Array, thickness: Array
) -> Array:
    """Return the share of a ray's bone that belongs to a piece, float32 [h, w], 0 to 1.

    Piece 0 is the proximal, 1 the distal and 2 the butterfly fragment.
    """
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


def compute_reach(body: geometry.Body, fracture: Fracture) -> tuple[float, float]:
    """Return how far the break extends from its site, in mm along the shaft and to either side.

    On a round bone of half width w it runs through slope * t + skew * sqrt(w^2 - t^2), which is at
    most w * hypot(slope, skew).
    """
    rows = np.clip(body.rows(fracture.site + np.linspace(-30, 30, 61)), 0, len(body.left) - 1)
    half = float(max(-body.left[rows].min(), body.right[rows].max()))
    return half * float(np.hypot(fracture.slope, fracture.skew)) + fracture.gap / 2 + 3, half + 2


def place_fragments(
    body: geometry.Body, fracture: Fracture | None, frame: Array
) -> list[tissue.Piece]:
    """Return the intact humerus, or its fragments where they have moved to.

    The fragments are proximal, distal and, if the fracture has one, butterfly.
    """
    if fracture is None:
        return [tissue.Piece(frame, 0.0, body.end)]
    site, out = fracture.site, fracture.wedge_out if fracture.slope > 0 else -fracture.wedge_out
    home = np.array([[1, 0, site], [0, 1, 0], [0, 0, 1.0]])
    distal = (
        home @ geometry.rotation(fracture.angle, site - fracture.shorten, fracture.shift) @ frame
    )
    loose = home @ geometry.rotation(0.6 * fracture.angle + 0.02 * out, site, out) @ frame
    reach = compute_reach(body, fracture)[0] + 3
    spans = [
        (frame, 0.0, site + reach),
        (distal, site - reach, body.end),
        (loose, site - reach, site + fracture.wedge + reach),
    ]
    shares = [functools.partial(compute_fragment_share, fracture, piece) for piece in range(3)]
    return [tissue.Piece(*span, share) for span, share in zip(spans, shares, strict=True)][
        : 3 if fracture.wedge else 2
    ]


def compute_bend(build: anatomy.Build, fracture: Fracture | None) -> Array:
    """Return how the soft tissue of the arm follows the distal fragment.

    The result is float32 [n] in mm, with the rows of `anatomy.make_arm`.
    """
    s = np.arange(-30.0, build.length + 110.0 + geometry.STEP / 2, geometry.STEP)
    if fracture is None:
        return np.zeros(len(s), np.float32)
    beyond = np.logaddexp(0, (s - fracture.site) / 14) * 14
    return (
        np.tan(fracture.angle) * beyond + fracture.shift * geometry.ramp(s - fracture.site, 60)
    ).astype(np.float32)


def draw_callus(
    film: geometry.Film, body: geometry.Body, fracture: Fracture, origin: Array
) -> None:
    """Draw a cuff of young bone around the break."""
    corners = np.array([(fracture.site + a, b) for a in (-45, 45) for b in (-40, 40)])
    region = film.region(corners, film.frame)
    s, t = geometry.coordinates(film.frame, *region)
    row = body.rows(np.array(fracture.site))
    left, right = float(body.left[row]), float(body.right[row])
    along = np.exp(-np.square((s - fracture.site) / (9 + 7 * fracture.callus)))
    radius = (right - left) / 2 + 5.5 * fracture.callus * along
    offset = t - (left + right + fracture.shift) / 2
    cuff = geometry.chord(np.square(radius) - np.square(offset)) * along
    cuff *= 0.75 + 0.25 * geometry.sample_grain(0, film.frame, region, 0.9, origin)
    film.total[region] += 0.030 * fracture.callus * cuff


def compute_outline(body: geometry.Body, fracture: Fracture, pieces: list[tissue.Piece]) -> Array:
    """Return points around the break in every fragment, float64 [n, 2] px."""
    reach, half = compute_reach(body, fracture)
    if fracture.callus:
        reach, half = max(reach, 24 * fracture.callus), half + 3
    last = max(reach, fracture.wedge + 2)
    spans = ((-reach, reach), (-reach, last), (-reach, last))
    corners = [[(fracture.site + a, b) for a in span for b in (-half, half)] for span in spans]
    return np.concatenate(
        [
            geometry.to_pixels(np.array(c), piece.frame)
            for c, piece in zip(corners, pieces, strict=False)
        ]
    )
