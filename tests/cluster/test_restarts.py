"""What restarts what: the rows of docs/kubernetes.md, done by the real controllers.

Each row has a namespace of its own, and all rows run at the same time.
"""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime

import pytest
import yaml

from tests.cluster.conftest import Cluster
from tests.cluster.nodes import EVICTED, OUT_OF_MEMORY, Ending, NodeShape
from tests.support import manifests

DONE = Ending(0)
SPARE = NodeShape("spare", "95690m", "360Gi", "47Gi", gpus=8)


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the page: what happens to a Job's pods, and what the controllers make of it."""

    name: str
    endings: list[Ending | None]
    """How the pods end, in the order in which they start; None runs until something happens."""
    expected: str
    """Exit codes of the pods; how many count; what becomes of the Job."""
    happens: Callable[[Cluster, str], None] | None = None
    overlay: str = "gpu-1"
    job: str = "train"


def evict(cluster: Cluster, namespace: str) -> None:
    """Drain the node of the one pod that trains."""
    (pod,) = cluster.running(namespace, "train")
    cluster.evict(pod)


def delete_pod(cluster: Cluster, namespace: str) -> None:
    """Delete the one pod that trains, as a person would."""
    (pod,) = cluster.running(namespace, "train")
    name = pod["metadata"]["name"]
    cluster.api.call("DELETE", f"/api/v1/namespaces/{namespace}/pods/{name}")


def delete_node(cluster: Cluster, namespace: str) -> None:
    """Let a cloud take the node away, and its object with it."""
    (pod,) = cluster.running(namespace, "train")
    node = pod["spec"]["nodeName"]
    cluster.nodes.silence(node)
    cluster.api.call("DELETE", f"/api/v1/nodes/{node}")


def silence_node(cluster: Cluster, namespace: str) -> None:
    """Let a node go silent for good, and take it out of service by hand."""
    (pod,) = cluster.running(namespace, "train")
    node, uid = pod["spec"]["nodeName"], pod["metadata"]["uid"]
    cluster.nodes.silence(node)

    def is_being_deleted() -> bool:
        pods = cluster.pods(namespace, "train")
        return [p["metadata"]["uid"] for p in pods if "deletionTimestamp" in p["metadata"]] == [uid]

    cluster.wait(is_being_deleted, "the silent node's pod is to be deleted")
    time.sleep(10)
    assert len(cluster.pods(namespace, "train")) == 1, "nothing replaces it"
    taint = "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"
    done = cluster.plane.kubectl("taint", "node", node, taint)
    assert not done.returncode, done.stderr


def pass_deadline(cluster: Cluster, namespace: str) -> None:
    """Let `activeDeadlineSeconds` pass."""
    cluster.running(namespace, "train")
    patch = '{"spec": {"activeDeadlineSeconds": 1}}'
    cluster.plane.kubectl("-n", namespace, "patch", "job/train", "--type=merge", "-p", patch)


def kill_one_host(cluster: Cluster, namespace: str) -> None:
    """Kill one of two hosts; the other one's collective fails."""
    one, other = cluster.running(namespace, "train", 2)
    cluster.nodes.end(namespace, one["metadata"]["name"], Ending(137))
    cluster.wait(lambda: cluster.nodes.codes(namespace, "train"), "the first end")
    cluster.nodes.end(namespace, other["metadata"]["name"], Ending(1))


def drain_one_host(cluster: Cluster, namespace: str) -> None:
    """Drain the node of one of two hosts; both stop at the same step."""
    one, other = cluster.running(namespace, "train", 2)
    cluster.evict(one)
    cluster.wait(lambda: cluster.nodes.codes(namespace, "train"), "the first end")
    cluster.nodes.end(namespace, other["metadata"]["name"], Ending(4))


def freeze_one_host(cluster: Cluster, namespace: str) -> None:
    """Let the liveness probes of both hosts fail: one is killed, the other loses it."""
    for pod, code in zip(cluster.running(namespace, "train", 2), (137, 1), strict=True):
        cluster.nodes.end(namespace, pod["metadata"]["name"], Ending(code))


