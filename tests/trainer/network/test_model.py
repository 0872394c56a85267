"""The network: each backbone on its own scale, what is trained, and the initial weights."""

import shutil
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.support import small_artifact, small_run, tiny_net  # noqa: F401 (makes the backbone known)
from trainer.errors import ConfigError
from trainer.network import backbones, trainable_layers
from trainer.network import model as model_lib
from trainer.network.model import Architecture, WeightsUnavailableError
from trainer.network.replica_dropout import ReplicaDropout

LINEAR = {"pooling": "avg", "head_widths": ()}


def tiny(weights: str = "none", seed: int = 0, **changes) -> keras.Model:
    return model_lib.build(
        Architecture(**{"backbone": "tinynet", **LINEAR, **changes}), 32, weights, seed
    )


def features_of_application(
    name: str, weights: list[np.ndarray] | str, images: np.ndarray
) -> np.ndarray:
    """Compute features as Keras's documentation does: RGB, `preprocess_input`, no top."""
    package = {
        "DenseNet121": keras.applications.densenet,
        "Xception": keras.applications.xception,
        "ResNet50": keras.applications.resnet,
        "VGG16": keras.applications.vgg16,
        "EfficientNetB0": keras.applications.efficientnet,
        "MobileNetV2": keras.applications.mobilenet_v2,
    }[name]
    size = images.shape[1]
    independent = getattr(keras.applications, name)(
        include_top=False,
        weights=weights if isinstance(weights, str) else None,
        input_shape=(size, size, 3),
    )
    if not isinstance(weights, str):
        independent.set_weights(weights)
    rgb = np.repeat(images, 3, axis=-1).astype("float32")
    return independent(package.preprocess_input(rgb), training=False).numpy()


@pytest.mark.parametrize(
    "name, size",
    [
        ("VGG16", 32),  # blue, green and red less their means
        ("EfficientNetB0", 32),  # normalises inside
        ("MobileNetV2", 32),  # -1 to 1
        pytest.param("DenseNet121", 32, marks=pytest.mark.slow),  # standardised by channel
        pytest.param("ResNet50", 32, marks=pytest.mark.slow),
        pytest.param("Xception", 71, marks=pytest.mark.slow),
    ],
)
def test_the_features_are_those_of_the_application_on_its_own_scale(name, size):
    model = model_lib.build(Architecture(name.lower(), **LINEAR), size)
    rng = np.random.default_rng(2)
    for layer in model_lib.backbone_layers(model):
        if isinstance(
            layer, keras.layers.BatchNormalization
        ):  # such that scale and offset of the input matter to the end
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    images, _ = small_run.pictures(3, size)
    expected = features_of_application(
        name, [w for x in model_lib.backbone_layers(model) for w in x.get_weights()], images
    )
    found = model(images)[model_lib.FEATURES].numpy()
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    "name",
    [
        "densenet121",
        "xception",
        "resnet50",
        "vgg16",
        "efficientnetb0",
        "mobilenetv3small",
        "nasnetmobile",
    ],
)
@pytest.mark.parametrize("grey", [0.0, 1.0, 100.0, 255.0])
def test_the_scale_of_each_family_is_that_of_its_preprocess_input(name, grey):
    modules = {
        "densenet121": keras.applications.densenet,
        "xception": keras.applications.xception,
        "resnet50": keras.applications.resnet,
        "vgg16": keras.applications.vgg16,
        "efficientnetb0": keras.applications.efficientnet,
        "mobilenetv3small": keras.applications.mobilenet_v3,
        "nasnetmobile": keras.applications.nasnet,
    }
    scale, offset = backbones.find_normalization(name)
    expected = modules[name].preprocess_input(np.full((1, 1, 1, 3), grey, "float32")).ravel()
    np.testing.assert_allclose(np.array(scale) * grey + offset, expected, rtol=1e-5, atol=1e-5)


def enter_backbone(model: keras.Model, grey: list[int]) -> np.ndarray:
    """Return what enters the backbone for each grey level, float32 [levels, 3]."""
    normalization = model.get_layer(model_lib.NORMALIZATION)
    levels = np.repeat(np.array(grey, np.uint8)[:, None, None, None], 3, axis=3)
    return normalization(levels).numpy()[:, 0, 0]


