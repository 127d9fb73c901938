from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from servicekit.testing.network import RedisProcess, redis_server
from servicekit.testing.postgres import Cluster, Database, postgres_cluster
from servicekit.testing.tokens import TokenMint
from tests.integration.keys.world import Cable, Replica, User, World, jwks_server
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


@pytest.fixture
async def world(database: Database, redis_process: RedisProcess) -> AsyncIterator[World]:
    mint = TokenMint()
    cable = Cable(database.port)
    await cable.mend()
    sql = await asyncpg.connect(database.dsn())
    await sql.execute("TRUNCATE public.users CASCADE")
    with jwks_server(mint) as jwks_url:
        yield World(database, sql, redis_process.url, cable, mint, jwks_url)
    await sql.close()
    await cable.cut()


@pytest.fixture
async def keys(world: World) -> AsyncIterator[Replica]:
    async with world.replica() as found:
        yield found


@pytest.fixture
async def ann(world: World) -> User:
    return await world.user()


@pytest.fixture
async def bob(world: World) -> User:
    return await world.user()
