"""Draw what a network saw in an image, on one page per image.

A page shows maps by several methods, feature maps, and filter patterns.
"""

import dataclasses
import pathlib
import re
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import tensorflow as tf
from absl import logging

from trainer import storage
from trainer.artifact import METHOD_TITLES, ONE_PASS_METHOD, Artifact
from trainer.drawing import legend, overlay
from trainer.errors import DataError
from trainer.inference import artifact_copy
from trainer.network import feature_maps, saliency, trained_network
from trainer.network import model as model_lib
from trainer.network.serving import Network
from trainer.options import ExplainOptions
from trainer.program.text_escaping import escape_name
from trainer.publishing import page_templates
from trainer.workers import pool
from trainer.workers.imaging import Imaging

_UNITS = {"score_cam": "units of activation", "occlusion": "logits"}
"""Units of the maps that are not in logits per cell."""
_LONGEST_NAME = 120
_UNSAFE_IN_A_NAME = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclasses.dataclass(frozen=True)
class Picture:
    """A PNG file that the page shows.

    Attributes:
      file: name of the file.
      title: what it shows, in a few words.
      note: details.
      full_colour: of a map, the value of the last colour and its unit; the first colour is 0.
      wide: whether it has a row of its own.
    """

    file: str
    title: str
    note: str
    full_colour: str = ""
    wide: bool = False


@dataclasses.dataclass(frozen=True)
class Explanations:
    """The pages that were written, and a sentence on each file that could not be read."""

    pages: tuple[str, ...]
    rejected: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([*self.pages, *(f"rejected: {sentence}" for sentence in self.rejected)])


def list_layers(model: str) -> str:
    """List the layers that have a map: name, height x width x channels, and the ends of blocks."""
    network = trained_network.load(*artifact_copy.open_artifact(model))
    first = network.members[0].model
    ends = set(saliency.block_ends(first))
    return "\n".join(
        f"{name}\t{height} x {width} x {channels}" + ("\tend of a block" if name in ends else "")
        for name, (height, width, channels) in saliency.layers(first).items()
    )


def explain(model: str, images: Sequence[str], options: ExplainOptions) -> Explanations:
    """Write OUTPUT/NAME.html for each image, and its PNG files into OUTPUT/NAME/.

    Raises:
      ConfigError: there is no such layer.
      ArtifactError: there is no artifact.
      DataError: no image could be read.
    """
    folder, info = artifact_copy.open_artifact(model)
    network = trained_network.load(folder, info)
    radiographs, rejected = _read_images(images, info.image_size)
    if not radiographs:
        raise DataError(f"none of the images can be read: {'; '.join(rejected)}")
    pixels = np.stack([square for square, _ in radiographs.values()])
    serve = tf.saved_model.load(str(folder)).signatures["serving_default"]
    served = {name: value.numpy() for name, value in serve(image=tf.constant(pixels)).items()}
    maps = _compute_maps(network, options, pixels, served["cam"])
    patterns = {
        layer: feature_maps.draw_patterns(network.members[0].model, layer)
        for layer in options.filters
    }
    pages = []
    for i, (path, name) in enumerate(zip(radiographs, _name_pages(list(radiographs)), strict=True)):
        _, picture = radiographs[path]
        drawn = {
            Picture("original.png", "original", "as it was read"): cv2.cvtColor(
                picture, cv2.COLOR_GRAY2BGR
            ),
            **_draw_maps(picture, maps, i, options, info),
            **_draw_layers(network, pixels[i], patterns, options),
        }
        probability = float(served["probability"][i])
        pages.append(_write_page(options.output, path, name, probability, info, drawn))
    return Explanations(tuple(pages), tuple(rejected))


def _write_page(
    output: str,
    path: str,
    name: str,
    probability: float,
    info: Artifact,
    drawn: Mapping[Picture, np.ndarray],
) -> str:
    """Write the page of one image and its pictures; return the path of the page."""
    folder = f"{output.rstrip('/')}/{name}"
    for picture, pixels in drawn.items():
        storage.write_bytes(f"{folder}/{picture.file}", overlay.encode(pixels, "png"))
    page = f"{folder}.html"
    storage.write_text(page, _render_page(escape_name(path), name, probability, info, list(drawn)))
    logging.info("wrote %s", page)
    return page


def _draw_maps(
    picture: np.ndarray,
    maps: Mapping[str, np.ndarray],
    i: int,
    options: ExplainOptions,
    info: Artifact,
) -> dict[Picture, np.ndarray]:
    """Draw the maps of image `i` over its picture, uint8 [height, width].

    Returns:
      Pictures uint8 [height, width, 3] in BGR.
    """
    drawn = {}
    for method, of_all in maps.items():
        scale = _choose_scale(method, options.layer, of_all, info)
        unit = _UNITS.get(method, legend.UNIT)
        full_colour = f"{scale:.3g} {unit}"
        note = _describe_map(method, options.layer, of_all)
        described = Picture(f"{method}.png", METHOD_TITLES[method], note, full_colour)
        strip = legend.Legend(
            scale=scale,
            unit=unit,
            method=METHOD_TITLES[method],
            model=info.model_id,
            rows=of_all.shape[1],
            columns=of_all.shape[2],
            image_size=info.image_size,
        )
        drawn[described] = legend.draw(picture, of_all[i], strip, options.legend)
    return drawn


