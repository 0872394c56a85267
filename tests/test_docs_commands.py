"""The pages' command blocks are run as they stand, page by page in the order of the index, on a few
simulated radiographs.
"""

import contextlib
import csv
import itertools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping

import pytest

from tests.support import dicom_files, documents, pictures, preloaded
from tests.support.documents import ROOT, Block
from trainer.phantom import files

PATIENTS = 24
RUN = [
    b
    for page in documents.manual()
    for b in documents.blocks(page)
    if b.language in ("bash", "python") and not b.needs
]


@contextlib.contextmanager
def programs(folder: pathlib.Path) -> Iterator[Mapping[str, str]]:
    """Return an environment with every console program on its PATH, in which training and the
    phantom are always short.
    """
    ours = {name: value for name, value in os.environ.items() if not name.startswith("HUMERUS_")}
    ours |= {
        "PATH": f"{folder}{os.pathsep}{ours['PATH']}",
        "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    folder.mkdir()
    address = folder / "preloaded"
    for name, (module, function) in documents.programs().items():
        module = "tests.support.thrifty_train" if name == "humerus-train" else module
        further = f" --patients={PATIENTS}" if name == "humerus-phantom" else ""
        program = folder / name
        call = f"'{sys.executable}' -S '{preloaded.__file__}' call '{address}' {module} {function}"
        program.write_text(f'#!/bin/sh\nexec {call} "$@"{further}\n')
        program.chmod(0o755)
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.support.preloaded", "serve", str(address)], cwd=ROOT, env=ours
    )
    try:
        while not address.exists():
            assert server.poll() is None, "the programs can't be imported"
            time.sleep(0.1)
        yield ours
    finally:
        server.kill()
        server.wait()


def lay_out(folder: pathlib.Path) -> None:
    """Write what the pages assume: MURA, a folder of radiographs by class, a manifest, a file of
    either kind.
    """
    files.write(str(folder / "simulated"), PATIENTS)
    (folder / "MURA-v1.1").symlink_to("simulated/MURA-v1.1")
    rows = []
    for path in sorted((folder / "simulated").rglob("*.png")):
        patient, study, image = path.parts[-3:]
        label = study.split("_")[1]
        copy = folder / "radiographs" / label / f"{patient}_{study.split('_')[0]}_{image}"
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
        rows.append(
            (
                str(copy.relative_to(folder)),
                label,
                patient,
                f"{patient}/{study}",
                "left" if int(patient[-1]) % 2 else "right",
            )
        )
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "patient", "study", "side"), *rows])
    shutil.copy(folder / rows[0][0], folder / "radiograph.png")
    (folder / "other.dcm").write_bytes(dicom_files.dicom_file(pictures.picture()))


def run(block: Block, folder: pathlib.Path, environment: Mapping[str, str]) -> None:
    shell = (
        ["bash", "-euo", "pipefail", "-c"] if block.language == "bash" else [sys.executable, "-c"]
    )
    done = subprocess.run(
        [*shell, block.text],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    said = (done.stdout + done.stderr)[-3000:]
    assert not done.returncode, f"{block} ended with {done.returncode}:\n{block.text}\n{said}"


def names(folder: pathlib.Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def check_promised(folder: pathlib.Path) -> None:
    """Check the files of a run and of a scored folder against the README's trees."""
    artifact, scored = folder / "runs/first/artifact", folder / "scored"
    made = {
        "metrics.json",
        "report.html",
        "curves.png",
        "history.csv",
        "checkpoints",
        "tensorboard",
        "config.json",
        "artifact",
    }
    # docs/training.md, which comes later than README.md, records this run.
    tracked = {"mlflow.db", "mlflow", "tracking.json"}
    assert names(artifact.parent) - tracked == made
    assert {"model.json", "MODEL_CARD.md", "model.keras", "saved_model.pb", "variables"} <= names(
        artifact
    )
    images = len(list((folder / "radiographs").rglob("*.png")))
    summary = json.loads((scored / "summary.json").read_text())
    assert (summary["scored"], summary["rejected"], summary["cams"]) == (images, 0, images)
    for name in ("predictions", "studies", "rejections"):
        assert list(scored.glob(f"{name}.jsonl")) and list(scored.glob(f"{name}.csv"))
    assert {"run.json", "gallery.html"} <= names(scored)
    assert len(list((scored / "cams").rglob("*.jpg"))) == images


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_command_of_the_pages_runs_as_it_stands(tmp_path):
    folder = tmp_path / "user"
    lay_out(folder)
    with programs(tmp_path / "bin") as environment:
        for name, page in itertools.groupby(RUN, key=lambda block: block.page):
            # Whoever reads one page hasn't scored on another.
            for scored in folder.glob("scored*"):
                shutil.rmtree(scored)
            for block in page:
                run(block, folder, environment)
            if name in ("README.md", "docs/scoring.md"):
                check_promised(folder)
    assert (
        list((folder / "pictures").rglob("*.jpg"))
        and (folder / "explained/radiograph.png.html").exists()
    )