def keep_one_host_waiting(cluster: Cluster, namespace: str) -> None:
    """Have one node of the two that are wanted, and later the other one."""
    cluster.nodes.add(SPARE)
    (first,) = cluster.running(namespace, "train")
    (waiting,) = (p for p in cluster.pods(namespace, "train") if "nodeName" not in p["spec"])
    assert waiting["status"]["phase"] == "Pending" and not cluster.nodes.codes(namespace, "train")
    cluster.nodes.add(SPARE, 3)
    cluster.running(namespace, "train", 2)
    for pod in (first, waiting):
        cluster.nodes.end(namespace, pod["metadata"]["name"], DONE)


HOSTS = "multi-node-2x8"
ROWS = [
    Row("the node is drained", [None, DONE], "4, 0; 0 counted; Complete", evict),
    Row(
        "the grace period of a drain is too short",
        [Ending(137, when_stopped=True), DONE],
        "137, 0; 0 counted; Complete",
        evict,
    ),
    Row("the node is short of memory", [EVICTED, DONE], "137, 0; 0 counted; Complete"),
    Row("someone deletes the pod", [None, DONE], "4, 0; 0 counted; Complete", delete_pod),
    Row("the cloud takes the node", [None, DONE], "0; 0 counted; Complete", delete_node),
    Row("the node goes silent", [None, DONE], "0; 0 counted; Complete", silence_node),
    Row("out of memory", [OUT_OF_MEMORY, DONE], "137, 0; 1 counted; Complete"),
    Row(
        "a library crashes",
        [Ending(134), Ending(139), DONE],
        "134, 139, 0; 2 counted; Complete",
    ),
    Row("wrong configuration", [Ending(2)], "2; 1 counted; Failed: PodFailurePolicy"),
    Row("wrong data", [Ending(3)], "3; 1 counted; Failed: PodFailurePolicy"),
    Row(
        "what a Job waits for doesn't come",
        [Ending(3, waiting=True)],
        "3; 1 counted; Failed: PodFailurePolicy",
    ),
    Row("storage is unavailable", [Ending(1), DONE], "1, 0; 1 counted; Complete"),
    Row(
        "storage is unavailable in waiting",
        [Ending(1, waiting=True), DONE],
        "1, 0; 1 counted; Complete",
    ),
    Row(
        "storage is unavailable in preparing",
        [Ending(1), DONE],
        "1, 0; 1 counted; Complete",
        job="prepare",
    ),
    Row(
        "storage is unavailable in scoring",
        [Ending(1), DONE],
        "1, 0; 1 counted; Complete",
        job="score",
    ),
    Row("a hang", [Ending(137), DONE], "137, 0; 1 counted; Complete"),
    Row("the deadline passes", [None], "4; 1 counted; Failed: DeadlineExceeded", pass_deadline),
    Row(
        "prepare is killed",
        [Ending(137), DONE],
        "137, 0; 1 counted; Complete",
        job="prepare",
    ),
    Row("score is killed", [Ending(137), DONE], "137, 0; 1 counted; Complete", job="score"),
    Row(
        "the launcher fails",
        [Ending(1)],
        "1; 1 counted; Failed: BackoffLimitExceeded",
        overlay="dataflow-launcher",
        job="score",
    ),
    Row(
        "the launcher is evicted",
        [EVICTED],
        "137; 1 counted; Failed: BackoffLimitExceeded",
        overlay="dataflow-launcher",
        job="score",
    ),
    Row(
        "one of two hosts is killed",
        [None, None, DONE, DONE],
        "137, 1, 0, 0; 2 counted; Complete",
        kill_one_host,
        HOSTS,
    ),
    Row(
        "one of two hosts is drained",
        [None, None, DONE, DONE],
        "4, 4, 0, 0; 0 counted; Complete",
        drain_one_host,
        HOSTS,
    ),
    Row(
        "one of two hosts freezes",
        [None, None, DONE, DONE],
        "137, 1, 0, 0; 2 counted; Complete",
        freeze_one_host,
        HOSTS,
    ),
    Row(
        "the node of one host comes late",
        [None, None],
        "0, 0; 0 counted; Complete",
        keep_one_host_waiting,
        HOSTS,
    ),
    Row(
        "stopped again and again",
        [Ending(4), Ending(4), Ending(4), DONE],
        "4, 4, 4, 0; 0 counted; Complete",
    ),
]
SPARE_NODES = """
apiVersion: batch/v1
kind: Job
metadata: {name: any}
spec:
  template:
    spec:
      affinity:
        nodeAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            nodeSelectorTerms:
              - matchExpressions:
                  - {key: kubernetes.io/hostname, operator: In, values: [spare-0, spare-2]}
"""


