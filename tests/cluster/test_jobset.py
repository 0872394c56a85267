"""Two hosts under JobSet and Kueue: they wait for the data, restart together, and queue."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.cluster.conftest import Cluster
from tests.cluster.nodes import Ending
from tests.support import manifests

DONE = Ending(0)


def install_queues(cluster: Cluster) -> None:
    """Install the queues of k8s/cluster/kueue, with their own quotas."""
    folder = cluster.root / "cluster" / "kueue"
    done = cluster.plane.kubectl("apply", "--server-side", "--force-conflicts", "-k", folder)
    assert not done.returncode, done.stderr


def start(cluster: Cluster, namespace: str, endings: list[Ending | None]) -> None:
    """Apply the overlay without Kueue's queue, so that several run at the same time."""
    folder = cluster.write_overlay(namespace, "multi-node-2x8", ["spot", "jobset"])
    objects = [
        found for found in manifests.render(folder) if found["kind"] not in ("Job", "Deployment")
    ]
    cluster.nodes.plan(namespace, "prepare", [DONE, DONE])
    cluster.nodes.plan(namespace, "train", endings)
    cluster.plane.apply_objects(*objects)


def drain_one(cluster: Cluster, namespace: str) -> None:
    cluster.evict(cluster.running(namespace, "train", 2)[0])


def delete_one(cluster: Cluster, namespace: str) -> None:
    pod = cluster.running(namespace, "train", 2)[0]["metadata"]["name"]
    cluster.api.call("DELETE", f"/api/v1/namespaces/{namespace}/pods/{pod}")


def end_one(code: int) -> Callable[[Cluster, str], None]:
    """Return what lets one of two running hosts end with a code."""

    def end(cluster: Cluster, namespace: str) -> None:
        pod = cluster.running(namespace, "train", 2)[0]["metadata"]["name"]
        cluster.nodes.end(namespace, pod, Ending(code))

    return end


CASES: dict[str, tuple[list[Ending | None], Callable[[Cluster, str], None], str]] = {
    # The host that isn't touched is stopped with the other one, and writes its checkpoint.
    "JobSet, one host is drained": (
        [None, None, DONE, DONE],
        drain_one,
        "4, 4, 0, 0; 1 restart, 0 counted; Completed",
    ),
    "JobSet, someone deletes one host's pod": (
        [None, None, DONE, DONE],
        delete_one,
        "4, 4, 0, 0; 1 restart, 0 counted; Completed",
    ),
    "JobSet, one host fails": (
        [None, None, DONE, DONE],
        end_one(1),
        "1, 4, 0, 0; 1 restart, 1 counted; Completed",
    ),
    "JobSet, wrong configuration": (
        [None, None],
        end_one(2),
        "2, 4; 0 restarts, 0 counted; Failed",
    ),
}


def try_case(cluster: Cluster, name: str, number: int) -> str:
    """Run a JobSet to its end, and return what happened."""
    happens = CASES[name][1]
    namespace = f"j-{number}"
    happens(cluster, namespace)

    def find_end() -> dict | None:
        status = cluster.get(namespace, "jobset", "train").get("status", {})
        return status if status.get("terminalState") else None

    status = cluster.wait(find_end, f"the end of {name}")
    codes = cluster.nodes.codes(namespace, "train")
    restarts, counted = (status.get(key, 0) for key in ("restarts", "restartsCountTowardsMax"))
    plural = "restart" if restarts == 1 else "restarts"
    end = status["terminalState"]
    cluster.delete(namespace)
    return f"{', '.join(map(str, codes))}; {restarts} {plural}, {counted} counted; {end}"


@pytest.fixture(scope="module")
def cases(cluster) -> Iterator[dict[str, Future[str]]]:
    """Start all cases at once."""
    for number, (endings, _, _) in enumerate(CASES.values()):
        start(cluster, f"j-{number}", endings)
    with ThreadPoolExecutor(len(CASES)) as pool:
        yield {
            name: pool.submit(try_case, cluster, name, number) for number, name in enumerate(CASES)
        }


@pytest.mark.parametrize("name", CASES)
def test_hosts_restart_together(cases, name):
    assert cases[name].result() == CASES[name][2]


def test_the_page_shows_what_happened_to_jobsets(cases):
    page = (manifests.ROOT / "docs" / "kubernetes.md").read_text()
    lines = [f"| {name} | {one.result().replace('; ', ' | ')} |" for name, one in cases.items()]
    assert not [line for line in lines if line not in page]


def test_hosts_hold_no_gpu_while_data_is_prepared_and_queue_for_quota(cluster):
    """Sixteen GPUs of quota: the second JobSet waits until the first one is gone."""
    install_queues(cluster)
    for namespace in ("q-first", "q-second"):
        folder = cluster.write_overlay(namespace, "multi-node-jobset")
        cluster.nodes.plan(namespace, "prepare", [])
        done = cluster.apply(folder, "--server-side")
        assert not done.returncode, done.stderr
        if namespace == "q-first":
            (prepare,) = cluster.running(namespace, "prepare")
            assert not cluster.pods(namespace, "train"), "no GPU is held"
            assert prepare["spec"]["nodeName"].startswith(("e2-", "n2-")), "nor a GPU node"
            cluster.nodes.end(namespace, prepare["metadata"]["name"], DONE)
            hosts = cluster.running(namespace, "train", 2)
            assert all("-spot-" in pod["spec"]["nodeName"] for pod in hosts)

    def find_message() -> str:
        workloads = cluster.api.items("/apis/kueue.x-k8s.io/v1beta1/namespaces/q-second/workloads")
        conditions = [one for w in workloads for one in w.get("status", {}).get("conditions", [])]
        messages = [one["message"] for one in conditions if one["status"] == "False"]
        return next((one for one in messages if "insufficient" in one), "")

    cluster.wait(find_message, "the second one waits for quota")
    assert not cluster.pods("q-second", "prepare")
    # Deleting the namespace at once would delete the queue with it, and Kueue would wake no one.
    done = cluster.plane.kubectl("delete", "jobset", "train", "--namespace=q-first")
    assert not done.returncode, done.stderr
    cluster.running("q-second", "prepare")
    cluster.delete("q-first")
    cluster.delete("q-second")
