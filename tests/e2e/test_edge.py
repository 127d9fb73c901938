"""What the door itself promises, whoever stands behind it."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

import grpc
import httpx
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deploy.local.layout import HOST, ROOT
from signgate.common.v1 import policy_pb2
from signgate.keys.v1 import keys_pb2, keys_pb2_grpc, validation_pb2, validation_pb2_grpc
from signgate.quota.v1 import enforcement_pb2, enforcement_pb2_grpc
from tests.conftest import Running

"""How many streams the signer takes of one key."""
ORIGIN = "https://console.example"


def internal_methods() -> list[str]:
    """The path of every method whose policy says that only our own services may call it."""
    files = descriptor_pb2.FileDescriptorSet.FromString((ROOT / "gen/signgate.binpb").read_bytes())
    return [
        f"/{file.package}.{service.name}/{method.name}"
        for file in files.file
        for service in file.service
        for method in service.method
        if method.options.Extensions[policy_pb2.policy].access == policy_pb2.ACCESS_INTERNAL
    ]


def empty_call(channel: grpc.Channel, path: str) -> bytes:
    """Call any method with an empty message."""
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path, bytes, bytes)
    return call(b"", timeout=5)


@pytest.fixture
def http(running: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=running.edge_url, timeout=10) as client:
        yield client


@pytest.fixture
def channel(running: Running) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(running.edge) as channel:
        yield channel


class TestInside:
    """What must not be reachable through the door."""

    @pytest.mark.parametrize("path", internal_methods())
    def test_internal_methods_by_grpc(self, channel: grpc.Channel, path: str) -> None:
        with pytest.raises(grpc.RpcError) as refused:
            empty_call(channel, path)
        assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED

    @pytest.mark.parametrize("path", internal_methods())
    @pytest.mark.parametrize("kind", ["application/grpc-web+proto", "application/json", "application/grpc"])
    def test_internal_methods_by_http(self, http: httpx.Client, path: str, kind: str) -> None:
        answer = http.post(path, content=b"\0\0\0\0\0", headers={"content-type": kind})
        assert answer.status_code == 404 or answer.headers["grpc-status"] == "12"

    @pytest.mark.parametrize(
        "disguise",
        [
            "//signgate.keys.v1.KeyValidationService/ValidateKeys",
            "/x/../signgate.keys.v1.KeyValidationService/ValidateKeys",
            "/signgate.keys.v1.KeysService/../signgate.keys.v1.KeyValidationService/ValidateKeys",
            "/signgate.keys.v1.KeysService/%2e%2e/signgate.keys.v1.KeyValidationService/ValidateKeys",
            "/signgate.keys.v1.KeysService%2F..%2Fsigngate.keys.v1.KeyValidationService/ValidateKeys",
        ],
    )
    def test_internal_methods_in_disguise(self, running: Running, disguise: str) -> None:
        """Sent as they stand: an HTTP client would tidy the path first."""
        head = f"POST {disguise} HTTP/1.1\r\nhost: edge\r\ncontent-type: application/grpc-web+proto\r\n"
        with socket.create_connection((HOST, running.layout.port("edge")), timeout=5) as raw:
            raw.sendall(f"{head}content-length: 5\r\nconnection: close\r\n\r\n".encode() + b"\0\0\0\0\0")
            answer = b"".join(iter(lambda: raw.recv(65536), b"")).decode("latin-1")
        assert re.match(r"HTTP/1.1 (400|404) ", answer), answer[:200]

    def test_the_same_internal_methods_answer_behind_the_door(self, running: Running) -> None:
        """Or else the tests above would pass for a service that is not there."""
        with grpc.insecure_channel(running.target("keys")) as inside:
            keys = validation_pb2_grpc.KeyValidationServiceStub(inside)
            credential = running.credential("signer", "keys")
            keys.ValidateKeys(validation_pb2.ValidateKeysRequest(), timeout=5, metadata=(credential,))
        with grpc.insecure_channel(running.target("quota")) as inside:
            quota = enforcement_pb2_grpc.QuotaEnforcementServiceStub(inside)
            credential = running.credential("signer", "quota")
            quota.Consume(enforcement_pb2.ConsumeRequest(), timeout=5, metadata=(credential,))

    def test_health_and_reflection(self, channel: grpc.Channel) -> None:
        with pytest.raises(grpc.RpcError) as health:
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)  # type: ignore[attr-defined]
        assert health.value.code() == grpc.StatusCode.UNIMPLEMENTED
        reflect = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
        for version in (reflect, reflect.replace("v1alpha", "v1")):
            with pytest.raises(grpc.RpcError) as reflection:
                list(channel.stream_stream(version, bytes, bytes)(iter([b""]), timeout=5))
            assert reflection.value.code() == grpc.StatusCode.UNIMPLEMENTED

    @pytest.mark.parametrize("path", ["/metrics", "/stats", "/config_dump", "/ready", "/v1", "/v1/nothing"])
    def test_other_paths(self, http: httpx.Client, path: str) -> None:
        answer = http.get(path)
        assert answer.status_code == 404
        assert answer.json()["reason"] == "NO_SUCH_PATH"

    def test_the_admin_interface_says_nothing_through_the_door(
        self, http: httpx.Client, running: Running
    ) -> None:
        assert httpx.get(f"{running.admin_url}/server_info").status_code == 200
        assert http.get("/server_info").status_code == 404

    def test_every_face_of_every_service_is_asked_whether_it_is_ready(self, running: Running) -> None:
        faces = ["auth", "keys", "quota", "signer", "logger", "auth_http", "signer_http"]

        def healthy() -> bool:
            stats = httpx.get(f"{running.admin_url}/stats?format=json&filter=^cluster").json()["stats"]
            found = {one["name"]: one["value"] for one in stats if "value" in one}
            return all(
                found[f"cluster.{face}.health_check.success"]
                and found[f"cluster.{face}.membership_healthy"] == found[f"cluster.{face}.membership_total"]
                for face in faces
            )

        running.eventually(healthy, 30, "every face to be ready")


class TestErrors:
    """What a REST caller gets when something is wrong: one form, whoever refuses."""

    def test_a_services_refusal(self, http: httpx.Client) -> None:
        answer = http.get("/v1/keys")
        assert answer.status_code == 401
        body = answer.json()
        assert body["code"] == grpc.StatusCode.UNAUTHENTICATED.value[0]
        assert body["status"] == "UNAUTHENTICATED"
        details = [item for item in body["details"] if item["@type"].endswith("google.rpc.ErrorInfo")]
        assert body["reason"] == details[0]["reason"]
        assert details[0]["domain"] == "signgate"
        assert body["message"]

    def test_a_body_that_is_not_json(self, http: httpx.Client) -> None:
        answer = http.post("/v1/verify", content="{nonsense", headers={"content-type": "application/json"})
        assert answer.status_code == 400
        assert answer.json()["reason"] == "MALFORMED_REQUEST"

    def test_an_unknown_query_parameter_is_named(self, http: httpx.Client) -> None:
        answer = http.get("/v1/engines", params={"nonsense": "1"})
        assert answer.status_code == 400
        assert "nonsense" in answer.json()["message"]

    def test_a_service_that_is_down(
        self, running: Running, http: httpx.Client, channel: grpc.Channel
    ) -> None:
        """Told at once, as UNAVAILABLE, without a word about the inside; and well again by itself."""
        running.stack.stop("quota")
        try:
            rest = http.get("/v1/quota")
            with pytest.raises(grpc.RpcError) as refused:
                empty_call(channel, "/signgate.quota.v1.QuotaService/GetQuota")
        finally:
            running.stack.start("quota")
        assert rest.status_code == 503
        assert rest.headers["retry-after"] == "1"
        assert (rest.json()["code"], rest.json()["reason"]) == (14, "SERVICE_UNAVAILABLE")
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
        for words in (rest.text, str(refused.value.details())):
            assert not re.search(r"upstream|127\.0\.0\.1|connect", words)
        running.eventually(lambda: http.get("/v1/quota").status_code == 401, 30, "quota to be back")

    def test_no_answer_names_what_it_runs_on(self, http: httpx.Client) -> None:
        for path in ("/v1/keys", "/nothing", "/auth/v1/health", "/healthz"):
            headers = http.get(path).headers
            assert headers["server"] == "signgate"
            assert not [name for name in headers if name.startswith("x-envoy-") and "health" not in name]


class TestLimits:
    def test_a_body_beyond_a_mebibyte(self, http: httpx.Client) -> None:
        for path in ("/v1/sign", "/auth/v1/signup", "/webcast/sign_url"):
            answer = http.post(
                path, content=b" " * (1024 * 1024 + 1), headers={"content-type": "application/json"}
            )
            assert answer.status_code == 413, path
            assert answer.json()["reason"] == "BODY_TOO_LARGE"

    def test_headers_beyond_16_kib(self, http: httpx.Client) -> None:
        assert http.get("/v1/engines", headers={"x-filler": "x" * 17_000}).status_code == 431

    def test_more_than_a_hundred_headers(self, http: httpx.Client) -> None:
        assert http.get("/v1/engines", headers={f"x-{n}": "x" for n in range(101)}).status_code == 431

    def test_a_message_that_is_too_long_for_grpc(self, channel: grpc.Channel) -> None:
        stub = keys_pb2_grpc.KeysServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.CreateKey(keys_pb2.CreateKeyRequest(name="x" * 9_000_000), timeout=10)
        assert refused.value.code() in {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE}

    def test_headers_that_never_end(self, running: Running) -> None:
        """A caller that trickles its headers is let go after ten seconds."""
        with socket.create_connection((HOST, running.layout.port("edge")), timeout=20) as raw:
            raw.sendall(b"GET /v1/engines HTTP/1.1\r\nhost: edge\r\nx-slow: ")
            answer = raw.recv(65536)
        assert answer.startswith(b"HTTP/1.1 408 ")


class TestRequestIds:
    def test_the_edge_makes_one_and_tells_it(self, http: httpx.Client) -> None:
        first, second = (http.get("/v1/engines").headers["x-request-id"] for _ in range(2))
        assert re.fullmatch(r"[0-9a-f-]{36}", first)
        assert first != second

    def test_a_callers_own_is_not_kept(self, http: httpx.Client) -> None:
        forged = "11111111-1111-4111-8111-111111111111"
        assert http.get("/v1/engines", headers={"x-request-id": forged}).headers["x-request-id"] != forged

    def test_the_log_has_the_id_and_never_the_query(self, running: Running, http: httpx.Client) -> None:
        """Keys and one-time tokens may stand in a query."""
        answer = http.get("/webcast/rate_limits", params={"apiKey": "sgk_live_canary-in-a-query"})
        request_id = answer.headers["x-request-id"]
        running.eventually(lambda: request_id in running.log("envoy"), 30, "the access log")
        assert "canary-in-a-query" not in running.log("envoy")


class TestBrowsers:
    """Pages of any origin may call: credentials travel in headers, never in cookies."""

    @pytest.mark.parametrize(
        ("path", "method", "header"),
        [
            ("/signgate.signer.v1.SignerService/Sign", "POST", "x-grpc-web"),
            ("/v1/keys/x", "PATCH", "authorization"),
            ("/v1/keys", "POST", "idempotency-key"),
            ("/v1/sign", "POST", "x-api-key"),
            ("/auth/v1/user", "PUT", "apikey"),
            ("/auth/v1/token", "POST", "x-supabase-api-version"),
        ],
    )
    def test_preflight(self, http: httpx.Client, path: str, method: str, header: str) -> None:
        answer = http.options(
            path,
            headers={
                "origin": ORIGIN,
                "access-control-request-method": method,
                "access-control-request-headers": header,
            },
        )
        assert answer.status_code in {200, 204}
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert method in answer.headers["access-control-allow-methods"]
        assert header in answer.headers["access-control-allow-headers"]
        assert "access-control-allow-credentials" not in answer.headers

    @pytest.mark.parametrize("path", ["/v1/engines", "/v1/keys", "/auth/v1/health", "/nothing"])
    def test_answers_and_errors_can_be_read(self, http: httpx.Client, path: str) -> None:
        answer = http.get(path, headers={"origin": ORIGIN})
        assert answer.headers.get_list("access-control-allow-origin") == [ORIGIN]
        exposed = answer.headers["access-control-expose-headers"]
        for header in ("grpc-status", "grpc-status-details-bin", "ratelimit-remaining", "retry-after"):
            assert header in exposed


class TestFaces:
    def test_healthz_needs_no_credential(self, http: httpx.Client) -> None:
        assert http.get("/healthz").status_code == 200

    def test_auth(self, http: httpx.Client) -> None:
        assert http.get("/auth/v1/.well-known/jwks.json").json()["keys"]

    def test_a_path_that_only_begins_alike_is_not_routed(self, http: httpx.Client) -> None:
        for path in ("/auth/v12/health", "/webcastle/sign_url", "/accounts/me/rate_limits_of_others"):
            assert http.get(path).json()["reason"] == "NO_SUCH_PATH", path

    @pytest.mark.parametrize(
        "path", ["/accounts/me/rate_limits", "/accounts/me/rate_limits/", "/webcast/rate_limits"]
    )
    def test_signer(self, http: httpx.Client, path: str) -> None:
        answer = http.get(path)
        assert answer.status_code == 401
        assert answer.json()["code"] == 401
