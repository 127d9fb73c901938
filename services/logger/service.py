"""The use cases: what callers may see of usage."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Literal, Protocol
from uuid import UUID

from servicekit.clock import Clock
from servicekit.errors import InvalidArgument
from servicekit.principal import Principal
from services.logger.domain import PageKey, Stats, SystemStats, Tally, UsageFilter, UsageRecord
from services.logger.errors import PageTokenInvalid

DEFAULT_PAGE, MAX_PAGE = 100, 1000
DEFAULT_SPAN = timedelta(days=30)
DEFAULT_SYSTEM_SPAN = timedelta(hours=24)
MAX_HOURS = 24 * 31
MAX_BUCKETS = 10_000
"""Of one answer of statistics: some 1.5 MB."""
EXPORT_CHUNK = 2_000

Bucket = Literal["hour", "day"]
Group = Literal["api_key", "result", "engine"]


class UsageReader(Protocol):
    """Reads as the caller: row level security holds underneath. See `store.UsageStore`."""

    async def list_usage(
        self, caller: Principal, where: UsageFilter, after: PageKey | None, limit: int
    ) -> list[UsageRecord]: ...

    async def tallies(
        self, caller: Principal, where: UsageFilter, bucket: Bucket | None, group: Group | None
    ) -> list[Tally]: ...

    def export(
        self, caller: Principal, where: UsageFilter, chunk: int
    ) -> AsyncIterator[list[UsageRecord]]: ...

    async def system_stats(self, start: datetime, end: datetime) -> SystemStats: ...


class UsageService:
    """Every method acts for one caller: a key sees its own requests, a login all of its user's."""

    def __init__(self, reader: UsageReader, clock: Clock) -> None:
        self._reader = reader
        self._clock = clock

    async def list_usage(
        self, caller: Principal, where: UsageFilter, page_size: int, page_token: str
    ) -> tuple[list[UsageRecord], str]:
        """A page, newest first, and the token of the next one ("" on the last).

        Keyset paging: rows that arrive meanwhile neither repeat nor skip older ones.
        """
        if page_size < 0:
            raise InvalidArgument.field("page_size", "must not be negative")
        limit = min(page_size or DEFAULT_PAGE, MAX_PAGE)
        after = decode_token(page_token) if page_token else None
        rows = await self._reader.list_usage(caller, narrowed(caller, where), after, limit + 1)
        more = len(rows) > limit
        rows = rows[:limit]
        return rows, encode_token(PageKey(rows[-1].created_at, rows[-1].id)) if more else ""

    async def stats(
        self, caller: Principal, where: UsageFilter, bucket: Bucket | None, group: Group | None
    ) -> tuple[Stats, list[Stats]]:
        """The whole time as one, and the buckets when any parting was asked for."""
        where = narrowed(caller, self._with_span(where))
        if (
            bucket == "hour"
            and where.start
            and where.end
            and where.end - where.start > timedelta(hours=MAX_HOURS)
        ):
            raise InvalidArgument.field("filter", f"hourly statistics span at most {MAX_HOURS // 24} days")
        tallies = await self._reader.tallies(caller, where, bucket, group)
        parted = [tally.stats() for tally in tallies] if bucket or group else []
        return Tally.merged(tallies).stats(), parted

    def export(
        self, caller: Principal, where: UsageFilter, chunk: int = EXPORT_CHUNK
    ) -> AsyncIterator[list[UsageRecord]]:
        """All matching requests, oldest first, in chunks. Nothing is read ahead of what is taken.

        What it holds, see `store.UsageStore.export`.
        """
        return self._reader.export(caller, narrowed(caller, where), chunk)

    async def system_stats(self, start: datetime | None, end: datetime | None) -> SystemStats:
        """Everybody's. The policy admits only the service role here."""
        end = end or self._clock.now()
        start = start or end - DEFAULT_SYSTEM_SPAN
        if start >= end:
            raise InvalidArgument.field("start_time", "must lie before end_time")
        return await self._reader.system_stats(start, end)

    def _with_span(self, where: UsageFilter) -> UsageFilter:
        end = where.end or self._clock.now()
        start = where.start or end - DEFAULT_SPAN
        return UsageFilter(start, end, where.api_key_id, where.success, where.error_reason, where.engine)


def narrowed(caller: Principal, where: UsageFilter) -> UsageFilter:
    """The filter, held to the caller's own key where a key is what calls."""
    if where.start and where.end and where.start >= where.end:
        raise InvalidArgument.field("filter.start_time", "must lie before filter.end_time")
    if caller.api_key_id is None:
        return where
    if where.api_key_id not in (None, caller.api_key_id):
        raise InvalidArgument.field("filter.api_key_id", "a key sees only its own usage")
    return UsageFilter(
        where.start, where.end, caller.api_key_id, where.success, where.error_reason, where.engine
    )


def encode_token(key: PageKey) -> str:
    """Opaque to clients. It holds nothing secret, and row level security stands behind it."""
    raw = f"{key.created_at.isoformat()}|{key.id}"
    return base64.urlsafe_b64encode(raw.encode()).decode().rstrip("=")


def decode_token(token: str) -> PageKey:
    """Raises `PageTokenInvalid` for anything that `encode_token` did not give."""
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True).decode()
        at, _, row_id = raw.partition("|")
        moment = datetime.fromisoformat(at)
        if moment.tzinfo is None:
            raise PageTokenInvalid
        # PostgreSQL's driver has no year either for what UTC has none for.
        return PageKey(moment.astimezone(UTC), UUID(row_id))
    except (ValueError, OverflowError, binascii.Error, UnicodeDecodeError) as error:
        raise PageTokenInvalid from error
