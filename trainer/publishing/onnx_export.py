"""Write the network of an artifact in ONNX, beside its SavedModel."""

import pathlib

from trainer.artifact import ONNX_NETWORK

OPSET = 18
"""Version of ONNX's operators: read by ONNX Runtime 1.14, TensorRT 10 and later ones."""


def export(model: pathlib.Path, folder: pathlib.Path) -> None:
    """Write the `ONNX_NETWORK` of the local artifact `model` below `folder`.

    The network is that of `serving_default`, with the same input and outputs; members, flipped
    copies and calibration are inside. The first dimension of each is named `batch` and may be any.
    """
    # Imported here, since TensorFlow takes seconds and the extra need not be installed.
    import tensorflow as tf
    import tf2onnx

    loaded = tf.saved_model.load(str(model))  # a signature doesn't keep its variables alive
    serve = loaded.signatures["serving_default"]
    image = serve.structured_input_signature[1]["image"]
    # tf2onnx names inputs after the arguments of a plain function.
    network, _ = tf2onnx.convert.from_function(
        tf.function(lambda image: serve(image=image), autograph=False),
        input_signature=[tf.TensorSpec(image.shape, image.dtype, name="image")],
        opset=OPSET,
    )
    for value in (*network.graph.input, *network.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    target = folder / ONNX_NETWORK
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(network.SerializeToString())
