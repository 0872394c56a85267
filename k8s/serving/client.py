"""Ask a served model about a radiograph: TensorFlow Serving, or Triton and KServe by protocol v2.

    python k8s/serving/client.py tensorflow http://localhost:8501 320 radiograph.png
    python k8s/serving/client.py v2 http://localhost:8000 320 other.dcm

The number is `image_size` of the artifact's model.json. The pixels are made by the function that
training and humerus-score use; a server must be sent those and no others.
"""

import argparse
import json
import pathlib
import urllib.request
from typing import Any

import numpy as np

from trainer import radiograph

MODEL = "humerus"


def make_request(protocol: str, image: np.ndarray) -> tuple[str, dict[str, Any]]:
    """Return path and body of a request.

    Args:
      protocol: `tensorflow` (TensorFlow Serving's REST) or `v2` (Triton, KServe).
      image: uint8 [B, size, size, 1].
    """
    if protocol == "tensorflow":
        return f"/v1/models/{MODEL}:predict", {"inputs": {"image": image.tolist()}}
    tensor = {"name": "image", "datatype": "UINT8", "shape": list(image.shape)}
    return f"/v2/models/{MODEL}/infer", {"inputs": [{**tensor, "data": image.ravel().tolist()}]}


def read_answer(protocol: str, answer: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return `probability` [B], `logit` [B] and `cam` [B, h, w], all float32."""
    if protocol == "tensorflow":
        return {name: np.float32(values) for name, values in answer["outputs"].items()}
    return {
        output["name"]: np.float32(output["data"]).reshape(output["shape"])
        for output in answer["outputs"]
    }


def ask(protocol: str, address: str, size: int, file: bytes) -> dict[str, np.ndarray]:
    """Return what the model at `address` says of the bytes of one file."""
    path, body = make_request(protocol, radiograph.load(file, size)[None])
    request = urllib.request.Request(
        address + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return read_answer(protocol, json.load(response))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("protocol", choices=["tensorflow", "v2"])
    parser.add_argument("address", help="of the server, such as http://localhost:8501")
    parser.add_argument("size", type=int, help="image_size of the artifact's model.json")
    parser.add_argument("files", nargs="+", type=pathlib.Path)
    given = parser.parse_args()
    for file in given.files:
        found = ask(given.protocol, given.address, given.size, file.read_bytes())
        print(f"{file} probability={found['probability'][0]:.4f} map={found['cam'].shape[1:]}")


if __name__ == "__main__":
    main()
