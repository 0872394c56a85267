"""Render one simulated radiograph of the upper arm with the boxes of its findings.

X-rays are attenuated along their paths through the body (Beer-Lambert law) and scattered. They are
counted with quantum noise and blurred by the detector. The picture is collimated, marked, and shown
through a contrast curve. The pixels are a pure function of (seed, patient, study, image) as long as
NumPy, SciPy and OpenCV stay the same.
"""

import dataclasses

import numpy as np

from trainer.phantom import anatomy, display, fractures, geometry, objects, plan, tissue
from trainer.phantom.geometry import Array

OVERSAMPLING = 1.25  # the attenuation is drawn this much finer than the image, then averaged


@dataclasses.dataclass(frozen=True)
class Finding:
    """One simulated finding and its box in the image: (x, y, width, height) in pixels."""

    kind: str
    box: tuple[int, int, int, int]


@dataclasses.dataclass(frozen=True)
class View:
    """One radiograph: pixels uint8 [height, width] with bright bone.

    `colour` says whether its file has three equal channels.
    """

    pixels: Array
    colour: bool
    label: int
    findings: tuple[Finding, ...]


@dataclasses.dataclass(frozen=True)
class Case:
    """The abnormalities of one view: a fracture, hardware, a cast, or several.

    `hardware` is "plate", "nail", "pins" or "".
    """

    hardware: str
    fracture: fractures.Fracture | None
    cast: bool


def sample_case(
    rng: np.random.Generator, build: anatomy.Build, study: plan.Study, turn: float
) -> Case:
    """Sample the case of a positive study.

    55 % have a fracture without hardware, of which one in ten is in a cast. The others have
    hardware, half of them over a set fracture.
    """
    hardware = str(rng.choice(["", "plate", "nail", "pins"], p=[0.55, 0.22, 0.14, 0.09]))
    set_fracture, in_cast = rng.random() < 0.5, rng.random() < 0.1
    fracture = fractures.sample(rng, build, study, turn)
    if not hardware:
        return Case("", fracture, bool(in_cast))
    small = dataclasses.replace(fracture, shift=0.0, angle=0.0, shorten=0.0, gap=0.9)
    return Case(hardware, small if set_fracture else None, False)


def render(seed: int, patient: int, study: int, image: int, finding: bool = True) -> View:
    """Render one radiograph; study and image are counted from 0.

    Without `finding`, a positive is drawn healthy and everything else stays the same.
    """
    build, visits = plan.plan_studies(seed, patient)
    visit, key = visits[study], (seed, patient, study, image)
    pose = plan.sample_pose(plan.make_generator(plan.POSE, *key), build, visit, image)
    extras = plan.make_generator(plan.EXTRAS, *key)
    abnormal = bool(finding and visit.label)
    fine = pose.frame @ np.diag([1 / OVERSAMPLING, 1 / OVERSAMPLING, 1.0])
    film = geometry.Film(round(pose.height * OVERSAMPLING), round(pose.width * OVERSAMPLING), fine)
    choices = plan.make_generator(plan.FINDING, seed, patient, study)
    case = sample_case(choices, build, visit, pose.turn) if abnormal else Case("", None, False)
    outlines = attenuate(
        film,
        build,
        visit,
        pose,
        case,
        extras,
        plan.make_generator(plan.REPAIR, seed, patient, study),
    )
    log = display.expose(film, pose, extras, plan.make_generator(plan.NOISE, *key))
    picture = display.frame_and_mark(display.develop(log, build, extras), extras)
    findings = tuple(
        Finding(kind, compute_box(points / OVERSAMPLING, pose)) for kind, points in outlines
    )
    colour = bool(extras.random() < 0.5)
    return View(
        np.clip(np.round(picture), 0, 255).astype(np.uint8), colour, int(abnormal), findings
    )


def attenuate(
    film: geometry.Film,
    build: anatomy.Build,
    visit: plan.Study,
    pose: plan.Pose,
    case: Case,
    rng: np.random.Generator,
    repair: np.random.Generator,
) -> list[tuple[str, Array]]:
    """Add everything in the beam to `film`; return each finding's kind and its points.

    Points are [n, 2] px of the film.
    """
    origin = rng.uniform(0, 512, 2)
    body = anatomy.make_humerus(build, pose.turn)
    bend = fractures.compute_bend(build, case.fracture)
    pieces = fractures.place_fragments(body, case.fracture, film.frame)
    trunk = (
        geometry.rotation(pose.abduction, 22.5, 9.5 * np.cos(pose.turn) * build.girth) @ film.frame
    )
    tissue.add_soft_tissue(film, build, trunk, bend, rng)
    tissue.add_shoulder(film, trunk, origin)
    tissue.add_humerus(film, build, body, pose.turn, pieces, origin)
    tissue.add_forearm(
        film, build, pose.turn, pose.flexion, pieces[min(1, len(pieces) - 1)].frame, origin
    )
    objects.draw_clutter(film, build, rng)
    outlines = []
    if case.fracture:
        outlines.append(("fracture", fractures.compute_outline(body, case.fracture, pieces)))
        if case.fracture.callus:
            fractures.draw_callus(film, body, case.fracture, origin)
    if case.hardware:
        ink = objects.Ink(film, film.frame)
        objects.HARDWARE[case.hardware](ink, build, body, visit.site, pose.turn, repair)
        outlines.append((case.hardware, np.concatenate(ink.points)))
    if case.cast:
        outlines.append(("cast", objects.draw_cast(film, build, visit.site, bend, repair)))
    return outlines


def compute_box(points: Array, pose: plan.Pose) -> tuple[int, int, int, int]:
    """Return the box around points [n, 2] px, cut to the image."""
    low = np.clip(np.floor(points.min(axis=0)), 0, (pose.width - 1, pose.height - 1)).astype(int)
    high = np.clip(np.ceil(points.max(axis=0)), low + 1, (pose.width, pose.height)).astype(int)
    return int(low[0]), int(low[1]), int(high[0] - low[0]), int(high[1] - low[1])
