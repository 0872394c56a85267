"""The simulated radiographs: physics by hand, bytes that depend on the seed alone, true boxes, and no short cut to the label."""

import collections
import dataclasses
import json
import math
import pathlib
from typing import Any

import cv2
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from trainer import phantom
from trainer import phantom_anatomy as anatomy
from trainer.errors import ConfigError

Sample = collections.namedtuple("Sample", "patient study image split view size")


@pytest.fixture(scope="session")
def samples() -> list[Sample]:
    """Every image of the first 160 patients, with the size of its file."""
    found = []
    for patient in range(1, 161):
        for number, study in enumerate(phantom.studies(0, patient)[1]):
            for image in range(study.images):
                view = phantom.render(0, patient, number, image)
                found.append(Sample(patient, number, image, phantom.split(patient), view, len(phantom.encode(view))))
    return found


def auroc(samples: list[Sample], features: np.ndarray, model: object) -> float:
    """Trained on the patients of `train`, measured on those of `valid`."""
    label = np.array([sample.view.label for sample in samples])
    valid = np.array([sample.split == "valid" for sample in samples])
    fitted = make_pipeline(StandardScaler(), model).fit(features[~valid], label[~valid])
    return float(roc_auc_score(label[valid], fitted.decision_function(features[valid])))


def files(root: pathlib.Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.png")}


def test_photons_through_two_slabs_follow_beer_and_lambert() -> None:
    """40 mm of muscle and 5 mm of cortical bone: exp(-(0.0245 * 40 + 0.092 * 5)) = 0.2369."""
    attenuation = np.array([[anatomy.MUSCLE * 40 + anatomy.CORTEX * 5, 0.0]], np.float32)
    np.testing.assert_allclose(phantom.transmitted(attenuation), [[0.23693, 1.0]], rtol=1e-4)


def test_ray_through_a_tube_has_the_lengths_of_two_circles() -> None:
    """A tube of radius 10 with walls of 4: through its axis 20 and 12 mm; 8 mm off it 12 and 0; outside nothing."""
    tube = anatomy.tube([(0, 0, 10), (60, 0, 10)], cortex=4)
    s = np.full(4, 30, np.float32)
    outer, inner = tube.path(s, np.array([0, 6, 8, 11], np.float32))
    np.testing.assert_allclose(outer, [20, 16, 12, 0], atol=1e-4)
    np.testing.assert_allclose(inner, [12, 0, 0, 0], atol=1e-4)


def test_rays_through_a_whole_bone_add_up_to_its_volume() -> None:
    """Path lengths summed over the plane are a volume: that of a cylinder with two rounded ends, within 1 %."""
    film = anatomy.Film(900, 300, np.array([[0, 0.1, -5.0], [0.1, 0, -15.0], [0, 0, 1]]))
    bone = anatomy.tube([(0, 0, 10), (80, 0, 10)], cortex=4)
    s, t = anatomy.coordinates(film.frame, slice(0, 900), slice(0, 300))
    volume = bone.path(s, t)[0].sum() * 0.1 * 0.1
    assert volume == pytest.approx(math.pi * 10**2 * 60 + 4 / 3 * math.pi * 10**3, rel=0.01)


def test_shaft_of_the_humerus_is_brightest_at_its_walls() -> None:
    build = anatomy.Build(length=312, girth=1.0, cortex=1.0, muscle=35, fat=8, young=False)
    body = anatomy.humerus(build, 0.0)
    t = np.linspace(-14, 14, 561, dtype=np.float32)
    outer, inner = body.path(np.full_like(t, 160), t)
    wall = outer - inner
    assert wall[280] == pytest.approx(2 * 4.6, abs=0.3)
    row = int(body.rows(np.array(160)))
    middle, radius = (body.left[row] + body.right[row]) / 2, (body.right[row] - body.left[row]) / 2
    assert abs(t[wall.argmax()] - middle) == pytest.approx(radius - 4.6, abs=0.1)
    assert wall.max() > 1.6 * wall[280]


def test_points_and_coordinates_are_inverse() -> None:
    frame = anatomy.rotation(0.3, 20, -4) @ np.diag([0.5, 0.7, 1.0])
    s, t = anatomy.coordinates(frame, slice(7, 8), slice(11, 12))
    np.testing.assert_allclose(anatomy.pixels(np.array([[s[0, 0], t[0, 0]]]), frame), [[11, 7]], atol=1e-4)


def test_more_patients_change_no_byte(tmp_path: pathlib.Path) -> None:
    phantom.write(str(tmp_path / "few"), 3, 5)
    phantom.write(str(tmp_path / "more"), 6, 5)
    few, more = files(tmp_path / "few"), files(tmp_path / "more")
    assert len(few) < len(more)
    assert few == {path: more[path] for path in few}


def test_a_view_needs_no_other_view_before_it() -> None:
    last = phantom.render(3, 9, 0, 0)
    for patient in (2, 7, 9):
        again = phantom.render(3, patient, 0, 0)
    assert again.findings == last.findings and (again.pixels == last.pixels).all()
    assert not np.array_equal(phantom.render(4, 9, 0, 0).pixels, last.pixels)


def test_layout_is_that_of_mura(tmp_path: pathlib.Path) -> None:
    counts = phantom.write(str(tmp_path), 11, 0)
    root = tmp_path / "MURA-v1.1"
    found = files(root)
    assert counts == {"patients": 11, "images": len(found)}
    findings = json.loads((root / "findings.json").read_text())
    assert set(findings) == set(found)
    sides = collections.defaultdict(set)
    for path, data in found.items():
        split, part, patient, study, image = path.split("/")
        assert part == "XR_HUMERUS" and patient.startswith("patient") and len(patient) == 12
        assert study in {f"study{k}_{word}" for k in (1, 2, 3) for word in ("positive", "negative")}
        assert image in {f"image{k}.png" for k in (1, 2, 3, 4)}
        assert bool(findings[path]) == study.endswith("positive")
        sides[patient].add(split)
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        assert pixels.dtype == np.uint8 and min(pixels.shape[:2]) >= 164 and max(pixels.shape[:2]) <= 512
        if pixels.ndim == 3:
            assert pixels.shape[2] == 3 and (pixels == pixels[..., :1]).all()
        for finding in findings[path]:
            x, y, width, height = finding["box"]
            assert finding["kind"] in {"fracture", "plate", "nail", "pins", "cast"}
            assert (
                width > 0 and height > 0 and 0 <= x <= x + width <= pixels.shape[1] and 0 <= y <= y + height <= pixels.shape[0]
            )
    assert all(len(split) == 1 for split in sides.values()) and len(sides) == 11
    assert set.union(*sides.values()) == {"train", "valid"}
    assert "SIMULATED" in (root / "SIMULATED.txt").read_text() and "seed: 0" in (root / "SIMULATED.txt").read_text()


def test_shares_are_those_of_mura(samples: list[Sample]) -> None:
    views = [sample.view for sample in samples]
    assert 0.38 < np.mean([view.label for view in views]) < 0.56
    assert 0.4 < np.mean([view.colour for view in views]) < 0.6
    assert np.mean([max(view.pixels.shape) == 512 for view in views]) > 0.75
    kinds = collections.Counter(finding.kind for view in views for finding in view.findings)
    assert set(kinds) == {"fracture", "plate", "nail", "pins", "cast"}
    train = np.mean([phantom.split(patient) == "train" for patient in range(1, 401)])
    assert train == pytest.approx(0.82, abs=0.01)


def change_and_box(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """float32 [h, w] grey levels by which the finding alters the view, noise left out; bool [h, w], true in its boxes + 6 px."""
    view = phantom.render(0, sample.patient, sample.study, sample.image)
    healthy = phantom.render(0, sample.patient, sample.study, sample.image, finding=False)
    assert healthy.label == 0 and not healthy.findings and healthy.colour == view.colour
    change = cv2.GaussianBlur(cv2.absdiff(healthy.pixels, view.pixels), (0, 0), 1.5).astype(np.float32)
    inside = np.zeros(change.shape, bool)
    for finding in view.findings:
        x, y, width, height = finding.box
        inside[max(y - 6, 0) : y + height + 6, max(x - 6, 0) : x + width + 6] = True
    return np.where(change < 6, 0, change), inside


def test_boxes_hold_all_that_a_finding_changes(samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the same view drawn healthy; the fragments are left in place, for else all that hangs on them moves too."""
    displaced = phantom.sample_fracture

    def in_place(*arguments: Any) -> phantom.Fracture:
        return dataclasses.replace(displaced(*arguments), shift=0.0, angle=0.0, shorten=0.0)

    monkeypatch.setattr(phantom, "sample_fracture", in_place)
    for sample in [sample for sample in samples if sample.view.label][:45]:
        change, inside = change_and_box(sample)
        assert change.sum() > 0 and change[inside].sum() > 0.9 * change.sum(), (sample[:3], sample.view.findings)


def test_displaced_fragments_change_nothing_towards_the_head(samples: list[Sample]) -> None:
    fractured = [sample for sample in samples if [finding.kind for finding in sample.view.findings] == ["fracture"]]
    for sample in fractured[:25]:
        build, plan = phantom.studies(0, sample.patient)
        key = (0, sample.patient, sample.study, sample.image)
        pose = phantom.sample_pose(phantom.stream(phantom.POSE, *key), build, plan[sample.study], sample.image)
        s, _ = anatomy.coordinates(pose.frame, slice(0, pose.height), slice(0, pose.width))
        change, inside = change_and_box(sample)
        assert change[~inside & (s < plan[sample.study].site - 5)].sum() < 0.1 * change.sum(), (
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
        assert auroc(samples, np.array(thumbnails), LogisticRegression(C=strength, max_iter=2000)) < 0.75


def test_size_mode_and_brightness_tell_nothing(samples: list[Sample]) -> None:
    features = [
        (*sample.view.pixels.shape, sample.view.colour, sample.view.pixels.mean(), sample.view.pixels.std(), sample.size)
        for sample in samples
    ]
    assert auroc(samples, np.array(features, float), LogisticRegression(max_iter=2000)) < 0.65


def test_finished_folder_is_kept_and_any_other_refused(tmp_path: pathlib.Path) -> None:
    first = phantom.write(str(tmp_path), 2, 0)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert phantom.write(str(tmp_path), 2, 0) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    for patients, seed in ((3, 0), (2, 1)):
        with pytest.raises(ConfigError, match="remove it, or name another --output"):
            phantom.write(str(tmp_path), patients, seed)
    next(tmp_path.rglob("*.png")).unlink()
    with pytest.raises(ConfigError, match="has lost 1 of its"):
        phantom.write(str(tmp_path), 2, 0)


def test_foreign_folder_is_left_alone(tmp_path: pathlib.Path) -> None:
    (tmp_path / "MURA-v1.1").mkdir()
    (tmp_path / "MURA-v1.1" / "mine.txt").write_text("keep me")
    with pytest.raises(ConfigError, match="holds something else"):
        phantom.write(str(tmp_path), 2, 0)
    assert [path.name for path in tmp_path.rglob("*")] == ["MURA-v1.1", "mine.txt"]


def test_interrupted_write_leaves_nothing(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode, calls = phantom.encode, []

    def stop_at_the_third(view: phantom.View) -> bytes:
        calls.append(view)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(view)

    monkeypatch.setattr(phantom, "encode", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        phantom.write(str(tmp_path), 8, 0)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_write_left_is_replaced(tmp_path: pathlib.Path) -> None:
    stale = tmp_path / "MURA-v1.1.partial" / "train" / "stale.png"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"half")
    phantom.write(str(tmp_path), 1, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["MURA-v1.1"]
    assert not list(tmp_path.rglob("stale.png"))


@pytest.mark.parametrize(
    ("output", "patients", "seed", "message"),
    [("gs://bucket/phantom", 2, 0, "local folder"), ("x", 0, 0, "--patients"), ("x", 2, -1, "--seed")],
)
def test_bad_flags_are_named(output: str, patients: int, seed: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        phantom.write(output, patients, seed)


def test_output_that_is_a_file_is_named(tmp_path: pathlib.Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(ConfigError, match="folder that can be written"):
        phantom.write(str(tmp_path / "taken"), 1, 0)
