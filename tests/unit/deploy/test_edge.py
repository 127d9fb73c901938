"""The edge as it is rendered: what holds on every path of it, whatever is added later."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2
from uvicorn.protocols.http.h11_impl import H11Protocol

from deploy import rendered
from deploy.envoy import render
from deploy.envoy.render import REPLIES, Edge
from deploy.local.edge import local_edge
from deploy.local.layout import ROOT, Layout
from deploy.settings import table
from servicekit import apikey, headers
from servicekit.authn import MAX_CREDENTIAL
from servicekit.clock import SystemEntropy
from servicekit.config import Address
from servicekit.http import HttpServer
from servicekit.rpc.server import SERVER_OPTIONS
from services.auth.http.openapi import OPERATIONS

EDGES = {
    "local": local_edge(Layout(run=Path("/run/signgate"))),
    "containers": rendered.edge(),
    "balanced": rendered.edge(1, tls=True),
}
STREAMING = {
    f"/{api}/{method}"
    for service in table().services.values()
    for api in service.public
    for method in service.streaming
}


@pytest.fixture(params=EDGES)
def edge(request: pytest.FixtureRequest) -> Edge:
    return EDGES[request.param]


@pytest.fixture
def configuration(edge: Edge) -> Any:
    return yaml.safe_load(render.render(edge))


def managers(configuration: Any) -> Iterator[Any]:
    for listener in configuration["static_resources"]["listeners"]:
        for chain in listener["filter_chains"]:
            yield chain["filters"][-1]["typed_config"]


def routes(configuration: Any) -> Iterator[Any]:
    for manager in managers(configuration):
        for host in manager["route_config"]["virtual_hosts"]:
            yield from host["routes"]


def seconds(duration: str) -> float:
    return float(duration.removesuffix("s"))


class TestTimeouts:
    """Nothing is held for longer than a number that stands here."""

    def test_every_listener_has_a_bound_for_each_part_of_a_request(self, configuration: Any) -> None:
        for manager in managers(configuration):
            for name, most in {
                "request_headers_timeout": 10,
                "request_timeout": 20,
                "stream_idle_timeout": 60,
                "stream_flush_timeout": 30,
            }.items():
                assert 0 < seconds(manager[name]) <= most, (manager["stat_prefix"], name)
            assert 0 < seconds(manager["common_http_protocol_options"]["idle_timeout"]) <= 300
            assert manager["max_request_headers_kb"] <= 16
            assert manager["common_http_protocol_options"]["max_headers_count"] <= 100
            assert manager["http2_protocol_options"]["max_concurrent_streams"] <= 100

    def test_what_the_edge_takes_of_headers_every_service_takes_too(self, configuration: Any) -> None:
        """S13: one number, from one place."""
        for manager in managers(configuration):
            assert manager["max_request_headers_kb"] * 1024 == headers.EDGE
            assert manager["common_http_protocol_options"]["max_headers_count"] == headers.COUNT
        options = dict(SERVER_OPTIONS)
        # One number: between two the runtime refuses by chance.
        assert options["grpc.max_metadata_size"] == options["grpc.absolute_max_metadata_size"]
        assert options["grpc.max_metadata_size"] == headers.SERVICE
        server = HttpServer(None, Address("127.0.0.1", 0), grace=1)
        assert server._server.config.h11_max_incomplete_event_size == headers.SERVICE
        assert server._server.config.http_protocol_class is H11Protocol
        most = headers.EDGE + headers.COUNT * headers.OVERHEAD + headers.ADDED
        assert most <= headers.SERVICE
        assert headers.TOKEN * 2 <= headers.EDGE == MAX_CREDENTIAL

    def test_every_connection_has_a_bound_for_its_handshake_and_its_buffers(self, configuration: Any) -> None:
        for listener in configuration["static_resources"]["listeners"]:
            assert listener["per_connection_buffer_limit_bytes"] <= 4 * 1024 * 1024
            for chain in listener["filter_chains"]:
                assert 0 < seconds(chain["transport_socket_connect_timeout"]) <= 10

    def test_every_route_to_a_cluster_has_its_bounds(self, configuration: Any) -> None:
        streaming = set()
        for route in routes(configuration):
            if "route" not in route:
                assert "direct_response" in route, route
                continue
            action = route["route"]
            longest = seconds(action["max_stream_duration"]["max_stream_duration"])
            assert 0 < seconds(action["flush_timeout"]) <= 30
            assert seconds(action["idle_timeout"]) > 0
            if action["cluster"].endswith("_streams"):
                streaming.add(route["match"]["path"])
                assert longest <= 3600
                assert seconds(action["idle_timeout"]) <= 300
            else:
                assert 0 < seconds(action["timeout"]) <= 20, route
                assert seconds(action["idle_timeout"]) <= 30
                assert longest <= 40
        assert streaming == STREAMING

    def test_every_cluster_is_given_up_on_in_time(self, configuration: Any) -> None:
        for cluster in configuration["static_resources"]["clusters"]:
            assert seconds(cluster["connect_timeout"]) <= 1, cluster["name"]


class TestWhole:
    def test_a_request_is_held_until_it_is_whole_but_for_streams(self, configuration: Any) -> None:
        """Before anything that may send it on."""
        manager = next(managers(configuration))
        names = [one["name"].rpartition(".")[2] for one in manager["http_filters"]]
        buffer = manager["http_filters"][names.index("buffer")]
        assert not buffer.get("disabled")
        assert buffer["typed_config"]["max_request_bytes"] == 1024 * 1024
        assert names.index("buffer") < names.index("grpc_json_transcoder") < names.index("router")
        for name in ("envoy.filters.http.buffer", "message"):
            exempt = {
                route["match"]["path"]
                for route in routes(configuration)
                if name in route.get("typed_per_filter_config", {})
                and route.get("route", {}).get("cluster") in {"signer_streams", "logger_streams"}
            }
            assert exempt == {"/signgate.signer.v1.SignerService/SignStream"}, name

    def test_streams_have_clusters_of_their_own(self, configuration: Any) -> None:
        clusters = {one["name"]: one for one in configuration["static_resources"]["clusters"]}
        for service in table().services.values():
            assert (f"{service.name}_streams" in clusters) == bool(service.streaming)
        for name, cluster in clusters.items():
            if name not in {"admin", "collector"}:
                assert cluster["circuit_breakers"]["thresholds"][0]["max_requests"] <= 4096
                assert cluster["health_checks"], name
                assert ("outlier_detection" in cluster) != name.endswith("_http")


class TestAddresses:
    def test_what_one_address_may_hold_is_counted_where_its_address_is_known(
        self, edge: Edge, configuration: Any
    ) -> None:
        filters = configuration["static_resources"]["listeners"][0]["filter_chains"][0]["filters"]
        by_connection = [one for one in filters if one["name"] == "envoy.filters.network.wasm"]
        assert len(by_connection) == (edge.trusted_hops == 0)
        http = [one["name"] for one in filters[-1]["typed_config"]["http_filters"]]
        assert http.index("envoy.filters.http.wasm") < http.index("envoy.filters.http.buffer")

    def test_a_back_end_with_1024_callers_is_within_the_limits(self) -> None:
        """`make bench` is one, and they may all be in one worker."""
        assert table().edge.requests_per_address >= 1024
        assert table().edge.connections_per_address >= 1024

    def test_no_address_alone_fills_a_cluster_or_the_edge(self) -> None:
        """With two workers."""
        assert 2 * table().edge.requests_per_address < 4096
        assert 2 * table().edge.connections_per_address < table().edge.connections


class TestProof:
    def test_every_upstream_request_carries_it_and_no_caller_s_own(self, configuration: Any) -> None:
        manager = next(managers(configuration))
        injector = manager["http_filters"][-2]["typed_config"]
        assert injector["overwrite"]
        assert not injector.get("allow_request_without_credential")
        assert injector["credential"]["typed_config"]["header"] == "x-signgate-edge"
        removed = manager["early_header_mutation_extensions"][0]["typed_config"]["mutations"]
        assert {"remove": "x-signgate-edge"} in removed

    def test_it_stands_in_no_log_and_no_trace(self, configuration: Any) -> None:
        manager = next(managers(configuration))
        for part in (manager["access_log"], manager.get("tracing"), manager["local_reply_config"]):
            assert "signgate-edge" not in yaml.safe_dump(part)


class TestAccessLog:
    """A path is logged only if it has the form of one that is served: S24."""

    @pytest.fixture
    def shown(self, configuration: Any) -> tuple[re.Pattern[str], re.Pattern[str]]:
        """What a REST caller's path must be like, and any other path."""
        with_path, without = next(managers(configuration))["access_log"]
        _, either = with_path["filter"]["and_filter"]["filters"]
        rest, other = either["or_filter"]["filters"]
        patterns = [rest, other["and_filter"]["filters"][1]]
        regexes = [one["header_filter"]["header"]["string_match"]["safe_regex"]["regex"] for one in patterns]
        # The other line is for exactly those that the first is not for.
        assert [
            regex for regex in regexes if regex not in yaml.safe_dump(without["filter"], width=10_000)
        ] == []
        assert "PATH" not in yaml.safe_dump(without["typed_config"])
        return re.compile(regexes[0]), re.compile(regexes[1])

    def test_every_served_path_is_shown(self, shown: tuple[re.Pattern[str], re.Pattern[str]]) -> None:
        rest, other = shown
        some_id = str(uuid4())
        files = descriptor_pb2.FileDescriptorSet.FromString((ROOT / "gen/signgate.binpb").read_bytes())
        for file in files.file:
            for service in file.service:
                for method in service.method:
                    assert other.fullmatch(f"/{file.package}.{service.name}/{method.name}")
                    rule = method.options.Extensions[annotations_pb2.http]
                    if path := getattr(rule, rule.WhichOneof("pattern") or "get"):
                        served = re.sub(r"\{[^}]*\}", some_id, path)
                        assert rest.fullmatch(served), served
                        assert rest.fullmatch(f"{served}?page_size=3&x=%20")
        for operation in OPERATIONS:
            served = re.sub(r"\{[^}]*\}", some_id, f"/auth/v1{operation.path}")
            assert other.fullmatch(served), served
        for path in ("/", "/console/", "/console/main-ABCD1234.js", "/webcast/sign_url/", "/tiktok/sign_url"):
            assert other.fullmatch(path), path

    def test_no_path_with_a_credential_is(self, shown: tuple[re.Pattern[str], re.Pattern[str]]) -> None:
        key = apikey.mint("live", uuid4(), SystemEntropy())
        for secret in (
            key,
            key.lower(),
            key.upper(),
            key[31:],
            b64encode(key.encode()).decode(),
            "eyJh.eyJi.c2",
        ):
            for path in (
                "/",
                "/v1/keys/",
                "/webcast/sign_url%3FapiKey=",
                "/webcast/sign_url;apiKey=",
                "/console/",
            ):
                for pattern in shown:
                    assert not pattern.fullmatch(f"{path}{secret}")
                    assert not pattern.fullmatch(f"{path}{secret}/keys?x=1")


