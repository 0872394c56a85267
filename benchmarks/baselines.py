"""Score a folder in simpler ways, which `benchmarks/score.py` compares with `humerus-score`.

    python -m benchmarks.baselines KIND --input=DIR --model=ARTIFACT --output=DIR

obvious         Apache Beam's RunInference around the Keras model, Grad-CAM by GradientTape as in
                keras.io's guide, pictures by matplotlib and Pillow. Beam's own TensorFlow handlers
                can't load what Keras 3 saves, so the handler is the least that can.
labels          The same without Grad-CAM and pictures.
ray             Ray Data's batch inference as in its guide: files are decoded in tasks, and the
                network, in TensorFlow, is in an actor. Without Grad-CAM and pictures.
ray_openvino    The same with the network in OpenVINO, with OpenVINO's own defaults.
loop            A plain loop over the files with tf-explain's GradCAM (tf-keras-vis 0.8.7 fails
                under Keras 3.15).
engine          No files: the network alone on pixels that are in memory, which is the limit;
                `--engine=openvino/int8` names it.
"""

import argparse
import io
import json
import math
import os
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

BATCH_SIZE = 32
ALPHA = 0.4


def read(path: str, size: int) -> np.ndarray:
    """uint8 [size, size, 1] by Pillow: resized without distortion, on black."""
    from PIL import Image, ImageOps

    with Image.open(path) as image:
        return np.asarray(ImageOps.pad(image.convert("L"), (size, size)), np.uint8)[..., None]


def superimposed(pixels: np.ndarray, heatmap: np.ndarray) -> bytes:
    """keras.io's "Grad-CAM class activation visualization": a JPEG of the jet-coloured map over the
    picture.
    """
    import matplotlib
    from PIL import Image

    coloured = matplotlib.colormaps["jet"](np.uint8(255 * heatmap))[..., :3]
    jet = Image.fromarray(np.uint8(255 * coloured)).resize(pixels.shape[1::-1])
    blended = np.asarray(jet, np.float32) * ALPHA + np.repeat(pixels, 3, -1)
    file = io.BytesIO()
    Image.fromarray(np.uint8(255 * blended / blended.max())).save(file, "JPEG")
    return file.getvalue()


def grad_cam(artifact: str, size: int, with_cam: bool) -> Any:
    """Compile the Keras model: uint8 [B, size, size, 1] to logit [B, 1] and map [B, h, w] in [0,
    1], or zeros.
    """
    import keras
    import tensorflow as tf

    whole = keras.models.load_model(f"{artifact}/model.keras")
    model = keras.Model(
        whole.inputs, [whole.get_layer("features").output, whole.get_layer("logit").output]
    )

    @tf.function(input_signature=[tf.TensorSpec((None, size, size, 1), tf.uint8)])
    def answer(images):
        with tf.GradientTape() as tape:
            features, logit = model(images, training=False)
            tape.watch(features)
            score = tf.reduce_sum(whole.get_layer("logit")(tf.reduce_mean(features, (1, 2))))
        if not with_cam:
            return logit, tf.zeros_like(features[..., 0])
        weights = tf.reduce_mean(tape.gradient(score, features), axis=(1, 2))
        heatmap = tf.nn.relu(tf.einsum("bhwc,bc->bhw", features, weights))
        return logit, heatmap / (tf.reduce_max(heatmap, axis=(1, 2), keepdims=True) + 1e-9)

    return answer


def obvious(
    files: list[str], artifact: str, size: int, output: pathlib.Path, with_cam: bool
) -> None:
    import apache_beam as beam
    from apache_beam.ml.inference.base import ModelHandler, RunInference

    class Handler(ModelHandler):
        def load_model(self) -> Any:
            return grad_cam(artifact, size, with_cam)

        def run_inference(
            self, batch: Sequence[tuple[str, np.ndarray]], model: Any, inference_args: Any = None
        ) -> Iterator[Any]:
            logits, heatmaps = model(np.stack([pixels for _, pixels in batch]))
            return zip(batch, logits.numpy()[:, 0].tolist(), heatmaps.numpy(), strict=True)

        def batch_elements_kwargs(self) -> dict[str, int]:
            return {"min_batch_size": BATCH_SIZE, "max_batch_size": BATCH_SIZE}

    def finish(answer: tuple[tuple[str, np.ndarray], float, np.ndarray]) -> str:
        (path, pixels), logit, heatmap = answer
        if with_cam:
            name = "_".join(pathlib.Path(path).parts[-3:])
            (output / f"{name}.jpg").write_bytes(superimposed(pixels, heatmap))
        return json.dumps({"uri": path, "probability": 1 / (1 + math.exp(-logit))})

    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        _ = (
            pipeline
            | beam.Create(files)
            | beam.Reshuffle()
            | beam.Map(lambda path: (path, read(path, size)))
            | RunInference(Handler())
            | beam.Map(finish)
            | beam.io.WriteToText(str(output / "predictions"), ".jsonl")
        )


