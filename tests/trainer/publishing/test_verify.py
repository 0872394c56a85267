"""Each engine and precision is compared with float32 TensorFlow and recorded in the artifact."""

import dataclasses
import errno
import hashlib
import json
import pathlib
import shutil
import subprocess
import sys

import cv2
import numpy as np
import openvino
import pytest

from tests.support import commands, small_artifact, small_disk, small_run, tiny_net  # noqa: F401 (tiny_net: a backbone)
from trainer import artifact, machine, radiograph
from trainer.artifact import OUTPUTS
from trainer.dataset import prepared_split
from trainer.dataset.dataset_info import DatasetInfo
from trainer.errors import ConfigError, DataError
from trainer.evaluation.calibration import OperatingPoint
from trainer.inference import artifact_copy, engines, openvino_engine
from trainer.inference.engines import Choice
from trainer.model_json.scaling import Scaling
from trainer.network import model as model_lib
from trainer.network.model import Architecture
from trainer.network.serving import Member, Network
from trainer.publishing import export, quantize, verification_images, verify
from trainer.publishing.trained import EvaluationResult, ScoredSplit, TrainingResult

pytestmark = pytest.mark.slow
SIZE = small_run.SIZE
TRAIN, VALIDATION = small_run.split(80, SIZE), small_run.split(40, SIZE, seed=1, name="validation")
DATASET = DatasetInfo(
    image_size=SIZE,
    preprocessing=radiograph.PREPROCESSING,
    fingerprint="abc",
    layout="manifest",
    simulated=True,
    splits={"train": {"images": 80, "studies": 80, "patients": 80, "positives": 40}},
)
# Largest |difference| of logit and of map, each as a share of the reference's own spread.
LIMITS = {
    "openvino/float32": 1e-4,
    "onnx/float32": 1e-4,
    "openvino/bfloat16": 0.1,
    "openvino/int8": 0.3,
}


def build(
    pooling: str, head: tuple[int, ...], directory, verify_engines: bool = False
) -> artifact.Artifact:
    architecture = Architecture("tinynet", pooling, head)
    network = model_lib.build(architecture, SIZE, "none", seed=2)
    rng = np.random.default_rng(1)
    for layer in model_lib.head_layers(network):
        kernel, bias = layer.get_weights()
        layer.set_weights([4 * kernel, rng.normal(0, 0.3, bias.shape)])
    held_out = ScoredSplit(VALIDATION, np.zeros(len(VALIDATION)))
    trained = TrainingResult(Network((Member(network, architecture),)), TRAIN, held_out)
    point = OperatingPoint(Scaling(), threshold=0.5, rule="kappa")
    measured = EvaluationResult(point, {})
    return export.export(trained, measured, DATASET, str(directory), verify_engines=verify_engines)


