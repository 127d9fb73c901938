"""Holding the books against each other: see `reconcile` for what is compared, and how it is told.

The stores can't be read in one moment. So what must not be smaller is read first, and what must not be
larger last: a difference that is told is one, however busy the system is. Only the counters, whose
settlements are on their way for a moment, are looked at again for some seconds before they are told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import date
from random import SystemRandom
from typing import Final, Protocol

from redis.exceptions import RedisError

from servicekit import log as logging
from servicekit.clock import Clock
from servicekit.errors import SigngateError
from services.logger import metrics
from services.logger.books import Charged, Count, DayBooks, Waiting
from services.logger.domain import PoolCount

log = logging.get("reconciliation")

KINDS: Final = (
    "lost", "unpublished", "unreadable", "counted", "quota_usage", "counter_low", "counter_high",
)  # fmt: skip
"""Acknowledged and nowhere; rows that no signer published; entries that hold no events; `usage_days`
against the rows; `quota_usage` against the rows; counters below, and above, what is committed."""
AT_ONCE = 16
"""Users whose counters are asked for at a time."""
LOOK_AGAIN = 0.5


class Streams(Protocol):
    """See `books.StreamBooks`."""

    async def published(self, day: date) -> Count: ...

    async def waiting(self, day: date) -> Waiting: ...


class Tables(Protocol):
    """See `books.DatabaseBooks`."""

    async def day(self, day: date, waiting: Waiting) -> DayBooks: ...

    async def charged(self, day: date, users: Collection[str]) -> Mapping[str, Charged]: ...


class Counters(Protocol):
    """See `peers.QuotaClient`."""

    async def counters(self, user_id: str) -> tuple[PoolCount, PoolCount]:
        """The pools `free` and `api_key`."""
        ...


@dataclass(frozen=True, slots=True)
class Difference:
    """Two books that disagree by `units`. `kind` is the metric's label; `what` names where."""

    kind: str
    units: int
    what: str


@dataclass(slots=True)
class Report:
    """What was compared, and every difference."""

    day: str
    published: int
    rows: int
    waiting: int
    signatures: int
    charged: int
    users: int
    differences: list[Difference] = field(default_factory=list)


class Reconciler:
    """Reads all the books. Raises `SigngateError`, `RedisError` or `OSError` when one can't be read."""

    def __init__(
        self, streams: Streams, tables: Tables, counters: Counters, clock: Clock, *, patience: float = 10.0
    ) -> None:
        self._streams = streams
        self._tables = tables
        self._counters = counters
        self._clock = clock
        self._patience = patience

    async def watch(self, interval: float, users: int) -> None:
        """Compare today for ever, as metrics and, where something differs, in the log."""
        while True:
            await asyncio.sleep(interval)
            try:
                report = await self.run(users=users)
            except (SigngateError, RedisError, OSError) as error:
                log.warning("not reconciled", error=type(error).__name__)
                continue
            metrics.reconciled.set(self._clock.time())
            units = dict.fromkeys(KINDS, 0)
            for one in report.differences:
                units[one.kind] += one.units
                log.error("books differ", kind=one.kind, units=one.units, what=one.what)
            for kind, count in units.items():
                metrics.difference.labels(kind).set(count)

    async def run(self, day: date | None = None, *, users: int | None = None) -> Report:
        """Compare a day, today if none is named. `users`: at most so many counters, by chance."""
        today = self._clock.now().date()
        day = day or today
        least = await self._streams.published(day)
        waiting = await self._streams.waiting(day)
        books = await self._tables.day(day, waiting)
        most = await self._streams.published(day)
        report = Report(
            day=day.isoformat(),
            published=least.requests,
            rows=books.rows.requests,
            waiting=books.waiting.requests,
            signatures=books.rows.signatures + books.waiting.signatures,
            charged=sum(one.counted for one in books.charged.values()),
            users=len(books.charged),
        )
        report.differences += _stream_differences(least, most, books, waiting)
        report.differences += _table_differences(books)
        if day == today:
            chosen = list(books.charged)
            if users is not None and len(chosen) > users:
                chosen = SystemRandom().sample(chosen, users)
            report.differences += await self._counter_differences(day, chosen)
        return report

    async def _counter_differences(self, day: date, users: list[str]) -> list[Difference]:
        """Of users whose counters differ each time they are looked at, until patience ends."""
        end = self._clock.monotonic() + self._patience
        found: dict[str, list[Difference]] = {user: [] for user in users}
        while True:
            found = await self._compare(day, list(found))
            if not found or self._clock.now().date() != day:
                return []
            if self._clock.monotonic() >= end:
                return [one for of_user in found.values() for one in of_user]
            await asyncio.sleep(LOOK_AGAIN)

    async def _compare(self, day: date, users: list[str]) -> dict[str, list[Difference]]:
        before = await self._tables.charged(day, users)
        gate = asyncio.Semaphore(AT_ONCE)

        async def ask(user: str) -> tuple[PoolCount, PoolCount]:
            async with gate:
                return await self._counters.counters(user)

        counters = dict(zip(users, await asyncio.gather(*map(ask, users)), strict=True))
        after = await self._tables.charged(day, users)
        nothing = Charged(0, 0, 0, 0)
        found = {
            user: _pool_differences(user, before.get(user, nothing), counters[user], after.get(user, nothing))
            for user in users
        }
        return {user: differences for user, differences in found.items() if differences}


