"""A whole run by its command: what it leaves, how it continues, and what it refuses."""

import dataclasses
import json
import pathlib
import random
import re
import shutil
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.support import small_recipe, small_run
from tests.support.commands import finish, log, prepared, start, stop_after
from trainer import artifact, main, radiograph
from trainer.dataset import prepared_split
from trainer.dataset.prepare import prepare
from trainer.errors import (
    EXIT_CONFIG,
    EXIT_DONE,
    EXIT_FAILURE,
    EXIT_STOPPED,
    ConfigError,
    DataError,
    HostLostError,
)
from trainer.evaluation import evaluate
from trainer.options import PrepareOptions
from trainer.program import run_lock
from trainer.publishing import results
from trainer.training import dry_run, train
from trainer.training.job import create_job

OF_A_RUN = {
    "artifact",
    "checkpoints",
    "config.json",
    "curves.png",
    "history.csv",
    "metrics.json",
    "report.html",
    "tensorboard",
}

BY_THE_CLOCK = {"images_per_second", "input_wait"}


def left(workdir: pathlib.Path) -> tuple[list[np.ndarray], str, list[list[str]]]:
    """Of a finished run, all that must not depend on how often it was interrupted."""
    assert {path.name for path in workdir.iterdir()} == OF_A_RUN, log(workdir)[-3000:]
    model = keras.models.load_model(workdir / "artifact" / artifact.KERAS_FILE)
    rows = [line.split(",") for line in (workdir / "history.csv").read_text().splitlines()]
    kept = [i for i, name in enumerate(rows[0]) if name not in BY_THE_CLOCK]
    history = [[row[i] for i in kept] for row in rows]
    return model.get_weights(), (workdir / "metrics.json").read_text(), history


def assert_same(one: pathlib.Path, other: pathlib.Path) -> None:
    (weights, metrics, history), (other_weights, other_metrics, other_history) = (
        left(one),
        left(other),
    )
    assert history == other_history
    assert all(np.array_equal(a, b) for a, b in zip(weights, other_weights, strict=True))
    assert metrics == other_metrics
    assert artifact.load(one / "artifact").cam == artifact.load(other / "artifact").cam


@pytest.fixture(scope="module")
def undisturbed(data_dir, tmp_path_factory) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    assert finish(data_dir, workdir) == EXIT_DONE, log(workdir)[-3000:]
    return workdir


def test_what_a_finished_run_leaves(undisturbed):
    _, metrics, history = left(undisturbed)
    found = json.loads(metrics)
    assert set(found) == {"test", "validation"}
    for split in found.values():
        for unit in ("image", "study"):
            brier = split[unit]["brier"]
            assert 0 <= brier["low"] <= brier["value"] <= brier["high"] <= 1
    assert [row[0] for row in history] == ["epoch", "1", "2", "3", "4"]
    info = artifact.load(undisturbed / "artifact")
    assert json.loads(json.dumps(info.metrics)) == found and info.image_size == small_run.SIZE
    assert (undisturbed / "curves.png").read_bytes().startswith(b"\x89PNG")
    settings = json.loads((undisturbed / "config.json").read_text())
    assert (
        settings["config.backbone"] == "tinynet"
        and settings["config.augmentation.rotation"] == 30.0
    )
    assert {name: info.architecture[name] for name in ("recipe", "weights", "seed")} == {
        "recipe": "small_recipe", "weights": "none", "seed": 3,
    }  # fmt: skip
    assert "AUROC of held-out images by the flipped copies that are scored: none" in log(
        undisturbed
    )
    assert (
        "Change in AUROC of held-out images: with the mirror image"
        in (undisturbed / "artifact" / artifact.MODEL_CARD).read_text()
    )
    assert "Test split:" in log(undisturbed) and "Validation split (optimistic" in log(undisturbed)
    assert f"Artifact: {undisturbed}/artifact" in log(undisturbed)
    page = (undisturbed / "report.html").read_text()
    assert re.search(r"\d minutes, interruptions included", page) and "cores: " in page


