"""The memory that a process may have."""

import os

from trainer import machine


def test_a_container_may_have_less_than_its_machine(tmp_path):
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = tmp_path / "memory.max"
    assert machine.memory(limit) == physical
    for said, expected in (("max", physical), ("1048576", 1048576), (str(physical * 2), physical)):
        limit.write_text(said + "\n")
        assert machine.memory(limit) == expected
