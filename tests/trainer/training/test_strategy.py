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


@pytest.mark.parametrize("index", [None, "", "2", "-1", "one", "²", "1.7", "true"])
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


@pytest.mark.parametrize("hosts", ["a:0,b:1", "a:70001,b:1", "a:1,a:1", "a:1,A:1", "a:²,b:1"])
def test_impossible_ports_and_hosts_named_twice_are_refused(monkeypatch, hosts):
    with pytest.raises(ConfigError, match="each once and with a port from 1 to 65535"):
        strategy.build_tf_config(hosts, "0")
    cluster = {"worker": hosts.split(",")}
    given = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": 0}})
    monkeypatch.setenv("TF_CONFIG", given)
    with pytest.raises(ConfigError, match="each once and with a port from 1 to 65535"):
        strategy.create()


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
        '{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 1.7}}',
        '{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": true}}',
        '{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": null}}',
        '{"cluster": {"chief": ["a:1"], "worker": ["a:1"]},'
        ' "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"chief": ["a:1", "b:2"], "worker": ["c:3"]},'
        ' "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": "a:1,b:2"}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": ["a:1", "b:2"], "task": {"type": "worker", "index": 0}}',
    ],
)
def test_a_tf_config_that_does_not_say_who_trains_is_refused_with_an_example(monkeypatch, given):
    monkeypatch.setenv("TF_CONFIG", given)
    with pytest.raises(ConfigError, match=r"this host's place among them, such as \{") as caught:
        strategy.create()
    assert f"TF_CONFIG={given}: expected" in str(caught.value)


@pytest.mark.parametrize("given", ["{}", '{"cluster": null}', '{"cluster": {}}'])
def test_a_tf_config_without_a_cluster_names_nobody(monkeypatch, given):
    monkeypatch.setenv("TF_CONFIG", given)
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


def test_hosts_say_in_which_settings_they_differ():
    here = {"config.seed": 0, "config.xla": False, "data.fingerprint": "abc"}
    assert strategy.describe_differences(here, [here, dict(here)]) == ""
    others = [{**here, "config.seed": 1, "data.fingerprint": "def"}, {**here, "config.seed": 2}]
    assert strategy.describe_differences(here, [here, *others, others[0]]) == (
        "config.seed is 0 here and 1 or 2 on another host;"
        " data.fingerprint is 'abc' here and 'def' on another host"
    )


def test_one_host_has_the_settings_of_all():
    strategy.check_same_settings(tf.distribute.get_strategy(), {"config.seed": 0})
