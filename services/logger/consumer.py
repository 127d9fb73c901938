"""One shard's consumer: read → commit → settle → acknowledge, in that order, whatever fails.

States an entry can be in, and what a crash in it means:

    published   not yet delivered: a consumer will read it
    delivered   pending under a consumer's name: that one comes back to it, or another claims it
    committed   in `usage_logs`; redelivery inserts nothing (`ON CONFLICT DO NOTHING`), settles again
    settled     the quota service holds the charges as final; settling twice changes nothing
    acknowledged  done; may be trimmed

PostgreSQL away: the batch in hand waits, with backoff; nothing more is read, so entries stay in the
stream. Quota away: entries stay committed and unacknowledged, up to `max_unsettled` of them.

Poison, which no repetition makes rows, is set aside, so that it can't hold up what comes after it: at once
where that is certain; else, when the cause is unknown, after `max_attempts` tries alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeVar

from redis.exceptions import RedisError, ResponseError

from servicekit import log as logging
from servicekit import tracing
from servicekit.clock import Clock
from servicekit.errors import SigngateError, Unavailable
from services.logger import metrics
from services.logger.domain import Charge, Entry, Ingested, UsageRow
from services.logger.errors import PoisonEntryError
from services.logger.stream import UsageStream, type_entries

BACKOFF_MAX = 2.0
BUSY = 50
"""Rows of a batch from which on the next one waits longer: then nobody waits for one row, and a row of a
large batch costs PostgreSQL and this process three quarters of one of a small batch."""
T = TypeVar("T")
log = logging.get("consumer")


class StoppedError(Exception):
    """Asked to stop while a dependency was away: what is in hand stays pending and comes back."""


class Sink(Protocol):
    """Where rows go: see `store.IngestStore`."""

    async def ingest(self, rows: Sequence[UsageRow]) -> Ingested:
        """Commit rows once each. Raises `Unavailable`, or `PoisonEntryError` for rows no table takes."""
        ...


class Settler(Protocol):
    """Who is told that charges are final: see `peers.QuotaClient`."""

    async def settle(self, charges: Sequence[Charge]) -> None:
        """Idempotent. Raises `SigngateError` when it can't be done now."""
        ...


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """How large a batch gets. `age` in seconds is how long the first entry waits for company, `age_busy`
    how long after a batch of `BUSY` rows or more.
    """

    entries: int = 500
    rows: int = 5_000
    age: float = 0.2
    age_busy: float = 1.0
    claim_idle_ms: int = 10_000
    max_attempts: int = 5
    max_unsettled: int = 100_000


