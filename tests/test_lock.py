"""Test that requirements.lock pins what setup.py asks for, with hashes."""

import importlib.metadata
import re

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.documents import ROOT

LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
ENTRIES = [
    (Requirement(pin), re.findall(r"--hash=sha256:[0-9a-f]{64}\b", hashes))
    for pin, hashes in re.findall(r"^(\w[^\\\n]*)\\\n((?:    --hash=.*\n)+)", LOCK, re.MULTILINE)
]
"""Each pinned requirement, with the hashes of its files."""
DECLARED = [
    *importlib.metadata.requires("humerus"),
    *re.findall(r"^\w.*$", (ROOT / "requirements.in").read_text(encoding="utf-8"), re.MULTILINE),
]


def test_every_entry_is_one_version_with_hashes():
    names = re.findall(r"^\w.*$", LOCK, re.MULTILINE)
    assert len(ENTRIES) == len(names) > 200
    for pin, hashes in ENTRIES:
        assert [part.operator for part in pin.specifier] == ["=="] and hashes, pin


def test_it_names_no_package_index():
    """An address would bind everybody to the index of the machine that wrote the file."""
    assert not re.search(r"://|--(?:extra-)?index|--find-links", LOCK)


@pytest.mark.parametrize("declared", map(Requirement, DECLARED), ids=lambda each: each.name)
def test_it_satisfies_what_is_declared(declared):
    name = canonicalize_name(declared.name)
    pins = [pin for pin, _ in ENTRIES if canonicalize_name(pin.name) == name]
    assert pins
    for pin in pins:
        assert next(iter(pin.specifier)).version in declared.specifier, pin
