"""Every overlay and every combination that the page offers, on a real API server.

Those of one component are applied twice by the client and twice on the server, scheduled, and
deleted. The larger ones are applied on the server as a dry run: all of admission, nothing kept.
"""

import dataclasses
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import yaml

from tests.cluster.conftest import Cluster
from tests.cluster.nodes import Ending, NodeShape
from tests.support import manifests

COMBINATIONS = [
    (overlay, component)
    for overlay in manifests.OVERLAYS
    for component in ("", *manifests.offered(overlay))
]
LARGER_SETS = {
    overlay: chosen
    for overlay in manifests.OVERLAYS
    if (chosen := [one for one in manifests.offered_sets(overlay) if len(one) > 1])
}
LAPTOP = NodeShape("laptop", "1150m", "3500Mi", "17Gi")
"""minikube's default of two CPUs and 4 GiB, less what its own pods ask for."""
_OVERLAY_LOCK = threading.Lock()


@dataclasses.dataclass
class Result:
    """What happened to a combination."""

    folder_objects: list[dict]
    client: list[subprocess.CompletedProcess]
    server: list[subprocess.CompletedProcess]
    nodes: dict[str, list[str]]
    """Names of the nodes of each component's pods."""
    zones: set[str]
    """Zones of the nodes that train."""
    deleted: subprocess.CompletedProcess
    left: list[str]


def expect_pods(objects: list[dict]) -> dict[str, int]:
    """Return how many pods of each component an overlay makes."""
    counts = {}
    for found in objects:
        if found["kind"] in ("Job", "Deployment"):
            component = found["metadata"]["labels"]["app.kubernetes.io/component"]
            counts[component] = found["spec"].get("parallelism", 1)
        elif found["kind"] == "JobSet":
            counts |= {"prepare": 1, "train": 2}
    return counts


def try_combination(cluster: Cluster, overlay: str, component: str) -> Result:
    """Apply, schedule and delete a combination in a namespace of its own."""
    namespace = f"o-{overlay}-{component}".rstrip("-")
    with _OVERLAY_LOCK:
        folder = cluster.write_overlay(namespace, overlay, component.split())
    objects = manifests.render(folder)
    expected = expect_pods(objects)
    # The hosts of a JobSet start when the data is prepared.
    cluster.nodes.plan(namespace, "prepare", [Ending(0)])
    client = [cluster.apply(folder)]

    def find_scheduled() -> dict[str, list[dict]] | None:
        pods = {name: cluster.pods(namespace, name) for name in expected}
        placed = all(pod["spec"].get("nodeName") for found in pods.values() for pod in found)
        return pods if placed and expected == {n: len(p) for n, p in pods.items()} else None

    assert not client[0].returncode, client[0].stderr
    pods = cluster.wait(find_scheduled, f"{expected} in {namespace}")
    client.append(cluster.apply(folder))
    server = [cluster.apply(folder, "--server-side", "--force-conflicts")]
    server.append(cluster.apply(folder, "--server-side"))
    names = {name: [pod["spec"]["nodeName"] for pod in found] for name, found in pods.items()}
    zones = {
        cluster.api.call("GET", f"/api/v1/nodes/{node}")["metadata"]["labels"][
            "topology.kubernetes.io/zone"
        ]
        for node in names.get("train", [])
    }
    deleted = cluster.plane.kubectl("delete", "-k", folder, "--timeout=100s")
    left = [
        volume["metadata"]["name"]
        for volume in cluster.api.items("/api/v1/persistentvolumes")
        if volume["spec"]["claimRef"]["namespace"] == namespace
        and volume["status"]["phase"] not in ("Released", "Failed")
    ]
    if cluster.get("default", "namespace", namespace):
        left.append(namespace)
    return Result(objects, client, server, names, zones, deleted, left)


@pytest.fixture(scope="module")
def queues(cluster) -> None:
    """Install the queues of k8s/cluster/kueue, with more of everything for many tests at once."""
    for _ in range(2):
        done = cluster.plane.kubectl("apply", "-k", cluster.root / "cluster" / "kueue")
        assert not done.returncode, done.stderr
    queue = cluster.get("default", "clusterqueue", "gpus")
    for flavor in queue["spec"]["resourceGroups"][0]["flavors"]:
        for resource in flavor["resources"]:
            if resource["nominalQuota"] not in (0, "0"):
                resource["nominalQuota"] = "100Ti"
    patch = yaml.safe_dump({"spec": {"resourceGroups": queue["spec"]["resourceGroups"]}})
    done = cluster.plane.kubectl("patch", "clusterqueue", "gpus", "--type=merge", "--patch", patch)
    assert not done.returncode, done.stderr


