"""Which precision a run computes in, and that its figures are those of its artifact."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.support import small_run, tiny_job
from trainer import machine
from trainer.network import model as model_lib
from trainer.publishing import results
from trainer.training import build_run, precision
from trainer.training import strategy as strategy_lib

SIZE = 32


@pytest.fixture
def mixed():
    """Compute in bfloat16 inside a test, as `train` sets it."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu avx512f avx512_bf16 avx512_vnni", True),
        ("fpu avx2 amx_bf16 amx_tile", True),
        ("fpu avx2 avx512f avx512_vnni", False),
        ("", False),
    ],
)
def test_the_processor_says_whether_it_multiplies_bfloat16(tmp_path, flags, expected):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    assert machine.has_bfloat16_products(cpuinfo) is expected
    assert not machine.has_bfloat16_products(tmp_path / "absent")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [([(8, 0)], True), ([(9, 0), (8, 6)], True), ([(9, 0), (7, 5)], False), ([None], False)],
)
def test_all_gpus_must_be_fast_in_it(monkeypatch, capabilities, expected):
    """No GPU can be had here: TensorFlow's list of them is a double."""
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: capabilities)
    monkeypatch.setattr(
        tf.config.experimental,
        "get_device_details",
        lambda gpu: {"compute_capability": gpu} if gpu else {},
    )
    assert precision.is_fast_in_bfloat16("mobilenetv2") is expected


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [("densenet121", True), ("xception", True), ("mobilenetv3small", False)],
)
def test_a_processor_trains_in_it_only_the_backbones_that_gain(monkeypatch, backbone, expected):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    monkeypatch.setattr(machine, "has_bfloat16_products", lambda: True)
    assert precision.is_fast_in_bfloat16(backbone) is expected


@pytest.mark.parametrize(("hosts", "expected"), [([1, 1], "mixed_bfloat16"), ([1, 0], "float32")])
def test_one_host_that_is_slow_in_it_decides_for_all(monkeypatch, tmp_path, hosts, expected):
    """What the hosts say is given; tests/distributed has real ones."""
    monkeypatch.setattr(strategy_lib, "gather_from_hosts", lambda strategy, value: hosts)
    job = tiny_job.make_job(tmp_path, precision="auto")
    chosen = precision.choose(job, tf.distribute.get_strategy())
    assert chosen.settings.precision == expected
    assert precision.choose(chosen, None) is chosen


@pytest.mark.parametrize("asked", ["auto", "float32"])
def test_a_run_that_continues_keeps_its_precision_on_another_machine(tmp_path, asked):
    job = tiny_job.make_job(tmp_path, precision=asked)
    assert precision.take_recorded(job).settings.precision == asked
    (tmp_path / results.SETTINGS).write_text(json.dumps({"config.precision": "mixed_bfloat16"}))
    kept = precision.take_recorded(job).settings.precision
    assert kept == ("mixed_bfloat16" if asked == "auto" else "float32")


@pytest.mark.parametrize(
    "make_strategy",
    [tf.distribute.get_strategy, lambda: tf.distribute.MirroredStrategy(["CPU:0"])],
    ids=["one device", "mirrored"],
)
def test_what_was_trained_in_bfloat16_is_scored_in_float32(tmp_path, mixed, make_strategy):
    split = small_run.split(12, SIZE)
    job = tiny_job.make_job(tmp_path, precision="mixed_bfloat16", deterministic=False)
    run = build_run.build_run(job, make_strategy(), split, split)
    rough, scored = run.predict(split), run.convert_to_float32().predict(split)
    keras.config.set_dtype_policy("float32")
    full = model_lib.build(run.architecture, SIZE)
    full.set_weights(run.model.get_weights())
    expected = full(split.images)[model_lib.LOGIT].numpy()[:, 0]
    np.testing.assert_allclose(scored, expected, rtol=1e-5, atol=1e-6)
    assert np.abs(rough - expected).max() > 1e-4
