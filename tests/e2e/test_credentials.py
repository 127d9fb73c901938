"""One credential, in any of its forms, on every face: by gRPC, gRPC-web, REST and the HTTP faces."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import httpx
import pytest
from google.rpc import status_pb2

from servicekit.rpc.status import DETAILS_KEY, from_status
from signgate.keys.v1 import keys_pb2
from signgate_client import Signgate
from tests.conftest import Running
from tests.e2e.conftest import Account

Headers = list[tuple[str, str]]
METHODS = {
    "auth": "/signgate.auth.v1.AuthService/GetUser",
    "keys": "/signgate.keys.v1.KeysService/ListKeys",
    "quota": "/signgate.quota.v1.QuotaService/GetQuota",
    "logger": "/signgate.usage.v1.UsageService/ListUsage",
    "signer": "/signgate.signer.v1.SignerService/Sign",
}
STREAM = "/signgate.signer.v1.SignerService/SignStream"
PATHS = ("/v1/keys", "/v1/quota", "/v1/usage", "/auth/v1/user", "/webcast/rate_limits")
Ask = Callable[[Headers], str]
"""The reason of a refusal, "" without one."""


@pytest.fixture(scope="module")
def accounts(new_account: Callable[[], Account], running: Running) -> tuple[Account, str, str]:
    """An account, and two keys of it that may do all that is asked here."""
    account, keys = new_account(), []
    scopes = ("sign", "quota:read", "usage:read", "keys:read", "profile:read")
    with Signgate(running.edge, access_token=account.session.access_token) as user:
        for name in ("one", "two"):
            made: keys_pb2.CreateKeyResponse = user.create_key(name, scopes=scopes)
            keys.append(made.secret)
    return account, keys[0], keys[1]


def by_grpc(channel: grpc.Channel, path: str) -> Ask:
    def ask(headers: Headers) -> str:
        request = b"\x0a\x06@alice" if path.endswith("/Sign") else b""
        try:
            if path == STREAM:
                list(channel.stream_stream(path, bytes, bytes)(iter([]), timeout=20, metadata=tuple(headers)))
            else:
                call: Any = channel.unary_unary(path, bytes, bytes)
                call(request, timeout=20, metadata=tuple(headers))
        except grpc.RpcError as error:
            trailing: Any = error.trailing_metadata() or ()
            return reason(dict(trailing).get(DETAILS_KEY, b""))
        return ""

    return ask


def reason(details: bytes | str) -> str:
    if isinstance(details, str):
        details = base64.b64decode(details + "=" * (-len(details) % 4))
    return from_status(status_pb2.Status.FromString(details)).reason


def by_web(http: httpx.Client, path: str) -> Ask:
    def ask(headers: Headers) -> str:
        kind = [("content-type", "application/grpc-web+proto")]
        answer = http.post(path, content=b"\0" * 5, headers=[*kind, *headers])
        assert answer.status_code == 200, answer.text
        found = answer.headers.get(DETAILS_KEY)
        return reason(found) if found else ""

    return ask


def by_http(http: httpx.Client, path: str) -> Ask:
    def ask(headers: Headers) -> str:
        answer = http.get(path, headers=headers)
        if answer.status_code == 200:
            return ""
        body = answer.json()
        assert answer.status_code == 401, answer.text
        return str(body.get("reason") or body["error_code"]).upper()

    return ask


@pytest.fixture(scope="module")
def faces(running: Running) -> Iterator[dict[str, Ask]]:
    """Through the edge, and straight to each service's own port."""
    with ExitStack() as stack:
        edge = stack.enter_context(grpc.insecure_channel(running.edge))
        http = stack.enter_context(httpx.Client(base_url=running.edge_url, timeout=20))
        found = {f"edge {path}": by_grpc(edge, path) for path in (*METHODS.values(), STREAM)}
        found |= {f"web {path}": by_web(http, path) for name, path in METHODS.items() if name != "signer"}
        found |= {f"http {path}": by_http(http, path) for path in PATHS}
        for name, path in METHODS.items():
            channel = stack.enter_context(grpc.insecure_channel(running.address(name, "grpc")))
            found[f"{name} {path}"] = by_grpc(channel, path)
        for name, path in (("auth", "/auth/v1/user"), ("signer", "/webcast/rate_limits")):
            url = f"http://{running.address(name, 'http')}"
            client = stack.enter_context(httpx.Client(base_url=url, timeout=20))
            found[f"{name} {path}"] = by_http(client, path)
        yield found


def basic(key: str) -> str:
    return "Basic " + base64.b64encode(f"{key}:".encode()).decode()


def test_every_form_of_one_credential_is_taken(
    faces: dict[str, Ask], accounts: tuple[Account, str, str]
) -> None:
    """S25 did not make it stricter than it has to be."""
    account, key, _ = accounts
    token = account.session.access_token
    forms: list[Headers] = [
        [("x-api-key", key)],
        [("authorization", f"Bearer {key}")],
        [("authorization", basic(key))],
        [("authorization", f"Bearer {token}")],
        [("authorization", f"Bearer {token}"), ("apikey", "anon")],
        [("authorization", f"Bearer {token}"), ("x-api-key", key)],
    ]
    for form in forms:
        answers = {name: ask(form) for name, ask in faces.items()}
        assert set(answers.values()) == {""}, (form, answers)


def test_more_than_one_is_refused_on_every_face(
    faces: dict[str, Ask], accounts: tuple[Account, str, str]
) -> None:
    """S25."""
    account, one, two = accounts
    token = account.session.access_token
    forms: list[Headers] = [
        [("x-api-key", one), ("x-api-key", two)],
        [("x-api-key", one), ("x-api-key", one)],
        [("x-api-key", f"{one},{two}")],
        [("authorization", f"Bearer {one}"), ("authorization", f"Bearer {two}")],
        [("authorization", f"Bearer {token}"), ("authorization", f"Bearer {token}")],
        [("authorization", f"Bearer {token}"), ("authorization", f"Bearer {one}")],
        [("x-api-key", one), ("authorization", f"Bearer {two}")],
        [("x-api-key", one), ("authorization", basic(one))],
    ]
    for form in forms:
        answers = {name: ask(form) for name, ask in faces.items()}
        assert set(answers.values()) == {"CREDENTIAL_AMBIGUOUS"}, (form, answers)


def test_the_sign_server_face_takes_one_parameter_and_no_header_beside_it(
    running: Running, accounts: tuple[Account, str, str]
) -> None:
    """S25."""
    _, one, two = accounts
    path = f"{running.edge_url}/webcast/rate_limits"
    assert httpx.get(f"{path}?apiKey={one}").status_code == 200
    for query, headers in (
        (f"apiKey={one}&apiKey={two}", {}),
        (f"apiKey={one}&apiKey={one}", {}),
        (f"apiKey={one}", {"x-api-key": two}),
        (f"apiKey={one}", {"authorization": f"Bearer {one}"}),
    ):
        answer = httpx.get(f"{path}?{query}", headers=headers)
        assert answer.status_code == 401
        assert answer.json()["reason"] == "CREDENTIAL_AMBIGUOUS"


def test_curl_s_own_option(running: Running, accounts: tuple[Account, str, str]) -> None:
    """`curl -u KEY:` sends what httpx sends for a user without a password."""
    _, key, _ = accounts
    assert httpx.get(f"{running.edge_url}/v1/keys", auth=(key, "")).status_code == 200
    for auth in ((key, "x"), ("", key)):
        refused = httpx.get(f"{running.edge_url}/v1/keys", auth=auth)
        assert refused.status_code == 401
        assert refused.json()["reason"] == "CREDENTIAL_MALFORMED"
