"""A year's statistics of one busy user, as the caller gets them, and the same from the rows themselves.

The rows are written as SQL writes them fastest, and counted by the statements of the migration that made the
counts; what is measured is UsageService, by a call of it, and the query plan of the part that reads most.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from bench.figures import Results
from bench.progress import Say
from bench.world import Account, World
from signgate.usage.v1 import usage_pb2 as pb
from signgate.usage.v1 import usage_pb2_grpc

YEAR = timedelta(days=365)
CHUNK = 500_000
_fill = """
INSERT INTO public.usage_logs (id, user_id, api_key_id, room_url, success, response_time_ms, error_message,
                               created_at, engine, pool, charged, charged_day)
SELECT gen_random_uuid(), $1, $2, 'https://www.tiktok.com/@bench.' || n % 10000 || '/live', n % 20 > 0,
       CASE WHEN n % 20 > 0
            THEN greatest(1, (4 * exp(1.04 * (random() + random() + random() + random() - 2)))::int)
            ELSE 1 + (3 * random())::int END, CASE WHEN n % 20 = 0 THEN 'RATE_LIMITED' END, at,
       CASE WHEN n % 20 > 0 THEN 'native' END, CASE WHEN n % 20 > 0 THEN 'api_key' END, (n % 20 > 0)::int,
       CASE WHEN n % 20 > 0 THEN (at AT TIME ZONE 'UTC')::date END
FROM (SELECT n, $3::timestamptz + $6::interval * (n::float8 / $5::bigint) AS at
      FROM generate_series($4::bigint, least($4::bigint + 499999, $5::bigint - 1)) AS n) AS moment
"""
_rows = """
SELECT count(*) AS rows, count(*) FILTER (WHERE success) AS good, avg(response_time_ms),
       percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY response_time_ms)
FROM public.usage_logs WHERE user_id = $1 AND created_at >= $2 AND created_at < $3
"""
PARTS: dict[str, dict[str, Any]] = {
    "the whole year": {},
    "by day": {"granularity": pb.GRANULARITY_DAY},
    "by key": {"group_by": pb.DIMENSION_API_KEY},
    "by day and result": {"granularity": pb.GRANULARITY_DAY, "group_by": pb.DIMENSION_RESULT},
}


async def year(world: World, rounds: int, count: int, results: Results, say: Say) -> None:
    """The slowest of the ways to ask, a round, in milliseconds."""
    account, end = world.accounts[0], datetime.now(UTC)
    sql = await world.sql()
    try:
        await written(sql, account, end - YEAR, 0, count, say)
        began = time.monotonic()
        row = await sql.fetchrow(_rows, account.user_id, end - YEAR, end, timeout=600)
        from_rows = (time.monotonic() - began) * 1000
        there = 0 if row is None else row["rows"]
        taken: dict[str, list[float]] = {name: [] for name in PARTS}
        async with grpc.aio.insecure_channel(world.address("logger")) as channel:
            stub: Any = usage_pb2_grpc.UsageServiceStub(channel)
            for number in range(rounds + 1):
                for name, part in PARTS.items():
                    milliseconds = await asked(stub, account, end, there, part)
                    if number:  # the first fills caches
                        taken[name].append(milliseconds)
        plan = await _plan(sql, account, end)
    finally:
        await sql.close()
    results.add("year_statistics_ms", [max(times) for times in zip(*taken.values(), strict=True)])
    results.details["year_statistics"] = {
        "rows": count,
        "milliseconds": {name: [round(value, 1) for value in values] for name, values in taken.items()},
        "from_the_rows_milliseconds": round(from_rows, 1),
        "plan": plan,
    }
    say(f"{count:,} rows: {from_rows:,.0f} ms from the rows themselves")


async def written(
    sql: asyncpg.Connection[Any], account: Account, start: datetime, there: int, count: int, say: Say
) -> None:
    """Write rows of a year, so that there are `count` where there were some, and count them."""
    await sql.execute("SELECT ensure_usage_partitions(3, 13)")
    # Foreign keys are not looked up row by row: there is one user, and they are there.
    await sql.execute("SET session_replication_role = replica")
    for first in range(there, count, CHUNK):
        await sql.execute(_fill, account.user_id, account.key_id, start, first, count, YEAR, timeout=600)
        if (first - there) // CHUNK % 4 == 0:
            say(f"{first:,} of {count:,} rows")
    await sql.execute("RESET session_replication_role")
    (migration,) = Path("db/migrations").glob("*_create_usage_rollups.sql")  # noqa: ASYNC240 - nothing else runs
    text = migration.read_text(encoding="utf-8")
    counting = text.split("-- Usage that is there already.")[1].split("-- A user or a key that is deleted")[0]
    async with sql.transaction():
        await sql.execute("SET LOCAL statement_timeout = 0; TRUNCATE usage_hours, usage_days")
        await sql.execute(counting.split("\n", 1)[1], timeout=600)
    await sql.execute("VACUUM ANALYZE usage_logs, usage_hours, usage_days", timeout=600)
    say("counted")


async def asked(stub: Any, account: Account, end: datetime, count: int, part: dict[str, Any]) -> float:
    """Milliseconds of one question. Raises `RuntimeError` unless so many requests are in its answer."""

    def moment(value: datetime) -> Timestamp:
        return Timestamp(seconds=int(value.timestamp()), nanos=value.microsecond * 1000)

    where = pb.UsageFilter(start_time=moment(end - YEAR), end_time=moment(end))
    began = time.monotonic()
    answer = await stub.GetUsageStats(
        pb.GetUsageStatsRequest(filter=where, **part),
        metadata=(("x-api-key", account.secret),),
        timeout=60,
    )
    taken = (time.monotonic() - began) * 1000
    if answer.total.total_requests != count:
        raise RuntimeError(f"{answer.total.total_requests} of {count} requests are in the answer")
    return taken


async def _plan(sql: asyncpg.Connection[Any], account: Account, end: datetime) -> list[str]:
    """Of the read of whole days, which is nearly all that is read."""
    found = await sql.fetch(
        "EXPLAIN (ANALYZE, BUFFERS) SELECT latency_ms, sum(requests) FROM usage_days"
        " WHERE user_id = $1 AND day >= $2 AND day < $3 GROUP BY 1",
        account.user_id,
        end - YEAR,
        end,
    )
    return [row[0] for row in found]


def measure(world: World, rounds: int, count: int, results: Results, say: Say) -> None:
    """`year`, from outside an event loop."""
    asyncio.run(year(world, rounds, count, results, say))
