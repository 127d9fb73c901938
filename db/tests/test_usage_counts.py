"""The counts by hour and by day say at any moment what the rows say."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest

from db.tests.support import User, acting
from db.tests.test_usage import Event, event, failed, ingest

if TYPE_CHECKING:
    from db.tests.support import Connect, Connection

NOBODY = UUID(int=0)
BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
MIGRATION = next(Path("db/migrations").glob("*_create_usage_rollups.sql")).read_text(encoding="utf-8")
KEY = ("api_key_id", "success", "error_message", "engine")


def some(chance: random.Random, user: User, days: int) -> Event:
    at = BEGIN + timedelta(seconds=chance.uniform(0, days * 86_400))
    if chance.random() < 0.2:
        return replace(failed(user.id, chance.choice(["QUOTA_EXHAUSTED", "RATE_LIMITED"])), at=at)
    key = user.key if chance.random() < 0.5 else None
    return event(user.id, key, ms=int(chance.expovariate(0.01)), at=at, engine=chance.choice(["native", "w"]))


async def counted(connection: Connection, user: User, start: datetime, end: datetime, *, by_day: bool) -> Any:
    found: Counter[tuple[Any, ...]] = Counter()
    total_ms = charged = 0
    async with acting(connection, "authenticated", user.id):
        rows = await connection.fetch(
            "SELECT * FROM get_usage_counts($1, $2, $3, $4)", user.id, start, end, by_day
        )
    for row in rows:
        assert start <= row["at"] < end
        found[tuple(row[name] for name in KEY)] += row["requests"]
        total_ms += row["total_ms"]
        charged += row["charged"]
    return found, total_ms, charged


def expected(events: list[Event], start: datetime, end: datetime) -> Any:
    inside = [one for one in events if start <= one.at < end]
    keys = Counter((one.key or NOBODY, one.success, one.error or "", one.engine or "") for one in inside)
    return keys, sum(one.ms for one in inside), sum(one.charged for one in inside)


@pytest.mark.parametrize("seed", range(3))
async def test_any_span_of_time_counts_what_its_rows_are(connect: Connect, alice: User, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
    logger, api = await connect("signgate_logger"), await connect("authenticator")
    events = [some(chance, alice, days=5) for _ in range(800)]
    for place in range(0, len(events), 100):
        await ingest(logger, events[place : place + 100])
        await ingest(logger, events[max(0, place - 50) : place + 30])  # redelivered: counts nothing
    spans = [(BEGIN, BEGIN + timedelta(days=5)), (BEGIN, BEGIN), (BEGIN + timedelta(days=9), BEGIN)]
    for _ in range(60):
        first, second = sorted(chance.uniform(-3600, 6 * 86_400) for _ in range(2))
        if chance.random() < 0.3:
            second = first + chance.uniform(0, 5_000)
        spans.append((BEGIN + timedelta(seconds=first), BEGIN + timedelta(seconds=second)))
    for start, end in spans:
        for by_day in (True, False):
            assert await counted(api, alice, start, end, by_day=by_day) == expected(events, start, end), (
                start,
                end,
            )


async def test_a_year_is_read_from_days_and_a_day_from_hours(
    admin: Connection, connect: Connect, alice: User
) -> None:
    """Rows that retention dropped are counted all the same."""
    logger, api = await connect("signgate_logger"), await connect("authenticator")
    await ingest(logger, [event(alice.id, at=BEGIN + timedelta(hours=n)) for n in range(72)])
    await admin.execute("DELETE FROM usage_logs")
    whole = (BEGIN, BEGIN + timedelta(days=3))
    assert (await counted(api, alice, *whole, by_day=True))[2] == 72
    await admin.execute("DELETE FROM usage_hours")
    assert (await counted(api, alice, *whole, by_day=True))[2] == 72
    assert (await counted(api, alice, *whole, by_day=False))[2] == 0


async def test_nobody_counts_anothers(connect: Connect, alice: User, bob: User) -> None:
    logger, api = await connect("signgate_logger"), await connect("authenticator")
    await ingest(logger, [event(alice.id, at=BEGIN), event(bob.id, at=BEGIN)])
    assert (await counted(api, bob, BEGIN, BEGIN + timedelta(days=1), by_day=True))[2] == 1


async def test_a_deleted_user_or_key_leaves_its_counts_and_not_itself(
    admin: Connection, connect: Connect, alice: User, bob: User
) -> None:
    logger = await connect("signgate_logger")
    await admin.execute("TRUNCATE usage_logs, usage_hours, usage_days")
    for user in (alice, bob):
        await ingest(logger, [event(user.id, user.key, at=BEGIN), event(user.id, at=BEGIN)])
    await admin.execute("DELETE FROM api_keys WHERE id = $1", alice.key)
    for table in ("usage_hours", "usage_days"):
        rows = await admin.fetch(
            f"SELECT user_id, api_key_id, requests FROM {table} WHERE user_id = $1", alice.id
        )
        assert [tuple(row) for row in rows] == [(alice.id, NOBODY, 2)]
    await admin.execute("DELETE FROM users WHERE id = ANY($1)", [alice.id, bob.id])
    for table in ("usage_hours", "usage_days"):
        rows = await admin.fetch(f"SELECT user_id, api_key_id, requests FROM {table}")
        assert [tuple(row) for row in rows] == [(NOBODY, NOBODY, 4)]
    await ingest(logger, [event(uuid4(), at=BEGIN), event(alice.id, alice.key, at=BEGIN)])
    assert await admin.fetchval("SELECT sum(requests) FROM usage_days WHERE user_id = $1", NOBODY) == 6


async def test_latencies_are_exact_when_small_and_close_when_large(admin: Connection) -> None:
    values = [*range(20_000), 10**6, 2**30 - 1, 2**30, 2**31 - 1]
    rows = await admin.fetch("SELECT v, signgate.latency_bucket(v) AS b FROM unnest($1::int[]) AS v", values)
    assert all(row["v"] == row["b"] for row in rows if row["v"] < 16)
    assert max(abs(row["v"] - row["b"]) / max(row["v"], 1) for row in rows) <= 0.0625
    buckets = [row["b"] for row in rows]
    assert buckets == sorted(buckets)


async def test_usage_from_before_the_counts_is_counted_by_the_migration(
    admin: Connection, alice: User
) -> None:
    """The migration's own statements, on rows that an earlier version wrote."""
    await admin.execute("TRUNCATE usage_hours, usage_days")
    sql = MIGRATION.split("Nobody writes meanwhile.")[1].split("-- A user or a key that is deleted")[0]
    async with admin.transaction():
        await admin.execute(sql)
    for table in ("usage_hours", "usage_days"):
        assert await admin.fetchval(f"SELECT sum(requests) FROM {table} WHERE user_id = $1", alice.id) == 3
