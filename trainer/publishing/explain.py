"""Pictures of what a network saw in an image: maps by several methods, feature maps, filter patterns, on one page per image."""

import dataclasses
import pathlib
import re
from collections.abc import Mapping, Sequence

import cv2
import jinja2
import numpy as np
import tensorflow as tf
from absl import logging

from trainer import overlay, radiograph, storage
from trainer.artifact import FREE_METHOD, Artifact
from trainer.errors import ConfigError, DataError
from trainer.evaluation import evaluate
from trainer.network import feature_maps, saliency, trained_network
from trainer.network import model as model_lib
from trainer.network.serving import Network
from trainer.storage import write_bytes, write_text

TITLES = {
    "grad_cam": "Grad-CAM",
    "hires_cam": "HiResCAM",
    "grad_cam_pp": "Grad-CAM++",
    "layer_cam": "LayerCAM",
    "fused_layer_cam": "LayerCAM, fused over the block ends",
    "score_cam": "Score-CAM",
    "occlusion": "Occlusion",
}
_UNITS = {"score_cam": "units of activation", "occlusion": "logits"}
"""Of maps that don't count in logits per cell."""
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
    """A PNG beside the page.

    Attributes:
      file: its name.
      title: what it shows in a few words.
      note: more on that.
      full_colour: of a map, the value of the last colour and its unit; the first colour is 0.
      wide: whether it stands in a row of its own.
    """

    file: str
    title: str
    note: str
    full_colour: str = ""
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
        raise ConfigError(
            f"--method={min(unknown)}: expected one or several of {', '.join(saliency.METHODS)}"
        )
    info = evaluate.load_info(options.model)
    network = trained_network.load(options.model, info)
    read, rejected = _read(options.images)
    if not read:
        raise DataError(f"none of the images can be read: {'; '.join(rejected)}")
    pixels = np.stack(
        [radiograph.letterbox(found.pixels, info.image_size) for found in read.values()]
    )
    serve = tf.saved_model.load(options.model).signatures["serving_default"]
    answers = {name: value.numpy() for name, value in serve(image=tf.constant(pixels)).items()}
    maps = _maps(network, options, pixels, answers["cam"])
    patterns = {
        layer: feature_maps.patterns(network.members[0].model, layer) for layer in options.filters
    }
    pages = []
    for i, (path, name) in enumerate(zip(read, _names(list(read)), strict=True)):
        folder = f"{options.output.rstrip('/')}/{name}"
        picture = overlay.shrink(read[path].pixels)
        shown = {
            Picture("original.png", "original", "as it was read"): cv2.cvtColor(
                picture, cv2.COLOR_GRAY2BGR
            ),
            **_maps_drawn(picture, maps, i, options, info),
            **_layers_drawn(network, pixels[i], patterns, options),
        }
        for told, drawn in shown.items():
            write_bytes(f"{folder}/{told.file}", overlay.encode(drawn, "png"))
        page = f"{folder}.html"
        write_text(
            page, _page(_readable(path), name, float(answers["probability"][i]), info, list(shown))
        )
        logging.info("wrote %s", page)
        pages.append(page)
    return Explained(tuple(pages), tuple(rejected))


def _maps_drawn(
    picture: np.ndarray, maps: Mapping[str, np.ndarray], i: int, options: Options, info: Artifact
) -> dict[Picture, np.ndarray]:
    """The maps of image `i` over its picture, uint8 [height, width]; each is uint8 [height, width, 3] in BGR."""
    found = {}
    for method, of_all in maps.items():
        scale = _scale(method, options.layer, of_all, info)
        full_colour = f"{scale:.3g} {_UNITS.get(method, 'logits per cell')}"
        told = Picture(
            f"{method}.png", TITLES[method], _note(method, options.layer, of_all), full_colour
        )
        found[told] = overlay.draw(picture, of_all[i], info.image_size, scale, "overlay")
    return found


