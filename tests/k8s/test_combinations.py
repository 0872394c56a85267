"""Every combination that the page offers renders; the others say why not."""

import itertools
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml

from tests.k8s.test_manifests import VERSIONS, validate
from tests.support import documents, manifests


@pytest.fixture
def k8s(tmp_path):
    """Copy the manifests, so that the scripts write into the copy."""
    return shutil.copytree(manifests.K8S, tmp_path / "k8s", ignore=shutil.ignore_patterns("mine"))


def run(script, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [script, *arguments],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def check_storage(objects: list[dict], chosen: tuple[str, ...], overlay: str) -> None:
    """Check that all pods mount the chosen storage and know where it is."""
    kinds = {
        "storage-gcs-fuse": "csi",
        "storage-pvc": "persistentVolumeClaim",
        "storage-pvc-shared": "persistentVolumeClaim",
    }
    (kind,) = [kinds[one] for one in chosen if one in manifests.STORAGE] or [None]
    if overlay == "local":
        kind = "persistentVolumeClaim"
    for name, pod in manifests.pod_specs(objects):
        found = [volume for volume in pod["volumes"] if volume["name"] == "data"]
        assert [set(volume) - {"name"} for volume in found] == ([{kind}] if kind else []), name
        for volume in found:
            if kind == "csi":
                assert volume["csi"]["volumeAttributes"]["bucketName"] == "my-bucket"
        for container in manifests.containers(pod):
            mounts = {mount["name"] for mount in container["volumeMounts"]}
            assert ("data" in mounts) == bool(kind), name
    storage = manifests.named(objects, "ConfigMap", "humerus-env")["data"]["STORAGE"]
    assert storage == ("/data" if kind else "gs://my-bucket")
    for claim in (found for found in objects if found["kind"] == "PersistentVolumeClaim"):
        shared = "storage-pvc-shared" in chosen
        assert claim["spec"]["accessModes"] == ["ReadWriteMany" if shared else "ReadWriteOnce"]


@pytest.mark.parametrize("overlay", manifests.OVERLAYS)
def test_all_offered_combinations_render_as_they_are_named(overlay, k8s):
    def render(chosen: tuple[str, ...]) -> list[dict]:
        folder = k8s / "mine" / "-".join(("all", overlay, *chosen))
        folder.mkdir(parents=True)
        settings = yaml.safe_load((k8s / "overlays" / overlay / "kustomization.yaml").read_text())
        settings["components"] += [f"../../components/{name}" for name in chosen]
        for file in (k8s / "overlays" / overlay).iterdir():
            shutil.copy(file, folder)
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(settings))
        return manifests.render(folder)

    combinations = manifests.offered_sets(overlay)
    with ThreadPoolExecutor(2) as pool:
        rendered = list(pool.map(render, combinations))
    for chosen, objects in zip(combinations, rendered, strict=True):
        kinds = {(found["kind"], found["metadata"]["name"]) for found in objects}
        assert len(kinds) == len(objects)
        jobset = "jobset" in chosen or overlay == "multi-node-jobset"
        assert (("JobSet", "train") in kinds) == jobset
        assert (("Job", "train") in kinds) == (
            not jobset and overlay not in ("score-cpu", "dataflow-launcher")
        )
        assert (("CronJob", "score") in kinds) == ("nightly" in chosen or overlay == "score-cpu")
        queued = [
            found["metadata"]["labels"].get("kueue.x-k8s.io/queue-name")
            for found in objects
            if (found["kind"], found["metadata"]["name"]) in (("Job", "train"), ("JobSet", "train"))
        ]
        kueue = "kueue" in chosen or overlay == "multi-node-jobset"
        assert queued in (["humerus"] if kueue else [None], [])
        check_storage(objects, chosen, overlay)
        for job in manifests.jobs(objects):
            selector = job["spec"]["template"]["spec"].get("nodeSelector", {})
            trains = job["metadata"]["name"] in ("train", "set-hosts")
            spot = trains and ("spot" in chosen or overlay == "multi-node-jobset")
            assert ("cloud.google.com/gke-spot" in selector) == spot
    # All of them together: the schemas of the newest version.
    for found in rendered[-1]:
        validate(found, VERSIONS[-1])


