"""The explain pages: what is in them, for one network and several, and what is refused."""

import os
import pathlib
import re
import socket

import cv2
import numpy as np
import pytest
import tensorflow as tf

from tests.support import browser, small_artifact, small_run
from trainer import main, radiograph
from trainer.artifact import METHOD_TITLES
from trainer.drawing import overlay
from trainer.errors import ConfigError, DataError
from trainer.network import feature_maps, saliency, trained_network
from trainer.network import model as model_lib
from trainer.options import ExplainOptions
from trainer.publishing import explain

ALL = tuple(METHOD_TITLES)


@pytest.fixture(scope="module")
def network():
    return small_artifact.network(2)


@pytest.fixture(scope="module")
def model(network, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("explain") / "artifact"
    small_artifact.make(folder, network, simulated=True)
    return str(folder)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> tuple[str, ...]:
    """Two pictures of one name in two folders, one whose name is HTML, and a file that is none."""
    root = tmp_path_factory.mktemp("images")
    pixels = small_run.pictures(3, 60)[0]
    paths = [
        root / "a" / "arm.png",
        root / "b" / "arm.png",
        root / "<b>x&amp;.png",
        root / "not.png",
    ]
    for path, picture in zip(paths, pixels, strict=False):
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), picture[:, 8:48])
    paths[3].write_bytes(b"nothing")
    return tuple(map(str, paths))


