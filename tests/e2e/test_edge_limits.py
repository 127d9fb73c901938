"""What strangers may hold of the edge: nothing that others need, and no more than their share."""

from __future__ import annotations

import json
import socket
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.rpc import error_details_pb2, status_pb2

from deploy.local.layout import HOST
from deploy.settings import table
from signgate.signer.v1 import signer_pb2, signer_pb2_grpc
from tests.conftest import Running
from tests.e2e.conftest import Account
from tests.e2e.http2 import HEADERS, RST_STREAM, Connection
from tests.e2e.own_edge import OwnEdge, edge_of, own_edge

GRPC = {"content-type": "application/grpc", "te": "trailers"}
WEB = {"content-type": "application/grpc-web+proto"}
JSON = {"content-type": "application/json"}
SIGN = "/signgate.signer.v1.SignerService/Sign"
STREAM = "/signgate.signer.v1.SignerService/SignStream"
UNARY = [
    pytest.param(SIGN, GRPC, id="gRPC"),
    pytest.param(SIGN, WEB, id="gRPC-web"),
    pytest.param("/v1/sign", JSON, id="REST"),
    pytest.param("/webcast/sign_url", JSON, id="sign-server face"),
    pytest.param("/signgate.usage.v1.UsageService/GetUsage", GRPC, id="logger"),
    pytest.param("/auth/v1/otp", JSON, id="auth"),
]
ROOM = "https://www.tiktok.com/@someone/live"
STREAMS_BY_KEY = 32
LONG = 60.0
"""Seconds after which a test gives up."""


@pytest.fixture
def connections() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def attack(
    running: Running,
    held: ExitStack,
    path: str,
    headers: dict[str, str],
    *,
    body: bytes = b"",
    streams: int = 256,
) -> None:
    """17 connections, each from another address, that open calls and do not end them."""
    for number in range(17):
        connection = Connection.to((HOST, running.layout.port("edge")), f"127.0.66.{number + 1}")
        held.callback(connection.close)
        for _ in range(streams):
            connection.open(path, headers, body=body)


def in_flight(running: Running) -> int:
    return stat(running, "http.edge.downstream_rq_active")


def stat(running: Running, name: str) -> int:
    answer = httpx.get(f"{running.admin_url}/stats", params={"format": "json", "filter": f"^{name}$"})
    return int(sum(one["value"] for one in answer.json()["stats"] if "value" in one))


def sign(running: Running, account: Account, times: int) -> list[int]:
    """A victim's statuses, from an address of its own."""
    with httpx.Client(base_url=running.edge_url, headers={"x-api-key": account.key}, timeout=LONG) as victim:
        return [victim.post("/v1/sign", json={"roomUrl": ROOM}).status_code for _ in range(times)]


