"""The loop gives the same result on any number of devices and after any interruption."""

import concurrent.futures
import dataclasses
import json
import multiprocessing
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import uuid
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.support import small_run, tiny_job
from trainer.configs import default
from trainer.errors import ConfigError, DataError, StoppedError, TrainingDivergedError
from trainer.network import model as model_lib
from trainer.training import fit, optimization
from trainer.training.build_run import build_run
from trainer.training.checkpoints import Checkpoints
from trainer.training.exponential_moving_average import WeightsAverage
from trainer.training.journal import Journal
from trainer.training.loop import State
from trainer.training.training_step import Objective, clip_global_norm

UNCHANGED = {
    "horizontal_flip": False,
    "rotation": 0.0,
    "shift": 0.0,
    "zoom": 0.0,
    "contrast": 0.0,
    "brightness": 0.0,
}
BY_THE_CLOCK = {"images_per_second", "input_wait"}
ROOT = pathlib.Path(__file__).resolve().parents[3]
SCHEDULE = optimization.schedule
TRAIN, VALIDATION = small_run.split(26), small_run.split(10, seed=1, name="validation")


def make_run(
    workdir,
    train=TRAIN,
    validation=VALIDATION,
    on_step=lambda step: None,
    profile=False,
    **settings,
) -> fit.Run:
    """Build a run of the smallest network as the command does.

    `on_step` is called with the number of each step of a phase, from 0, when its learning rate is
    asked for.
    """
    job = tiny_job.make_job(workdir, profile=profile, **settings)

    def listened_schedule(*arguments):
        rate = SCHEDULE(*arguments)

        def compute_rate(step):
            on_step(step)
            return rate(step)

        return compute_rate

    with mock.patch.object(optimization, "schedule", listened_schedule):
        return build_run(job, tf.distribute.get_strategy(), train, validation)


def weights(run: fit.Run) -> list[np.ndarray]:
    return [variable.numpy() for variable in run.loop.weights()]


def curve(state: State) -> list[tuple[float, ...]]:
    """All of the history that doesn't depend on the clock."""
    return [
        tuple(value for key, value in row.items() if key not in BY_THE_CLOCK)
        for row in state.history
    ]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> str:
    """Path of weights that a run starts from as pre-trained."""
    return tiny_job.save_weights(tmp_path_factory.mktemp("weights") / "model.keras")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("undisturbed"))
    state = fit.fit(run)
    return curve(state), weights(run), run


def assert_as_undisturbed(undisturbed, state, run):
    assert curve(state) == undisturbed[0]
    for ours, theirs in zip(weights(run), undisturbed[1], strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.fixture(scope="module")
def devices(tmp_path_factory) -> dict:
    """Return the results of `tests.support.two_devices`, which runs in a process of its own."""
    output = tmp_path_factory.mktemp("devices") / "found.json"
    command = [sys.executable, "-m", "tests.support.two_devices", str(output)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(output.read_text())


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        "last batch partly filled",
        "last batch without a real example for one replica",
        "fewer examples than one replica's share",
        "several steps per execution",
        "dropout",
        "clipped gradients",
        "four micro-batches on each device",
    ],
)
def test_two_devices_learn_what_one_learns(devices, case):
    one, two = devices[case]
    assert one["loss"][0] != one["loss"][1]
    assert one["flipped"] != one["logits"]
    for key in ("loss", "accuracy", "val_loss", "logits", "flipped"):
        np.testing.assert_allclose(two[key], one[key], atol=1e-5)
    np.testing.assert_allclose(two["weights"], one["weights"], rtol=1e-5)


@pytest.mark.slow
def test_two_devices_train_with_batch_statistics(devices):
    (found,) = devices["batch statistics in training"]
    assert np.isfinite([*found["loss"], *found["logits"], *found["weights"]]).all()
    assert np.std(found["logits"]) > 1e-3