@pytest.mark.slow
def test_killed_stopped_and_damaged_it_ends_as_if_undisturbed(data_dir, undisturbed, tmp_path):
    workdir = tmp_path / "run"
    assert stop_after(start(data_dir, workdir), workdir, 2, signal.SIGKILL) == -signal.SIGKILL
    assert not (workdir / "metrics.json").exists() and not (workdir / "artifact").exists()
    code = stop_after(
        start(data_dir, workdir, "--config.checkpoint_every_steps=1"), workdir, 5, signal.SIGTERM
    )
    assert code == EXIT_STOPPED, log(workdir)[-3000:]
    assert "stopped by SIGTERM after step" in log(workdir)
    newest = max((workdir / "checkpoints").glob("ckpt-*.data-*"))
    newest.write_bytes(newest.read_bytes()[:5000])
    assert finish(data_dir, workdir) == EXIT_DONE, log(workdir)[-3000:]
    assert "trying the one before it" in log(workdir)
    assert_same(workdir, undisturbed)


@pytest.mark.slow
def test_two_runs_with_one_seed_are_one_and_with_another_are_not(data_dir, undisturbed, tmp_path):
    again, other = tmp_path / "again", tmp_path / "other"
    assert finish(data_dir, again) == finish(data_dir, other, "--config.seed=4") == EXIT_DONE
    assert_same(again, undisturbed)
    pairs = zip(left(again)[0], left(other)[0], strict=True)
    assert any(not np.array_equal(a, b) for a, b in pairs)


@pytest.mark.slow
def test_a_real_network_killed_at_three_random_moments(data_dir, tmp_path):
    flags = ["--config.backbone=mobilenetv2", "--config.unfreeze_layers=9", "--config.epochs=3"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert finish(data_dir, whole, *flags) == EXIT_DONE, log(whole)[-3000:]
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # shown where the test fails
    for step in sorted(random.Random(seed).sample(range(1, 10), 3)):
        assert (
            stop_after(start(data_dir, killed, *flags), killed, step, signal.SIGKILL)
            == -signal.SIGKILL
        )
    assert finish(data_dir, killed, *flags) == EXIT_DONE, log(killed)[-3000:]
    assert_same(killed, whole)


def test_a_finished_run_is_not_trained_again(data_dir, undisturbed):
    before = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*")}
    found = train.train_and_evaluate(
        create_job(small_recipe.get_config(), data_dir, str(undisturbed))
    )
    assert found == json.loads((undisturbed / "metrics.json").read_text())
    assert {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*")} == before


@pytest.mark.slow
def test_a_finished_run_takes_another_threshold_rule_without_training_again(
    data_dir, undisturbed, tmp_path
):
    workdir = tmp_path / "run"
    shutil.copytree(undisturbed, workdir)
    (workdir / "metrics.json").unlink()
    assert (
        finish(data_dir, workdir, "--config.threshold_rule=0.3", "--config.abstain=0.2")
        == EXIT_DONE
    ), log(workdir)[-3000:]
    weights, _, history = left(workdir)
    assert all(np.array_equal(a, b) for a, b in zip(weights, left(undisturbed)[0], strict=True))
    assert history == left(undisturbed)[2]
    info = artifact.load(workdir / "artifact")
    assert (
        info.threshold == 0.3
        and info.architecture["threshold_rule"] == "0.3"
        and info.uncertain_band
    )


def test_a_lost_artifact_is_exported_again_without_training(data_dir, undisturbed, tmp_path):
    workdir = shutil.copytree(undisturbed, tmp_path / "run")
    (workdir / "artifact" / artifact.MODEL_JSON).unlink()
    assert finish(data_dir, workdir) == EXIT_DONE, log(workdir)[-3000:]
    assert_same(workdir, undisturbed)
    shutil.rmtree(workdir / "artifact" / "variables")
    assert train.read_finished(str(workdir)) is None  # it would be exported again, too
    shutil.rmtree(workdir / "artifact")
    assert train.read_finished(str(workdir)) is None
    shutil.rmtree(workdir / "checkpoints")
    with pytest.raises(DataError, match="artifact and its checkpoints are gone; restore one"):
        train.train_and_evaluate(create_job(small_recipe.get_config(), data_dir, str(workdir)))


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "null", "\0"])
@pytest.mark.parametrize(
    ("name", "way_out"),
    [("config.json", "restore that file, or"), ("metrics.json", "remove that file, and")],
)
@pytest.mark.parametrize("begin", [train.train_and_evaluate, dry_run.plan])
def test_a_damaged_record_of_a_run_is_one_sentence(
    data_dir, undisturbed, tmp_path, name, way_out, content, begin
):
    for path in ("config.json", "metrics.json"):
        shutil.copy(undisturbed / path, tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=rf"{name} is damaged .*; {way_out}"):
        begin(create_job(small_recipe.get_config(), data_dir, str(tmp_path)))


