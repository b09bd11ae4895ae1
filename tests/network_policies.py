"""Who may talk to whom, by NetworkPolicies, as a network plugin would decide."""

import ipaddress
from dataclasses import dataclass, field
from typing import Any

Plain = dict[str, Any]


@dataclass(frozen=True)
class End:
    """One end of a connection: a pod, or an address outside the cluster.

    Attributes:
        namespace: of the pod; empty for an address.
        labels: of the pod.
        address: outside.
    """

    namespace: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    address: str = ""


def connects(policies: list[Plain], source: End, target: End, port: int, protocol: str = "TCP") -> bool:
    """Whether the source may open a connection to the target's port: both of them have to be allowed it."""
    return _allowed(policies, source, target, "Egress", "to", port, protocol) and _allowed(
        policies, target, source, "Ingress", "from", port, protocol
    )


def _allowed(policies: list[Plain], end: End, other: End, direction: str, peers: str, port: int, protocol: str) -> bool:
    if end.address:
        return True
    about = [
        one["spec"]
        for one in policies
        if one["metadata"]["namespace"] == end.namespace
        and direction in one["spec"]["policyTypes"]
        and selects(one["spec"]["podSelector"], end.labels)
    ]
    rules = [(rule, end.namespace) for spec in about for rule in spec.get(direction.lower()) or []]
    return not about or any(
        _port(rule, port, protocol)
        and (peers not in rule or any(_peer(peer, other, namespace) for peer in rule[peers]))
        for rule, namespace in rules
    )


def _port(rule: Plain, port: int, protocol: str) -> bool:
    return "ports" not in rule or any(
        one.get("port", port) == port and one.get("protocol", "TCP") == protocol for one in rule["ports"]
    )


def _peer(peer: Plain, end: End, namespace: str) -> bool:
    if block := peer.get("ipBlock"):
        inside = [ipaddress.ip_network(one) for one in (block["cidr"], *block.get("except", []))]
        address = ipaddress.ip_address(end.address) if end.address else None
        return address is not None and address in inside[0] and not any(address in one for one in inside[1:])
    if end.address:
        return False
    here = (
        selects(peer["namespaceSelector"], {"kubernetes.io/metadata.name": end.namespace})
        if "namespaceSelector" in peer
        else end.namespace == namespace
    )
    return here and selects(peer.get("podSelector", {}), end.labels)


def selects(selector: Plain, labels: dict[str, str]) -> bool:
    """Whether a label selector selects these labels."""
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    return all(_fits(one, labels) for one in selector.get("matchExpressions", []))


def _fits(one: Plain, labels: dict[str, str]) -> bool:
    key, operator = one["key"], one["operator"]
    return {
        "Exists": key in labels,
        "DoesNotExist": key not in labels,
        "In": labels.get(key) in one.get("values", []),
        "NotIn": labels.get(key) not in one.get("values", []),
    }[operator]