@pytest.mark.parametrize(
    ("optimizer", "parts"), [({}, 8), ({"optimizer": "sgd", "learning_rate": 1.0}, 2)]
)
def test_micro_batches_learn_what_the_whole_batch_learns(tmp_path, pretrained, optimizer, parts):
    """The last batch of an epoch has two examples: with eight parts, six have none."""
    settings = {
        "weights": pretrained,
        "head_epochs": 1,
        "epochs": 2,
        "dropout": 0.5,
        "clip_norm": 0.05,
        "label_smoothing": 0.1,
        **optimizer,
    }
    train = TRAIN.select(np.flatnonzero(np.arange(26) != 1))  # one class has more weight
    whole = make_run(tmp_path / "whole", train=train, **settings)
    run = make_run(tmp_path / "parts", train=train, gradient_accumulation_steps=parts, **settings)
    before = weights(whole)
    np.testing.assert_allclose(curve(fit.fit(run)), curve(fit.fit(whole)), rtol=1e-4)
    for ours, theirs in zip(weights(run), weights(whole), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    moved = [np.abs(a - b).max() for a, b in zip(weights(whole), before, strict=True)]
    assert max(moved) > 1e-2


def measure_peaks(folder: pathlib.Path) -> list[int]:
    """Return the most memory that this process has held after a step in 16 parts, and in one."""
    peaks, train = [], small_run.split(64, size=256)
    for parts in (16, 1):
        settings = {"gradient_accumulation_steps": parts, "global_batch_size": 64, "ema_decay": 0.0}
        run = make_run(folder, train=train, size=256, **settings)
        run.loop.train_epoch(train, State(), 64, augmentation=None, seed=0)
        # Not ru_maxrss, which begins with that of the process that started this one.
        status = pathlib.Path("/proc/self/status").read_text()
        peaks.append(1024 * int(status.partition("VmHWM:")[2].split()[0]))
    return peaks


@pytest.mark.slow
def test_the_memory_holds_the_activations_of_one_micro_batch(tmp_path):
    """The whole batch takes 300 MiB more; 170 where parts are computed beside each other."""
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        in_parts, whole = pool.submit(measure_peaks, tmp_path).result()
    assert whole - in_parts > 220 * 2**20


@pytest.mark.parametrize(
    ("gradients", "limit", "expected"),
    [
        ([[3.0, 0.0], [4.0]], 1.0, [[0.6, 0.0], [0.8]]),  # their norm is 5
        ([[3.0, 0.0], [4.0]], 5.0, [[3.0, 0.0], [4.0]]),
        ([[0.3, 0.0], [0.4]], 1.0, [[0.3, 0.0], [0.4]]),
    ],
)
@pytest.mark.parametrize("loss_scale", [1.0, 1024.0])
def test_the_norm_of_all_gradients_together_is_limited(gradients, limit, expected, loss_scale):
    optimizer = keras.optimizers.SGD()
    if loss_scale > 1:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=loss_scale)
    optimizer.build([keras.Variable(values) for values in gradients])
    scaled = [tf.constant(values) * loss_scale for values in gradients]
    clipped = clip_global_norm(scaled, limit, optimizer)
    for found, values in zip(clipped, expected, strict=True):
        np.testing.assert_allclose(found, np.array(values) * loss_scale, rtol=1e-6)


def test_clipped_steps_are_shorter_in_the_same_direction(tmp_path):
    """The first step of SGD is proportional to the gradient."""
    steps = {}
    for clip_norm in (0.0, 0.01, 0.02, 500.0):
        run = make_run(
            tmp_path / str(clip_norm),
            train=small_run.split(8),
            epochs=1,
            optimizer="sgd",
            learning_rate=1.0,
            weight_decay=0.0,
            ema_decay=0.0,
            clip_norm=clip_norm,
        )
        before = weights(run)
        fit.fit(run)
        moved = [after - start for after, start in zip(weights(run), before, strict=True)]
        trainable = [bool(variable.trainable) for variable in run.model.weights]
        steps[clip_norm] = np.concatenate(
            [step.ravel() for step, is_trained in zip(moved, trainable, strict=True) if is_trained]
        )
    free, one, two, loose = steps.values()
    # Weights near 1 are rounded to steps of 1.2e-7.
    np.testing.assert_allclose(two, 2 * one, rtol=1e-3, atol=1e-6)
    np.testing.assert_array_equal(loose, free)
    assert np.linalg.norm(two) < np.linalg.norm(free)
    cosine = two @ free / np.linalg.norm(two) / np.linalg.norm(free)
    assert cosine == pytest.approx(1, abs=1e-4)