@pytest.fixture(scope="module")
def results(cluster, queues) -> Iterator[dict[tuple[str, str], Future[Result]]]:
    """Try all combinations, four at a time."""
    with ThreadPoolExecutor(4) as pool:
        yield {
            combination: pool.submit(try_combination, cluster, *combination)
            for combination in COMBINATIONS
        }


@pytest.mark.parametrize(("overlay", "component"), COMBINATIONS)
def test_an_offered_combination_is_taken_scheduled_and_deleted(results, overlay, component):
    result = results[overlay, component].result()
    for done in result.server:
        assert not done.returncode, done.stderr
    if any(found["kind"] == "JobSet" for found in result.folder_objects):
        # The client would write the whole list of Jobs, without what the webhook filled in.
        assert "field is immutable" in result.client[1].stderr
    else:
        assert not result.client[1].returncode, result.client[1].stderr

    kind = {"local": "e2-standard-8", "gpu-1": "g2-standard-8", "sweep": "g2-standard-8"}.get(
        overlay, "g2-standard-96"
    )
    spot = "-spot" if component == "spot" or overlay == "multi-node-jobset" else ""
    for node in result.nodes.get("train", []):
        shape, _, _ = node.rpartition("-")
        assert shape == kind + spot if kind != "e2-standard-8" else shape[0] in "en"
    if overlay.startswith("multi-node"):
        assert len(set(result.nodes["train"])) == 2 and len(result.zones) == 1
    for name in ("prepare", "score", "tensorboard"):
        for node in result.nodes.get(name, []):
            assert node.startswith("n2-standard-16" if overlay == "score-cpu" else ("e2-", "n2-"))

    assert not result.deleted.returncode, result.deleted.stderr
    assert not result.left, "kubectl delete -k leaves nothing"


def describe_overlay(results: dict[tuple[str, str], Future[Result]], overlay: str) -> str:
    """Return the overlay's row in the page's table."""
    tried = {name: results[overlay, name].result() for name in ("", *manifests.offered(overlay))}
    refused = [f"`{name}`" for name, result in tried.items() if result.client[1].returncode]
    if tried[""].client[1].returncode:
        client = "refused"
    else:
        client = f"refused with {', '.join(refused)}" if refused else "taken"
    places: dict[str, list[str]] = {}
    for name, nodes in sorted(tried[""].nodes.items()):
        gpus = {"g2-standard-8": "1 GPU", "g2-standard-96": "8 GPUs"}
        shapes = [node.rpartition("-")[0] for node in nodes]
        kinds = [gpus.get(shape.removesuffix("-spot"), "no GPU") for shape in shapes]
        kind = kinds[0] if len(kinds) == 1 else f"{len(kinds)} nodes of {kinds[0]}"
        places.setdefault(kind + (", spot" if "-spot" in shapes[0] else ""), []).append(name)
    where = "; ".join(f"{', '.join(names)}: {place}" for place, names in places.items())
    server = "taken" if not any(d.returncode for r in tried.values() for d in r.server) else "no"
    left = "nothing" if not any(result.left for result in tried.values()) else "something"
    larger = len(LARGER_SETS.get(overlay, ()))
    cells = (f"`{overlay}`", str(len(tried)), server, client, where, left, str(larger))
    return f"| {' | '.join(cells)} |"


def test_the_page_shows_what_happened_to_overlays(results):
    page = (manifests.ROOT / "docs" / "kubernetes.md").read_text()
    lines = [describe_overlay(results, overlay) for overlay in manifests.OVERLAYS]
    missing = [line for line in lines if line not in page]
    assert not missing, "\n".join(missing)