def test_the_errors_shown_are_those_farthest_from_the_threshold():
    logit = np.array([-4.0, 0.5, -1.5, -6.0, 3.0])
    split = dataclasses.replace(small_run.split(5), labels=np.array([1, 0, 0, 0, 1]))
    cases = evaluate.make_cases(split, logit)
    # At -2.2 in logits the second and third are called positive: 2.7 and 0.7 away; the first,
    # missed, 1.8.
    assert results.rank_errors(cases, 0.1).tolist() == [1, 0, 2]


def test_other_settings_in_the_same_workdir_are_refused_by_name(data_dir, undisturbed):
    config = small_recipe.get_config()
    config.learning_rate, config.augmentation.rotation = 0.5, 3.0
    config.cache = "disk"  # may change: it alters nothing that is learnt
    with pytest.raises(ConfigError) as caught:
        train.train_and_evaluate(create_job(config, data_dir, str(undisturbed)))
    message = str(caught.value)
    assert (
        "config.learning_rate was 0.01 and is 0.5" in message
        and "config.augmentation.rotation was 30.0 and is 3.0" in message
    )
    assert "another --workdir" in message and "cache" not in message


def test_a_run_without_its_settings_does_not_go_on_with_others(data_dir, undisturbed, tmp_path):
    copied = tmp_path / "run"
    shutil.copytree(undisturbed, copied)
    (copied / "config.json").unlink()
    with pytest.raises(DataError, match=r"but no config\.json .*; restore that file"):
        train.train_and_evaluate(create_job(small_recipe.get_config(), data_dir, str(copied)))


def test_files_of_others_in_the_place_of_the_artifact_are_told_before_training(data_dir, tmp_path):
    (tmp_path / "artifact").mkdir()
    (tmp_path / "artifact" / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"artifact holds thesis\.txt, but no model\.json"):
        train.train_and_evaluate(create_job(small_recipe.get_config(), data_dir, str(tmp_path)))
    assert not (tmp_path / "checkpoints").exists()


def test_data_of_another_preprocessing_are_refused_before_training(data_dir, tmp_path):
    copied = shutil.copytree(data_dir, tmp_path / "data")
    (path,) = copied.glob("radiographs/*/*/metadata.json")
    preprocessing = radiograph.PREPROCESSING | {"version": 0}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"preprocessing": preprocessing}))
    with pytest.raises(DataError, match=r"another version of the preprocessing.*--overwrite$"):
        create_job(small_recipe.get_config(), str(copied), str(tmp_path / "run"))


def test_settings_of_another_program_are_not_replaced(data_dir, tmp_path):
    (tmp_path / "config.json").write_text('{"my": "own"}')
    config = small_recipe.get_config()
    config.deterministic = False  # which would hold for the whole process
    with pytest.raises(ConfigError, match=r"config\.json is a file of another program"):
        train.train_and_evaluate(create_job(config, data_dir, str(tmp_path)))
    assert (tmp_path / "config.json").read_text() == '{"my": "own"}'


