"""Names that libraries don't promise to keep: each is used in one place, and exists."""

import ast
import pathlib

import keras
import pytest
from apache_beam.io.filesystems import FileSystems
from apache_beam.io.localfilesystem import LocalFileSystem
from google.auth.credentials import AnonymousCredentials
from google.cloud.storage import Client
from google.cloud.storage.retry import DEFAULT_RETRY

ROOT = pathlib.Path(__file__).resolve().parent.parent
FILES = [
    path for package in ("trainer", "batch_inference") for path in (ROOT / package).rglob("*.py")
]
OWNERS = {
    "_predicate": DEFAULT_RETRY,
    "_http": Client("test", AnonymousCredentials()),
    "_pipeline_options": FileSystems,
    "_list": LocalFileSystem,
    "_var_key": keras.optimizers.Optimizer,
}
"""What each name is an attribute of."""
PUBLIC = {"_exit", "_replace"}
"""Documented names of Python's that begin with an underscore."""


def private_names(path: pathlib.Path) -> list[str]:
    """Private attributes that a file takes of other objects than `self`, `cls` and `super()`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    own = {
        node.name if isinstance(node, ast.FunctionDef | ast.ClassDef) else node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        or (isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store))
    }
    return [
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and node.attr not in own | PUBLIC
        and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
    ]


@pytest.mark.parametrize("name", OWNERS)
def test_the_library_still_has_the_name(name):
    assert hasattr(OWNERS[name], name)


def test_each_private_name_of_a_library_is_used_in_one_place():
    used = sorted(name for path in FILES for name in private_names(path))
    assert used == sorted(OWNERS)
