"""Choose the strategy for this machine: one device, all GPUs of the host, or several hosts.

The environment names the hosts, by `TF_CONFIG` or by the variables of an Indexed Job.
"""

import contextlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
from absl import logging

from trainer.errors import ConfigError
from trainer.program import telemetry
from trainer.training import rendezvous

HOSTS = "HUMERUS_HOSTS"
"""Environment variable: comma-separated `host:port` of every worker of an Indexed Job or JobSet, in
the order of their indices."""
INDEX = "JOB_COMPLETION_INDEX"
"""Environment variable that Kubernetes sets in each pod of an Indexed Job: its index, from 0."""
_HOST = re.compile(r"(?:[^:\s\[\]]+|\[[0-9a-fA-F:.]+\]):([1-9][0-9]{0,4})")
"""A name or an address, IPv6 in brackets, and a port."""
_LAST_PORT = 65_535


def create() -> tf.distribute.Strategy:
    """Create the strategy, after setting `TF_CONFIG` where an Indexed Job names several workers.

    It is `MultiWorkerMirroredStrategy` where the environment names several workers, else
    `MirroredStrategy` over the local devices. A single device gets TensorFlow's default strategy:
    the same loop and the same numbers, without the mirrored variables that double the CPU time of a
    step.

    Raises:
      ConfigError: the environment names workers wrongly, or not which of them this is.
      OSError: the port of this host is in use.
      tf.errors.OpError: a host was lost.
    """
    if not os.environ.get("TF_CONFIG") and os.environ.get(HOSTS):
        os.environ["TF_CONFIG"] = json.dumps(
            build_tf_config(os.environ[HOSTS], os.environ.get(INDEX))
        )
    hosts, rank = _read_cluster()
    if len(hosts) > 1:
        rendezvous.meet(hosts, rank)
        with telemetry.keep_alive():
            return tf.distribute.MultiWorkerMirroredStrategy()
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) == 1:
        return tf.distribute.get_strategy()
    if devices[0].device_type == "GPU":
        return tf.distribute.MirroredStrategy()
    return tf.distribute.MirroredStrategy(
        [d.name for d in devices], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )


def _read_cluster() -> tuple[list[str], int]:
    """Return the hosts that train, by `TF_CONFIG`, and the place of this one among them, from 0.

    The chief comes first. Without a cluster there are none.

    Raises:
      ConfigError: `TF_CONFIG` names them wrongly, or not which of them this is.
    """
    given = os.environ.get("TF_CONFIG") or "{}"
    with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
        config = json.loads(given)
        if not config.get("cluster"):
            return [], 0
        chiefs, workers = (config["cluster"].get(name, []) for name in ("chief", "worker"))
        kind, index = config["task"]["type"], config["task"]["index"]
        own, hosts = {"chief": chiefs, "worker": workers}[kind], chiefs + workers
        if len(chiefs) <= 1 and _are_hosts(hosts) and _is_index(index, len(own)):
            return hosts, hosts.index(own[int(index)])
    raise ConfigError(
        f"TF_CONFIG={given}: expected host:port of every worker, each once and with a port from"
        f" 1 to {_LAST_PORT}, and this host's place among them,"
        ' such as {"cluster": {"worker": ["a:2222", "b:2222"]},'
        ' "task": {"type": "worker", "index": 0}}'
    )


def _are_hosts(hosts: list[str]) -> bool:
    """Return whether these are `host:port` of different hosts."""
    found = [_HOST.fullmatch(host) for host in hosts]
    return len({host.lower() for host in hosts}) == len(hosts) and all(
        host and int(host[1]) <= _LAST_PORT for host in found
    )


def _is_index(value: Any, count: int) -> bool:
    """Return whether this is a whole number from 0 to `count` - 1, as a number or as text."""
    return str(value) in map(str, range(count))


def build_tf_config(hosts: str, index: str | None) -> dict[str, Any]:
    """Return the content of `TF_CONFIG` for one worker of several; worker 0 is the chief.

    Args:
      hosts: value of the variable `HOSTS`.
      index: value of the variable `INDEX`.

    Raises:
      ConfigError: a host has no port or is named twice, or the index names none of the hosts.
    """
    workers = [host.strip() for host in hosts.split(",")]
    if not _are_hosts(workers):
        raise ConfigError(
            f"{HOSTS}={hosts}: expected comma-separated host:port of every worker, each once and"
            f" with a port from 1 to {_LAST_PORT}, such as train-0.train:2222,train-1.train:2222"
        )
    if index is None or not _is_index(index, len(workers)):
        raise ConfigError(
            f"{INDEX}={index} names none of the {len(workers)} workers in {HOSTS};"
            f" expected 0 to {len(workers) - 1}"
        )
    return {"cluster": {"worker": workers}, "task": {"type": "worker", "index": int(index)}}


