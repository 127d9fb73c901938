"""How full the stores are, and whether they can still write, as they themselves say."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY
from redis.asyncio import RedisCluster

from servicekit.postgres import open_database
from services.logger.stores import StoreWatch
from tests.integration.logger.world import World

pytestmark = pytest.mark.parametrize("redis_url", ["redis", "cluster"], indirect=True)


def per_node(name: str) -> dict[str, float]:
    """A metric's values, by node."""
    return {
        sample.labels["node"]: sample.value
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.name == name
    }


async def test_every_node_and_the_database_are_told(world: World) -> None:
    async with open_database(world.database.dsn("signgate_logger"), name="stores") as database:
        await StoreWatch(world.redis, database).look()
    nodes = set(per_node("signgate_redis_memory_used_bytes"))
    if isinstance(world.redis, RedisCluster):
        assert {node.name for node in world.redis.get_primaries()} <= nodes
    assert all(value > 100_000 for value in per_node("signgate_redis_memory_used_bytes").values())
    assert REGISTRY.get_sample_value("signgate_postgres_database_bytes") == pytest.approx(
        await world.sql.fetchval("SELECT pg_database_size(current_database())"), rel=0.5
    )
    most = REGISTRY.get_sample_value("signgate_postgres_server_connections_max")
    assert most == int(await world.sql.fetchval("SHOW max_connections"))
    used = REGISTRY.get_sample_value("signgate_postgres_server_connections")
    assert used is not None
    assert 1 <= used <= most


async def test_a_redis_that_keeps_nothing_is_told(world: World) -> None:
    """Without its append-only file a crash loses what was acknowledged."""
    every = {"target_nodes": RedisCluster.PRIMARIES} if isinstance(world.redis, RedisCluster) else {}
    async with open_database(world.database.dsn("signgate_logger"), name="stores") as database:
        watch = StoreWatch(world.redis, database)
        for setting, expected in (("yes", 1), ("no", 0)):
            await world.redis.config_set("appendonly", setting, **every)
            await watch.look()
            async for node, _ in watch._redis_nodes():
                assert per_node("signgate_redis_persisting")[node] == expected
