"""One source: what each way of running tells the services, and where it says they listen, is the table's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import rendered
from deploy.local.layout import ROOT, Layout
from deploy.settings import Service, table
from tests.unit.deploy import compose

LAYOUT = Layout(run=ROOT / ".run")
SERVICES = list(table().services.values())
COMPOSE = ROOT / "deploy" / "compose"
by_name = pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)


def read_environment(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


@by_name
def test_a_setting_is_there_in_every_way_of_running_or_in_none(service: Service) -> None:
    local = set(service.environment(LAYOUT.names(LAYOUT.instances(service.name)[0]), LAYOUT.secrets))
    of_an_instance = {name for name, value in service.settings.items() if value == "{instance}"}
    in_compose = set(read_environment(COMPOSE / f"settings/{service.name}.env"))
    in_kubernetes = set(read_environment(ROOT / f"deploy/k8s/base/settings/{service.name}.env"))
    # In containers services and stores are on different hosts: they speak TLS.
    in_containers = (local - of_an_instance) | rendered.tls(service).keys()
    assert in_compose == in_containers
    assert in_kubernetes | rendered.operators_settings(service) == in_containers
    assert not in_kubernetes & rendered.operators_settings(service)


def test_only_the_instances_own_name_is_left_to_the_container() -> None:
    """The logger takes its host name then: unlike a name that is written down, it is each replica's own."""
    left = {name for service in SERVICES for name, value in service.settings.items() if value == "{instance}"}
    assert left == {"SIGNGATE_CONSUMER_NAME"}


@by_name
def test_a_service_listens_in_a_container_where_the_table_says(service: Service) -> None:
    for environment in (rendered.compose_environment(service), rendered.kubernetes_environment(service)):
        for kind, port in service.ports.items():
            assert environment[f"SIGNGATE_{kind.upper()}_LISTEN"] == f"0.0.0.0:{port}"


@by_name
def test_peers_are_found_by_names_that_are_looked_up_again(service: Service) -> None:
    for name, value in rendered.compose_environment(service).items():
        if name.endswith("_ADDR"):
            peer = table().services[name.removeprefix("SIGNGATE_").removesuffix("_ADDR").lower()]
            assert value == f"dns:///{peer.name}:{peer.ports['grpc']}"


def test_the_edge_balances_over_every_address_of_each_service() -> None:
    edge = yaml.safe_load((COMPOSE / "envoy.yaml").read_text(encoding="utf-8"))
    clusters = {cluster["name"]: cluster for cluster in edge["static_resources"]["clusters"]}
    for service in SERVICES:
        for kind in service.ports.keys() & {"grpc", "http"}:
            cluster = clusters[service.name if kind == "grpc" else f"{service.name}_{kind}"]
            assert cluster["type"] == "STRICT_DNS"
            (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
            address = endpoint["endpoint"]["address"]["socket_address"]
            assert address == {"address": service.name, "port_value": service.ports[kind]}


def test_the_edges_admin_interface_is_reached_from_its_own_container_alone() -> None:
    for edge in (rendered.edge(), rendered.edge(trusted_hops=1)):
        assert edge.admin.host == "127.0.0.1"
        assert edge.metrics.port != edge.admin.port


def test_prometheus_asks_every_service_where_the_table_says() -> None:
    ports = {
        config["job_name"]: config["dns_sd_configs"][0]
        for config in yaml.safe_load((COMPOSE / "scrape.yaml").read_text())["scrape_configs"]
    }
    assert {name: (c["names"], c["port"]) for name, c in ports.items() if name != "envoy"} == {
        service.name: ([service.name], service.ports["metrics"]) for service in SERVICES
    }
    assert ports["envoy"]["port"] == table().ports["envoy_metrics"]


def test_the_compose_file_agrees_with_the_table() -> None:
    assert compose.disagreements(yaml.safe_load((COMPOSE / "compose.yaml").read_text(encoding="utf-8"))) == []


GOOD: dict[str, Any] = {
    "services": {
        service.name: {
            "env_file": [f"settings/{service.name}.env"],
            "secrets": sorted(compose.secrets_of(service)),
            "expose": [str(port) for port in service.ports.values()],
        }
        for service in SERVICES
    }
    | {
        "migrate": {"command": ["python", "-m", "deploy.migrate"], "secrets": sorted(compose.migrations())},
        "envoy": {"ports": ["127.0.0.1:8080:8080"], "volumes": ["./envoy.yaml:/etc/envoy/envoy.yaml:ro"]},
        "postgres": {},
        "redis": {},
        "limits": {},
        "mail": {},
    },
    "secrets": {
        name: {"file": f"secrets/{name}"} for name in compose.every_secret()
    },
}  # fmt: skip


def test_a_compose_file_without_fault_is_found_without_fault() -> None:
    assert compose.disagreements(GOOD) == []


@pytest.mark.parametrize(
    ("part", "change", "told"),
    [
        ("keys", {"env_file": ["settings/quota.env"]}, "keys: reads other settings"),
        ("keys", {"environment": {"SIGNGATE_SOFT_AGE": "1"}}, "keys: SIGNGATE_SOFT_AGE"),
        ("keys", {"environment": ["SIGNGATE_SOFT_AGE=1"]}, "keys: SIGNGATE_SOFT_AGE"),
        (
            "keys",
            {"secrets": ["redis_url_keys"]},
            "keys: is not given the secrets ['edge_secret', 'key_pepper',",
        ),
        ("signer", {"secrets": [*sorted(compose.every_secret())]}, "signer: is given the secrets"),
        ("keys", {"expose": ["7101"]}, "keys: port 7101"),
        ("keys", {"ports": ["7102:7102"]}, "keys: publishes a port"),
        ("envoy", {"ports": ["8080:8081"]}, "envoy: port 8081"),
        ("envoy", {"volumes": []}, "envoy: does not read envoy.yaml"),
        ("migrate", {"secrets": []}, "migrate: is not given the secrets"),
    ],
)
def test_a_compose_file_that_disagrees_is_told_where(part: str, change: dict[str, Any], told: str) -> None:
    parts = GOOD["services"]
    found = compose.disagreements({**GOOD, "services": {**parts, part: {**parts[part], **change}}})
    assert [line for line in found if line.startswith(told)], found


def test_a_compose_file_without_a_service_is_told_so() -> None:
    parts = {name: part for name, part in GOOD["services"].items() if name != "logger"}
    assert compose.disagreements({**GOOD, "services": parts}) == ["logger: is not there"]