def test_a_tiny_run_learns_what_is_there_to_learn(tmp_path):
    still = {"rotation": 0.0, "contrast": 0.0}
    train = small_run.split(64)
    run = make_run(tmp_path, train=train, epochs=6, dropout=0.0, augmentation=still)
    state = fit.fit(run)
    assert state.history[-1]["loss"] < 0.6 * state.history[0]["loss"]
    assert max(row["val_auroc"] for row in state.history) > 0.9


def test_the_loss_of_an_epoch_is_the_mean_over_its_examples(tmp_path, pretrained):
    run = make_run(
        tmp_path,
        weights=pretrained,
        learning_rate=0.0,
        weight_decay=0.0,
        dropout=0.0,
        epochs=1,
        ema_decay=0.0,
        augmentation=UNCHANGED,
    )
    logits = run.loop.predict(TRAIN, 8).astype(float)
    p = 1 / (1 + np.exp(-logits))
    expected = -np.mean(np.where(TRAIN.labels == 1, np.log(p), np.log(1 - p)))
    row = fit.fit(run).history[0]
    assert row["loss"] == pytest.approx(expected, rel=1e-5)
    assert row["accuracy"] == pytest.approx(np.mean((logits > 0) == TRAIN.labels))


def test_the_objective_by_hand():
    found = Objective(0.1, (0.5, 2.0))(tf.constant([1.0, 0.0]), tf.constant([0.3, 0.3])).numpy()
    log_p, log_q = -np.log1p(np.exp(-0.3)), -np.log1p(np.exp(0.3))
    expected = [-2.0 * (0.95 * log_p + 0.05 * log_q), -0.5 * (0.05 * log_p + 0.95 * log_q)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_average_of_the_weights_by_hand():
    weight = keras.Variable([1.0, 2.0])
    average = WeightsAverage([weight], 0.5)
    expected = np.array([1.0, 2.0])
    for step, value in enumerate(([3.0, 0.0], [5.0, 1.0], [7.0, 7.0])):
        weight.assign(value)
        average.update(tf.constant(step, tf.int64))
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * np.array(value)
    with average.use_averages():
        np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-6)
    np.testing.assert_array_equal(weight.numpy(), [7.0, 7.0])


def at(step: int, action):
    """Return a function that calls `action` just before step number `step`, from 0."""
    return lambda asked: action() if asked == step else None


class Killed(BaseException):
    """Ends the run on the spot, as SIGKILL does: nothing catches it and nothing is saved."""


def kill():
    raise Killed


def read_newest_state(workdir: pathlib.Path) -> dict:
    """Return the state in the newest commit mark."""
    return json.loads(max((workdir / "checkpoints").glob("*.json")).read_text())


@pytest.mark.parametrize("step, number", [(2, signal.SIGTERM), (8, signal.SIGINT)])
def test_a_stopped_run_goes_on_exactly(undisturbed, tmp_path, step, number):
    handler = signal.getsignal(number)
    run = make_run(
        tmp_path, on_step=at(step, lambda: os.kill(os.getpid(), number)), checkpoint_every_steps=100
    )
    with pytest.raises(
        StoppedError,
        match=f"stopped by {number.name} after step {step + 1}; the same command continues",
    ):
        fit.fit(run)
    assert signal.getsignal(number) is handler
    assert read_newest_state(tmp_path)["total_steps"] == step + 1
    again = make_run(tmp_path)
    assert_as_undisturbed(undisturbed, fit.fit(again), again)


def test_a_stop_between_calls_of_several_steps_comes_after_the_next_one_and_goes_on_exactly(
    undisturbed, tmp_path
):
    """A call has at most three steps of an epoch of four; the third call has step 6."""
    stop = at(6, lambda: os.kill(os.getpid(), signal.SIGTERM))
    run = make_run(tmp_path, on_step=stop, steps_per_execution=3, checkpoint_every_steps=100)
    with pytest.raises(
        StoppedError, match="stopped by SIGTERM after step 7; the same command continues"
    ):
        fit.fit(run)
    again = make_run(tmp_path)
    assert_as_undisturbed(undisturbed, fit.fit(again), again)


