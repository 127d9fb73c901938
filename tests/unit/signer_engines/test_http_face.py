"""The sign-server face, by what each client library does with an answer."""

from __future__ import annotations

import asyncio
import json
import re
from base64 import b64encode
from datetime import datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest

from servicekit.batching import Overloaded
from servicekit.errors import (
    DeadlineExceeded,
    InvalidArgument,
    ResourceExhausted,
    SigngateError,
    Unauthenticated,
    Unavailable,
)
from services.signer.errors import EngineFailure, EngineUnavailable
from services.signer.http.app import POSTED
from services.signer.http.refusals import MIN_MESSAGE, refusal
from services.signer.jobs import Limit
from tests.unit.signer_engines.conftest import FakeInspector
from tests.unit.signer_service.world import World

ROOM = "https://webcast.tiktok.com/webcast/room/info/?aid=1988&room_id=7300000000000000000"
BODY = {"url": ROOM, "method": "GET", "userAgent": "UA/1", "type": "xhr"}
SIGN_PATHS = ["/webcast/sign_url", "/webcast/sign_url/", "/tiktok/sign_url", "/tiktok/sign_url/"]
LIMIT_PATHS = [
    "/webcast/rate_limits",
    "/webcast/rate_limits/",
    "/accounts/me/rate_limits",
    "/accounts/me/rate_limits/",
]


def crashes_no_client(answer: httpx.Response) -> dict[str, Any]:
    """The body of a refusal, after a look at all that clients' own code trips over."""
    body: dict[str, Any] = answer.json()
    assert type(body["code"]) is int
    assert body["code"] == answer.status_code
    assert len(body["message"]) >= MIN_MESSAGE  # Node draws a frame around it; a shorter one crashes it
    assert re.fullmatch(r"[A-Z][A-Z0-9_]*", body["reason"])
    assert answer.headers["content-type"] == "application/json"
    return body


def basic(key: str) -> str:
    return b64encode(f"{key}:".encode()).decode()


class TestSigning:
    @pytest.mark.parametrize("path", SIGN_PATHS)
    async def test_the_answer_that_every_library_reads(
        self, face: httpx.AsyncClient, world: World, path: str
    ) -> None:
        """Python wants msToken in the URL, Node non-empty tokens, all of them a numeric code."""
        secret, _ = world.key()
        answer = await face.post(
            path, params={"client": "ttlive-x"}, json=BODY, headers={"X-Api-Key": secret}
        )
        assert answer.status_code == 200
        body = answer.json()
        assert (type(body["code"]), body["code"], body["message"]) == (int, 200, "ok")
        signed = body["response"]
        assert signed["signedUrl"].startswith(ROOM)
        assert "msToken=" in signed["signedUrl"]
        assert signed["userAgent"] == "UA/1"
        assert (signed["browserName"], signed["browserVersion"]) == ("Mozilla", "5.0")
        assert signed["tokens"]["X-Bogus"]
        assert signed["tokens"]["msToken"]
        assert all(type(value) is str for value in signed["tokens"].values())
        assert (signed["requestHeaders"], signed["cookies"]) == ({}, [])

    async def test_a_browsers_user_agent_gives_its_version(
        self, face: httpx.AsyncClient, world: World
    ) -> None:
        agent = "Mozilla/5.0 (X11; Linux x86_64) Chrome/140"
        body = BODY | {"userAgent": agent}
        answer = await face.post("/webcast/sign_url", json=body, headers={"x-api-key": world.key()[0]})
        assert answer.json()["response"]["browserVersion"] == "5.0 (X11; Linux x86_64) Chrome/140"

    async def test_the_answer_names_its_engine_its_request_and_the_limit(
        self, face: httpx.AsyncClient, world: World
    ) -> None:
        answer = await face.post("/webcast/sign_url", json=BODY, headers={"x-api-key": world.key()[0]})
        headers = answer.headers
        assert headers["x-signgate-engine"] == "native"
        assert headers["x-signgate-engine-version"] == world.native.describe().info.version
        assert int(headers["x-signgate-engine-age"]) >= 0
        (event,) = world.events.all
        assert headers["x-signgate-request-id"] == headers["x-request-id"] == event.id
        assert headers["ratelimit-limit"] == "1000"
        assert headers["ratelimit-remaining"] == "999"
        assert headers["x-ratelimit-reset"] == "1900000000"
        assert int(headers["ratelimit-reset"]) > 0

    async def test_old_signatures_are_taken_out(self, face: httpx.AsyncClient, world: World) -> None:
        old = f"{ROOM}&X-Bogus=old1&X-Gnarly=old2&msToken=old3"
        answer = await face.post(
            "/webcast/sign_url", json={"url": old}, headers={"x-api-key": world.key()[0]}
        )
        assert "old" not in answer.json()["response"]["signedUrl"]

    @pytest.mark.parametrize("path", ["/webcast/sign_url", "/webcast/sign_url/"])
    async def test_the_legacy_get(self, face: httpx.AsyncClient, world: World, path: str) -> None:
        answer = await face.get(
            path, params={"url": ROOM, "client": "ttlive-node", "apiKey": world.key()[0], "uuc": "1"}
        )
        assert answer.status_code == 200
        body = answer.json()
        assert set(body) == {"signedUrl", "User-Agent", "msToken"}
        assert body["msToken"] in body["signedUrl"]
        assert body["User-Agent"]

    async def test_what_is_not_needed_is_ignored_and_kept_nowhere(
        self, face: httpx.AsyncClient, world: World
    ) -> None:
        extra = {
            "sessionId": "secret-session-cookie",
            "ttTargetIdc": "useast1a",
            "ttwid": ["of", "any", "type"],
            "includeBrowserParams": "yes",
            "includeVerifyFp": None,
            "somethingNew": {"a": 1},
        }
        answer = await face.post(
            "/webcast/sign_url", json=BODY | extra, headers={"x-api-key": world.key()[0]}
        )
        assert answer.status_code == 200
        assert "secret-session-cookie" not in answer.text + str(world.events.all)

    async def test_any_content_type_is_taken(self, face: httpx.AsyncClient, world: World) -> None:
        """Go's clients send none."""
        answer = await face.post(
            "/webcast/sign_url", content=json.dumps(BODY), headers={"x-api-key": world.key()[0]}
        )
        assert answer.status_code == 200

    async def test_an_engine_by_name(self, face: httpx.AsyncClient, world: World) -> None:
        auth = {"x-api-key": world.key()[0]}
        answer = await face.post("/webcast/sign_url", json=BODY | {"engine": "broken"}, headers=auth)
        assert answer.status_code == 200
        assert world.broken.signed[0].platform_tokens
        answer = await face.post("/webcast/sign_url", json=BODY | {"engine": "none"}, headers=auth)
        assert crashes_no_client(answer)["reason"] == "ENGINE_UNKNOWN"