@pytest.mark.parametrize("overlay", LARGER_SETS)
def test_all_larger_sets_are_taken(cluster, queues, overlay):
    """As a dry run: all of admission, nothing kept. What sets have in common is sent once."""
    namespace = f"d-{overlay}"

    def render(number: int) -> list[dict]:
        with _OVERLAY_LOCK:
            chosen = LARGER_SETS[overlay][number]
            folder = cluster.write_overlay(namespace, overlay, chosen, name=f"{namespace}-{number}")
        return manifests.render(folder)

    with ThreadPoolExecutor(2) as pool:
        rendered = list(pool.map(render, range(len(LARGER_SETS[overlay]))))
    different = {yaml.safe_dump(found) for objects in rendered for found in objects}
    cluster.api.call("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    done = cluster.plane.kubectl(
        *("apply", "--server-side", "--dry-run=server", "--filename=-"),
        stdin="---\n".join(different),
    )
    assert not done.returncode and not done.stderr, done.stderr
    assert done.stdout.count("(server dry run)") == len(different)


def test_local_fits_on_a_laptop(cluster):
    """All four pods are scheduled at once: the pod that works never waits for one that waits."""
    cluster.nodes.add(LAPTOP)
    patch = """
apiVersion: batch/v1
kind: Job
metadata: {name: any}
spec:
  template:
    spec:
      nodeSelector: {kubernetes.io/hostname: laptop-0}
"""
    with _OVERLAY_LOCK:
        folder = cluster.write_overlay("laptop", "local", patch=patch)
    assert not cluster.apply(folder).returncode
    cluster.running("laptop", "prepare")
    for component in ("train", "score", "tensorboard"):
        cluster.running("laptop", component)
    cluster.delete("laptop")


def test_overlays_stand_side_by_side_and_one_is_deleted_alone(cluster):
    folders = {name: cluster.root / "overlays" / name for name in ("gpu-1", "score-cpu")}
    for folder in folders.values():
        assert not cluster.apply(folder, "--server-side").returncode
    assert not cluster.plane.kubectl("delete", "-k", folders["score-cpu"]).returncode
    for name in ("prepare", "train", "score"):
        assert cluster.get("humerus-gpu-1", "job", name)
    cluster.delete("humerus-gpu-1")


def delete_jobs(cluster: Cluster, overlay: str) -> subprocess.CompletedProcess:
    """Run what `make k8s-delete-jobs` runs."""
    environment = {
        "KUBECTL": str(manifests.KUBECTL),
        "KUBECONFIG": str(cluster.plane.kubeconfig),
        "PATH": "/usr/bin:/bin",
    }
    script = [cluster.root / "delete-jobs.sh", overlay]
    return subprocess.run(script, env=environment, capture_output=True, text=True, check=False)


def test_deleting_jobs_of_an_overlay_that_is_not_applied_fails(cluster):
    done = delete_jobs(cluster, "gpu-2")
    assert done.returncode == 2 and not done.stdout and done.stderr.count("\n") == 1
    assert "has no namespace humerus-gpu-2; overlays that are applied: " in done.stderr


@pytest.mark.parametrize(
    ("overlay", "component"), [("gpu-1", "nightly"), ("multi-node-2x8", "jobset")]
)
def test_another_run_is_taken_once_the_jobs_are_deleted(cluster, overlay, component):
    namespace = f"humerus-again-{overlay}"
    with _OVERLAY_LOCK:
        folder = cluster.write_overlay(namespace, overlay, [component])
    cluster.nodes.plan(namespace, "prepare", [])
    assert not cluster.apply(folder, "--server-side").returncode
    cluster.running(namespace, "prepare")
    site = cluster.root / "site" / "kustomization.yaml"
    before = site.read_text()
    with _OVERLAY_LOCK:
        site.write_text(before.replace("RUN=first", "RUN=second"))
        try:
            refused = cluster.apply(folder, "--server-side")
            deleted = delete_jobs(cluster, f"again-{overlay}")
            left = [cluster.pods(namespace, name) for name in ("prepare", "train", "score")]
            taken = cluster.apply(folder, "--server-side")
        finally:
            site.write_text(before)
    assert refused.returncode and "field is immutable" in refused.stderr
    assert not deleted.returncode, deleted.stderr
    assert left == [[], [], []], "no pod of the first run is left"
    assert not taken.returncode, taken.stderr
    cluster.delete(namespace)
