"""The sign-server face through the edge: what the libraries' requests get, and what it is accounted as."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import asyncpg
import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from signgate_client import Signgate
from tests.conftest import Running
from tests.e2e.conftest import Account

ROOM = "https://webcast.tiktok.com/webcast/im/fetch/?aid=1988&room_id=7300000000000000000"
BODY = {"url": ROOM, "method": "GET", "userAgent": "UA/1", "type": "fetch"}
LIMIT_HEADERS = {
    "retry-after",
    "ratelimit-limit",
    "ratelimit-remaining",
    "ratelimit-reset",
    "x-ratelimit-reset",
}


@pytest.fixture
def http(running: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=running.edge_url, timeout=10) as client:
        yield client


async def execute(running: Running, statement: str, *values: object) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(running.dsn())
    try:
        return list(await connection.fetch(statement, *values))
    finally:
        await connection.close()


def test_every_form_signs_verifies_and_is_a_row(
    running: Running, http: httpx.Client, account: Account
) -> None:
    header = {"X-Api-Key": account.key}
    signed: list[str] = []
    ids: set[str] = set()
    for path in ("/webcast/sign_url", "/webcast/sign_url/", "/tiktok/sign_url", "/tiktok/sign_url/"):
        answer = http.post(path, params={"client": "ttlive-test"}, json=BODY, headers=header)
        assert answer.status_code == 200, answer.text
        signed.append(answer.json()["response"]["signedUrl"])
        ids.add(answer.headers["x-signgate-request-id"])
    for path in ("/webcast/sign_url", "/webcast/sign_url/"):
        answer = http.get(path, params={"url": ROOM, "client": "ttlive-node", "apiKey": account.key})
        assert answer.status_code == 200, answer.text
        signed.append(answer.json()["signedUrl"])
        ids.add(answer.headers["x-signgate-request-id"])
    bearer = {"Authorization": f"Bearer {account.session.access_token}"}
    answer = http.post("/webcast/sign_url", json=BODY, headers=bearer)
    ids.add(answer.headers["x-signgate-request-id"])
    with Signgate(running.edge) as anyone:
        assert all(anyone.verify(url).valid for url in signed)

    def rows() -> list[asyncpg.Record]:
        statement = (
            "SELECT l.id::text FROM usage_logs l JOIN users u ON u.id = l.user_id"
            " WHERE u.email = $1 AND l.success"
        )
        return asyncio.run(execute(running, statement, account.email))

    running.eventually(lambda: len(rows()) >= len(ids), 30, "a row for each")
    assert {row["id"] for row in rows()} == ids
    assert len(ids) == 7


def test_refusals_come_through_the_edge_with_all_their_headers(
    running: Running, http: httpx.Client, account: Account
) -> None:
    header = {"X-Api-Key": account.key}
    limits = http.get("/webcast/rate_limits", headers=header).json()
    statement = (
        "INSERT INTO user_plan_overrides (user_id, pool, daily_limit) SELECT id, 'api_key', 1 FROM users"
        " WHERE email = $1"
    )
    asyncio.run(execute(running, statement, account.email))
    running.eventually(
        lambda: http.get("/accounts/me/rate_limits/", headers=header).json()["day"]["max"] == 1,
        10,
        "the override",
    )
    assert limits["day"]["max"] > 1
    first = http.post("/webcast/sign_url", json=BODY, headers=header)
    assert (first.status_code, first.headers["ratelimit-remaining"]) == (200, "0")
    refused = http.post("/webcast/sign_url", json=BODY, headers=header)
    assert refused.status_code == 429
    assert set(refused.headers) >= LIMIT_HEADERS
    assert all(refused.headers[name].isdigit() for name in LIMIT_HEADERS)
    body = refused.json()
    assert (body["code"], body["limit_label"]) == (429, "rate_limit_account_day")
    assert len(body["message"]) >= 19
    legacy = http.get("/webcast/sign_url", params={"url": ROOM, "apiKey": account.key})
    assert (legacy.status_code, legacy.json()["code"]) == (429, 429)


@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [
        ("/webcast/sign_url", 401, "CREDENTIAL_MISSING"),
        ("/webcast/rate_limits/", 401, "CREDENTIAL_MISSING"),
        ("/webcast/fetch/", 404, "NO_SUCH_PATH"),
        ("/tiktok/sign_url", 405, "METHOD_NOT_ALLOWED"),
    ],
)
def test_other_refusals_keep_their_form(http: httpx.Client, path: str, status: int, reason: str) -> None:
    answer = http.get(path, params={"url": ROOM})
    assert answer.status_code == status
    body = answer.json()
    assert (body["code"], body["reason"]) == (status, reason)
    assert len(body["message"]) >= 19


def test_what_the_edge_itself_refuses_has_the_same_form(running: Running, http: httpx.Client) -> None:
    large = http.post("/webcast/sign_url", content=b" " * (1024 * 1024 + 1))
    running.stack.stop("signer")
    try:
        away = [
            http.post("/webcast/sign_url?client=x", json=BODY),
            http.post("/tiktok/sign_url/", json=BODY),
            http.get("/accounts/me/rate_limits"),
        ]
    finally:
        running.stack.start("signer")
        running.eventually(
            lambda: http.post("/tiktok/sign_url", json=BODY).status_code == 401, 30, "the signer to be back"
        )
    assert (large.status_code, large.json()["code"]) == (413, 413)
    for answer in away:
        assert (answer.status_code, answer.json()["code"]) == (503, 503)
        assert answer.headers["retry-after"].isdigit()
    for body in (large.json(), *(answer.json() for answer in away)):
        assert set(body) == {"code", "message", "reason"}
        assert len(body["message"]) >= 19


def test_no_key_or_cookie_stands_in_a_log(running: Running, http: httpx.Client, account: Account) -> None:
    secret = "sessionid-of-somebody-0123456789"
    http.post(
        "/webcast/sign_url",
        params={"apiKey": account.key},
        json=BODY | {"sessionId": secret, "url": f"{ROOM}&msToken=old-token-0123"},
    )
    http.post("/webcast/sign_url", params={"apiKey": account.key}, json={"url": secret})
    for part in ("envoy", "signer", "keys", "quota", "logger"):
        log = running.log(part)
        assert account.key not in log
        assert secret not in log
        assert "old-token-0123" not in log


CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


def test_whatever_the_openapi_document_allows_is_no_500(
    running: Running, http: httpx.Client, account: Account
) -> None:
    """Fuzzed: valid and invalid requests of every operation, each answer as the document says."""
    schema: Any = schemathesis.openapi.from_dict(http.get("/webcast/openapi.json").json())
    schema.config.base_url = running.edge_url
    seen: dict[str, set[int]] = {}
    for found in schema.get_all_operations():
        operation = found.ok()
        if not operation.path.endswith("/"):  # the others lead to the same handlers: seen by other tests
            for mode in schemathesis.GenerationMode:
                statuses = seen.setdefault(operation.label, set())
                fuzz(operation.as_strategy(generation_mode=mode), account.key, statuses)
    assert len(seen) == 5
    assert seen["POST /webcast/sign_url"] >= {400}
    assert seen["GET /webcast/rate_limits"] >= {200}


def fuzz(cases: Any, key: str, statuses: set[int]) -> None:
    """Send what a strategy gives. The edge's own refusals of what is no HTTP are not the document's."""

    @given(case=cases)
    @settings(
        max_examples=15,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    def send(case: Any) -> None:
        answer = case.call(headers={"X-Api-Key": key})
        statuses.add(answer.status_code)
        assert answer.status_code < 500
        if "x-signgate-request-id" in answer.headers or answer.status_code not in {400, 404, 405}:
            case.validate_response(answer, checks=CHECKS)

    send()