@pytest.mark.parametrize(("overlay", "component"), sorted(manifests.refusals()))
def test_a_refused_combination_says_why(overlay, component, k8s):
    done = run(k8s / "overlay.sh", overlay, component)
    reason = manifests.refusals()[overlay, component]
    assert done.returncode == 2 and not done.stdout
    assert done.stderr == (f"k8s/overlay.sh: {component} doesn't go with {overlay}: {reason}.\n")
    assert not (k8s / "mine").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "no overlay is named; expected one of:"),
        (["gpu-2"], "'gpu-2' is no overlay; expected one of:"),
        ([""], "'' is no overlay; expected one of:"),
        (["../base"], "'../base' is no overlay; expected one of:"),
        (["gpu-1/", "storage-pvc"], "'gpu-1/' is no overlay; expected one of:"),
        (["local", "kueue nightly"], "kueue doesn't go with local:"),
        (["gpu-1", "metrics"], "'metrics' is not offered; expected some of:"),
        *(
            ([overlay, *pair], f"{pair[0]} and {pair[1]} exclude each other: name one of them.")
            for overlay in manifests.OVERLAYS
            for pair in itertools.permutations(manifests.STORAGE, 2)
            if set(pair) <= set(manifests.offered(overlay))
        ),
    ],
)
def test_a_wrong_overlay_is_refused_in_a_sentence(words, sentence, k8s):
    """Nothing is written or deleted, also where the user's own overlays are."""
    own = k8s / "mine" / "own" / "kustomization.yaml"
    own.parent.mkdir(parents=True)
    own.touch()
    before = set(k8s.rglob("*"))
    done = run(k8s / "overlay.sh", *words)
    assert done.returncode == 2 and sentence in done.stderr and done.stderr.count("\n") == 1
    assert set(k8s.rglob("*")) == before


@pytest.mark.parametrize("words", [[], [""], ["--all"], ["../gpu-1"], ["gpu-1 default"]])
def test_jobs_of_no_overlay_are_not_deleted(words, k8s):
    """The script refuses such a name before it asks the cluster."""
    done = run(k8s / "delete-jobs.sh", *words, KUBECTL="false")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "can't be an overlay; expected a name such as gpu-1" in done.stderr


