"""The stores of the running stack: who is connected as whom, and what a flood of strangers takes."""

from __future__ import annotations

import secrets as chance
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import asyncpg
import httpx
import pytest
import redis

from deploy import acl
from deploy.local import secrets
from deploy.local.layout import HOST
from deploy.settings import table
from signgate_client import Signgate
from tests.conftest import Running
from tests.e2e.conftest import Account

AT_ONCE = 8
"""Requests about accounts: fewer than one address may have in flight."""


@pytest.fixture(params=["redis", "limits"])
def store(running: Running, request: pytest.FixtureRequest) -> Iterator[tuple[str, Any]]:
    with operator(running, request.param) as found:
        yield request.param, found


def operator(running: Running, name: str) -> Any:
    return redis.Redis(
        host=HOST,
        port=running.layout.port(name),
        password=secrets.read(running.layout, name),
        client_name="a-test",
        decode_responses=True,
    )


def everyday(running: Running, account: Account) -> None:
    """Sign in, sign, look at the quota and the usage, change keys, sign out, and be refused."""
    with Signgate(running.edge) as anyone:
        session = anyone.sign_in(account.email, account.password)
    with Signgate(running.edge, access_token=session.access_token) as user:
        key = user.create_key("stores")
        with Signgate(running.edge, api_key=key.secret) as caller:
            caller.sign("https://www.tiktok.com/@signgate.e2e/live")
        user.revoke_key(key.key.id)
    headers = {"authorization": f"Bearer {session.access_token}"}
    with httpx.Client(base_url=running.edge_url, headers=headers, timeout=30) as http:
        for path in ("/v1/quota", "/v1/usage", "/v1/keys"):
            assert http.get(path).status_code == 200, path
        assert http.post("/auth/v1/logout").status_code == 204
        for path in ("/v1/quota", "/v1/usage", "/v1/keys"):
            assert http.get(path).status_code == 401, path


def test_no_service_asks_for_more_than_its_user_may(
    running: Running, account: Account, store: tuple[str, Any]
) -> None:
    """Of all that these tests made the services do until now: Redis refused no command."""
    name, client = store
    everyday(running, account)
    assert [entry for entry in client.acl_log() if entry["username"] != "default"] == []
    users = {one["user"] for one in client.client_list() if one["name"] != "a-test"}
    assert users - {"default"} == {one.login for one in acl.USERS if one.store == name}
    assert all(one["name"] for one in client.client_list() if one["user"] != "default")


async def test_no_service_is_connected_to_postgresql_as_somebody_else(running: Running) -> None:
    connection = await asyncpg.connect(running.dsn())
    try:
        rows = await connection.fetch(
            "SELECT DISTINCT usename, application_name FROM pg_stat_activity"
            " WHERE application_name LIKE 'signgate-%'"
        )
        members = await connection.fetchval(
            "SELECT count(*) FROM pg_auth_members WHERE member::regrole::text LIKE 'signgate\\_%'"
            " AND member::regrole::text <> 'signgate_owner'"
        )
    finally:
        await connection.close()
    assert {row["usename"] for row in rows} == set(table().database_roles())
    assert members == 0


def test_a_flood_of_made_up_accounts_takes_nothing_from_signing(running: Running, account: Account) -> None:
    """Through the edge, into a store of limits that is full of counters like theirs."""

    def ask(_: int) -> str:
        answer = http.post("/auth/v1/recover", json={"email": f"{chance.token_hex(12)}@made-up.test"})
        return f"{answer.status_code} {answer.text}"

    with (
        operator(running, "limits") as limits,
        operator(running, "redis") as main,
        httpx.Client(base_url=running.edge_url, timeout=60) as http,
        Signgate(running.edge, api_key=account.key) as caller,
        Signgate(running.edge) as anyone,
    ):
        with ThreadPoolExecutor(AT_ONCE) as pool:
            # Connections take memory too: all are there now.
            assert set(pool.map(ask, range(64))) == {"200 {}"}
        before = limits.config_get("maxmemory")["maxmemory"]
        room = limits.info("memory")["used_memory"] + 2_000_000
        evicted = limits.info("stats")["evicted_keys"]
        limits.config_set("maxmemory", room)
        try:
            with limits.pipeline(transaction=False) as pipe:
                for number in range(20_000):
                    pipe.set(
                        f"auth:rate:{{LIMITER/rate_mail_address/{number:032x}/6/10/minute}}", 1, px=600_000
                    )
                pipe.execute()
            assert limits.info("stats")["evicted_keys"] > evicted
            evicted = limits.info("stats")["evicted_keys"]
            with ThreadPoolExecutor(AT_ONCE) as pool:
                answers = pool.map(ask, range(300))
                for _ in range(20):
                    caller.sign("https://www.tiktok.com/@signgate.e2e/live")
                assert set(answers) == {"200 {}"}
            assert limits.info("stats")["evicted_keys"] > evicted
            assert limits.info("memory")["used_memory"] < room * 1.1
            assert anyone.sign_in(account.email, account.password).access_token
            caller.sign("https://www.tiktok.com/@signgate.e2e/live")
            assert list(main.scan_iter("auth:*")) == []
        finally:
            limits.config_set("maxmemory", before)
