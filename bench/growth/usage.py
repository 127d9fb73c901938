"""What usage costs, against the rows there are: logging more, a year's statistics, the newest page."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

import grpc

from bench.growth.curves import Curve
from bench.progress import Say
from bench.scenarios.logging import logged
from bench.scenarios.statistics import PARTS, YEAR, asked, written
from bench.world import World
from signgate.usage.v1 import usage_pb2 as pb
from signgate.usage.v1 import usage_pb2_grpc

PAGES = 20


def measure(world: World, sizes: tuple[int, ...], rounds: int, logs: int, say: Say) -> list[Curve]:
    """Curves by rows of one user, who has nearly all there are."""
    log = Curve("log", "usage rows there are", "µs to log a row, from stream to commit")
    year = Curve("year_statistics", "usage rows there are", "ms for a year's statistics")
    page = Curve("list_usage", "usage rows there are", "ms for the newest page of 100 rows")
    # A user of its own: what others sign and what is logged meanwhile is no row of the year asked for.
    others = world.accounts
    asyncio.run(world.populate(1))
    (account,), world.accounts = world.accounts, others
    there, end = 0, datetime.now(UTC)
    for size in sizes:
        asyncio.run(_filled(world, account, end, there, size, say))
        there = size
        found = asyncio.run(_read(world, account, end, size, rounds))
        year.add(size, found[0])
        page.add(size, found[1])
        log.add(size, [1e6 / asyncio.run(logged(world, logs)) for _ in range(rounds)])
        say(
            f"{size:,} rows: {log.medians[size]:.1f} µs to log one,"
            f" statistics {year.medians[size]:.1f} ms, a page {page.medians[size]:.1f} ms"
        )
    return [log, year, page]


async def _filled(world: World, account: Any, end: datetime, there: int, size: int, say: Say) -> None:
    sql = await world.sql()
    try:
        await written(sql, account, end - YEAR, there, size, say)
        await sql.execute("CHECKPOINT", timeout=300)
    finally:
        await sql.close()


async def _read(
    world: World, account: Any, end: datetime, size: int, rounds: int
) -> tuple[list[float], list[float]]:
    statistics, pages = [], []
    async with grpc.aio.insecure_channel(world.address("logger")) as channel:
        stub: Any = usage_pb2_grpc.UsageServiceStub(channel)
        for number in range(rounds + 1):
            taken = [await asked(stub, account, end, size, part) for part in PARTS.values()]
            if number:  # the first fills caches
                statistics.append(max(taken))
        for _ in range(PAGES):
            began = time.perf_counter()
            answer = await stub.ListUsage(
                pb.ListUsageRequest(page_size=100), metadata=(("x-api-key", account.secret),), timeout=30
            )
            pages.append((time.perf_counter() - began) * 1000)
            if len(answer.records) != 100:  # noqa: PLR2004  # as asked for
                raise RuntimeError(f"a page of {len(answer.records)}")
    return statistics, pages
