"""The artifact computes what the model does, without code of ours, whole or not at all."""

import collections
import csv
import dataclasses
import json
import math
import pathlib
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.support import (
    small_artifact,
    small_run,
    tiny_artifact,
    tiny_net,  # noqa: F401 (makes the backbone known)
)
from trainer import artifact, radiograph, storage
from trainer.dataset import prepared_split
from trainer.dataset.dataset_info import DatasetInfo
from trainer.dataset.prepare import prepare
from trainer.errors import ConfigError, DataError
from trainer.evaluation import evaluate, metric_tables
from trainer.evaluation.calibration import OperatingPoint
from trainer.model_json.scaling import Scaling
from trainer.network import model as model_lib
from trainer.network.model import Architecture
from trainer.network.serving import Member, Network, serving_function
from trainer.options import PrepareOptions
from trainer.publishing import artifact_folder, export
from trainer.publishing.trained import EvaluationResult, Origin, ScoredSplit, TrainingResult

SIZE = small_run.SIZE
POINT = OperatingPoint(
    Scaling(1.7, -0.4),
    threshold=0.45,
    rule="kappa",
    uncertain_band=(0.4, 0.5),
    study_scaling=Scaling(0.9, 0.1),
)
DATASET = DatasetInfo(
    image_size=SIZE,
    preprocessing=radiograph.PREPROCESSING,
    fingerprint="abc",
    layout="manifest",
    simulated=True,
    splits={"train": {"images": 12, "studies": 12, "patients": 12, "positives": 6}},
)
ORIGIN = Origin(recipe="humerus", weights="xception_notop.weights.h5", seed=0)
TRAIN, VALIDATION = small_run.split(12, SIZE), small_run.split(9, SIZE, seed=1)

# Runs where this project cannot be found: what anybody with TensorFlow sees.
READER = """
import sys
import numpy as np, tensorflow as tf
served = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
_, inputs = served.structured_input_signature
found = {name: (spec.shape.as_list(), spec.dtype) for name, spec in inputs.items()}
assert found == {"image": ([None, 48, 48, 1], tf.uint8)}
outputs = served(image=tf.constant(np.load(sys.argv[2])))
assert not [name for name in sys.modules if name.split(".")[0] in ("trainer", "batch_inference")]
np.savez(sys.argv[3], **{name: value.numpy() for name, value in outputs.items()})
"""


def build(architecture: Architecture, weights: str = "none") -> keras.Model:
    """Build a model whose head differs from a fresh one."""
    model = model_lib.build(architecture, SIZE, weights)
    rng = np.random.default_rng(1)
    for layer in model_lib.head_layers(model):
        kernel, bias = layer.get_weights()
        layer.set_weights([4 * kernel, rng.normal(0, 0.3, bias.shape)])
    return model


def export_model(
    model, architecture, directory, held_out=VALIDATION, dataset=DATASET, held_out_name="validation"
):
    """Export a model with the scores that it gives, and metrics of no image."""
    logit = (
        model(held_out.images[:])[model_lib.LOGIT].numpy()[:, 0] if len(held_out) else np.zeros(0)
    )
    network = Network((Member(model, architecture),))
    trained = TrainingResult(
        network, TRAIN, ScoredSplit(held_out, logit), ORIGIN, flip_gains={"horizontal": 0.004}
    )
    measured = EvaluationResult(POINT, {"test": {}, held_out_name: {}})
    return export.export(trained, measured, dataset, str(directory))


def served_by(model, scaling):
    return serving_function(Network((Member(model, Architecture()),)), scaling)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    architecture = Architecture("tinynet", "avg", (7, 5), dropout=0.5)
    model = build(architecture)
    directory = tmp_path_factory.mktemp("run") / "artifact"
    return model, directory, export_model(model, architecture, directory)