@pytest.fixture(
    scope="module", params=[("avg", ()), ("avg", (7, 5)), ("max", ()), ("max", (7, 5))], ids=str
)
def made(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("run") / "artifact"
    return directory, build(*request.param, directory, verify_engines=True)


@pytest.mark.parametrize("name", LIMITS)
def test_an_engine_answers_like_the_reference(made, name):
    directory, described = made
    choice = Choice(*name.split("/"))
    if not engines.can_run(choice):
        pytest.skip(f"this processor has no arithmetic for {name}")
    images = VALIDATION.images[:16]
    expected = engines.load(directory, described, engines.REFERENCE, 16).run(images)
    outputs = engines.load(directory, described, choice, 16).run(images)
    for output in ("logit", "cam"):
        assert outputs[output].dtype == np.float32
        difference = np.abs(outputs[output] - expected[output]).max()
        assert difference <= LIMITS[name] * np.ptp(expected[output]), (
            output,
            difference,
            np.ptp(expected[output]),
        )
    np.testing.assert_allclose(
        outputs["probability"], 1 / (1 + np.exp(-outputs["logit"])), atol=1e-6
    )
    # Not rounded to bfloat16, in which the lower half of every number is zero.
    assert (outputs["logit"].view(np.uint32) & 0xFFFF).all()


def test_the_network_kept_between_runs_answers_to_the_bit_like_the_one_just_converted(
    made, tmp_path
):
    directory, described = made
    choice = Choice(
        "openvino", "bfloat16" if engines.can_run(Choice("openvino", "bfloat16")) else "float32"
    )
    fresh, first, later = (
        engines.load(directory, described, choice, 16, cache).run(VALIDATION.images[:16])
        for cache in (None, tmp_path, tmp_path)
    )
    assert (first["logit"].view(np.uint32) & 0xFFFF).all()
    for output in OUTPUTS:
        np.testing.assert_array_equal(first[output], fresh[output])
        np.testing.assert_array_equal(later[output], fresh[output])


@pytest.mark.parametrize(
    ("weights", "transpose_a", "transpose_b", "exact"),
    [
        ((5, 1), False, False, True),
        ((1, 5), False, True, True),
        ((4, 1), False, True, False),
        ((3, 1), True, False, False),
    ],
)
def test_only_a_product_with_one_column_is_made_exact_and_none_changes(
    weights, transpose_a, transpose_b, exact
):
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=weights).astype(np.float32)
    columns = 1 if (weights, transpose_b) == ((4, 1), True) else 5
    features = rng.normal(size=(3, columns)).astype(np.float32)
    expected = (features.T if transpose_a else features) @ (kernel.T if transpose_b else kernel)
    given = openvino.opset13.parameter(features.shape, np.float32)
    product = openvino.opset13.matmul(
        given, openvino.opset13.constant(kernel), transpose_a, transpose_b
    )
    network = openvino.Model([openvino.opset13.result(product)], [given])
    openvino_engine.keep_logit_exact(network)
    assert ("MatMul" not in {operation.get_type_name() for operation in network.get_ops()}) == exact
    answer = openvino.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(features)[
        0
    ]
    np.testing.assert_allclose(answer, expected, rtol=1e-5)


