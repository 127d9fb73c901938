"""The unmodified PyPI TikTokLive (7.x), pointed at Signgate's edge by SIGN_API_URL and SIGN_API_KEY."""

from __future__ import annotations

import asyncio
import time

import asyncpg
import pytest

from signgate.keys.v1 import keys_pb2
from signgate_client import Signgate
from tests.conformance.conftest import Ask
from tests.conftest import Running
from tests.e2e.conftest import Account
from tests.integration.engines.standin import digest

ROOM = "https://webcast.tiktok.com/webcast/room/info/?aid=1988&room_id=7300000000000000000"

pytestmark = pytest.mark.timeout(600)  # the first run makes the library's environment


def make_key(running: Running, account: Account, *, engine: str = "", scopes: tuple[str, ...] = ()) -> str:
    """A key. The stack's own keys service knows no engine but native, so another is written beneath it."""
    with Signgate(running.edge, access_token=account.session.access_token) as user:
        made = user.create_key("conformance", scopes=scopes)
    if engine:
        asyncio.run(execute(running, "UPDATE api_keys SET engine = $1 WHERE id = $2", engine, made.key.id))
        time.sleep(1.0)  # the keys service's records are at most 0.15 s old
    return made.secret


async def execute(running: Running, statement: str, *values: object) -> None:
    connection = await asyncpg.connect(running.dsn())
    try:
        await connection.execute(statement, *values)
    finally:
        await connection.close()


def allow(running: Running, ask: Ask, account: Account, daily: int) -> None:
    """Give the account another daily limit, and wait until it is in force."""
    statement = (
        "INSERT INTO user_plan_overrides (user_id, pool, daily_limit)"
        " SELECT id, 'api_key', $2 FROM users WHERE email = $1"
        " ON CONFLICT (user_id, pool) DO UPDATE SET daily_limit = excluded.daily_limit"
    )
    asyncio.run(execute(running, statement, account.email, daily))
    end = time.monotonic() + 30
    while ask(account.key, limits=True)["parsed"]["day"]["max"] != daily:
        assert time.monotonic() < end
        time.sleep(0.1)


def refused(answer: dict[str, object], status: int) -> dict[str, object]:
    """What the library makes of every refusal: one error of its own, with the response inside."""
    assert answer["raised"] == "UnexpectedSignatureError", answer
    assert answer["caused_by"] == "NoneType", "it raised by its own decision, and crashed over nothing"
    assert answer["status"] == status
    assert answer["log_id"], "for asking us about it"
    body = answer["body"]
    assert isinstance(body, dict)
    assert body["code"] == status
    return body


def test_it_signs(ask: Ask, account: Account) -> None:
    answer = ask(account.key, f"{ROOM}&X-Bogus=old&msToken=old", agent="Mozilla/5.0 (X11) Test")
    assert str(answer["signed_url"]).startswith(ROOM)
    assert "msToken=" in answer["signed_url"]
    assert "old" not in answer["signed_url"]
    assert answer["user_agent"] == "Mozilla/5.0 (X11) Test"
    assert answer["tokens"]["X-Bogus"]


def test_it_signs_by_a_script_in_a_browser(running: Running, ask: Ask, account: Account) -> None:
    """The key names the engine; the library knows nothing of it."""
    answer = ask(make_key(running, account, engine="websdk"), ROOM)
    unsigned, _, bogus = answer["signed_url"].rpartition("&X-Bogus=")
    assert bogus == answer["tokens"]["X-Bogus"] == digest(unsigned.partition("?")[2])
    assert "msToken=" in unsigned
    assert "Chrome/" in answer["user_agent"]


def test_it_signs_by_another_sign_server(running: Running, ask: Ask, account: Account) -> None:
    answer = ask(make_key(running, account, engine="upstream"), ROOM)
    assert answer["signed_url"] == f"{ROOM}&msToken=theirs&X-Bogus=theirs"


def test_its_sdk_reads_the_limits(ask: Ask, account: Account) -> None:
    before = ask(account.key, limits=True)["parsed"]
    ask(account.key, ROOM)
    after = ask(account.key, limits=True)["parsed"]
    assert (before["code"], after["code"]) == (200, 200)
    assert after["day"]["remaining"] == before["day"]["remaining"] - 1
    assert after["day"]["max"] == before["day"]["max"] > 0
    assert after["minute"]["max"] > 0
    assert after["load_shedding"]["chance"] == 0


def test_400(ask: Ask, account: Account) -> None:
    body = refused(ask(account.key, "https://evil.example/"), 400)
    assert body["reason"] == "ROOM_URL_HOST"


def test_401(ask: Ask, running: Running, account: Account) -> None:
    revoked = make_key(running, account)
    with Signgate(running.edge, api_key=revoked) as itself:
        itself.call(itself.keys.RevokeSelf, keys_pb2.RevokeSelfRequest())
    body = refused(ask(revoked, ROOM), 401)
    assert body["reason"] == "KEY_REVOKED"
    assert refused(ask("not-a-key-at-all", ROOM), 401)["reason"] == "KEY_MALFORMED"


def test_403(ask: Ask, running: Running, account: Account) -> None:
    body = refused(ask(make_key(running, account, scopes=("usage:read",)), ROOM), 403)
    assert body["reason"] == "SCOPE_MISSING"


def test_402_and_429(ask: Ask, running: Running, account: Account) -> None:
    assert ask(account.key, ROOM)["signed_url"]
    allow(running, ask, account, 1)
    body = refused(ask(account.key, ROOM), 429)
    assert body["reason"] == "QUOTA_EXHAUSTED"
    assert body["limit_label"] == "rate_limit_account_day"
    allow(running, ask, account, 0)
    assert refused(ask(account.key, ROOM), 402)["reason"] == "QUOTA_EXHAUSTED"


def test_500(ask: Ask, running: Running, account: Account) -> None:
    """A script that throws; nothing is charged for it."""
    key = make_key(running, account, engine="websdk")
    before = ask(key, limits=True)["parsed"]["day"]["remaining"]
    body = refused(ask(key, f"{ROOM}&standin=throw"), 500)
    assert body["reason"] == "ENGINE_FAILURE"
    assert "secret" not in str(body)
    end = time.monotonic() + 30
    while ask(key, limits=True)["parsed"]["day"]["remaining"] != before:
        assert time.monotonic() < end, "refunded"
        time.sleep(0.05)


def test_nothing_listens(ask: Ask, account: Account) -> None:
    """So that the tests above are known to ask Signgate and nobody else."""
    answer = ask(account.key, ROOM, server="http://127.0.0.1:1")
    assert answer["raised"] == "UnexpectedSignatureError"
    assert answer["caused_by"] != "NoneType"


def test_the_engine_of_a_key_is_not_enabled_here(running: Running, ask: Ask, account: Account) -> None:
    key = make_key(running, account, engine="nothing")
    assert refused(ask(key, ROOM), 400)["reason"] == "ENGINE_UNKNOWN"