def _layers_drawn(
    network: Network, image: np.ndarray, patterns: Mapping[str, np.ndarray], options: Options
) -> dict[Picture, np.ndarray]:
    """The grids of feature maps and of filter patterns, as `feature_maps` draws them of the first network."""
    first, count = network.members[0].model, len(network.members)
    of_first = f", of the first of {count} networks" if count > 1 else ""
    found = {}
    for layer in options.feature_maps:
        told = f"feature maps of {layer}", f"one scale for the whole layer{of_first}"
        found[Picture(f"maps_{layer}.png", *told, wide=True)] = feature_maps.grid(
            first, image, layer
        )
    for layer, drawn in patterns.items():
        told = f"filter patterns of {layer}", f"what excites each channel most{of_first}"
        found[Picture(f"filters_{layer}.png", *told, wide=True)] = drawn
    return found


def _read(paths: Sequence[str]) -> tuple[dict[str, radiograph.Radiograph], list[str]]:
    """What could be read, by path, and a sentence on each file that could not."""
    read, rejected = {}, []
    for path in paths:
        try:
            if (contents := storage.read_bytes(path)) is None:
                raise FileNotFoundError
            read[path] = radiograph.read(contents)
        except radiograph.RadiographError as error:
            rejected.append(f"{_readable(path)}: {error.reason}: {error.detail}")
        except OSError:
            rejected.append(f"{_readable(path)}: cannot be opened or read")
    return read, rejected


def _readable(path: str) -> str:
    """With bytes of a file name that are no UTF-8 as backslash escapes."""
    return path.encode("utf-8", "backslashreplace").decode()


def _maps(
    network: Network, options: Options, pixels: np.ndarray, served: np.ndarray
) -> dict[str, np.ndarray]:
    """Maps [B, h, w] by method; `served` is the one that comes with the probability."""
    return {
        method: served
        if method == FREE_METHOD and options.layer == model_lib.FEATURES
        else trained_network.maps(network, method, pixels, options.layer)
        for method in options.methods
    }


def _scale(method: str, layer: str, maps: np.ndarray, info: Artifact) -> float:
    """What is drawn at full colour: the artifact's own value where it has one, else that of the strongest of these images."""
    if method == FREE_METHOD and layer == info.cam["layer"]:
        return float(info.cam["scale"])
    return float(max(np.quantile(maps, 0.995), 1e-12))


def _note(method: str, layer: str, maps: np.ndarray) -> str:
    looked_at = {
        "occlusion": "looks at no layer",
        "fused_layer_cam": f"block ends up to {layer}",
    }.get(method, f"layer {layer}")
    return f"{maps.shape[1]} x {maps.shape[2]} cells, {looked_at}"


def _names(paths: Sequence[str]) -> list[str]:
    """A folder's name for each image: its file's, made safe, and numbered where several are the same."""
    safe = [
        _UNLIKE_A_NAME.sub("_", pathlib.PurePosixPath(path).name).strip(".") or "image"
        for path in paths
    ]
    taken: dict[str, int] = {}
    names = []
    for name in safe:
        taken[name.lower()] = taken.get(name.lower(), 0) + 1
        names.append(name if taken[name.lower()] == 1 else f"{name}~{taken[name.lower()]}")
    return names


def _page(
    path: str, folder: str, probability: float, info: Artifact, pictures: Sequence[Picture]
) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("trainer"),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
    )
    return environment.get_template("explain.html.j2").render(
        path=path,
        title=pathlib.PurePosixPath(path).name,
        folder=folder,
        probability=probability,
        label=info.label(probability),
        info=info,
        pictures=pictures,
        colours=_colours(),
    )


def _colours() -> str:
    """Those of the maps, from 0 to the last, as stops of a CSS gradient."""
    colour_map, first = overlay.COLOURS["viridis"]
    stops = cv2.applyColorMap(
        np.linspace(first, 255, 9).round().astype(np.uint8)[:, None], colour_map
    )
    return ", ".join(f"rgb({red} {green} {blue})" for blue, green, red in stops[:, 0])
