"""The arrows of the design: who may import whom, and what a command may load before it has read its
flags.
"""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
LEVELS = {
    "trainer": (
        {"main"},
        {"training", "local"},
        {"publishing", "wait", "tracking"},
        {"evaluation", "predictor"},
        {"dataset", "network", "inference"},
        {"workers"},
        {"dicom_output"},
        {"drawing", "options"},
        {"radiograph", "artifact", "program", "phantom", "hub"},
        {"storage", "decoding"},
        {"files", "model_json"},
        {"errors", "machine", "configs"},
    ),
    "batch_inference": (
        {"main"},
        {"pipeline"},
        {"preflight"},
        {"inputs", "scoring", "gallery"},
        {"outputs", "runners"},
        {"storage", "options", "buffering", "composite", "concurrent_map", "lean_import"},
    ),
}
"""Rooms (folders) and single modules of each package, from the top down. An import goes to a lower
level only.
"""
WITHOUT_TENSORFLOW = {
    "radiograph",
    "decoding",
    "artifact",
    "model_json",
    "errors",
    "drawing",
    "files",
    "machine",
    "workers",
    "dicom_output",
}
"""What needs neither TensorFlow nor anything else of `trainer` but each other."""
SHARED = {
    "radiograph",
    "artifact",
    "errors",
    "drawing",
    "inference",
    "model_json",
    "files",
    "dataset",
    "evaluation",
    "machine",
    "hub",
    "program",
    "workers",
    "dicom_output",
}
"""What `batch_inference` may take from `trainer`."""
HEAVY = {
    "tensorflow",
    "keras",
    "tensorflow_datasets",
    "apache_beam",
    "sklearn",
    "matplotlib",
    "openvino",
}
FILES = sorted([*(ROOT / "trainer").rglob("*.py"), *(ROOT / "batch_inference").rglob("*.py")])


def imports(path: pathlib.Path, top_level_only: bool = False) -> set[str]:
    """Dotted names of every module that the file imports: of `from a import b`, `a` and `a.b`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def modules_of(package: str, names: set[str]) -> set[str]:
    """First names below `package` among dotted names, of those that are files or folders there."""
    below = {name.split(".")[1] for name in names if name.startswith(f"{package}.")}
    return {
        name
        for name in below
        if (ROOT / package / f"{name}.py").exists() or (ROOT / package / name).is_dir()
    }


def room_of(path: pathlib.Path) -> str:
    """Name of the folder, or of the single module, below the package."""
    return path.relative_to(ROOT).with_suffix("").parts[1]


def test_there_is_something_to_check():
    assert {ROOT / "trainer/training/loop.py", ROOT / "batch_inference/pipeline.py"} <= set(FILES)
    assert modules_of("trainer", imports(ROOT / "trainer/training/train.py")) >= {
        "dataset",
        "publishing",
    }


@pytest.mark.parametrize("package", LEVELS)
def test_every_room_has_one_level(package):
    rooms = {room_of(path) for path in FILES if path.is_relative_to(ROOT / package)} - {"__init__"}
    assert sorted(rooms) == sorted(room for level in LEVELS[package] for room in level)


@pytest.mark.parametrize(
    "path",
    [f for f in FILES if f.name != "__init__.py"],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_imports_go_down(path):
    package, room = path.relative_to(ROOT).parts[0], room_of(path)
    level = next(number for number, rooms in enumerate(LEVELS[package]) if room in rooms)
    below = set().union(*LEVELS[package][level + 1 :])
    assert modules_of(package, imports(path)) - {room} <= below


@pytest.mark.parametrize(
    "path", [f for f in FILES if f.is_relative_to(ROOT / "trainer")], ids=lambda p: p.stem
)
def test_the_trainer_knows_nothing_of_the_scorer(path):
    assert not {
        name for name in imports(path) if name.split(".")[0] in ("batch_inference", "apache_beam")
    }


@pytest.mark.parametrize(
    "path", [f for f in FILES if f.is_relative_to(ROOT / "batch_inference")], ids=lambda p: p.stem
)
def test_the_scorer_takes_only_shared_modules_of_the_trainer(path):
    assert modules_of("trainer", imports(path)) <= SHARED


@pytest.mark.parametrize("name", sorted(WITHOUT_TENSORFLOW))
def test_a_module_without_tensorflow_needs_only_such(name):
    files = [
        path
        for path in FILES
        if path.relative_to(ROOT).with_suffix("").parts[:2] == ("trainer", name)
    ]
    assert files
    found = set().union(*map(imports, files))
    assert modules_of("trainer", found) <= WITHOUT_TENSORFLOW
    assert not {module.split(".")[0] for module in found} & HEAVY


@pytest.mark.parametrize(
    "path", [f for f in FILES if f.name == "__init__.py"], ids=lambda p: p.parent.name
)
def test_packages_run_nothing(path):
    assert not path.read_text()


@pytest.mark.parametrize(
    "path", [f for f in FILES if f.name == "main.py"], ids=lambda p: p.parent.name
)
def test_commands_load_nothing_heavy_before_they_know_their_flags(path):
    assert not {name.split(".")[0] for name in imports(path, top_level_only=True)} & HEAVY


@pytest.mark.parametrize(
    "module",
    [
        "trainer.main",
        "batch_inference.main",
        "trainer.radiograph",
        "trainer.artifact",
        "trainer.workers.imaging",
        "trainer.workers.imaging_tasks",
    ],
)
def test_importing_it_loads_neither_tensorflow_nor_beam(module):
    code = f"import sys, {module}; print(sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_nothing_prints():
    """Results go through `command_line`, all else through the log."""
    printing = {
        str(path.relative_to(ROOT))
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
    }
    assert not printing
