"""A round of housekeeping: what must be done although something else can't be."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime

import pytest

from servicekit.clock import SystemClock
from servicekit.errors import Unavailable
from servicekit.testing.clock import ManualClock
from services.logger.domain import Position
from services.logger.housekeeping import Housekeeping, Upkeep
from services.logger.ingest import PartitionStore


@dataclass
class FakeStream:
    """One that has something to trim."""

    key: str = "usage:{0}"
    trimmed: int = 0

    async def position(self) -> Position:
        return Position(safe_ms=5, pending=0, length=10, lag_ms=0)

    async def trim(self) -> int:
        self.trimmed += 1
        return 10

    async def memory(self) -> int:
        return 0

    async def dead_letters(self) -> int:
        return 0

    async def forget_published(self, before: object) -> None: ...


@dataclass
class FakeQuota:
    away: bool = False
    watermarks: list[int] = field(default_factory=list)

    async def release(self, watermark_ms: int) -> int:
        if self.away:
            raise Unavailable
        self.watermarks.append(watermark_ms)
        return 0


class NoPartitions:
    async def ensure(self, months_ahead: int) -> None:
        raise Unavailable

    async def drop_older_than(self, months: int) -> int:
        raise Unavailable


async def test_streams_are_trimmed_while_quota_is_away() -> None:
    stream, quota = FakeStream(), FakeQuota(away=True)
    keeping = Housekeeping([stream], NoPartitions(), quota, SystemClock(), Upkeep())  # type: ignore[list-item]
    with pytest.raises(Unavailable):
        await keeping.round()
    assert stream.trimmed == 1


async def test_the_watermark_goes_on_while_the_database_is_away() -> None:
    stream, quota = FakeStream(), FakeQuota()
    keeping = Housekeeping([stream], NoPartitions(), quota, SystemClock(), Upkeep())  # type: ignore[list-item]
    with pytest.raises(Unavailable):
        await keeping.round()
    assert quota.watermarks == [5]


@dataclass
class FakeDatabase:
    """Notes what is asked of it."""

    asked: list[object] = field(default_factory=list)

    async def fetch(self, sql: str, *args: object) -> list[object]:
        self.asked += args
        return []


@pytest.mark.parametrize(
    ("today", "months", "before"),
    [
        (datetime(2026, 11, 30, tzinfo=UTC), 1, date(2026, 10, 1)),
        (datetime(2026, 1, 1, tzinfo=UTC), 1, date(2025, 12, 1)),
        (datetime(2026, 1, 31, tzinfo=UTC), 13, date(2024, 12, 1)),
        (datetime(2026, 12, 31, tzinfo=UTC), 12, date(2025, 12, 1)),
    ],
)
async def test_retention_counts_whole_months(today: datetime, months: int, before: date) -> None:
    database = FakeDatabase()
    await PartitionStore(database, ManualClock(today)).drop_older_than(months)  # type: ignore[arg-type]
    assert database.asked == [before]