class StoppingWhenRead:
    """Images of which the first look is a SIGTERM."""

    def __init__(self, images: np.ndarray):
        self.shape, self._images = images.shape, images

    def __getitem__(self, rows):
        os.kill(os.getpid(), signal.SIGTERM)
        return self._images[rows]


def test_a_run_stopped_while_it_validates_goes_on_exactly(undisturbed, tmp_path):
    validation = dataclasses.replace(VALIDATION, images=StoppingWhenRead(VALIDATION.images))
    run = make_run(tmp_path, validation=validation, checkpoint_every_steps=100)
    with pytest.raises(
        StoppedError, match="stopped by SIGTERM after step 4; the same command continues"
    ):
        fit.fit(run)
    again = make_run(tmp_path)
    assert_as_undisturbed(undisturbed, fit.fit(again), again)


def test_a_signal_that_finds_nothing_left_to_stop_goes_to_whoever_waits_for_it(
    tmp_path, monkeypatch
):
    heard = []
    earlier = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        run = make_run(tmp_path, epochs=1)
        restored = Journal.restore_best
        monkeypatch.setattr(
            Journal,
            "restore_best",
            lambda self: signal.raise_signal(signal.SIGTERM) or restored(self),
        )
        fit.fit(run)
    finally:
        signal.signal(signal.SIGTERM, earlier)
    assert heard == [signal.SIGTERM]


def test_a_run_killed_three_times_goes_on_exactly(undisturbed, tmp_path):
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # shown where the test fails
    for step in sorted(random.Random(seed).sample(range(16), 3)):
        run = make_run(tmp_path, on_step=at(step, kill))
        with pytest.raises(Killed):
            fit.fit(run)
    run = make_run(tmp_path)
    assert_as_undisturbed(undisturbed, fit.fit(run), run)


def test_a_run_in_micro_batches_that_is_killed_goes_on_exactly(tmp_path):
    whole = make_run(tmp_path / "whole", gradient_accumulation_steps=2)
    state = fit.fit(whole)
    run = make_run(tmp_path / "killed", on_step=at(7, kill), gradient_accumulation_steps=2)
    with pytest.raises(Killed):
        fit.fit(run)
    assert read_newest_state(tmp_path / "killed")["total_steps"] == 6
    run = make_run(tmp_path / "killed", gradient_accumulation_steps=2)
    assert_as_undisturbed((curve(state), weights(whole)), fit.fit(run), run)


def test_a_run_killed_while_it_validates_goes_on_exactly(undisturbed, tmp_path, monkeypatch):
    run = make_run(tmp_path)
    monkeypatch.setattr(run.loop, "predict", lambda *unused, **named: kill())
    with pytest.raises(Killed):
        fit.fit(run)
    assert read_newest_state(tmp_path)["step"] == 4
    run = make_run(tmp_path)
    assert_as_undisturbed(undisturbed, fit.fit(run), run)


def test_a_run_whose_folder_is_a_url_goes_on_exactly(undisturbed, tmp_path):
    """`file://` is treated as an object store, and is the one that needs its folders made."""
    url = f"file://{tmp_path}/runs/1"
    run = make_run(url, on_step=at(7, kill))
    with pytest.raises(Killed):
        fit.fit(run)
    run = make_run(url)
    assert_as_undisturbed(undisturbed, fit.fit(run), run)
    assert list((tmp_path / "runs" / "1" / "checkpoints").glob("ckpt-*.json"))


def test_a_damaged_newest_checkpoint_costs_only_itself(undisturbed, tmp_path):
    run = make_run(tmp_path, on_step=at(11, kill))
    with pytest.raises(Killed):
        fit.fit(run)
    marks = sorted((tmp_path / "checkpoints").glob("ckpt-*.json"))
    assert [int(mark.stem[5:]) for mark in marks] == [6, 8, 10]
    marks[-1].write_text(marks[-1].read_text()[:-1])
    first = []
    run = make_run(tmp_path, on_step=first.append)
    state = fit.fit(run)
    assert first[0] == 8
    assert_as_undisturbed(undisturbed, state, run)


