"""One request is one trace, from the edge to the logger's insert, and one id in the logs of all services.

On a stack of its own: each of its requests is traced, and its services tell of each call (`debug`).
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import grpc
import httpx
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as collector_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2

from deploy.local.layout import HOST
from deploy.settings import Tracing, table
from tests.conftest import Running, free_layout, serving
from tests.e2e.conftest import Account, make_account

SIGN = "signgate.signer.v1.SignerService/Sign"
VALIDATE = "signgate.keys.v1.KeyValidationService/ValidateKeys"
CONSUME = "signgate.quota.v1.QuotaEnforcementService/Consume"
SETTLE = "signgate.quota.v1.QuotaEnforcementService/Settle"
Span = trace_pb2.Span
Kind = trace_pb2.Span.SpanKind


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Stands in for an OpenTelemetry collector: takes OTLP over gRPC, and keeps what comes."""

    def __init__(self) -> None:
        self.received: list[tuple[str, Span]] = []
        self.raw = b""

    def Export(
        self, request: collector_pb2.ExportTraceServiceRequest, context: Any
    ) -> collector_pb2.ExportTraceServiceResponse:
        for of_service in request.resource_spans:
            names = {a.key: a.value.string_value for a in of_service.resource.attributes}
            spans = [span for scope in of_service.scope_spans for span in scope.spans]
            self.received += [(names["service.name"], span) for span in spans]
        self.raw += request.SerializeToString()
        return collector_pb2.ExportTraceServiceResponse()


@dataclass
class Trace:
    """The spans of one trace, with whose they are."""

    spans: Mapping[bytes, tuple[str, Span]]

    def lines(self) -> set[str]:
        """Each span as the way to it from the trace's first one: `edge: … > signer: …`."""
        return {self._line(span_id) for span_id in self.spans}

    def _line(self, span_id: bytes) -> str:
        service, span = self.spans[span_id]
        here = f"{service}: {span.name}"
        if not span.parent_span_id:
            return here
        assert span.parent_span_id in self.spans, f"{here} has a parent that is not there"
        return f"{self._line(span.parent_span_id)} > {here}"

    def names(self) -> list[str]:
        return [f"{service}: {span.name}" for service, span in self.spans.values()]