def test_what_is_recorded_of_an_export(made):
    directory, described = made
    assert artifact.load(directory) == described
    assert {artifact.INT8_NETWORK, "openvino/int8.bin", artifact.ONNX_NETWORK} <= set(
        described.files
    )
    expected = {str(choice) for choice in engines.CHOICES if engines.can_run(choice)}
    assert set(described.engines) == expected >= {"tensorflow/float32", "openvino/float32"}
    assert described.engines["openvino/float32"]["within_tolerance"]
    for record in described.engines.values():
        assert record["images"] == len(VALIDATION) and record["from"] == "validation"
        assert record["images_per_second"] > 0 and record["device"] == "CPU"
    assert described.engines["openvino/float32"]["probability_largest"] < 1e-5
    rounded = {name for name in described.engines if not name.endswith("/float32")}
    assert {name for name, record in described.engines.items() if "alignment" in record} == rounded
    table = verify.format_table(described)
    lines = table.splitlines()
    named = [line.split()[0] for line in lines[2:] if not line.startswith(" ")]
    assert set(named) == set(described.engines) and len(named) == len(described.engines)
    assert max(map(len, lines)) <= 100
    assert "|" not in table and set(lines[1]) == {"-", " "}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Make an artifact that nobody has verified."""
    directory = tmp_path_factory.mktemp("plain") / "artifact"
    build("avg", (), directory)
    return directory


@pytest.fixture
def copied(plain, tmp_path):
    return shutil.copytree(plain, tmp_path / "copied")


def test_verified_later_it_is_the_same_model_and_the_int8_network_stays(copied):
    before = artifact.load(copied)
    assert not before.engines
    samples = verification_images.choose_samples(TRAIN, VALIDATION)
    first = verify.verify(copied, *samples)
    assert first.model_id == before.model_id
    kept = (copied / "openvino" / "int8.bin").stat().st_mtime_ns
    again = verify.verify(copied, *samples)
    # The card states the speed, which differs between measurements.
    card = {artifact.MODEL_CARD: "", artifact.HUB_CARD: ""}
    assert again.files | card == first.files | card
    assert (copied / "openvino" / "int8.bin").stat().st_mtime_ns == kept
    assert "is used (" in (copied / artifact.MODEL_CARD).read_text()
    verify.verify(copied, *samples, requantize=True)
    assert (copied / "openvino" / "int8.bin").stat().st_mtime_ns != kept


def test_a_full_disk_leaves_the_artifact_as_it_was(copied, tmp_path, caplog):
    samples = verification_images.choose_samples(TRAIN, VALIDATION)
    verify.verify(copied, *samples)
    with small_disk.mounted(tmp_path / "disk", 6000) as disk:
        model = disk / "model"
        shutil.copytree(copied, model)
        free = shutil.disk_usage(disk).free // 1024
        filler = small_disk.fill(disk, free)
        with pytest.raises(OSError, match=r"can't be written \(the disk is full\); remove"):
            verify.verify(model, *samples, requantize=True)
        artifact.load(model)
        filler.unlink()
        assert artifact.INT8_NETWORK in verify.verify(model, *samples, requantize=True).files
        assert not list(model.rglob(".*"))


def test_it_warns_of_data_that_the_model_was_not_trained_on(copied, tmp_path, caplog):
    data_dir = commands.prepared(tmp_path)
    described = artifact.load(copied)
    verification_images.load_prepared(described, data_dir, None)
    assert "holds other data than the model was trained on" in caplog.text
    caplog.clear()
    info = prepared_split.read_dataset_info(data_dir)
    same = dataclasses.replace(described, dataset={"fingerprint": info.fingerprint})
    verification_images.load_prepared(same, data_dir, None)
    assert "other data" not in caplog.text


def test_a_card_that_was_edited_is_left_as_it_is(copied):
    card, hub_card = copied / artifact.MODEL_CARD, copied / artifact.HUB_CARD
    hub_card.write_text(f"{hub_card.read_text()}\n## Licence\n")
    edited = hub_card.read_bytes()
    for _ in range(2):
        verify.verify(copied, *verification_images.choose_samples(TRAIN, VALIDATION))
    assert hub_card.read_bytes() == edited
    assert "is used (" in card.read_text()
    artifact.load(copied)


@pytest.mark.parametrize("is_edited", [False, True])
def test_the_card_of_another_version_is_written_anew_unless_it_was_edited(
    copied, monkeypatch, is_edited
):
    monkeypatch.setattr(machine, "has_packages", lambda *names: False)
    card, listed = copied / artifact.MODEL_CARD, copied / artifact.MODEL_JSON
    card.write_text("# A card as another version wrote it\n")
    described = json.loads(listed.read_text())
    described["files"][artifact.MODEL_CARD] = hashlib.sha256(card.read_bytes()).hexdigest()
    listed.write_text(json.dumps(described))
    if is_edited:
        card.write_text("# A card of my own\n")
    for _ in range(2):
        verify.verify(copied, *verification_images.choose_samples(TRAIN, VALIDATION))
        assert (card.read_text() == "# A card of my own\n") == is_edited
    assert is_edited or "is used (" in card.read_text()


def test_an_engine_that_compresses_logits_is_aligned_and_scorers_align_it_too(copied, monkeypatch):
    # Elsewhere OpenVINO computes it too, more slowly and with values that may overflow.
    monkeypatch.setattr(machine, "has_int8_products", lambda: True)
    load, image = openvino_engine.OpenVinoEngine.run, VALIDATION.images[:32]

    def compressed(engine, pixels):
        outputs = load(engine, pixels)
        return outputs | {"logit": 0.5 * outputs["logit"] - 1}

    monkeypatch.setattr(openvino_engine.OpenVinoEngine, "run", compressed)
    described = verify.verify(copied, *verification_images.choose_samples(TRAIN, VALIDATION))
    record = described.engines["openvino/int8"]
    assert record["alignment"]["slope"] == pytest.approx(2, rel=0.1)
    assert record["logit_difference"] < 0.2
    outputs, expected = (
        engines.load(copied, described, choice, 32).run(image)
        for choice in (Choice("openvino", "int8"), engines.REFERENCE)
    )
    spread = expected["logit"].std()
    np.testing.assert_allclose(outputs["logit"], expected["logit"], atol=0.5 * spread)
    np.testing.assert_allclose(
        outputs["probability"], 1 / (1 + np.exp(-outputs["logit"])), atol=1e-6
    )
    # Verified again, the alignment is fitted to the engine's own logits, not to aligned ones.
    again = verify.verify(copied, *verification_images.choose_samples(TRAIN, VALIDATION))
    assert again.engines["openvino/int8"]["alignment"] == record["alignment"]


def test_an_engine_that_fails_or_differs_is_recorded_as_one_not_to_choose(copied, monkeypatch):
    class Crooked:
        def __init__(self, engine):
            self.engine = engine

        def run(self, image):
            outputs = self.engine.run(image)
            return outputs | {"probability": 1 - outputs["probability"]}

    load = engines.load

    def wrong(directory, described, choice, *more):
        if choice.engine == "onnx":
            raise RuntimeError("no such\ninstruction")
        engine = load(directory, described, choice, *more)
        return Crooked(engine) if choice == Choice("openvino", "float32") else engine

    monkeypatch.setattr(engines, "load", wrong)
    found = verify.verify(copied, *verification_images.choose_samples(TRAIN, VALIDATION)).engines
    assert found["onnx/float32"] == {
        "error": "RuntimeError: no such instruction",
        "within_tolerance": False,
    }
    assert not found["openvino/float32"]["within_tolerance"]
    assert found["tensorflow/float32"]["within_tolerance"]


def test_the_int8_network_is_the_best_of_three_ways(copied):
    images = TRAIN.images[:16] // 8
    images[:3] *= 8  # a few that stand out, as plates and screws do
    quantize.quantize(copied, images, copied)
    network = openvino.convert_model(str(copied))
    written = openvino.Core().read_model(str(copied / artifact.INT8_NETWORK))
    exact = quantize.compute_logit(network, images)

    def measure_what_no_line_explains(other):
        _, (squares, *_), *_ = np.polyfit(
            quantize.compute_logit(other, images), exact, 1, full=True
        )
        return squares

    errors = [
        measure_what_no_line_explains(other)
        for other in quantize.quantize_in_three_ways(network, images)
    ]
    assert len(set(errors)) == 3
    assert max(errors) > 1.2 * min(errors)
    assert measure_what_no_line_explains(written) == pytest.approx(min(errors), rel=0.01)


def test_the_first_convolution_of_each_member_and_of_its_mirror_image_stays_exact(tmp_path):
    network = dataclasses.replace(small_artifact.network(2), flips="horizontal")
    small_artifact.make(tmp_path, network)
    quantize.quantize(tmp_path, TRAIN.images[:8], tmp_path)
    written = openvino.Core().read_model(str(tmp_path / artifact.INT8_NETWORK))
    sources = [
        operation.input_value(0).get_node().get_type_name()
        for operation in written.get_ordered_ops()
        if operation.get_type_name() == "Convolution"
    ]
    assert [source == "FakeQuantize" for source in sources] == [False, True, True] * 4


def test_a_network_that_cannot_be_quantized_is_verified_without(copied, monkeypatch):
    def fails(*_):
        raise RuntimeError("unsupported operation")

    monkeypatch.setattr(quantize, "quantize", fails)
    found = verify.verify(copied, *verification_images.choose_samples(TRAIN, VALIDATION))
    assert (
        "openvino/int8" not in found.engines
        and found.engines["openvino/float32"]["within_tolerance"]
    )


def test_without_the_extra_there_is_the_reference_alone(copied, monkeypatch):
    monkeypatch.setattr(machine, "has_packages", lambda *names: False)
    assert set(
        verify.verify(copied, *verification_images.choose_samples(TRAIN, VALIDATION)).engines
    ) == {"tensorflow/float32"}


@pytest.mark.parametrize(
    ("held_out", "test", "count"), [(0, 0, 136), (40, 0, 40), (40, 30, 70), (300, 30, 330)]
)
def test_all_images_held_out_are_measured_on_and_none_is_calibrated_with(held_out, test, count):
    train = small_run.split(200, 16)
    measured, calibration = verification_images.choose_samples(
        train,
        small_run.split(held_out, 16, seed=1, name="validation"),
        small_run.split(test, 16, seed=2, name="test"),
    )
    own = {image.tobytes() for image in measured.images}
    assert not own & {image.tobytes() for image in calibration.images}
    assert len(calibration) == verification_images.CALIBRATION_IMAGES
    assert len(measured) == count == len(measured.truth)
    assert (
        measured.name
        == {0: "train", 1: "validation", 2: "validation and test"}[bool(held_out) + bool(test)]
    )


def test_an_ensemble_is_measured_on_the_images_that_it_is_not_calibrated_with():
    pool = small_run.split(200, 16)
    measured, calibration = verification_images.choose_samples(pool, pool)
    own = {image.tobytes() for image in measured.images}
    assert len(own) == 136 and not own & {image.tobytes() for image in calibration.images}


def test_on_a_folder_of_images_without_labels(copied, tmp_path, caplog, monkeypatch):
    folder = tmp_path / "images" / "below"
    folder.mkdir(parents=True)
    for index in range(5):
        cv2.imwrite(str(folder / f"{index}.png"), VALIDATION.images[index])
    (folder / "notes.txt").write_text("no image")
    real = pathlib.Path.read_bytes

    def read_unless_closed(path: pathlib.Path) -> bytes:
        if path.name == "closed.png":  # root may read any file
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    (folder / "closed.png").write_bytes(real(folder / "0.png"))
    monkeypatch.setattr(pathlib.Path, "read_bytes", read_unless_closed)
    record = verify.verify_artifact(str(copied), None, str(tmp_path / "images")).engines[
        "openvino/float32"
    ]
    assert record["images"] == 5 and "auroc" not in record and record["within_tolerance"]
    assert "notes.txt is left out" in caplog.text
    assert "closed.png is left out: Permission denied" in caplog.text


def test_what_cannot_be_measured_on_is_said(copied, tmp_path):
    with pytest.raises(ConfigError, match="name prepared TFRecords"):
        verify.verify_artifact(str(copied), None, None)
    with pytest.raises(DataError, match="holds no image"):
        verify.verify_artifact(str(copied), None, str(tmp_path))
    with pytest.raises(ConfigError, match="is not an exported model"):
        verify.verify_artifact(str(tmp_path / "none"), None, str(tmp_path))


@pytest.mark.parametrize("record", ["fast", {"images_per_second": "fast"}], ids=["text", "value"])
def test_a_record_that_nobody_wrote_is_refused(copied, record):
    described = json.loads((copied / artifact.MODEL_JSON).read_text())
    (copied / artifact.MODEL_JSON).write_text(
        json.dumps(described | {"engines": {"openvino/int8": record}})
    )
    with pytest.raises(artifact.ArtifactError, match="engines"):
        artifact.load(copied)


def test_an_artifact_behind_a_uri_gets_its_records_and_its_int8_network(
    copied, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "image.png"), VALIDATION.images[0])
    # For TensorFlow's file layer one URI is like another; a bucket differs in the scheme.
    amended = verify.verify_artifact(f"file://{copied}/", None, str(tmp_path / "images"))
    assert artifact.load(copied) == amended
    assert artifact_copy.open_artifact(f"file://{copied}")[1] == amended
    assert (
        amended.engines["openvino/float32"]["within_tolerance"]
        and artifact.INT8_NETWORK in amended.files
    )


def test_the_command_prints_what_it_recorded(copied, tmp_path):
    cv2.imwrite(str(tmp_path / "image.png"), VALIDATION.images[0])
    command = "from trainer.main import verify; raise SystemExit(verify())"
    arguments = [f"--model={copied}", f"--images={tmp_path / 'image.png'}"]
    refused = subprocess.run(
        [sys.executable, "-c", command, *arguments], capture_output=True, text=True, check=False
    )
    assert refused.returncode == 3 and "is not a folder" in refused.stderr
    arguments[1] = f"--images={tmp_path}"
    done = subprocess.run(
        [sys.executable, "-c", command, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    printed = [line.split()[0] for line in done.stdout.splitlines() if line]
    assert "openvino/float32" in printed and "Statistics" not in done.stdout
    assert "openvino/float32" in artifact.load(copied).engines