def count_workers() -> int:
    """Return the number of hosts that train, by `TF_CONFIG`; 1 without it."""
    return max(1, len(_read_cluster()[0]))


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Return True in the one process that writes the results."""
    return bool(strategy.extended.should_checkpoint)


def gather_from_hosts(strategy: tf.distribute.Strategy, value: int | bool) -> list[int]:
    """Wait for all hosts, and return the value of each of them, once for every replica.

    Raises:
      tf.errors.OpError: a host was lost.
    """
    return [values[0] for values in _gather(strategy, [int(value)])]


def _gather(strategy: tf.distribute.Strategy, values: list[int]) -> list[list[int]]:
    """Return the values of each host, a row per replica; all hosts must pass the same number."""
    if count_workers() == 1:
        return [values]

    @tf.function(autograph=False)
    def gather(row: tf.Tensor) -> tf.Tensor:
        return strategy.gather(strategy.run(lambda: row), axis=0)

    return gather(tf.constant([values], tf.int64)).numpy().tolist()


def check_shared(strategy: tf.distribute.Strategy, found: int, workdir: str) -> None:
    """Wait for all hosts, and check that each of them found the same in `workdir`.

    Raises:
      ConfigError: they found different things.
    """
    if len(set(gather_from_hosts(strategy, found))) > 1:
        raise ConfigError(
            f"the hosts of this run find different files in --workdir={workdir};"
            " name one folder that all of them reach"
        )


def check_same_settings(strategy: tf.distribute.Strategy, shared: Mapping[str, Any]) -> None:
    """Wait for all hosts, and check that each of them was started with the same settings and data.

    Args:
      shared: what must be the same on all hosts, see `settings.select_shared`.

    Raises:
      ConfigError: some differ; the message names them.
      tf.errors.OpError: a host was lost.
    """
    text = json.dumps(shared).encode()
    length = max(gather_from_hosts(strategy, len(text)))
    # JSON ignores the spaces that make the texts equally long.
    rows = _gather(strategy, list(text.ljust(length)))
    of_hosts = [json.loads(bytes(row)) for row in rows]
    if differences := describe_differences(json.loads(text), of_hosts):
        raise ConfigError(
            f"the hosts of this run were started with different settings or data: {differences};"
            " start all of them with the same command"
        )


def describe_differences(here: Mapping[str, Any], of_hosts: Sequence[Mapping[str, Any]]) -> str:
    """Return names and values in which this host differs from others; empty if there are none."""
    differences = []
    for name in sorted({*here}.union(*of_hosts)):
        others = dict.fromkeys(
            repr(other.get(name)) for other in of_hosts if other.get(name) != here.get(name)
        )
        if others:
            values = " or ".join(others)
            differences.append(f"{name} is {here.get(name)!r} here and {values} on another host")
    return "; ".join(differences)


def check_precision(strategy: tf.distribute.Strategy, precision: str) -> None:
    """Check that the replicas of the strategy can train in `precision` together.

    Keras's loss scaling looks for an overflow in the gradients of the first local replica, before
    the replicas add theirs up. An overflow on another replica would turn every weight into NaN;
    an overflow on one of several hosts would leave the others waiting.

    Raises:
      ConfigError: they can't.
    """
    replicas = strategy.num_replicas_in_sync
    if precision == "mixed_float16" and replicas > 1:
        raise ConfigError(
            f"--config.precision=mixed_float16 trains on one device only, and this run has"
            f" {replicas} replicas, which can't agree on an overflow; use mixed_bfloat16 or float32"
        )


def wait_for_hosts(strategy: tf.distribute.Strategy) -> None:
    """Wait for all hosts before this one leaves the run.

    Hosts that left early would be missing when the chief is killed while it publishes; it could not
    continue without them.

    Raises:
      tf.errors.OpError: a host was lost.
    """
    gather_from_hosts(strategy, 0)


def log_devices(
    strategy: tf.distribute.Strategy, global_batch_size: int, rate_factor: float
) -> None:
    """Log the devices, the share of the batch on each, and the factor on the learning rates."""
    replicas = strategy.num_replicas_in_sync
    name = type(strategy).__name__ if replicas > 1 else "One device"
    logging.info(
        "%s: global batch %d, %d on each of %d replicas, %d host(s); learning rates times %.3g.",
        name,
        global_batch_size,
        global_batch_size // replicas,
        replicas,
        count_workers(),
        rate_factor,
    )
