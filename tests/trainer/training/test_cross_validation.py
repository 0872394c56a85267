"""Folds keep patients together, score unseen images only, and are averaged by the artifact."""

import csv
import json
import pathlib
import shutil
import signal

import keras
import numpy as np
import pytest
import scipy.special
import sklearn.metrics
import tensorflow as tf

from tests.support import small_recipe, small_run, tiny_net  # noqa: F401 (makes the backbone known)
from tests.support.commands import finish, log, start, stop_after
from trainer import artifact, main
from trainer.dataset import prepared_split
from trainer.errors import EXIT_CONFIG, EXIT_DONE, ConfigError, DataError
from trainer.evaluation import fit_scaling
from trainer.network import model as model_lib
from trainer.network.flips import PASSES
from trainer.training import cross_validation, flip_choice
from trainer.training.job import create_job

FLAGS = (
    "--folds=3",
    "--config.epochs=2",
    "--config.monitor=last",
    "--config.augmentation.vertical_flip=true",
    "--config.test_time_flips=horizontal",
)


@pytest.fixture(scope="module")
def undisturbed(data_dir, tmp_path_factory) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    assert finish(data_dir, workdir, *FLAGS) == EXIT_DONE, log(workdir)[-3000:]
    return workdir


def pool(images: int, patients: int, seed: int = 0) -> prepared_split.Split:
    """Patients with different numbers of images, about a third of them positive."""
    split, rng = small_run.split(images, 16), np.random.default_rng(seed)
    patient = rng.integers(patients, size=images)
    split.labels[:] = patient % 3 == 0
    split.patient_id[:] = [f"p{i}" for i in patient]
    return split


def test_folds_part_patients_and_share_out_positives():
    split = pool(600, 150)
    fold_of = cross_validation.assign_folds(split, 5, seed=0)
    assert set(fold_of) == set(range(5))
    for patient in np.unique(split.patient_id):
        assert len(set(fold_of[split.patient_id == patient])) == 1
    for k in range(5):
        assert abs((fold_of == k).mean() - 0.2) < 0.04
        assert abs(split.labels[fold_of == k].mean() - split.labels.mean()) < 0.05
    assert not np.array_equal(fold_of, cross_validation.assign_folds(split, 5, seed=1))


def test_the_order_of_the_records_does_not_matter():
    split = pool(60, 20)
    order = np.random.default_rng(3).permutation(60)
    shuffled = cross_validation.assign_folds(split.select(order), 3, seed=0)
    np.testing.assert_array_equal(shuffled, cross_validation.assign_folds(split, 3, seed=0)[order])


def test_more_folds_than_patients_are_refused():
    split = pool(40, 9)
    positives = len({p for p, label in zip(split.patient_id, split.labels, strict=True) if label})
    with pytest.raises(
        DataError,
        match=rf"--folds=5: too few patients have a positive image \({positives}\);"
        f" ask for at most {positives}",
    ):
        cross_validation.assign_folds(split, 5, seed=0)


@pytest.mark.parametrize(
    "weights, warned",
    [("runs/all/artifact", True), ("none", False), ("xception_notop.weights.h5", False)],
)
def test_weights_that_may_have_seen_what_is_held_out_are_warned_of(
    data_dir, tmp_path, monkeypatch, caplog, weights, warned
):
    monkeypatch.setattr(cross_validation, "build_run", lambda *unused: pytest.fail("far enough"))
    config = small_recipe.get_config()
    config.weights = weights
    with pytest.raises(pytest.fail.Exception, match="far enough"):
        cross_validation.train_folds(
            create_job(config, data_dir, str(tmp_path), folds=3), None, None
        )
    assert (
        "out-of-fold figures, temperatures and threshold are optimistic" in caplog.text
    ) == warned


def logits(
    model: keras.Model, images: np.ndarray, flips: flip_choice.Flips = "horizontal"
) -> np.ndarray:
    """Mean over the flipped copies of the images, by Keras."""
    return np.mean(
        [
            model.predict(np.flip(images, axes), verbose=0)[model_lib.LOGIT][:, 0]
            for axes in PASSES[flips]
        ],
        axis=0,
    )


@pytest.mark.slow
def test_what_the_folds_leave(undisturbed, data_dir):
    found = json.loads((undisturbed / "metrics.json").read_text())
    assert set(found) == {"test", "out_of_fold", "folds"}
    assert (
        sum(row["images"] for row in found["folds"])
        == found["out_of_fold"]["counts"]["images"]
        == 36
    )
    members = [
        keras.models.load_model(undisturbed / f"artifact/model-{k}.keras") for k in (1, 2, 3)
    ]
    split = prepared_split.load_split(data_dir, "train+validation")
    with (undisturbed / "out_of_fold.csv").open() as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    assert list(rows) == sorted(split.path)
    for image, path, patient in zip(split.images, split.path, split.patient_id, strict=True):
        row = rows[path]
        k = int(row["fold"])
        expected = logits(members[k - 1], image[None])[0] / found["folds"][k - 1]["temperature"]
        assert float(row["logit"]) == pytest.approx(expected, abs=1e-4)
        assert float(row["probability"]) == pytest.approx(scipy.special.expit(expected), abs=1e-4)
        assert {other["fold"] for other in rows.values() if other["patient_id"] == patient} == {
            row["fold"]
        }


