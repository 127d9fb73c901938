"""What reconciliation reads: the streams, the database, the counters. It changes nothing."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, NamedTuple
from uuid import UUID

from redis.asyncio import Redis, RedisCluster

from servicekit.postgres import Database
from services.logger import codec, stream
from services.logger.errors import PoisonEntryError

PAGE = 500
"""Entries read at a time."""
SIGNATURE = 1 << 32
"""A count of published events is events + SIGNATURE * signatures: see the signer's publish.lua."""


class Count(NamedTuple):
    """Requests, and those of them that were signed."""

    requests: int
    signatures: int


class Charged(NamedTuple):
    """A user's day, in all and in the pool of keys: by the rows, and by the counting tables."""

    in_rows: int
    in_rows_by_keys: int
    counted: int
    counted_by_keys: int


@dataclass(slots=True)
class Waiting:
    """Events of a day that are in a stream or set aside, by id; whether each is a signature."""

    events: dict[UUID, tuple[datetime, bool]] = field(default_factory=dict)
    unreadable: int = 0
    """Entries that hold no events: there is no telling what they were."""


@dataclass(frozen=True, slots=True)
class DayBooks:
    """A day in the database, of one snapshot. `waiting`: what of the given events is no row yet."""

    rows: Count
    counted: Count
    waiting: Count
    charged: dict[str, Charged]


class StreamBooks:
    """The usage streams and the dead letters."""

    def __init__(self, redis: Redis | RedisCluster, shards: int) -> None:
        self._redis: Any = redis
        self._streams = [stream.UsageStream(redis, shard, "reconcile") for shard in range(shards)]

    async def published(self, day: date) -> Count:
        """Events that signers appended, of all shards."""
        field_ = str((day - codec.EPOCH_DAY).days)
        packed = 0
        for one in self._streams:
            packed += int(await self._redis.hget(f"{one.key}:published", field_) or 0)
        return Count(packed % SIGNATURE, packed // SIGNATURE)

    async def waiting(self, day: date) -> Waiting:
        """Everything from the first entry on that is not acknowledged, and all dead letters.

        More than what waits: acknowledged entries in between are in it as well.
        """
        found = Waiting()
        for one in self._streams:
            if await self._redis.exists(one.key):
                await self._read(one.key, await one.floor(), day, found)
        await self._read(stream.DEAD, "-", day, found)
        return found

    async def _read(self, key: str, start: str, day: date, found: Waiting) -> None:
        while entries := stream.pairs(await self._redis.xrange(key, min=start, count=PAGE)):
            for entry_id, payload in entries:
                try:
                    rows = codec.decode(entry_id, payload).rows
                except PoisonEntryError:
                    found.unreadable += 1
                    continue
                for row in rows:
                    if row.created_at.date() == day:
                        found.events[row.id] = (row.created_at, row.success)
            ms, sequence = stream.parts(entries[-1][0])
            start = f"{ms}-{sequence + 1}"


class DatabaseBooks:
    """The tables. Raises `Unavailable`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def day(self, day: date, waiting: Waiting) -> DayBooks:
        """All of it in one snapshot: what is a row there does not wait, what is not does."""
        ids = list(waiting.events)
        async with (
            self._database.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            totals = await connection.fetchrow("SELECT * FROM reconcile_usage_day($1)", day)
            there: set[UUID] = set()
            for start in range(0, len(ids), 10_000):
                part = ids[start : start + 10_000]
                moments = [waiting.events[one][0] for one in part]
                rows = await connection.fetch("SELECT find_usage($1, $2) AS id", part, moments)
                there.update(row["id"] for row in rows)
            charged = await connection.fetch("SELECT * FROM reconcile_charges($1)", day)
        assert totals is not None  # noqa: S101 - the function gives one row, always
        missing = [good for one, (_, good) in waiting.events.items() if one not in there]
        return DayBooks(
            rows=Count(totals["requests"], totals["signatures"]),
            counted=Count(totals["counted_requests"], totals["counted_signatures"]),
            waiting=Count(len(missing), sum(missing)),
            charged=_charged(charged),
        )

    async def charged(self, day: date, users: Collection[str]) -> dict[str, Charged]:
        """Some users' days."""
        ids = [UUID(user) for user in users]
        return _charged(await self._database.fetch("SELECT * FROM reconcile_charges($1, $2)", day, ids))


def _charged(rows: Sequence[Any]) -> dict[str, Charged]:
    return {
        str(row["user_id"]): Charged(
            row["in_rows"], row["in_rows_by_keys"], row["counted"], row["counted_by_keys"]
        )
        for row in rows
    }