def test_a_damaged_newest_checkpoint_is_not_kept_in_place_of_a_good_one(undisturbed, tmp_path):
    run = make_run(tmp_path, on_step=at(11, kill))
    with pytest.raises(Killed):
        fit.fit(run)
    newest = tmp_path / "checkpoints" / "ckpt-00000010.json"
    newest.write_text(newest.read_text()[:-1])
    stop = at(8, lambda: os.kill(os.getpid(), signal.SIGTERM))
    run = make_run(tmp_path, on_step=stop, keep_checkpoints=1)
    with pytest.raises(StoppedError, match="after step 9"):
        fit.fit(run)
    assert [mark.name for mark in (tmp_path / "checkpoints").glob("ckpt-*.json")] == [
        "ckpt-00000009.json"
    ]
    run = make_run(tmp_path)
    assert_as_undisturbed(undisturbed, fit.fit(run), run)


def test_what_killed_writers_left_is_swept_away_at_the_next_start(tmp_path):
    run = make_run(tmp_path, on_step=at(7, kill))
    with pytest.raises(Killed):
        fit.fit(run)
    folder = tmp_path / "checkpoints"
    good = {path.name for path in folder.iterdir()}
    left = [
        folder / "ckpt-00000008.index",
        folder / "ckpt-00000008.data-00000-of-00001",
        folder / "best" / "ckpt-00000009.index",
    ]
    left += [place / f".{uuid.UUID(int=7).hex}.partial" for place in (folder, tmp_path)]
    left += [
        folder / "ckpt-00000008_temp" / "part-00000-of-00001.index",
        folder / "ckpt-00000006_temp" / "part-00000-of-00001.index",
    ]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.write_text("half")
    found = []
    run = make_run(
        tmp_path, on_step=lambda step: found.append({path.name for path in folder.iterdir()})
    )
    fit.fit(run)
    assert found[0] == good
    assert not [path for path in left if path.exists() and path.read_text() == "half"]


def test_files_of_others_in_the_folders_of_a_run_are_left_alone(tmp_path):
    theirs = [
        tmp_path / "ckpt-backup" / "best.h5",
        tmp_path / "ckpt-100.index",
        tmp_path / "checkpoints" / "ckpt-old.keras",
        tmp_path / "checkpoints" / "ckpt-00000003-copy" / "weights",
    ]
    for path in theirs:
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text("theirs")
    fit.fit(make_run(tmp_path, epochs=1))
    assert all(path.read_text() == "theirs" for path in theirs)


def test_damaged_weights_of_the_best_epoch_are_told_with_what_mends_it(tmp_path):
    fit.fit(make_run(tmp_path, epochs=1))
    for path in (tmp_path / "checkpoints" / "best").iterdir():
        path.unlink()
    advice = f"remove {tmp_path}/checkpoints to start again"
    with pytest.raises(DataError, match=advice):
        fit.fit(make_run(tmp_path, epochs=1))
    shutil.rmtree(tmp_path / "checkpoints")
    fit.fit(make_run(tmp_path, epochs=1))


@pytest.mark.parametrize("deterministic", [True, False])
def test_xla_has_no_deterministic_gradient_of_maxima(tmp_path, deterministic):
    def build() -> object:
        return make_run(
            tmp_path, xla=True, deterministic=deterministic, backbone="vgg16", head_epochs=0
        )

    if not deterministic:
        assert build().loop.epochs
        return
    with pytest.raises(ConfigError, match=r"of the layer block1_pool; set --config\.deterministic"):
        build()


def test_the_history_of_a_run_killed_behind_its_last_checkpoint_is_whole(tmp_path, monkeypatch):
    save = Checkpoints.save

    def then_killed(self, step, state):
        save(self, step, state)
        if len(state.get("history", ())) == 2:
            kill()

    run = make_run(tmp_path, epochs=2)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Checkpoints, "save", then_killed)
        fit.fit(run)
    run = make_run(tmp_path, epochs=2, on_step=lambda step: pytest.fail("all epochs are trained"))
    state = fit.fit(run)
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 1 + len(state.history) == 3