@pytest.fixture(scope="module")
def output(model, images, tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("out")
    options = ExplainOptions(
        output=str(folder), feature_maps=("block1_relu",), filters=("block2_conv",)
    )
    done = explain.explain(model, images, options)
    assert len(done.pages) == 3 and len(done.rejected) == 1 and "not.png: not_an_image" in str(done)
    return folder


def test_each_image_has_a_page_with_every_picture(output):
    pages = sorted(path.name for path in output.glob("*.html"))
    assert pages == ["_b_x_amp_.png.html", "arm.png.html", "arm.png~2.html"]
    wanted = {"original", *ALL, "maps_block1_relu", "filters_block2_conv"}
    for page in pages:
        files = {path.stem for path in (output / page.removesuffix(".html")).glob("*.png")}
        assert files == wanted
        text = (output / page).read_text()
        assert set(re.findall(r'src="[^"]*/([^"/]+)\.png"', text)) == wanted
        assert "computed by TensorFlow in float32" in text
        assert "knows nothing of patients" in text and "<b>x&" not in text
        assert len(re.findall(r'alt="[^"]{10,}"', text)) == len(wanted)
        # The whole picture is one click away.
        assert re.findall(r'<a href="([^"]+)"><img', text) == re.findall(r'src="([^"]+)"', text)


@pytest.mark.parametrize(
    "names",
    [
        ["q" * 251 + ".png"] * 3,
        ["a.png", "a.png.html"],
        ["a.png.html", "A.png"],
        ["arm.png", "other/ARM.png", "arm.png~2", "arm.png~2.html"],
    ],
)
def test_neither_folders_nor_pages_share_a_name_or_are_too_long(names):
    found = explain._name_pages(names)
    written = [name.lower() for folder in found for name in (folder, f"{folder}.html")]
    assert len(set(written)) == 2 * len(names)
    assert max(map(len, written)) < 200


@pytest.mark.parametrize(("index", "page"), enumerate(["arm.png.html", "arm.png~2.html"]))
def test_pages_of_equal_names_tell_their_paths(output, images, index, page):
    text = (output / page).read_text()
    assert f">{images[index]}</p>" in text and "<h1>arm.png</h1>" in text


def captions(page: pathlib.Path) -> dict[str, str]:
    """Return the caption of each picture, by the name of its file."""
    found = re.findall(
        r'src="[^"]*/([^"/]+)\.png".*?<figcaption>(.*?)</figcaption>',
        page.read_text(),
        flags=re.DOTALL,
    )
    return {name: " ".join(re.sub("<[^>]+>", " ", caption).split()) for name, caption in found}


def test_a_caption_says_what_the_colours_count_and_which_layer_was_asked(output):
    told = captions(output / "arm.png.html")
    number = r"0 [\d.e-]+"
    assert re.fullmatch(
        rf"HiResCAM {number} logits per cell 6 x 6 cells, layer features", told["hires_cam"]
    )
    assert re.search(
        rf"ends {number} logits per cell 24 x 24 cells, block ends up to features$",
        told["fused_layer_cam"],
    )
    assert re.fullmatch(
        rf"Score-CAM {number} units of activation 6 x 6 cells, layer features", told["score_cam"]
    )
    assert re.fullmatch(
        rf"Occlusion {number} logits 14 x 14 cells, looks at no layer", told["occlusion"]
    )
    assert told["original"] == "original as it was read"
    assert "layer features" not in (output / "arm.png.html").read_text().partition("<main>")[0]


def test_the_colour_bar_is_that_of_the_maps(output):
    """From grey to the tint of the full scale, which `overlay` draws on that grey."""
    (stops,) = re.findall(
        r"linear-gradient\(to right, (.*?)\);", (output / "arm.png.html").read_text()
    )
    first, *_, last = (
        tuple(map(int, colour)) for colour in re.findall(r"rgb\((\d+) (\d+) (\d+)\)", stops)
    )
    assert first == (first[0],) * 3
    flat = np.full((64, 64), first[0], np.uint8)
    full = overlay.draw(flat, np.ones((4, 4), np.float32), 64, 1.0, "overlay")
    np.testing.assert_array_equal(last, full[32, 32, ::-1])


def test_of_an_ensemble_features_and_patterns_are_those_of_the_first_and_say_so(output):
    told = captions(output / "arm.png.html")
    for name in ("maps_block1_relu", "filters_block2_conv"):
        assert told[name].endswith(", of the first of 2 networks")


def test_a_name_that_is_no_utf8_is_explained_and_told_readably(model, tmp_path, capsys):
    for name, content in (
        (b"\xff.png", cv2.imencode(".png", small_run.pictures(1, 60)[0][0])[1].tobytes()),
        (b"\xfe.png", b""),
    ):
        (tmp_path / os.fsdecode(name)).write_bytes(content)
    given = [str(tmp_path / os.fsdecode(name)) for name in (b"\xff.png", b"\xfe.png", b"\xfd.png")]
    assert (
        main.explain(
            [
                "humerus-explain",
                model,
                *given,
                "--method=grad_cam",
                "--legend",
                f"--output={tmp_path / 'out'}",
            ]
        )
        == 0
    )
    (page,) = (tmp_path / "out").glob("*.html")
    assert "<h1>\\udcff.png</h1>" in page.read_text()
    (drawn,) = (cv2.imread(str(path)) for path in (tmp_path / "out").rglob("grad_cam.png"))
    (read,) = (cv2.imread(str(path)) for path in (tmp_path / "out").rglob("original.png"))
    assert len(drawn) > len(read) + 40, "--legend puts a strip below it"
    said = capsys.readouterr().out
    assert "\\udcfe.png: empty" in said and "\\udcfd.png: cannot be opened or read" in said


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_it_in_every_window_without_barriers(output, page, scheme):
    page.emulate(scheme)
    for width, height in browser.SIZES.values():
        page.open(output / "_b_x_amp_.png.html", width, height)
        assert page.ask("[...document.images].every(image => image.naturalWidth > 0)")
        assert page.ask("document.documentElement.scrollWidth") <= width
        assert page.ask("document.querySelector('h1').textContent") == "<b>x&amp;.png"
        assert not page.list_barriers()
    assert not page.errors and all(request.startswith("file://") for request in page.requests)


def test_the_first_map_is_the_one_that_the_scorer_draws(model, images, output):
    info = trained_info(model)
    found = radiograph.read(pathlib.Path(images[0]).read_bytes())
    serve = tf.saved_model.load(model).signatures["serving_default"]
    pixels = radiograph.letterbox(found.pixels, 48)[None]
    cam = serve(image=tf.constant(pixels))["cam"].numpy()[0]
    expected = overlay.draw(found.pixels, cam, 48, info.cam["scale"], "overlay")
    np.testing.assert_array_equal(cv2.imread(str(output / "arm.png" / "grad_cam.png")), expected)


def trained_info(model: str):
    from trainer import artifact

    return artifact.load(model)


def test_an_ensemble_is_explained_by_the_mean_of_its_members(model):
    """Grad-CAM over the members, each by its temperature, is the map of the SavedModel."""
    pixels = small_run.pictures(3, 48)[0]
    loaded = trained_network.load(model, trained_info(model))
    assert [member.temperature for member in loaded.members] == [1.0, 1.5]
    served = (
        tf.saved_model.load(model)
        .signatures["serving_default"](image=tf.constant(pixels))["cam"]
        .numpy()
    )
    found = trained_network.compute_maps(loaded, "grad_cam", pixels, model_lib.FEATURES)
    np.testing.assert_allclose(found, served, rtol=1e-4, atol=1e-6)


def test_layers_are_listed_with_their_shapes(model):
    lines = explain.list_layers(model).splitlines()
    assert "block2_relu\t12 x 12 x 12\tend of a block" in lines
    assert "block2_conv\t12 x 12 x 12" in lines
    assert "features\t6 x 6 x 16\tend of a block" in lines


def test_the_grid_shows_each_channel_in_its_place(network):
    """The brightest tile is the map of the channel with the largest value."""
    built = network.members[0].model
    image = small_run.pictures(1, 48)[0][0]
    values = saliency.features(built, image[None], "block1_relu")[0]
    drawn = cv2.cvtColor(feature_maps.draw_grid(built, image, "block1_relu"), cv2.COLOR_BGR2GRAY)
    assert drawn.shape == (3 * 100, 3 * 100)  # eight channels, three in a row
    tiles = [
        drawn[i // 3 * 100 + 2 : i // 3 * 100 + 70, i % 3 * 100 + 2 : i % 3 * 100 + 98].astype(
            float
        )
        for i in range(8)
    ]
    means = values.mean(axis=(0, 1))
    assert np.argmax([tile.mean() for tile in tiles]) == means.argmax()
    bright = max(range(8), key=lambda i: values[..., i].std())
    small = cv2.resize(values[:17, :, bright], (96, 68), interpolation=cv2.INTER_NEAREST)
    assert np.corrcoef(small.ravel(), tiles[bright].ravel())[0, 1] > 0.8


def test_patterns_excite_their_channels_more_than_noise_does(network):
    built = network.members[0].model
    sheet = cv2.cvtColor(feature_maps.draw_patterns(built, "block1_conv"), cv2.COLOR_BGR2GRAY)
    noise = np.clip(np.random.default_rng(0).normal(110, 12, (1, 48, 48, 1)), 0, 255).astype(
        np.uint8
    )
    before = saliency.features(built, noise, "block1_conv")[0].mean(axis=(0, 1))
    better = 0
    for channel in range(8):
        tile = sheet[channel // 3 * 100 + 2 :, channel % 3 * 100 + 2 :][:80, :96]
        shown = cv2.resize(tile, (48, 40), interpolation=cv2.INTER_AREA)
        pattern = np.full((48, 48), int(shown.mean()), np.uint8)
        pattern[:40] = shown
        better += (
            saliency.features(built, pattern[None, ..., None], "block1_conv")[0].mean(axis=(0, 1))[
                channel
            ]
            > before[channel]
        )
    assert better >= 7


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"layer": "nowhere"}, ConfigError, "no layer 'nowhere' with a map"),
        ({"images": ("/nowhere.png",)}, DataError, "/nowhere.png: cannot be opened or read"),
        ({"model": "/nowhere"}, ConfigError, "is not an exported model"),
        (
            {"filters": ("image",), "method": ()},
            ConfigError,
            "filter patterns need a layer after",
        ),
    ],
)
def test_a_mistake_is_a_sentence(model, images, tmp_path, changes, error, sentence):
    given = {"model": model, "images": images[:1]}
    options = {"output": str(tmp_path / "out"), "method": ("layer_cam",)} | changes
    given = {name: options.pop(name, value) for name, value in given.items()}
    with pytest.raises(error, match=sentence):
        explain.explain(**given, options=ExplainOptions(**options))


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["{model}", "{image}", "--method=occlusion", "--output={out}"], 0, "arm.png.html\n"),
        (
            ["--model={model}", "--output={out}", "--method=grad_cam", "{image}"],
            0,
            "arm.png.html\n",
        ),
        (["{model}", "--list_layers"], 0, "block3_relu\t6 x 6 x 16"),
        (["{model}"], 2, "name one or several images after the artifact"),
        ([], 2, "name the artifact first"),
        (["{model}", "{image}", "--method=cam"], 2, "--method=cam: expected one or several of"),
    ],
)
def test_the_command(model, images, tmp_path, capsys, words, code, said):
    given = [word.format(model=model, image=images[0], out=tmp_path / "out") for word in words]
    assert main.explain(["humerus-explain", *given]) == code
    printed = capsys.readouterr()
    assert said in (printed.out if code == 0 else printed.err)


@pytest.mark.parametrize("kind", ["fifo", "device", "socket", "sparse", "upwards", "dangling"])
def test_what_is_no_file_is_refused_and_holds_nobody_up(model, images, tmp_path, kind):
    odd = tmp_path / "odd.png"
    if kind == "fifo":
        os.mkfifo(odd)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(odd))
    elif kind == "sparse":
        odd.touch()
        os.truncate(odd, 1 << 40)
    else:
        targets = {"device": "/dev/zero", "upwards": str(tmp_path), "dangling": "/nowhere"}
        odd.symlink_to(targets[kind])
    options = ExplainOptions(output=str(tmp_path / "out"), method=("grad_cam",))
    done = explain.explain(model, (images[0], str(odd)), options)
    reason = "too_large" if kind == "sparse" else "cannot be opened or read"
    assert len(done.pages) == 1 and f"odd.png: {reason}" in str(done)