class TestHeldOpen:
    """A call takes of a cluster only what is needed to answer it, and only when it can be answered."""

    @pytest.mark.parametrize(("path", "headers"), UNARY)
    def test_calls_without_an_end_hold_nothing_that_others_need(
        self, running: Running, account: Account, connections: ExitStack, path: str, headers: dict[str, str]
    ) -> None:
        running.eventually(lambda: sign(running, account, 1) == [200], 30, "the victim to be served")
        attack(running, connections, path, headers)
        let_in = min(64, table().edge.accounts_per_address if path.startswith("/auth/") else 64)
        running.eventually(lambda: in_flight(running) >= 17 * let_in, 30, "the calls to be held by the edge")
        assert sign(running, account, 20) == [200] * 20
        for cluster in ("signer", "signer_http", "logger", "auth_http"):
            assert stat(running, f"cluster.{cluster}.upstream_rq_pending_overflow") == 0

    def test_what_is_begun_holds_nothing_either(
        self, running: Running, account: Account, connections: ExitStack
    ) -> None:
        attack(running, connections, SIGN, GRPC, body=b"\0\0\0\0\x20half", streams=100)
        running.eventually(lambda: in_flight(running) >= 17 * 64, 30, "the calls to be held by the edge")
        assert stat(running, "cluster.signer.upstream_rq_active") == 0
        assert sign(running, account, 20) == [200] * 20

    def test_streams_take_nothing_from_other_calls(
        self, running: Running, account: Account, connections: ExitStack
    ) -> None:
        attack(running, connections, STREAM, GRPC)
        assert sign(running, account, 20) == [200] * 20
        assert stat(running, "cluster.signer_streams.upstream_rq_total") > 0

    @pytest.mark.parametrize("method", ["Sign", "ListEngines", "usage.v1.UsageService/ExportUsage"])
    @pytest.mark.parametrize("headers", [GRPC, WEB], ids=["gRPC", "gRPC-web"])
    @pytest.mark.parametrize(
        "body", [b"", b"\0", b"\0\0\0\0\5ab", b"\0\0\0\0\0\0\0\0\0\0"], ids=["none", "torn", "short", "two"]
    )
    def test_a_request_that_ends_without_a_message_is_refused_at_once(
        self, running: Running, connections: ExitStack, method: str, headers: dict[str, str], body: bytes
    ) -> None:
        """gRPC's asyncio server never answers it: 4,096 of them would hold a cluster until they time out."""
        path = f"/signgate.{method}" if "/" in method else f"/signgate.signer.v1.SignerService/{method}"
        connection = Connection.to((HOST, running.layout.port("edge")))
        connections.callback(connection.close)
        before = sum(
            stat(running, f"cluster.{name}.upstream_rq_total") for name in ("signer", "logger_streams")
        )
        number = connection.open(path, headers, body=body, end=True)
        end = time.monotonic() + LONG
        received: list[tuple[int, int, bytes]] = []
        while not [1 for kind, of, _ in received if of == number and kind in {HEADERS, RST_STREAM}]:
            assert time.monotonic() < end
            received += connection.received(0.1)
        after = sum(
            stat(running, f"cluster.{name}.upstream_rq_total") for name in ("signer", "logger_streams")
        )
        assert after == before

    def test_a_large_request_by_each_way_is_one_message(self, running: Running) -> None:
        """In however many pieces it comes."""
        url = "x" * 100_000
        asked = signer_pb2.VerifySignatureRequest(signed_url=url)
        with grpc.insecure_channel(running.edge) as channel:
            answer = signer_pb2_grpc.SignerServiceStub(channel).VerifySignature(asked, timeout=LONG)
        message = asked.SerializeToString()
        framed = b"\0" + len(message).to_bytes(4) + message
        with httpx.Client(base_url=running.edge_url, timeout=LONG) as caller:
            web = caller.post(
                "/signgate.signer.v1.SignerService/VerifySignature", content=framed, headers=WEB
            )
            rest = caller.post("/v1/verify", json={"signedUrl": url})
        assert not answer.valid
        assert (web.status_code, rest.status_code) == (200, 200)
        assert b"grpc-status:0" in web.content
        assert rest.json()["valid"] is False

    def test_4352_requests_without_a_message_hold_nothing(
        self, running: Running, account: Account, connections: ExitStack
    ) -> None:
        for number in range(44):
            connection = Connection.to((HOST, running.layout.port("edge")), f"127.0.68.{number + 1}")
            connections.callback(connection.close)
            for _ in range(99):
                connection.open(SIGN, GRPC, end=True)
        assert sign(running, account, 20) == [200] * 20


TWO = {"requests_per_address": 2, "files_per_address": 2, "accounts_per_address": 2}


@pytest.fixture(scope="module")
def tight(running: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnEdge]:
    """An edge with two seconds for a request.

    An address may have eight connections, and in flight five requests, or two of the console's files, or one
    of the accounts' face.
    """
    folder = tmp_path_factory.mktemp("tight")
    edge = edge_of(
        running,
        folder,
        requests_per_address=5,
        files_per_address=2,
        accounts_per_address=1,
        connections_per_address=8,
        request_seconds=2,
    )
    with own_edge(edge, folder) as found:
        yield found


@pytest.fixture(scope="module")
def balanced(running: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnEdge]:
    """An edge behind a load balancer, with two requests an address."""
    folder = tmp_path_factory.mktemp("balanced")
    edge = edge_of(running, folder, connections_per_address=1, trusted_hops=1, **TWO)
    with own_edge(edge, folder) as found:
        yield found