def test_other_data_in_the_same_workdir_are_refused(undisturbed, tmp_path):
    other = prepared(tmp_path, counts={"train": 8, "validation": 4, "test": 4})
    with pytest.raises(ConfigError, match=r"data\.fingerprint was"):
        train.train_and_evaluate(create_job(small_recipe.get_config(), other, str(undisturbed)))


def test_a_run_that_could_not_start_leaves_no_settings_in_the_way(data_dir, tmp_path):
    config = small_recipe.get_config()
    config.weights = "absent.h5"
    config.deterministic = False  # which would hold for the whole process
    with pytest.raises(ConfigError, match=r"weights='absent\.h5'"):
        train.train_and_evaluate(create_job(config, data_dir, str(tmp_path)))
    assert json.loads((tmp_path / "config.json").read_text())["config.weights"] == "absent.h5"
    job = create_job(small_recipe.get_config(), data_dir, str(tmp_path))
    assert dry_run.plan(job)["state"] == "new"


def test_a_second_run_on_a_workdir_that_is_being_written_is_refused(data_dir, tmp_path):
    config = small_recipe.get_config()
    config.deterministic = False  # which would hold for the whole process
    job = create_job(config, data_dir, str(tmp_path / "run"))
    with (
        run_lock.hold(job.workdir, "humerus-train"),
        pytest.raises(ConfigError, match="is being written by process"),
    ):
        train.train_and_evaluate(job)
    assert not list((tmp_path / "run").iterdir())


def test_the_command_refuses_them_with_its_code_and_one_sentence(data_dir, undisturbed):
    before = log(undisturbed)
    assert finish(data_dir, undisturbed, "--config.learning_rate=0.5") == EXIT_CONFIG
    said = log(undisturbed).removeprefix(before)
    assert re.search(
        r"^humerus-train: .*learning_rate was 0.01 and is 0.5; name another --workdir",
        said,
        re.MULTILINE,
    )
    assert "Traceback" not in said


@pytest.mark.slow
@pytest.mark.parametrize(
    "counts, one_class",
    [({"train": 16, "validation": 6}, ("validation",)), ({"train": 16}, ())],
    ids=["validation of one class", "training alone"],
)
def test_a_run_without_a_test_split_and_with_little_to_validate_on(tmp_path, counts, one_class):
    data = prepared(tmp_path / "data", counts=counts, one_class=one_class)
    workdir = tmp_path / "run"
    assert finish(data, workdir, "--config.epochs=2") == EXIT_DONE, log(workdir)[-3000:]
    found = json.loads((workdir / "metrics.json").read_text())
    assert found["test"] == {}
    assert (
        found["validation"]["image"]["auroc"]["value"] is None
        if one_class
        else found["validation"] == {}
    )
    assert ("Validation split (optimistic" in log(workdir)) == bool(one_class)
    info = artifact.load(workdir / "artifact")
    assert (
        0 < info.threshold < 1
        and info.cam["scale"] > 0
        and not info.architecture["threshold_fitted"]
    )
    wrong = found["validation"]["confusion"]["image"]["fp"] if one_class else 0
    assert ('id="errors"' in (workdir / "report.html").read_text()) == bool(wrong)


def test_one_image_is_refused_and_one_image_to_evaluate_has_no_interval(
    data_dir, undisturbed, tmp_path
):
    with pytest.raises(DataError, match="the train split has no positive images"):
        prepared(tmp_path / "one", counts={"train": 1})
    one = prepared(tmp_path / "two", counts={"train": 16, "test": 1})
    found = evaluate.evaluate(str(undisturbed / "artifact"), one)
    assert found["counts"]["images"] == 1 and found["image"]["auroc"]["value"] is None
    assert (
        found["image"]["accuracy"]["value"] in (0.0, 1.0)
        and found["image"]["accuracy"]["low"] is None
    )