def _draw_layers(
    network: Network, image: np.ndarray, patterns: Mapping[str, np.ndarray], options: ExplainOptions
) -> dict[Picture, np.ndarray]:
    """Draw the grids of feature maps and of filter patterns of the first network."""
    first, count = network.members[0].model, len(network.members)
    of_first = f", of the first of {count} networks" if count > 1 else ""
    drawn = {}
    for layer in options.feature_maps:
        text = f"feature maps of {layer}", f"one scale for the whole layer{of_first}"
        described = Picture(f"maps_{layer}.png", *text, wide=True)
        drawn[described] = feature_maps.draw_grid(first, image, layer)
    for layer, pattern in patterns.items():
        text = f"filter patterns of {layer}", f"what excites each channel most{of_first}"
        drawn[Picture(f"filters_{layer}.png", *text, wide=True)] = pattern
    return drawn


def _read_images(
    paths: Sequence[str], image_size: int
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], list[str]]:
    """Decode images in worker processes.

    Returns:
      By path of each image that could be read: the square uint8 [image_size, image_size, 1] and the
      picture uint8 [height, width]. Then a sentence on each of the other files.
    """
    read, rejected = {}, []
    with pool.shared().stop_on_error():
        for path in paths:
            try:
                file = storage.read_bytes(path) if storage.is_remote(path) else path
            except OSError:
                file = None
            found = Imaging().decode(file, image_size, picture=True) if file is not None else None
            if found and found.square is not None and found.picture is not None:
                read[path] = found.square, found.picture
            elif found and found.refusal and found.refusal[0] != "unreadable":
                rejected.append(f"{escape_name(path)}: {': '.join(found.refusal)}")
            else:
                rejected.append(f"{escape_name(path)}: cannot be opened or read")
    return read, rejected


def _compute_maps(
    network: Network, options: ExplainOptions, pixels: np.ndarray, served: np.ndarray
) -> dict[str, np.ndarray]:
    """Compute maps [B, h, w] by method; `served` is the one that comes with the probability."""
    return {
        method: served
        if method == ONE_PASS_METHOD and options.layer == model_lib.FEATURES
        else trained_network.compute_maps(network, method, pixels, options.layer)
        for method in options.method
    }


def _choose_scale(method: str, layer: str, maps: np.ndarray, info: Artifact) -> float:
    """Return the value that is drawn at full colour.

    It is the artifact's own where it has one, otherwise that of the strongest of these images.
    """
    if method == ONE_PASS_METHOD and layer == info.cam["layer"]:
        return float(info.cam["scale"])
    return float(max(np.quantile(maps, 0.995), 1e-12))


def _describe_map(method: str, layer: str, maps: np.ndarray) -> str:
    """Return the size of a map and the layer that it was computed at."""
    where = {
        "occlusion": "looks at no layer",
        "fused_layer_cam": f"block ends up to {layer}",
        "refined_cam": f"layer {layer} and the block end before",
    }.get(method, f"layer {layer}")
    return f"{maps.shape[1]} x {maps.shape[2]} cells, {where}"


def _name_pages(paths: Sequence[str]) -> list[str]:
    """Return a safe name for each image, from the name of its file; equal names are numbered.

    Neither a name nor that of its page, which ends in `.html`, is another's.
    """
    safe = [
        _UNSAFE_IN_A_NAME.sub("_", pathlib.PurePosixPath(path).name).strip(".") or "image"
        for path in paths
    ]
    taken: set[str] = set()
    names = []
    for start in (name[:_LONGEST_NAME] for name in safe):
        name, number = start, 1
        while {name.lower(), f"{name}.html".lower()} & taken:
            number += 1
            name = f"{start}~{number}"
        taken |= {name.lower(), f"{name}.html".lower()}
        names.append(name)
    return names


def _render_page(
    path: str, folder: str, probability: float, info: Artifact, pictures: Sequence[Picture]
) -> str:
    environment = page_templates.make_environment()
    return environment.get_template("explain.html.j2").render(
        path=path,
        title=pathlib.PurePosixPath(path).name,
        folder=folder,
        probability=probability,
        label=info.label(probability),
        info=info,
        pictures=pictures,
        colours=list_colours(),
    )


def list_colours() -> str:
    """Return the colours of the maps, from 0 to the last, as stops of a CSS gradient."""
    stops = legend.draw_bar(65, "overlay", "viridis")[0]
    return ", ".join(f"rgb({red} {green} {blue})" for blue, green, red in stops)
