"""A logger in this process, on a real PostgreSQL and a real Redis; quota is a fake that keeps books."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest
from redis import Redis as SyncRedis

from servicekit.redis import open_redis
from servicekit.testing.network import RedisProcess, listening, redis_server
from servicekit.testing.postgres import Cluster, Database, postgres_cluster
from servicekit.testing.redis_cluster import RedisClusterProcesses, redis_cluster
from signgate.quota.v1 import enforcement_pb2_grpc
from tests.integration.logger.world import FakeQuota, World
from tests.redis_users import USERS


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    with postgres_cluster() as found:
        yield found


@pytest.fixture(scope="session")
def redis_process() -> Iterator[RedisProcess]:
    with redis_server(always=USERS) as found:
        yield found


@pytest.fixture(scope="session")
def three_masters() -> Iterator[RedisClusterProcesses]:
    with redis_cluster(always=USERS) as found:
        yield found


@pytest.fixture
def redis_url(request: pytest.FixtureRequest) -> str:
    """One server; or, in modules that ask for both (by `pytestmark`), a cluster of three as well. Empty."""
    if getattr(request, "param", "redis") == "cluster":
        cluster: RedisClusterProcesses = request.getfixturevalue("three_masters")
        cluster.flush()
        return cluster.url
    process: RedisProcess = request.getfixturevalue("redis_process")
    with SyncRedis.from_url(process.url) as client:
        client.flushall()
    return process.url


@pytest.fixture
def database(cluster: Cluster) -> Database:
    return cluster.create_database()


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Any]:
    async with open_redis(redis_url, timeout=3.0) as client:
        yield client


@pytest.fixture
async def sql(database: Database) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database.dsn())
    yield connection
    await connection.close()


@pytest.fixture
async def world(
    database: Database, redis: Any, redis_url: str, sql: asyncpg.Connection
) -> AsyncIterator[World]:
    quota = FakeQuota()
    register = enforcement_pb2_grpc.add_QuotaEnforcementServiceServicer_to_server
    async with listening((quota, register), name="quota") as (_, port):
        yield World(database, redis, redis_url, sql, quota, port)