def test_without_any_readable_checkpoint_the_run_does_not_start_from_half_of_one(tmp_path):
    run = make_run(tmp_path, on_step=at(3, kill))
    with pytest.raises(Killed):
        fit.fit(run)
    (data,) = (tmp_path / "checkpoints").glob("ckpt-*.data-*")
    data.write_bytes(data.read_bytes()[:-100])
    with pytest.raises(
        DataError, match=f"no checkpoint in {tmp_path}/checkpoints can be read; remove {tmp_path}"
    ):
        fit.fit(make_run(tmp_path))


def test_head_first_then_the_rest_and_a_kill_in_either_phase(tmp_path, pretrained):
    settings = {"weights": pretrained, "head_epochs": 1, "epochs": 2, "unfreeze_layers": "3"}
    whole = make_run(tmp_path / "whole", **settings)
    state = fit.fit(whole)
    assert [row["epoch"] for row in state.history] == [1, 2, 3]
    for step in (2, 5):
        run = make_run(tmp_path / "killed", on_step=at(step, kill), **settings)
        with pytest.raises(Killed):
            fit.fit(run)
    run = make_run(tmp_path / "killed", **settings)
    assert_as_undisturbed((curve(state), weights(whole)), fit.fit(run), run)


def test_the_first_phase_changes_the_head_alone(tmp_path, pretrained):
    run = make_run(tmp_path, weights=pretrained, head_epochs=1, epochs=0, ema_decay=0.0)
    before = weights(run)
    fit.fit(run)
    same = [np.array_equal(ours, theirs) for ours, theirs in zip(weights(run), before, strict=True)]
    assert same == [True] * (len(same) - 4) + [False] * 4


def test_the_best_epoch_is_what_is_left(undisturbed):
    history, _, run = undisturbed
    columns = [
        "epoch",
        "loss",
        "accuracy",
        "learning_rate",
        "val_loss",
        "val_accuracy",
        "val_auroc",
        "criterion",
    ]
    rows = [dict(zip(columns, row, strict=True)) for row in history]
    best = max(rows, key=lambda row: row["val_auroc"])
    logits = run.loop.predict(VALIDATION, 8)
    loss = np.log1p(np.exp(-logits * (2 * VALIDATION.labels - 1))).mean()
    assert loss == pytest.approx(best["val_loss"], rel=1e-5)
    lines = (pathlib.Path(run.job.workdir) / "history.csv").read_text().splitlines()
    assert lines[0].split(",") == [*columns[:4], "images_per_second", "input_wait", *columns[4:]]
    assert [int(line.split(",")[0]) for line in lines[1:]] == [1, 2, 3, 4]
    assert list((pathlib.Path(run.job.workdir) / "tensorboard").glob("events.out.tfevents.*"))


def test_a_plateau_lowers_the_rate_and_then_ends_the_run(tmp_path, pretrained):
    run = make_run(
        tmp_path,
        weights=pretrained,
        learning_rate=1e-12,
        weight_decay=0.0,
        ema_decay=0.0,
        schedule="plateau",
        warmup_epochs=0.0,
        plateau_patience=1,
        plateau_factor=0.5,
        early_stopping_patience=3,
        epochs=9,
    )
    state = fit.fit(run)
    assert state.stopped_early
    assert [row["learning_rate"] for row in state.history] == pytest.approx(
        [1e-12, 1e-12, 5e-13, 2.5e-13]
    )


@pytest.mark.parametrize("kind", ["no images", "one class"])
def test_validation_that_cannot_rank(tmp_path, kind):
    kept = np.zeros(0, int) if kind == "no images" else np.flatnonzero(VALIDATION.labels == 0)
    run = make_run(
        tmp_path, validation=VALIDATION.select(kept), epochs=2, early_stopping_patience=1
    )
    state = fit.fit(run)
    assert all(np.isnan(row["val_auroc"]) for row in state.history)
    if kind == "no images":
        assert len(state.history) == 2 and [row["criterion"] for row in state.history] == [1.0, 2.0]
    else:
        assert [row["criterion"] for row in state.history] == [
            -row["val_loss"] for row in state.history
        ]


def test_one_wrong_label_in_five_does_not_keep_it_from_learning(tmp_path):
    train = small_run.split(120)
    wrong = np.random.default_rng(0).random(len(train)) < 0.2
    assert 15 < wrong.sum() < 35
    noisy = dataclasses.replace(train, labels=np.where(wrong, 1 - train.labels, train.labels))
    run = make_run(tmp_path, noisy, small_run.split(60, seed=1), epochs=15, monitor="last")
    state = fit.fit(run)
    assert state.history[-1]["val_auroc"] > 0.95


