"""Engines made from settings: one that can't be leaves the others to serve, and a slow one its lane."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from servicekit import apikey, keyset
from servicekit.authn import Credential
from servicekit.batching import Batcher
from servicekit.clock import SystemClock, SystemEntropy
from services.signer.assembly import make_engines, start_engines, stop_engines
from services.signer.config import SignerSettings
from services.signer.domain import Signed, SignRequest
from services.signer.errors import EngineUnavailable
from services.signer.jobs import API_KEY, Caller, Job, Part, Wish
from services.signer.lanes import Lanes
from services.signer.room_url import parse

CLOCK = SystemClock()
REQUEST = SignRequest(parse("@someone"), "019b7c5e-4d88-7000-8000-0123456789ab")


@pytest.fixture
def told(tmp_path: Path) -> dict[str, Any]:
    keys = tmp_path / "keys.json"
    keyset.main(["new", "--alg", "EdDSA", "--out", str(keys)])
    (tmp_path / "script.js").write_text("window.x = 1")
    return {
        "grpc_listen": "127.0.0.1:0",
        "redis_url": "redis://127.0.0.1:1/0",
        "keys_addr": "127.0.0.1:1",
        "quota_addr": "127.0.0.1:1",
        "jwks_url": "http://127.0.0.1:1/jwks",
        "jwt_issuer": "http://issuer.test",
        **dict.fromkeys(("service_key", "service_keys", "edge_secret"), keys),
        "signing_keys_file": keys,
        "websdk_script": tmp_path / "script.js",
        "websdk_script_sha256": "0" * 64,
        "websdk_browser_url": "ws://browser:7401",
    }


@pytest.mark.parametrize(
    ("name", "changes", "cause"),
    [
        ("websdk", {}, "not the one that the configuration names"),
        ("websdk", {"websdk_script": None}, "names no script"),
        ("websdk", {"websdk_script": "/no/such/script.js"}, "can't be read"),
        ("websdk", {"websdk_script_sha256": "0"}, "64 hexadecimal digits"),
        ("websdk", {"websdk_preset": "other"}, "no preset of that name"),
        ("websdk", {"websdk_profile": "toaster"}, "no profile of that name"),
        ("websdk", {"websdk_function": "alert(1)"}, "path of names"),
        ("websdk", {"websdk_browser_url": "http://browser:7401"}, "must read ws://host:port"),
        ("websdk", {"websdk_browser_url": "ws://me:secret@browser:7401"}, "must read ws://host:port"),
        ("upstream", {}, "there must be an upstream"),
        ("upstream", {"upstreams": ({"name": "a", "url": "https://a.test"},)}, "none of the allowed hosts"),
        ("upstream", {"upstream_keys": "{"}, "upstream_keys is no JSON"),
    ],
)
async def test_what_is_wrong_is_in_the_log_and_the_others_serve_on(
    told: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    name: str,
    changes: dict[str, Any],
    cause: str,
) -> None:
    engines = make_engines(SignerSettings(**told | {"engines": (name, "native")} | changes), CLOCK)
    await start_engines(engines)
    status = engines[name].describe()
    assert not status.ready
    assert "the signer's log says how" in status.not_ready_reason
    logged = capsys.readouterr().out
    assert "does not start; the others serve on" in logged
    assert cause in logged
    assert isinstance((await engines[name].sign([REQUEST]))[0], EngineUnavailable)
    assert isinstance((await engines["native"].sign([REQUEST]))[0], Signed)
    await stop_engines(engines)


@pytest.mark.parametrize(
    ("user", "changes", "cause"),
    [
        (1000, {"websdk_sandbox": False}, "websdk_sandbox is false"),
        (0, {}, "root can't use Chromium's sandbox"),
        (0, {"websdk_sandbox": True}, "root can't use Chromium's sandbox"),
    ],
)
async def test_no_browser_without_a_sandbox_beside_the_signing_keys(
    told: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    user: int,
    changes: dict[str, Any],
    cause: str,
) -> None:
    """A script that breaks out of its page would read them, and Redis' password."""
    monkeypatch.setattr("os.geteuid", lambda: user)
    alone = told | {"websdk_browser_url": "", "engines": ("websdk", "native")} | changes
    engines = make_engines(SignerSettings(**alone), CLOCK)
    await start_engines(engines)
    assert not engines["websdk"].describe().ready
    logged = capsys.readouterr().out
    assert cause in logged
    assert "websdk_browser_url" in logged, "the way out"
    await stop_engines(engines)


