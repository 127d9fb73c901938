"""The longest access token, among as many headers as the edge takes, is good on every face, every time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import grpc
import httpx
import pytest

from servicekit import headers
from signgate.auth.v1 import auth_pb2
from tests.conftest import Running
from tests.e2e.conftest import Account

TIMES = 25
SPARE = 1500
"""Bytes for what clients, gRPC and the request line add."""
FILLED = headers.EDGE - headers.TOKEN - SPARE
CALLS = [
    "/signgate.auth.v1.AuthService/GetUser",
    "/signgate.keys.v1.KeysService/ListKeys",
    "/signgate.quota.v1.QuotaService/GetQuota",
    "/signgate.usage.v1.UsageService/ListUsage",
    "/signgate.usage.v1.AlertService/ListAlerts",
    "/signgate.signer.v1.SignerService/ListEngines",
]
PATHS = ["/auth/v1/user", "/v1/keys", "/v1/quota", "/v1/usage", "/webcast/rate_limits"]
WEB = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1"}


@pytest.fixture(scope="module")
def token(running: Running, new_account: Callable[[], Account]) -> str:
    """As long as one gets by what its owner writes into the account."""
    session = new_account().session
    longest, refresh = session.access_token, session.refresh_token
    own = {"authorization": f"Bearer {session.access_token}"}
    with httpx.Client(base_url=f"{running.edge_url}/auth/v1", headers=own) as http:
        low, high = 0, headers.TOKEN // 3
        while low < high:
            length = (low + high + 1) // 2
            assert http.put("/user", json={"data": {"x": "語" * length}}).status_code == 200
            told = http.post("/token?grant_type=refresh_token", json={"refresh_token": refresh}).json()
            refresh, fresh = told["refresh_token"], told["access_token"]
            if len(fresh) > len(longest):
                longest, low = fresh, length
            else:  # it did not fit
                high = length - 1
    assert headers.TOKEN - 700 < len(longest) <= headers.TOKEN
    return longest


@pytest.fixture(scope="module")
def http(running: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=running.edge_url, timeout=20) as client:
        yield client


def much(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}", "x-fill": "f" * FILLED}


@pytest.mark.parametrize("path", CALLS)
def test_by_grpc(running: Running, token: str, path: str) -> None:
    """S13: from 5,200 bytes on some calls were RESOURCE_EXHAUSTED, by chance."""
    with grpc.insecure_channel(running.edge) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path, bytes, bytes)
        for _ in range(TIMES):
            call(b"", timeout=20, metadata=tuple(much(token).items()))


@pytest.mark.parametrize("path", CALLS)
def test_by_grpc_web(http: httpx.Client, token: str, path: str) -> None:
    answers = Counter(
        (answer.status_code, answer.headers.get("grpc-status", "0"))
        for answer in (http.post(path, content=b"\0" * 5, headers=WEB | much(token)) for _ in range(TIMES))
    )
    assert answers == {(200, "0"): TIMES}


@pytest.mark.parametrize("path", PATHS)
def test_by_rest_and_the_http_faces(http: httpx.Client, token: str, path: str) -> None:
    answers = Counter(http.get(path, headers=much(token)).status_code for _ in range(TIMES))
    assert answers == {200: TIMES}


def test_the_sign_server_face_with_a_key_in_the_query(http: httpx.Client, account: Account) -> None:
    filled = {"x-fill": "f" * (FILLED + headers.TOKEN)}
    path, key = "/webcast/rate_limits", {"apiKey": account.key}
    answers = Counter(http.get(path, params=key, headers=filled).status_code for _ in range(TIMES))
    assert answers == {200: TIMES}


@pytest.mark.parametrize("service", ["auth", "keys", "quota", "signer", "logger"])
def test_what_a_service_refuses_it_refuses_every_time(running: Running, service: str) -> None:
    """At its own port: nothing in between is refused by chance."""
    with grpc.insecure_channel(running.address(service, "grpc")) as channel:
        check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/grpc.health.v1.Health/Check", bytes, bytes
        )
        for _ in range(TIMES):
            check(b"", timeout=20, metadata=(("x-fill", "f" * (headers.SERVICE - SPARE)),))
            with pytest.raises(grpc.RpcError) as refused:
                check(b"", timeout=20, metadata=(("x-fill", "f" * (headers.SERVICE + 1)),))
            assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("path", PATHS)
def test_headers_over_the_limit_are_told_by_a_status_and_a_body_of_their_own(
    http: httpx.Client, path: str
) -> None:
    answer = http.get(path, headers={"x-fill": "f" * headers.EDGE})
    assert answer.status_code == 431
    assert answer.json()["reason"] == "HEADERS_TOO_LARGE"


def test_a_grpc_caller_over_the_limit_is_cut_off_every_time(running: Running) -> None:
    """Envoy answers nothing it could be told by: it ends the stream."""
    with grpc.insecure_channel(running.edge) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(CALLS[0], bytes, bytes)
        for _ in range(TIMES):
            with pytest.raises(grpc.RpcError) as refused:
                call(
                    auth_pb2.GetUserRequest().SerializeToString(), metadata=(("x-fill", "f" * headers.EDGE),)
                )
            assert refused.value.code() == grpc.StatusCode.INTERNAL
