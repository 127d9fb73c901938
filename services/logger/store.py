"""Reads of usage: the only SQL of `UsageService`. As the caller, so that row level security holds.

Each kind has its own pool, and no connection is held while a caller reads. So a slow kind of call, or a slow
caller, does not slow the others down.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

from servicekit.errors import Unavailable
from servicekit.postgres import Database
from servicekit.principal import Principal
from services.logger.domain import (
    LATENCY_SHIFT,
    PageKey,
    Stats,
    SystemStats,
    Tally,
    UsageFilter,
    UsageRecord,
)
from services.logger.errors import StatisticsTooLarge
from services.logger.service import MAX_BUCKETS, Bucket, Group

if TYPE_CHECKING:
    from servicekit.postgres import Connection

COLUMNS = "id, api_key_id, room_url, success, response_time_ms, error_message, created_at, engine, charged"
# Names of columns and functions are chosen here, never the caller's text.
BUCKET_SQL: dict[Bucket | None, str] = {
    None: "NULL::timestamptz",
    "hour": "date_bin('1 hour', at, '2000-01-01 00:00+00')",
    "day": "date_bin('1 day', at, '2000-01-01 00:00+00')",
}
NOBODY = UUID(int=0)
GROUP_SQL: dict[Group | None, str] = {
    None: "''",
    "api_key": f"CASE WHEN api_key_id = '{NOBODY}' THEN '' ELSE api_key_id::text END",
    "result": "CASE WHEN success THEN 'signed' ELSE coalesce(nullif(error_message, ''), 'UNKNOWN') END",
    "engine": "engine",
}
# One pass without a sort: the latencies are ranked by who asked, a few dozen a bucket. Each comes as one
# number: PostgreSQL sets 8 KiB aside for each array of a bucket, and with two a year of days would spill.
TALLIES = """
SELECT {bucket} AS bucket, {group} COLLATE "C" AS part, sum(requests)::bigint AS total,
       coalesce(sum(requests) FILTER (WHERE success), 0)::bigint AS successful,
       sum(total_ms)::bigint AS total_ms,
       array_agg(latency_ms::bigint << {shift} | requests) AS latencies
FROM get_usage_counts($1, $2, $3, $4) WHERE {conditions} GROUP BY 1, 2 ORDER BY 1, 2 LIMIT {limit}
"""


class Pool(Protocol):
    """`servicekit.postgres.Database`, or a caller's share of one."""

    def as_user(self, principal: Principal) -> AbstractAsyncContextManager[Connection]: ...


class UsageStore:
    """See `service.UsageReader`. Raises `Unavailable` when PostgreSQL can't be read.

    `statistics` and `exports` are separate pools if given; `system` reads all users' rows.
    """

    def __init__(
        self,
        pages: Database | Pool,
        *,
        statistics: Pool | None = None,
        exports: Pool | None = None,
        system: Database | None = None,
    ) -> None:
        self._pages = pages
        self._statistics = statistics or pages
        self._exports = exports or pages
        self._system = system or (pages if isinstance(pages, Database) else None)

    async def list_usage(
        self, caller: Principal, where: UsageFilter, after: PageKey | None, limit: int
    ) -> list[UsageRecord]:
        """Newest first, by an index on (user_id, created_at, id)."""
        conditions, args = condition(caller, where)
        if after is not None:
            args += [after.created_at, after.id]
            conditions += f" AND (created_at, id) < (${len(args) - 1}, ${len(args)})"
        sql = (
            f"SELECT {COLUMNS} FROM usage_logs WHERE {conditions}"  # noqa: S608 - from constants
            f" ORDER BY created_at DESC, id DESC LIMIT {limit:d}"
        )
        async with self._pages.as_user(caller) as connection:
            rows = await connection.fetch(sql, *args)
        return [record(row) for row in rows]

    async def tallies(
        self, caller: Principal, where: UsageFilter, bucket: Bucket | None, group: Group | None
    ) -> list[Tally]:
        """Counts by bucket and group, in order. The filter has a start and an end.

        Raises `StatisticsTooLarge` when there are more than `MAX_BUCKETS`.
        """
        conditions, rest = clauses(replace(where, start=None, end=None), after=4)
        sql = TALLIES.format(
            bucket=BUCKET_SQL[bucket],
            group=GROUP_SQL[group],
            shift=LATENCY_SHIFT,
            conditions=conditions,
            limit=MAX_BUCKETS + 1,
        )
        args = [caller.user_id, where.start, where.end, bucket != "hour", *rest]
        async with self._statistics.as_user(caller) as connection:
            rows = await connection.fetch(sql, *args)
        if len(rows) > MAX_BUCKETS:
            raise StatisticsTooLarge(
                f"The answer would have more than {MAX_BUCKETS} buckets. Use a shorter time or wider ones."
            )
        return [Tally(*row) for row in rows]

    async def export(
        self, caller: Principal, where: UsageFilter, chunk: int
    ) -> AsyncIterator[list[UsageRecord]]:
        """Oldest first, in chunks of so many. In between neither a connection nor a transaction is held.

        Each chunk is a page by key, up to the caller's newest request at the beginning. So a request that was
        committed at the beginning is in it once (unless it is deleted in between), and one that arrived
        after that newest one is not. One that arrived before it and is committed in between may be in it.
        """
        conditions, args = condition(caller, where)
        last: PageKey | None = None
        after: PageKey | None = None
        while True:
            async with self._exports.as_user(caller) as connection:
                if last is None:
                    last = await _newest(connection, caller, where)
                if last is None:
                    return
                rows = await connection.fetch(*_chunk(conditions, args, after, last, chunk))
            if not rows:
                return
            after = PageKey(rows[-1]["created_at"], rows[-1]["id"])
            more = len(rows) == chunk
            # The receiver may take its time with them: what the driver made of them is not kept as well.
            records = [record(row) for row in rows]
            rows.clear()
            yield records
            if not more:
                return

    async def system_stats(self, start: datetime, end: datetime) -> SystemStats:
        """Everybody's, by the database's own function, which only the service role may call."""
        if self._system is None:
            raise Unavailable
        row = await self._system.fetchrow("SELECT * FROM get_system_usage_stats($1, $2)", start, end)
        if row is None:
            raise Unavailable
        return SystemStats(
            total=Stats(
                bucket=None,
                group="",
                total=row["total_requests"],
                successful=row["successful_requests"],
                failed=row["failed_requests"],
                average_ms=row["average_response_time_ms"] or 0.0,
                p50_ms=row["p50_response_time_ms"] or 0.0,
                p95_ms=row["p95_response_time_ms"] or 0.0,
                p99_ms=row["p99_response_time_ms"] or 0.0,
            ),
            total_users=row["total_users"],
            active_users=row["active_users"],
            active_api_keys=row["active_api_keys"],
            users_by_tier=json.loads(row["users_by_tier"]),
        )


