"""settings.toml against what it speaks of: the contracts and the services' own settings."""

from __future__ import annotations

import importlib

import pytest
import yaml
from google.protobuf import descriptor_pb2

from deploy.envoy import render
from deploy.local.edge import local_edge
from deploy.local.layout import ROOT, Layout
from deploy.settings import Secret, Service, table
from servicekit.config import PREFIX, ServiceSettings
from signgate.common.v1 import policy_pb2

LAYOUT = Layout(run=ROOT / ".run")
RUNTIMES = {"MALLOC_MMAP_THRESHOLD_"}
"""Settings of the C library's."""
SERVICES = list(table().services.values())


def rpc_services() -> dict[str, list[str]]:
    """Every gRPC service of the contracts, with the access policy of each method."""
    files = descriptor_pb2.FileDescriptorSet.FromString((ROOT / "gen/signgate.binpb").read_bytes())
    found: dict[str, list[str]] = {}
    for file in files.file:
        for service in file.service:
            found[f"{file.package}.{service.name}"] = [
                policy_pb2.Access.Name(method.options.Extensions[policy_pb2.policy].access)
                for method in service.method
            ]
    return found


def test_the_edge_routes_exactly_the_services_that_are_not_internal() -> None:
    """A new internal service can't become public, nor a public one be forgotten, without this failing."""
    public = {name for name, policies in rpc_services().items() if "ACCESS_INTERNAL" not in policies}
    assert public == {name for service in SERVICES for name in service.public}


def test_no_service_mixes_internal_and_public_methods() -> None:
    for name, policies in rpc_services().items():
        internal = [policy == "ACCESS_INTERNAL" for policy in policies]
        assert all(internal) or not any(internal), name


def test_streaming_methods_are_the_ones_named() -> None:
    files = descriptor_pb2.FileDescriptorSet.FromString((ROOT / "gen/signgate.binpb").read_bytes())
    streaming = {
        method.name
        for file in files.file
        for service in file.service
        for method in service.method
        if method.server_streaming or method.client_streaming
    }
    assert streaming == {name for service in SERVICES for name in service.streaming}


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_a_service_is_told_what_it_asks_for_and_nothing_it_does_not_know(service: Service) -> None:
    config = importlib.import_module(f"services.{service.name}.config")
    kinds = [
        kind
        for kind in vars(config).values()
        if isinstance(kind, type) and issubclass(kind, ServiceSettings) and kind.__module__ == config.__name__
    ]
    assert len(kinds) == 1
    fields = kinds[0].model_fields
    told = service.environment(LAYOUT.names(LAYOUT.instances(service.name)[0]), LAYOUT.secrets)
    ours = {name for name in told if name.startswith(PREFIX)}
    assert set(told) - ours <= RUNTIMES
    names = {name.removeprefix(PREFIX).lower() for name in ours}
    known = set(fields) | {f"{name}_file" for name in fields}
    assert names <= known, "settings.toml names what the service does not know"
    required = {name for name, field in fields.items() if field.is_required()}
    given = names | {name.removesuffix("_file") for name in names}
    assert required <= given, "the service requires what settings.toml does not name"


def test_no_secret_stands_in_the_table() -> None:
    for service in SERVICES:
        for name, value in service.settings.items():
            secretive = any(word in name for word in ("DSN", "PEPPER", "KEYSET", "PASSWORD", "REDIS_URL"))
            assert not secretive or isinstance(value, Secret), name


def test_every_route_of_the_edge_leads_to_a_cluster() -> None:
    """Envoy is told not to check it, for the sake of the one route that leads nowhere."""
    edge = yaml.safe_load(render.render(local_edge(LAYOUT)))
    clusters = {cluster["name"] for cluster in edge["static_resources"]["clusters"]} - {"admin"}
    manager = edge["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][-1]["typed_config"]
    routes = manager["route_config"]["virtual_hosts"][0]["routes"]
    leads_to = [route["route"]["cluster"] for route in routes if "route" in route]
    assert set(leads_to[:-1]) == clusters
    assert routes[-1]["route"]["cluster"] == "nowhere"


def test_no_two_parts_of_two_stacks_share_a_port() -> None:
    """With three instances of everything, beside a stack of tests."""
    replicas = {service.name: 3 for service in SERVICES}
    ports = [port for shift in (0, 10_000) for _, port in Layout(ROOT, shift, replicas).all_ports()]
    assert len(ports) == len(set(ports))
