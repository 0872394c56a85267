"""Every overlay, rendered by kubectl: valid for three versions of Kubernetes, secure, and restarted as documented."""

import json
import os
import pathlib
import re
import shutil

import jsonschema
import kubernetes_validate
import pytest
import yaml
from apache_beam.options.pipeline_options import PipelineOptions

from tests.support import documents, manifests
from trainer import errors
from trainer.program import telemetry

CRDS = pathlib.Path(__file__).with_name("crds")
VERSIONS = sorted(
    kubernetes_validate.utils.all_versions(), key=lambda v: [int(n) for n in v.split(".")]
)[-3:]
CLUSTER = manifests.render(manifests.K8S / "cluster" / "kueue")
EVERY = pytest.mark.parametrize("name", manifests.OVERLAYS)
COMPONENTS = sorted(path.name for path in (manifests.K8S / "components").iterdir())


def strict(schema: dict) -> dict:
    """A CRD's schema that refuses fields it doesn't know, as an API server does under strict validation."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "type" in schema:
        schema.setdefault("additionalProperties", False)
    return schema


def validate(found: dict, version: str) -> None:
    """Raises where the API server of that version would refuse the object."""
    if (CRDS / f"{found['kind']}.json").exists():
        jsonschema.validate(found, strict(json.loads((CRDS / f"{found['kind']}.json").read_text())))
        for job in manifests.jobs([found]):
            whole = {"apiVersion": "batch/v1", "kind": "Job", **job}
            kubernetes_validate.validate(whole, version, strict=True)
    else:
        kubernetes_validate.validate(found, version, strict=True)


def test_the_overlays_of_the_documentation_are_there():
    assert {"local", "gpu-1", "gpu-8", "multi-node-2x8", "score-cpu", "dataflow-launcher"} <= set(
        manifests.OVERLAYS
    )
    assert [v.split(".")[0] for v in VERSIONS] == ["1"] * 3


@EVERY
def test_an_overlay_is_short(name):
    lines = (manifests.K8S / "overlays" / name / "kustomization.yaml").read_text().splitlines()
    assert len(lines) < 15


@EVERY
@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_every_object(name, version):
    objects = manifests.overlay(name)
    assert any(found["kind"] in ("Job", "JobSet") for found in objects)
    for found in [*objects, *CLUSTER]:
        validate(found, version)
        assert (
            found["kind"] in ("Namespace", "ClusterQueue", "ResourceFlavor")
            or found["metadata"]["namespace"] == "humerus"
        )


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("gpu-1", ("spec", "backoffLimitt"), 3),
        ("multi-node-jobset", ("spec", "failurePolicy", "maxRestart"), 3),
        (
            "multi-node-jobset",
            ("spec", "replicatedJobs", 0, "template", "spec", "completionMode"),
            5,
        ),
        ("multi-node-jobset", ("spec", "network", "subdomain"), ["train"]),
    ],
)
def test_the_validation_would_notice(name, path, value):
    objects = json.loads(json.dumps(manifests.overlay(name)))
    found = next(
        o for o in objects if o["kind"] in ("Job", "JobSet") and o["metadata"]["name"] == "train"
    )
    *parents, last = path
    inner = found
    for key in parents:
        inner = inner[key]
    inner[last] = value
    with pytest.raises(jsonschema.ValidationError):
        validate(found, VERSIONS[-1])


@EVERY
def test_pods_are_restricted(name):
    """The pod security standard `restricted`, point by point, and a root file system that nothing can be written to."""
    objects = manifests.overlay(name)
    namespace = manifests.named(objects, "Namespace", "humerus")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce-version"] == "v1.29"
    pods = list(manifests.pod_specs(objects))
    assert pods
    for _, pod in pods:
        context = pod["securityContext"]
        assert (
            context["runAsNonRoot"] is True
            and context["runAsUser"] > 0
            and context["runAsGroup"] > 0
        )
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & set(pod)
        assert (
            pod["serviceAccountName"] == "humerus" and pod["automountServiceAccountToken"] is False
        )
        kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
        assert kinds <= {"configMap", "emptyDir", "persistentVolumeClaim", "csi"}
        for container in manifests.containers(pod):
            security = container["securityContext"]
            assert (
                security["allowPrivilegeEscalation"] is False
                and security["readOnlyRootFilesystem"] is True
            )
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert not {"privileged", "runAsUser", "procMount"} & set(security)


@EVERY
def test_pods_ask_for_what_they_need(name):
    for _, pod in manifests.pod_specs(manifests.overlay(name)):
        for container in manifests.containers(pod):
            resources = container["resources"]
            for what in ("cpu", "memory", "ephemeral-storage"):
                assert resources["requests"][what] and resources["limits"][what]
            assert resources["limits"].get("nvidia.com/gpu") == resources["requests"].get(
                "nvidia.com/gpu"
            )
            assert re.search(r":\d+\.\d+\.\d+$", container["image"]), "a version, not latest"
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted <= {volume["name"] for volume in pod["volumes"]} and "tmp" in mounted
        main = pod["containers"][0]
        shm = next(volume for volume in pod["volumes"] if volume["name"] == "shm")
        assert shm["emptyDir"]["medium"] == "Memory" and shm["emptyDir"]["sizeLimit"]
        assert {"name": "shm", "mountPath": "/dev/shm"} in main["volumeMounts"]
        if main["resources"]["limits"].get("nvidia.com/gpu"):
            assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod[
                "tolerations"
            ]
            assert pod["nodeSelector"]["cloud.google.com/gke-accelerator"]


@EVERY
def test_jobs_end_and_restart_as_documented(name):
    for job in manifests.jobs(manifests.overlay(name)):
        spec, pod = job["spec"], job["spec"]["template"]["spec"]
        assert spec["activeDeadlineSeconds"] and 15 <= pod["terminationGracePeriodSeconds"] <= 120
        assert spec["podReplacementPolicy"] == "Failed" and pod["restartPolicy"] == "Never"
        assert spec["backoffLimit"] >= 0 and (
            spec.get("ttlSecondsAfterFinished") or job["metadata"]["name"] == "set-train"
        )
        main = pod["containers"][0]
        if "--runner=DataflowRunner" in main["args"]:
            # Any other pod would start another job of Dataflow's.
            assert spec["backoffLimit"] == 0 and not {"podFailurePolicy"} & set(spec)
            assert not {"startupProbe", "livenessProbe"} & set(main)
            continue
        disrupted, wrong, stopped = spec["podFailurePolicy"]["rules"]
        assert disrupted == {
            "action": "Ignore",
            "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
        }
        assert wrong["action"] == "FailJob" and stopped["action"] == "Ignore"
        assert wrong["onExitCodes"] == {
            "operator": "In",
            "values": [errors.EXIT_CONFIG, errors.EXIT_DATA],
        }
        assert stopped["onExitCodes"] == {"operator": "In", "values": [errors.EXIT_STOPPED]}
        started, alive = main["startupProbe"], main["livenessProbe"]
        *python, file, allowed = alive["exec"]["command"]
        assert python == ["python", "-m", "trainer.program.heartbeat"] and int(allowed) >= 900
        assert f"--heartbeat={file}" in main["args"]
        assert (
            started["exec"] == alive["exec"]
            and started["periodSeconds"] * started["failureThreshold"] >= 300
        )


@EVERY
def test_nothing_gets_out_but_questions_to_dns_and_storage(name):
    objects = manifests.overlay(name)
    policies = {
        found["metadata"]["name"]: found["spec"]
        for found in objects
        if found["kind"] == "NetworkPolicy"
    }
    everything = policies.pop("humerus")
    assert everything["policyTypes"] == ["Ingress", "Egress"] and "ingress" not in everything
    assert {port["port"] for rule in everything["egress"] for port in rule["ports"]} == {53}
    resolvers = {
        peer["ipBlock"]["cidr"]
        for rule in everything["egress"]
        for peer in rule["to"]
        if "ipBlock" in peer
    }
    assert resolvers == {"169.254.20.10/32", "169.254.169.254/32"}
    assert set(policies) <= {"storage", "workers", "metrics"}
    blocks = {
        peer["ipBlock"]["cidr"]
        for rule in policies.get("storage", {}).get("egress", [])
        for peer in rule["to"]
    }
    assert blocks <= {
        "199.36.153.8/30",
        "199.36.153.4/30",
        "169.254.169.254/32",
        "169.254.169.252/32",
    }
    for pod in (found for found in objects if found["kind"] in ("Job", "Deployment")):
        assert (
            pod["spec"]["template"]["metadata"]["labels"].items()
            >= everything["podSelector"]["matchLabels"].items()
        )


@EVERY
def test_no_secrets_and_the_recommended_labels(name):
    for found in manifests.overlay(name):
        assert found["kind"] != "Secret"
        labels = found["metadata"]["labels"]
        assert {
            f"app.kubernetes.io/{key}"
            for key in ("name", "instance", "version", "part-of", "managed-by")
        } <= set(labels)
    text = yaml.safe_dump_all(manifests.overlay(name))
    assert not re.search(r"secretKeyRef|password|private_key|BEGIN [A-Z ]*KEY", text)


@EVERY
def test_every_variable_of_a_command_line_is_set(name):
    """Kubernetes leaves `$(NAME)` as it stands where there is no such variable."""
    objects = manifests.overlay(name)
    config = manifests.named(objects, "ConfigMap", "humerus-env")
    for _, pod in manifests.pod_specs(objects):
        for container in manifests.containers(pod):
            assert container["envFrom"] == [{"configMapRef": {"name": config["metadata"]["name"]}}]
            known = {*config["data"], *(one["name"] for one in container.get("env", []))}
            assert set(re.findall(r"\$\((\w+)\)", " ".join(container["args"]))) <= known
            assert "" not in [one["value"] for one in container.get("env", [])]


def test_gpus_and_hosts():
    def train(name: str) -> dict:
        return next(
            job
            for job in manifests.jobs(manifests.overlay(name))
            if job["metadata"]["name"].endswith("train")
        )["spec"]

    def gpus(name: str) -> str | None:
        return train(name)["template"]["spec"]["containers"][0]["resources"]["limits"].get(
            "nvidia.com/gpu"
        )

    counts = {
        name: gpus(name)
        for name in ("local", "gpu-1", "gpu-8", "multi-node-2x8", "multi-node-jobset")
    }
    assert counts == {
        "local": None,
        "gpu-1": "1",
        "gpu-8": "8",
        "multi-node-2x8": "8",
        "multi-node-jobset": "8",
    }
    for name, host in (("multi-node-2x8", "train"), ("multi-node-jobset", "train-hosts-0")):
        spec = train(name)
        assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == (
            "Indexed",
            2,
            2,
        )
        (hosts,) = (
            one["value"]
            for one in spec["template"]["spec"]["containers"][0]["env"]
            if one["name"] == "HUMERUS_HOSTS"
        )
        assert hosts == f"{host}-0.train:2222,{host}-1.train:2222"
        service = manifests.named(manifests.overlay(name), "Service", "train")["spec"]
        assert service["clusterIP"] == "None" and service["publishNotReadyAddresses"] is True
        batches = [
            one
            for one in spec["template"]["spec"]["containers"][0]["args"]
            if "global_batch_size" in one
        ]
        assert batches[-1] == "--config.global_batch_size=256", (
            "sixteen on each of sixteen, as on eight"
        )
    queued = manifests.named(manifests.overlay("multi-node-jobset"), "JobSet", "train")
    assert queued["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "humerus"
    assert "suspend" not in queued["spec"], "Kueue's to say: applied again, it would stop what runs"


def test_the_nightly_job_is_the_job():
    objects = manifests.overlay("score-cpu")
    assert (
        manifests.named(objects, "CronJob", "score")["spec"]["jobTemplate"]["spec"]
        == (manifests.named(objects, "Job", "score")["spec"])
    )


def test_one_pod_scores_at_a_time_whoever_started_it():
    """A CronJob's `Forbid` sees only the Jobs that it started itself."""
    for job in manifests.jobs(manifests.overlay("score-cpu")):
        template = job["spec"]["template"]
        (term,) = template["spec"]["affinity"]["podAntiAffinity"][
            "requiredDuringSchedulingIgnoredDuringExecution"
        ]
        assert term["topologyKey"] == "kubernetes.io/os", (
            "which is the same on every node that could run it"
        )
        assert (
            term["labelSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
        )


def test_what_prepares_and_exports_may_rename_folders_of_a_bucket_mounted_as_one(tmp_path):
    folder = manifests.write_overlay(
        tmp_path / "own", "base", ["site", "components/storage-gcs-fuse"]
    )
    for _, pod in manifests.pod_specs(manifests.render(folder)):
        (options,) = (
            volume["csi"]["volumeAttributes"]["mountOptions"]
            for volume in pod["volumes"]
            if "csi" in volume
        )
        user = [
            f"uid={pod['securityContext']['runAsUser']}",
            f"gid={pod['securityContext']['runAsGroup']}",
        ]
        assert set(options.split(",")) == {"implicit-dirs", "rename-dir-limit=100000", *user}


def test_names_of_a_jobset_follow_what_it_names(tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "kustomization.yaml").write_text(
        f"namePrefix: x-\nresources: [{os.path.relpath(manifests.K8S / 'overlays' / 'multi-node-jobset', folder.resolve())}]\n"
    )
    objects = manifests.render(folder)
    (job,) = manifests.jobs([found for found in objects if found["kind"] == "JobSet"])
    pod = job["spec"]["template"]["spec"]
    assert (
        pod["serviceAccountName"]
        == manifests.named(objects, "ServiceAccount", "x-humerus")["metadata"]["name"]
    )
    named = {found["metadata"]["name"] for found in objects if found["kind"] == "ConfigMap"}
    assert {
        source["configMapRef"]["name"]
        for one in manifests.containers(pod)
        for source in one["envFrom"]
    } <= named


def test_beam_knows_the_options_of_the_dataflow_launcher():
    job = manifests.named(manifests.overlay("dataflow-launcher"), "Job", "score")
    main = job["spec"]["template"]["spec"]["containers"][0]
    own = (
        "--flagfile",
        "--input",
        "--model",
        "--output",
        "--log_format",
        "--heartbeat",
        "--metrics_port",
        "--engine",
    )
    arguments = [argument for argument in main["args"] if not argument.startswith(own)]
    given = PipelineOptions(arguments).get_all_options(
        drop_default=True, retain_unknown_options=True
    )
    assert set(given) <= set(PipelineOptions([]).get_all_options())
    assert given["job_name"] == "humerus-score-$(RUN)" and "--engine=openvino" in main["args"]
    assert (
        given["runner"] == "DataflowRunner"
        and given["temp_location"] == "$(STORAGE)/tmp"
        and given["max_num_workers"] == 10
    )
    image = next(one["value"] for one in main["env"] if one["name"] == "IMAGE")
    assert image == main["image"] and image.endswith("/score:0.1.0")


@pytest.mark.parametrize(
    ("base", "components"),
    [
        ("base", ["site", "components/storage-gcs-fuse", "components/gpu", "components/nightly"]),
        ("overlays/gpu-1", ["components/spot", "components/kueue"]),
        ("overlays/local", ["components/metrics", "components/multi-node"]),
    ],
)
def test_components_fit_together(tmp_path, base, components):
    objects = manifests.render(
        manifests.write_overlay(tmp_path / "own", base, components, train="--config=humerus\n")
    )
    for found in objects:
        validate(found, VERSIONS[-1])
    volumes = manifests.named(objects, "Job", "train")["spec"]["template"]["spec"]["volumes"]
    buckets = [
        volume["csi"]["volumeAttributes"]["bucketName"] for volume in volumes if "csi" in volume
    ]
    assert buckets == (["my-bucket"] if "components/storage-gcs-fuse" in components else [])


def test_the_overlay_that_the_page_shows_is_one(tmp_path):
    shown = [
        block.text
        for block in documents.blocks(manifests.ROOT / "docs" / "kubernetes.md")
        if block.language == "yaml"
    ]
    shutil.copytree(manifests.K8S, tmp_path / "k8s")
    mine = tmp_path / "k8s" / "overlays" / "mine"
    mine.mkdir()
    (mine / "kustomization.yaml").write_text(shown[0])
    (mine / "train.flags").write_text("--config=humerus_small\n")
    objects = manifests.render(mine)
    pod = manifests.named(objects, "Job", "train")["spec"]["template"]["spec"]
    assert list(pod["nodeSelector"]) == ["nvidia.com/gpu.product"]
    flags = [volume["configMap"]["name"] for volume in pod["volumes"] if volume["name"] == "flags"]
    settings = manifests.named(objects, "ConfigMap", flags[0])["data"]
    assert (
        settings["train.flags"] == "--config=humerus_small\n"
        and "--layout=mura" in settings["prepare.flags"]
    )


def test_every_component_is_part_of_something_tested():
    text = "\n".join(path.read_text() for path in manifests.K8S.rglob("kustomization.yaml"))
    unused = {name for name in COMPONENTS if f"/{name}" not in text and f"[{name}" not in text}
    assert unused <= {"storage-gcs-fuse"}  # in the test above


def test_the_page_names_every_overlay_component_and_metric():
    page = (manifests.ROOT / "docs" / "kubernetes.md").read_text()
    internal = {
        "common",
        "restricted",
        "restarts",
        "storage-gcs",
        "gpu",
        "gpu-8",
        "gpu-2x8",
        "score-16",
        "simulated",
        "multi-node",
        "dataflow",
    }
    told = {
        *manifests.OVERLAYS,
        *(set(COMPONENTS) - internal),
        *(f"humerus_{name}" for name in telemetry.METRICS),
    }
    assert not {name for name in told if f"`{name}`" not in page}
