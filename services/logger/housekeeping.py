"""What must happen now and then: positions and the watermark, trimming, the backlog's alarm, partitions.

Every replica does all of it; each step is idempotent, and harmless beside another replica's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from redis.exceptions import RedisError

from servicekit import log as logging
from servicekit.clock import Clock
from servicekit.errors import SigngateError
from services.logger import metrics
from services.logger.domain import Position
from services.logger.stream import UsageStream

PARTITIONS_EVERY = 3600.0
PUBLISHED_KEPT = timedelta(days=40)
"""How long the counts of published events are kept, for reconciliation."""
CONSUMERS_KEPT_MS = 3_600_000
"""Replicas come and go, each with a name of its own: how long one is known that reads no more."""
log = logging.get("housekeeping")


class Partitions(Protocol):
    """See `store.PartitionStore`."""

    async def ensure(self, months_ahead: int) -> None: ...

    async def drop_older_than(self, months: int) -> int: ...


class Releaser(Protocol):
    """See `peers.QuotaClient`."""

    async def release(self, watermark_ms: int) -> int: ...


@dataclass(frozen=True, slots=True)
class Upkeep:
    """How it is done: see `LoggerSettings`. `interval` is seconds."""

    interval: float = 1.0
    months_ahead: int = 3
    retention_months: int = 0
    backlog_bytes: int = 67_108_864
    backlog_alarm: float = 0.25


class Housekeeping:
    """Run by `run` until cancelled. A step that fails is logged and comes again with the next round."""

    def __init__(
        self,
        streams: Sequence[UsageStream],
        partitions: Partitions,
        releaser: Releaser,
        clock: Clock,
        upkeep: Upkeep,
    ) -> None:
        self._streams = streams
        self._partitions = partitions
        self._releaser = releaser
        self._clock = clock
        self._upkeep = upkeep
        self._partitions_due = 0.0

    async def run(self) -> None:
        """One round each `interval` seconds."""
        while True:
            try:
                await self.round()
            except (SigngateError, RedisError, OSError) as error:
                log.warning("round failed", error=type(error).__name__)
            await asyncio.sleep(self._upkeep.interval)

    async def round(self) -> None:
        """Publish positions, trim, let quota take back abandoned charges, look after partitions.

        Trimming comes first: it is what gives memory back, and waits for nobody.
        """
        positions = [await self._observe(stream) for stream in self._streams]
        for stream in self._streams:
            await stream.trim()
            await self._look_at_backlog(stream)
        metrics.dead_letters_held.set(await self._streams[0].dead_letters())
        metrics.streams_seen.set(self._clock.time())
        released = await self._releaser.release(watermark(positions))
        if released:
            log.info("abandoned charges taken back", charges=released)
        if self._clock.monotonic() >= self._partitions_due:
            await self.partitions()

    async def partitions(self) -> None:
        """Partitions for the months ahead; what is past its time goes. At start, and then hourly."""
        await self._partitions.ensure(self._upkeep.months_ahead)
        metrics.partitions_ensured.set(self._clock.time())
        if self._upkeep.retention_months:
            dropped = await self._partitions.drop_older_than(self._upkeep.retention_months)
            if dropped:
                log.info("partitions dropped", partitions=dropped)
        today = self._clock.now().date()
        for stream in self._streams:
            await stream.forget_published(today - PUBLISHED_KEPT)
            await stream.forget_consumers(CONSUMERS_KEPT_MS)
        self._partitions_due = self._clock.monotonic() + PARTITIONS_EVERY

    async def _look_at_backlog(self, stream: UsageStream) -> None:
        """The alarm before signers refuse (USAGE_BACKLOG): after the trimming, what is left is behind."""
        ratio = await stream.memory() / self._upkeep.backlog_bytes
        metrics.stream_fill.labels(stream.key).set(ratio)
        if ratio >= self._upkeep.backlog_alarm:
            log.error("usage stream fills up", stream=stream.key, percent=round(100 * ratio))

    async def _observe(self, stream: UsageStream) -> Position:
        position = await stream.position()
        metrics.stream_length.labels(stream.key).set(position.length)
        metrics.stream_pending.labels(stream.key).set(position.pending)
        metrics.stream_lag.labels(stream.key).set(position.lag_ms / 1000)
        return position


def watermark(positions: Sequence[Position]) -> int:
    """Every event published before it, in any stream, is committed and its charge settled."""
    return min(position.safe_ms for position in positions)
