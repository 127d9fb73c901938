"""NetworkPolicies open exactly the lines of ARCHITECTURE.md: those that settings.toml tells services of."""

from __future__ import annotations

import pytest

from deploy.settings import Service, table
from tests.unit.deploy.kubernetes import OVERLAYS, WITH_BROWSER, Document, find, overlay
from tests.unit.deploy.network import End, ends, lines, selects

both = pytest.mark.parametrize("name", OVERLAYS)
SERVICES = table().services
STORES = {"postgres", "redis"}
Line = tuple[str, str, int]

PROMETHEUS = End("prometheus", address="10.1.2.3")
CALLER = End("a caller", address="198.51.100.7")
INTERNET = End("the internet", address="9.9.9.9")
INSIDE = End("this network", address="10.1.2.3")
METADATA = End("the cloud's metadata", address="169.254.169.254")
MANAGED = End("managed PostgreSQL", address="192.0.2.5")
CLUSTER = End("a Redis Cluster", address="192.0.2.130")


def by_the_table() -> set[Line]:
    """From the edge to every service, and from a service to what its settings name."""
    found = set()
    for service in SERVICES.values():
        found |= {("envoy", service.name, port) for kind, port in service.ports.items() if kind != "metrics"}
        found |= {(service.name, *peer) for peer in peers(service)}
    found |= {(job, "postgres", 5432) for job in ("migrate", "partitions", "reconcile")}
    return found | {("reconcile", "redis", 6379), ("reconcile", "quota", SERVICES["quota"].ports["grpc"])}


def peers(service: Service) -> set[tuple[str, int]]:
    found = set()
    for name, value in service.settings.items():
        if isinstance(value, str):
            found |= {
                (peer.name, peer.ports["grpc"])
                for peer in SERVICES.values()
                if f"{{peer_{peer.name}}}" == value
            }
            if "{auth_http}" in value:
                found.add(("auth", SERVICES["auth"].ports["http"]))
        elif name == "SIGNGATE_REDIS_URL":
            found.add(("redis", table().container_ports["redis"]))
        elif name == "SIGNGATE_LIMITS_REDIS_URL":
            found.add(("limits", table().container_ports["limits"]))
        elif name == "SIGNGATE_POSTGRES_DSN":
            found.add(("postgres", table().container_ports["postgres"]))
    return found


def open_lines(documents: list[Document]) -> set[Line]:
    known = ends(documents)
    return lines(documents, list(known), known)


def test_on_one_node_exactly_those_lines_are_open() -> None:
    assert open_lines(overlay("single-node")) == by_the_table()


def test_in_production_the_stores_are_outside_and_the_rest_is_the_same() -> None:
    documents = overlay("production")
    assert open_lines(documents) == {line for line in by_the_table() if line[1] not in STORES}
    outside = lines(documents, list(ends(documents)), {MANAGED: {5432, 6379}, CLUSTER: {5432, 6379}})
    assert outside == {
        (caller, {"postgres": MANAGED.name, "redis": CLUSTER.name}[called], port)
        for caller, called, port in by_the_table()
        if called in STORES
    }


@both
def test_from_outside_only_the_door_is_reached(name: str) -> None:
    documents = overlay(name)
    assert lines(documents, [CALLER, PROMETHEUS], ends(documents)) == {
        (caller.name, "envoy", table().ports["edge"]) for caller in (CALLER, PROMETHEUS)
    }


@both
def test_only_mail_and_webhooks_lead_outside(name: str) -> None:
    documents = overlay(name)
    ports = {25, 80, 443, 587, 8080, 7101}
    found = lines(documents, list(ends(documents)), dict.fromkeys((INTERNET, INSIDE, METADATA), ports))
    mailers = {s.name for s in SERVICES.values() if "SIGNGATE_SMTP_HOST" in s.settings}
    assert {line for line in found if line[2] not in {25, 587}} == {("logger", INTERNET.name, 443)}
    assert {caller for caller, _, port in found if port in {25, 587}} == mailers


@pytest.mark.parametrize("name", WITH_BROWSER)
def test_the_browser_is_reached_by_the_signer_alone_and_reaches_nothing(name: str) -> None:
    """It runs a script that is not ours: a way out, DNS among them, would be the script's."""
    documents = overlay(name)
    port = table().container_ports["browser"]
    without = open_lines(overlay(name.partition("+")[0]))
    assert open_lines(documents) == without | {("signer", "browser", port)}
    browser = [end for end in ends(documents) if end.name == "browser"]
    ports = {25, 53, 80, 443, 5432, 6379}
    outside = dict.fromkeys((INTERNET, INSIDE, METADATA, MANAGED, CLUSTER), ports)
    assert not lines(documents, browser, outside)
    assert not lines(documents, [CALLER, PROMETHEUS], dict.fromkeys(browser, ports | {port}))


@pytest.mark.parametrize("name", [*OVERLAYS, *WITH_BROWSER])
def test_all_but_the_browser_look_names_up(name: str) -> None:
    """By the policy `dns`, which selects whom it is for."""
    documents = overlay(name)
    policy = find(documents, "NetworkPolicy", "dns")["spec"]
    found = {end.name for end in ends(documents) if selects(policy["podSelector"], end.labels)}
    assert found == {end.name for end in ends(documents)} - {"browser"}


@pytest.mark.parametrize(
    "policy", ["deny-all", "envoy", "auth", "keys", "quota", "signer", "logger", "limits", "to-redis"]
)
def test_without_any_one_policy_the_lines_are_others(policy: str) -> None:
    """So each of them is needed, and the computation sees it."""
    documents = overlay("single-node")
    documents.remove(find(documents, "NetworkPolicy", policy))
    if policy == "deny-all":  # every pod that talks has policies of its own: only strangers feel this one
        stranger = End("stranger", labels={"app.kubernetes.io/name": "stranger"})
        reached = lines(documents, [CALLER], {stranger: {80}})
        assert reached == {(CALLER.name, "stranger", 80)}
        assert not lines(overlay("single-node"), [CALLER], {stranger: {80}})
    else:
        assert open_lines(documents) != by_the_table()


def test_a_door_that_is_too_wide_is_seen() -> None:
    documents = overlay("single-node")
    find(documents, "NetworkPolicy", "keys")["spec"]["ingress"][0].pop("from")
    assert lines(documents, [CALLER], ends(documents)) > {(CALLER.name, "envoy", table().ports["edge"])}
