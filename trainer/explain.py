"""Pictures of what a network saw in an image: maps by several methods, feature maps, filter patterns, on one page per image."""

import dataclasses
import pathlib
import re
import time
from collections.abc import Sequence

import cv2
import jinja2
import numpy as np
import tensorflow as tf
from absl import logging

from trainer import evaluate, overlay, radiograph
from trainer import model as model_lib
from trainer.artifact import FREE_METHOD, Artifact
from trainer.checkpoints import write_bytes, write_text
from trainer.errors import ConfigError, DataError
from trainer.maps import feature_maps, saliency, trained_network
from trainer.serving import Network

TITLES = {
    "grad_cam": "Grad-CAM",
    "hires_cam": "HiResCAM",
    "grad_cam_pp": "Grad-CAM++",
    "layer_cam": "LayerCAM",
    "fused_layer_cam": "LayerCAM, fused over the block ends",
    "score_cam": "Score-CAM",
    "occlusion": "Occlusion",
}
_UNLIKE_A_NAME = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line asks for; names and meanings are those of the flags."""

    model: str
    images: tuple[str, ...]
    output: str = "explained"
    methods: tuple[str, ...] = tuple(saliency.METHODS)
    layer: str = model_lib.FEATURES
    feature_maps: tuple[str, ...] = ()
    filters: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Picture:
    """A PNG beside the page: its name, what it shows in a few words, and in a sentence; `wide` ones stand in a row of their own."""

    file: str
    title: str
    note: str
    wide: bool = False


@dataclasses.dataclass(frozen=True)
class Explained:
    """The pages that were written, and what could not be read."""

    pages: tuple[str, ...]
    rejected: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([*self.pages, *(f"rejected: {sentence}" for sentence in self.rejected)])


def list_layers(model: str) -> str:
    """A line for each layer that has a map: name, height x width x channels, and whether a block ends there."""
    network = trained_network.load(model, evaluate.load_info(model))
    first = network.members[0].model
    ends = set(saliency.block_ends(first))
    return "\n".join(
        f"{name}\t{height} x {width} x {channels}{chr(9) + 'end of a block' if name in ends else ''}"
        for name, (height, width, channels) in saliency.layers(first).items()
    )


def explain(options: Options) -> Explained:
    """Writes OUTPUT/NAME.html for each image, and its PNG files into OUTPUT/NAME/.

    Raises:
      ConfigError: an unknown method or layer. ArtifactError: no artifact. DataError: no image could be read.
    """
    if unknown := set(options.methods) - set(saliency.METHODS):
        raise ConfigError(f"--method={min(unknown)}: expected one or several of {', '.join(saliency.METHODS)}")
    info = evaluate.load_info(options.model)
    network = trained_network.load(options.model, info)
    read, rejected = _read(options.images)
    if not read:
        raise DataError(f"none of the images can be read: {'; '.join(rejected)}")
    pixels = np.stack([radiograph.letterbox(found.pixels, info.image_size) for found in read.values()])
    serve = tf.saved_model.load(options.model).signatures["serving_default"]
    answers = {name: value.numpy() for name, value in serve(image=tf.constant(pixels)).items()}
    maps = _maps(network, options, pixels, answers["cam"])
    patterns = {
        layer: overlay.encode(feature_maps.patterns(network.members[0].model, layer), "png") for layer in options.filters
    }
    pages = []
    for i, (path, name) in enumerate(zip(read, _names(list(read)), strict=True)):
        folder = f"{options.output.rstrip('/')}/{name}"
        picture = overlay.shrink(read[path].pixels)
        shown = [_write(folder, "original", cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR), "original", "as it was read")]
        for method, (of_all, seconds) in maps.items():
            scale = _scale(method, options.layer, of_all, info)
            drawn = overlay.draw(picture, of_all[i], info.image_size, scale, "overlay")
            shown.append(_write(folder, method, drawn, TITLES[method], _note(of_all, scale, seconds)))
        for layer in options.feature_maps:
            drawn = feature_maps.grid(network.members[0].model, pixels[i], layer)
            shown.append(
                _write(folder, f"maps_{layer}", drawn, f"feature maps of {layer}", "one scale for the whole layer", wide=True)
            )
        for layer, contents in patterns.items():
            write_bytes(f"{folder}/filters_{layer}.png", contents)
            shown.append(
                Picture(f"filters_{layer}.png", f"filter patterns of {layer}", "what excites each channel most", wide=True)
            )
        page = f"{folder}.html"
        write_text(page, _page(pathlib.PurePosixPath(path).name, name, float(answers["probability"][i]), info, shown, options))
        logging.info("wrote %s", page)
        pages.append(page)
    return Explained(tuple(pages), tuple(rejected))


def _read(paths: Sequence[str]) -> tuple[dict[str, radiograph.Radiograph], list[str]]:
    """What could be read, by path, and a sentence on each file that could not."""
    read, rejected = {}, []
    for path in paths:
        try:
            with tf.io.gfile.GFile(path, "rb") as file:
                read[path] = radiograph.read(file.read())
        except radiograph.RadiographError as error:
            rejected.append(f"{path}: {error.reason}: {error.detail}")
        except tf.errors.OpError:
            rejected.append(f"{path}: cannot be opened or read")
    return read, rejected


def _maps(network: Network, options: Options, pixels: np.ndarray, served: np.ndarray) -> dict[str, tuple[np.ndarray, float]]:
    """Maps [B, h, w] by method, and the seconds per image that they took."""
    found = {}
    for method in options.methods:
        start = time.monotonic()
        if method == FREE_METHOD and options.layer == model_lib.FEATURES:
            found[method] = served, 0.0
            continue
        of_all = trained_network.maps(network, method, pixels, options.layer)
        found[method] = of_all, (time.monotonic() - start) / len(pixels)
    return found


def _scale(method: str, layer: str, maps: np.ndarray, info: Artifact) -> float:
    """What is drawn at full colour: the artifact's own value where it has one, else that of the strongest of these images."""
    if method == FREE_METHOD and layer == info.cam["layer"]:
        return float(info.cam["scale"])
    return float(max(np.quantile(maps, 0.995), 1e-12))


def _note(maps: np.ndarray, scale: float, seconds: float) -> str:
    cost = f"{seconds:.2f} s an image with its first compilation" if seconds else "comes with the probability"
    return f"{maps.shape[1]} x {maps.shape[2]} cells, full colour from {scale:.3g}, {cost}"


def _names(paths: Sequence[str]) -> list[str]:
    """A folder's name for each image: its file's, made safe, and numbered where several are the same."""
    safe = [_UNLIKE_A_NAME.sub("_", pathlib.PurePosixPath(path).name).strip(".") or "image" for path in paths]
    taken: dict[str, int] = {}
    names = []
    for name in safe:
        taken[name.lower()] = taken.get(name.lower(), 0) + 1
        names.append(name if taken[name.lower()] == 1 else f"{name}~{taken[name.lower()]}")
    return names


def _write(folder: str, name: str, drawn: np.ndarray, title: str, note: str, wide: bool = False) -> Picture:
    write_bytes(f"{folder}/{name}.png", overlay.encode(drawn, "png"))
    return Picture(f"{name}.png", title, note, wide)


def _page(title: str, folder: str, probability: float, info: Artifact, pictures: Sequence[Picture], options: Options) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("trainer"), undefined=jinja2.StrictUndefined, autoescape=True, trim_blocks=True
    )
    return environment.get_template("explain.html.j2").render(
        title=title,
        folder=folder,
        probability=probability,
        label=info.label(probability),
        info=info,
        pictures=pictures,
        layer=options.layer,
    )
