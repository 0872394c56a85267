"""Hosts meet over real sockets before TensorFlow starts, however late or often one comes."""

import socket
import threading
import time

import pytest
import tensorflow as tf

from trainer.training import rendezvous


@pytest.fixture
def hosts(monkeypatch) -> list[str]:
    """Return the addresses of three hosts, whose ports are free, and make them ask often."""
    monkeypatch.setattr(rendezvous, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(rendezvous, "ABSENT_SECONDS", 1.0)
    probes = [socket.create_server(("localhost", 0)) for _ in range(3)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return [f"localhost:{port}" for port in ports]


def start(hosts: list[str], rank: int) -> threading.Thread:
    thread = threading.Thread(target=rendezvous.meet, args=(hosts, rank), daemon=True)
    thread.start()
    return thread


def connect(host: str) -> socket.socket:
    """Connect to a host as soon as it listens."""
    end = time.monotonic() + 120
    while True:
        try:
            return socket.create_connection(rendezvous.split_address(host), timeout=30)
        except ConnectionRefusedError:
            assert time.monotonic() < end
            time.sleep(0.05)


def assert_waiting(*threads: threading.Thread) -> None:
    time.sleep(0.5)
    assert all(thread.is_alive() for thread in threads)


def assert_met(*threads: threading.Thread) -> None:
    for thread in threads:
        thread.join(timeout=120)
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_hosts_wait_for_the_last_one_whichever_it_is(hosts, order):
    early = [start(hosts, rank) for rank in order[:2]]
    assert_waiting(*early)
    assert_met(*early, start(hosts, order[2]))


def test_a_host_that_was_there_and_left_is_waited_for_again(hosts):
    chief = start(hosts, 0)
    while rendezvous.ask(hosts[0], 2) != b"wait":
        time.sleep(0.05)
    time.sleep(1.0)
    worker = start(hosts, 1)
    assert_waiting(chief, worker)
    assert_met(chief, worker, start(hosts, 2))


def test_strangers_are_not_taken_for_hosts(hosts):
    chief, worker = start(hosts, 0), start(hosts, 1)
    for said in (b"GET / HTTP/1.1\r\n\r\n", b"7", b"", b"\xff"):
        with connect(hosts[0]) as stranger:
            stranger.sendall(said)
    assert_waiting(chief, worker)
    assert_met(chief, worker, start(hosts, 2))


def test_a_worker_that_comes_back_finds_tensorflow_at_the_chief_and_goes_on(hosts):
    server = tf.distribute.Server({"worker": hosts[:1]}, job_name="worker", task_index=0)
    assert server.target
    assert_met(start(hosts, 1))


def test_a_chief_that_comes_back_is_found_by_tensorflow_of_a_worker_and_goes_on(hosts):
    chief = start(hosts, 0)
    assert_waiting(chief)
    with connect(hosts[0]) as worker:
        worker.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert_met(chief)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_port_in_use_is_named(hosts, rank):
    with (
        socket.create_server(rendezvous.split_address(hosts[rank])),
        pytest.raises(OSError, match=f"this host can't open its port in {hosts[rank]} "),
    ):
        rendezvous.meet(hosts, rank)