@pytest.mark.parametrize(
    ("user", "changes", "sandbox"),
    [
        (1000, {}, True),
        (0, {"websdk_unsafe_no_sandbox": True}, False),
        (1000, {"websdk_unsafe_no_sandbox": True, "websdk_sandbox": False}, False),
        (0, {"websdk_browser_url": "ws://browser:7401", "websdk_sandbox": False}, True),
    ],
)
def test_a_browser_is_sandboxed_unless_the_risk_is_accepted_by_name(
    told: dict[str, Any], monkeypatch: pytest.MonkeyPatch, user: int, changes: dict[str, Any], sandbox: object
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: user)
    settings = SignerSettings(**told | {"websdk_browser_url": ""} | changes)
    assert settings.websdk().sandbox is sandbox


def test_an_engine_that_does_not_exist_is_a_mistake_to_stop_at(told: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no such engine: other"):
        make_engines(SignerSettings(**told | {"engines": ("native", "other")}), CLOCK)


def job(engine: str) -> Job:
    part = Part("id", Wish("@someone", engine), None, None)
    return Job([part], arrived=0.0, started=0.0, deadline=None, partial=False)


async def test_who_waits_for_a_slow_engine_holds_up_nobody_else() -> None:
    hold = asyncio.Event()

    async def run(jobs: list[Job]) -> Sequence[Job | Exception]:
        if any(one.parts[0].wish.engine == "websdk" for one in jobs):
            await hold.wait()
        return jobs

    def lane(name: str) -> Batcher[Job, Job]:
        return Batcher(run, name=f"test_lane_{name}")

    lanes = Lanes({"native": lane("native"), "websdk": lane("websdk")}, "native")
    slow, fast, named = job("websdk"), job(""), job("native")
    waiting = asyncio.create_task(lanes.submit(slow))
    await asyncio.sleep(0)
    async with asyncio.timeout(30.0):
        assert await lanes.submit(fast) is fast
        assert await lanes.submit(named) is named
    mixed = asyncio.create_task(lanes.submit_many([slow, fast, named]))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    assert not mixed.done()
    hold.set()
    assert await waiting is slow
    assert await mixed == [slow, fast, named]
    await lanes.close()


async def test_so_does_who_waits_by_a_key_that_is_bound_to_it() -> None:
    """From the second request on: whom a key is bound to, only the line learns."""
    hold = asyncio.Event()
    bound = "websdk"
    ran: list[str] = []

    def lane(name: str) -> Batcher[Job, Job]:
        async def run(jobs: list[Job]) -> Sequence[Job | Exception]:
            ran.append(name)
            for one in jobs:
                one.caller = Caller("user", "key", API_KEY, frozenset(), engine=bound)
            if name == "websdk":
                await hold.wait()
            return jobs

        return Batcher(run, name=f"test_bound_{name}")

    def by_key() -> Job:
        one = job("")
        one.credential = Credential("key", apikey.mint("live", UUID(int=7), SystemEntropy()), "")
        return one

    lanes = Lanes({"native": lane("native"), "websdk": lane("websdk")}, "native")
    await lanes.submit(by_key())
    waiting = asyncio.create_task(lanes.submit(by_key()))
    many = asyncio.create_task(lanes.submit_many([by_key(), by_key()]))
    await asyncio.sleep(0)
    async with asyncio.timeout(30.0):
        await lanes.submit(job(""))
    assert not waiting.done()
    assert not many.done()
    bound = ""  # another engine was chosen for the key: found out at the next request
    hold.set()
    await waiting
    await many
    await lanes.submit(by_key())
    await lanes.submit(by_key())
    assert ran.count("websdk") >= 1
    assert ran[-1] == "native"
    await lanes.close()
