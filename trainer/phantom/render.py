"""One simulated radiograph of the upper arm, never of a patient: its case, everything in its beam, its picture and its boxes.

X-rays are attenuated along their paths through the body (Beer-Lambert), scattered, counted with quantum noise, blurred by
the detector, collimated, marked, and shown through a contrast curve. The pixels are a pure function of (seed, patient, study,
image) as long as NumPy, SciPy and OpenCV stay the same.
"""

import dataclasses

import numpy as np

from trainer.phantom import anatomy, display, fractures, geometry, objects, plan, tissue
from trainer.phantom.geometry import Array

OVERSAMPLING = 1.25  # the attenuation is drawn this much finer than the image, then averaged


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
class Case:
    """What is wrong in one view: any of a fracture, hardware ("plate", "nail", "pins" or "") and a cast."""

    hardware: str
    fracture: fractures.Fracture | None
    cast: bool


def sample_case(
    rng: np.random.Generator, build: anatomy.Build, study: plan.Study, turn: float
) -> Case:
    """Fractures in 55 % of the positives, one in ten in a cast; hardware in the others, half of them over a set fracture."""
    hardware = str(rng.choice(["", "plate", "nail", "pins"], p=[0.55, 0.22, 0.14, 0.09]))
    set_fracture, in_cast = rng.random() < 0.5, rng.random() < 0.1
    fracture = fractures.sample(rng, build, study, turn)
    if not hardware:
        return Case("", fracture, bool(in_cast))
    small = dataclasses.replace(fracture, shift=0.0, angle=0.0, shorten=0.0, gap=0.9)
    return Case(hardware, small if set_fracture else None, False)


def render(seed: int, patient: int, study: int, image: int, finding: bool = True) -> View:
    """One radiograph, study and image counted from 0. Without `finding` a positive is drawn healthy, all else the same."""
    build, visits = plan.studies(seed, patient)
    visit, key = visits[study], (seed, patient, study, image)
    pose = plan.sample_pose(plan.stream(plan.POSE, *key), build, visit, image)
    extras = plan.stream(plan.EXTRAS, *key)
    abnormal = bool(finding and visit.label)
    fine = pose.frame @ np.diag([1 / OVERSAMPLING, 1 / OVERSAMPLING, 1.0])
    film = geometry.Film(round(pose.height * OVERSAMPLING), round(pose.width * OVERSAMPLING), fine)
    choices = plan.stream(plan.FINDING, seed, patient, study)
    case = sample_case(choices, build, visit, pose.turn) if abnormal else Case("", None, False)
    outlines = attenuate(
        film, build, visit, pose, case, extras, plan.stream(plan.REPAIR, seed, patient, study)
    )
    log = display.expose(film, pose, extras, plan.stream(plan.NOISE, *key))
    picture = display.frame_and_mark(display.develop(log, build, extras), extras)
    findings = tuple(
        Finding(kind, box_of(points / OVERSAMPLING, pose)) for kind, points in outlines
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
    """Add everything in the beam to `film`; return (kind, points [n, 2] px of the film) of each finding."""
    origin = rng.uniform(0, 512, 2)
    body = anatomy.humerus(build, pose.turn)
    bend = fractures.bend_of(build, case.fracture)
    pieces = fractures.pieces_of(body, case.fracture, film.frame)
    trunk = (
        geometry.rotation(pose.abduction, 22.5, 9.5 * np.cos(pose.turn) * build.girth) @ film.frame
    )
    tissue.soft_tissue(film, build, trunk, bend, rng)
    tissue.shoulder(film, trunk, origin)
    tissue.humerus_bone(film, build, body, pose.turn, pieces, origin)
    tissue.forearm(
        film, build, pose.turn, pose.flexion, pieces[min(1, len(pieces) - 1)].frame, origin
    )
    objects.innocent(film, build, rng)
    outlines = []
    if case.fracture:
        outlines.append(("fracture", fractures.outline(body, case.fracture, pieces)))
        if case.fracture.callus:
            fractures.callus(film, body, case.fracture, origin)
    if case.hardware:
        ink = objects.Ink(film, film.frame)
        objects.HARDWARE[case.hardware](ink, build, body, visit.site, pose.turn, repair)
        outlines.append((case.hardware, np.concatenate(ink.points)))
    if case.cast:
        outlines.append(("cast", objects.cast(film, build, visit.site, bend, repair)))
    return outlines


def box_of(points: Array, pose: plan.Pose) -> tuple[int, int, int, int]:
    """The box around points [n, 2] px, cut to the image."""
    low = np.clip(np.floor(points.min(axis=0)), 0, (pose.width - 1, pose.height - 1)).astype(int)
    high = np.clip(np.ceil(points.max(axis=0)), low + 1, (pose.width, pose.height)).astype(int)
    return int(low[0]), int(low[1]), int(high[0] - low[0]), int(high[1] - low[1])
