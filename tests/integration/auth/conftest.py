from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis

from servicekit import keyset
from servicekit.testing.network import RedisProcess, redis_server
from servicekit.testing.postgres import Cluster, Database, postgres_cluster
from tests.integration.auth.world import World, mail_server, replica
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
def database(cluster: Cluster) -> Database:
    return cluster.create_database()


@pytest.fixture(scope="session")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "jwt.json"
    assert keyset.main(["new", "--alg", "ES256", "--out", str(path)]) == 0
    return path


@pytest.fixture
async def world(database: Database, redis_process: RedisProcess, keys_file: Path) -> AsyncIterator[World]:
    sql = await asyncpg.connect(database.dsn())
    redis = Redis.from_url(redis_process.url)
    await redis.flushall()
    async with mail_server() as mailbox:
        make = partial(replica, database, redis_process.url, mailbox.port, keys_file)
        async with make() as auth:
            yield World(auth, mailbox, sql, redis, make)
    await redis.aclose()
    await sql.close()
