"""Every overlay is valid for three versions of Kubernetes, secure, and restarted as documented."""

import json
import os
import pathlib
import re
import shutil

import jsonschema
import kubernetes_validate
import pytest
import yaml
from absl import flags as flags_lib
from apache_beam.options.pipeline_options import PipelineOptions

from tests.support import documents, manifests
from trainer import errors
from trainer.program import telemetry
from trainer.training import recipes, settings, sweeps

CRDS = pathlib.Path(__file__).with_name("crds")
VERSIONS = sorted(
    kubernetes_validate.utils.all_versions(), key=lambda v: [int(n) for n in v.split(".")]
)[-3:]
CLUSTER = manifests.render(manifests.K8S / "cluster" / "kueue")
EVERY = pytest.mark.parametrize("name", manifests.OVERLAYS)
COMPONENTS = sorted(path.name for path in (manifests.K8S / "components").iterdir())


def strict(schema: dict) -> dict:
    """Return a CRD's schema that refuses unknown fields, as strict validation does."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "type" in schema:
        schema.setdefault("additionalProperties", False)
    return schema


def validate(found: dict, version: str) -> None:
    """Raise where the API server of that version would refuse the object."""
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
            or found["metadata"]["namespace"] == f"humerus-{name}"
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
    """The pod security standard `restricted`, point by point, and a read-only root file system."""
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
            spec.get("ttlSecondsAfterFinished") or job["metadata"]["name"].startswith("set-")
        )
        if job["metadata"]["name"] == "set-hosts":
            continue  # restarted by the JobSet's failure policy
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
        by_trial = name == "sweep" and job["metadata"]["name"] == "train"
        assert wrong["action"] == ("FailIndex" if by_trial else "FailJob")
        assert ("backoffLimitPerIndex" in spec) == by_trial and stopped["action"] == "Ignore"
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


def test_a_sweep_has_a_pod_for_each_trial_of_its_file(tmp_path):
    objects = manifests.overlay("sweep")
    flags = manifests.named(objects, "ConfigMap", "humerus-flags")["data"]
    (tmp_path / "sweep.txt").write_text(flags["sweep.txt"])
    trials = sweeps.read(str(tmp_path / "sweep.txt"))
    (job,) = [found for found in manifests.jobs(objects) if found["metadata"]["name"] == "train"]
    spec, (main,) = job["spec"], job["spec"]["template"]["spec"]["containers"]
    assert spec["completionMode"] == "Indexed" and spec["completions"] == len(trials) == 4
    assert "train.flags" in flags and not [
        found for found in manifests.jobs(objects) if "score" in found["metadata"]["name"]
    ]
    # What the kubelet and the program make of the arguments of the last pod.
    (tmp_path / "train.flags").write_text(flags["train.flags"])
    variables = {"STORAGE": "gs://bucket", "RUN": "first", "JOB_COMPLETION_INDEX": "3"}
    words = [
        re.sub(r"\$\((\w+)\)", lambda match: variables[match[1]], word).replace(
            "/etc/humerus", str(tmp_path)
        )
        for word in main["args"]
    ]
    replaced = sweeps.replace_trial(["humerus-train", *words])
    assert "--workdir=gs://bucket/runs/first/flip" in replaced
    assert replaced[-1] == "--config.test_time_flips=horizontal"
    for trial in trials:
        values = flags_lib.FlagValues()
        argv = recipes.replace_names(["humerus-train", *trial.settings])
        read = recipes.define_config(values, argv)
        values(argv)
        settings.check(read())


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
    indexed = [
        job["metadata"]["name"]
        for job in manifests.jobs(objects)
        if job["spec"].get("completionMode") == "Indexed"
    ]
    for workload, pod in manifests.pod_specs(objects):
        # The Job controller sets it in every container.
        of_job = {"JOB_COMPLETION_INDEX"} if workload in indexed else set()
        for container in manifests.containers(pod):
            assert container["envFrom"] == [{"configMapRef": {"name": config["metadata"]["name"]}}]
            known = {*of_job, *config["data"], *(one["name"] for one in container.get("env", []))}
            assert set(re.findall(r"\$\((\w+)\)", " ".join(container["args"]))) <= known
            assert "" not in [one["value"] for one in container.get("env", [])]


def test_gpus_and_hosts():
    def train(name: str) -> dict:
        return next(
            job
            for job in manifests.jobs(manifests.overlay(name))
            if job["metadata"]["name"] in ("train", "set-hosts")
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
    assert "suspend" not in queued["spec"], "Kueue sets it; applied again, it would stop what runs"


def test_hosts_of_a_jobset_wait_for_the_data_and_restart_together():
    spec = manifests.named(manifests.overlay("multi-node-jobset"), "JobSet", "train")["spec"]
    prepare, hosts = spec["replicatedJobs"]
    assert hosts["dependsOn"] == [{"name": prepare["name"], "status": "Complete"}]
    job = hosts["template"]["spec"]
    assert (
        job["backoffLimit"] == 0 and spec["failurePolicy"]["restartStrategy"] == "BlockingRecreate"
    )
    assert {rule["action"] for rule in job["podFailurePolicy"]["rules"]} == {"FailJob"}
    # What the Job controller writes when a rule fails a Job.
    messages = {
        "RestartJobSetAndIgnoreMaxRestarts": (
            "Pod x/y has condition DisruptionTarget matching FailJob rule at index 0",
            "Container humerus for pod x/y failed with exit code 4 matching FailJob rule",
        ),
        "FailJobSet": (
            "Container humerus for pod x/y failed with exit code 2 matching FailJob rule",
            "Container wait for pod x/y failed with exit code 3 matching FailJob rule at index 1",
        ),
    }
    for expected, sentences in messages.items():
        for sentence in sentences:
            rule = next(
                rule
                for rule in spec["failurePolicy"]["rules"]
                if not (patterns := rule.get("onJobFailureMessagePatterns"))
                or any(re.search(pattern, sentence) for pattern in patterns)
            )
            assert rule["action"] == expected and rule["onJobFailureReasons"] == [
                "PodFailurePolicy"
            ]


@EVERY
def test_rules_of_failure_policies_have_names_that_the_webhook_takes(name):
    """JobSet's webhook checks them; its schema doesn't."""
    for found in manifests.overlay(name):
        if found["kind"] == "JobSet":
            names = [rule["name"] for rule in found["spec"]["failurePolicy"]["rules"]]
            assert len(set(names)) == len(names)
            for one in names:
                assert re.fullmatch(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", one), one


MOST = {
    "local": (1.0, 2.0),
    "gpu-1": (7.0, 30.0),
    "gpu-8": (89.0, 326.0),
    "multi-node-2x8": (177.0, 646.0),
    "multi-node-jobset": (177.0, 646.0),
    "score-cpu": (14.0, 16.0),
    "sweep": (12.5, 51.0),
    "dataflow-launcher": (0.25, 2.0),
}
"""CPUs and GiB that all pods of an overlay may ask for together; a nightly pod runs alone."""


@EVERY
def test_pods_of_an_overlay_ask_for_no_more_than_documented(name):
    """All pods are scheduled at once: what they ask for together must fit."""

    def measure(pod: dict, what: str) -> float:
        def asked(container: dict) -> float:
            text = container["resources"]["requests"][what]
            units = {"m": 1e-3, "Mi": 2**-10, "Gi": 1.0}
            number, unit = re.fullmatch(r"(\d+)(\D*)", text).groups()
            return int(number) * units.get(unit, 1.0)

        first = max((asked(one) for one in pod.get("initContainers", [])), default=0.0)
        return max(first, sum(asked(one) for one in pod["containers"]))

    objects = manifests.overlay(name)
    pods = [
        pod
        for job in manifests.jobs(objects)
        if not job["metadata"]["name"].startswith("cron-")
        for pod in [job["spec"]["template"]["spec"]] * job["spec"].get("parallelism", 1)
    ]
    pods += [o["spec"]["template"]["spec"] for o in objects if o["kind"] == "Deployment"]
    cpu, memory = (sum(measure(pod, what) for pod in pods) for what in ("cpu", "memory"))
    assert (cpu, memory) <= MOST[name] and memory <= MOST[name][1]
    if name == "local":
        assert sum(measure(pod, "ephemeral-storage") for pod in pods) <= 5, "of minikube's 17 GiB"


def test_small_pods_are_not_moved_and_tensorboard_leaves_its_volume_first():
    objects = manifests.overlay("gpu-1")
    for name in ("prepare", "score"):
        template = manifests.named(objects, "Job", name)["spec"]["template"]
        key = "cluster-autoscaler.kubernetes.io/safe-to-evict"
        assert template["metadata"]["annotations"][key] == "false"
    board = manifests.named(objects, "Deployment", "tensorboard")
    assert board["spec"]["strategy"] == {"type": "Recreate"}


@pytest.mark.parametrize(
    ("name", "count"), [("gpu-1", "1"), ("gpu-8", "8"), ("multi-node-2x8", "8")]
)
def test_gpus_are_of_a_node_that_has_as_many(name, count):
    pod = manifests.named(manifests.overlay(name), "Job", "train")["spec"]["template"]["spec"]
    assert pod["nodeSelector"]["cloud.google.com/gke-accelerator-count"] == count
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == count


def test_the_nightly_job_is_the_job():
    objects = manifests.overlay("score-cpu")
    assert (
        manifests.named(objects, "CronJob", "score")["spec"]["jobTemplate"]["spec"]
        == (manifests.named(objects, "Job", "score")["spec"])
    )


def test_one_pod_scores_at_a_time_whoever_started_it():
    """`Forbid` of a CronJob sees only the Jobs that it started itself."""
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
        tmp_path / "own", "overlays/multi-node-jobset", ["components/storage-gcs-fuse"]
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
    overlay = manifests.K8S / "overlays" / "multi-node-jobset"
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "kustomization.yaml").write_text(
        f"namePrefix: x-\nresources: [{os.path.relpath(overlay, folder.resolve())}]\n"
    )
    objects = manifests.render(folder)
    account = manifests.named(objects, "ServiceAccount", "x-humerus")["metadata"]["name"]
    named = {found["metadata"]["name"] for found in objects if found["kind"] == "ConfigMap"}
    for job in manifests.jobs([found for found in objects if found["kind"] == "JobSet"]):
        pod = job["spec"]["template"]["spec"]
        assert pod["serviceAccountName"] == account
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


def read_shown_overlay(page: str) -> str:
    """Return the one overlay that a page shows."""
    (block,) = (
        block
        for block in documents.blocks(manifests.ROOT / "docs" / page)
        if block.language == "yaml"
    )
    return block.text


def test_the_overlay_that_the_page_shows_is_one(tmp_path):
    ignored = shutil.ignore_patterns("mine")
    k8s = shutil.copytree(manifests.K8S, tmp_path / "k8s", ignore=ignored)
    own = k8s / "mine" / "own"
    own.mkdir(parents=True)
    shutil.copytree(k8s / "overlays" / "gpu-1", k8s / "mine" / "gpu-1")
    (own / "kustomization.yaml").write_text(read_shown_overlay("kubernetes.md"))
    (own / "train.flags").write_text("--config=humerus_small\n")
    objects = manifests.render(own)
    pod = manifests.named(objects, "Job", "train")["spec"]["template"]["spec"]
    assert list(pod["nodeSelector"]) == ["nvidia.com/gpu.product"]
    flags = [volume["configMap"]["name"] for volume in pod["volumes"] if volume["name"] == "flags"]
    settings = manifests.named(objects, "ConfigMap", flags[0])["data"]
    assert settings["train.flags"] == "--config=humerus_small\n"
    assert "--layout=mura" in settings["prepare.flags"]


def test_the_overlay_for_amazon_keeps_everything_on_a_shared_volume(tmp_path):
    ignored = shutil.ignore_patterns("mine")
    k8s = shutil.copytree(manifests.K8S, tmp_path / "k8s", ignore=ignored)
    own = k8s / "mine" / "eks"
    own.mkdir(parents=True)
    (own / "kustomization.yaml").write_text(read_shown_overlay("cluster-from-nothing.md"))
    objects = manifests.render(own)
    for found in objects:
        validate(found, VERSIONS[-1])
    claim = manifests.named(objects, "PersistentVolumeClaim", "humerus")["spec"]
    assert (claim["accessModes"], claim["storageClassName"]) == (["ReadWriteMany"], "efs")
    env = manifests.named(objects, "ConfigMap", "humerus-env")["data"]
    assert (env["STORAGE"], env["SOURCE"]) == ("/data", "/data/source")
    for _, pod in manifests.pod_specs(objects):
        assert {"name": "data", "persistentVolumeClaim": {"claimName": "humerus"}} in pod["volumes"]
        assert pod["containers"][0]["image"].startswith("123456789012.dkr.ecr.us-east-1.")


def test_every_component_is_part_of_something_tested():
    text = "\n".join(path.read_text() for path in manifests.K8S.rglob("kustomization.yaml"))
    unused = {name for name in COMPONENTS if f"/{name}" not in text and f"[{name}" not in text}
    assert unused <= set(manifests.COMPONENTS)  # tests/k8s/test_combinations.py


def test_the_page_names_every_overlay_component_and_metric():
    page = (manifests.ROOT / "docs" / "kubernetes.md").read_text()
    names = {
        *manifests.OVERLAYS,
        *manifests.COMPONENTS,
        *(f"humerus_{name}" for name in telemetry.METRICS),
    }
    assert not {name for name in names if f"`{name}`" not in page}