def test_a_loss_that_is_no_number_stops_the_run_and_leaves_the_checkpoints(tmp_path):
    run = make_run(tmp_path, optimizer="sgd", learning_rate=1e30, warmup_epochs=0.0)
    with pytest.raises(
        TrainingDivergedError,
        match=r"the loss became (nan|inf) in step \d+ .*lower the learning rate",
    ) as caught:
        fit.fit(run)
    assert "checkpoint" not in str(caught.value)  # there may be none yet
    marks = [json.loads(mark.read_text()) for mark in (tmp_path / "checkpoints").glob("*.json")]
    assert all(np.isfinite(mark["sums"]).all() for mark in marks)


def test_a_run_without_an_epoch_is_refused(tmp_path):
    with pytest.raises(
        ConfigError, match=r"no epoch would be trained .*; set --config\.epochs to 1 or more"
    ):
        fit.fit(make_run(tmp_path, epochs=0))


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_learns_the_same_within_rounding(tmp_path, pretrained, precision, parts):
    settings = {"weights": pretrained, "epochs": 1, "gradient_accumulation_steps": parts}
    keras.config.set_dtype_policy(precision)
    try:
        run = make_run(tmp_path, precision=precision, **settings)
        state = fit.fit(run)
    finally:
        keras.config.set_dtype_policy("float32")
    full = make_run(tmp_path / "full", **settings)
    assert state.history[0]["loss"] == pytest.approx(fit.fit(full).history[0]["loss"], rel=0.02)
    assert all(weight.dtype == np.float32 for weight in weights(run))


@pytest.mark.parametrize("parts", [1, 2])
def test_xla_learns_the_same_within_rounding(tmp_path, parts):
    losses = []
    for xla in (False, True):
        # Without dropout: XLA draws other random numbers.
        settings = {"xla": xla, "dropout": 0.0, "gradient_accumulation_steps": parts}
        run = make_run(tmp_path / str(xla), epochs=2, **settings)
        losses.append([row["loss"] for row in fit.fit(run).history])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)


@pytest.mark.parametrize(
    ("settings", "factor", "rule"),
    [
        ({"global_batch_size": 16}, 1.0, "by the square root of the batch, 16 / 16: head 0.0002"),
        ({"global_batch_size": 64}, 2.0, "by the square root of the batch, 64 / 16: head 0.0004"),
        ({"global_batch_size": 4}, 0.5, "by the square root of the batch, 4 / 16: head 0.0001"),
        (
            {"global_batch_size": 64, "optimizer": "sgd"},
            4.0,
            "in proportion to the batch, 64 / 16: head 0.0008",
        ),
        (
            {"global_batch_size": 64, "reference_batch_size": 0},
            1.0,
            "not scaled by the batch: head 0.0002",
        ),
        (
            {"backbone_lr_factor": 0.5, "depth_lr_decay": 0.1},
            1.0,
            f"16 / 16: head 0.0002, backbone {2e-4 * 0.5 * 0.1:.2g}"
            f" to {2e-4 * 0.5 * 0.1 ** (1 / 3):.2g}.",
        ),
        ({"unfreeze_layers": "0"}, 1.0, "16 / 16: head 0.0002, backbone frozen."),
    ],
)
def test_learning_rates_scale_with_the_batch(settings, factor, rule, caplog):
    caplog.set_level("INFO", "absl")
    config = default.get_config()
    config.update(settings)
    assert optimization.compute_batch_factor(config) == factor
    model = model_lib.build(model_lib.Architecture("tinynet"), 32)
    (phase,) = optimization.build_phases(model, config, 10, pretrained=True)
    assert phase.learning_rate(10) == pytest.approx(config.learning_rate * factor)
    assert "Learning rates, " in caplog.text and rule in caplog.text


def scalars(workdir) -> dict[str, list]:
    """Read the scalars that TensorBoard would show now: step and value, by name."""
    (events,) = (pathlib.Path(workdir) / "tensorboard").iterdir()
    kept: dict[str, list] = {}
    for event in tf.compat.v1.train.summary_iterator(str(events)):
        for value in event.summary.value:
            kept.setdefault(value.tag, []).append((event.step, tf.make_ndarray(value.tensor)))
    return kept