def test_tensorflow_alone_serves_what_the_keras_model_says(made, tmp_path):
    model, directory, _ = made
    images, _ = small_run.pictures(11, SIZE, seed=4)
    np.save(tmp_path / "images.npy", images)
    command = [
        sys.executable,
        "-I",
        "-c",
        READER,
        directory,
        tmp_path / "images.npy",
        tmp_path / "served.npz",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    served = np.load(tmp_path / "served.npz")
    logit = model(images)[model_lib.LOGIT].numpy()[:, 0]
    assert np.std(logit) > 1e-3
    np.testing.assert_allclose(served["logit"], logit, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        served["probability"], 1 / (1 + np.exp(0.4 - logit.astype(float) / 1.7)), rtol=1e-5
    )
    assert served["cam"].shape == (11, 6, 6)


def test_the_keras_file_is_the_same_model(made):
    model, directory, _ = made
    loaded = keras.models.load_model(directory / artifact.KERAS_FILE)
    images, _ = small_run.pictures(3, SIZE, seed=4)
    np.testing.assert_array_equal(loaded(images)[model_lib.LOGIT], model(images)[model_lib.LOGIT])


def test_what_the_artifact_says_of_itself(made):
    model, directory, sealed = made
    info = artifact.load(directory)
    assert info == sealed
    assert (info.image_size, info.threshold, info.uncertain_band) == (SIZE, 0.45, (0.4, 0.5))
    assert (info.scaling, info.study_scaling) == (Scaling(1.7, -0.4), Scaling(0.9, 0.1))
    assert info.preprocessing == json.loads(json.dumps(radiograph.PREPROCESSING))
    assert info.architecture == {
        "backbone": "tinynet",
        "pooling": "avg",
        "head_widths": [7, 5],
        "dropout": 0.5,
        "members": 1,
        "temperatures": [1.0],
        "flips": "none",
        "flip_gains": {"horizontal": 0.004},
        "threshold_rule": "kappa",
        "threshold_fitted": True,
        **dataclasses.asdict(ORIGIN),
    }
    assert info.dataset["fingerprint"] == "abc"
    served = served_by(model, POINT.scaling)(tf.constant(VALIDATION.images))
    maps = served["cam"].numpy()
    assert (info.cam["height"], info.cam["width"]) == maps.shape[1:]
    assert np.mean(maps[maps > 0] > info.cam["scale"]) == pytest.approx(
        0.01, abs=1.5 / (maps > 0).sum()
    )
    counts, edges = np.histogram(served["probability"].numpy().astype(float), bins=10, range=(0, 1))
    assert info.reference["probability"] == {
        "edges": edges.tolist(),
        "shares": (counts / 9).tolist(),
        "images": 9,
    }
    assert sum(info.reference["brightness"]["shares"]) == pytest.approx(1.0)
    card = (directory / artifact.MODEL_CARD).read_text()
    assert "tinynet" in card and "not a medical device" in card.lower()


def test_without_validation_images_the_maps_are_scaled_on_training(tmp_path):
    architecture = Architecture("tinynet", "max", ())
    model = build(architecture)
    sealed = export_model(
        model, architecture, tmp_path / "a", held_out=VALIDATION.select(np.zeros(0, int))
    )
    maps = served_by(model, Scaling())(tf.constant(TRAIN.images))["cam"].numpy()
    assert sealed.cam["scale"] == pytest.approx(np.quantile(maps[maps > 0], 0.99), rel=1e-5)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_a_model_trained_in_half_precision_serves_in_full(tmp_path, precision):
    architecture = Architecture("tinynet", "avg", ())
    keras.config.set_dtype_policy(precision)
    try:
        with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
            model = build(architecture)
        export_model(model, architecture, tmp_path / "artifact")
        assert keras.config.dtype_policy().name == precision
    finally:
        keras.config.set_dtype_policy("float32")
    full = build(architecture)
    full.set_weights(model.get_weights())
    images, _ = small_run.pictures(5, SIZE, seed=4)
    served = tf.saved_model.load(str(tmp_path / "artifact")).signatures["serving_default"](
        image=tf.constant(images)
    )
    np.testing.assert_allclose(
        served["logit"], full(images)[model_lib.LOGIT].numpy()[:, 0], rtol=1e-5, atol=1e-6
    )


def test_what_keras_adds_for_imagenet_weights_is_exported_too(tmp_path, monkeypatch):
    """EfficientNet has one more layer with ImageNet's weights, which a new graph would lack."""
    architecture = Architecture("efficientnetb0", "avg", ())
    stored = keras.applications.EfficientNetB0(
        include_top=False, weights=None, input_tensor=keras.Input((SIZE, SIZE, 3))
    )
    stored.save_weights(tmp_path / "stand-in.weights.h5")
    get_file = "keras.src.applications.efficientnet.file_utils.get_file"
    monkeypatch.setattr(get_file, lambda *a, **b: str(tmp_path / "stand-in.weights.h5"))
    model, otherwise = (
        model_lib.build(architecture, SIZE, "imagenet"),
        model_lib.build(architecture, SIZE),
    )
    otherwise.set_weights(model.get_weights())
    images, _ = small_run.pictures(3, SIZE, seed=4)
    expected, other, found = (
        m(images)[model_lib.FEATURES].numpy()
        for m in (model, otherwise, export.copy_in_float32(Member(model, architecture)).model)
    )
    assert np.abs(other - expected).max() > 0.05 * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max())
    model.save(tmp_path / "earlier.keras")
    for weights in ("earlier.keras", "stand-in.weights.h5"):
        again = model_lib.build(architecture, SIZE, str(tmp_path / weights))
        features = again(images)[model_lib.FEATURES].numpy()
        np.testing.assert_allclose(features, expected, atol=1e-6 * np.abs(expected).max())


