"""The rights that docs/cluster-from-nothing.md gives to pods are enough for every step."""

import os
import subprocess
import sys

import pytest

from tests.support import bucket_server, documents, small_run


def run(program: str, environment: dict[str, str], *flags: str) -> None:
    module, function = documents.programs()[program]
    code = f"import sys; from {module} import {function}; sys.argv[0] = {program!r}"
    code += f"; sys.exit({function}())"
    done = subprocess.run(
        [sys.executable, "-c", code, *flags],
        cwd=documents.ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_page_gives_no_right_to_the_bucket_itself():
    page = (documents.ROOT / "docs" / "cluster-from-nothing.md").read_text()
    roles = {
        line.partition("--role=")[2].split()[0]
        for line in page.splitlines()
        if "buckets add-iam-policy-binding" in line
    }
    assert roles == {"roles/storage.objectAdmin"}


@pytest.mark.slow
def test_every_step_of_a_bucket_does_with_its_objects(tmp_path):
    source = small_run.write_source(tmp_path / "source")
    with bucket_server.running(tmp_path) as server:
        uri = server.make_bucket("bucket")
        for path in source.parent.iterdir():
            server.put("bucket", f"source/{path.name}", path.read_bytes())
        server.objects_only = True
        patience = {"GCS_RETRY_CONFIG_MAX_RETRIES": "1"}
        environment = {
            **os.environ,
            **server.tensorflow_environment,
            **server.environment,
            **patience,
        }
        fractions = ["--test_fraction=0", "--validation_fraction=0"]
        taken = [
            f"--source={uri}/source/{source.name}",
            "--layout=manifest",
            f"--image_size={small_run.SIZE}",
            *fractions,
        ]
        run("humerus-prepare", environment, f"--data_dir={uri}/data", *taken)
        run("humerus-wait", environment, f"--data_dir={uri}/data")
        recipe = ["--config=tests/support/small_recipe.py", "--config.epochs=1"]
        run(
            "humerus-train",
            environment,
            f"--data_dir={uri}/data",
            f"--workdir={uri}/runs/first",
            *recipe,
        )
        places = [
            f"--input={uri}/source",
            f"--model={uri}/runs/first/artifact",
            f"--output={uri}/scored/first",
        ]
        run("humerus-score", environment, *places)
        names = set(server.objects("bucket"))
        assert {
            "runs/first/metrics.json",
            "runs/first/artifact/model.json",
            "scored/first/summary.json",
        } <= names