def test_the_script_lists_components_in_the_order_that_works(k8s):
    """The order on the command line doesn't matter: the JobSet copies what `spot` has changed."""
    done = run(k8s / "overlay.sh", "multi-node-2x8", "kueue", "nightly", "jobset", "spot")
    assert not done.returncode, done.stderr
    found = manifests.render(k8s / "mine" / "multi-node-2x8")
    jobset = manifests.named(found, "JobSet", "train")
    assert jobset["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "humerus"
    pod = jobset["spec"]["replicatedJobs"][1]["template"]["spec"]["template"]["spec"]
    assert pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true"


def test_a_site_is_made_without_a_change_of_a_tracked_file(k8s):
    before = {path: path.read_bytes() for path in k8s.rglob("*") if path.is_file()}
    assert "placeholders: run `make k8s-site`" in run(k8s / "overlay.sh", "gpu-1").stderr
    assert not run(k8s / "overlay.sh", "local").stderr, "it needs no bucket"
    made = run(
        k8s / "site.sh",
        BUCKET="radiographs",
        IMAGE="europe-west4-docker.pkg.dev/clinic-1/humerus",
        RUN="second",
    )
    assert not made.returncode, made.stderr
    rendered = run(k8s / "overlay.sh", "gpu-1")
    assert not rendered.returncode and not rendered.stderr
    assert {path: path.read_bytes() for path in before} == before
    objects = manifests.render(k8s / "mine" / "gpu-1")
    env = manifests.named(objects, "ConfigMap", "humerus-env")["data"]
    assert env == {
        "BUCKET": "radiographs",
        "STORAGE": "gs://radiographs",
        "SOURCE": "gs://radiographs/MURA-v1.1",
        "INPUT": "gs://radiographs/incoming",
        "RUN": "second",
        "GOOGLE_SERVICE_ACCOUNT": "humerus@clinic-1.iam.gserviceaccount.com",
        "GOOGLE_CLOUD_PROJECT": "clinic-1",
        "REGION": "europe-west4",
    }
    images = {one["image"] for _, pod in manifests.pod_specs(objects) for one in pod["containers"]}
    assert images == {
        f"europe-west4-docker.pkg.dev/clinic-1/humerus/{name}:0.1.0" for name in ("train", "score")
    }


SITE = {"BUCKET": "radiographs", "IMAGE": "us-central1-docker.pkg.dev/clinic-1/humerus"}


def test_values_of_a_site_may_look_like_placeholders(k8s):
    values = {
        "BUCKET": "my-project.my-region",
        "IMAGE": "localhost:5000/my-bucket/my-project",
        "PROJECT": "my-region-1",
        "REGION": "europe-west10",
        "RUN": "1e3",
    }
    assert not run(k8s / "site.sh", **values).returncode
    assert not run(k8s / "overlay.sh", "gpu-1").returncode
    objects = manifests.render(k8s / "mine" / "gpu-1")
    env = manifests.named(objects, "ConfigMap", "humerus-env")["data"]
    assert env["STORAGE"] == "gs://my-project.my-region" and env["RUN"] == "1e3"
    assert (env["GOOGLE_CLOUD_PROJECT"], env["REGION"]) == ("my-region-1", "europe-west10")
    images = {one["image"] for _, pod in manifests.pod_specs(objects) for one in pod["containers"]}
    assert images == {f"{values['IMAGE']}/{name}:0.1.0" for name in ("train", "score")}


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "BUCKET=''"),
        ({**SITE, "BUCKET": "gs://radiographs"}, "BUCKET='gs://radiographs'"),
        ({**SITE, "BUCKET": "radio|graphs&"}, "BUCKET='radio|graphs&'"),
        ({**SITE, "BUCKET": "radiographs\n- x"}, "BUCKET='radiographs - x'"),
        ({**SITE, "IMAGE": "nowhere"}, "IMAGE='nowhere'"),
        ({**SITE, "IMAGE": "a.b/c:1"}, "IMAGE='a.b/c:1'"),
        ({**SITE, "IMAGE": "a.b/c@sha256:0a"}, "IMAGE='a.b/c@sha256:0a'"),
        ({**SITE, "IMAGE": "a.b/c"}, "PROJECT=''"),
        # A project of an organisation's domain, whose accounts have other names.
        ({**SITE, "IMAGE": "us-docker.pkg.dev/clinic.org/p/h"}, "PROJECT='clinic.org'"),
        # Images may lie in several regions; Dataflow runs in one.
        ({**SITE, "IMAGE": "us-docker.pkg.dev/clinic-1/humerus"}, "REGION='us'"),
        ({**SITE, "RUN": "No 2"}, "RUN='No 2'"),
        ({**SITE, "RUN": "a" * 41}, f"RUN='{'a' * 41}'"),
    ],
)
def test_a_wrong_setting_of_a_site_is_refused_in_a_sentence(settings, name, k8s):
    done = run(k8s / "site.sh", **settings)
    assert done.returncode == 2 and f"{name} can't be used; expected" in done.stderr
    assert done.stderr.count("\n") == 1 and not (k8s / "mine").exists()


def test_the_page_shows_which_components_go_with_which_overlay():
    """Its table has a row for each component and a column for each overlay."""
    page = (documents.ROOT / "docs" / "kubernetes.md").read_text()
    rows = [
        [cell.strip(" `") for cell in line.strip("|").split("|")]
        for line in page.splitlines()
        if line.startswith("|")
    ]
    (header,) = (row for row in rows if row[0] == "component" and len(row) > 3)
    assert header[1:] == manifests.OVERLAYS
    for component in manifests.COMPONENTS:
        (row,) = (row for row in rows if row[0] == component and len(row) == len(header))
        for overlay, cell in zip(header[1:], row[1:], strict=True):
            reason = manifests.refusals().get((overlay, component))
            expected = "✓" if reason is None else "has it" if "already" in reason else "no"
            assert cell == expected, (overlay, component)
