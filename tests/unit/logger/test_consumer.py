"""The order read → commit → settle → acknowledge, with every step failing in turn."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from servicekit.clock import SystemClock
from servicekit.errors import Unavailable
from services.logger.consumer import BUSY, BatchPolicy, Consumer
from services.logger.domain import Charge, Entry, Ingested, UsageRow
from services.logger.errors import PoisonEntryError

POLICY = BatchPolicy(entries=10, rows=1000, age=0, claim_idle_ms=1000, max_attempts=3)


@dataclass
class FakeStream:
    """A stream with pending entries, in memory."""

    new: list[tuple[str, bytes]] = field(default_factory=list)
    left_behind: list[tuple[str, bytes]] = field(default_factory=list)
    abandoned: list[tuple[str, bytes]] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)
    dead: list[tuple[str, str]] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    key: str = "usage:{0}"
    progress: asyncio.Event = field(default_factory=asyncio.Event)

    async def ensure_group(self) -> None: ...

    async def read(self, count: int, block_ms: int | None) -> list[tuple[str, bytes]]:
        taken, self.new = self.new[:count], self.new[count:]
        await asyncio.sleep(0)
        return taken

    async def pending(self, after: str, count: int) -> tuple[list[tuple[str, bytes]], str]:
        found = [e for e in self.left_behind if e[0] > after and e[0] not in self.acknowledged][:count]
        return found, found[-1][0] if found else after

    async def claim(self, idle_ms: int, count: int) -> list[tuple[str, bytes]]:
        taken, self.abandoned = self.abandoned, []
        return taken

    async def acknowledge(self, ids: Sequence[str]) -> None:
        self.steps.append("acknowledge")
        self.acknowledged += ids
        self.progress.set()

    async def set_aside(self, entry_id: str, payload: bytes, reason: str) -> None:
        self.dead.append((entry_id, reason))


@dataclass
class FakeSink:
    """Commits row ids once each; fails as told, first."""

    steps: list[str]
    failures: list[Exception] = field(default_factory=list)
    refuses: set[object] = field(default_factory=set)
    breaks_on: dict[object, int] = field(default_factory=dict)
    """Rows that nobody foresaw, and how often each still breaks it."""
    rows: dict[object, int] = field(default_factory=dict)

    async def ingest(self, rows: Sequence[UsageRow]) -> Ingested:
        if self.failures:
            raise self.failures.pop(0)
        if any(row in self.refuses for row in rows):
            raise PoisonEntryError("refused")
        for row in rows:
            if self.breaks_on.get(row, 0):
                self.breaks_on[row] -= 1
                raise KeyError("unforeseen")
        self.steps.append("commit")
        fresh = [row for row in rows if row not in self.rows]
        self.rows.update(dict.fromkeys(fresh, 1))
        return Ingested(len(fresh), len(rows) - len(fresh))


@dataclass
class FakeQuota:
    steps: list[str]
    failures: list[Exception] = field(default_factory=list)
    settled: list[Charge] = field(default_factory=list)

    async def settle(self, charges: Sequence[Charge]) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.steps.append("settle")
        self.settled += charges


def decode(entry_id: str, payload: bytes) -> Entry:
    if payload == b"poison":
        raise PoisonEntryError("poison")
    return Entry(entry_id, payload, [payload], [Charge(entry_id, "user", 1)])  # type: ignore[list-item]


@dataclass
class World:
    stream: FakeStream = field(default_factory=FakeStream)

    def __post_init__(self) -> None:
        self.sink = FakeSink(self.stream.steps)
        self.quota = FakeQuota(self.stream.steps)
        self.consumer = Consumer(self.stream, self.sink, self.quota, decode, SystemClock(), POLICY)  # type: ignore[arg-type]

    async def run_until_acknowledged(self, *ids: str) -> None:
        task = asyncio.create_task(self.consumer.run())
        try:
            async with asyncio.timeout(10):
                while not set(ids) <= set(self.stream.acknowledged):
                    await self.stream.progress.wait()
                    self.stream.progress.clear()
        finally:
            self.consumer.stop()
            await task


@pytest.fixture
def world() -> World:
    return World()


async def test_entries_are_committed_then_settled_then_acknowledged(world: World) -> None:
    world.stream.new = [("1-0", b"a"), ("2-0", b"b")]
    await world.run_until_acknowledged("1-0", "2-0")
    assert world.stream.steps == ["commit", "settle", "acknowledge"]
    assert set(world.sink.rows) == {b"a", b"b"}


async def test_what_was_left_behind_by_a_crash_comes_first_and_counts_once(world: World) -> None:
    world.sink.rows = {b"a": 1}  # committed before the crash
    world.stream.left_behind = [("1-0", b"a"), ("2-0", b"b")]
    world.stream.new = [("3-0", b"c")]
    await world.run_until_acknowledged("1-0", "2-0", "3-0")
    assert world.sink.rows == {b"a": 1, b"b": 1, b"c": 1}
    assert world.stream.acknowledged == ["1-0", "2-0", "3-0"]


async def test_a_dead_consumers_entries_are_taken_over(world: World) -> None:
    world.stream.abandoned = [("1-0", b"a")]
    await world.run_until_acknowledged("1-0")
    assert set(world.sink.rows) == {b"a"}


async def test_nothing_is_acknowledged_while_the_database_is_away(world: World) -> None:
    world.sink.failures = [Unavailable(), Unavailable()]
    world.stream.new = [("1-0", b"a")]
    await world.run_until_acknowledged("1-0")
    assert world.stream.steps == ["commit", "settle", "acknowledge"]


async def test_nothing_is_acknowledged_before_it_is_settled(world: World) -> None:
    world.quota.failures = [Unavailable(), Unavailable()]
    world.stream.new = [("1-0", b"a")]
    await world.run_until_acknowledged("1-0")
    assert world.stream.steps == ["commit", "settle", "acknowledge"]
    assert world.quota.settled == [Charge("1-0", "user", 1)]


async def test_a_poison_entry_is_set_aside_and_the_others_pass(world: World) -> None:
    world.stream.new = [("1-0", b"a"), ("2-0", b"poison"), ("3-0", b"c")]
    await world.run_until_acknowledged("1-0", "3-0")
    assert world.stream.dead == [("2-0", "poison")]
    assert set(world.sink.rows) == {b"a", b"c"}


async def test_rows_that_no_table_takes_poison_only_their_own_entry(world: World) -> None:
    world.sink.refuses = {b"bad"}
    world.stream.new = [("1-0", b"a"), ("2-0", b"bad"), ("3-0", b"c")]
    await world.run_until_acknowledged("1-0", "3-0")
    assert world.stream.dead == [("2-0", "refused")]
    assert set(world.sink.rows) == {b"a", b"c"}


async def test_what_breaks_for_no_known_reason_is_set_aside_after_bounded_tries(world: World) -> None:
    world.sink.breaks_on = {b"bad": 1_000}
    world.stream.new = [("1-0", b"a"), ("2-0", b"bad"), ("3-0", b"c")]
    await world.run_until_acknowledged("1-0", "3-0")
    assert world.stream.dead == [("2-0", "KeyError, 3 times")]
    assert set(world.sink.rows) == {b"a", b"c"}
    assert world.sink.breaks_on == {b"bad": 1_000 - 1 - POLICY.max_attempts}  # once with the others


async def test_what_breaks_and_then_passes_is_committed(world: World) -> None:
    world.sink.breaks_on = {b"odd": POLICY.max_attempts}
    world.stream.new = [("1-0", b"a"), ("2-0", b"odd")]
    await world.run_until_acknowledged("1-0", "2-0")
    assert world.stream.dead == []
    assert set(world.sink.rows) == {b"a", b"odd"}


async def test_what_waits_for_quota_is_not_taken_a_second_time(world: World) -> None:
    """While quota is away a consumer claims its own entries, again and again."""
    world.quota.failures = [Unavailable()]
    world.stream.left_behind = [("1-0", b"a")]
    world.stream.abandoned = [("1-0", b"a")]
    await world.run_until_acknowledged("1-0")
    assert world.stream.steps == ["commit", "settle", "acknowledge"]
    assert world.quota.settled == [Charge("1-0", "user", 1)]


async def test_it_stops_while_the_database_is_away_and_leaves_the_entry_pending(world: World) -> None:
    world.sink.failures = [Unavailable() for _ in range(1000)]
    world.stream.new = [("1-0", b"a")]
    task = asyncio.create_task(world.consumer.run())
    await asyncio.sleep(0.1)
    world.consumer.stop()
    await asyncio.wait_for(task, 5)
    assert world.stream.acknowledged == []
    assert world.sink.rows == {}


async def test_after_a_large_batch_the_next_one_waits_longer_for_company(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no longer once a small one has come: then somebody may be waiting for their row."""
    waited: list[float] = []
    sleep = asyncio.sleep

    async def told(seconds: float) -> None:
        if seconds:
            waited.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", told)
    world.consumer.policy = replace(POLICY, entries=1000, age=0.2, age_busy=0.9)
    for number, size in enumerate((1, BUSY, BUSY - 1, 1), 1):
        world.stream.new = [(f"{number}-{place}", b"%d-%d" % (number, place)) for place in range(size)]
        await world.run_until_acknowledged(f"{number}-0")
        world.consumer.stopped.clear()
        world.consumer._stopping = False
    assert waited == [0.2, 0.2, 0.9, 0.2]