class TestCredentials:
    @pytest.mark.parametrize(
        ("headers", "query"),
        [
            ({"X-Api-Key": "{key}"}, {}),
            ({}, {"apiKey": "{key}"}),
            ({"Authorization": "Bearer {key}"}, {}),
            ({"X-Api-Key": ""}, {"apiKey": "{key}"}),
            ({"X-Api-Key": "{key}"}, {"apiKey": ""}),
            ({"Authorization": "Basic {basic}"}, {}),
        ],
    )
    async def test_where_a_key_may_stand(
        self, face: httpx.AsyncClient, world: World, headers: dict[str, str], query: dict[str, str]
    ) -> None:
        key = world.key()[0]
        answer = await face.post(
            "/webcast/sign_url",
            json=BODY,
            headers={name: value.format(key=key, basic=basic(key)) for name, value in headers.items()},
            params={name: value.format(key=key) for name, value in query.items()},
        )
        assert answer.status_code == 200

    @pytest.mark.parametrize(
        ("headers", "query"),
        [
            (["X-Api-Key: {key}", "x-api-key: {key}"], ""),
            (["X-Api-Key: {key}", "x-api-key: {other}"], ""),
            (["X-Api-Key: {key},{other}"], ""),
            (["X-Api-Key: {key}"], "apiKey={other}"),
            (["X-Api-Key: {key}"], "apiKey={key}"),
            (["X-Api-Key: {key}", "Authorization: Bearer {other}"], ""),
            (["X-Api-Key: {key}", "Authorization: Basic {basic}"], ""),
            (["Authorization: Bearer {key}", "Authorization: Bearer {key}"], ""),
            (["Authorization: Bearer {key}"], "apiKey={key}"),
            (["Authorization: Basic {basic}"], "apiKey={other}"),
            ([], "apiKey={key}&apiKey={key}"),
            ([], "apiKey={other}&%61piKey={key}"),
        ],
    )
    async def test_more_than_one_is_refused(
        self, face: httpx.AsyncClient, world: World, headers: list[str], query: str
    ) -> None:
        """S25."""
        key, other = world.key()[0], world.key()[0]
        lines = [line.format(key=key, other=other, basic=basic(key)).split(": ") for line in headers]
        query = query.format(key=key, other=other)
        answers = [
            await face.post(f"/webcast/sign_url?{query}", json=BODY, headers=[(a, b) for a, b in lines]),
            await face.get(f"/webcast/rate_limits?{query}", headers=[(a, b) for a, b in lines]),
        ]
        for answer in answers:
            assert answer.status_code == 401
            assert crashes_no_client(answer)["reason"] == "CREDENTIAL_AMBIGUOUS"
        assert not world.events.all

    async def test_a_parameter_beside_an_access_token_is_refused(
        self, face: httpx.AsyncClient, world: World
    ) -> None:
        """S25. Supabase's clients send their token beside a header; none sends it beside the parameter."""
        key, headers = world.key()[0], {"Authorization": f"Bearer {world.token(uuid4())}"}
        answer = await face.get(f"/webcast/rate_limits?apiKey={key}", headers=headers)
        assert answer.status_code == 401
        assert crashes_no_client(answer)["reason"] == "CREDENTIAL_AMBIGUOUS"
        answer = await face.get("/webcast/rate_limits", headers={"X-Api-Key": key, **headers})
        assert answer.status_code == 200

    async def test_an_access_token(self, face: httpx.AsyncClient, world: World) -> None:
        token = world.token(uuid4())
        answer = await face.post("/webcast/sign_url", json=BODY, headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 200

    @pytest.mark.parametrize("path", SIGN_PATHS)
    async def test_none(self, face: httpx.AsyncClient, path: str) -> None:
        answer = await face.post(path, json=BODY)
        assert answer.status_code == 401
        assert crashes_no_client(answer)["reason"] == "CREDENTIAL_MISSING"
        assert answer.headers["www-authenticate"] == "Bearer"

    async def test_a_wrong_key_is_told_before_a_wrong_body(
        self, face: httpx.AsyncClient, world: World
    ) -> None:
        headers = {"x-api-key": world.refused_key("KEY_REVOKED")}
        answer = await face.post("/webcast/sign_url", content=b"{", headers=headers)
        assert answer.status_code == 401
        assert crashes_no_client(answer)["reason"] == "KEY_REVOKED"

    async def test_a_key_that_may_not_sign(self, face: httpx.AsyncClient, world: World) -> None:
        secret, _ = world.key(scopes=frozenset({"usage:read"}))
        answer = await face.post("/webcast/sign_url", json=BODY, headers={"x-api-key": secret})
        assert answer.status_code == 403
        assert crashes_no_client(answer)["reason"] == "SCOPE_MISSING"


class TestMalformed:
    @pytest.mark.parametrize(
        "content",
        [
            b"", b"{", b"[]", b'"text"', b"null", b"\xff\xfe", b"[" * 100_000, b'{"url":1}', b"{}",
            b'{"url":""}', b'{"url":null}', b'{"url":["a"]}', b'{"url":"\\ud800"}', b'{"url":"@a\\u0000b"}',
            b'{"url":"@someone","userAgent":7}', b'{"url":"@someone","userAgent":"\\u00e9"}',
            b'{"url":"@someone","userAgent":"a\\nb"}', b'{"url":"@someone","method":"NOSUCH"}',
            b'{"url":"@someone","payload":{}}', b'{"url":"@someone","engine":[]}',
            b'{"url":"https://evil.example/"}', b'{"url":' + b"9" * 5000 + b"}",
            json.dumps({"url": "@someone", "payload": "x" * 70_000}).encode(),
        ],
    )  # fmt: skip
    async def test_it_is_said_what_is_wrong_and_nothing_is_charged(
        self, face: httpx.AsyncClient, world: World, content: bytes
    ) -> None:
        answer = await face.post("/webcast/sign_url", content=content, headers={"x-api-key": world.key()[0]})
        assert answer.status_code == 400
        crashes_no_client(answer)
        assert world.quota.lists == []
        assert [event.success for event in world.events.all] == [False]

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("POST", "/webcast/sign_url"),
            ("POST", "/tiktok/sign_url"),
            ("GET", "/webcast/sign_url"),
            ("GET", "/webcast/rate_limits"),
            ("GET", "/accounts/me/rate_limits"),
            ("GET", "/webcast/openapi.json"),
        ],
    )
    @pytest.mark.parametrize("query", ["x=" + "%41" * 5000, "&".join(["x=1"] * 40)])
    async def test_a_query_is_held_to_its_limits_first(
        self, face: httpx.AsyncClient, method: str, path: str, query: str
    ) -> None:
        answer = await face.request(method, f"{path}?{query}")
        assert answer.status_code == 400
        assert crashes_no_client(answer)["reason"] == "VALIDATION_FAILED"

    async def test_a_body_beyond_the_bound(self, face: httpx.AsyncClient, world: World) -> None:
        answer = await face.post(
            "/webcast/sign_url", content=b" " * (POSTED.body + 1), headers={"x-api-key": world.key()[0]}
        )
        assert answer.status_code == 413
        assert crashes_no_client(answer)["reason"] == "BODY_TOO_LARGE"

    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("GET", "/webcast/fetch/", 404),
            ("GET", "/tiktok/sign_url", 405),
            ("HEAD", "/webcast/sign_url", 405),
            ("HEAD", "/webcast/rate_limits", 405),
            ("DELETE", "/webcast/sign_url", 405),
            ("POST", "/webcast/rate_limits", 405),
        ],
    )
    async def test_what_is_not_served(
        self, face: httpx.AsyncClient, world: World, method: str, path: str, status: int
    ) -> None:
        headers = {"x-api-key": world.key()[0]}
        answer = await face.request(method, path, params={"url": ROOM}, headers=headers)
        assert answer.status_code == status
        assert not world.quota.lists
        if method != "HEAD":
            crashes_no_client(answer)