def test_an_export_that_fails_leaves_the_earlier_artifact_alone(tmp_path, monkeypatch):
    architecture = Architecture("tinynet", "avg", ())
    model = build(architecture)
    (tmp_path / "run").mkdir()
    first = export_model(model, architecture, tmp_path / "run" / "artifact")
    with monkeypatch.context() as patched:
        patched.setattr(artifact, "seal", lambda *a, **b: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            export_model(model, architecture, tmp_path / "run" / "artifact")
    assert artifact.load(tmp_path / "run" / "artifact") == first
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["artifact"]
    model.get_layer(model_lib.LOGIT).bias.assign([3.0])
    second = export_model(model, architecture, tmp_path / "run" / "artifact")
    assert (
        artifact.load(tmp_path / "run" / "artifact") == second and second.model_id != first.model_id
    )


@pytest.mark.parametrize(
    "names, found",
    [
        ([], None),
        (["model.json", "notes.txt"], None),
        # An upload that was killed, and an artifact that has lost its `model.json`.
        (["MODEL_CARD.md", "README.md"], None),
        (["model-1.keras", "saved_model.pb", "variables/variables.index"], None),
        (["MODEL_CARD.md", "saved_model.pb", "thesis.txt"], "thesis.txt"),
        (["saved_model.pb", "variables/variables.index"], "saved_model.pb"),  # of another program
        (["README.md"], "README.md"),
    ],
)
@pytest.mark.parametrize("scheme", ["", "ram:/"])
def test_an_export_replaces_only_an_artifact(tmp_path, scheme, names, found):
    folder = f"{scheme}{tmp_path}/things/"
    for name in names:
        storage.write_text(f"{folder}{name}", "x")
    if found is None:
        artifact_folder.check_replaceable(folder)
        return
    with pytest.raises(ConfigError, match=f"holds {found}, but no model.json; all that is in it"):
        artifact_folder.check_replaceable(folder)


@pytest.mark.parametrize("lost", ["saved_model.pb", "variables/variables.index", "model.json"])
def test_an_artifact_without_one_of_its_files_is_not_complete(tmp_path, lost):
    tiny_artifact.make(tmp_path)
    assert artifact_folder.is_complete(str(tmp_path))
    (tmp_path / lost).unlink()
    assert not artifact_folder.is_complete(str(tmp_path))


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", '{"format_version": 2}'])
def test_an_artifact_with_a_damaged_description_is_not_complete(tmp_path, text):
    (tmp_path / artifact.MODEL_JSON).write_text(text)
    assert not artifact_folder.is_complete(str(tmp_path))


def test_whether_an_artifact_of_a_newer_format_is_complete_is_not_guessed(tmp_path):
    (tmp_path / artifact.MODEL_JSON).write_text('{"format_version": 3}')
    with pytest.raises(artifact.NewerFormatError, match="upgrade humerus"):
        artifact_folder.is_complete(str(tmp_path))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> pathlib.Path:
    root = tmp_path_factory.mktemp("prepared")
    source = str(small_run.write_source(root / "source"))
    for size in (SIZE, 64):
        prepare(PrepareOptions(source, "manifest", str(root / f"data{size}"), image_size=size))
    return root


def test_evaluation_of_the_artifact_is_that_of_the_keras_model(made, data_dir):
    model, directory, info = made
    found = evaluate.evaluate(str(directory), str(data_dir / f"data{SIZE}"))
    images, labels = small_run.pictures(small_run.SPLITS["test"], SIZE, seed=2)
    p = POINT.scaling.compute_probability(model(images)[model_lib.LOGIT].numpy()[:, 0])
    called, decided = p >= 0.45, (p < 0.4) | (p >= 0.5)
    assert (found["model_id"], found["split"]) == (info.model_id, "test")
    positive, negative = p[labels == 1], p[labels == 0]
    pairs = (positive[:, None] > negative).mean() + 0.5 * (positive[:, None] == negative).mean()
    assert found["image"]["auroc"]["value"] == pytest.approx(pairs)
    assert found["image"]["brier"]["value"] == pytest.approx(np.mean((p - labels) ** 2), rel=1e-4)
    assert (
        math.isclose(found["image"]["accuracy"]["value"], np.mean(called == labels))
        or not decided.all()
    )
    assert metric_tables.format_table(found)


def test_the_keras_file_needs_keras_alone(made):
    _, directory, _ = made
    with zipfile.ZipFile(directory / artifact.KERAS_FILE) as file:
        layers = json.loads(file.read("config.json"))["config"]["layers"]
    assert "Dropout" in {layer["class_name"] for layer in layers}
    assert {layer["module"] for layer in layers} == {"keras.layers"}
    assert {layer["registered_name"] for layer in layers} == {None}


def test_the_scores_of_each_image_are_written_as_a_table(made, data_dir, tmp_path):
    model, directory, _ = made
    data, file = str(data_dir / f"data{SIZE}"), tmp_path / "new" / "predictions.csv"
    found = evaluate.evaluate(str(directory), data, predictions_file=str(file))
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert list(rows[0]) == [
        "path", "label", "patient_id", "study_id", "split", "predicted", "logit", "probability",
    ]  # fmt: skip
    split = prepared_split.load_split(data, "test")
    assert [row["path"] for row in rows] == sorted(split.path)
    order = np.argsort(split.path)
    logit = model(split.images[order])[model_lib.LOGIT].numpy()[:, 0]
    np.testing.assert_allclose([float(row["logit"]) for row in rows], logit, atol=1e-4)
    probability = POINT.scaling.compute_probability(logit)
    np.testing.assert_allclose([float(row["probability"]) for row in rows], probability, atol=1e-4)
    for name in ("patient_id", "study_id"):
        assert [row[name] for row in rows] == getattr(split, name)[order].tolist()
    assert {row["split"] for row in rows} == {"test"}
    counts = collections.Counter((row["label"], row["predicted"]) for row in rows)
    cells = {"tp": ("1", "1"), "fp": ("0", "1"), "fn": ("1", "0"), "tn": ("0", "0")}
    assert {name: counts[key] for name, key in cells.items()} == found["confusion"]["image"]


def test_a_source_is_evaluated_as_its_prepared_images_are(made, data_dir, tmp_path):
    _, directory, info = made
    source, files = str(data_dir / "source" / "manifest.csv"), [tmp_path / "a", tmp_path / "b"]
    prepared = evaluate.evaluate(
        str(directory), str(data_dir / f"data{SIZE}"), predictions_file=str(files[0])
    )
    found = evaluate.evaluate_source(
        str(directory), source, "manifest", (), "test", predictions_file=str(files[1])
    )
    (said,) = prepared.pop("warnings")  # the artifact was made of another data set
    assert "was trained on other data than" in said and found.pop("warnings") == []
    assert found == prepared and found["model_id"] == info.model_id
    assert files[0].read_bytes() == files[1].read_bytes()
    everything = evaluate.evaluate_source(str(directory), source, "manifest", ())
    assert everything["counts"]["images"] == sum(small_run.SPLITS.values())
    assert (everything["split"], everything["warnings"]) == ("all", [])


def test_what_a_source_lacks_is_said(made, tmp_path):
    _, directory, _ = made
    small_run.write_source(tmp_path / "source", {"train": 12})
    source = tmp_path / "source" / "manifest.csv"
    with pytest.raises(DataError, match="has no image in the split 'validation'; omit --split"):
        evaluate.evaluate_source(str(directory), str(source), "manifest", (), "validation")
    (tmp_path / "source" / "train3.png").write_bytes(b"no image")
    found = evaluate.evaluate_source(str(directory), str(source), "manifest", ())
    assert found["counts"]["images"] == 11
    (warning,) = found["warnings"]
    assert "1 files of" in warning and "(not_an_image 1); first, train3.png: " in warning
    for path in (tmp_path / "source").glob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"can be evaluated: 12 files of .* were refused"):
        evaluate.evaluate_source(str(directory), str(source), "manifest", ())