class TensorFlowActor:
    """Holds the Keras model in a process of Ray."""

    def __init__(self, artifact: str, size: int):
        self._answer = grad_cam(artifact, size, with_cam=False)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        logits, _ = self._answer(batch.pop("image"))
        return batch | {"probability": 1 / (1 + np.exp(-logits.numpy()[:, 0]))}


class OpenVinoActor:
    """Holds the SavedModel, compiled by OpenVINO with its defaults, in a process of Ray."""

    def __init__(self, artifact: str, size: int):
        import openvino

        network = openvino.Core().read_model(artifact)
        network.reshape([-1, size, size, 1])
        self._compiled = openvino.compile_model(network, "CPU")

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return batch | {"probability": self._compiled(batch.pop("image"))["probability"]}


def ray_data(files: list[str], artifact: str, size: int, output: pathlib.Path, actor: type) -> None:
    import ray

    ray.init(num_cpus=len(os.sched_getaffinity(0)), include_dashboard=False)
    (
        ray.data.from_items([{"uri": path} for path in files])
        .map(lambda row: row | {"image": read(row["uri"], size)})
        .map_batches(
            actor,
            fn_constructor_args=(artifact, size),
            batch_size=BATCH_SIZE,
            compute=ray.data.ActorPoolStrategy(size=1),
            # With the resources of the tasks, Ray would decode in the actor too, one by one.
            num_cpus=0,
        )
        .write_json(str(output / "ray"))
    )


def loop(files: list[str], artifact: str, size: int, output: pathlib.Path) -> None:
    import keras
    from PIL import Image
    from tf_explain.core.grad_cam import GradCAM

    whole = keras.models.load_model(f"{artifact}/model.keras")
    model = keras.Model(whole.inputs, whole.get_layer("logit").output)
    explainer = GradCAM()
    with (output / "predictions.jsonl").open("w") as rows:
        for path in files:
            image = read(path, size)[None].astype(np.float32)
            logit = float(model(image, training=False)[0, 0])
            picture = explainer.explain((image, None), model, class_index=0, layer_name="features")
            Image.fromarray(picture).save(output / f"{'_'.join(pathlib.Path(path).parts[-3:])}.jpg")
            rows.write(json.dumps({"uri": path, "probability": 1 / (1 + math.exp(-logit))}) + "\n")


def engine(files: list[str], artifact: str, size: int, output: pathlib.Path, choice: str) -> None:
    from trainer import artifact as artifact_lib
    from trainer.inference import engines

    loaded = engines.load(
        pathlib.Path(artifact),
        artifact_lib.load(artifact),
        engines.Choice(*choice.split("/")),
        BATCH_SIZE,
        output,
    )
    images = np.stack([read(path, size) for path in files[:BATCH_SIZE]])
    images = np.resize(images, (BATCH_SIZE, size, size, 1))
    (output / "predictions.jsonl").touch()
    cpu, start = time.process_time(), time.perf_counter()
    batches = max(1, len(files) // BATCH_SIZE)
    for _ in range(batches):
        loaded.run(images)
    # The limit is that of the network: without start-up and without reading.
    spent = {
        "images": batches * BATCH_SIZE,
        "cpu": time.process_time() - cpu,
        "seconds": time.perf_counter() - start,
    }
    (output / "spent.json").write_text(json.dumps(spent))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = ["obvious", "labels", "ray", "ray_openvino", "loop", "engine"]
    parser.add_argument("kind", choices=kinds)
    parser.add_argument("--input", type=pathlib.Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--engine", default="openvino/float32")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    size = json.loads((pathlib.Path(options.model) / "model.json").read_text())["image_size"]
    files = sorted(str(path.absolute()) for path in options.input.rglob("*") if path.is_file())
    if options.kind in ("ray", "ray_openvino"):
        actor = TensorFlowActor if options.kind == "ray" else OpenVinoActor
        # Actors have a working directory of their own.
        artifact, output = str(pathlib.Path(options.model).absolute()), options.output.absolute()
        ray_data(files, artifact, size, output, actor)
    elif options.kind == "loop":
        loop(files, options.model, size, options.output)
    elif options.kind == "engine":
        engine(files, options.model, size, options.output, options.engine)
    else:
        obvious(files, options.model, size, options.output, options.kind == "obvious")


if __name__ == "__main__":
    main()
