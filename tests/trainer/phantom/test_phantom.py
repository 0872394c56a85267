"""These tests check the physics and the boxes of simulated radiographs, and rule out shortcuts."""

import collections
import dataclasses
import math
from typing import Any

import cv2
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from trainer.phantom import anatomy, display, files, fractures, geometry, plan, tissue
from trainer.phantom.render import render

Sample = collections.namedtuple("Sample", "patient study image split view size")


@pytest.fixture(scope="session")
def samples() -> list[Sample]:
    """Return every image of the first 160 patients, with the size of its file."""
    found = []
    for patient in range(1, 161):
        for number, study in enumerate(plan.plan_studies(0, patient)[1]):
            for image in range(study.images):
                view = render(0, patient, number, image)
                found.append(
                    Sample(
                        patient,
                        number,
                        image,
                        plan.choose_split(patient),
                        view,
                        len(files.encode(view)),
                    )
                )
    return found


def measure_auroc(samples: list[Sample], features: np.ndarray, model: object) -> float:
    """Train on the patients of `train`; return the AUROC on those of `valid`."""
    label = np.array([sample.view.label for sample in samples])
    valid = np.array([sample.split == "valid" for sample in samples])
    fitted = make_pipeline(StandardScaler(), model).fit(features[~valid], label[~valid])
    return float(roc_auc_score(label[valid], fitted.decision_function(features[valid])))


def test_photons_through_two_slabs_follow_beer_and_lambert() -> None:
    """40 mm of muscle and 5 mm of cortex let exp(-(0.0245 * 40 + 0.092 * 5)) = 0.2369 pass."""
    attenuation = np.array([[tissue.MUSCLE * 40 + tissue.CORTEX * 5, 0.0]], np.float32)
    np.testing.assert_allclose(display.transmit(attenuation), [[0.23693, 1.0]], rtol=1e-4)


def test_ray_through_a_tube_has_the_lengths_of_two_circles() -> None:
    """The tube has radius 10 and walls of 4 mm; rays cross it 0, 6, 8 and 11 mm off its axis."""
    tube = geometry.make_tube([(0, 0, 10), (60, 0, 10)], cortex=4)
    s = np.full(4, 30, np.float32)
    outer, inner = tube.path(s, np.array([0, 6, 8, 11], np.float32))
    np.testing.assert_allclose(outer, [20, 16, 12, 0], atol=1e-4)
    np.testing.assert_allclose(inner, [12, 0, 0, 0], atol=1e-4)


def test_rays_through_a_whole_bone_add_up_to_its_volume() -> None:
    """The path lengths add up to the volume of a cylinder with two rounded ends, within 1 %."""
    film = geometry.Film(900, 300, np.array([[0, 0.1, -5.0], [0.1, 0, -15.0], [0, 0, 1]]))
    bone = geometry.make_tube([(0, 0, 10), (80, 0, 10)], cortex=4)
    s, t = geometry.coordinates(film.frame, slice(0, 900), slice(0, 300))
    volume = bone.path(s, t)[0].sum() * 0.1 * 0.1
    assert volume == pytest.approx(math.pi * 10**2 * 60 + 4 / 3 * math.pi * 10**3, rel=0.01)


def test_shaft_of_the_humerus_is_brightest_at_its_walls() -> None:
    build = anatomy.Build(length=312, girth=1.0, cortex=1.0, muscle=35, fat=8, young=False)
    body = anatomy.make_humerus(build, 0.0)
    t = np.linspace(-14, 14, 561, dtype=np.float32)
    outer, inner = body.path(np.full_like(t, 160), t)
    wall = outer - inner
    assert wall[280] == pytest.approx(2 * 4.6, abs=0.3)
    row = int(body.rows(np.array(160)))
    middle, radius = (body.left[row] + body.right[row]) / 2, (body.right[row] - body.left[row]) / 2
    assert abs(t[wall.argmax()] - middle) == pytest.approx(radius - 4.6, abs=0.1)
    assert wall.max() > 1.6 * wall[280]


def test_points_and_coordinates_are_inverse() -> None:
    frame = geometry.rotation(0.3, 20, -4) @ np.diag([0.5, 0.7, 1.0])
    s, t = geometry.coordinates(frame, slice(7, 8), slice(11, 12))
    np.testing.assert_allclose(
        geometry.to_pixels(np.array([[s[0, 0], t[0, 0]]]), frame), [[11, 7]], atol=1e-4
    )