class TestLimits:
    @pytest.mark.parametrize("path", ["/webcast/sign_url", "/tiktok/sign_url/"])
    @pytest.mark.parametrize(
        ("kind", "label"),
        [
            ("user_day", "rate_limit_account_day"),
            ("user_minute", "rate_limit_account_minute"),
            ("key_day", "rate_limit_key_day"),
            ("key_minute", "rate_limit_key_minute"),
        ],
    )
    async def test_429_has_every_header_that_some_client_reads(
        self, face: httpx.AsyncClient, world: World, path: str, kind: str, label: str
    ) -> None:
        secret, caller = world.key()
        world.quota.left[caller.user_id] = 0
        world.quota.kind = kind
        answer = await face.post(path, json=BODY, headers={"x-api-key": secret})
        assert answer.status_code == 429
        body = crashes_no_client(answer)
        assert body["limit_label"] == label
        headers = answer.headers
        assert headers["retry-after"] == "30"
        assert headers["ratelimit-limit"] == "1000"
        assert headers["ratelimit-remaining"] == "0"
        assert int(headers["ratelimit-reset"]) > 0
        assert headers["x-ratelimit-reset"] == "1900000000"

    async def test_a_plan_without_signatures_is_no_matter_of_waiting(
        self, face: httpx.AsyncClient, world: World
    ) -> None:
        secret, caller = world.key()
        world.quota.left[caller.user_id] = 0
        world.quota.limit = 0
        answer = await face.post("/webcast/sign_url", json=BODY, headers={"x-api-key": secret})
        assert answer.status_code == 402
        crashes_no_client(answer)
        assert "retry-after" not in answer.headers

    @pytest.mark.parametrize("path", LIMIT_PATHS)
    async def test_what_is_left(
        self, face: httpx.AsyncClient, world: World, inspector: FakeInspector, path: str
    ) -> None:
        """The limit that leaves less is shown, be it the account's or the key's."""
        inspector.limits = [
            Limit("user_day", 1000, 400, 1_900_000_000.0),
            Limit("user_minute", 60, 60, 1_800_000_000.2),
            Limit("key_day", 500, 499, 1_900_000_000.0),
            Limit("key_minute", 10, 3, 1_800_000_003.0),
        ]
        answer = await face.get(path, headers={"x-api-key": world.key()[0]})
        body = answer.json()
        day = {"max": 1000, "remaining": 400, "reset_at": "2030-03-17T17:46:40Z"}
        assert body["day"] == body["hour"] == day
        assert body["minute"] == {"max": 10, "remaining": 3, "reset_at": "2027-01-15T08:00:03Z"}
        assert datetime.fromisoformat(body["minute"]["reset_at"]).tzinfo is not None
        assert body["load_shedding"] == {"at": 64, "chance": 0}
        assert (answer.status_code, body["code"]) == (200, 200)
        assert world.quota.lists == []

    async def test_a_plan_without_a_rate(
        self, face: httpx.AsyncClient, world: World, inspector: FakeInspector
    ) -> None:
        inspector.limits = [Limit("user_day", 5, 5, 1_900_000_000.0)]
        answer = await face.get("/webcast/rate_limits", params={"apiKey": world.key()[0]})
        assert answer.json()["minute"] == answer.json()["day"]

    async def test_who_may_look(self, face: httpx.AsyncClient, world: World) -> None:
        async def look(secret: str) -> httpx.Response:
            return await face.get("/webcast/rate_limits", headers={"Authorization": f"Bearer {secret}"})

        session = str(uuid4())
        token = world.token(uuid4(), session_id=session)
        assert (await look(token)).status_code == 200
        world.sessions.revoked.add(session)
        assert crashes_no_client(await look(token))["reason"] == "SESSION_REVOKED"
        assert crashes_no_client(await look(world.refused_key("KEY_EXPIRED")))["reason"] == "KEY_EXPIRED"
        denied = await look(world.key(scopes=frozenset({"usage:read"}))[0])
        assert (denied.status_code, crashes_no_client(denied)["reason"]) == (403, "SCOPE_MISSING")
        assert (await look(world.key(scopes=frozenset({"quota:read"}))[0])).status_code == 200

    async def test_quota_is_away(
        self, face: httpx.AsyncClient, world: World, inspector: FakeInspector
    ) -> None:
        inspector.fails = Unavailable(retry_after=0.2)
        answer = await face.get("/webcast/rate_limits", headers={"x-api-key": world.key()[0]})
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        crashes_no_client(answer)