def test_data_of_another_kind_are_refused(made, data_dir, tmp_path):
    _, directory, _ = made
    with pytest.raises(
        DataError,
        match=f"images of 64 px, and the model takes {SIZE}; prepare them with --image_size={SIZE}",
    ):
        evaluate.evaluate(str(directory), str(data_dir / "data64"))
    with pytest.raises(DataError, match="another version of the preprocessing"):
        evaluate.check_compatible(
            artifact.load(directory),
            dataclasses.replace(DATASET, preprocessing={"version": 0}),
            "somewhere",
        )
    with pytest.raises(
        ConfigError, match=r"is not an exported model.*name the `artifact` folder of a run"
    ):
        evaluate.evaluate(str(tmp_path), str(data_dir / f"data{SIZE}"))


def test_two_artifacts_are_compared_on_the_same_images(made, data_dir, tmp_path):
    _, directory, info = made
    other = build(Architecture("tinynet", "avg", (7, 5), dropout=0.5))
    kernel, bias = model_lib.head_layers(other)[-1].get_weights()
    model_lib.head_layers(other)[-1].set_weights([-kernel, -bias])
    export_model(other, Architecture("tinynet", "avg", (7, 5), dropout=0.5), tmp_path / "artifact")
    data, baseline = str(data_dir / f"data{SIZE}"), str(tmp_path / "artifact")
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    found = evaluate.compare(str(directory), baseline, data, predictions_file=str(one))
    evaluate.evaluate(str(directory), data, predictions_file=str(two))
    assert one.read_bytes() == two.read_bytes()
    row, alone = (
        found["image"]["auroc"],
        evaluate.evaluate(str(directory), data)["image"]["auroc"]["value"],
    )
    assert (found["model_id"], found["baseline_id"]) == (
        info.model_id,
        artifact.load(baseline).model_id,
    )
    assert (row["a"], row["b"]) == pytest.approx((1 - alone, alone)) and row[
        "difference"
    ] == pytest.approx(2 * alone - 1)
    assert f"{alone:.3f}" in metric_tables.format_comparison(found)
    assert "by DeLong's test" in metric_tables.format_comparison(found)


