"""The memory and the cores that a process may have."""

import os

import pytest

from trainer import machine

PHYSICAL = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (None, PHYSICAL),
        ("max", PHYSICAL),
        ("1048576", 1048576),
        (str(PHYSICAL * 2), PHYSICAL),
    ],
)
def test_a_container_may_have_less_than_its_machine(tmp_path, limit, expected):
    if limit:
        (tmp_path / "memory.max").write_text(limit + "\n")
    assert machine.memory(tmp_path) == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 96),
        ({"cpu.max": "max 100000"}, 96),
        ({"cpu.max": "400000 100000"}, 4),
        ({"cpu.max": "250000 100000"}, 3),
        ({"cpu.max": "10000 100000"}, 1),
        ({"cpu.max": "20000000 100000"}, 96),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 96),
        ({"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4),
    ],
)
def test_a_limit_on_processor_time_is_a_limit_on_threads(tmp_path, monkeypatch, files, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(96)))
    (tmp_path / "cpu").mkdir()
    for name, content in files.items():
        (tmp_path / name).write_text(content + "\n")
    assert machine.cores(tmp_path) == expected