@pytest.mark.slow
def test_the_images_decide_the_size_of_the_network_and_earlier_weights_fit_any(
    undisturbed, tmp_path
):
    """No recipe names a size: data of another size train, from the artifact of a smaller one."""
    source = small_run.write_source(tmp_path / "source")
    prepare(
        PrepareOptions(
            str(source),
            "manifest",
            str(tmp_path / "data"),
            image_size=64,
            test_fraction=0.0,
            validation_fraction=0.0,
        )
    )
    flags = ("--config.epochs=1", f"--config.weights={undisturbed}/artifact")
    assert finish(str(tmp_path / "data"), tmp_path / "run", *flags) == EXIT_DONE, log(
        tmp_path / "run"
    )[-3000:]
    assert artifact.load(tmp_path / "run" / "artifact").image_size == 64
    assert (
        finish(
            str(tmp_path / "data"),
            tmp_path / "other",
            "--config.weights=none",
            "--config.backbone=mobilenet",
            flags[1],
        )
        == 2
    )
    assert "holds humerus_tinynet, and the configuration asks for humerus_mobilenet" in log(
        tmp_path / "other"
    )


def failing(monkeypatch, data_dir, workdir, fails, **settings):
    """Return the error of a run in which `fails` is called in place of training."""
    monkeypatch.setattr(train, "fit", lambda *unused: fails())
    config = small_recipe.get_config()
    config.deterministic = False  # which would hold for the whole process
    config.update(settings)
    with pytest.raises(Exception) as caught:
        train.train_and_evaluate(create_job(config, data_dir, str(workdir)))
    return caught.value


def raising(error):
    def fails():
        raise error

    return fails


@pytest.mark.slow
@pytest.mark.parametrize(
    "fails",
    [
        lambda: tf.random.normal([2**20, 2**20]),
        raising(
            tf.errors.InternalError(
                None,
                None,
                "Failed to load in-memory CUBIN: CUDA_ERROR_OUT_OF_MEMORY: out of memory",
            )
        ),
        raising(MemoryError("Unable to allocate 5.00 GiB")),
    ],
    ids=["a tensor", "CUDA", "an array"],
)
def test_a_device_out_of_memory_ends_with_the_next_parts_of_the_batch_to_try(
    data_dir, tmp_path, monkeypatch, fails
):
    error = failing(monkeypatch, data_dir, tmp_path, fails)
    assert isinstance(error, ConfigError)
    assert re.search(
        r"out of memory with global_batch_size=8 \(8 images .*"
        r" try --config.gradient_accumulation_steps=2, or prepare",
        str(error),
    )
    fails = raising(error.__cause__)  # TensorFlow waits ten seconds for memory
    halved = failing(monkeypatch, data_dir, tmp_path / "2", fails, gradient_accumulation_steps=2)
    assert "(4 images" in str(halved) and "_steps=4, or prepare" in str(halved)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "ckpt-00000002.json").touch()
    assert "=2 and a new --workdir, or prepare" in str(
        failing(monkeypatch, data_dir, tmp_path, fails)
    )
    alone = str(failing(monkeypatch, data_dir, tmp_path / "alone", fails, global_batch_size=1))
    assert (
        "=1 (1 images of 48 px at once on each of 1 replicas); prepare smaller images or choose a"
        in alone
    )


def test_a_full_disk_is_told_from_a_full_device(data_dir, tmp_path, monkeypatch):
    full = tf.errors.ResourceExhaustedError(None, None, "/data/run/ckpt-7; No space left on device")
    error = failing(monkeypatch, data_dir, tmp_path, raising(full))
    assert isinstance(error, OSError) and re.match(
        "the disk is full: .*ckpt-7.*the same command continues", str(error)
    )


