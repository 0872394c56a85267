"""The notebook: executed as it stands but for its settings, and kept without outputs."""

import ast
import os
import pathlib
import re

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = pathlib.Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SETTINGS = {
    "PATIENTS": 50,
    "IMAGE_SIZE": 64,
    "TRAIN_FLAGS": (
        "--config=smoke --config.backbone=smallnet --config.weights=none --config.epochs=1"
        " --config.verify_engines=False"
    ),
}


def test_there_is_one():
    assert [path.name for path in NOTEBOOKS] == ["quickstart.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_holds_no_output_and_calls_our_programs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    programs = set(re.findall(r'"(humerus-\w+) =', (ROOT / "setup.py").read_text()))
    called = {
        word
        for cell in code
        for word in re.findall(r"^humerus-\w+", cell.source, flags=re.MULTILINE)
    }
    assert called <= programs
    assert called >= {
        f"humerus-{name}" for name in ("prepare", "train", "evaluate", "explain", "score")
    }


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_from_top_to_bottom(path, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(path, as_version=4)
    (settings,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    named = {target.id for node in ast.parse(settings.source).body for target in node.targets}  # type: ignore[attr-defined]
    given = SETTINGS | {"WORK": str(tmp_path / "work")}
    assert named == set(given)
    settings.source = "\n".join(f"{name} = {value!r}" for name, value in given.items())
    NotebookClient(
        notebook, timeout=500, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}
    ).execute()
    pictures = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/" in str(output.get("data", ""))
    ]
    assert len(pictures) >= 4 + 1 + 4 + 3
    assert (tmp_path / "work" / "scored" / "gallery.html").is_file()
    assert (tmp_path / "work" / "metrics.json").is_file()
