"""Render overlays as `kubectl apply -k` would send them, and find the parts that tests check."""

import functools
import itertools
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
K8S = ROOT / "k8s"
OVERLAYS = sorted(path.name for path in (K8S / "overlays").iterdir())
COMPONENTS = (
    "spot",
    "storage-gcs-fuse",
    "storage-pvc",
    "storage-pvc-shared",
    "jobset",
    "kueue",
    "nightly",
)
"""Those that the page offers beside an overlay, in the order in which k8s/overlay.sh lists them."""
STORAGE = ("storage-gcs-fuse", "storage-pvc", "storage-pvc-shared")
KUBECTL = pathlib.Path(sys.executable).with_name("kubectl")


def render(folder: pathlib.Path) -> list[dict]:
    """Return the objects of a kustomization."""
    done = subprocess.run(
        [KUBECTL, "kustomize", folder], capture_output=True, text=True, check=False
    )
    assert not done.returncode and not done.stderr, done.stderr
    return [found for found in yaml.safe_load_all(done.stdout) if found]


@functools.cache
def overlay(name: str) -> list[dict]:
    """Return the objects of one of our overlays, which must not be changed."""
    return render(K8S / "overlays" / name)


def write_overlay(
    folder: pathlib.Path,
    base: str,
    components: Sequence[str] = (),
    env: Sequence[str] = (),
    arguments: Sequence[str] = (),
    **flag_files: str,
) -> pathlib.Path:
    """Write an overlay as a user would: a folder of ours, components, and other flag files.

    Folders are named as they stand in k8s/, such as `overlays/local` or `components/spot`.
    `env` is as in `RUN=second`; `arguments` come behind those of the Job `train`.
    """
    folder.mkdir(parents=True)
    here = os.path.relpath(K8S, folder.resolve())
    added = [
        {"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": value}
        for value in arguments
    ]
    for name, content in flag_files.items():
        (folder / f"{name}.flags").write_text(content)
    settings = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "humerus",
        "resources": [f"{here}/{base}"],
        "components": [f"{here}/{name}" for name in components],
        "configMapGenerator": [
            {
                "name": "humerus-flags",
                "behavior": "merge",
                "files": [f"{name}.flags" for name in flag_files],
            },
            {"name": "humerus-env", "behavior": "merge", "literals": list(env)},
        ],
        "patches": [{"target": {"kind": "Job", "name": "train"}, "patch": yaml.safe_dump(added)}]
        if added
        else [],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(settings))
    return folder


def refusals() -> dict[tuple[str, str], str]:
    """Return why an overlay and a component don't go together, for each pair that is refused."""
    found = {}
    for line in (K8S / "refused").read_text().splitlines():
        if not line.startswith("#"):
            component, names, reason = line.split(maxsplit=2)
            found |= {(name, component): reason for name in names.split(",")}
    return found


def offered(name: str) -> list[str]:
    """Return the components that the page offers beside an overlay."""
    return [component for component in COMPONENTS if (name, component) not in refusals()]


def offered_sets(name: str) -> list[tuple[str, ...]]:
    """Return all sets of components that an overlay takes: at most one of the three storages."""
    components = offered(name)
    return [
        chosen
        for size in range(len(components) + 1)
        for chosen in itertools.combinations(components, size)
        if len(set(chosen) & set(STORAGE)) <= 1
    ]


def jobs(objects: Sequence[dict]) -> Iterator[dict]:
    """Every Job, also those that a CronJob or a JobSet holds, with `metadata.name` and `spec`."""
    for found in objects:
        if found["kind"] == "Job":
            yield found
        elif found["kind"] == "CronJob":
            yield {
                **found["spec"]["jobTemplate"],
                "metadata": {"name": f"cron-{found['metadata']['name']}"},
            }
        elif found["kind"] == "JobSet":
            for job in found["spec"]["replicatedJobs"]:
                yield {"metadata": {"name": f"set-{job['name']}"}, "spec": job["template"]["spec"]}


def pod_specs(objects: Sequence[dict]) -> Iterator[tuple[str, dict]]:
    """Name of the workload and spec of its pods, of every workload."""
    for job in jobs(objects):
        yield job["metadata"]["name"], job["spec"]["template"]["spec"]
    for found in objects:
        if found["kind"] == "Deployment":
            yield found["metadata"]["name"], found["spec"]["template"]["spec"]


def containers(pod: Mapping) -> list[dict]:
    """All of a pod, init containers first."""
    return [*pod.get("initContainers", []), *pod["containers"]]


def named(objects: Sequence[dict], kind: str, name: str) -> dict:
    """Return the only object of a kind that is called `name`, or `name` with a hash behind it."""
    (found,) = (
        o
        for o in objects
        if o["kind"] == kind and (o["metadata"]["name"] + "-").startswith(f"{name}-")
    )
    return found