@dataclass(slots=True)
class Consumer:
    """Run by `run` until `stop`; the batch in hand is finished first, then `stopped` is set.

    `committed` is told the rows of each batch, once they are committed; it must not raise.
    """

    stream: UsageStream
    sink: Sink
    settler: Settler
    decode: Callable[[str, bytes], Entry]
    clock: Clock
    policy: BatchPolicy = field(default_factory=BatchPolicy)
    committed: Callable[[Sequence[UsageRow]], None] = lambda _: None
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    _stopping: bool = False
    _unsettled: dict[str, Entry] = field(default_factory=dict)
    _claim_due: float = 0.0
    _busy: bool = False

    def stop(self) -> None:
        """Finish the batch in hand, then return from `run`."""
        self._stopping = True

    async def run(self) -> None:
        """Consume until stopped. Only a bug ends it otherwise."""
        with contextlib.suppress(StoppedError):
            await self._insist(self.stream.ensure_group)
            await self._recover()
            while not self._stopping:
                found = await self._insist(self._next)
                if found:
                    await self._take(found)
                elif self._unsettled:
                    await self._settle()
        self.stopped.set()

    async def _recover(self) -> None:
        """Come back to what this consumer took before it last stopped."""
        after = "0-0"
        while not self._stopping:
            found, after = await self._insist(partial(self.stream.pending, after, self.policy.entries))
            if not found:
                return
            log.info("recovering", stream=self.stream.key, entries=len(found))
            await self._take(found)

    async def _next(self) -> type_entries:
        """The next batch: new entries, and now and then those of a consumer that died."""
        found: type_entries = []
        now = self.clock.monotonic()
        if now >= self._claim_due:
            self._claim_due = now + self.policy.claim_idle_ms / 2000
            found = await self.stream.claim(self.policy.claim_idle_ms, self.policy.entries)
            if found:
                metrics.claimed.inc(len(found))
        if len(self._unsettled) >= self.policy.max_unsettled:
            await asyncio.sleep(self.policy.age)
            return found
        if not found:
            found = await self.stream.read(self.policy.entries, block_ms=200)
            age = self.policy.age_busy if self._busy else self.policy.age
            if found and age and len(found) < self.policy.entries:
                await asyncio.sleep(age)
                found += await self.stream.read(self.policy.entries - len(found), block_ms=None)
        return found

    async def _take(self, found: type_entries) -> None:
        """Decode and commit entries; they are unsettled afterwards, or set aside."""
        batch: list[Entry] = []
        rows = taken = 0
        for entry_id, payload in found:
            if entry_id in self._unsettled:
                continue  # claimed from ourselves: it is committed, and waits for quota
            try:
                entry = self.decode(entry_id, payload)
            except PoisonEntryError as error:
                await self._set_aside(entry_id, payload, error.reason)
                continue
            batch.append(entry)
            rows += len(entry.rows)
            taken += len(entry.rows)
            if rows >= self.policy.rows:
                await self._commit(batch)
                batch, rows = [], 0
        if batch:
            await self._commit(batch)
        self._busy = taken >= BUSY
        await self._settle()

    async def _commit(self, batch: list[Entry], attempt: int = 1) -> None:
        """Commit a batch in one transaction; if it fails by itself, each entry in one of its own."""
        rows = [row for entry in batch for row in entry.rows]
        try:
            with self._traced("commit usage", batch):
                done = await self._insist(lambda: self.sink.ingest(rows))
        except StoppedError:
            raise
        except Exception as error:
            if len(batch) > 1:
                for entry in batch:
                    await self._commit([entry])
            elif isinstance(error, PoisonEntryError):
                await self._set_aside(batch[0].id, batch[0].payload, error.reason)
            elif attempt < self.policy.max_attempts:
                # Nobody foresaw it: another try may do.
                log.warning(
                    "entry not committed",
                    entry=batch[0].id,
                    request_id=batch[0].request_id,
                    error=type(error).__name__,
                )
                await self._pause(min(BACKOFF_MAX, 0.05 * 2**attempt))
                await self._commit(batch, attempt + 1)
            else:
                log.exception("entry not committed", entry=batch[0].id, request_id=batch[0].request_id)
                reason = f"{type(error).__name__}, {attempt} times"
                await self._set_aside(batch[0].id, batch[0].payload, reason)
            return
        if logging.debugging():
            ids = [entry.request_id for entry in batch]
            log.debug("committed", stream=self.stream.key, rows=len(rows), request_ids=ids)
        self.committed(rows)
        metrics.committed.inc(done.inserted)
        metrics.duplicates.inc(done.duplicates)
        metrics.batch_rows.observe(done.inserted + done.duplicates)
        self._unsettled.update((entry.id, entry) for entry in batch)

    async def _settle(self) -> None:
        """Settle what is committed, then acknowledge it. On failure it stays for the next time."""
        batch = list(self._unsettled.values())
        try:
            charges = [charge for entry in batch for charge in entry.charges]
            with self._traced("settle usage", batch):
                if charges:
                    await self.settler.settle(charges)
                await self.stream.acknowledge([entry.id for entry in batch])
        except (SigngateError, RedisError, OSError) as error:
            metrics.settle_failures.inc()
            log.warning(
                "settle failed", stream=self.stream.key, entries=len(batch), error=type(error).__name__
            )
            await asyncio.sleep(min(BACKOFF_MAX, 0.1))
            return
        self._unsettled.clear()

    def _traced(self, name: str, batch: Sequence[Entry]) -> AbstractContextManager[object]:
        """A span in the traces of all entries that are in one."""
        parents = [tracing.parent(one) for entry in batch for one in entry.traceparents]
        told = {"messaging.system": "redis", "messaging.destination.name": self.stream.key}
        return tracing.shared(name, parents, "CONSUMER", told | {"messaging.batch.message_count": len(batch)})

    async def _set_aside(self, entry_id: str, payload: bytes, reason: str) -> None:
        metrics.dead_letters.inc()
        log.error("entry set aside", stream=self.stream.key, entry=entry_id, reason=reason)
        await self._insist(lambda: self.stream.set_aside(entry_id, payload, reason))

    async def _insist(self, step: Callable[[], Awaitable[T]]) -> T:
        """Do `step` until it succeeds: dependencies come back, and nothing may be skipped meanwhile."""
        delay = 0.05
        while True:
            try:
                return await step()
            except ResponseError as error:
                if "NOGROUP" not in str(error):
                    raise
                # Redis lost the stream: what was in it is gone, new entries need the group.
                log.warning("stream lost", stream=self.stream.key)
                await self.stream.ensure_group()
            except (Unavailable, RedisError, OSError) as error:
                metrics.retries.inc()
                cause = type(error.__cause__ or error).__name__
                log.warning("waiting", stream=self.stream.key, error=cause, seconds=delay)
            await self._pause(delay)
            delay = min(BACKOFF_MAX, delay * 2)

    async def _pause(self, seconds: float) -> None:
        """Wait before trying again; not when asked to stop."""
        if self._stopping:
            raise StoppedError
        await asyncio.sleep(seconds)
