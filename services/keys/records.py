"""Key records in memory, bounded in number and in age.

Two ages, counted from the moment the read of a record *began*, so that no answer is older than it
says:

- `soft`: an older record is read again before it is used;
- `hard`: while PostgreSQL can't be read, records up to this age still serve; older ones are as
  good as none.

An invalidation (`forget`) makes a record unusable at once, also one whose read is under way.
Concurrent needs share reads: one list query is in flight, and what is asked for meanwhile is the
next list. So the number of queries does not grow with the number of callers. Ids that were never seen
have a separate batch query, at most `unseen` of them wait for it, and the answer "no such key" is kept in a
separate bounded table. So a flood of invented ids neither delays nor evicts a real record.

Records in use are read again ahead of the soft age by `keep_fresh`, so that callers seldom wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from servicekit import apikey, log
from servicekit.clock import Clock
from servicekit.errors import Unavailable
from services.keys.domain import Record, Validated
from services.keys.metrics import INVALIDATED, READ_FAILED, RECORD_READS, RECORDS, UNSEEN_REFUSED

Read = Callable[[Collection[UUID]], Awaitable[Mapping[UUID, Record]]]

NEVER: Final = float("-inf")
_rounds: Final = 3
_list_size: Final = 2000

_log = log.get("records")


@dataclass(frozen=True, slots=True)
class Bounds:
    """Ages and waits in seconds, sizes in records.

    `patience`: how long a caller whose records all serve inside `hard` waits for a slow read.
    `rest`: how long after a failed read none is tried.
    `unseen`: how many ids that were never seen may wait to be read; further ones can't be answered.
    """

    soft: float = 0.15
    hard: float = 5.0
    size: int = 100_000
    unknown_size: int = 20_000
    unknown_age: float = 2.0
    patience: float = 0.25
    rest: float = 0.25
    unseen: int = 10_000


class Entry:
    """A record (`None`: there is no such key) and when its read began.

    `answer` is what the record answers when it holds: made once, so that equal records give the
    same object.
    """

    __slots__ = ("answer", "read_at", "record")

    def __init__(self, record: Record | None, read_at: float) -> None:
        self.record = record
        self.read_at = read_at
        self.answer: Validated | None = None if record is None else answer_of(record)


class Records:
    """See the module. Times are on the clock's monotonic scale."""

    def __init__(self, read: Read, clock: Clock, bounds: Bounds) -> None:
        self._read = read
        self._clock = clock
        self._bounds = bounds
        self._known: dict[str, Entry] = {}
        self._unknown: dict[str, Entry] = {}
        self._used: set[str] = set()
        self._failed_at = NEVER
        self._seen = _Reads(self._read_list)
        self._unseen = _Reads(self._read_list)
        RECORDS.set_function(lambda: len(self._known))

    def get(self, key: str, now: float) -> Entry | None:
        """The entry to answer from, `None` when there is none inside the hard age."""
        entry = self._known.get(key)
        if entry is None:
            entry = self._unknown.get(key)
            return entry if entry is not None and now - entry.read_at <= self._bounds.unknown_age else None
        self._used.add(key)
        return entry if now - entry.read_at <= self._bounds.hard else None

    def stale(self, keys: Iterable[str], now: float) -> list[str]:
        """Those that must be read before they may be answered."""
        known, unknown, oldest = self._known, self._unknown, now - self._bounds.soft
        found = []
        for key in keys:
            entry = known.get(key)
            if entry is None:
                entry = unknown.get(key)
                if entry is None or now - entry.read_at > self._bounds.unknown_age:
                    found.append(key)
            elif entry.read_at < oldest:
                found.append(key)
        return found

    async def refresh(self, keys: Collection[str]) -> None:
        """Have these read, together with what others want. Never raises: what could not be read
        stays as old as it is, and `get` tells whether it still serves.
        """
        for _ in range(_rounds):
            now = self._clock.monotonic()
            keys = self.stale(keys, now)
            if not keys or now - self._failed_at < self._bounds.rest:
                return
            tasks = self._want(keys)
            warm = all(self.get(key, now) is not None for key in keys)
            if not tasks:
                return
            # Others wait for the same tasks: a caller that gives up or goes away must not end them.
            _, running = await asyncio.wait(tasks, timeout=self._bounds.patience if warm else None)
            if running:
                return

    def forget(self, key_id: UUID) -> None:
        """Use no record of this key that was read before now."""
        key = apikey.text_of(key_id)
        self._known.pop(key, None)
        self._unknown.pop(key, None)
        self._seen.spoil(key)
        self._unseen.spoil(key)
        INVALIDATED.inc()

    def distrust_all(self) -> None:
        """Read every record again before its next use: invalidations may have been missed."""
        oldest = self._clock.monotonic() - self._bounds.soft
        for entry in self._known.values():
            entry.read_at = min(entry.read_at, oldest - 1e-6)
        self._seen.spoil_all()
        self._unseen.spoil_all()

    async def keep_fresh(self) -> None:
        """For ever: read again what was used since its last read and is half way to the soft age."""
        while True:
            await asyncio.sleep(self._bounds.soft / 3)
            now = self._clock.monotonic()
            if now - self._failed_at < self._bounds.rest:
                continue
            due = now - self._bounds.soft / 2
            used, self._used = self._used, set()
            keys = []
            for key in used:
                entry = self._known.get(key)
                if entry is not None and entry.read_at < due:
                    keys.append(key)
                elif entry is not None:
                    self._used.add(key)
            if keys:
                await asyncio.wait((self._seen.want(keys),))

    def _want(self, keys: Iterable[str]) -> list[asyncio.Task[None]]:
        """Have these read; returns what to wait for. Ids beyond the bound are left out."""
        seen: list[str] = []
        unseen: list[str] = []
        for key in keys:
            (seen if key in self._known else unseen).append(key)
        tasks = [self._seen.want(seen)] if seen else []
        room = self._bounds.unseen - self._unseen.waiting
        if len(unseen) > room:
            UNSEEN_REFUSED.inc(len(unseen) - max(room, 0))
        if unseen and room > 0:
            tasks.append(self._unseen.want(unseen[:room]))
        return tasks

    async def _read_list(self, keys: list[str], spoilt: set[str]) -> None:
        began = self._clock.monotonic()
        ids = {key: apikey.id_of(key) for key in keys}
        try:
            found = await self._read(ids.values())
        except Unavailable as error:
            self._failed_at = self._clock.monotonic()
            READ_FAILED.inc()
            _log.warning("records can't be read", keys=len(keys), cause=error.__cause__ or error)
            return
        except Exception:  # noqa: BLE001  # whatever it is, callers wait for an end
            self._failed_at = self._clock.monotonic()
            READ_FAILED.inc()
            _log.exception("reading records failed")
            return
        self._failed_at = NEVER
        RECORD_READS.inc(len(keys))
        for key, key_id in ids.items():
            if key not in spoilt:
                self._store(key, found.get(key_id), began)

    def _store(self, key: str, record: Record | None, read_at: float) -> None:
        old = self._known.pop(key, None)
        if record is None:
            self._unknown.pop(key, None)
            self._unknown[key] = Entry(None, read_at)
            _shrink(self._unknown, self._bounds.unknown_size)
            return
        if old is not None and old.record == record:
            old.read_at = read_at
            entry = old
        else:
            entry = Entry(record, read_at)
            self._unknown.pop(key, None)
        # At the end of the dict: what was read longest ago, which is what was used longest ago,
        # leaves first.
        self._known[key] = entry
        _shrink(self._known, self._bounds.size)


