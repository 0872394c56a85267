"""Several hosts are found by TF_CONFIG or by what Kubernetes tells the pods of an Indexed Job."""

import json

import pytest
import tensorflow as tf

from trainer.errors import ConfigError
from trainer.training import strategy


def test_the_pods_of_an_indexed_job_become_workers():
    found = strategy.build_tf_config("train-0.train:2222, train-1.train:2222", "1")
    assert found == {
        "cluster": {"worker": ["train-0.train:2222", "train-1.train:2222"]},
        "task": {"type": "worker", "index": 1},
    }
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(found["cluster"])
    )
    assert resolver.cluster_spec().num_tasks("worker") == 2


def test_addresses_of_ipv6_stand_in_brackets():
    assert strategy.build_tf_config("[::1]:2222,[fd00::2]:2222", "1")["cluster"]["worker"] == [
        "[::1]:2222",
        "[fd00::2]:2222",
    ]


@pytest.mark.parametrize("index", [None, "", "2", "-1", "one"])
def test_an_index_beyond_the_hosts_is_refused(index):
    with pytest.raises(
        ConfigError,
        match=f"JOB_COMPLETION_INDEX={index} names none of the 2 workers in HUMERUS_HOSTS",
    ):
        strategy.build_tf_config("a:1,b:2", index)


@pytest.mark.parametrize("hosts", ["a,b", "a:1,,b:2", "a:x", "http://a:1", "::1:2222", "[::1]"])
def test_hosts_without_a_port_are_refused_with_an_example(hosts):
    with pytest.raises(ConfigError, match="expected comma-separated host:port of every worker"):
        strategy.build_tf_config(hosts, "0")


@pytest.mark.parametrize(
    "given",
    [
        '{"cluster": ',
        '["a:1", "b:2"]',
        '{"cluster": {"worker": ["a:1", "b:2"]}}',
        '{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker"}}',
        '{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 2}}',
        '{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": -1}}',
        '{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "chief", "index": 0}}',
        '{"cluster": {"worker": ["a:1", "b:2"], "evaluator": ["c:3"]},'
        ' "task": {"type": "evaluator", "index": 0}}',
        '{"cluster": {"worker": "a:1,b:2"}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": ["a:1", "b:2"], "task": {"type": "worker", "index": 0}}',
    ],
)
def test_a_tf_config_that_does_not_say_who_trains_is_refused_with_an_example(monkeypatch, given):
    monkeypatch.setenv("TF_CONFIG", given)
    with pytest.raises(ConfigError, match=r"this host's place among them, such as \{") as caught:
        strategy.create()
    assert f"TF_CONFIG={given}: expected" in str(caught.value)


def test_a_tf_config_without_a_cluster_names_nobody(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "{}")
    assert strategy.create().num_replicas_in_sync == 1 and strategy.count_workers() == 1


def test_tf_config_comes_first_and_one_host_needs_no_workers(monkeypatch):
    given = json.dumps({"cluster": {"worker": ["x:1"]}, "task": {"type": "worker", "index": 0}})
    monkeypatch.setenv("TF_CONFIG", given)
    monkeypatch.setenv(strategy.HOSTS, "a:1,b:2")
    assert strategy.create().num_replicas_in_sync == 1 and strategy.count_workers() == 1
    monkeypatch.delenv("TF_CONFIG")
    monkeypatch.setenv(strategy.HOSTS, "a:1")
    monkeypatch.setenv(strategy.INDEX, "0")
    assert (
        isinstance(strategy.create(), type(tf.distribute.get_strategy()))
        and strategy.count_workers() == 1
    )


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_one_device_trains_in_every_precision(precision):
    strategy.check_precision(tf.distribute.get_strategy(), precision)
