"""The serving manifests render and are valid; the client's requests are those the model takes."""

import http.server
import importlib.util
import json
import re
import threading

import cv2
import kubernetes_validate
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf

from tests.k8s.test_manifests import VERSIONS
from tests.support import manifests, tiny_artifact
from trainer import artifact
from trainer.artifact import OUTPUTS
from trainer.predictor import Predictor
from trainer.publishing import onnx_export

SERVING = manifests.K8S / "serving"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "artifact"
    described = tiny_artifact.make(folder)
    onnx_export.export(folder, folder)
    artifact.amend(folder, described)
    return folder


@pytest.fixture(scope="module")
def client():
    spec = importlib.util.spec_from_file_location("client", SERVING / "client.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_tensorflow_serving(version):
    objects = manifests.render(SERVING / "tensorflow-serving")
    for found in objects:
        kubernetes_validate.validate(found, version, strict=True)
    (service,) = (o for o in objects if o["kind"] == "Service")
    (deployment,) = (o for o in objects if o["kind"] == "Deployment")
    template = deployment["spec"]["template"]
    assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    pod = template["spec"]
    (server,) = pod["containers"]
    named = {port["name"]: port["containerPort"] for port in server["ports"]}
    for port in service["spec"]["ports"]:
        assert named[port["targetPort"]] == port["port"]
    flags = dict(flag[2:].split("=") for flag in server["args"])
    assert (flags["rest_api_port"], flags["port"]) == (str(named["http"]), str(named["grpc"]))
    # A version of a model is a numbered folder below its base path.
    base = flags["model_base_path"]
    assert any(m["mountPath"] == f"{base}/1" for m in server["volumeMounts"])
    for container in manifests.containers(pod):
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert not container["securityContext"]["allowPrivilegeEscalation"]
        assert ":" in container["image"] and not container["image"].endswith(":latest")


def test_the_inference_service_names_what_the_page_makes():
    account, found = manifests.render(SERVING / "kserve")
    assert account["kind"] == "ServiceAccount"
    assert account["metadata"]["name"] == found["spec"]["predictor"]["serviceAccountName"]
    assert account["metadata"]["namespace"] == found["metadata"]["namespace"]
    assert (found["apiVersion"], found["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    model = found["spec"]["predictor"]["model"]
    assert model["modelFormat"] == {"name": "triton"} and model["protocolVersion"] == "v2"
    name = re.search(r'^name: "(\w+)"$', (SERVING / "triton/config.pbtxt").read_text(), re.M)[1]
    assert name == found["metadata"]["name"]


def test_triton_can_batch_the_network(model):
    """`max_batch_size` above 0 takes a first dimension that may be any, in inputs and outputs."""
    session = onnxruntime.InferenceSession(model / artifact.ONNX_NETWORK)
    values = [*session.get_inputs(), *session.get_outputs()]
    assert {value.shape[0] for value in values} == {"batch"}
    assert all(isinstance(side, int) for value in values for side in value.shape[1:])


def test_the_signature_is_what_the_client_sends(model, client):
    signature = tf.saved_model.load(str(model)).signatures["serving_default"]
    image = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 1), dtype=np.uint8)
    _, body = client.make_request("tensorflow", image)
    ((name, spec),) = signature.structured_input_signature[1].items()
    assert list(body["inputs"]) == [name]
    assert spec.is_compatible_with(tf.constant(body["inputs"][name], spec.dtype))
    assert set(signature.structured_outputs) == set(OUTPUTS)


@pytest.fixture
def stand_in(model):
    """A stand-in for both servers, which can't be installed here: their JSON, our networks."""
    served = tf.saved_model.load(str(model)).signatures["serving_default"]
    session = onnxruntime.InferenceSession(model / artifact.ONNX_NETWORK)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path == "/v1/models/humerus:predict":
                found = served(image=tf.constant(body["inputs"]["image"], tf.uint8))
                answer = {"outputs": {k: v.numpy().tolist() for k, v in found.items()}}
            else:
                assert self.path == "/v2/models/humerus/infer"
                (tensor,) = body["inputs"]
                assert tensor["datatype"] == "UINT8"
                image = np.array(tensor["data"], np.uint8).reshape(tensor["shape"])
                outputs = session.run(list(OUTPUTS), {tensor["name"]: image})
                named = zip(OUTPUTS, outputs, strict=True)
                answer = {
                    "outputs": [
                        {"name": k, "shape": v.shape, "data": v.ravel().tolist()} for k, v in named
                    ]
                }
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("protocol", ["tensorflow", "v2"])
def test_the_client_gets_what_scoring_gets(model, client, stand_in, protocol, tmp_path):
    path = tmp_path / "radiograph.png"
    cv2.imwrite(str(path), np.random.default_rng(1).integers(0, 256, (60, 44), dtype=np.uint8))
    (expected,) = Predictor(model)(path)
    found = client.ask(protocol, stand_in, 32, path.read_bytes())
    assert found["probability"][0] == pytest.approx(expected.probability, abs=1e-6)
    assert found["logit"][0] == pytest.approx(expected.logit, abs=1e-5)
    np.testing.assert_allclose(found["cam"][0], expected.cam, atol=1e-5)
