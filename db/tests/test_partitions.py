"""Partitions of usage_logs: there in time, in the right month, gone when their time is over."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import asyncpg
import pytest

from db.tests.support import User, refused

if TYPE_CHECKING:
    from db.tests.support import Connect, Connection

THIS_MONTH = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def month(offset: int) -> datetime:
    """The first moment of the month so many months from the present one."""
    whole = THIS_MONTH.year * 12 + THIS_MONTH.month - 1 + offset
    return THIS_MONTH.replace(year=whole // 12, month=whole % 12 + 1)


def partition(offset: int) -> str:
    return f"signgate.usage_logs_{month(offset):%Y_%m}"


async def log(connection: Connection, user: User, at: datetime) -> str:
    """Write a request; the partition it went to."""
    sql = "SELECT log_api_usage($1, NULL, 'u', true, 1, p_id => $2, p_created_at => $3)"
    made = await connection.fetchval(sql, user.id, uuid4(), at)
    return str(made)


async def place(admin: Connection, made: str) -> str:
    return str(
        await admin.fetchval(
            "SELECT tableoid::regclass::text FROM usage_logs WHERE id = $1::text::uuid", made
        )
    )


async def test_the_months_ahead_are_made_once(admin: Connection, connect: Connect) -> None:
    logger = await connect("signgate_logger")
    assert await logger.fetchval("SELECT ensure_usage_partitions()") == 0  # the migration made them
    assert await logger.fetchval("SELECT ensure_usage_partitions(5)") == 2
    assert await logger.fetchval("SELECT ensure_usage_partitions(5)") == 0
    names = {row[0] for row in await admin.fetch("SELECT inhrelid::regclass::text FROM pg_inherits")}
    assert {partition(offset) for offset in range(-1, 6)} <= names


async def test_many_at_once_make_each_month_once(connect: Connect) -> None:
    loggers = [await connect("signgate_logger") for _ in range(4)]
    made = await asyncio.gather(*(one.fetchval("SELECT ensure_usage_partitions(8)") for one in loggers))
    assert sorted(made) == [0, 0, 0, 5]


@pytest.mark.parametrize("months", ["-1", "121", "1, -1"])
async def test_an_absurd_number_of_months_is_refused(connect: Connect, months: str) -> None:
    logger = await connect("signgate_logger")
    with pytest.raises(asyncpg.InvalidParameterValueError):
        await logger.fetchval(f"SELECT ensure_usage_partitions({months})")


async def test_events_land_in_the_month_of_their_own_day(
    admin: Connection, connect: Connect, alice: User
) -> None:
    """Also late ones, and to the microsecond; in UTC, whatever the session's time zone."""
    logger = await connect("signgate_logger")
    await logger.execute("SET timezone = 'Pacific/Kiritimati'")
    last_moment = month(1) - timedelta(microseconds=1)
    for at, where in (
        (month(0), 0),
        (last_moment, 0),
        (month(1), 1),
        (month(0) - timedelta(microseconds=1), -1),
    ):
        assert await place(admin, await log(logger, alice, at)) == partition(where)


async def test_rows_that_wait_in_the_default_partition_move_when_their_month_is_made(
    admin: Connection, connect: Connect, alice: User
) -> None:
    logger = await connect("signgate_logger")
    far, older = await log(logger, alice, month(6)), await log(logger, alice, month(-4))
    assert await place(admin, far) == await place(admin, older) == "signgate.usage_logs_default"
    before = await admin.fetch("SELECT * FROM usage_logs ORDER BY id")
    assert await logger.fetchval("SELECT ensure_usage_partitions(6, 4)") == 6
    assert (await place(admin, far), await place(admin, older)) == (partition(6), partition(-4))
    assert await admin.fetch("SELECT * FROM usage_logs ORDER BY id") == before


async def test_a_new_partition_is_as_closed_as_the_table(admin: Connection, connect: Connect) -> None:
    logger = await connect("signgate_logger")
    await logger.execute("SELECT ensure_usage_partitions(12)")
    rows = await admin.fetch(
        "SELECT c.oid::regclass::text AS name, relrowsecurity AND relforcerowsecurity AS closed,"
        " (SELECT count(*) FROM pg_constraint WHERE conrelid = c.oid AND contype = 'f') AS foreign_keys,"
        " (SELECT count(*) FROM pg_index WHERE indrelid = c.oid) AS indexes"
        " FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid WHERE inhparent = 'usage_logs'::regclass"
    )
    assert len(rows) == 15
    assert [
        row["name"] for row in rows if not row["closed"] or row["foreign_keys"] != 2 or row["indexes"] != 4
    ] == []
    assert await refused(logger, f"SELECT * FROM {partition(12)}")


async def test_retention_drops_what_lies_wholly_before_the_day(
    admin: Connection, connect: Connect, alice: User
) -> None:
    """The month that the day stands in stays whole."""
    logger = await connect("signgate_logger")
    await logger.execute("SELECT ensure_usage_partitions(3, 3)")
    kept = [await log(logger, alice, month(offset)) for offset in (-1, 0)]
    for offset in (-3, -2, -12):
        await log(logger, alice, month(offset))
    await admin.execute("DELETE FROM usage_logs WHERE room_url = 'u' AND api_key_id IS NOT NULL")
    day = (month(-1) + timedelta(days=10)).date()
    dropped = [row[0] for row in await logger.fetch("SELECT drop_usage_partitions_before($1)", day)]
    assert [f"signgate.{name}" for name in dropped] == [partition(-3), partition(-2)]
    assert {str(row[0]) for row in await admin.fetch("SELECT id FROM usage_logs")} == set(kept)


async def test_retention_never_drops_the_present(connect: Connect) -> None:
    logger = await connect("signgate_logger")
    for day in (datetime.now(UTC).date() + timedelta(days=2), None):
        with pytest.raises(asyncpg.InvalidParameterValueError):
            await logger.fetch("SELECT drop_usage_partitions_before($1)", day)