async def _newest(connection: Connection, caller: Principal, where: UsageFilter) -> PageKey | None:
    """The key of the caller's newest request: one look into an index, whatever the filter."""
    conditions, args = condition(caller, UsageFilter(end=where.end))
    row = await connection.fetchrow(
        f"SELECT created_at, id FROM usage_logs WHERE {conditions}"  # noqa: S608 - from constants
        " ORDER BY created_at DESC, id DESC LIMIT 1",
        *args,
    )
    return None if row is None else PageKey(row["created_at"], row["id"])


def _chunk(
    conditions: str, args: list[Any], after: PageKey | None, last: PageKey, limit: int
) -> tuple[Any, ...]:
    """The statement of an export's next chunk, and its arguments.

    The bounds on created_at alone say nothing new; by them the planner leaves partitions out.
    """
    n = len(args)
    bounds = f" AND created_at <= ${n + 1} AND (created_at, id) <= (${n + 1}, ${n + 2})"
    values = [*args, last.created_at, last.id]
    if after is not None:
        bounds += f" AND created_at >= ${n + 3} AND (created_at, id) > (${n + 3}, ${n + 4})"
        values += [after.created_at, after.id]
    sql = (
        f"SELECT {COLUMNS} FROM usage_logs WHERE {conditions}{bounds}"  # noqa: S608 - from constants
        f" ORDER BY created_at, id LIMIT {limit:d}"
    )
    return sql, *values


def condition(caller: Principal, where: UsageFilter) -> tuple[str, list[Any]]:
    """The WHERE of a filter. The user is named for the index; that it is right, the policy holds."""
    text, args = clauses(where, after=1)
    return f"user_id = $1 AND {text}", [caller.user_id, *args]


def clauses(where: UsageFilter, after: int) -> tuple[str, list[Any]]:
    """A filter's conditions, and their arguments, which come after so many others."""
    found, args = ["true"], []
    for clause, value in (
        ("created_at >= ", where.start),
        ("created_at < ", where.end),
        ("api_key_id = ", where.api_key_id),
        ("success = ", where.success),
        ("error_message = ", where.error_reason),
        ("engine = ", where.engine),
    ):
        if value is not None:
            args.append(value)
            found.append(f"{clause}${after + len(args)}")
    return " AND ".join(found), args


def record(row: Any) -> UsageRecord:
    return UsageRecord(
        id=row[0],
        api_key_id=row[1],
        room_url=row[2],
        success=row[3],
        response_time_ms=row[4],
        error_reason=row[5],
        created_at=row[6],
        engine=row[7],
        charged=row[8],
    )