def describe(cluster: Cluster, namespace: str, component: str, job: dict) -> str:
    """Return what happened in the words of `Row.expected`."""
    codes = ", ".join(map(str, cluster.nodes.codes(namespace, component)))
    status = job.get("status", {})
    (over,) = (
        condition
        for condition in status["conditions"]
        if condition["type"] in ("Complete", "Failed") and condition["status"] == "True"
    )
    end = over["type"] if over["type"] == "Complete" else f"Failed: {over['reason']}"
    return f"{codes}; {status.get('failed', 0)} counted; {end}"


def try_row(cluster: Cluster, row: Row, number: int) -> tuple[str, list[float]]:
    """Run a row's Job alone; return what happened, and the seconds between starts of its pods."""
    namespace = f"r-{number}"
    patch = SPARE_NODES if row.happens is keep_one_host_waiting else ""
    folder = cluster.root / "mine" / namespace
    folder.mkdir(parents=True)
    settings = {"namespace": namespace, "resources": [f"../../overlays/{row.overlay}"]}
    if patch:
        settings["patches"] = [{"target": {"kind": "Job", "name": row.job}, "patch": patch}]
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(settings))
    objects = [
        found
        for found in manifests.render(folder)
        if found["kind"] not in ("Job", "CronJob", "Deployment")
        or (found["kind"], found["metadata"]["name"]) == ("Job", row.job)
    ]
    cluster.nodes.plan(namespace, row.job, row.endings)
    cluster.plane.apply_objects(*objects)
    if row.happens:
        row.happens(cluster, namespace)

    def find_end() -> dict | None:
        job = cluster.get(namespace, "job", row.job)
        conditions = job.get("status", {}).get("conditions", [])
        over = any(
            one["type"] in ("Complete", "Failed") and one["status"] == "True" for one in conditions
        )
        return job if over else None

    job = cluster.wait(find_end, f"the end of {row.name}")
    starts = [
        datetime.fromisoformat(pod["metadata"]["creationTimestamp"]).timestamp()
        for pod in cluster.pods(namespace, row.job)
    ]
    said = describe(cluster, namespace, row.job, job)
    cluster.delete(namespace)
    return said, [later - earlier for earlier, later in itertools.pairwise(starts)]


@pytest.fixture(scope="module")
def rows(cluster) -> Iterator[dict[str, Future[tuple[str, list[float]]]]]:
    """Start all rows at once."""
    with ThreadPoolExecutor(len(ROWS)) as pool:
        yield {
            row.name: pool.submit(try_row, cluster, row, number) for number, row in enumerate(ROWS)
        }


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name.replace(" ", "-"))
def test_the_controllers_do_what_the_page_says(rows, row):
    said, _ = rows[row.name].result()
    assert said == row.expected


def test_pods_that_are_not_counted_are_restarted_ever_later(rows):
    """The waits double up to ten minutes, also for failures that the policy ignores."""
    _, waits = rows["stopped again and again"].result()
    assert len(waits) == 3 and waits[0] >= 10 and waits[1] >= 20 and waits[2] >= 40, waits


def test_the_page_shows_what_happened(rows):
    page = (manifests.ROOT / "docs" / "kubernetes.md").read_text()
    missing = [
        line
        for row in ROWS
        if (line := f"| {row.name} | {rows[row.name].result()[0].replace('; ', ' | ')} |")
        not in page
    ]
    assert not missing, "\n".join(missing)
