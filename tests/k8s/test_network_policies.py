"""What the network policies let through, asked as a network plugin would."""

import ipaddress

import pytest

from tests.support import manifests

Endpoint = tuple[str, dict[str, str]] | str
"""A pod, as its namespace and labels, or an address outside of the pods' network."""

EVERY = pytest.mark.parametrize("name", manifests.OVERLAYS)
TENSORBOARD = {"app.kubernetes.io/part-of": "humerus", "app.kubernetes.io/component": "tensorboard"}
TRAIN = {"app.kubernetes.io/part-of": "humerus", "app.kubernetes.io/component": "train"}
DNS = {
    "kube-dns or CoreDNS": ("kube-system", {"k8s-app": "kube-dns"}),
    # On Dataplane V2 a query is redirected to this pod, and an address of a pod matches no ipBlock.
    "NodeLocal DNSCache, Dataplane V2": ("kube-system", {"k8s-app": "node-local-dns"}),
    "NodeLocal DNSCache, other networks": "169.254.20.10",
    "Cloud DNS for GKE": "169.254.169.254",
}
METADATA_SERVER = {
    "Dataplane V2": ("169.254.169.254", 80),
    "other networks": ("169.254.169.252", 988),
}


def matches_labels(selector: dict, labels: dict[str, str]) -> bool:
    """Return whether a label selector takes an object with these labels."""
    for one in selector.get("matchExpressions", []):
        assert one["operator"] == "In"
        if labels.get(one["key"]) not in one["values"]:
            return False
    return selector.get("matchLabels", {}).items() <= labels.items()


def matches_peer(peer: dict, other: Endpoint, own_namespace: str) -> bool:
    """Return whether a rule's peer is the other end. Blocks match no pods, as with Cilium."""
    if isinstance(other, str):
        block = peer.get("ipBlock")
        return bool(block) and ipaddress.ip_address(other) in ipaddress.ip_network(block["cidr"])
    if "ipBlock" in peer:
        return False
    namespace, labels = other
    if "namespaceSelector" in peer:
        named = {"kubernetes.io/metadata.name": namespace}
        if not matches_labels(peer["namespaceSelector"], named):
            return False
    elif namespace != own_namespace:
        return False
    return matches_labels(peer.get("podSelector", {}), labels)


def lets_through(
    objects: list[dict],
    labels: dict[str, str],
    way: str,
    other: Endpoint,
    port: int | str,
    protocol: str = "TCP",
) -> bool:
    """Return whether policies let a pod with these labels connect (`egress`) or be reached."""
    policies = [
        found
        for found in objects
        if found["kind"] == "NetworkPolicy"
        and way.capitalize() in found["spec"]["policyTypes"]
        and matches_labels(found["spec"]["podSelector"], labels)
    ]
    assert policies, "without a policy everything would be let through"
    side = {"egress": "to", "ingress": "from"}[way]
    return any(
        any(matches_peer(peer, other, policy["metadata"]["namespace"]) for peer in rule[side])
        and (
            "ports" not in rule
            or any(one["port"] == port and one["protocol"] == protocol for one in rule["ports"])
        )
        for policy in policies
        for rule in policy["spec"].get(way, [])
    )


@EVERY
@pytest.mark.parametrize("resolver", DNS.values(), ids=list(DNS))
@pytest.mark.parametrize("protocol", ["UDP", "TCP"])
def test_dns_is_reached_wherever_the_cluster_has_it(name, resolver, protocol):
    objects = manifests.overlay(name)
    assert lets_through(objects, TRAIN, "egress", resolver, 53, protocol)
    assert not lets_through(objects, TRAIN, "egress", resolver, 5353, protocol)


@EVERY
@pytest.mark.parametrize(("address", "port"), METADATA_SERVER.values(), ids=list(METADATA_SERVER))
def test_the_metadata_server_and_googles_addresses_are_reached_for_a_bucket_alone(
    name, address, port
):
    objects = manifests.overlay(name)
    bucket = name != "local"
    assert lets_through(objects, TRAIN, "egress", address, port) == bucket
    for google in ("199.36.153.8", "199.36.153.11", "199.36.153.4"):
        assert lets_through(objects, TRAIN, "egress", google, 443) == bucket
        assert not lets_through(objects, TRAIN, "egress", google, 80)


@EVERY
@pytest.mark.parametrize(
    ("other", "port"),
    [
        ("8.8.8.8", 53),
        ("142.250.1.1", 443),
        ("10.0.0.1", 443),
        (("kube-system", {"k8s-app": "metrics-server"}), 53),
        (("other", {"k8s-app": "kube-dns"}), 53),
    ],
)
@pytest.mark.parametrize("protocol", ["UDP", "TCP"])
def test_nothing_else_is_reached(name, other, port, protocol):
    assert not lets_through(manifests.overlay(name), TRAIN, "egress", other, port, protocol)


@EVERY
def test_workers_reach_each_other_and_no_one_else(name):
    objects = manifests.overlay(name)
    namespace = f"humerus-{name}"
    several = name.startswith("multi-node")
    for way in ("egress", "ingress"):
        assert lets_through(objects, TRAIN, way, (namespace, TRAIN), 2222) == several
        assert not lets_through(objects, TRAIN, way, ("elsewhere", TRAIN), 2222)
        assert not lets_through(objects, TRAIN, way, (namespace, TENSORBOARD), 2222)


@EVERY
def test_prometheus_alone_comes_in(name):
    objects = manifests.overlay(name)
    for namespace in ("monitoring", "gmp-system", "gke-gmp-system"):
        assert lets_through(objects, TRAIN, "ingress", (namespace, {}), "metrics")
        assert not lets_through(objects, TENSORBOARD, "ingress", (namespace, {}), "http")
    assert not lets_through(objects, TRAIN, "ingress", ("default", {}), "metrics")


@EVERY
def test_every_pod_is_under_the_policies(name):
    for found in manifests.overlay(name):
        if found["kind"] in ("Job", "Deployment"):
            labels = found["spec"]["template"]["metadata"]["labels"]
            assert labels["app.kubernetes.io/part-of"] == "humerus"
