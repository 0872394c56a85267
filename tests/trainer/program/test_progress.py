"""How far a piece of work is, on a terminal and in a log."""

import io
import logging
import sys
import time

import pytest

from trainer.program import progress


def test_a_log_says_how_long_the_rest_will_take(caplog, monkeypatch):
    now = iter(range(0, 1000, 10))  # every look at the clock comes ten seconds later
    monkeypatch.setattr(time, "monotonic", lambda: float(next(now)))
    with caplog.at_level(logging.INFO):
        assert list(progress.show_each(range(6), "scoring")) == list(range(6))
    # Item 0 begins after 10 s; 20 s after the start one item is done, 5 are left.
    assert [record.message for record in caplog.records] == [
        "Scoring: 1 of 6 batches, 100 s to go",
        "Scoring: 3 of 6 batches, 40 s to go",
        "Scoring: 5 of 6 batches, 12 s to go",
    ]


def test_quick_work_logs_nothing(caplog):
    with caplog.at_level(logging.INFO):
        assert list(progress.show_each("abc", "checking", "checks")) == ["a", "b", "c"]
    assert not caplog.records


@pytest.mark.parametrize("items", [range(3), {}])
def test_a_terminal_gets_a_bar_that_is_gone_in_the_end(monkeypatch, items):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(progress.show_each(items, "measuring x")) == list(items)
    assert terminal.getvalue().startswith("\rmeasuring x: ")
    assert not terminal.getvalue().splitlines()[-1].strip(), "the bar is wiped"