@pytest.fixture(scope="module")
def collector() -> Iterator[tuple[Collector, int]]:
    kept = Collector()
    server = grpc.server(ThreadPoolExecutor(4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(kept, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port(f"{HOST}:0")
    server.start()
    yield kept, port
    server.stop(1).wait()


@pytest.fixture(scope="module")
def traced(collector: tuple[Collector, int]) -> Iterator[Running]:
    settings = {"SIGNGATE_LOG_LEVEL": "debug", "OTEL_BSP_SCHEDULE_DELAY": "200"}
    with free_layout() as plain:
        told = {name: {**plain.overrides.get(name, {}), **settings} for name in table().services}
        layout = replace(plain, overrides=told, tracing=Tracing(f"{HOST}:{collector[1]}", percent=100.0))
        with serving(layout) as found:
            yield found


@pytest.fixture(scope="module")
def account(traced: Running) -> Account:
    return make_account(traced)


def sign(traced: Running, account: Account, url: str = "@traced", **headers: str) -> str:
    """Have a URL signed, by REST; returns the request's id."""
    answer = httpx.post(
        f"{traced.edge_url}/v1/sign",
        json={"roomUrl": url},
        headers={"x-api-key": account.key, **headers},
        timeout=20,
    )
    assert answer.status_code == 200, answer.text
    return answer.headers["x-request-id"]


def traces(collector: tuple[Collector, int]) -> dict[str, Trace]:
    """All traces of signatures so far that have come to the insert, by the request's id."""
    by_trace: dict[bytes, dict[bytes, tuple[str, Span]]] = defaultdict(dict)
    for service, span in list(collector[0].received):
        by_trace[span.trace_id][span.span_id] = (service, span)
    found = {}
    for spans in by_trace.values():
        names = {span.name for _, span in spans.values()}
        ids = {
            attribute.value.string_value
            for service, span in spans.values()
            for attribute in span.attributes
            if service == "signer" and attribute.key == "signgate.request_id"
        }
        if {"ingest_usage", "settle usage", SIGN} <= names and "edge" in {
            service for service, _ in spans.values()
        }:
            (request_id,) = ids
            found[request_id] = Trace(spans)
    return found


def trace_of(traced: Running, collector: tuple[Collector, int], request_id: str, spans: int = 0) -> Trace:
    """Once it has come to the insert, and has so many spans: each process sends its own when it likes."""

    def look() -> Trace | None:
        trace = traces(collector).get(request_id)
        return trace if trace is not None and len(trace.spans) >= spans else None

    found = traced.eventually(look, 30, "a whole trace")
    assert found is not None
    return found


def test_a_signature_is_one_trace_from_the_edge_to_the_insert(
    traced: Running, collector: tuple[Collector, int], account: Account
) -> None:
    trace = trace_of(traced, collector, sign(traced, account), spans=14)
    (edge,) = [span.name for service, span in trace.spans.values() if service == "edge"]
    one = f"edge: {edge} > signer: {SIGN} > signer: sign a list"
    publish = f"{one} > signer: publish usage"
    assert trace.lines() == {
        f"edge: {edge}",
        f"edge: {edge} > signer: {SIGN}",
        one,
        f"{one} > signer: {VALIDATE}",
        f"{one} > signer: {VALIDATE} > keys: {VALIDATE}",
        f"{one} > signer: {CONSUME}",
        f"{one} > signer: {CONSUME} > quota: {CONSUME}",
        f"{one} > signer: engine native",
        publish,
        f"{publish} > logger: commit usage",
        f"{publish} > logger: commit usage > logger: ingest_usage",
        f"{publish} > logger: settle usage",
        f"{publish} > logger: settle usage > logger: {SETTLE}",
        f"{publish} > logger: settle usage > logger: {SETTLE} > quota: {SETTLE}",
    }
    kinds = {f"{service}: {span.name}": span.kind for service, span in trace.spans.values()}
    assert kinds[f"signer: {SIGN}"] == Kind.SPAN_KIND_SERVER
    assert kinds["signer: publish usage"] == Kind.SPAN_KIND_PRODUCER
    assert kinds["logger: commit usage"] == Kind.SPAN_KIND_CONSUMER


def test_requests_that_share_a_list_each_have_a_whole_trace(
    traced: Running, collector: tuple[Collector, int], account: Account
) -> None:
    """Copies of what is shared, with links to what they are copies of."""
    with ThreadPoolExecutor(24) as pool:
        ids = list(pool.map(lambda n: sign(traced, account, f"@shared{n}"), range(72)))
    found = [trace_of(traced, collector, one) for one in ids]
    linked = 0
    everything = {span.span_id for _, span in list(collector[0].received)}
    for trace in found:
        names = trace.names()
        for part in ("sign a list", VALIDATE, CONSUME, "engine native", "publish usage"):
            assert names.count(f"signer: {part}") == 1, part
        for part in ("commit usage", "ingest_usage", "settle usage"):
            assert f"logger: {part}" in names
        assert len(trace.lines()) == len(set(names)), "a span without its place"
        links = [link for _, span in trace.spans.values() for link in span.links]
        assert all(link.span_id in everything for link in links)
        linked += bool(links)
    assert linked, "no list was shared: the test proves nothing"


def test_a_stranger_does_not_choose_the_trace(
    traced: Running, collector: tuple[Collector, int], account: Account
) -> None:
    theirs = "0af7651916cd43dd8448eb211c80319c"
    forged = {"traceparent": f"00-{theirs}-b7ad6b7169203331-01", "x-client-trace-id": "mine"}
    trace_of(traced, collector, sign(traced, account, **forged))
    assert bytes.fromhex(theirs) not in {span.trace_id for _, span in collector[0].received}


def test_a_refusal_is_told_by_its_reason_alone(
    traced: Running, collector: tuple[Collector, int], account: Account
) -> None:
    answer = httpx.post(
        f"{traced.edge_url}/v1/sign",
        json={"roomUrl": "https://nowhere.test/"},
        headers={"x-api-key": account.key},
    )
    assert answer.status_code == 400

    def failed() -> list[Span]:
        spans = [span for service, span in collector[0].received if service == "signer" and span.name == SIGN]
        return [span for span in spans if span.status.code == trace_pb2.Status.STATUS_CODE_ERROR]

    span = traced.eventually(failed, 30, "the span of a refusal")[-1]
    told = {a.key: a.value.string_value for a in span.attributes}
    assert told["error.type"] == answer.json()["reason"]
    assert not span.status.message
    assert not span.events


def test_no_span_holds_a_secret_or_a_query(
    traced: Running, collector: tuple[Collector, int], account: Account
) -> None:
    before = len(collector[0].received)
    httpx.get(
        f"{traced.edge_url}/webcast/sign_url",
        params={"url": "https://www.tiktok.com/@q", "apiKey": account.key},
    )
    httpx.get(
        f"{traced.edge_url}/v1/quota", headers={"authorization": f"Bearer {account.session.access_token}"}
    )
    httpx.get(f"{traced.edge_url}/v1/usage", params={"page_token": "canary-in-a-query"})

    def seen() -> set[str]:
        return {service for service, _ in collector[0].received[before:]}

    traced.eventually(lambda: {"edge", "signer", "quota"} <= seen(), 30, "the spans of these requests")
    traced.eventually(lambda: b"/v1/usage" in collector[0].raw, 30, "the edge's span of the last one")
    for secret in (
        account.key,
        account.session.access_token,
        account.email,
        account.password,
        "canary-in-a-query",
    ):
        assert secret.encode() not in collector[0].raw
    assert b"apiKey" not in collector[0].raw
    assert b"tiktok.com" not in collector[0].raw


def told(traced: Running, part: str, request_id: str) -> list[dict[str, Any]]:
    """A part's lines with that id in them."""
    return [json.loads(line) for line in traced.log(part).splitlines() if request_id in line]


def test_one_id_is_in_the_logs_of_all_that_a_request_passed(traced: Running, account: Account) -> None:
    request_id = sign(traced, account)
    parts = ("envoy", "signer", "keys", "quota", "logger")
    for part in parts:
        traced.eventually(partial(told, traced, part, request_id), 30, f"the id in the log of {part}")
    lines = {part: told(traced, part, request_id) for part in parts}
    assert lines["envoy"][0]["path"] == "/v1/sign"
    assert {"served", "a list"} <= {line["event"] for line in lines["signer"]}
    assert any(line.get("rpc") == VALIDATE for line in lines["keys"])
    assert any(line.get("rpc") == CONSUME for line in lines["quota"])
    assert any(line["event"] == "committed" for line in lines["logger"])
    (trace_id,) = {line["trace_id"] for line in lines["envoy"]}
    assert re.fullmatch(r"[0-9a-f]{32}", trace_id)
    assert {line["trace_id"] for line in lines["signer"] if line["event"] == "a list"} <= {trace_id}
