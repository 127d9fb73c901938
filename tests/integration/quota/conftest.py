from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from uuid import UUID

import asyncpg
import pytest
import redis

from servicekit.clock import next_utc_midnight
from servicekit.redis import Redis, open_redis
from servicekit.testing.network import RedisProcess, redis_server
from servicekit.testing.postgres import Cluster, postgres_cluster
from servicekit.testing.redis_cluster import RedisClusterProcesses, redis_cluster
from servicekit.testing.tokens import TokenMint
from tests.integration.quota.world import Replica, World
from tests.redis_users import USERS


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    with postgres_cluster() as found:
        yield found


@pytest.fixture(scope="session")
def one_redis() -> Iterator[RedisProcess]:
    with redis_server(always=USERS) as found:
        yield found


@pytest.fixture(scope="session")
def three_masters() -> Iterator[RedisClusterProcesses]:
    with redis_cluster(always=USERS) as found:
        yield found


@pytest.fixture(params=["redis", "cluster"])
def redis_url(request: pytest.FixtureRequest) -> str:
    """Every test that asks for it runs against one empty server, and against an empty cluster of three."""
    if request.param == "cluster":
        cluster: RedisClusterProcesses = request.getfixturevalue("three_masters")
        cluster.flush()
        return cluster.url
    server: RedisProcess = request.getfixturevalue("one_redis")
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
    return server.url


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Redis]:
    async with open_redis(redis_url, timeout=5) as found:
        yield found


@pytest.fixture
async def daylight() -> None:
    """Days are the real clock's here: nothing begins in the last seconds of one."""
    now = datetime.now(UTC)
    left = (next_utc_midnight(now) - now).total_seconds()
    if left < 20:
        await asyncio.sleep(left + 0.1)


WorldOn = Callable[[str], AbstractAsyncContextManager[World]]


@pytest.fixture
def world_on(postgres: Cluster, daylight: None) -> WorldOn:
    """A world on a Redis of the test's own."""

    @asynccontextmanager
    async def make(redis_url: str) -> AsyncIterator[World]:
        database = postgres.create_database()
        sql = await asyncpg.connect(database.dsn())
        # A service on a busy machine is no subject of most tests: those that measure set their own.
        patience = {"redis_timeout": 3.0, "load_timeout": 3.0, "plans_interval": 0.1}
        yield World(database, sql, redis_url, TokenMint(), "http://127.0.0.1:9/jwks", settings=patience)
        await sql.close()

    return make


@pytest.fixture
async def world(world_on: WorldOn, redis_url: str) -> AsyncIterator[World]:
    async with world_on(redis_url) as found:
        yield found


@pytest.fixture
async def quota(world: World) -> AsyncIterator[Replica]:
    async with world.replica() as found:
        yield found


@pytest.fixture
async def ann(world: World) -> UUID:
    return await world.user()


@pytest.fixture
async def bob(world: World) -> UUID:
    return await world.user()
