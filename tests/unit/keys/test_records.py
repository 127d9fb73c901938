"""Ages, sharing of reads, invalidation against reads under way, and bounds of memory."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from servicekit import apikey
from servicekit.errors import Unavailable
from servicekit.testing.clock import ManualClock
from services.keys.domain import Record
from services.keys.records import Bounds, Records


def record(number: int, **changes: Any) -> Record:
    members: dict[str, Any] = {
        "key_id": UUID(int=number), "user_id": UUID(int=9), "digest": b"d", "pepper_version": 1,
        "revoked": False, "user_active": True, "tier": "api_key", "scopes": ("sign",),
    }  # fmt: skip
    return Record(**(members | changes))


def text(number: int) -> str:
    return apikey.text_of(UUID(int=number))


class Table:
    """A table of records that can be held, broken and counted."""

    def __init__(self, *records: Record) -> None:
        self.rows = {r.key_id: r for r in records}
        self.reads: list[int] = []
        self.broken = False
        self.open = asyncio.Event()
        self.open.set()

    async def read(self, key_ids: Collection[UUID]) -> Mapping[UUID, Record]:
        if self.broken:
            raise Unavailable
        self.reads.append(len(key_ids))
        found = {key_id: self.rows[key_id] for key_id in key_ids if key_id in self.rows}
        await self.open.wait()
        return found


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def records(table: Table, clock: ManualClock, **changes: Any) -> Records:
    return Records(table.read, clock, replace(Bounds(), **changes))


async def look(by: Records, clock: ManualClock, number: int) -> Record | str | None:
    if by.stale([text(number)], clock.monotonic()):
        await by.refresh([text(number)])
    entry = by.get(text(number), clock.monotonic())
    return "unknown" if entry is None else entry.record


async def test_a_record_inside_the_soft_age_is_not_read_again(clock: ManualClock) -> None:
    table = Table(record(1))
    by = records(table, clock)
    assert await look(by, clock, 1) == record(1)
    clock.advance(0.15)
    assert await look(by, clock, 1) == record(1)
    assert len(table.reads) == 1
    clock.advance(0.001)
    table.rows[UUID(int=1)] = record(1, revoked=True)
    assert await look(by, clock, 1) == record(1, revoked=True)


async def test_age_counts_from_the_beginning_of_the_read(clock: ManualClock) -> None:
    table = Table(record(1))
    by = records(table, clock)
    table.open.clear()
    looking = asyncio.create_task(look(by, clock, 1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    clock.advance(0.14)
    table.open.set()
    await looking
    clock.advance(0.02)
    assert by.stale([text(1)], clock.monotonic()) == [text(1)]


async def test_an_unchanged_record_keeps_its_answer(clock: ManualClock) -> None:
    by = records(Table(record(1)), clock)
    await look(by, clock, 1)
    first = by.get(text(1), clock.monotonic())
    assert first is not None
    answer = first.answer
    clock.advance(1)
    await look(by, clock, 1)
    second = by.get(text(1), clock.monotonic())
    assert second is not None
    assert second.answer is answer


async def test_while_reads_fail_records_serve_until_the_hard_age(clock: ManualClock) -> None:
    table = Table(record(1))
    by = records(table, clock)
    await look(by, clock, 1)
    table.broken = True
    clock.advance(5.0)
    assert await look(by, clock, 1) == record(1)
    assert await look(by, clock, 2) == "unknown"
    clock.advance(0.001)
    assert await look(by, clock, 1) == "unknown"


async def test_after_a_failed_read_none_is_tried_for_a_while(clock: ManualClock) -> None:
    table = Table(record(1))
    by = records(table, clock)
    table.broken = True
    assert await look(by, clock, 1) == "unknown"
    table.broken = False
    clock.advance(0.2)
    assert await look(by, clock, 1) == "unknown"
    clock.advance(0.1)
    assert await look(by, clock, 1) == record(1)


async def test_concurrent_needs_share_reads(clock: ManualClock) -> None:
    """However many callers wait: one read in flight, and one more for all that came meanwhile."""
    table = Table(*(record(i) for i in range(50)))
    by = records(table, clock)
    table.open.clear()
    looking = [asyncio.create_task(look(by, clock, 0))]
    for _ in range(3):
        await asyncio.sleep(0)
    looking += [asyncio.create_task(look(by, clock, i % 50)) for i in range(500)]
    for _ in range(3):
        await asyncio.sleep(0)
    table.open.set()
    found = await asyncio.gather(*looking)
    assert found[1:51] == [record(i) for i in range(50)]
    assert len(table.reads) == 2


async def test_a_caller_that_goes_away_takes_nobodys_read_along(clock: ManualClock) -> None:
    table = Table(record(1))
    by = records(table, clock)
    table.open.clear()
    first = asyncio.create_task(look(by, clock, 1))
    second = asyncio.create_task(look(by, clock, 1))
    for _ in range(3):
        await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    table.open.set()
    assert await second == record(1)


async def test_what_is_invalidated_during_its_read_is_read_again(clock: ManualClock) -> None:
    """The read may have begun before the change was committed."""
    table = Table(record(1))
    by = records(table, clock)
    table.open.clear()
    looking = asyncio.create_task(look(by, clock, 1))
    for _ in range(3):
        await asyncio.sleep(0)
    assert table.reads == [1]
    table.rows[UUID(int=1)] = record(1, revoked=True)
    by.forget(UUID(int=1))
    table.open.set()
    assert await looking == record(1, revoked=True)
    assert table.reads == [1, 1]


async def test_after_missed_messages_every_record_is_read_again(clock: ManualClock) -> None:
    table = Table(record(1))
    by = records(table, clock)
    await look(by, clock, 1)
    by.distrust_all()
    table.rows[UUID(int=1)] = record(1, revoked=True)
    assert await look(by, clock, 1) == record(1, revoked=True)


async def test_made_up_ids_are_kept_apart_briefly_and_bounded(clock: ManualClock) -> None:
    table = Table(record(1))
    by = records(table, clock, size=10, unknown_size=20)
    await look(by, clock, 1)
    for number in range(100, 200):
        assert await look(by, clock, number) is None
    assert len(by._unknown) == 20
    assert by.get(text(1), clock.monotonic()) is not None
    reads = len(table.reads)
    assert await look(by, clock, 199) is None
    assert len(table.reads) == reads
    clock.advance(2.1)
    assert by.stale([text(199)], clock.monotonic()) == [text(199)]


async def test_the_record_read_longest_ago_leaves_first(clock: ManualClock) -> None:
    by = records(Table(*(record(i) for i in range(5))), clock, size=3)
    for number in (0, 1, 2):
        await look(by, clock, number)
    clock.advance(1)
    await look(by, clock, 0)
    await look(by, clock, 3)
    assert by.get(text(0), clock.monotonic()) is not None
    assert by.get(text(1), clock.monotonic()) is None


async def test_used_records_are_read_ahead_of_their_soft_age_and_others_are_not(clock: ManualClock) -> None:
    table = Table(record(1), record(2))
    by = records(table, clock, soft=0.03)
    await look(by, clock, 1)
    await look(by, clock, 2)
    keeping = asyncio.create_task(by.keep_fresh())
    clock.advance(0.02)
    assert by.get(text(1), clock.monotonic()) is not None
    by._used.discard(text(2))
    await asyncio.sleep(0.05)
    clock.advance(0.02)
    assert by.stale([text(1), text(2)], clock.monotonic()) == [text(2)]
    keeping.cancel()
    await asyncio.wait((keeping,))


async def test_a_slow_read_holds_up_warm_records_no_longer_than_patience(clock: ManualClock) -> None:
    table = Table(record(1))
    by = records(table, clock, patience=0.01)
    await look(by, clock, 1)
    clock.advance(1)
    table.open.clear()
    assert await asyncio.wait_for(look(by, clock, 1), 30) == record(1)
    table.open.set()
    await asyncio.sleep(0.01)


async def test_a_flood_of_made_up_ids_holds_up_no_known_record(clock: ManualClock) -> None:
    """Strangers' look-ups have a query of their own, and only so many of them wait."""
    table = Table(record(1))
    by = records(table, clock, unseen=100)
    assert await look(by, clock, 1) == record(1)
    clock.advance(1)
    table.open.clear()
    made_up = [asyncio.create_task(look(by, clock, n)) for n in range(1000, 1300)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    refused = [task for task in made_up if task.done()]
    assert {task.result() for task in refused} == {"unknown"}
    assert len(refused) == 200
    known = asyncio.create_task(look(by, clock, 1))
    for _ in range(5):
        await asyncio.sleep(0)
    assert table.reads == [1, 100, 1]  # both lists are being read, side by side
    table.open.set()
    assert await known == record(1)
    await asyncio.wait(made_up)


async def test_what_is_invalidated_during_its_first_read_is_read_again(clock: ManualClock) -> None:
    table = Table(record(1))
    by = records(table, clock)
    table.open.clear()
    looking = asyncio.create_task(look(by, clock, 1))
    await asyncio.sleep(0.01)
    table.rows[UUID(int=1)] = record(1, revoked=True)
    by.forget(UUID(int=1))
    table.open.set()
    assert await looking == record(1, revoked=True)
