"""Simulate the nodes of a cluster: a kubelet's reports for pods that run nowhere.

The control plane is real; what it can't see is that no container starts. Tests say how pods end.
"""

import dataclasses
import datetime
import hashlib
import threading
import traceback
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import requests

from tests.cluster.control_plane import ControlPlane

_BEAT_SECONDS = 5
_STEP_SECONDS = 0.3
_MERGE = "application/strategic-merge-patch+json"
_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


@dataclasses.dataclass(frozen=True)
class Ending:
    """How a pod ends: an exit code, of its first init container if `waiting`, and a reason."""

    code: int
    waiting: bool = False
    reason: str = ""
    evicted: bool = False
    when_stopped: bool = False
    """The pod runs until it is told to stop, and then ends so."""


OUT_OF_MEMORY = Ending(137, reason="OOMKilled")
EVICTED = Ending(137, evicted=True)
"""The kubelet is short of memory: it marks the pod as disrupted and kills it."""


@dataclasses.dataclass(frozen=True)
class NodeShape:
    """What a kind of node offers to pods, as clouds have it."""

    name: str
    cpu: str
    memory: str
    disk: str
    gpus: int = 0
    spot: bool = False

    def labels(self, index: int) -> dict[str, str]:
        """Return the labels that GKE gives to such a node; the zones alternate."""
        labels = {
            "kubernetes.io/hostname": f"{self.name}-{index}",
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64",
            "topology.kubernetes.io/zone": f"us-central1-{'ab'[index % 2]}",
        }
        if self.gpus:
            labels["cloud.google.com/gke-accelerator"] = "nvidia-l4"
            labels["cloud.google.com/gke-accelerator-count"] = str(self.gpus)
        if self.spot:
            labels["cloud.google.com/gke-spot"] = "true"
        return labels

    def taints(self) -> list[dict[str, str]]:
        """Return GKE's taint of GPU nodes, and ours of spot nodes."""
        taints = []
        if self.gpus:
            taints.append({"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"})
        if self.spot:
            key = "cloud.google.com/gke-spot"
            taints.append({"key": key, "value": "true", "effect": "NoSchedule"})
        return taints

    def resources(self) -> dict[str, str]:
        """Return what pods may ask for."""
        resources = {
            "cpu": self.cpu,
            "memory": self.memory,
            "ephemeral-storage": self.disk,
            "pods": "110",
        }
        return resources | ({"nvidia.com/gpu": str(self.gpus)} if self.gpus else {})


class _NamedServer(requests.adapters.HTTPAdapter):
    """Accept the certificate of an API server, which names `kubernetes` and no address."""

    def init_poolmanager(self, *arguments: Any, **settings: Any) -> None:
        super().init_poolmanager(*arguments, **settings, assert_hostname="kubernetes")


class Api:
    """Calls to an API server."""

    def __init__(self, plane: ControlPlane):
        self._url = plane.url
        self._session = requests.Session()
        self._session.headers.update(plane.headers)
        self._session.trust_env = False
        self._session.verify = str(plane.certificate)
        self._session.mount("https://", _NamedServer(pool_maxsize=32))

    def call(
        self, method: str, path: str, body: Any = None, kind: str = "application/json"
    ) -> dict:
        """Return the answer; an object that is gone or was changed meanwhile is no error."""
        answer = self._session.request(
            method, self._url + path, json=body, headers={"Content-Type": kind}, timeout=20
        )
        if answer.status_code in (404, 409):
            return {"code": answer.status_code}
        assert answer.ok, f"{method} {path}: {answer.text}"
        return answer.json()

    def items(self, path: str) -> list[dict]:
        """Return the objects of a list."""
        return self.call("GET", path).get("items", [])


