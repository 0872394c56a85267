"""The strategy for this machine: one device, all GPUs of the host, or several hosts where the environment names them."""

import json
import os
import re
from typing import Any

import tensorflow as tf
from absl import logging

from trainer.errors import ConfigError
from trainer.program import telemetry

HOSTS = "HUMERUS_HOSTS"
"""Environment variable: `host:port` of every worker of an Indexed Job or JobSet, in the order of their indices, with commas."""
INDEX = "JOB_COMPLETION_INDEX"
"""Environment variable that Kubernetes gives to each pod of an Indexed Job or JobSet: its place among the hosts, from 0."""
_HOST = re.compile(
    r"([^:\s\[\]]+|\[[0-9a-fA-F:.]+\]):\d+"
)  # a name or an address, of IPv6 in brackets; a port


def create() -> tf.distribute.Strategy:
    """`MultiWorkerMirroredStrategy` if the environment names several workers, else `MirroredStrategy` over the local devices.

    A single device gets TensorFlow's default strategy: the same loop and the same numbers, without the mirrored variables that
    double the CPU time of a step.

    Raises:
      ConfigError: the environment names workers, and not in a form that says which of them this is.
    """
    _name_workers()
    if number_of_workers() > 1:
        with telemetry.waiting():
            return tf.distribute.MultiWorkerMirroredStrategy()
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) == 1:
        return tf.distribute.get_strategy()
    if devices[0].device_type == "GPU":
        return tf.distribute.MirroredStrategy()
    return tf.distribute.MirroredStrategy(
        [d.name for d in devices], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )


def _name_workers() -> None:
    """`TF_CONFIG` from the variables of an Indexed Job, unless it is set; then it is checked."""
    if given := os.environ.get("TF_CONFIG"):
        _check(given)
    elif os.environ.get(HOSTS):
        os.environ["TF_CONFIG"] = json.dumps(cluster(os.environ[HOSTS], os.environ.get(INDEX)))


def _check(given: str) -> None:
    """Raises `ConfigError` unless this `TF_CONFIG` names workers, and this host among them; one without a cluster names nobody."""
    try:
        config = json.loads(given)
        if not config.get("cluster"):
            return
        task, hosts = config["task"], config["cluster"]
        trains = task["type"] in ("chief", "worker") and 0 <= int(task["index"]) < len(
            hosts[task["type"]]
        )
        fits = trains and all(
            _HOST.fullmatch(host)
            for of_type in ("chief", "worker")
            for host in hosts.get(of_type, [])
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        fits = False
    if not fits:
        raise ConfigError(
            f"TF_CONFIG={given}: expected host:port of every worker and this host's place among them, as"
            ' {"cluster": {"worker": ["a:2222", "b:2222"]}, "task": {"type": "worker", "index": 0}}'
        )


def cluster(hosts: str, index: str | None) -> dict[str, Any]:
    """The content of `TF_CONFIG` for one worker of several; worker 0 is the chief.

    Args:
      hosts: as in `HOSTS`.
      index: as in `INDEX`.

    Raises:
      ConfigError: the two don't fit.
    """
    workers = [host.strip() for host in hosts.split(",")]
    if not all(_HOST.fullmatch(worker) for worker in workers):
        raise ConfigError(
            f"{HOSTS}={hosts}: expected host:port of every worker, with commas, as train-0.train:2222,train-1.train:2222"
        )
    if index is None or not index.isdigit() or int(index) >= len(workers):
        raise ConfigError(
            f"{INDEX}={index} names none of the {len(workers)} workers in {HOSTS}; expected 0 to {len(workers) - 1}"
        )
    return {"cluster": {"worker": workers}, "task": {"type": "worker", "index": int(index)}}


def number_of_workers() -> int:
    """Hosts that train, by `TF_CONFIG`; 1 without it."""
    cluster = json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster", {})
    return max(1, len(cluster.get("worker", [])) + len(cluster.get("chief", [])))


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """True on the one process that writes what lasts."""
    return bool(strategy.extended.should_checkpoint)


def on_all_hosts(strategy: tf.distribute.Strategy, said: int | bool) -> list[int]:
    """Waits until all hosts have come here; what each of them said, once for every replica of it.

    Raises:
      tf.errors.OpError: one of them was lost.
    """
    if number_of_workers() == 1:
        return [said]

    @tf.function(autograph=False)
    def gathered(said: tf.Tensor) -> tf.Tensor:
        return strategy.gather(strategy.run(lambda: said), axis=0)

    return gathered(tf.constant([int(said)], tf.int64)).numpy().tolist()


def check_shared(strategy: tf.distribute.Strategy, found: int, workdir: str) -> None:
    """Waits for the other hosts; raises `ConfigError` unless what each of them found in `workdir` is the same."""
    if len(set(on_all_hosts(strategy, found))) > 1:
        raise ConfigError(
            f"the hosts of this run don't find the same in --workdir={workdir}; name one folder that all of them reach"
        )


def leave_together(strategy: tf.distribute.Strategy) -> None:
    """Waits for the other hosts. Without it, they would be gone when the chief is killed while it publishes, and it could not go on.

    Raises:
      tf.errors.OpError: one of them was lost.
    """
    on_all_hosts(strategy, 0)


def log_devices(
    strategy: tf.distribute.Strategy, global_batch_size: int, rate_factor: float
) -> None:
    """Says what trains, how the batch is shared out, and what its size does to the learning rates."""
    replicas = strategy.num_replicas_in_sync
    name = type(strategy).__name__ if replicas > 1 else "One device"
    share = f"{global_batch_size // replicas} on each of {replicas} replicas, {number_of_workers()} host(s)"
    logging.info(
        "%s: global batch %d, %s; learning rates times %.3g.",
        name,
        global_batch_size,
        share,
        rate_factor,
    )