def test_what_a_checkpoint_has_tensorboard_has_too(tmp_path):
    """So that a kill takes nothing from it that isn't done again."""
    found = {}

    def look(step):
        found[step] = [step for step, _ in scalars(tmp_path).get("step/loss", [])]

    run = make_run(tmp_path, on_step=look, epochs=2)
    fit.fit(run)
    assert found[2] == [1, 2] and found[6] == [1, 2, 3, 4, 5, 6]


def test_tensorboard_gets_steps_epochs_and_validation(undisturbed):
    kept = scalars(undisturbed[2].job.workdir)
    steps = [step for step, _ in kept["step/loss"]]
    assert steps == list(range(1, 17)) and {
        f"step/{name}" for name in (*BY_THE_CLOCK, "learning_rate")
    } <= set(kept)
    assert [step for step, _ in kept["epoch/val_auroc"]] == [4, 8, 12, 16]
    assert kept["epoch/loss"][-1][1] == pytest.approx(undisturbed[0][-1][1])
    assert len(kept["validation/logit_positive"]) == len(kept["validation/logit_negative"]) == 4
    width, height, encoded = kept["validation/maps"][-1][1]
    picture = tf.io.decode_png(encoded).numpy()
    assert picture.shape == (int(height), int(width), 3) == (448, 896, 3)
    assert (
        0
        <= min(float(value) for _, value in kept["step/input_wait"])
        <= max(float(v) for _, v in kept["step/input_wait"])
        <= 1
    )


def test_a_profile_is_a_trace_that_tensorboard_finds(tmp_path):
    run = make_run(tmp_path, profile=True)
    fit.fit(run)
    (trace,) = (tmp_path / "tensorboard" / "plugins" / "profile").glob("*/*.xplane.pb")
    assert trace.stat().st_size > 1000


def test_a_run_too_short_to_be_traced_says_so(tmp_path, caplog):
    run = make_run(tmp_path, profile=True, epochs=1)
    fit.fit(run)
    assert "Nothing was traced: --profile begins after 10 steps" in caplog.text


def test_the_cosine_by_hand():
    cosine = optimization.schedule("cosine", 2.0, steps=12, warmup=2)
    expected = [2 / 3, 4 / 3, 2.0, 1 + np.cos(np.pi * 0.5), 0.0, 0.0]
    assert [cosine(step) for step in (0, 1, 2, 7, 12, 20)] == pytest.approx(expected)


@pytest.mark.parametrize("name", ["plateau", "constant"])
def test_other_schedules_stay_at_their_peak(name):
    rate = optimization.schedule(name, 2.0, 12, 1)
    assert [rate(step) for step in (0, 1, 11)] == [1.0, 2.0, 2.0]


def test_every_layer_learns_at_its_share_of_the_rate(tmp_path, pretrained):
    """In one step of SGD a variable changes by its rate times its gradient, shared by two runs."""

    def change(**settings) -> dict[str, np.ndarray]:
        run = make_run(
            tmp_path,
            weights=pretrained,
            optimizer="sgd",
            weight_decay=0.0,
            dropout=0.0,
            **settings,
        )
        before = {v.path: v.numpy() for v in run.model.trainable_variables}
        run.loop.train_epoch(TRAIN.select(np.arange(8)), State(), 8, augmentation=None, seed=0)
        return {v.path: v.numpy() - before[v.path] for v in run.model.trainable_variables}

    same, scaled = change(), change(backbone_lr_factor=0.5, depth_lr_decay=0.1)
    share = {
        path: np.abs(scaled[path]).sum() / np.abs(same[path]).sum()
        for path in same
        if np.abs(same[path]).sum()
    }
    expected = {"block1_conv/kernel": 0.0, "block2_conv/kernel": 3 / 9, "block3_conv/kernel": 6 / 9}
    for path, depth in expected.items():
        assert share[path] == pytest.approx(0.5 * 0.1 ** (1 - depth), rel=1e-3)
    assert share["logit/bias"] == pytest.approx(1.0, rel=1e-3)