class SimulatedNodes(threading.Thread):
    """Report for nodes and their pods, in a thread, until `stop`."""

    def __init__(self, plane: ControlPlane):
        super().__init__(daemon=True)
        self._plane = plane
        self._api = Api(plane)
        self._lock = threading.Lock()
        self._planned: dict[tuple[str, str], list[Ending | None]] = defaultdict(list)
        self._codes: dict[tuple[str, str], list[int]] = defaultdict(list)
        self._now: dict[tuple[str, str], Ending] = {}
        self._silent: set[str] = set()
        self._pods: dict[str, _Progress] = {}
        self._stopped = threading.Event()
        self.errors: list[str] = []

    def add(self, shape: NodeShape, count: int = 1) -> None:
        """Join nodes of a shape to the cluster."""
        for index in range(count):
            name = f"{shape.name}-{index}"
            node = {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": name, "labels": shape.labels(index)},
                "spec": {"taints": shape.taints()},
            }
            self._api.call("POST", "/api/v1/nodes", node)
            lease = {"metadata": {"name": name, "namespace": "kube-node-lease"}}
            self._api.call("POST", _LEASES, lease | {"spec": self._lease(name)})
            ready = _condition("Ready", True, "KubeletReady") | {"lastHeartbeatTime": _now()}
            resources = shape.resources()
            status = {"capacity": resources, "allocatable": resources, "conditions": [ready]}
            self._api.call("PATCH", f"/api/v1/nodes/{name}/status", {"status": status}, _MERGE)

    def plan(self, namespace: str, component: str, endings: Sequence[Ending | None]) -> None:
        """Let new pods of a component take these endings; with None, or none left, a pod runs."""
        with self._lock:
            self._planned[namespace, component] = list(endings)

    def end(self, namespace: str, pod: str, ending: Ending) -> None:
        """End a pod that runs."""
        with self._lock:
            self._now[namespace, pod] = ending

    def codes(self, namespace: str, component: str) -> list[int]:
        """Return the exit codes of all pods of a component that have ended, in that order."""
        with self._lock:
            return list(self._codes[namespace, component])

    def silence(self, node: str) -> None:
        """Let a node report nothing more."""
        with self._lock:
            self._silent.add(node)

    def stop(self) -> None:
        """End the reports."""
        self._stopped.set()
        self.join(30)

    def run(self) -> None:
        """Report until stopped; the heart beats beside it, however many pods there are."""
        heart = threading.Thread(target=self._keep_beating, daemon=True)
        heart.start()
        while not self._stopped.wait(_STEP_SECONDS):
            try:
                self._provision_volumes()
                for pod in self._api.items("/api/v1/pods?fieldSelector=spec.nodeName!="):
                    if pod["spec"]["nodeName"] not in self._silent:
                        self._advance(pod)
            except Exception:
                self.errors.append(traceback.format_exc())

    def _keep_beating(self) -> None:
        api = Api(self._plane)
        while not self._stopped.wait(_BEAT_SECONDS):
            try:
                self._beat(api)
            except Exception:
                self.errors.append(traceback.format_exc())

    @staticmethod
    def _lease(name: str) -> dict:
        renewed = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": renewed}

    def _beat(self, api: Api) -> None:
        for node in api.items("/api/v1/nodes"):
            name = node["metadata"]["name"]
            if name not in self._silent:
                api.call("PATCH", f"{_LEASES}/{name}", {"spec": self._lease(name)}, _MERGE)

    def _provision_volumes(self) -> None:
        """Make volumes as a local provisioner does, on one node unless several may write."""
        for claim in self._api.items("/api/v1/persistentvolumeclaims"):
            meta = claim["metadata"]
            node = meta.get("annotations", {}).get("volume.kubernetes.io/selected-node")
            if claim["status"].get("phase") != "Pending" or not node:
                continue
            owner = {"kind": "PersistentVolumeClaim"}
            owner |= {key: meta[key] for key in ("namespace", "name", "uid")}
            spec = {
                "capacity": claim["spec"]["resources"]["requests"],
                "accessModes": claim["spec"]["accessModes"],
                "storageClassName": claim["spec"]["storageClassName"],
                "persistentVolumeReclaimPolicy": "Delete",
                "hostPath": {"path": "/var/tmp/simulated"},
                "claimRef": owner,
            }
            if "ReadWriteMany" not in spec["accessModes"]:
                here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
                terms = [{"matchExpressions": [here]}]
                spec["nodeAffinity"] = {"required": {"nodeSelectorTerms": terms}}
            name = f"pvc-{meta['uid']}"
            volume = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}}
            self._api.call("POST", "/api/v1/persistentvolumes", volume | {"spec": spec})
        for volume in self._api.items("/api/v1/persistentvolumes"):
            if volume["status"].get("phase") == "Released":
                name = volume["metadata"]["name"]
                self._api.call("DELETE", f"/api/v1/persistentvolumes/{name}")

    def _advance(self, pod: Mapping) -> None:
        """Take a pod one step on: waiting, running, ended, gone."""
        meta = pod["metadata"]
        progress = self._pods.setdefault(meta["uid"], _Progress())
        ended = progress.ended or pod["status"].get("phase") in ("Succeeded", "Failed")
        if meta.get("deletionTimestamp"):
            if not ended:
                # The programs write a checkpoint at SIGTERM and end with 4.
                ending = Ending(4) if progress.runs else Ending(143, True)
                if progress.ending and progress.ending.when_stopped:
                    ending = progress.ending
                self._finish(pod, progress, ending)
            else:
                path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
                now = {"gracePeriodSeconds": 0, "preconditions": {"uid": meta["uid"]}}
                self._api.call("DELETE", path, now)
            return
        if ended:
            return
        if progress.ending is None and not progress.started:
            self._start(pod, progress)
        elif progress.ending and progress.ending.waiting:
            self._finish(pod, progress, progress.ending)
        elif not progress.runs:
            self._run_main(pod, progress)
        else:
            with self._lock:
                ending = self._now.pop((meta["namespace"], meta["name"]), progress.ending)
            if ending and not ending.when_stopped:
                self._finish(pod, progress, ending)

    def _start(self, pod: Mapping, progress: "_Progress") -> None:
        meta, spec = pod["metadata"], pod["spec"]
        with self._lock:
            planned = self._planned[_component(pod)]
            progress.ending = planned.pop(0) if planned else None
        progress.started = True
        address = "10.9.{}.{}".format(*hashlib.sha256(meta["uid"].encode()).digest()[:2])
        status = {
            "phase": "Pending",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "startTime": _now(),
            "containerStatuses": [_container(one, _WAITING) for one in spec["containers"]],
        }
        if inits := spec.get("initContainers"):
            running = {"running": {"startedAt": _now()}}
            status["initContainerStatuses"] = [_container(one, running) for one in inits]
        self._report(pod, status)

    def _run_main(self, pod: Mapping, progress: "_Progress") -> None:
        spec = pod["spec"]
        running = {"running": {"startedAt": _now()}}
        status: dict[str, Any] = {
            "phase": "Running",
            "conditions": [
                _condition(kind, True) for kind in ("Initialized", "Ready", "ContainersReady")
            ],
            "containerStatuses": [_container(one, running, True) for one in spec["containers"]],
        }
        if inits := spec.get("initContainers"):
            status["initContainerStatuses"] = [_container(one, _ended(0), True) for one in inits]
        self._report(pod, status)
        progress.runs = True

    def _finish(self, pod: Mapping, progress: "_Progress", ending: Ending) -> None:
        """Report the end of a pod as a kubelet does."""
        reason = "PodFailed" if ending.code else "PodCompleted"
        conditions = [_condition(kind, False, reason) for kind in ("Ready", "ContainersReady")]
        status: dict[str, Any] = {"phase": "Failed" if ending.code else "Succeeded"}
        if ending.evicted:
            conditions.append(_condition("DisruptionTarget", True, "TerminationByKubelet"))
            status["reason"] = "Evicted"
        inits, mains = pod["spec"].get("initContainers", []), pod["spec"]["containers"]
        state = _ended(ending.code, ending.reason)
        if ending.waiting and inits:
            status["initContainerStatuses"] = [_container(one, state) for one in inits]
            status["containerStatuses"] = [_container(one, _WAITING) for one in mains]
        else:
            status["initContainerStatuses"] = [_container(one, _ended(0)) for one in inits]
            status["containerStatuses"] = [_container(one, state) for one in mains]
        self._report(pod, status | {"conditions": conditions})
        progress.ended = True
        with self._lock:
            self._codes[_component(pod)].append(ending.code)

    def _report(self, pod: Mapping, status: Mapping) -> None:
        meta = pod["metadata"]
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/status"
        body = {"metadata": {"uid": meta["uid"]}, "status": status}
        self._api.call("PATCH", path, body, _MERGE)


@dataclasses.dataclass
class _Progress:
    """How far a pod has come."""

    started: bool = False
    runs: bool = False
    ended: bool = False
    ending: Ending | None = None


_WAITING = {"waiting": {"reason": "PodInitializing"}}


def _component(pod: Mapping) -> tuple[str, str]:
    """Return the namespace and the component of a pod."""
    meta = pod["metadata"]
    return meta["namespace"], meta.get("labels", {}).get("app.kubernetes.io/component", "")


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _condition(kind: str, holds: bool, reason: str = "") -> dict[str, str]:
    condition = {"type": kind, "status": str(holds), "lastTransitionTime": _now()}
    return condition | ({"reason": reason} if reason else {})


def _container(spec: Mapping, state: Mapping, ready: bool = False) -> dict:
    return {
        "name": spec["name"],
        "image": spec["image"],
        "imageID": "sha256:0",
        "ready": ready,
        "started": ready,
        "restartCount": 0,
        "state": state,
    }


def _ended(code: int, reason: str = "") -> dict:
    reason = reason or ("Error" if code else "Completed")
    times = {"startedAt": _now(), "finishedAt": _now()}
    return {"terminated": {"exitCode": code, "reason": reason, **times}}