def test_a_view_needs_no_other_view_before_it() -> None:
    last = render(3, 9, 0, 0)
    for patient in (2, 7, 9):
        again = render(3, patient, 0, 0)
    assert again.findings == last.findings and (again.pixels == last.pixels).all()
    assert not np.array_equal(render(4, 9, 0, 0).pixels, last.pixels)


def test_shares_are_those_of_mura(samples: list[Sample]) -> None:
    views = [sample.view for sample in samples]
    assert 0.38 < np.mean([view.label for view in views]) < 0.56
    assert 0.4 < np.mean([view.colour for view in views]) < 0.6
    assert np.mean([max(view.pixels.shape) == 512 for view in views]) > 0.75
    kinds = collections.Counter(finding.kind for view in views for finding in view.findings)
    assert set(kinds) == {"fracture", "plate", "nail", "pins", "cast"}
    train = np.mean([plan.choose_split(patient) == "train" for patient in range(1, 401)])
    assert train == pytest.approx(0.82, abs=0.01)


def measure_change(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """Return how much the finding alters the view, and whether a pixel is in its boxes.

    The first is float32 [h, w] in grey levels without noise. The second is bool [h, w], with a
    margin of 6 px.
    """
    view = render(0, sample.patient, sample.study, sample.image)
    healthy = render(0, sample.patient, sample.study, sample.image, finding=False)
    assert healthy.label == 0 and not healthy.findings and healthy.colour == view.colour
    change = cv2.GaussianBlur(cv2.absdiff(healthy.pixels, view.pixels), (0, 0), 1.5).astype(
        np.float32
    )
    inside = np.zeros(change.shape, bool)
    for finding in view.findings:
        x, y, width, height = finding.box
        inside[max(y - 6, 0) : y + height + 6, max(x - 6, 0) : x + width + 6] = True
    return np.where(change < 6, 0, change), inside


def test_boxes_hold_all_that_a_finding_changes(
    samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference is the same view drawn healthy.

    The fragments stay in place, since otherwise everything attached to them moves too.
    """
    displaced = fractures.sample

    def in_place(*arguments: Any) -> fractures.Fracture:
        return dataclasses.replace(displaced(*arguments), shift=0.0, angle=0.0, shorten=0.0)

    monkeypatch.setattr(fractures, "sample", in_place)
    for sample in [sample for sample in samples if sample.view.label][:45]:
        change, inside = measure_change(sample)
        assert change.sum() > 0 and change[inside].sum() > 0.9 * change.sum(), (
            sample[:3],
            sample.view.findings,
        )


def test_displaced_fragments_change_nothing_towards_the_head(samples: list[Sample]) -> None:
    fractured = [
        sample
        for sample in samples
        if [finding.kind for finding in sample.view.findings] == ["fracture"]
    ]
    for sample in fractured[:25]:
        build, visits = plan.plan_studies(0, sample.patient)
        key = (0, sample.patient, sample.study, sample.image)
        pose = plan.sample_pose(
            plan.make_generator(plan.POSE, *key), build, visits[sample.study], sample.image
        )
        s, _ = geometry.coordinates(pose.frame, slice(0, pose.height), slice(0, pose.width))
        change, inside = measure_change(sample)
        assert change[~inside & (s < visits[sample.study].site - 5)].sum() < 0.1 * change.sum(), (
            sample[:3],
            sample.view.findings,
        )


def test_logistic_regression_on_thumbnails_stays_weak(samples: list[Sample]) -> None:
    thumbnails = []
    for sample in samples:
        height, width = sample.view.pixels.shape
        scale = 32 / max(height, width)
        small = (max(1, round(width * scale)), max(1, round(height * scale)))
        square = np.zeros((32, 32), np.float32)
        top, left = (32 - small[1]) // 2, (32 - small[0]) // 2
        square[top : top + small[1], left : left + small[0]] = cv2.resize(
            sample.view.pixels, small, interpolation=cv2.INTER_AREA
        )
        thumbnails.append(square.ravel())
    for strength in (1e-3, 1e-1):
        assert (
            measure_auroc(
                samples, np.array(thumbnails), LogisticRegression(C=strength, max_iter=2000)
            )
            < 0.75
        )


def test_size_mode_and_brightness_do_not_predict_the_label(samples: list[Sample]) -> None:
    features = [
        (
            *sample.view.pixels.shape,
            sample.view.colour,
            sample.view.pixels.mean(),
            sample.view.pixels.std(),
            sample.size,
        )
        for sample in samples
    ]
    assert (
        measure_auroc(samples, np.array(features, float), LogisticRegression(max_iter=2000)) < 0.65
    )
