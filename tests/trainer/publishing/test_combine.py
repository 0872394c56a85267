"""A combined artifact averages what its parts compute, whatever their backbones and maps."""

import json

import numpy as np
import pytest
import tensorflow as tf

from tests.support import small_artifact, small_run
from trainer import artifact, main
from trainer.artifact import OUTPUTS
from trainer.dataset import prepare
from trainer.inference import engines
from trainer.network import model as model_lib
from trainer.network import trained_network
from trainer.network.serving import Member, Network
from trainer.options import PrepareOptions

SIZE = small_run.SIZE


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    counts = {"train": 20, "validation": 24, "test": 12}
    prepare.prepare(
        PrepareOptions(
            str(small_run.write_source(folder / "source", counts)),
            "manifest",
            str(folder / "data"),
            SIZE,
        )
    )
    return folder / "data"


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Three artifacts: two members of TinyNet, one CoarseNet that is mirrored, one of 32 pixels."""
    folder = tmp_path_factory.mktemp("parts")
    architecture = model_lib.Architecture("coarsenet", "avg", ())
    coarse = Network(
        (Member(model_lib.build(architecture, SIZE, seed=7), architecture),), "horizontal"
    )
    small_artifact.make(folder / "two", small_artifact.network(2))
    small_artifact.make(folder / "coarse", coarse)
    small_artifact.make(folder / "small", small_artifact.network(1, 32), 32)
    return folder


def combine(capsys, *words):
    code = main.combine(["humerus-combine", *map(str, words)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def combined(data_dir, parts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("combined")
    flags = [f"--data_dir={data_dir}", f"--output={folder}/artifact", f"--json={folder}/out.json"]
    models = [str(parts / "two"), str(parts / "coarse")]
    assert main.combine(["humerus-combine", *models, *flags]) == 0
    return folder / "artifact", json.loads((folder / "out.json").read_text())


def serve(folder, images):
    served = tf.saved_model.load(str(folder)).signatures["serving_default"](
        image=tf.constant(images)
    )
    return {name: value.numpy() for name, value in served.items()}


@pytest.mark.slow
def test_logits_are_the_weighted_mean_of_the_parts_logits(combined, parts):
    folder, result = combined
    images, _ = small_run.pictures(9, SIZE, seed=5)
    weights = [part["weight"] for part in result["parts"]]
    assert sum(weights) == pytest.approx(1)
    # `coarse` scores the mirror image too, and so does the combination, of all its members.
    both = np.concatenate([images, images[:, :, ::-1]])
    logits = [
        serve(parts / name, both)["logit"].reshape(2, -1).mean(axis=0) for name in ("two", "coarse")
    ]
    expected = np.average(logits, axis=0, weights=weights)
    np.testing.assert_allclose(serve(folder, images)["logit"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_map_has_the_finest_cells_and_sums_to_the_logit_less_the_biases(combined):
    folder, _ = combined
    images, _ = small_run.pictures(9, SIZE, seed=5)
    info = artifact.load(folder)
    network = trained_network.load(str(folder), info)
    biases = [
        model_lib.head_layers(member.model)[-1].bias.numpy()[0] / member.temperature
        for member in network.members
    ]
    served = serve(folder, images)
    assert served["cam"].shape == (9, 6, 6) == (9, info.cam["height"], info.cam["width"])
    np.testing.assert_allclose(
        served["cam"].sum(axis=(1, 2)), served["logit"] - np.mean(biases), rtol=1e-4, atol=1e-4
    )


@pytest.mark.slow
def test_the_artifact_says_what_it_was_combined_of(combined, parts):
    folder, result = combined
    info = artifact.load(folder)
    built = info.architecture
    assert (built["backbone"], built["members"], built["flips"]) == (
        "tinynet+coarsenet",
        3,
        "horizontal",
    )
    assert [network["backbone"] for network in built["networks"]] == [
        "tinynet",
        "tinynet",
        "coarsenet",
    ]
    assert [part["model_id"] for part in built["parts"]] == [
        artifact.load(parts / name).model_id for name in ("two", "coarse")
    ]
    assert info.model_id == result["model_id"]
    card = (folder / artifact.MODEL_CARD).read_text()
    assert "weighted mean over 2 models" in card and built["parts"][0]["model_id"] in card


@pytest.mark.slow
def test_every_engine_that_runs_here_agrees(combined):
    folder, _ = combined
    info = artifact.load(folder)
    images, _ = small_run.pictures(8, SIZE, seed=5)
    expected = serve(folder, images)
    runs = [choice for choice in engines.CHOICES if engines.can_run(choice)]
    assert len(runs) > 1
    for choice in runs:
        found = engines.load(folder, info, choice, len(images)).run(images)
        for name in OUTPUTS:
            close = 1e-4 if choice.precision == "float32" else 0.2
            scale = max(1.0, np.abs(expected[name]).max())
            assert np.abs(found[name] - expected[name]).max() < close * scale, (choice, name)


@pytest.mark.parametrize(
    "models, output, code, said",
    [
        (["two"], "new", 2, "name two or more artifacts"),
        (["two", "two"], "new", 2, "are the same model"),
        (["two", "coarse"], "two", 2, "is or holds one of the artifacts"),
        (["two", "coarse"], "coarse/../two/", 2, "is or holds one of the artifacts"),
        (["two", "coarse"], ".", 2, "is or holds one of the artifacts"),
        (["two", "missing"], "new", 2, "is not an exported model"),
        (["two", "small"], "new", 3, "takes 32"),
    ],
)
def test_what_cannot_be_combined_is_refused_in_a_sentence(
    data_dir, parts, capsys, models, output, code, said
):
    flags = [f"--data_dir={data_dir}", f"--output={parts / output}"]
    found, out, err = combine(capsys, *(parts / name for name in models), *flags)
    assert found == code and said in err and not out
    assert not (parts / "new").exists()


def test_other_files_in_the_output_are_not_deleted(data_dir, parts, tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("mine")
    words = [parts / "two", parts / "coarse", f"--data_dir={data_dir}", f"--output={tmp_path}"]
    code, _, said = combine(capsys, *words)
    assert code == 2 and "thesis.txt, but no model.json; all that is in it would be deleted" in said
    assert (tmp_path / "thesis.txt").read_text() == "mine"