def client(edge: OwnEdge, source: str, **options: Any) -> httpx.Client:
    transport = httpx.HTTPTransport(local_address=source)
    return httpx.Client(base_url=edge.url, transport=transport, timeout=LONG, **options)


class TestByAddress:
    def test_the_sixth_request_in_flight_is_refused_in_each_callers_form(
        self, tight: OwnEdge, connections: ExitStack
    ) -> None:
        before = in_flight_of(tight)
        holder = Connection.to(tight.address, "127.0.0.2")
        connections.callback(holder.close)
        for _ in range(5):
            holder.open("/v1/sign", JSON)
        Running.eventually(lambda: in_flight_of(tight) == before + 5, 10, "five requests to be in flight")
        with client(tight, "127.0.0.2") as same:
            rest = same.get("/v1/engines", headers={"origin": "https://a.example"})
            face = same.get("/webcast/rate_limits")
            page = same.get("/console/")
            web = same.post(SIGN, content=b"\0\0\0\0\0", headers=WEB)
        assert [answer.status_code for answer in (rest, face, page, web)] == [429, 429, 429, 429]
        assert (rest.json()["status"], rest.json()["reason"]) == ("RESOURCE_EXHAUSTED", "TOO_MANY_IN_FLIGHT")
        assert rest.json()["code"] == 8
        assert rest.headers["access-control-allow-origin"] == "https://a.example"
        assert (face.json()["code"], face.json()["reason"]) == (429, "TOO_MANY_IN_FLIGHT")
        assert {answer.headers["retry-after"] for answer in (rest, face, page)} == {"1"}
        assert web.headers["grpc-status"] == "8"
        assert reason(web.headers["grpc-status-details-bin"]) == "TOO_MANY_IN_FLIGHT"
        with client(tight, "127.0.0.3") as other:
            assert other.get("/v1/engines").status_code == 200
        holder.close()
        with client(tight, "127.0.0.2") as same:
            Running.eventually(
                lambda: same.get("/v1/engines").status_code == 200, 10, "the address to be served again"
            )

    @pytest.mark.parametrize(
        ("path", "fits"),
        [("/console/", 2), ("/auth/v1/openapi.json", 1), ("/signgate.auth.v1.AuthService/GetJwks", 1)],
    )
    def test_what_costs_more_counts_for_more(
        self, tight: OwnEdge, connections: ExitStack, path: str, fits: int
    ) -> None:
        """Of five; answers that are not read are in flight. All of it is given back."""
        before = in_flight_of(tight)
        holder = Connection.to(tight.address, "127.0.0.8", window=0)
        connections.callback(holder.close)
        for _ in range(fits):
            holder.open(path, {}, end=True, method="GET")
        Running.eventually(lambda: in_flight_of(tight) == before + fits, 10, "as many as fit to be in flight")
        with client(tight, "127.0.0.8") as same:
            assert same.get(path).status_code == 429
            assert same.get("/v1/engines").status_code == (200 if fits == 2 else 429)
            holder.close()
            Running.eventually(
                lambda: same.get(path).status_code != 429, 10, "the address to be served again"
            )
            for _ in range(5):
                assert same.get("/v1/engines").status_code == 200

    def test_a_grpc_caller_is_told_as_by_a_service(self, tight: OwnEdge, connections: ExitStack) -> None:
        before = in_flight_of(tight)
        holder = Connection.to(tight.address, HOST)
        connections.callback(holder.close)
        for _ in range(5):
            holder.open(SIGN, GRPC)
        Running.eventually(lambda: in_flight_of(tight) == before + 5, 10, "five requests to be in flight")
        with grpc.insecure_channel(tight.target) as channel, pytest.raises(grpc.RpcError) as refused:
            signer = signer_pb2_grpc.SignerServiceStub(channel)
            signer.ListEngines(signer_pb2.ListEnginesRequest(), timeout=LONG)
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        metadata = {one.key: one.value for one in refused.value.trailing_metadata() or ()}
        status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
        assert told(status) == "TOO_MANY_IN_FLIGHT"
        assert str(metadata["retry-after"]) == "1"

    def test_connections_beyond_the_limit_are_closed(self, tight: OwnEdge, connections: ExitStack) -> None:
        for _ in range(8):
            raw = socket.create_connection(tight.address, timeout=LONG, source_address=("127.0.0.4", 0))
            connections.callback(raw.close)
        Running.eventually(
            lambda: tight.stat("http.edge.downstream_cx_active") >= 8, 10, "eight connections to be there"
        )
        with client(tight, "127.0.0.4") as ninth, pytest.raises(httpx.TransportError):
            ninth.get("/healthz")
        with client(tight, "127.0.0.5") as other:
            assert other.get("/healthz").status_code == 200
        connections.close()

        def again() -> bool:
            with client(tight, "127.0.0.4") as later:
                try:
                    return later.get("/healthz").status_code == 200
                except httpx.TransportError:
                    return False

        Running.eventually(again, 10, "the address to be let in again")

    @pytest.mark.parametrize(
        ("holder", "same", "other"),
        [
            ("203.0.113.7", "203.0.113.7", "203.0.113.8"),
            ("203.0.113.7", "::ffff:203.0.113.7", "::ffff:203.0.113.8"),
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:3::1"),
            ("2001:db8::1", "2001:db8:0:0:9::", "2001:db8:0:1::1"),
            ("2001:0:0:5::", "2001:0:0:5:6:7:8:9", "2001:0:5::"),
            ("::1:2:3:4:5:6", "0:0:1:2:7:7:7:7", "0:0:1:3::"),
        ],
    )
    def test_behind_a_load_balancer_the_address_is_the_one_it_names(
        self, balanced: OwnEdge, connections: ExitStack, holder: str, same: str, other: str
    ) -> None:
        """One count for an IPv4 address in either form, and for a /64."""
        before = in_flight_of(balanced)
        held = Connection.to(balanced.address)
        connections.callback(held.close)
        for _ in range(2):
            held.open("/v1/sign", JSON | {"x-forwarded-for": holder})
        Running.eventually(lambda: in_flight_of(balanced) == before + 2, 10, "two requests to be in flight")
        with client(balanced, "127.0.0.6") as balancer:
            statuses = [
                balancer.get("/v1/engines", headers={"x-forwarded-for": address}).status_code
                for address in (same, other)
            ]
        assert statuses == [429, 200]
        held.close()
        Running.eventually(lambda: in_flight_of(balanced) <= before, 10, "the requests to be gone")

    def test_a_connection_carries_100_calls_at_once(
        self, running: Running, tmp_path: Path, new_account: Callable[[], Account]
    ) -> None:
        """The next one waits until one of them ends."""
        done = threading.Event()

        def silence() -> Iterator[signer_pb2.SignStreamRequest]:
            done.wait(60)
            yield from ()

        edge = edge_of(running, tmp_path, streams_opened_at_once=200)
        with own_edge(edge, tmp_path) as found, grpc.insecure_channel(found.target) as channel:
            signer = signer_pb2_grpc.SignerServiceStub(channel)
            keys = [new_account().key for _ in range(-(-100 // STREAMS_BY_KEY))]
            streams: list[Any] = [
                signer.SignStream(silence(), metadata=(("x-api-key", key),))
                for key in keys
                for _ in range(100 // len(keys))
            ]
            try:
                with pytest.raises(grpc.RpcError) as waited:
                    signer.ListEngines(signer_pb2.ListEnginesRequest(), timeout=2)
                assert waited.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
                streams[0].cancel()
                assert signer.ListEngines(signer_pb2.ListEnginesRequest(), timeout=10).engines
            finally:
                done.set()
                for stream in streams:
                    stream.cancel()

    def test_a_back_end_with_1024_callers_is_served(self, running: Running, connections: ExitStack) -> None:
        """All from one address, each with a connection, at the same time."""
        callers = []
        for _ in range(1024):
            raw = socket.create_connection((HOST, running.layout.port("edge")), timeout=LONG)
            connections.callback(raw.close)
            callers.append(raw)
        for raw in callers:
            raw.sendall(b"GET /v1/engines HTTP/1.1\r\nhost: edge\r\n\r\n")
        statuses = {raw.recv(65536)[:12] for raw in callers}
        assert statuses == {b"HTTP/1.1 200"}


def in_flight_of(edge: OwnEdge) -> int:
    return edge.stat("http.edge.downstream_rq_active")


def reason(details: str) -> str:
    return told(status_pb2.Status.FromString(b64decode(details + "=" * (-len(details) % 4))))


def told(status: status_pb2.Status) -> str:
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "signgate"
    return str(info.reason)


class TestTime:
    """A request that does not arrive is answered 408, whatever its path."""

    @pytest.mark.parametrize(
        "path",
        ["/v1/sign", "/auth/v1/otp", "/webcast/sign_url", "/v1/usage:export", "/nothing", SIGN, STREAM],
    )
    def test_a_body_that_drips(self, tight: OwnEdge, path: str) -> None:
        """A byte now and then keeps no request alive."""
        kind = "application/grpc" if path.startswith("/signgate") else "application/json"
        with socket.create_connection(tight.address, timeout=LONG, source_address=("127.0.0.7", 0)) as raw:
            head = f"POST {path} HTTP/1.1\r\nhost: edge\r\ncontent-type: {kind}\r\n"
            raw.sendall(f"{head}content-length: 400\r\n\r\n".encode())
            answer = drip(raw)
        status, _, rest = answer.partition(b"\r\n")
        if path == STREAM:
            assert b"grpc-status: " in rest, answer  # the service refuses it, or what drips
        elif kind == "application/grpc":
            assert b"grpc-status: 4" in rest, answer
        else:
            assert status.startswith(b"HTTP/1.1 408 "), answer
            body = json.loads(answer.partition(b"\r\n\r\n")[2])
            assert body["reason"] == "REQUEST_TIMEOUT"

    def test_a_body_that_arrives_in_time_is_served(self, tight: OwnEdge) -> None:
        with client(tight, "127.0.0.8") as caller:
            assert caller.post("/v1/verify", json={"signedUrl": "x"}).status_code != 408

    def test_a_stream_that_was_answered_goes_on(self, tight: OwnEdge, account: Account) -> None:
        """The time for a request is not the time for a stream."""
        questions = threading.Event()

        def asked() -> Iterator[signer_pb2.SignStreamRequest]:
            yield signer_pb2.SignStreamRequest(tag=1, request=signer_pb2.SignRequest(room_url=ROOM))
            questions.wait(LONG)
            yield signer_pb2.SignStreamRequest(tag=2, request=signer_pb2.SignRequest(room_url=ROOM))

        with grpc.insecure_channel(tight.target) as channel:
            stream = signer_pb2_grpc.SignerServiceStub(channel).SignStream(
                asked(), metadata=(("x-api-key", account.key),)
            )
            answers = [next(stream).tag]
            time.sleep(4)  # twice what a request has
            questions.set()
            answers += [answer.tag for answer in stream]
        assert answers == [1, 2]


def drip(raw: socket.socket) -> bytes:
    """Send a byte every 0.2 s until there is an answer, then read it whole."""
    end = time.monotonic() + LONG
    raw.settimeout(0.2)
    while time.monotonic() < end:
        try:
            begun = raw.recv(65536)
        except TimeoutError:
            raw.sendall(b" ")
            continue
        raw.settimeout(2)
        try:
            while more := raw.recv(65536):
                begun += more
        except (TimeoutError, ConnectionError):
            pass
        return begun
    pytest.fail("no answer")


def test_probes_and_metrics_get_in_when_strangers_fill_the_edge(
    running: Running, tmp_path: Path, connections: ExitStack
) -> None:
    with own_edge(edge_of(running, tmp_path, connections=10), tmp_path) as edge:
        for number in range(10):
            source = (f"127.0.67.{number}", 0)
            raw = socket.create_connection(edge.address, timeout=LONG, source_address=source)
            connections.callback(raw.close)
        Running.eventually(lambda: edge.stat("http.edge.downstream_cx_active") >= 10, 10, "ten connections")
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{edge.url}/healthz", timeout=LONG)
        assert httpx.get(f"http://{HOST}:{edge.metrics}/healthz", timeout=LONG).status_code == 200
        assert "envoy_" in httpx.get(f"http://{HOST}:{edge.metrics}/metrics", timeout=LONG).text