@pytest.mark.parametrize(
    "error, is_of_others",
    [
        (tf.errors.UnavailableError(None, None, "failed to connect to all addresses"), True),
        (
            tf.errors.InternalError(None, None, "Collective ops is aborted by: connection reset"),
            True,
        ),
        (tf.errors.InvalidArgumentError(None, None, "Input to reshape has 3 values"), False),
        (tf.errors.FailedPreconditionError(None, None, "a variable is not initialised"), False),
    ],
)
def test_only_what_other_hosts_can_cause_is_put_down_to_them(
    data_dir, tmp_path, monkeypatch, error, is_of_others
):
    assert failing(monkeypatch, data_dir, tmp_path / "alone", raising(error)) is error
    monkeypatch.setattr(train.strategy_lib, "count_workers", lambda: 2)
    monkeypatch.setattr(train.strategy_lib, "create", tf.distribute.get_strategy)
    monkeypatch.setattr(train.strategy_lib, "gather_from_hosts", lambda strategy, value: [value])
    found = failing(monkeypatch, data_dir, tmp_path / "several", raising(error))
    assert isinstance(found, HostLostError) if is_of_others else found is error


def test_a_profile_of_folds_is_not_silently_left_out(data_dir, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(train.cross_validation, "train_folds", lambda *unused: None)
    monkeypatch.setattr(train.results, "publish", lambda run: {})
    config = small_recipe.get_config()
    config.deterministic = False  # which would hold for the whole process
    train.train_and_evaluate(create_job(config, data_dir, str(tmp_path), folds=2, profile=True))
    assert "--profile traces runs without --folds only" in caplog.text


def test_a_host_that_is_not_the_first_tells_no_result(data_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train, "train_and_evaluate", lambda *unused: {})
    workdir, told = tmp_path / "run", tmp_path / "result.json"
    assert (
        main.train(
            ["humerus-train", f"--data_dir={data_dir}", f"--workdir={workdir}", f"--json={told}"]
        )
        == EXIT_DONE
    )
    assert not told.exists() and not capsys.readouterr().out


def test_a_diverging_run_ends_with_a_sentence_and_its_code(data_dir, tmp_path):
    # Every step multiplies the kernels by 1 - 1000 * 100.
    flags = (
        "--config.optimizer=sgd",
        "--config.learning_rate=1000",
        "--config.weight_decay=100",
        "--config.warmup_epochs=0",
    )
    assert finish(data_dir, tmp_path / "run", *flags) == EXIT_FAILURE
    assert "humerus-train: the loss became" in log(tmp_path / "run") and "Traceback" not in log(
        tmp_path / "run"
    )


@pytest.mark.slow
def test_float16_on_two_devices_is_refused_before_anything_is_written(data_dir, tmp_path):
    workdir = tmp_path / "run"
    flags = ("--config.precision=mixed_float16",)
    assert finish(data_dir, workdir, *flags, devices=2) == EXIT_CONFIG
    assert log(workdir).splitlines()[-1] == (
        "humerus-train: --config.precision=mixed_float16 trains on one device only, and this run"
        " has 2 replicas, which can't agree on an overflow; use mixed_bfloat16 or float32"
    )
    assert not workdir.exists()


def test_training_on_one_class_is_refused(data_dir, tmp_path, monkeypatch):
    whole = prepared_split.load_split
    monkeypatch.setattr(prepared_split, "load_split", lambda *a: _negatives(whole(*a)))
    config = small_recipe.get_config()
    config.deterministic = False  # which would hold for the whole process
    with pytest.raises(
        DataError, match="0 positives among the 13 images to train on; both classes are needed"
    ):
        train.train_and_evaluate(create_job(config, data_dir, str(tmp_path / "run")))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.json"]


def test_what_the_run_is_made_with_is_written_by_the_chief_alone(data_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(
        train.strategy_lib,
        "is_chief",
        lambda strategy: strategy.extended.should_checkpoint and chief,
    )
    monkeypatch.setattr(train, "build_run", lambda *unused: pytest.fail("far enough"))
    config = small_recipe.get_config()
    config.deterministic = False  # which would hold for the whole process
    for chief in (False, True):
        with pytest.raises(pytest.fail.Exception, match="far enough"):
            train.train_and_evaluate(create_job(config, data_dir, str(tmp_path / "run")))
        assert (tmp_path / "run" / "config.json").exists() == chief


def _negatives(split):
    return dataclasses.replace(split).select(np.flatnonzero(split.labels == 0))