# Of blue, green and red, as `imagenet_utils.preprocess_input` subtracts them, divided by 255.
_MEANS = np.array([103.939, 116.779, 123.68])
_RADIMAGENET = [-_MEANS / 255, (255 - _MEANS) / 255]


@pytest.mark.parametrize(
    ("input_scale", "black_and_white"),
    [
        ("auto", [[-1] * 3, [1] * 3]),  # as tinynet's own `preprocess_input`
        ("imagenet", [[-1] * 3, [1] * 3]),
        ("-1..1", [[-1] * 3, [1] * 3]),
        ("0..1", [[0] * 3, [1] * 3]),
        ("0..255", [[0] * 3, [255] * 3]),
        ("radimagenet", _RADIMAGENET),
    ],
)
def test_a_named_scale_is_what_enters_the_backbone(input_scale, black_and_white):
    model = model_lib.build(Architecture("tinynet", **LINEAR), 32, input_scale=input_scale)
    np.testing.assert_allclose(enter_backbone(model, [0, 255]), black_and_white, atol=1e-5)


def test_radimagenets_weights_are_refused_until_their_scale_is_named(tmp_path):
    architecture, folder = Architecture("tinynet", **LINEAR), tmp_path / "weights"
    folder.mkdir()
    path = str(folder / "RadImageNet-TinyNet_notop.weights.h5")
    made = keras.applications.TinyNet(weights=None, input_tensor=keras.Input((32, 32, 3)))
    made.save_weights(path)
    with pytest.raises(ConfigError, match=r"set --config\.input_scale, such as radimagenet"):
        model_lib.build(architecture, 32, path)
    model = model_lib.build(architecture, 32, path, input_scale="radimagenet")
    np.testing.assert_allclose(enter_backbone(model, [0, 255]), _RADIMAGENET, atol=1e-5)
    # Its input as the authors compute it gives the features that the weights make of it.
    images, _ = small_run.pictures(2, 32)
    expected = made((np.repeat(images, 3, axis=3) - _MEANS) / 255, training=False)
    features = model(images, training=False)[model_lib.FEATURES]
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)


def test_an_earlier_run_keeps_its_own_scale(tmp_path):
    architecture, path = Architecture("tinynet", **LINEAR), str(tmp_path / "model.keras")
    model_lib.build(architecture, 32, input_scale="0..1", seed=4).save(path)
    for input_scale in ("auto", "0..1"):
        again = model_lib.build(architecture, 32, path, input_scale=input_scale)
        np.testing.assert_allclose(enter_backbone(again, [0, 255]), [[0] * 3, [1] * 3], atol=1e-6)
    with pytest.raises(ConfigError, match="was trained at another scale of the input; omit"):
        model_lib.build(architecture, 32, path, input_scale="-1..1")


def test_a_model_of_another_program_is_no_earlier_run(tmp_path):
    path = str(tmp_path / "model.keras")
    keras.applications.TinyNet(weights=None, input_tensor=keras.Input((32, 32, 3))).save(path)
    with pytest.raises(ConfigError, match=r"is not a model of an earlier run \(it has no layer"):
        model_lib.build(Architecture("tinynet", **LINEAR), 32, path)


def test_real_weights_give_the_features_of_keras(shared):
    weights = str(shared / "weights" / "xception_notop.weights.h5")
    model = model_lib.build(Architecture("xception", **LINEAR), 96, weights)
    images, _ = small_run.pictures(2, 96)
    expected = features_of_application("Xception", weights, images)
    np.testing.assert_allclose(
        model(images)[model_lib.FEATURES].numpy(), expected, atol=1e-5 * np.abs(expected).max()
    )


def test_real_weights_of_another_backbone_are_a_sentence_that_names_it(shared):
    weights = str(shared / "weights" / "xception_notop.weights.h5")
    with pytest.raises(ConfigError, match=r"Set --config\.backbone=xception$") as caught:
        model_lib.build(Architecture("densenet121", **LINEAR), 96, weights)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("pooling, reduce", [("avg", np.mean), ("max", np.max)])
