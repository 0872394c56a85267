"""A signal ends every command, whatever it is doing, with the documented exit code."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from trainer.program import signals

ROOT = pathlib.Path(__file__).resolve().parents[3]

COMMAND = """
import ctypes, dataclasses, os, signal, sys, time
from trainer.program import command_line, signals
signals.GRACE_SECONDS = 0.5

def in_python():
    print("ready", flush=True)
    while True:
        time.sleep(0.01)

def in_native_code():
    # A thread that locks a mutex twice waits for ever, also when a signal comes.
    libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    libc.pthread_mutex_lock(mutex)
    print("ready", flush=True)
    libc.pthread_mutex_lock(mutex)

class Closing:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)

def in_a_destructor():
    signals.GRACE_SECONDS = 50  # longer than the command
    Closing()
    time.sleep(10)

def that_swallows_interruptions():
    print("ready", flush=True)
    while True:
        try:
            time.sleep(0.01)
        except KeyboardInterrupt:
            pass

def whose_child_gets_the_signal():
    child = os.fork()
    if not child:
        signal.signal(signal.SIGTERM, lambda *_: None)
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(0)
    os.waitpid(child, 0)
    time.sleep(1.5)

@dataclasses.dataclass
class NoOptions:
    pass

@command_line.Program("humerus-try", NoOptions, when_stopped="start it again")
def attempt(options):
    return globals()[sys.argv[1]]()

sys.exit(attempt(["humerus-try"]))
"""


def start(work: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, work],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", signals.STOP_SIGNALS)
@pytest.mark.parametrize("work", ["in_python", "in_native_code", "that_swallows_interruptions"])
def test_a_command_ends_at_a_signal_whatever_it_does(work, number):
    process = start(work)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (4, "humerus-try: stopped; start it again\n")


def test_a_second_signal_adds_nothing_to_what_is_said():
    """As from `timeout`, which signals the process, then its group. One that comes when all is said
    and handlers are as before may still end the process.
    """
    process = start("in_python")
    assert process.stdout.readline() == "ready\n"
    for _ in range(5):
        process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode in (4, -signal.SIGTERM)
    assert said == "humerus-try: stopped; start it again\n"


def test_a_signal_to_a_child_ends_the_child_only():
    process = start("whose_child_gets_the_signal")
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, "")


def test_handlers_are_as_before_once_the_command_is_over():
    former = [signal.getsignal(number) for number in signals.STOP_SIGNALS]
    with signals.interrupt_on_signals("x", "y"), signals.RecordedSignals():
        assert [signal.getsignal(number) for number in signals.STOP_SIGNALS] != former
    assert [signal.getsignal(number) for number in signals.STOP_SIGNALS] == former
    assert signal.set_wakeup_fd(-1) == -1


def test_a_signal_in_a_destructor_where_python_ignores_it_ends_the_command_all_the_same():
    process = start("in_a_destructor")
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (4, "humerus-try: stopped; start it again\n")


@pytest.mark.parametrize("number", signals.STOP_SIGNALS)
def test_a_recorded_signal_is_passed_on_when_nothing_was_left_to_save(number):
    with (
        pytest.raises(KeyboardInterrupt),
        signals.interrupt_on_signals("x", "y"),
        signals.RecordedSignals() as recorded,
    ):
        os.kill(os.getpid(), number)
        assert recorded.arrived() and recorded.name == number.name


def test_a_second_ctrl_c_interrupts_what_saves():
    with pytest.raises(KeyboardInterrupt), signals.RecordedSignals():
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)
