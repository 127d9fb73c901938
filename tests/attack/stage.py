"""Where attacks happen: a stack of its own with default settings, its victims, and one free account's owner.

The limits that attacks meet are those of a deployment. Other than the table says is `PATIENCE` alone.
Victims call from 127.0.0.1, attackers from other addresses of the loopback network.
"""

from __future__ import annotations

import asyncio
import os
import secrets as chance
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import asyncpg
import httpx

from deploy.local import secrets
from deploy.local.layout import HOST, ROOT, Layout
from deploy.local.stack import Stack
from tests.attack.victim import Plan

RUN: Final = ".run-attack"
SHIFT: Final = 5000
PEOPLE: Final = 40
"""Accounts that sign in, in turn: one may do so 100 times an hour."""
USAGE_ROWS: Final = 150_000
"""Of the attacker's account: an export of some 20 MB, more than all buffers on its way take."""
PATIENCE: Final = {
    "quota": {"SIGNGATE_REDIS_TIMEOUT": "2"},
    "signer": {"SIGNGATE_REDIS_TIMEOUT": "2", "SIGNGATE_PEER_TIMEOUT": "3"},
}
"""A loaded disk now and then keeps Redis for longer than the 80 ms after which quota gives up by default.
That would be a refusal without any attack; as a wait it still counts against the floors."""
_no_limits: Final = """
INSERT INTO user_plan_overrides (user_id, pool, daily_limit, per_minute, burst)
SELECT id, pool, 1000000000, 10000000, 1000000
FROM unnest($1::uuid[]) AS id, unnest(ARRAY['api_key', 'free']) AS pool
"""
_usage: Final = """
INSERT INTO usage_logs (user_id, room_url, success, response_time_ms, created_at, engine)
SELECT $1, 'https://www.tiktok.com/@' || repeat('x', 60) || n || '/live', true, 3,
       now() - n * interval '1 second', 'local'
FROM generate_series(1, $2::int) AS n
"""
_statistics: Final = """
INSERT INTO usage_hours (user_id, hour, api_key_id, success, error_message, engine, latency_ms, requests,
                         total_ms, charged)
SELECT $1, date_trunc('hour', now()) - n * interval '1 hour',
       '00000000-0000-0000-0000-000000000000', true, '', engine, latency, 10, 30, 10
FROM generate_series(1, 720) AS n, unnest(ARRAY['native', 'local', 'websdk']) AS engine,
     generate_series(1, 30) AS latency
"""


@dataclass(frozen=True)
class Thief:
    """What a stranger has: the edge's address, and a free account that anyone may open.

    `customer_key` is not the stranger's: it has no limits, and signs as customers do, for comparison.
    """

    host: str
    port: int
    email: str
    password: str = field(repr=False)
    key: str = field(repr=False)
    access_token: str = field(repr=False)
    customer_key: str = field(repr=False)


@dataclass(frozen=True)
class Stage:
    """A running stack with its people."""

    layout: Layout
    stack: Stack
    victims: Plan
    thief: Thief

    def pids(self) -> dict[str, int]:
        """Every process of the stack that runs."""
        return {name: process.pid for name, process in self.stack.processes().items() if process.pid}

    def restart(self) -> None:
        """Start every service again: what an operator does when nothing else helps."""
        for instance in self.layout.instances():
            self.stack.restart(instance.name)


@contextmanager
def stage(
    run: str = RUN, shift: int = SHIFT, overrides: Mapping[str, Mapping[str, str]] | None = None
) -> Iterator[Stage]:
    """The stack from nothing; gone at the end, but its logs are kept in .build/attack/logs."""
    layout = Layout(ROOT / run, shift, overrides=PATIENCE | dict(overrides or {}))
    stack = Stack(layout, say=lambda _: None)
    stack.destroy()
    try:
        stack.up()
        yield populate(layout, stack)
    finally:
        kept = ROOT / ".build" / "attack" / "logs"
        shutil.rmtree(kept, ignore_errors=True)
        if layout.logs.is_dir():
            shutil.copytree(layout.logs, kept)
        stack.destroy()


def populate(layout: Layout, stack: Stack) -> Stage:
    """Make the accounts: by the administrators' API, as anyone's sign-up is limited by address."""
    edge = f"{HOST}:{layout.port('edge')}"
    with httpx.Client(base_url=f"http://{edge}", timeout=30, trust_env=False) as client:
        operator = {"authorization": f"Bearer {_service_token(layout)}"}
        people = [_person(client, operator, f"person-{number}") for number in range(PEOPLE)]
        victim, thief = _person(client, operator, "victim"), _person(client, operator, "thief")
        sessions = [_sign_in(client, *victim) for _ in range(4)]
        owner = _sign_in(client, *thief)
        customer = _sign_in(client, *_person(client, operator, "customer"))
        plan = Plan(
            edge=edge,
            key=_key(client, sessions[0]["access_token"]),
            people=people,
            owner=victim,
            refresh_tokens=[session["refresh_token"] for session in sessions],
            access_token=sessions[0]["access_token"],
        )
        stranger = Thief(
            HOST,
            layout.port("edge"),
            *thief,
            key=_key(client, owner["access_token"]),
            access_token=owner["access_token"],
            customer_key=_key(client, customer["access_token"]),
        )
    _fill(layout, [sessions[0]["user"]["id"], customer["user"]["id"]], owner["user"]["id"])
    return Stage(layout, stack, plan, stranger)


def _service_token(layout: Layout) -> str:
    settings = os.environ | {
        "SIGNGATE_JWT_KEYSET_FILE": str(layout.secrets / "jwt_keyset"),
        "SIGNGATE_JWT_ISSUER": f"{layout.edge_url}/auth/v1",
    }
    tool = [sys.executable, "-m", "services.auth.admin", "token", "--role", "service_role", "--ttl", "3600"]
    return subprocess.run(
        tool, cwd=ROOT, env=settings, capture_output=True, text=True, check=True
    ).stdout.strip()


def _person(client: httpx.Client, operator: dict[str, str], name: str) -> tuple[str, str]:
    email, password = f"{name}@attack.test", chance.token_urlsafe(18)
    body = {"email": email, "password": password, "email_confirm": True}
    client.post("/auth/v1/admin/users", json=body, headers=operator).raise_for_status()
    return email, password


def _sign_in(client: httpx.Client, email: str, password: str) -> Any:
    answer = client.post(
        "/auth/v1/token?grant_type=password", json={"email": email, "password": password}
    ).raise_for_status()
    return answer.json()


def _key(client: httpx.Client, token: str) -> str:
    answer = client.post("/v1/keys", json={"name": "attack"}, headers={"authorization": f"Bearer {token}"})
    return str(answer.raise_for_status().json()["secret"])


def _fill(layout: Layout, paying: list[str], thief: str) -> None:
    async def fill() -> None:
        sql = await asyncpg.connect(secrets.dsn(layout, secrets.SUPERUSER))
        await sql.execute(_no_limits, paying)
        await sql.execute(_usage, thief, USAGE_ROWS)
        await sql.execute(_statistics, thief)
        await sql.close()

    asyncio.run(fill())
    time.sleep(2.5)  # quota sees the override