class _Reads:
    """Shared reads: while one batch is read, further requests form the next batch."""

    def __init__(self, read_list: Callable[[list[str], set[str]], Awaitable[None]]) -> None:
        self._read_list = read_list
        self._lock = asyncio.Lock()
        self._wanted: dict[str, None] = {}
        self._next: asyncio.Task[None] | None = None
        self._reading: set[str] = set()
        self._spoilt: set[str] = set()

    @property
    def waiting(self) -> int:
        """Keys in the next list."""
        return len(self._wanted)

    def want(self, keys: Iterable[str]) -> asyncio.Task[None]:
        """Read these with the next list; returns its task."""
        self._wanted.update(dict.fromkeys(keys))
        if self._next is None:
            self._next = asyncio.create_task(self._run())
        return self._next

    def spoil(self, key: str) -> None:
        """Discard the results of running reads of this key."""
        if key in self._reading:
            self._spoilt.add(key)

    def spoil_all(self) -> None:
        """Discard the results of running reads."""
        self._spoilt |= self._reading

    async def _run(self) -> None:
        async with self._lock:
            self._next = None
            wanted = list(self._wanted)
            self._wanted.clear()
            for at in range(0, len(wanted), _list_size):
                part = wanted[at : at + _list_size]
                self._reading, self._spoilt = set(part), set()
                try:
                    await self._read_list(part, self._spoilt)
                finally:
                    self._reading = set()


def answer_of(record: Record) -> Validated:
    """The answer for the key itself, when the record holds."""
    return Validated(
        key_id=str(record.key_id),
        user_id=str(record.user_id),
        tier=record.tier,
        scopes=record.scopes,
        daily_limit=record.daily_limit,
        per_minute=record.per_minute,
        engine=record.engine,
        expires_at=record.expires_at,
    )


def _shrink(entries: dict[str, Entry], size: int) -> None:
    while len(entries) > size:
        del entries[next(iter(entries))]