class TestFailures:
    async def test_an_engine_that_fails_is_a_500_with_a_reason(
        self, face: httpx.AsyncClient, world: World
    ) -> None:
        world.broken.fails["someone"] = EngineFailure()
        headers = {"x-api-key": world.key()[0]}
        body = {"url": "@someone", "engine": "broken"}
        answer = await face.post("/webcast/sign_url", json=body, headers=headers)
        assert answer.status_code == 500
        assert crashes_no_client(answer)["reason"] == "ENGINE_FAILURE"
        assert len(world.quota.refunded) == 1

    async def test_a_bug_of_ours_tells_nothing(
        self, face: httpx.AsyncClient, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise RuntimeError("internal detail")

        monkeypatch.setattr(world.service, "job", fail)
        answer = await face.post("/webcast/sign_url", json=BODY, headers={"x-api-key": world.key()[0]})
        assert answer.status_code == 500
        crashes_no_client(answer)
        assert "internal detail" not in answer.text

    async def test_an_engine_that_is_not_ready(self, face: httpx.AsyncClient, world: World) -> None:
        world.broken.ready = False
        body = BODY | {"engine": "broken"}
        answer = await face.post("/webcast/sign_url", json=body, headers={"x-api-key": world.key()[0]})
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert crashes_no_client(answer)["reason"] == "ENGINE_UNAVAILABLE"

    async def test_a_client_that_goes_away_pays_nothing(self, face: httpx.AsyncClient, world: World) -> None:
        secret, _ = world.key()
        world.quota.gate = asyncio.Event()
        app = face._transport.app  # type: ignore[attr-defined]
        leaves = asyncio.Event()
        sent: list[Any] = []
        body = [{"type": "http.request", "body": json.dumps(BODY).encode(), "more_body": False}]

        async def receive() -> dict[str, Any]:
            if body:
                return body.pop()
            await leaves.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http", "method": "POST", "path": "/webcast/sign_url", "query_string": b"",
            "headers": [(b"x-api-key", secret.encode())], "http_version": "1.1", "scheme": "http",
        }  # fmt: skip
        call = asyncio.create_task(app(scope, receive, send))
        while not world.quota.lists:
            await asyncio.sleep(0)
        leaves.set()
        await call
        world.quota.gate.set()
        while not world.quota.refunded:
            await asyncio.sleep(0)
        assert [event.success for event in world.events.all] == [False]
        assert sent[0]["status"] == 503


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidArgument("x"), 400),
        (Unauthenticated("x"), 401),
        (ResourceExhausted("x"), 429),
        (EngineFailure("x"), 500),
        (SigngateError("x"), 500),
        (Overloaded(retry_after=0.2), 503),
        (EngineUnavailable("x"), 503),
        (DeadlineExceeded("x"), 504),
    ],
)
def test_every_error_has_a_body_and_headers_whatever_it_carries(error: SigngateError, status: int) -> None:
    found = refusal(error, 1000.0)
    assert (found.status, found.body["code"]) == (status, status)
    assert len(found.body["message"]) >= MIN_MESSAGE
    if status in {429, 503}:
        assert int(found.headers["Retry-After"]) >= 1
    if status == 429:
        names = {"RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset", "X-RateLimit-Reset"}
        assert all(found.headers[name].isdigit() for name in names)
