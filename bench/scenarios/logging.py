"""The logger's rows a second, from stream to commit with the counts, against PostgreSQL's own COPY.

The stream is filled while the logger is stopped; then it is started, and the clock runs from its first
committed row to its last acknowledgement. `copy` puts the same number of rows of the same shape into the same
table, with its partitions and indexes, by one binary COPY, and counts nothing.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from bench.figures import Results
from bench.progress import Say
from bench.scenarios.contenders import room
from bench.world import SHARDS, World
from servicekit.clock import uuid7
from signgate.common.v1 import quota_pb2
from signgate.usage.v1 import event_pb2

EVENTS = 32
"""In an entry: as many as a list of the signer has under load."""
PIPELINE = 500
"""Commands sent to Redis at once."""
COLUMNS = (
    "id", "user_id", "api_key_id", "room_url", "success", "response_time_ms", "created_at", "engine", "pool",
    "charge_id", "charged_day",
)  # fmt: skip


def rows(world: World, rounds: int, count: int, results: Results, say: Say) -> None:
    """The ratio and the rate, a round of so many rows each."""
    rates: list[float] = []
    copied: list[float] = []
    world.drain()
    for number in range(rounds):
        copied.append(asyncio.run(_copy(world, count)))
        say(f"round {number + 1} of {rounds}: copy {copied[-1]:,.0f} rows/s")
        rates.append(asyncio.run(logged(world, count)))
        say(f"round {number + 1} of {rounds}: logger {rates[-1]:,.0f} rows/s")
    results.add("logger_over_copy", [a / b for a, b in zip(rates, copied, strict=True)])
    results.add("logger_rows_per_second", rates)
    results.details["rows_per_second"] = {
        "logger": [round(rate) for rate in rates],
        "copy": [round(rate) for rate in copied],
    }


async def logged(world: World, count: int) -> float:
    """Rows a second of so many, from the first one committed to the last acknowledgement."""
    world.stack.stop("logger")
    since = datetime.now(UTC)
    _fill(world, count)
    sql = await world.sql()
    users = [account.user_id for account in world.accounts]

    async def committed() -> int:
        """Of these rows. By an index, for a count of all there are would take longer than what is timed."""
        found: int = await sql.fetchval(
            "SELECT count(*) FROM usage_logs WHERE user_id = ANY($1) AND created_at >= $2", users, since
        )
        return found

    try:
        world.stack.start("logger")
        while not (first := await committed()):  # noqa: ASYNC110
            await asyncio.sleep(0.002)  # another process's work, seen in the database only
        began = time.monotonic()
        await asyncio.to_thread(world.drain)
        seconds = time.monotonic() - began
        if (done := await committed()) != count:
            raise RuntimeError(f"{done} rows of {count}")
        return float(count - first) / seconds
    finally:
        await sql.close()


def _fill(world: World, count: int) -> None:
    """Events as the signer publishes them; the day's charge of each is its own."""
    now = time.time()
    day = int(now // 86_400)
    pipe = world.redis.pipeline(transaction=False)
    for number in range(0, count, EVENTS):
        account = world.accounts[number // EVENTS % len(world.accounts)]
        entry = event_pb2.UsageEvents()
        for place in range(number, min(number + EVENTS, count)):
            event = entry.events.add(
                id=str(uuid7()),
                user_id=str(account.user_id),
                api_key_id=str(account.key_id),
                room_url=room(place % 10_000),
                response_time_ms=3,
                engine="native",
                success=True,
                pool=quota_pb2.POOL_API_KEY,
                charge_id=str(uuid7()),
                charged=1,
                charged_day=day,
            )
            event.created_at.FromNanoseconds(int(now * 1e9))
        shard = number // EVENTS % SHARDS
        pipe.xadd(f"usage:{{{shard}}}", {"e": entry.SerializeToString()})
        if len(pipe) >= PIPELINE:
            pipe.execute()
    pipe.execute()


async def _copy(world: World, count: int) -> float:
    now = datetime.now(UTC)

    def record(number: int) -> tuple[Any, ...]:
        account = world.accounts[number // EVENTS % len(world.accounts)]
        return (
            UUID(bytes=uuid7().bytes), account.user_id, account.key_id, room(number % 10_000), True, 3, now,
            "native", "api_key", UUID(bytes=uuid7().bytes), now.date(),
        )  # fmt: skip

    records = [record(number) for number in range(count)]
    sql = await world.sql()
    try:
        began = time.monotonic()
        await sql.copy_records_to_table("usage_logs", records=records, columns=COLUMNS)
        return count / (time.monotonic() - began)
    finally:
        await sql.close()
