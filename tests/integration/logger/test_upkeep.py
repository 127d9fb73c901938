"""What must happen now and then, with replicas that come and go."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import Any

import asyncpg
import pytest

from deploy.local.layout import ROOT
from servicekit.testing.postgres import Database
from services.logger.stream import GROUP, UsageStream, name, text, type_entries
from tests.integration.logger.world import World, event


class TestConsumers:
    """On one server and on a cluster."""

    pytestmark = pytest.mark.parametrize("redis_url", ["redis", "cluster"], indirect=True)

    async def names(self, redis: Any) -> set[str]:
        return {text(consumer["name"]) for consumer in await redis.xinfo_consumers(name(0), GROUP)}

    async def take(self, world: World, stream: UsageStream) -> type_entries:
        """A fresh entry, handed to this consumer."""
        await world.publish(event(await world.user()))
        found = await stream.read(1, block_ms=None)
        assert len(found) == 1
        return found

    async def test_a_replica_that_is_gone_is_forgotten_but_never_with_an_entry_of_its_own(
        self, redis: Any, world: World
    ) -> None:
        gone, died, living = (UsageStream(redis, 0, who) for who in ("gone", "died", "living"))
        await gone.ensure_group()
        await gone.acknowledge([entry for entry, _ in await self.take(world, gone)])
        left = await self.take(world, died)
        await asyncio.sleep(0.5)
        await living.acknowledge([entry for entry, _ in await self.take(world, living)])

        assert await living.forget_consumers(400) == 1

        assert await self.names(redis) == {"died", "living"}
        assert await living.claim(0, 10) == left

    async def test_one_that_was_only_asleep_reads_on(self, redis: Any, world: World) -> None:
        asleep, living = (UsageStream(redis, 0, who) for who in ("asleep", "living"))
        await asleep.ensure_group()
        await asleep.acknowledge([entry for entry, _ in await self.take(world, asleep)])
        assert await living.forget_consumers(0) == 1
        await self.take(world, asleep)

    async def test_before_there_is_a_stream_there_is_nothing_to_forget(self, redis: Any) -> None:
        assert await UsageStream(redis, 0, "first").forget_consumers(0) == 0


class TestPartitions:
    """`python -m services.logger.partitions`, as a scheduler runs it."""

    def run(self, database: Database, **settings: str) -> subprocess.CompletedProcess[str]:
        told = {"SIGNGATE_POSTGRES_DSN": database.dsn("signgate_logger"), **settings}
        command = [sys.executable, "-m", "services.logger.partitions"]
        return subprocess.run(
            command, env=os.environ | told, cwd=ROOT, capture_output=True, text=True, check=False
        )

    async def months(self, sql: asyncpg.Connection) -> int:
        return int(
            await sql.fetchval(
                "SELECT count(*) FROM pg_inherits WHERE inhparent = 'public.usage_logs'::regclass"
            )
        )

    async def test_months_ahead_are_made_and_old_ones_dropped(
        self, database: Database, sql: asyncpg.Connection
    ) -> None:
        before = await self.months(sql)
        made = self.run(database, SIGNGATE_PARTITIONS_AHEAD="9")
        assert made.returncode == 0, made.stderr
        grown = await self.months(sql)
        assert grown > before
        await sql.execute("SELECT ensure_usage_partitions(9, 5)")  # five months back
        assert await self.months(sql) > grown
        dropped = self.run(database, SIGNGATE_PARTITIONS_AHEAD="9", SIGNGATE_RETENTION_MONTHS="2")
        assert dropped.returncode == 0, dropped.stderr
        assert "0 partitions dropped" not in dropped.stdout
        assert await self.months(sql) < await self.months_back(sql, 5)

    async def months_back(self, sql: asyncpg.Connection, back: int) -> int:
        """How many there are with so many months back."""
        async with sql.transaction():
            await sql.execute("SELECT ensure_usage_partitions(9, $1)", back)
            return await self.months(sql)

    async def test_a_database_that_is_away_fails_it(self, database: Database) -> None:
        failed = self.run(database, SIGNGATE_POSTGRES_DSN="postgresql://x:y@127.0.0.1:1/x")
        assert failed.returncode == 1
        assert failed.stderr == "Partitions are as they were: DATABASE_UNAVAILABLE\n"