def _stream_differences(least: Count, most: Count, books: DayBooks, waiting: Waiting) -> list[Difference]:
    found = []
    for name, low, high, have in (
        ("requests", least.requests, most.requests, books.rows.requests + books.waiting.requests),
        ("signatures", least.signatures, most.signatures, books.rows.signatures + books.waiting.signatures),
    ):
        if have < low:
            text = f"{low} {name} were acknowledged; rows and streams have {have}"
            found.append(Difference("lost", low - have, text))
        elif have > high:
            text = f"{have} {name} are in rows and streams; {high} were published"
            found.append(Difference("unpublished", have - high, text))
    if waiting.unreadable:
        text = f"{waiting.unreadable} entries are set aside or waiting that hold no events"
        found.append(Difference("unreadable", waiting.unreadable, text))
    return found


def _table_differences(books: DayBooks) -> list[Difference]:
    found = []
    if books.counted != books.rows:
        units = abs(books.counted.requests - books.rows.requests) or abs(
            books.counted.signatures - books.rows.signatures
        )
        text = (
            f"usage_days counts {books.counted.requests} requests with {books.counted.signatures} signatures;"
            f" the rows are {books.rows.requests} with {books.rows.signatures}"
        )
        found.append(Difference("counted", units, text))
    for user, one in books.charged.items():
        for name, rows, table in (
            ("in all", one.in_rows, one.counted),
            ("by keys", one.in_rows_by_keys, one.counted_by_keys),
        ):
            if rows != table:
                text = f"user {user}, {name}: rows charged {rows}, quota_usage says {table}"
                found.append(Difference("quota_usage", abs(rows - table), text))
    return found


def _pool_differences(
    user: str, before: Charged, counters: tuple[PoolCount, PoolCount], after: Charged
) -> list[Difference]:
    found = []
    free, keyed = counters
    for name, least, counter, most in (
        ("free", before.counted - before.counted_by_keys, free, after.counted - after.counted_by_keys),
        ("api_key", before.counted_by_keys, keyed, after.counted_by_keys),
    ):
        final = counter.used - counter.reserved
        if counter.used < least:
            text = f"user {user}, pool {name}: {least} are committed, the counter says {counter.used}"
            found.append(Difference("counter_low", least - counter.used, text))
        elif final > most:
            text = f"user {user}, pool {name}: {most} are committed, the counter says {final} are final"
            found.append(Difference("counter_high", final - most, text))
    return found
