"""What the tests on a real control plane share.

`make test-cluster` builds the control plane and names its folder; without it nothing is collected.
"""

import dataclasses
import os
import pathlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import pytest
import yaml

from tests.cluster import control_plane
from tests.cluster.nodes import Api, NodeShape, SimulatedNodes
from tests.support import manifests

BINARIES = os.environ.get("HUMERUS_CONTROL_PLANE")
if not BINARIES:
    collect_ignore_glob = ["test_*.py"]

NODES = (
    (NodeShape("e2-standard-8", "7910m", "28Gi", "47Gi"), 5),
    (NodeShape("n2-standard-16", "15890m", "57Gi", "200Gi"), 6),
    (NodeShape("g2-standard-8", "7910m", "28Gi", "47Gi", gpus=1), 22),
    (NodeShape("g2-standard-8-spot", "7910m", "28Gi", "47Gi", gpus=1, spot=True), 2),
    (NodeShape("g2-standard-96", "95690m", "360Gi", "47Gi", gpus=8), 16),
    (NodeShape("g2-standard-96-spot", "95690m", "360Gi", "47Gi", gpus=8, spot=True), 14),
)
"""What GKE's nodes leave to pods of their resources, and how many there are of each kind."""
SECONDS = 500
"""What nothing here takes, however busy the machine is; less than the limit of one test."""

T = TypeVar("T")


@dataclasses.dataclass
class Cluster:
    """A control plane, its simulated nodes, and the questions that tests ask."""

    plane: control_plane.ControlPlane
    nodes: SimulatedNodes
    api: Api
    root: pathlib.Path
    """A copy of the project's k8s/, to make overlays in."""

    def write_overlay(
        self,
        namespace: str,
        overlay: str,
        components: Sequence[str] = (),
        patch: str = "",
        name: str = "",
    ) -> pathlib.Path:
        """Make an overlay as `make k8s-render` does, in another namespace.

        The folder is called `name`, by default as the namespace.
        """
        name = name or namespace
        folder = self.root / "mine" / name
        folder.mkdir(parents=True)
        subprocess.run(
            [self.root / "overlay.sh", overlay, *components], check=True, capture_output=True
        )
        (self.root / "mine" / overlay).rename(self.root / "mine" / f"{name}-made")
        settings = {"namespace": namespace, "resources": [f"../{name}-made"]}
        if patch:
            settings["patches"] = [{"target": {"kind": "Job|Deployment"}, "patch": patch}]
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(settings))
        return folder

    def apply(self, folder: pathlib.Path, *flags: str) -> subprocess.CompletedProcess:
        """Run `kubectl apply -k`."""
        return self.plane.kubectl("apply", "-k", folder, *flags)

    def get(self, namespace: str, kind: str, name: str) -> dict:
        """Return an object, or an empty one where it doesn't exist."""
        done = self.plane.kubectl(
            "get", kind, name, "--namespace", namespace, "--output=json", "--ignore-not-found"
        )
        assert not done.returncode, done.stderr
        return yaml.safe_load(done.stdout) or {}

    def pods(self, namespace: str, component: str | None = None) -> list[dict]:
        """Return the pods of a namespace, in the order in which they were made."""
        pods = self.api.items(f"/api/v1/namespaces/{namespace}/pods")
        key = "app.kubernetes.io/component"
        found = [pod for pod in pods if component in (None, pod["metadata"]["labels"].get(key))]
        return sorted(found, key=lambda pod: pod["metadata"]["creationTimestamp"])

    def running(self, namespace: str, component: str, count: int = 1) -> list[dict]:
        """Wait until so many pods of a component run, and return them."""

        def find() -> list[dict] | None:
            found = [
                pod
                for pod in self.pods(namespace, component)
                if pod["status"].get("phase") == "Running"
                and "deletionTimestamp" not in pod["metadata"]
            ]
            return found if len(found) >= count else None

        return self.wait(find, f"{count} running pods of {component} in {namespace}")

    def evict(self, pod: dict) -> None:
        """Ask for an eviction, as draining a node does."""
        meta = {key: pod["metadata"][key] for key in ("name", "namespace")}
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": meta}
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/eviction"
        self.api.call("POST", path, eviction)

    def delete(self, namespace: str) -> None:
        """Delete a namespace without waiting for it."""
        self.plane.kubectl("delete", "namespace", namespace, "--ignore-not-found", "--wait=false")

    def wait(self, find: Callable[[], T | None], what: str) -> T:
        """Call `find` until it returns something true, and return that."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            if found := find():
                return found
            time.sleep(0.5)
        raise AssertionError(f"not within {SECONDS} s: {what}; {self.nodes.errors[-1:]}")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    """Start a control plane with JobSet, Kueue, nodes and a storage class."""
    if os.geteuid() != 0:
        pytest.skip("Kueue's certificate takes a mount namespace, which takes root")
    root = tmp_path_factory.mktemp("manifests") / "k8s"
    shutil.copytree(manifests.K8S, root, ignore=shutil.ignore_patterns("mine"))
    folder = tmp_path_factory.mktemp("control-plane")
    with control_plane.run(pathlib.Path(str(BINARIES)), folder) as plane:
        nodes = SimulatedNodes(plane)
        try:
            for shape, count in NODES:
                nodes.add(shape, count)
            nodes.start()
            plane.apply_objects(_STORAGE_CLASS)
            yield Cluster(plane, nodes, Api(plane), root)
        finally:
            nodes.stop()


_STORAGE_CLASS = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {
        "name": "standard",
        "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
    },
    "provisioner": "rancher.io/local-path",
    "volumeBindingMode": "WaitForFirstConsumer",
    "reclaimPolicy": "Delete",
}
