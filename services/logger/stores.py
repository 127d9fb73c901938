"""What the stores say of themselves: how full they are, and whether they can still write.

Every replica asks; the answers are the same. A store that does not answer keeps its last numbers: that it
is away is told by other metrics.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

from redis.asyncio import Redis, RedisCluster
from redis.exceptions import RedisError

from servicekit import log as logging
from servicekit.errors import Unavailable
from servicekit.postgres import Database
from services.logger import metrics

EVERY: Final = 15.0
"""Seconds."""
POSTGRES: Final = """
SELECT pg_database_size(current_database()) AS bytes, sum(numbackends) AS connections,
       current_setting('max_connections')::integer AS most
FROM pg_stat_database
"""
log = logging.get("stores")


class StoreWatch:
    """Run by `run` until cancelled."""

    def __init__(self, redis: Redis | RedisCluster, database: Database) -> None:
        self._redis: Any = redis
        self._database = database

    async def run(self) -> None:
        """Look every `EVERY` seconds."""
        while True:
            try:
                await self.look()
            except (Unavailable, RedisError, OSError) as error:
                log.warning("a store does not tell of itself", error=type(error).__name__)
            await asyncio.sleep(EVERY)

    async def look(self) -> None:
        """Ask both, once. Raises the drivers' errors."""
        async for node, info in self._redis_nodes():
            metrics.redis_memory.labels(node).set(info["used_memory"])
            metrics.redis_memory_max.labels(node).set(info["maxmemory"])
            writes = info["aof_enabled"] and info["aof_last_write_status"] == "ok"
            metrics.redis_persisting.labels(node).set(int(writes))
        found = await self._database.fetchrow(POSTGRES)
        assert found is not None  # noqa: S101  # a sum is one row, always
        metrics.postgres_bytes.set(found["bytes"])
        metrics.postgres_connections.set(found["connections"])
        metrics.postgres_connections_max.set(found["most"])

    async def _redis_nodes(self) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """What INFO says, of the one server or of each primary of the cluster."""
        if isinstance(self._redis, RedisCluster):
            for node in self._redis.get_primaries():
                yield node.name, await self._redis.info("everything", target_nodes=node)
        else:
            where = self._redis.connection_pool.connection_kwargs
            yield f"{where['host']}:{where['port']}", await self._redis.info("everything")