class TestTls:
    def test_with_a_certificate_only(self, edge: Edge, configuration: Any) -> None:
        chain = configuration["static_resources"]["listeners"][0]["filter_chains"][0]
        assert ("transport_socket" in chain) == bool(edge.certificate)
        assert ("strict-transport-security" in render.render(edge)) == bool(edge.certificate)

    def test_services_prove_their_names_where_an_authority_is_given(
        self, edge: Edge, configuration: Any
    ) -> None:
        for cluster in configuration["static_resources"]["clusters"]:
            if cluster["name"] in {"admin", "collector"}:
                continue
            assert ("transport_socket" in cluster) == bool(edge.services_ca)
            if edge.services_ca:
                service = re.sub("_(http|streams)$", "", cluster["name"])
                tls = cluster["transport_socket"]["typed_config"]
                assert tls["sni"] == service
                context = tls["common_tls_context"]["combined_validation_context"]
                names = context["default_validation_context"]["match_typed_subject_alt_names"]
                assert names == [{"san_type": "DNS", "matcher": {"exact": service}}]


def test_only_grpc_requests_have_to_be_messages(configuration: Any) -> None:
    """A page, a REST call or an HTTP face's request without a body is a whole request."""
    kept = []
    for route in routes(configuration):
        if "route" not in route and "errors" in route.get("typed_per_filter_config", {}):
            continue  # answered by direct.lua, before the filter
        if route["match"].get("path") == "/metrics":
            continue  # another listener
        if "message" not in route.get("typed_per_filter_config", {}):
            kept.append(route["match"])
    assert kept
    assert [match for match in kept if "application/grpc" not in str(match.get("headers"))] == []


def test_no_answer_leads_to_the_host_that_a_caller_names(configuration: Any) -> None:
    """Envoy makes its own redirects absolute, with the request's Host."""
    assert [route for route in routes(configuration) if "redirect" in route] == []


def test_replies_have_reasons_of_their_own() -> None:
    assert len({reply.http for reply in REPLIES}) == len(REPLIES)
    assert {408, 413, 429, 431} <= {reply.http for reply in REPLIES}
