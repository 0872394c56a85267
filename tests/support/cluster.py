"""Simulate a cluster on one machine: run rendered Jobs as processes, and restart them by their own
rules.

It takes from the objects what a kubelet and the Job controller would: command, arguments and
environment of each container, config maps and volumes as folders below a root of its own, init
containers in their order, probes, grace periods, `podFailurePolicy`, `backoffLimit`, completions. A
container is a first process in namespaces of its own, without capabilities, that can write to its
volumes only and reach no network but the pods'. Not: scheduling, images, users, resource limits,
waiting between tries.
"""

import collections
import contextlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence

import psutil

from tests.support import manifests
from tests.support.network import Network

SECONDS = 500
"""What nothing in a test takes."""
_BIN = pathlib.Path(sys.executable).parent
_NAMESPACES = ("unshare", "--mount", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc")
_CONTAINER = """
hostname "$1"
ip link set lo up
mount --make-rprivate /
mount --bind "$2" /etc/hosts
for place in $(findmnt --list --noheadings --output TARGET); do
  case $place in /proc*|/sys*|/dev*) ;; *) mount -o remount,bind,ro "$place" ;; esac
done
shift 2
while [ "$1" != -- ]; do mount --bind "$1" "$1"; mount -o remount,bind,rw "$1"; shift; done
shift
exec setpriv --bounding-set=-all --inh-caps=-all --no-new-privs "$@"
"""
"""What becomes the container's first process; its arguments are the pod's name, its /etc/hosts, its
volumes, `--`, the command.
"""


def can_run() -> bool:
    """Whether this machine lets us make containers; root's does."""
    if not all(map(shutil.which, ("unshare", "ip", "findmnt", "setpriv", "hostname"))):
        return False
    return (
        subprocess.run([*_NAMESPACES, "--net", "true"], capture_output=True, check=False).returncode
        == 0
    )


class Pod:
    """One try: its containers in turn, until one fails or the last one ends."""

    def __init__(
        self,
        index: int,
        spec: Mapping,
        environment: Mapping[str, str],
        paths: "Paths",
        network: Network | None,
    ):
        """Without a network it has the loopback alone."""
        self.index, self.log = index, paths.own / "log"
        hosts = paths.own / "hosts"
        hosts.write_text(network.names if network else "127.0.0.1 localhost\n")
        namespaces = (
            [*network.prefixes[index], *_NAMESPACES] if network else [*_NAMESPACES, "--net"]
        )
        self._prefix = [
            *namespaces,
            "sh",
            "-ec",
            _CONTAINER,
            "sh",
            paths.own.name,
            str(hosts),
            *paths.folders.values(),
            "--",
        ]
        self.disrupted = False
        self.grace: float = spec["terminationGracePeriodSeconds"]
        self._spec, self._environment, self._paths = spec, environment, paths
        self._process: subprocess.Popen | None = None
        self._main = threading.Event()
        self._code = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        main = self._spec["containers"][0]
        for container in manifests.containers(self._spec):
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    self.command(container),
                    cwd=manifests.ROOT,
                    env=self.variables(container),
                    stdout=log,
                    stderr=log,
                )
            if container is main:
                self._main.set()
            if code := self._process.wait():
                # As a shell, and the kubelet, call an end by a signal.
                self._code = 128 - code if code < 0 else code
                break
        self._main.set()

    def variables(self, container: Mapping) -> dict[str, str]:
        """Return the environment of a container, added to that of this machine."""
        given = {**self._environment, **_declared(container), "TMPDIR": "/tmp"}
        image = {"PATH": f"{_BIN}:{os.environ['PATH']}", "PYTHONPATH": str(manifests.ROOT)}
        return {
            **os.environ,
            **{name: self._paths.here(value) for name, value in given.items()},
            **image,
        }

    def command(self, container: Mapping) -> list[str]:
        """Return the words of a container's command line, with `$(NAME)` replaced as the kubelet
        does.
        """
        known = {**self._environment, **_declared(container)}
        # Here, no process 1 is needed that passes signals on.
        words = [word for word in container["command"] if word not in ("tini", "--")]
        words += container["args"]
        expanded = [
            re.sub(r"\$\((\w+)\)", lambda name: known.get(name[1], name[0]), word) for word in words
        ]
        return [*self._prefix, *(self._paths.here(word) for word in expanded)]

    def wait_for_main(self) -> None:
        """Until its main container runs, or the pod has ended."""
        assert self._main.wait(SECONDS)

    def send(self, number: int, everyone: bool = False) -> None:
        """Send a signal to the first process of the running container, or to all of them."""
        if self._process is None or self._process.poll() is not None:
            return
        if number == signal.SIGKILL:
            # `unshare` would end otherwise than its child. It takes the child, and with it the
            # container, along.
            self._process.kill()
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self._process.pid).children(recursive=everyone):
                process.send_signal(number)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL after the grace period."""
        self.send(signal.SIGTERM)
        self._thread.join(self.grace)
        self.send(signal.SIGKILL)

    def probe(self) -> bool:
        """Run the liveness probe as it is defined; stop a pod that fails it."""
        command = [
            self._paths.here(word)
            for word in self._spec["containers"][0]["livenessProbe"]["exec"]["command"]
        ]
        command = [sys.executable if word == "python" else word for word in command]
        alive = not subprocess.run(
            command, cwd=manifests.ROOT, capture_output=True, check=False
        ).returncode
        if not alive:
            self.stop()
        return alive

    def wait(self) -> int:
        """Its exit code, as Kubernetes counts them."""
        self._thread.join(SECONDS)
        assert not self._thread.is_alive(), f"{self.log} never ended"
        return self._code

    @property
    def running(self) -> bool:
        return self._thread.is_alive()


class Paths:
    """Maps paths in a container to folders of this machine, one for each volume."""

    def __init__(
        self,
        pod: Mapping,
        root: pathlib.Path,
        own: pathlib.Path,
        config: Mapping[str, Mapping[str, str]],
    ):
        mounts = {
            mount["mountPath"]: mount["name"]
            for one in manifests.containers(pod)
            for mount in one["volumeMounts"]
        }
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        self.own = own
        self.folders = {}
        for path, name in mounts.items():
            lasting = "persistentVolumeClaim" in volumes[name]
            folder = (root if lasting else own) / path.strip("/").replace("/", "-")
            folder.mkdir(parents=True, exist_ok=True)
            self.folders[path] = str(folder)
        self._pattern = re.compile(
            r"(?<![\w./-])("
            + "|".join(sorted(map(re.escape, mounts), key=len, reverse=True))
            + r")(?=/|$)"
        )
        for path, name in mounts.items():
            if source := volumes[name].get("configMap"):
                for file, content in config[source["name"]].items():
                    (pathlib.Path(self.folders[path]) / file).write_text(self.here(content))

    def here(self, text: str) -> str:
        """Replace every path of a volume in a text by its place on this machine."""
        return self._pattern.sub(lambda path: self.folders[path[1]], text)


class Job:
    """A rendered Job that is carried out; `status` is None until it is `Complete` or `Failed`."""

    def __init__(
        self,
        objects: Sequence[Mapping],
        name: str,
        root: pathlib.Path,
        network: Network | None = None,
    ):
        self.spec = manifests.named(objects, "Job", name)["spec"]
        self._name, self._root = name, root
        self._network = network
        self._config = {
            o["metadata"]["name"]: o["data"] for o in objects if o["kind"] == "ConfigMap"
        }
        self.status: str | None = None
        self.reason = ""
        self.failures = 0
        self.pods: list[Pod] = []
        self._active: dict[int, Pod] = {}
        self._lock = threading.Condition()
        self._thread = threading.Thread(target=self._reconcile, daemon=True)
        self._thread.start()

    def _reconcile(self) -> None:
        done: set[int] = set()
        wanted = range(self.spec.get("completions", 1))
        while self.status is None:
            for index in wanted:
                if index not in done and index not in self._active:
                    self._start(index)
            ended = [(index, pod) for index, pod in self._active.items() if not pod.running]
            for index, pod in ended:
                del self._active[index]
                if code := pod.wait():
                    self._judge(pod, code)
                else:
                    done.add(index)
            if self.status is None and len(done) == len(wanted):
                self.status = "Complete"
            time.sleep(0.05)
        for pod in self._active.values():
            pod.stop()

    def _start(self, index: int) -> None:
        spec = self.spec["template"]["spec"]
        environment: dict[str, str] = {}
        for source in spec["containers"][0]["envFrom"]:
            environment |= self._config[source["configMapRef"]["name"]]
        if self.spec.get("completionMode") == "Indexed":
            environment["JOB_COMPLETION_INDEX"] = str(index)
        own = self._root / f"{self._name}-{index}-{len(self.pods)}"
        paths = Paths(spec, self._root, own, self._config)
        pod = Pod(index, spec, environment, paths, self._network)
        with self._lock:
            self.pods.append(pod)
            self._active[index] = pod
            self._lock.notify_all()

    def _judge(self, pod: Pod, code: int) -> None:
        """Apply the Job's failure policy to a failed pod; the first rule that fits counts."""
        for rule in self.spec["podFailurePolicy"]["rules"]:
            if "onPodConditions" in rule:
                fits = pod.disrupted and rule["onPodConditions"][0]["type"] == "DisruptionTarget"
            else:
                fits = code in rule["onExitCodes"]["values"]
            if fits:
                if rule["action"] == "FailJob":
                    self.status, self.reason = "Failed", "PodFailurePolicy"
                return
        self.failures += 1
        if self.failures > self.spec["backoffLimit"]:
            self.status, self.reason = "Failed", "BackoffLimitExceeded"

    def pod(self, number: int) -> Pod:
        """Wait until the main container of pod `number`, from 0 in order of start, runs; return the
        pod.
        """
        with self._lock:
            assert self._lock.wait_for(lambda: len(self.pods) > number, SECONDS), (
                f"{self._name}: no pod {number}: {self.log()}"
            )
        self.pods[number].wait_for_main()
        return self.pods[number]

    def disrupt(self, number: int) -> None:
        """Remove the node of a pod."""
        self.pods[number].disrupted = True
        self.pods[number].stop()

    def pass_deadline(self) -> None:
        """`activeDeadlineSeconds` are over."""
        self.status, self.reason = "Failed", "DeadlineExceeded"
        self._thread.join(SECONDS)

    def wait(self) -> str:
        """Until the Job is over; its status."""
        self._thread.join(SECONDS)
        assert self.status, self.log()
        return self.status

    def codes(self) -> collections.Counter:
        """Exit codes of the pods that ended, and how often."""
        return collections.Counter(pod.wait() for pod in self.pods)

    def log(self) -> str:
        """Return the logs of all pods."""
        return "\n".join(pod.log.read_text(errors="replace") for pod in self.pods)


def _declared(container: Mapping) -> dict[str, str]:
    return {one["name"]: one["value"] for one in container.get("env", [])}