def test_the_path_from_the_features_to_the_logit(pooling, reduce):
    model = tiny(pooling=pooling, head_widths=(6, 5))
    images, _ = small_run.pictures(4, 32)
    outputs = {name: value.numpy() for name, value in model(images).items()}
    pooled = reduce(outputs[model_lib.FEATURES], axis=(1, 2))
    np.testing.assert_allclose(outputs[model_lib.POOLED], pooled, rtol=1e-5, atol=1e-6)
    (k1, b1), (k2, b2), (k3, b3) = (layer.get_weights() for layer in model_lib.head_layers(model))
    hidden = np.maximum(np.maximum(pooled @ k1 + b1, 0) @ k2 + b2, 0)
    np.testing.assert_allclose(outputs[model_lib.LOGIT], hidden @ k3 + b3, rtol=1e-4, atol=1e-6)


def test_dropout_only_in_training():
    model = tiny(dropout=0.5)
    images, _ = small_run.pictures(2, 32)
    first, second = (model(images, training=False)[model_lib.LOGIT].numpy() for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert (
        len({model(images, training=True)[model_lib.LOGIT].numpy().tobytes() for _ in range(3)})
        == 3
    )


def test_on_one_device_dropout_is_that_of_keras():
    ours = ReplicaDropout(0.4, seed=7, name="dropout")
    theirs = keras.layers.Dropout.from_config(ours.get_config())
    values = tf.constant(np.random.default_rng(0).normal(size=(6, 50)), tf.float32)
    for _ in range(3):
        dropped = ours(values, training=True).numpy()
        np.testing.assert_array_equal(dropped, theirs(values, training=True))
        assert 0.2 < (dropped == 0).mean() < 0.6
        assert len({row.tobytes() for row in dropped == 0}) == 6
    np.testing.assert_array_equal(ours(values), values)


def test_micro_batches_drop_what_the_whole_batch_would():
    whole, parts = ReplicaDropout(0.4, seed=7), ReplicaDropout(0.4, seed=7)
    parts.micro_batches = 3
    values = tf.constant(np.random.default_rng(0).normal(size=(6, 50)), tf.float32)
    for _ in range(2):
        dropped = [parts(part, training=True) for part in tf.split(values, 3)]
        np.testing.assert_array_equal(tf.concat(dropped, 0), whole(values, training=True))


def test_the_seed_decides_the_weights():
    one, same, other = (tiny(seed=seed).get_weights() for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def trainable(model: keras.Model) -> list[str]:
    return [
        layer.name
        for layer in model_lib.backbone_layers(model)
        if layer.trainable and layer.weights
    ]


BLOCKS = [f"block{i}_{kind}" for i in (1, 2, 3) for kind in ("conv", "bn")]


@pytest.mark.parametrize(
    "unfreeze, expected",
    [
        ("all", BLOCKS),
        ("0", []),
        ("2", BLOCKS[5:]),  # the last ReLU and the BatchNormalization before it
        ("3", BLOCKS[4:]),
        ("1000", BLOCKS),
        ("22%", BLOCKS[5:]),  # of nine layers, two
        ("67%", BLOCKS[2:]),
        ("100%", BLOCKS),
        ("0%", []),
        ("block2_conv", BLOCKS[2:]),
        ("block1_relu", BLOCKS[2:]),
    ],
)
@pytest.mark.parametrize("pretrained", [False, True])
def test_what_is_trained(unfreeze, expected, pretrained):
    model = tiny(head_widths=(4,))
    for _ in range(2):  # the same the second time, and after another choice
        trainable_layers.freeze(model, "2", train_batch_norm=False)
        trainable_layers.freeze(model, unfreeze, train_batch_norm=not pretrained)
    assert trainable(model) == [
        name for name in expected if not (pretrained and name.endswith("bn"))
    ]
    assert all(layer.trainable for layer in model_lib.head_layers(model))


def test_frozen_batch_normalisation_keeps_its_statistics_and_uses_them():
    model = tiny()
    images, _ = small_run.pictures(8, 32)
    moving = [layer.moving_mean.numpy() for layer in model.layers if layer.name.endswith("bn")]
    trainable_layers.freeze(model, "all", train_batch_norm=False)
    training, inference = (
        model(images, training=mode)[model_lib.LOGIT].numpy() for mode in (True, False)
    )
    np.testing.assert_allclose(training, inference, rtol=1e-5, atol=1e-6)
    after = [layer.moving_mean.numpy() for layer in model.layers if layer.name.endswith("bn")]
    assert all(np.array_equal(a, b) for a, b in zip(moving, after, strict=True))
    trainable_layers.freeze(model, "all", train_batch_norm=True)
    assert not np.allclose(
        model(images, training=True)[model_lib.LOGIT].numpy(), inference, rtol=1e-3
    )


@pytest.mark.parametrize(
    "unfreeze", ["most", "-3", "1.5", "", "logit", "block9_conv", "101%", "%", "7.5%"]
)
def test_what_cannot_be_unfrozen_is_refused_with_an_example(unfreeze):
    with pytest.raises(
        ConfigError,
        match=rf"unfreeze_layers='{unfreeze}': expected `all`, a number, a share such as 70%,"
        r" or a layer .*block2_bn",
    ):
        trainable_layers.freeze(tiny(), unfreeze, train_batch_norm=True)


def test_depth_rises_from_the_image_to_the_head():
    model = tiny(head_widths=(4,))
    trainable_layers.freeze(model, "all", train_batch_norm=True)
    depth = trainable_layers.compute_depths(model)
    assert set(depth) == {variable.path for variable in model.trainable_variables}
    assert depth["block1_conv/kernel"] == 0.0 and depth["block2_conv/kernel"] == pytest.approx(
        3 / 9
    )
    assert depth["head_1/kernel"] == depth["logit/bias"] == 1.0


@pytest.mark.parametrize(
    "change, size, weights, message",
    [
        (
            {"backbone": "densenet"},
            32,
            "none",
            "backbone='densenet' is not among the known backbones: .*densenet121",
        ),
        ({"pooling": "sum"}, 32, "none", "pooling='sum': expected avg or max"),
        ({"backbone": "vgg16"}, 16, "none", "backbone='vgg16' can't be built for images of 16 px"),
        (
            {},
            32,
            "nowhere.weights.h5",
            "weights='nowhere.weights.h5': no such file; expected imagenet, none",
        ),
        (
            {},
            32,
            "nowhere",
            "weights='nowhere/model.keras': no such file|weights='nowhere': no such file",
        ),
    ],
)
def test_what_cannot_be_built_is_explained(change, size, weights, message):
    with pytest.raises(ConfigError, match=message):
        model_lib.build(Architecture(**{"backbone": "tinynet", **LINEAR, **change}), size, weights)


def test_weights_that_cannot_be_downloaded_name_the_flag(monkeypatch, capsys):
    def fail(*unused, **also_unused):
        print("Downloading data from https://example.org")  # as Keras does
        raise Exception("URL fetch failure on https://example.org: None")

    monkeypatch.setattr("keras.src.applications.mobilenet.file_utils.get_file", fail)
    with pytest.raises(
        WeightsUnavailableError, match=r"can't be downloaded .*--config.weights=PATH"
    ):
        model_lib.build(Architecture("mobilenet", **LINEAR), 32, "imagenet")
    said = capsys.readouterr()
    assert not said.out and "Downloading" in said.err


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    """Make a model of an earlier run with its `.keras` file and its backbone's weights."""
    folder = tmp_path_factory.mktemp("earlier")
    model = tiny(seed=7, head_widths=(6, 5))
    model.save(folder / "model.keras")
    image = model.get_layer("image").output
    keras.Model(image, model.get_layer("block3_relu").output).save_weights(
        folder / "backbone.weights.h5"
    )
    return model, folder


@pytest.mark.parametrize(
    ("name", "make", "said"),
    [
        ("empty.h5", lambda path: path.write_bytes(b""), "is not a file of Keras weights"),
        ("page.h5", lambda path: path.write_text("<html>"), "is not a file of Keras weights"),
        ("folder.h5", lambda path: path.mkdir(), "is a folder; expected imagenet"),
        ("folder.keras", lambda path: path.mkdir(), "is a folder; expected imagenet"),
        ("cut.keras", lambda path: path.write_bytes(b"PK\3\4cut"), "it is cut short"),
        (
            "run",
            lambda path: small_artifact.make(path / "artifact", small_artifact.network(1)),
            "is the folder of a run; name .*run/artifact$",
        ),
    ],
)
def test_what_is_no_weights_file_is_said(tmp_path, name, make, said):
    make(tmp_path / name)
    with pytest.raises(ConfigError, match=said) as caught:
        model_lib.build(Architecture("mobilenet", **LINEAR), 32, str(tmp_path / name))
    assert "backbone" not in str(caught.value)


@pytest.mark.parametrize("share", [0.3, 0.9])
@pytest.mark.parametrize("file", ["backbone.weights.h5", "model.keras"])
def test_weights_that_are_cut_short_are_said_to_be(earlier, tmp_path, file, share):
    content = (earlier[1] / file).read_bytes()
    (tmp_path / file).write_bytes(content[: int(share * len(content))])
    with pytest.raises(ConfigError, match=r"or it is cut short .*; copy it again"):
        tiny(str(tmp_path / file))


def backbone_weights(model):
    return [w for layer in model_lib.backbone_layers(model) for w in layer.get_weights()]


@pytest.mark.parametrize("name", ["model.keras", "", "backbone.weights.h5"])
def test_the_backbone_goes_on_from_an_earlier_one(earlier, name):
    model, folder = earlier
    found = tiny(str(folder / name) if name else str(folder), head_widths=(6, 5))
    for ours, theirs in zip(backbone_weights(found), backbone_weights(model), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    heads = [
        all(np.array_equal(a, b) for a, b in zip(x.get_weights(), y.get_weights(), strict=True))
        for x, y in zip(model_lib.head_layers(found), model_lib.head_layers(model), strict=True)
    ]
    assert heads == [not name.endswith(".h5")] * 3


def test_a_head_of_another_shape_starts_anew_where_it_differs(earlier):
    model, folder = earlier
    found = tiny(str(folder), head_widths=(6, 4))
    first, second, logit = model_lib.head_layers(found)
    np.testing.assert_array_equal(first.kernel, model_lib.head_layers(model)[0].kernel)
    assert second.kernel.shape == (6, 4) and logit.kernel.shape == (4, 1)


@pytest.mark.parametrize(
    "name, suggested",
    [
        ("xception_notop.weights.h5", "=xception"),
        ("mobilenet_v2_notop.weights.h5", "=mobilenetv2"),
        ("x.h5", ""),
    ],
)
def test_weights_of_another_backbone_are_refused(earlier, tmp_path, name, suggested):
    _, folder = earlier
    shutil.copy(folder / "backbone.weights.h5", tmp_path / name)
    with pytest.raises(
        ConfigError,
        match=r"can't be loaded into mobilenet without its top .* are they of another backbone\?"
        rf" Set --config\.backbone{suggested}$",
    ) as caught:
        model_lib.build(Architecture("mobilenet", **LINEAR), 32, str(tmp_path / name))
    message = str(caught.value)
    assert "\n" not in message and len(message.replace(str(tmp_path), "")) < 400


def test_an_earlier_run_of_another_backbone_is_refused(earlier):
    _, folder = earlier
    with pytest.raises(
        ConfigError, match="holds humerus_tinynet, and the configuration asks for humerus_mobilenet"
    ):
        model_lib.build(Architecture("mobilenet", **LINEAR), 32, str(folder))


def test_a_file_that_is_no_model_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as other:
        other.writestr("readme.txt", "no model")
    with pytest.raises(ConfigError, match="is not a model of an earlier run"):
        tiny(str(tmp_path))
