"""Test that a good network passes every check, and that each defect fails the check made for it."""

import dataclasses
import json

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf

from batch_inference import pipeline
from tests.support import small_artifact, small_run
from trainer import artifact
from trainer.dataset import prepared_split
from trainer.dataset.prepare import prepare
from trainer.errors import DataError
from trainer.evaluation import finding_masks, localisation, map_checks
from trainer.network import model as model_lib
from trainer.network.serving import Member, Network
from trainer.options import PrepareOptions
from trainer.publishing import verify

SIZE, PATCH = 48, 14


def pictures(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make noise with a bright disc; positives have a checked patch in the mask."""
    rng = np.random.default_rng(seed)
    images = rng.integers(60, 140, (count, SIZE, SIZE, 1)).astype(np.uint8)
    masks, rows = np.zeros((count, SIZE, SIZE), bool), np.arange(SIZE)
    for i in range(count):
        y, x = rng.integers(4, SIZE - 4, 2)
        images[i][(rows[:, None] - y) ** 2 + (rows - x) ** 2 < 25] = 200
        if i % 2:
            top, left = rng.integers(0, SIZE - PATCH, 2)
            check = np.indices((PATCH, PATCH)).sum(axis=0) // 3 % 2 * 120 + 40
            images[i, top : top + PATCH, left : left + PATCH, 0] = check
            masks[i, top : top + PATCH, left : left + PATCH] = True
    return images, np.arange(count) % 2, masks


@pytest.fixture(scope="module")
def trained() -> keras.Model:
    images, labels, _ = pictures(256, seed=0)
    model = model_lib.build(small_artifact.ARCHITECTURE, SIZE, seed=1)
    optimizer = keras.optimizers.Adam(3e-3)

    @tf.function
    def step(batch: tf.Tensor, label: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            logit = model(batch, training=True)["logit"][:, 0]
            loss = tf.reduce_mean(
                tf.nn.sigmoid_cross_entropy_with_logits(tf.cast(label, tf.float32), logit)
            )
        optimizer.apply_gradients(
            zip(
                tape.gradient(loss, model.trainable_variables),
                model.trainable_variables,
                strict=True,
            )
        )

    rng = np.random.default_rng(2)
    for _ in range(240):
        rows = rng.integers(0, len(images), 32)
        turned = images[rows] if rng.random() < 0.5 else images[rows][:, :, ::-1]
        step(tf.constant(turned), tf.constant(labels[rows]))
    return model


@pytest.fixture
def model(trained) -> keras.Model:
    """Return a copy of the model, which a test may change."""
    copy = keras.models.clone_model(trained)
    copy.set_weights(trained.get_weights())
    return copy


HELD_OUT = pictures(64, seed=7)


def check(model: keras.Model, **changes) -> dict:
    images, labels, masks = HELD_OUT
    given = {"images": images, "labels": labels, "masks": masks} | changes
    return map_checks.check(Network((Member(model, small_artifact.ARCHITECTURE),)), **given)


def test_what_has_learnt_passes_them_all(trained):
    before = [weight.copy() for weight in trained.get_weights()]
    found = check(trained)
    assert {name: checked["passed"] for name, checked in found.items()} == dict.fromkeys(
        map_checks.CHECKS, True
    ), found
    assert found["localisation"]["hit_rate"]["value"] > 0.8
    assert json.loads(json.dumps(found)) == found, "it goes into model.json"
    for kept, now in zip(before, trained.get_weights(), strict=True):
        np.testing.assert_array_equal(kept, now)


@pytest.mark.parametrize("seed", range(6))
def test_a_shuffled_head_fails_without_masks_and_however_well_it_happens_to_do(model, seed):
    """Every feature responds to the patch, so some permutations still reach an AUROC of 1."""
    small_artifact.shuffle_head(model, seed)
    found = check(model, masks=None)
    assert found["evidence"]["passed"] is False, found["evidence"]["said"]
    assert "at most 9 are allowed (failed)" in found["evidence"]["said"]


def test_the_curves_lie_on_the_right_side_of_random_order_and_give_the_figures(trained):
    found = check(trained)["sign"]
    curves = {name: np.array(logits) for name, logits in found["curves"].items()}
    assert {name: len(logits) for name, logits in curves.items()} == dict.fromkeys(
        curves, 5
    ) and len(curves) == 4
    for name, sign in (("deletion", -1), ("insertion", 1)):
        ahead = sign * (curves[name] - curves[f"random_{name}"])
        assert (ahead > 0).all() and found[name]["value"] == pytest.approx(ahead.mean(), abs=1e-3)


def test_the_baselines_have_intervals_too(trained):
    baselines = check(trained)["localisation"]["baselines"]
    assert set(baselines) == {"centre", "brightest"}
    for measured in baselines.values():
        assert set(measured) == {"hit_rate", "energy", "iou"}
        assert all(
            figure["low"] <= figure["value"] <= figure["high"] for figure in measured.values()
        )
    assert baselines["centre"]["energy"]["low"] < baselines["centre"]["energy"]["high"]


def test_the_mirror_image_of_a_network_that_asks_both_is_asked_alone(trained):
    """Their mean is the same for either, whatever the network does."""
    alone, both = (
        Network((Member(trained, small_artifact.ARCHITECTURE),), flips)
        for flips in ("none", "horizontal")
    )
    found = [map_checks.check(network, HELD_OUT[0])["flip"] for network in (alone, both)]
    assert found[0] == found[1] and found[0]["correlation"]["value"] < 0.999


def test_maps_with_the_wrong_sign_fail_theirs(trained, monkeypatch):
    served = map_checks.make_serve
    monkeypatch.setattr(
        map_checks,
        "make_serve",
        lambda network: lambda images: (lambda o: (o[0], -o[1]))(served(network)(images)),
    )
    found = check(trained)
    assert found["sign"]["passed"] is False and "lowers the logit by -" in found["sign"]["said"]
    assert found["evidence"]["passed"] is False and found["localisation"]["passed"] is False
    assert "above 0.5 is required (failed); " in found["evidence"]["said"]
    assert found["flip"]["passed"] is True


def test_maps_that_ask_the_image_alone_fail_randomisation(trained, monkeypatch):
    """As edge detectors do, which look plausible on any network."""
    served = map_checks.make_serve

    def edges(network):
        def ask(images):
            grey = tf.constant(images, tf.float32)
            return served(network)(images)[0], tf.image.sobel_edges(grey).numpy()[
                :, ::8, ::8, 0, :
            ].max(axis=-1)

        return ask

    monkeypatch.setattr(map_checks, "make_serve", edges)
    found = check(trained)["randomisation"]
    assert found["passed"] is False and found["correlation"]["value"] == pytest.approx(1.0)


def test_maps_that_lie_elsewhere_in_the_mirror_fail_flip(trained, monkeypatch):
    served = map_checks.make_serve
    monkeypatch.setattr(
        map_checks,
        "make_serve",
        lambda network: (
            lambda images: (lambda o: (o[0], np.roll(o[1], 2, axis=2)))(served(network)(images))
        ),
    )
    assert check(trained)["flip"]["passed"] is False


def test_a_network_that_says_nothing_fails(model):
    layer = model_lib.head_layers(model)[-1]
    layer.set_weights([np.zeros_like(weight) for weight in layer.get_weights()])
    assert all(checked["passed"] is False for checked in check(model).values())


def test_what_cannot_be_measured_is_not_failed(trained):
    images, labels, masks = HELD_OUT
    assert check(trained, masks=None)["localisation"] == {
        "passed": None,
        "said": "no masks are known",
    }
    one_class = check(trained, images=images[labels == 1], labels=labels[labels == 1], masks=None)
    assert one_class["evidence"]["passed"] is None and one_class["sign"]["passed"] is True
    few = check(trained, images=images[:9], labels=labels[:9], masks=masks[:9])
    assert {checked["passed"] for checked in few.values()} == {None}
    unlabelled = check(trained, labels=None, masks=None)
    assert unlabelled["flip"]["passed"] is True and unlabelled["evidence"]["passed"] is None


def test_an_artifact_that_fails_says_so_on_its_card_and_in_the_gallery(
    model, radiographs_folder, tmp_path
):
    small_artifact.shuffle_head(model, seed=3)
    network = Network((Member(model, small_artifact.ARCHITECTURE),))
    images, labels, _ = HELD_OUT
    split = dataclasses.replace(small_run.split(64, SIZE), images=images, labels=labels)
    described = small_artifact.make(tmp_path / "artifact", network, split=split)
    failed = [name for name, checked in described.map_checks.items() if checked["passed"] is False]
    assert "evidence" in failed
    card = (tmp_path / "artifact" / artifact.MODEL_CARD).read_text()
    assert (
        "The maps fail a check" in card
        and "| evidence | **failed** | the sum of a map separates" in card
    )
    pipeline.run(
        pipeline.Options(
            str(radiographs_folder),
            str(tmp_path / "artifact"),
            str(tmp_path / "out"),
            engine="tensorflow",
        )
    )
    page = (tmp_path / "out" / "gallery.html").read_text()
    assert "The maps of this model fail the check <code>evidence</code>: the sum of a map" in page


@pytest.fixture
def radiographs_folder(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for i, image in enumerate(HELD_OUT[0][:2]):
        cv2.imwrite(str(folder / f"{i}.png"), image)
    return folder


def test_an_artifact_without_checks_still_loads(tmp_path):
    made = small_artifact.make(tmp_path / "artifact", small_artifact.network())
    path = tmp_path / "artifact" / artifact.MODEL_JSON
    fields = json.loads(path.read_text())
    del fields["map_checks"]
    path.write_text(json.dumps(fields))
    loaded = artifact.load(tmp_path / "artifact")
    assert loaded.model_id == made.model_id and loaded.cautions() == []


def test_localisation_by_hand():
    """Two images of 4 x 4: three quarters of one map lie on its mask, the other lies elsewhere."""
    masks = np.zeros((2, 56, 56), bool)
    masks[:, :28, :28] = True
    maps = np.zeros((2, 56, 56), np.float32)
    maps[0, :28, :28], maps[0, 28:, :28] = 3.0, 1.0
    maps[0, 10, 10] = 4.0
    maps[1, 40:, 40:] = 1.0
    found = localisation.score_maps(maps, masks)
    np.testing.assert_array_equal(found["hit_rate"], [1, 0])
    np.testing.assert_allclose(found["energy"], [(3 * 784 + 1) / (3 * 784 + 1 + 784), 0])
    # On the second image all shares are equally good, so tuning takes the first, a tenth, which is
    # below both values of the first image.
    np.testing.assert_allclose(found["iou"], [0.5, 0])
    nothing = localisation.score_maps(np.zeros((2, 7, 7), np.float32), masks)
    assert all(not values.any() for values in nothing.values())


@pytest.mark.parametrize(
    ("row", "column"), [(0, 2), (2, 0), (4, 2), (2, 4), (0, 0), (4, 4), (2, 2)]
)
def test_the_highest_cell_hits_at_its_centre_on_every_side(row, column):
    found, mask = np.zeros((1, 5, 5), np.float32), np.zeros((1, 160, 160), bool)
    found[0, row, column] = 1
    mask[0, 32 * row + 15 : 32 * row + 17, 32 * column + 15 : 32 * column + 17] = True
    assert localisation.score_maps(found, mask)["hit_rate"] == [1]
    assert localisation.score_maps(found, np.roll(mask, 32, axis=2))["hit_rate"] == [0]


@pytest.mark.parametrize(("away", "hit"), [(15, 1), (16, 0)])
def test_the_hit_may_lie_a_little_off(away, hit):
    mask = np.zeros((1, 224, 224), bool)
    mask[0, 100:110, 100:110] = True
    point = np.zeros((1, 224, 224), np.float32)
    point[0, 105, 109 + away] = 1
    assert localisation.score_maps(point, mask)["hit_rate"] == [hit]


def test_baselines_point_where_they_say():
    image = np.zeros((1, 64, 64, 1), np.uint8)
    image[0, 10:20, 40:50] = 255
    assert np.unravel_index(localisation.point_at_centre(image)[0].argmax(), (64, 64)) in [
        (31, 31),
        (31, 32),
        (32, 31),
        (32, 32),
    ]
    y, x = np.unravel_index(localisation.point_at_brightest(image)[0].argmax(), (64, 64))
    assert 13 <= y <= 16 and 43 <= x <= 46


def test_intervals_hold_their_mean():
    found = localisation.compute_interval(np.array([0.0, 1.0] * 50))
    assert found["value"] == 0.5 and 0.35 < found["low"] < 0.45 and 0.55 < found["high"] < 0.65


@pytest.fixture
def drawn(tmp_path) -> dict:
    """Prepare wide images with a patch in each positive, and its place in both file formats."""
    images, labels, masks = pictures(80, seed=9)
    source = tmp_path / "source"
    source.mkdir()
    rows, boxes = [("path", "label", "patient", "split")], {}
    for i, (image, label, mask) in enumerate(zip(images, labels, masks, strict=True)):
        wide = np.pad(
            image[..., 0], ((0, 0), (0, SIZE)), constant_values=100
        )  # 48 x 96: half as large in the square
        cv2.imwrite(str(source / f"{i}.png"), wide)
        rows.append((f"{i}.png", str(label), str(i), "train" if i < 40 else "validation"))
        where = np.argwhere(mask)
        boxes[f"{i}.png"] = [[int(where[0, 1]), int(where[0, 0]), PATCH, PATCH]] if label else []
    (source / "manifest.csv").write_text("".join(",".join(row) + "\n" for row in rows))
    prepare(
        PrepareOptions(
            str(source / "manifest.csv"),
            "manifest",
            str(tmp_path / "data"),
            image_size=SIZE,
            test_fraction=0.0,
        )
    )
    coco = {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(boxes)],
        "annotations": [
            {"image_id": i, "bbox": box} for i, found in enumerate(boxes.values()) for box in found
        ],
    }
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    findings = {
        name: [{"kind": "patch", "box": box} for box in found] for name, found in boxes.items()
    }
    (tmp_path / "findings.json").write_text(json.dumps(findings))
    return boxes


def test_masks_of_both_forms_lie_where_they_are_in_the_letterbox(drawn, tmp_path):
    split = prepared_split.load_split(str(tmp_path / "data"), "validation")
    masks = [
        finding_masks.place_masks(finding_masks.read(str(tmp_path / name)), split)
        for name in ("coco.json", "findings.json")
    ]
    np.testing.assert_array_equal(*masks)
    assert masks[0].shape == (40, SIZE, SIZE)
    for path, label, mask in zip(split.path, split.labels, masks[0], strict=True):
        assert mask.any() == (label == 1)
        for x, y, _, _ in drawn[path]:
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            # Half the size, and a quarter of the square down.
            assert abs(rows[0] - (12 + y / 2)) <= 1 and abs(columns[0] - x / 2) <= 1
            assert abs(len(rows) - PATCH / 2) <= 1 and abs(len(columns) - PATCH / 2) <= 1


def test_verify_measures_with_masks_and_records_it_on_the_card(
    trained, drawn, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        verify, "verify", lambda directory, *rest: artifact.load(directory)
    )  # engines: tests/trainer/publishing/test_verify.py
    model = tmp_path / "artifact"
    small_artifact.make(model, Network((Member(trained, small_artifact.ARCHITECTURE),)))
    assert artifact.load(model).map_checks["localisation"]["passed"] is None
    verified = verify.verify_artifact(
        str(model), str(tmp_path / "data"), None, masks=str(tmp_path / "findings.json")
    )
    assert (
        artifact.load(model) == verified
        and verified.map_checks["localisation"]["passed"] is not None
    )
    assert "| localisation | not" not in (model / artifact.MODEL_CARD).read_text()
    shown = map_checks.format_table(verified.map_checks).splitlines()
    named = [line for line in shown[2:] if not line.startswith(" ")]
    assert len(named) == len(map_checks.CHECKS) and max(map(len, shown)) <= 100


def test_a_file_that_is_no_text_is_not_quoted(tmp_path):
    file = tmp_path / "masks.dcm"
    file.write_bytes(b"{\x80SECRET^NAME")
    with pytest.raises(DataError, match=r"neither a COCO file nor .* \(UnicodeDecodeError\)$"):
        finding_masks.read(str(file))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is neither a COCO file nor"),
        ('{"images": [], "annotations": [{"image_id": 3}]}', "is neither a COCO file nor"),
        ('{"elsewhere.png": []}', "the masks name none of the images of the validation split"),
        (None, "cannot be read; name a COCO file"),
    ],
)
def test_masks_that_say_nothing_of_the_images_are_refused(drawn, tmp_path, content, sentence):
    file = tmp_path / "masks.json"
    if content:
        file.write_text(content)
    with pytest.raises(DataError, match=sentence):
        finding_masks.place_masks(
            finding_masks.read(str(file)),
            prepared_split.load_split(str(tmp_path / "data"), "validation"),
        )


def test_an_artifact_without_its_keras_file_keeps_the_record_that_it_has(tmp_path):
    described = small_artifact.make(tmp_path / "artifact", small_artifact.network())
    (tmp_path / "artifact" / artifact.KERAS_FILE).unlink()
    measured = verify.Sample(HELD_OUT[0], HELD_OUT[1], "validation")
    assert verify.check_maps(tmp_path / "artifact", described, measured) == described
