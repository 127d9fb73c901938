from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from redis.asyncio import Redis

from servicekit.testing.network import RedisProcess, redis_server
from servicekit.testing.postgres import Cluster, Database, postgres_cluster
from servicekit.testing.tokens import TokenMint
from tests.integration.keys import world as keys_world
from tests.integration.quota import world as quota_world
from tests.integration.signer.world import Signer, World, make_keyset
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
def keyset_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "signing-keys.json"
    make_keyset(path)
    return path


@pytest.fixture
async def world(
    database: Database, redis_process: RedisProcess, keyset_file: Path, tmp_path: Path
) -> AsyncIterator[World]:
    mint = TokenMint()
    own_keyset = tmp_path / "signing-keys.json"
    own_keyset.write_bytes(keyset_file.read_bytes())
    async with AsyncExitStack() as stack:
        redis = Redis.from_url(redis_process.url)
        stack.push_async_callback(redis.aclose)
        await redis.flushall()
        sql = await asyncpg.connect(database.dsn())
        stack.push_async_callback(sql.close)
        await sql.execute("TRUNCATE public.users CASCADE")
        jwks_url = stack.enter_context(keys_world.jwks_server(mint))

        async def cable(port: int) -> keys_world.Cable:
            made = keys_world.Cable(port)
            await made.mend()
            stack.push_async_callback(made.cut)
            return made

        of_keys = keys_world.World(
            database, sql, redis_process.url, await cable(database.port), mint, jwks_url
        )
        patience = {"redis_timeout": 3.0, "load_timeout": 3.0, "plans_interval": 0.1}
        of_quota = quota_world.World(database, sql, redis_process.url, mint, jwks_url, settings=patience)
        # As the plans' own tests left them, or not: every test begins with room.
        await of_quota.plan("free", 1000)
        await of_quota.plan("api_key", 1000)
        keys = await stack.enter_async_context(of_keys.replica())
        quota = await stack.enter_async_context(of_quota.replica())
        redis_port = urlsplit(redis_process.url).port
        assert redis_port is not None
        yield World(
            of_keys,
            keys,
            of_quota,
            quota,
            redis,
            await cable(redis_port),
            await cable(keys.address.port),
            await cable(quota.address.port),
            own_keyset,
        )


@pytest.fixture
async def signer(world: World) -> AsyncIterator[Signer]:
    async with world.signer() as found:
        yield found