def test_artifacts_of_two_sizes_are_compared_each_on_its_own_data(made, data_dir, tmp_path):
    _, directory, _ = made
    larger = model_lib.build(Architecture("tinynet", "avg", ()), 64)
    dataset, split = dataclasses.replace(DATASET, image_size=64), small_run.split(9, 64)
    export_model(
        larger,
        Architecture("tinynet", "avg", ()),
        tmp_path / "artifact",
        dataset=dataset,
        held_out=split,
    )
    given = (str(directory), str(tmp_path / "artifact"), str(data_dir / f"data{SIZE}"))
    with pytest.raises(
        DataError, match=r"the baseline \(whose --baseline_data_dir may be another\) takes 64"
    ):
        evaluate.compare(*given)
    row = evaluate.compare(*given, baseline_data_dir=str(data_dir / "data64"))["image"]["auroc"]
    alone = evaluate.evaluate(str(tmp_path / "artifact"), str(data_dir / "data64"))["image"][
        "auroc"
    ]
    assert row["a"] == alone["value"]


@pytest.mark.parametrize(
    ("split", "held_out_name", "warning"),
    [
        ("test", "out_of_fold", None),
        ("validation", "out_of_fold", "was trained on images of the validation split"),
        ("train", "validation", "was trained on images of the train split"),
        (
            "validation",
            "validation",
            "was chosen on the validation split: its metrics there are optimistic",
        ),
    ],
)
def test_images_that_the_model_was_made_of_are_warned_of(
    data_dir, tmp_path, split, held_out_name, warning
):
    data = str(data_dir / f"data{SIZE}")
    model, architecture = (
        build(Architecture("tinynet", "avg", ())),
        Architecture("tinynet", "avg", ()),
    )
    for name, dataset in (("own", prepared_split.read_dataset_info(data)), ("foreign", DATASET)):
        export_model(
            model,
            architecture,
            tmp_path / name,
            dataset=dataset,
            held_out_name=held_out_name,
        )
    own, foreign = (
        evaluate.evaluate(str(tmp_path / name), data, split)["warnings"]
        for name in ("own", "foreign")
    )
    assert [warning in said for said in own] == ([True] if warning else [])
    (said,) = foreign
    assert f"{tmp_path / 'foreign'} was trained on other data than {data}" in said
    both = evaluate.compare(str(tmp_path / "foreign"), str(tmp_path / "own"), data, split)
    assert both["warnings"] == [*foreign, *own] or both["warnings"] == [*own, *foreign]


def test_slices_take_columns_that_only_some_images_have():
    split = dataclasses.replace(
        VALIDATION,
        attributes=({"mode": "grey"}, {"mode": "grey", "view": "AP"}, {"view": "AP"}) * 3,
    )
    found = evaluate.evaluate_by_attribute(
        split, evaluate.make_cases(split, np.linspace(-1, 1, 9)), 0.5
    )
    assert {name: [row["images"] for row in rows.values()] for name, rows in found.items()} == {
        "mode": [6, 3],
        "view": [6, 3],
    }


def test_the_same_weights_exported_twice_have_the_same_id(tmp_path):
    built = small_artifact.network()
    first, second = (small_artifact.make(tmp_path / name, built) for name in ("a", "b"))
    assert first.model_id == second.model_id
    other = small_artifact.make(tmp_path / "c", small_artifact.network(members=2))
    assert other.model_id != first.model_id
