"""The books agree while everything works, and each way to break them is told by name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import UUID

import pytest

from servicekit.clock import SystemClock
from servicekit.postgres import open_database
from services.logger import metrics
from services.logger.books import DatabaseBooks, StreamBooks
from services.logger.domain import PoolCount
from services.logger.reconciliation import Reconciler, Report
from services.logger.stream import DEAD, FIELD, name
from tests.integration.logger.world import SHARDS, World, event

pytestmark = pytest.mark.parametrize("redis_url", ["redis", "cluster"], indirect=True)


class FakeCounters:
    """What quota would say, by user: `used` and `reserved` in the pool `free`."""

    def __init__(self) -> None:
        self.free: dict[str, PoolCount] = {}

    async def counters(self, user_id: str) -> tuple[PoolCount, PoolCount]:
        return self.free.get(user_id, PoolCount(0, 0)), PoolCount(0, 0)


@pytest.fixture
def counters() -> FakeCounters:
    return FakeCounters()


@asynccontextmanager
async def reconciler(world: World, counters: FakeCounters) -> AsyncIterator[Reconciler]:
    async with open_database(world.database.dsn("signgate_logger"), name="test") as database:
        books = StreamBooks(world.redis, SHARDS), DatabaseBooks(database)
        yield Reconciler(*books, counters, SystemClock(), patience=0.6)


async def differences(world: World, counters: FakeCounters) -> dict[str, int]:
    async with reconciler(world, counters) as found:
        return told(await found.run())


def told(report: Report) -> dict[str, int]:
    units: dict[str, int] = {}
    for one in report.differences:
        units[one.kind] = units.get(one.kind, 0) + one.units
    return units


async def signed(world: World, counters: FakeCounters, user: UUID, count: int) -> None:
    """Published as signers do, committed, and counted by quota."""
    before = await world.rows()
    async with world.logger():
        for place in range(count):
            await world.publish(event(user), shard=place % SHARDS)
        await world.until(rows=before + count)
    counters.free[str(user)] = PoolCount(count, 0)


async def test_books_that_agree_have_no_difference(world: World, counters: FakeCounters) -> None:
    user = await world.user()
    await signed(world, counters, user, 6)
    async with world.logger():
        await world.publish(event(user, success=False))
        await world.until(rows=7)
    async with reconciler(world, counters) as found:
        report = await found.run()
    assert report.differences == []
    assert (report.published, report.rows, report.waiting, report.charged) == (7, 7, 0, 6)


async def test_what_waits_in_a_stream_or_is_set_aside_is_not_lost(
    world: World, counters: FakeCounters
) -> None:
    user = await world.user()
    await signed(world, counters, user, 2)
    await world.publish(event(user), event(user))  # and no logger runs
    counters.free[str(user)] = PoolCount(4, 2)
    async with reconciler(world, counters) as found:
        report = await found.run()
    assert report.differences == []
    assert report.waiting == 2
    entries = await world.redis.xrange(name(0))
    await world.redis.xadd(DEAD, {"e": entries[-1][1][FIELD]})
    await world.redis.delete(name(0))
    assert await differences(world, counters) == {}


async def test_an_acknowledged_signature_that_is_nowhere_is_lost(
    world: World, counters: FakeCounters
) -> None:
    user = await world.user()
    await signed(world, counters, user, 3)
    await world.publish(event(user))
    await world.redis.xtrim(name(0), maxlen=0)
    counters.free[str(user)] = PoolCount(3, 0)
    assert await differences(world, counters) == {"lost": 2}  # a request, and a signature


async def test_rows_that_nobody_published_are_told(world: World, counters: FakeCounters) -> None:
    user = await world.user()
    await world.sql.execute("SELECT log_api_usage($1, NULL, 'u', true, 5, p_charged => 1)", user)
    counters.free[str(user)] = PoolCount(1, 0)
    assert await differences(world, counters) == {"unpublished": 2}


async def test_a_row_that_vanished_shows_in_every_book(world: World, counters: FakeCounters) -> None:
    user = await world.user()
    await signed(world, counters, user, 3)
    await world.sql.execute("DELETE FROM usage_logs WHERE id = (SELECT id FROM usage_logs LIMIT 1)")
    assert await differences(world, counters) == {"lost": 2, "counted": 1, "quota_usage": 1}


async def test_a_counter_below_or_above_what_is_committed_is_told_with_its_user(
    world: World, counters: FakeCounters
) -> None:
    user = await world.user()
    await signed(world, counters, user, 3)
    counters.free[str(user)] = PoolCount(2, 0)
    assert await differences(world, counters) == {"counter_low": 1}
    counters.free[str(user)] = PoolCount(9, 2)
    async with reconciler(world, counters) as found:
        report = await found.run()
    assert told(report) == {"counter_high": 4}
    assert str(user) in report.differences[0].what
    counters.free[str(user)] = PoolCount(9, 6)  # what is reserved is on its way
    assert await differences(world, counters) == {}


async def test_a_settlement_on_its_way_is_waited_for(world: World, counters: FakeCounters) -> None:
    user = await world.user()
    await signed(world, counters, user, 3)
    counters.free[str(user)] = PoolCount(2, 0)

    async def settle() -> None:
        await asyncio.sleep(0.2)
        counters.free[str(user)] = PoolCount(3, 0)

    settling = asyncio.create_task(settle())
    assert await differences(world, counters) == {}
    await settling


async def test_another_day_is_compared_without_counters(world: World, counters: FakeCounters) -> None:
    user = await world.user()
    await signed(world, counters, user, 3)
    counters.free.clear()
    day = datetime(2026, 1, 1, tzinfo=UTC).date()
    async with reconciler(world, counters) as found:
        report = await found.run(day)
    assert (report.rows, report.differences) == (0, [])


async def test_under_load_the_books_agree_at_every_moment(world: World, counters: FakeCounters) -> None:
    """Read again and again while events are published and committed: no false difference."""
    users = [await world.user() for _ in range(3)]
    counted: dict[UUID, int] = dict.fromkeys(users, 0)
    stop = asyncio.Event()

    async def publishing() -> None:
        place = 0
        while not stop.is_set():
            user = users[place % 3]
            counted[user] += 5
            counters.free[str(user)] = PoolCount(counted[user], counted[user])  # none is final
            await world.publish(*[event(user) for _ in range(5)], shard=place % SHARDS)
            place += 1
            await asyncio.sleep(0.001)

    async with world.logger("a"), world.logger("b"), reconciler(world, counters) as found:
        load = asyncio.create_task(publishing())
        reports = [await found.run() for _ in range(25)]
        stop.set()
        await load
        await world.until(rows=sum(counted.values()))
        last = await found.run()
    assert [told(report) for report in reports] == [{}] * 25
    assert reports[0].rows < last.rows == last.published == sum(counted.values())


async def test_the_logger_shows_differences_as_metrics(world: World) -> None:
    user = await world.user()
    async with world.logger(reconcile_interval=0.2, metrics_listen="127.0.0.1:0"):
        await world.publish(event(user))
        await world.until(rows=1)
        await world.redis.delete(f"{name(0)}:published")
        async with asyncio.timeout(30):
            while metrics.difference.labels("unpublished")._value.get() != 2:
                await asyncio.sleep(0.05)
    assert metrics.difference.labels("lost")._value.get() == 0
