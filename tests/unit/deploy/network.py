"""Who may reach whom, as NetworkPolicies say: what a cluster's network enforces, computed from the objects.

A connection passes if the caller's side lets it out and the called side lets it in. A side that no policy of
that direction selects lets everything pass; one that is selected, only what some rule names.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.unit.deploy.kubernetes import Document, pods


@dataclass(frozen=True)
class End:
    """One end of a connection: a pod of this namespace (`labels`), or an address outside it."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    address: str = ""


def lines(
    documents: list[Document], callers: list[End], called: Mapping[End, set[int]]
) -> set[tuple[str, str, int]]:
    """Every (caller, called, port) that passes."""
    policies = [document["spec"] for document in documents if document["kind"] == "NetworkPolicy"]
    return {
        (caller.name, end.name, port)
        for caller in callers
        for end, ports in called.items()
        for port in ports
        if caller != end
        and _passes(policies, "Egress", caller, end, port)
        and _passes(policies, "Ingress", end, caller, port)
    }


def ends(documents: list[Document]) -> dict[End, set[int]]:
    """Every pod, and the ports that it listens on."""
    return {
        End(name, labels=template["metadata"]["labels"]): {
            port["containerPort"]
            for container in template["spec"]["containers"]
            for port in container.get("ports", ())
        }
        for name, template in pods(documents).items()
    }


def _passes(policies: list[Document], direction: str, here: End, there: End, port: int) -> bool:
    if here.address:
        return True  # no policy of ours holds outside
    selecting = [
        policy
        for policy in policies
        if direction in policy["policyTypes"] and selects(policy["podSelector"], here.labels)
    ]
    rules = [rule for policy in selecting for rule in policy.get(direction.lower(), ())]
    return not selecting or any(_allows(rule, direction, there, port) for rule in rules)


def _allows(rule: Document, direction: str, there: End, port: int) -> bool:
    peers = rule.get("to" if direction == "Egress" else "from")
    ports = rule.get("ports")
    return (peers is None or any(_is(peer, there) for peer in peers)) and (
        ports is None
        or any(entry.get("protocol", "TCP") == "TCP" and entry["port"] == port for entry in ports)
    )


def _is(peer: Document, there: End) -> bool:
    if "ipBlock" in peer:
        if not there.address:
            return False  # pods' addresses are the cluster's business
        address = ipaddress.ip_address(there.address)
        inside = address in ipaddress.ip_network(peer["ipBlock"]["cidr"])
        return inside and not any(
            address in ipaddress.ip_network(net) for net in peer["ipBlock"].get("except", ())
        )
    # Peers with a namespaceSelector are of other namespaces: those that stand here name none of ours.
    return (
        not there.address and "namespaceSelector" not in peer and selects(peer["podSelector"], there.labels)
    )


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector selects what has these labels."""
    return all(_holds(one, labels) for one in _requirements(selector))


def _requirements(selector: Mapping[str, Any]) -> Iterator[tuple[str, bool, list[str]]]:
    for key, value in selector.get("matchLabels", {}).items():
        yield key, True, [value]
    for expression in selector.get("matchExpressions", ()):
        assert expression["operator"] in {"In", "NotIn"}
        yield expression["key"], expression["operator"] == "In", expression["values"]


def _holds(requirement: tuple[str, bool, list[str]], labels: Mapping[str, str]) -> bool:
    key, among, values = requirement
    return (labels.get(key) in values) is among
