"""What the logger moves: rows of `usage_logs`, and the stream entries that they came in."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from itertools import accumulate
from typing import NamedTuple
from uuid import UUID


class UsageRow(NamedTuple):
    """One row on its way into `usage_logs`, in the order of the staging table's columns."""

    id: UUID
    user_id: UUID
    api_key_id: UUID | None
    room_url: str
    success: bool
    response_time_ms: int
    error_message: str | None
    created_at: datetime
    engine: str | None
    pool: str | None
    charge_id: UUID | None
    charged: int
    charged_day: date | None


class Charge(NamedTuple):
    """A quota charge whose usage is committed. `units` is what these rows used of it."""

    charge_id: str
    user_id: str
    units: int


@dataclass(slots=True)
class Entry:
    """One entry of a stream: what one line of a signer published together.

    `request_id` and `traceparents` are that line's, for logs and traces.
    """

    id: str
    payload: bytes
    rows: list[UsageRow] = field(default_factory=list)
    charges: list[Charge] = field(default_factory=list)
    request_id: str = ""
    traceparents: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Ingested:
    """What one transaction did."""

    inserted: int
    duplicates: int


@dataclass(frozen=True, slots=True)
class Position:
    """Where the group stands in one stream. Times are epoch milliseconds of the stream's Redis.

    `safe_ms`: every entry published before it is acknowledged. `pending`: delivered, not acknowledged.
    `length`: entries the stream holds. `lag_ms`: the age of the oldest entry not acknowledged.
    """

    safe_ms: int
    pending: int
    length: int
    lag_ms: int


class PoolCount(NamedTuple):
    """One pool of a user today, as quota counts it. `reserved` is the part of `used` that is not final."""

    used: int
    reserved: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An entry that was set aside, and why."""

    id: str
    stream: str
    entry_id: str
    reason: str
    payload: bytes
    at: datetime


class PageKey(NamedTuple):
    """The last row of a page: the next one begins after it (newest first)."""

    created_at: datetime
    id: UUID


@dataclass(frozen=True, slots=True)
class UsageFilter:
    """Which requests; `None` does not filter."""

    start: datetime | None = None
    end: datetime | None = None
    api_key_id: UUID | None = None
    success: bool | None = None
    error_reason: str | None = None
    engine: str | None = None


@dataclass(frozen=True, slots=True)
class UsageRecord:
    """One request, as its caller sees it."""

    id: UUID
    api_key_id: UUID | None
    room_url: str
    success: bool
    response_time_ms: int
    error_reason: str | None
    created_at: datetime
    engine: str | None
    charged: int


LATENCY_SHIFT = 40
"""A counted latency is one number: milliseconds << LATENCY_SHIFT | requests. So it sorts by latency."""
_requests = (1 << LATENCY_SHIFT) - 1


@dataclass(frozen=True, slots=True)
class Tally:
    """Requests counted in one bucket and group. `latencies`: as they are counted, in any order.

    They are exact below 16 ms, and within 6.25 % above (`signgate.latency_bucket` in the database).
    """

    bucket: datetime | None
    group: str
    total: int
    successful: int
    total_ms: int
    latencies: Sequence[int]

    @classmethod
    def merged(cls, parts: Sequence[Tally]) -> Tally:
        """All of them as one, of no bucket and no group."""
        return cls(
            None,
            "",
            sum(part.total for part in parts),
            sum(part.successful for part in parts),
            sum(part.total_ms for part in parts),
            [latency for part in parts for latency in part.latencies],
        )

    def stats(self) -> Stats:
        """Percentiles by rank: the least latency that so many requests did not exceed."""
        p50, p95, p99 = self._percentiles(50, 95, 99)
        return Stats(
            bucket=self.bucket,
            group=self.group,
            total=self.total,
            successful=self.successful,
            failed=self.total - self.successful,
            average_ms=self.total_ms / self.total if self.total else 0.0,
            p50_ms=p50,
            p95_ms=p95,
            p99_ms=p99,
        )

    def _percentiles(self, *percents: int) -> list[float]:
        if not self.total:
            return [0.0] * len(percents)
        latencies = sorted(self.latencies)
        upto = list(accumulate([latency & _requests for latency in latencies]))
        return [
            float(latencies[bisect_left(upto, percent * self.total / 100)] >> LATENCY_SHIFT)
            for percent in percents
        ]


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts of requests, and their latency in milliseconds, in one bucket and group."""

    bucket: datetime | None
    group: str
    total: int
    successful: int
    failed: int
    average_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class SystemStats:
    """Everybody's requests in a time, and the accounts and keys there are."""

    total: Stats
    total_users: int
    active_users: int
    active_api_keys: int
    users_by_tier: dict[str, int]