@pytest.mark.slow
def test_the_artifact_is_the_mean_of_its_networks_and_their_mirror_images(undisturbed):
    found = json.loads((undisturbed / "metrics.json").read_text())
    images, _ = small_run.pictures(7, small_run.SIZE, seed=9)
    members = [
        keras.models.load_model(undisturbed / f"artifact/model-{k}.keras") for k in (1, 2, 3)
    ]
    temperatures = [row["temperature"] for row in found["folds"]]
    expected = np.mean(
        [logits(model, images) / t for model, t in zip(members, temperatures, strict=True)], axis=0
    )
    serve = tf.saved_model.load(str(undisturbed / "artifact")).signatures["serving_default"]
    served, mirrored = (
        serve(image=tf.constant(np.ascontiguousarray(x))) for x in (images, images[:, :, ::-1])
    )
    np.testing.assert_allclose(served["logit"], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(mirrored["logit"], served["logit"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(mirrored["cam"][:, :, ::-1], served["cam"], rtol=1e-4, atol=1e-6)
    info = artifact.load(undisturbed / "artifact")
    assert (info.architecture["members"], info.architecture["flips"]) == (3, "horizontal")
    assert info.architecture["flip_gains"] == {}
    assert "3 x tinynet" in (undisturbed / "artifact" / artifact.MODEL_CARD).read_text()


@pytest.mark.slow
def test_without_the_setting_the_pooled_gain_decides_for_all_networks(
    data_dir, undisturbed, tmp_path
):
    workdir = tmp_path / "run"
    shutil.copytree(undisturbed, workdir)
    (workdir / "metrics.json").unlink()
    assert finish(data_dir, workdir, *FLAGS[:-1]) == EXIT_DONE, log(workdir)[-3000:]
    models = [keras.models.load_model(workdir / f"artifact/model-{k}.keras") for k in (1, 2, 3)]
    split = prepared_split.load_split(data_dir, "train+validation")
    fold_of = cross_validation.assign_folds(split, 3, small_recipe.get_config().seed)
    area = {}
    for flips in PASSES:
        score = np.empty(len(split))
        for k, model in enumerate(models):
            held_out = fold_of == k
            logit = logits(model, split.images[np.flatnonzero(held_out)], flips)
            score[held_out] = logit / fit_scaling.fit_temperature(logit, split.labels[held_out])
        area[flips] = sklearn.metrics.roc_auc_score(split.labels, score)
    for name in ("artifact", "artifact_single"):
        described = artifact.load(workdir / name).architecture
        assert described["flip_gains"] == pytest.approx(
            {flips: area[flips] - area["none"] for flips in ("horizontal", "both")}, abs=1e-9
        )
    chosen = described["flips"]
    assert chosen == "none" or area[chosen] - area["none"] >= flip_choice.MIN_GAIN
    with (workdir / "out_of_fold.csv").open() as file:
        rows = {row["path"]: float(row["logit"]) for row in csv.DictReader(file)}
    reported = sklearn.metrics.roc_auc_score(split.labels, [rows[path] for path in split.path])
    assert reported == pytest.approx(area[chosen], abs=1e-9)


@pytest.mark.slow
def test_the_single_best_network_is_exported_too(undisturbed):
    rows = json.loads((undisturbed / "metrics.json").read_text())["folds"]
    best = max(range(3), key=lambda k: rows[k]["auroc"])
    single = keras.models.load_model(undisturbed / "artifact_single" / artifact.KERAS_FILE)
    member = keras.models.load_model(undisturbed / f"artifact/model-{best + 1}.keras")
    for a, b in zip(single.get_weights(), member.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    images, _ = small_run.pictures(5, small_run.SIZE, seed=9)
    serve = tf.saved_model.load(str(undisturbed / "artifact_single")).signatures["serving_default"]
    np.testing.assert_allclose(
        serve(image=tf.constant(images))["logit"],
        logits(member, images) / rows[best]["temperature"],
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.slow
def test_killed_in_the_second_fold_it_goes_on_there(data_dir, undisturbed, tmp_path):
    workdir = tmp_path / "run"
    code = stop_after(start(data_dir, workdir, *FLAGS), workdir, 2, signal.SIGKILL, fold="fold-2/")
    assert code == -signal.SIGKILL and not (workdir / "metrics.json").exists()
    assert not list(workdir.glob("fold-3/checkpoints/ckpt-*"))
    first_fold = {
        path: path.stat().st_mtime_ns for path in (workdir / "fold-1/checkpoints").rglob("ckpt-*")
    }
    assert finish(data_dir, workdir, *FLAGS) == EXIT_DONE, log(workdir)[-3000:]
    assert {
        path: path.stat().st_mtime_ns for path in (workdir / "fold-1/checkpoints").rglob("ckpt-*")
    } == first_fold
    for name in ("metrics.json", "out_of_fold.csv"):
        assert (workdir / name).read_text() == (undisturbed / name).read_text()
    for k in (1, 2, 3):
        a, b = (
            keras.models.load_model(run / f"artifact/model-{k}.keras").get_weights()
            for run in (workdir, undisturbed)
        )
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.slow
def test_an_ensemble_is_no_start_for_another_run_and_the_message_says_what_is(undisturbed):
    architecture = model_lib.Architecture("tinynet", "avg", (8,))
    with pytest.raises(ConfigError, match="artifact_single"):
        model_lib.build(architecture, small_run.SIZE, str(undisturbed / "artifact"))
    model_lib.build(architecture, small_run.SIZE, str(undisturbed / "artifact_single"))


def test_one_fold_is_refused(tmp_path, capsys):
    flags = ["--data_dir=data", f"--workdir={tmp_path}/run", "--folds=1"]
    assert main.train(["humerus-train", *flags]) == EXIT_CONFIG
    assert "--folds=1 holds nothing out" in capsys.readouterr().err
