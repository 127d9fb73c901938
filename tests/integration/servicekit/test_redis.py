"""The Redis helpers against a real redis-server, also one that stops."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import pytest
from prometheus_client import REGISTRY
from redis.exceptions import ResponseError

from servicekit.authn import SessionState
from servicekit.keepalive import OPTIONS
from servicekit.redis import DeniedSessions, Redis, RedisUnavailable, Script, open_redis, ping, translated
from servicekit.testing.network import RedisProcess, redis_server
from servicekit.testing.redis_cluster import redis_cluster


@pytest.fixture(scope="module")
def server() -> Iterator[RedisProcess]:
    with redis_server() as process:
        yield process


@pytest.fixture
async def client(server: RedisProcess) -> AsyncIterator[Redis]:
    async with open_redis(server.url) as opened:
        yield opened


async def test_a_script_runs_also_when_the_server_has_forgotten_it(client: Redis) -> None:
    """A restarted or failed-over Redis knows no script."""
    double = Script("redis.call('INCRBY', KEYS[1], ARGV[1]); return redis.call('GET', KEYS[1])")
    assert await double(client, ["{u}:n"], [2]) == b"2"
    assert await double(client, ["{u}:n"], [2]) == b"4"
    await client.script_flush()
    assert await double(client, ["{u}:n"], [2]) == b"6"


async def test_a_scripts_own_error_is_not_taken_for_trouble(client: Redis) -> None:
    with pytest.raises(ResponseError, match="mine"):
        await Script("return redis.error_reply('mine')")(client, [])


async def test_states_of_sessions_in_one_round_trip(client: Redis) -> None:
    sessions = DeniedSessions(client)
    one, two, three = (str(uuid4()) for _ in range(3))
    await sessions.deny(two, 60)
    await sessions.lower(two, 1, 60, has_factor=False)
    await sessions.lower(three, 7, 60)
    await sessions.lower(three, 8, 60)
    before = await client.info("commandstats")
    found = await sessions.states([one, two, three])
    assert list(found) == [SessionState(), SessionState(True, 1, False), SessionState(lowered=8)]
    after = await client.info("commandstats")
    asked = {name: after[name]["calls"] - before.get(name, {"calls": 0})["calls"] for name in after}
    assert {name: calls for name, calls in asked.items() if calls and name != "cmdstat_info"} == {
        "cmdstat_mget": 1
    }
    assert list(await sessions.states([two])) == [SessionState(True, 1, False)]
    assert list(await sessions.states([])) == []
    for key in (f"session:denied:{two}", f"session:lowered:{three}"):
        assert 55 < await client.ttl(key) <= 60


async def test_idle_connections_are_probed(client: Redis) -> None:
    """Else a server that went without a word is found out by somebody's request."""
    connection = await client.connection_pool.get_connection()  # type: ignore[union-attr]  # no cluster
    try:
        where = connection._writer.get_extra_info("socket")
        assert where.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert OPTIONS
        for option, seconds in OPTIONS.items():
            assert where.getsockopt(socket.IPPROTO_TCP, option) == seconds
    finally:
        await client.connection_pool.release(connection)  # type: ignore[union-attr]  # no cluster


async def test_idle_connections_outlive_a_restart_at_no_requests_cost() -> None:
    """They are dead then; the pool looks before it lends one."""
    with redis_server() as server:
        async with open_redis(server.url) as client:
            await asyncio.gather(*(client.ping() for _ in range(8)))
            server.stop()
            server.start()
            await asyncio.sleep(0.2)
            assert await asyncio.gather(*(client.ping() for _ in range(8))) == [True] * 8


async def test_nobody_there_is_told_at_start() -> None:
    with pytest.raises(RedisUnavailable):
        async with open_redis("redis://127.0.0.1:1/0"):
            pytest.fail("it can't have opened")


async def test_a_redis_that_goes_away_fails_fast_and_comes_back_without_a_restart() -> None:
    with redis_server() as server:
        async with open_redis(server.url, timeout=2.0) as client:
            sessions = DeniedSessions(client)
            assert list(await sessions.states(["s"])) == [SessionState()]
            server.stop()
            async with asyncio.timeout(20):
                with pytest.raises(RedisUnavailable):
                    await sessions.states(["s", "t"])
                with pytest.raises(RedisUnavailable) as caught:
                    await sessions.states(["s"])
            assert caught.value.retry_after is not None
            assert "127.0.0.1" not in str(caught.value)
            server.start()
            await ping(client)
            assert list(await sessions.states(["s"])) == [SessionState()]


async def test_a_redis_that_hangs_is_given_up_after_the_timeout(server: RedisProcess) -> None:
    async with open_redis(server.url, timeout=0.2) as client, open_redis(server.url) as other:
        started = time.monotonic()
        with pytest.raises(RedisUnavailable), translated():
            await client.blpop(["nothing"], timeout=20)
        assert time.monotonic() - started < 15
        await ping(other)


async def test_a_pools_use_is_in_the_metrics_while_it_is_open(server: RedisProcess) -> None:
    def use(state: str) -> float | None:
        return REGISTRY.get_sample_value(
            "signgate_redis_pool_connections", {"pool": "observed", "state": state}
        )

    async with open_redis(server.url, name="observed") as client:
        assert (use("in_use"), use("idle")) == (0, 1)
        async with client.pubsub() as channel:
            await channel.subscribe("anything")
            assert (use("in_use"), use("idle")) == (1, 0)
        assert use("in_use") == 0
    assert (use("in_use"), use("idle")) == (None, None)


async def test_a_cluster_clients_connections_are_counted_over_its_nodes() -> None:
    with redis_cluster() as cluster:
        async with open_redis(cluster.url, name="observed") as client:
            for key in ("a", "b", "c", "d"):
                await client.set(key, 1)
            in_use, idle = (
                REGISTRY.get_sample_value(
                    "signgate_redis_pool_connections", {"pool": "observed", "state": state}
                )
                for state in ("in_use", "idle")
            )
    assert in_use == 0
    assert idle is not None
    assert idle >= 3


async def test_trouble_is_counted(server: RedisProcess) -> None:
    before = REGISTRY.get_sample_value("signgate_redis_failures_total") or 0.0
    with pytest.raises(RedisUnavailable):
        async with open_redis("redis://127.0.0.1:1/0"):
            pytest.fail("it can't have opened")
    assert REGISTRY.get_sample_value("signgate_redis_failures_total") == before + 1


async def test_states_of_sessions_on_the_nodes_of_a_cluster() -> None:
    ids = [str(uuid4()) for _ in range(8)]
    with redis_cluster() as cluster:
        async with open_redis(cluster.url) as client:
            sessions = DeniedSessions(client)
            await sessions.deny(ids[1], 60)
            for version, one in enumerate(ids):
                await sessions.lower(one, version, 60)
            found = await sessions.states(ids)
    assert list(found) == [SessionState(at == 1, at) for at in range(8)]
