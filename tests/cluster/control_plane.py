"""Start a Kubernetes control plane on the loopback: etcd, API server, controllers and scheduler.

JobSet and Kueue run beside it as they would in a pod: their webhooks are URLs on the loopback.
"""

import base64
import contextlib
import os
import pathlib
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping

import yaml

from tests.support import manifests

SECONDS_TO_START = 120
UNREACHABLE_SECONDS = 10
"""How long pods stay on a node that is not reachable; five minutes in a real cluster."""
_TOKEN = "token-of-this-test"
_OPERATORS = ("jobset", "kueue")


class ControlPlane:
    """Processes of a control plane, all children of this one, in a folder of their own."""

    def __init__(self, binaries: pathlib.Path, folder: pathlib.Path):
        self.folder = folder
        self._binaries = binaries
        self._processes: list[subprocess.Popen] = []
        self._ports = _find_free_ports()
        self.url = f"https://127.0.0.1:{self._ports['api']}"
        self.headers = {"Authorization": f"Bearer {_TOKEN}"}
        self.kubeconfig = folder / "kubeconfig"
        self.certificate = folder / "certificates" / "apiserver.crt"

    def start(self) -> None:
        """Start everything and wait until the API server and the webhooks answer."""
        self._write_credentials()
        self._start_etcd_and_api_server()
        self._wait_for(self._api_is_ready, "the API server")
        common = ("--kubeconfig=kubeconfig", "--leader-elect=false", "--bind-address=127.0.0.1")
        self._start(
            "kube-controller-manager",
            *common,
            f"--secure-port={self._ports['controllers']}",
            "--cert-dir=certificates",
            "--service-account-private-key-file=accounts.key",
            "--use-service-account-credentials=true",
            "--node-monitor-period=2s",
            "--node-monitor-grace-period=40s",
        )
        self._start(
            "kube-scheduler",
            *common,
            f"--secure-port={self._ports['scheduler']}",
            "--cert-dir=certificates",
        )
        self._start_operators()

    def stop(self) -> None:
        """End all processes, the last one first."""
        for process in reversed(self._processes):
            process.terminate()
        for process in reversed(self._processes):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def kubectl(
        self, *arguments: str | pathlib.Path, stdin: str | None = None
    ) -> subprocess.CompletedProcess:
        """Run kubectl as the cluster's administrator and return what it printed."""
        return subprocess.run(
            [manifests.KUBECTL, f"--kubeconfig={self.kubeconfig}", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )

    def apply_objects(self, *objects: Mapping) -> None:
        """Apply objects of this test on the server's side."""
        done = self.kubectl(
            "apply", "--server-side", "--filename=-", stdin=yaml.safe_dump_all(objects)
        )
        assert not done.returncode, done.stderr

    def _write_credentials(self) -> None:
        for command in (
            ["openssl", "genrsa", "-out", "accounts.key", "2048"],
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
                *("-keyout", "tls.key", "-out", "tls.crt", "-subj", "/CN=webhooks"),
                *("-addext", "subjectAltName=IP:127.0.0.1"),
            ],
        ):
            subprocess.run(command, cwd=self.folder, check=True, capture_output=True)
        (self.folder / "tokens.csv").write_text(f'{_TOKEN},admin,admin,"system:masters"\n')
        settings = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "test",
                    "cluster": {
                        "server": self.url,
                        "certificate-authority": str(self.certificate),
                        "tls-server-name": "kubernetes",
                    },
                }
            ],
            "users": [{"name": "admin", "user": {"token": _TOKEN}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
            "current-context": "test",
        }
        self.kubeconfig.write_text(yaml.safe_dump(settings))

    def _start_etcd_and_api_server(self) -> None:
        client, peer = (f"http://127.0.0.1:{self._ports[name]}" for name in ("etcd", "peer"))
        self._start(
            "etcd",
            "--data-dir=etcd",
            "--unsafe-no-fsync",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
        )
        self._start(
            "kube-apiserver",
            f"--etcd-servers={client}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self._ports['api']}",
            "--cert-dir=certificates",
            "--endpoint-reconciler-type=none",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--token-auth-file=tokens.csv",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-account-signing-key-file=accounts.key",
            "--service-account-key-file=accounts.key",
            f"--default-unreachable-toleration-seconds={UNREACHABLE_SECONDS}",
            f"--default-not-ready-toleration-seconds={UNREACHABLE_SECONDS}",
        )

    def _start_operators(self) -> None:
        webhooks = {name: self._split_operator(name) for name in _OPERATORS}
        done = self.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
        assert not done.returncode, done.stderr
        webhook = {"host": "127.0.0.1", "certDir": str(self.folder)}
        settings = {
            "jobset": {"apiVersion": "config.jobset.x-k8s.io/v1alpha1"},
            "kueue": {
                "apiVersion": "config.kueue.x-k8s.io/v1beta1",
                "integrations": {"frameworks": ["batch/job", "jobset.x-k8s.io/jobset"]},
                # Its server would need rights and certificates of a cluster.
                "featureGates": {"VisibilityOnDemand": False},
            },
        }
        for name in _OPERATORS:
            port = self._ports[name]
            common = {
                "kind": "Configuration",
                "leaderElection": {"leaderElect": False},
                "internalCertManagement": {"enable": False},
                "metrics": {"bindAddress": "0"},
                "health": {"healthProbeBindAddress": "127.0.0.1:0"},
                "webhook": {**webhook, "port": port},
            }
            config = self.folder / f"{name}.yaml"
            config.write_text(yaml.safe_dump({**settings[name], **common}))
            self._start(name, f"--config={config}", inside=self._prefix_with_certificate())
        for name in _OPERATORS:
            self._wait_for(lambda name=name: self._accepts(name), f"the webhooks of {name}")
            self.apply_objects(*webhooks[name])

    def _split_operator(self, name: str) -> list[dict]:
        """Install the kinds of an operator, and return its webhooks for when it listens."""
        bundle = base64.b64encode((self.folder / "tls.crt").read_bytes()).decode()
        kinds, webhooks = [], []
        done = subprocess.run(
            [manifests.KUBECTL, "kustomize", self._binaries / f"{name}-config" / "default"],
            capture_output=True,
            text=True,
            check=True,
        )
        for found in yaml.safe_load_all(done.stdout):
            if found["kind"] == "Namespace":
                kinds.append(found)
            elif found["kind"] == "CustomResourceDefinition":
                found["spec"].pop("conversion", None)
                kinds.append(found)
            elif found["kind"].endswith("WebhookConfiguration"):
                for hook in found["webhooks"]:
                    path = hook["clientConfig"].pop("service")["path"]
                    url = f"https://127.0.0.1:{self._ports[name]}{path}"
                    hook["clientConfig"] |= {"url": url, "caBundle": bundle}
                webhooks.append(found)
        self.apply_objects(*kinds)
        return webhooks

    def _prefix_with_certificate(self) -> tuple[str, ...]:
        """Return a command's prefix that puts a certificate where Kueue insists on finding it."""
        etc = self.folder / "etc"
        place = etc / "kueue" / "metrics" / "certs"
        place.mkdir(parents=True, exist_ok=True)
        for name in ("tls.crt", "tls.key"):
            (place / name).write_bytes((self.folder / name).read_bytes())
        script = 'mount --bind "$0" /etc && exec "$@"'
        return ("unshare", "--mount", "sh", "-c", script, str(etc))

    def _start(self, name: str, *flags: str, inside: tuple[str, ...] = ()) -> None:
        with (self.folder / f"{name}.log").open("wb") as log:
            # The process ends when this one does, also when this one is killed.
            command = ["setpriv", "--pdeathsig", "KILL", *inside, self._binaries / name, *flags]
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env={**os.environ, "KUBECONFIG": str(self.kubeconfig)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._processes.append(process)

    def _api_is_ready(self) -> bool:
        if not self.certificate.exists():
            return False
        context = ssl.create_default_context(cafile=self.certificate)
        context.check_hostname = False
        request = urllib.request.Request(f"{self.url}/readyz", headers=self.headers)
        with urllib.request.urlopen(request, context=context, timeout=5) as answer:
            return answer.read() == b"ok"

    def _accepts(self, name: str) -> bool:
        with socket.create_connection(("127.0.0.1", self._ports[name]), timeout=5):
            return True

    def _wait_for(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + SECONDS_TO_START
        while time.monotonic() < end:
            for process in self._processes:
                assert process.poll() is None, f"{process.args} ended: see {self.folder}"
            with contextlib.suppress(OSError):
                if condition():
                    return
            time.sleep(0.2)
        raise AssertionError(f"{what} did not answer in {SECONDS_TO_START} s: see {self.folder}")


@contextlib.contextmanager
def run(binaries: pathlib.Path, folder: pathlib.Path) -> Iterator[ControlPlane]:
    """Run a control plane for as long as the block lasts."""
    plane = ControlPlane(binaries, folder)
    try:
        plane.start()
        yield plane
    finally:
        plane.stop()


def _find_free_ports() -> dict[str, int]:
    names = ("etcd", "peer", "api", "controllers", "scheduler", "jobset", "kueue")
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in names]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return dict(zip(names, (one.getsockname()[1] for one in sockets), strict=True))
