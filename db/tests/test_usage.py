"""Usage: each event counts once, whatever is redelivered and however many write at once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import asyncpg
import pytest

from db.tests.support import User, acting

if TYPE_CHECKING:
    from db.tests.support import Connect, Connection

NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
TODAY = NOON.date()
INGEST = f"SELECT * FROM ingest_usage({', '.join(f'${n}' for n in range(1, 14))})"


@dataclass(frozen=True)
class Event:
    user: UUID | None
    key: UUID | None = None
    id: UUID | None = None
    room_url: str | None = "https://www.tiktok.com/@a/live"
    success: bool = True
    ms: int = 10
    error: str | None = None
    at: datetime = NOON
    engine: str | None = "native"
    pool: str | None = "free"
    charge: UUID | None = None
    charged: int = 1
    day: date | None = None


def event(user: UUID | None, key: UUID | None = None, **changes: object) -> Event:
    made = Event(user, key, id=uuid4(), pool="api_key" if key else "free")
    return replace(made, **changes)  # type: ignore[arg-type]


def failed(user: UUID, reason: str) -> Event:
    return event(user, success=False, error=reason, charged=0, pool=None, engine=None)


async def ingest(logger: Connection, events: Sequence[Event]) -> tuple[int, int, int]:
    """New rows, rows that were there, signatures charged."""
    order = (
        "id",
        "user",
        "key",
        "room_url",
        "success",
        "ms",
        "error",
        "at",
        "engine",
        "pool",
        "charge",
        "charged",
        "day",
    )
    row = await logger.fetchrow(INGEST, *([getattr(one, name) for one in events] for name in order))
    assert row is not None
    return row["inserted"], row["duplicates"], row["charged"]


async def counts(admin: Connection, user: UUID, day: date = TODAY) -> tuple[int, int, int]:
    """In all, free, by keys: as the service role asks."""
    async with acting(admin, "service_role"):
        row = await admin.fetchrow("SELECT * FROM get_user_quota_usage($1, $2)", user, day)
    assert row is not None
    return row["request_count"], row["free_count"], row["api_key_count"]


async def test_rows_counts_and_last_used_are_written_together(
    admin: Connection, connect: Connect, alice: User, bob: User
) -> None:
    logger = await connect("signgate_logger")
    events = [
        *(event(alice.id) for _ in range(3)),
        *(event(alice.id, alice.key, at=NOON + timedelta(seconds=n)) for n in range(4)),
        *(event(bob.id, bob.key, charged=2) for _ in range(2)),
        failed(alice.id, "ROOM_URL_INVALID"),
    ]
    assert await ingest(logger, events) == (10, 0, 11)
    assert await counts(admin, alice.id) == (7, 3, 4)
    assert await counts(admin, bob.id) == (4, 0, 4)
    assert await admin.fetchval(
        "SELECT last_used FROM api_keys WHERE id = $1", alice.key
    ) == NOON + timedelta(seconds=3)
    row = await admin.fetchrow("SELECT * FROM usage_logs WHERE error_message IS NOT NULL")
    assert row is not None
    assert (row["success"], row["error_message"], row["charged"], row["charged_day"]) == (
        False,
        "ROOM_URL_INVALID",
        0,
        None,
    )


async def test_a_redelivery_changes_nothing(admin: Connection, connect: Connect, alice: User) -> None:
    """Whole, in part, and within one call."""
    logger = await connect("signgate_logger")
    events = [event(alice.id, alice.key) for _ in range(5)]
    assert await ingest(logger, [*events, events[0]]) == (5, 1, 5)
    before = await admin.fetch("SELECT * FROM usage_logs ORDER BY id")
    assert await ingest(logger, [*events[2:], event(alice.id)]) == (1, 3, 1)
    assert await ingest(logger, events) == (0, 5, 0)
    assert await counts(admin, alice.id) == (6, 1, 5)
    after = await admin.fetch("SELECT * FROM usage_logs ORDER BY id")
    assert [row for row in after if row in before] == before


async def test_the_same_events_from_many_at_once_count_once(
    admin: Connection, connect: Connect, alice: User, bob: User
) -> None:
    """Six writers, overlapping lists in different orders, several rounds: no deadlock, nothing twice."""
    events = [
        *(event(alice.id, alice.key) for _ in range(80)),
        *(event(bob.id, bob.key) for _ in range(80)),
        *(event(user.id) for user in (alice, bob) for _ in range(40)),
    ]
    randomness = random.Random(4)  # noqa: S311 - a shuffle, repeatable

    async def write(lists: list[list[Event]]) -> list[tuple[int, int, int]]:
        logger = await connect("signgate_logger")
        return [await ingest(logger, one) for one in lists]

    work = []
    for _ in range(6):
        mine = randomness.sample(events, len(events))
        work.append([mine[start : start + 60] for start in range(0, len(mine), 60)])
    results = [one for lists in await asyncio.gather(*map(write, work)) for one in lists]
    assert sum(inserted for inserted, _, _ in results) == len(events)
    assert sum(duplicates for _, duplicates, _ in results) == 5 * len(events)
    assert sum(charged for _, _, charged in results) == len(events)
    assert await counts(admin, alice.id) == (120, 40, 80)
    assert await counts(admin, bob.id) == (120, 40, 80)


async def test_nothing_of_a_transaction_that_does_not_commit_stays(
    admin: Connection, connect: Connect, alice: User
) -> None:
    logger, events = await connect("signgate_logger"), [event(alice.id, alice.key)]
    transaction = logger.transaction()
    await transaction.start()
    await ingest(logger, events)
    await transaction.rollback()
    assert await counts(admin, alice.id) == (0, 0, 0)
    assert await ingest(logger, events) == (1, 0, 1)


async def test_the_day_that_was_charged_counts_not_the_day_of_the_request(
    admin: Connection, connect: Connect, alice: User
) -> None:
    """A request that met midnight; and without a charged day, the UTC day of the request in any time zone."""
    logger, late = await connect("signgate_logger"), NOON.replace(hour=23, minute=59, second=59)
    await logger.execute("SET timezone = 'Pacific/Kiritimati'")
    tomorrow = TODAY + timedelta(days=1)
    await ingest(logger, [event(alice.id, at=late, day=tomorrow), event(alice.id, at=late)])
    assert await counts(admin, alice.id) == (1, 1, 0)
    assert await counts(admin, alice.id, tomorrow) == (1, 1, 0)


async def test_events_of_a_deleted_user_or_key_keep_their_row_and_the_pool_its_count(
    admin: Connection, connect: Connect, alice: User, bob: User
) -> None:
    logger = await connect("signgate_logger")
    await ingest(logger, [event(bob.id, bob.key)])
    await admin.execute("DELETE FROM auth.users WHERE id = $1", alice.id)
    await admin.execute("DELETE FROM api_keys WHERE id = $1", bob.key)
    assert await ingest(logger, [event(alice.id, alice.key), event(bob.id, bob.key)]) == (2, 0, 2)
    rows = await admin.fetch(
        "SELECT user_id, api_key_id FROM usage_logs WHERE charged = 1 ORDER BY user_id NULLS FIRST"
    )
    assert [tuple(row) for row in rows] == [(None, None), (bob.id, None), (bob.id, None)]
    assert await counts(admin, bob.id) == (2, 0, 2)


async def test_another_users_key_is_never_tied_to_a_row(
    admin: Connection, connect: Connect, alice: User, bob: User
) -> None:
    await ingest(await connect("signgate_logger"), [event(alice.id, bob.key)])
    assert (
        await admin.fetchval("SELECT count(*) FROM usage_logs WHERE api_key_id = $1 AND charged = 1", bob.key)
        == 0
    )
    assert await admin.fetchval("SELECT last_used FROM api_keys WHERE id = $1", bob.key) is None


async def test_last_used_never_goes_back(admin: Connection, connect: Connect, alice: User) -> None:
    logger = await connect("signgate_logger")
    await ingest(logger, [event(alice.id, alice.key)])
    await ingest(logger, [event(alice.id, alice.key, at=NOON - timedelta(hours=1))])
    assert await admin.fetchval("SELECT last_used FROM api_keys WHERE id = $1", alice.key) == NOON


@pytest.mark.parametrize("poison", [{"room_url": None}, {"id": None}, {"charged": -1}, {"pool": "gold"}])
async def test_an_event_that_cannot_be_a_row_undoes_the_whole_call(
    admin: Connection, connect: Connect, alice: User, poison: dict[str, object]
) -> None:
    """So that the logger can look for it in halves and set it aside."""
    logger = await connect("signgate_logger")
    with pytest.raises((asyncpg.NotNullViolationError, asyncpg.CheckViolationError)):
        await ingest(logger, [event(alice.id), replace(event(alice.id), **poison)])  # type: ignore[arg-type]
    assert await counts(admin, alice.id) == (0, 0, 0)
    assert await admin.fetchval("SELECT count(*) FROM usage_logs WHERE created_at = $1", NOON) == 0


async def test_arrays_of_unequal_length_are_refused(connect: Connect, alice: User) -> None:
    logger = await connect("signgate_logger")
    with pytest.raises(asyncpg.InvalidParameterValueError):
        await logger.fetch(INGEST, [uuid4()], *([] for _ in range(12)))
    assert await ingest(logger, []) == (0, 0, 0)


async def test_log_api_usage_writes_one_row_and_counts_only_what_it_is_told(
    admin: Connection, connect: Connect, alice: User
) -> None:
    logger = await connect("signgate_logger")
    sql = "SELECT log_api_usage($1, $2, 'u', true, 12, p_id => $3, p_created_at => $4, p_charged => $5)"
    first, second = uuid4(), uuid4()
    assert await logger.fetchval(sql, alice.id, None, first, NOON, 0) == first
    assert await counts(admin, alice.id) == (0, 0, 0)
    for _ in range(2):
        assert await logger.fetchval(sql, alice.id, alice.key, second, NOON, 1) == second
    assert await counts(admin, alice.id) == (1, 0, 1)
    assert await admin.fetchval("SELECT count(*) FROM usage_logs WHERE created_at = $1", NOON) == 2


async def test_update_quota_usage_adds_to_the_user_and_to_the_key(
    admin: Connection, connect: Connect, alice: User
) -> None:
    logger = await connect("signgate_logger")
    assert await logger.fetchval("SELECT update_quota_usage($1)", alice.id) == 1
    assert await logger.fetchval("SELECT update_quota_usage($1, 4, $2)", alice.id, alice.key) == 5
    assert await counts(admin, alice.id) == (5, 1, 4)
    for count in (0, -1, None):
        with pytest.raises(asyncpg.InvalidParameterValueError):
            await logger.execute("SELECT update_quota_usage($1, $2)", alice.id, count)


@pytest.mark.parametrize(("used", "remaining"), [(6, 1), (7, 0), (9, 0)])
async def test_check_user_quota_limit_compares_with_the_limit_in_force(
    connect: Connect, alice: User, used: int, remaining: int
) -> None:
    """Alice's override gives her 7 a day in the pool `free`; her keys' pool has the plan's 10000."""
    logger, api = await connect("signgate_logger"), await connect("authenticator")
    await ingest(logger, [event(alice.id, charged=used), event(alice.id, alice.key, charged=50)])
    async with acting(api, "authenticated", alice.id):
        row = await api.fetchrow("SELECT * FROM check_user_quota_limit($1)", alice.id)
        assert row is not None
        assert tuple(row) == (remaining == 0, used, 7, remaining)
        row = await api.fetchrow("SELECT * FROM check_user_quota_limit($1, p_pool => 'api_key')", alice.id)
        assert row is not None
        assert tuple(row) == (False, 50, 10000, 9950)
        assert await api.fetchval("SELECT exceeded FROM check_user_quota_limit($1, 2)", alice.id)


async def test_limits_are_the_plans_until_an_override_and_again_after_it(
    admin: Connection, connect: Connect, alice: User
) -> None:
    quota = await connect("signgate_quota")

    async def limits() -> set[tuple[str, int, int, int]]:
        rows = await quota.fetch("SELECT * FROM get_user_limits($1)", [alice.id, uuid4()])
        assert {row["user_id"] for row in rows} == {alice.id}
        return {(row["pool"], row["daily_limit"], row["per_minute"], row["burst"]) for row in rows}

    assert await limits() == {("free", 7, 20, 10), ("api_key", 10000, 600, 100)}
    await admin.execute("UPDATE user_plan_overrides SET expires_at = now()")
    assert await limits() == {("free", 100, 20, 10), ("api_key", 10000, 600, 100)}


async def test_user_statistics_are_right_and_only_the_users_own(
    admin: Connection, connect: Connect, alice: User, bob: User
) -> None:
    logger, api = await connect("signgate_logger"), await connect("authenticator")
    start, end = NOON - timedelta(hours=1), NOON + timedelta(hours=1)
    await admin.execute("TRUNCATE usage_logs, usage_hours, usage_days")  # the users' first rows are of now
    events = [event(alice.id, alice.key if n % 2 else None, ms=n, at=start) for n in range(1, 101)]
    edges = [event(alice.id, at=end), event(alice.id, at=start - timedelta(microseconds=1)), event(bob.id)]
    await ingest(logger, [*events, failed(alice.id, "QUOTA_EXHAUSTED"), *edges])
    async with acting(api, "authenticated", alice.id):
        row = await api.fetchrow("SELECT * FROM get_user_usage_stats($1, $2, $3)", alice.id, start, end)
        assert row is not None
        assert (row["total_requests"], row["successful_requests"], row["failed_requests"]) == (101, 100, 1)
        assert row["charged"] == 100
        assert row["average_response_time_ms"] == pytest.approx((5050 + 10) / 101)
        # Counted in steps of at most an eighth, told by their middles.
        assert row["p50_response_time_ms"] == 50
        assert row["p95_response_time_ms"] == 92
        assert row["p99_response_time_ms"] == 100
        assert row["last_request_at"] == NOON
        one = "SELECT total_requests FROM get_user_usage_stats($1, $2, $3, $4)"
        assert await api.fetchval(one, alice.id, start, end, alice.key) == 50
        empty = await api.fetchrow("SELECT * FROM get_user_usage_stats($1, $2, $2)", alice.id, start)
        assert empty is not None
        assert tuple(empty) == (0, 0, 0, 0, None, None, None, None, None)


async def test_system_statistics_are_right(
    admin: Connection, connect: Connect, alice: User, bob: User
) -> None:
    logger = await connect("signgate_logger")
    start, end = NOON - timedelta(hours=1), NOON + timedelta(hours=1)
    await admin.execute("TRUNCATE usage_logs, usage_hours, usage_days")
    await admin.execute("UPDATE api_keys SET revoked_at = now() WHERE id = $1", bob.key)
    await admin.execute("UPDATE users SET tier = 'api_key' WHERE id = $1", alice.id)
    await ingest(logger, [*(event(alice.id, ms=n) for n in (1, 2, 3)), failed(alice.id, "ROOM_URL_INVALID")])
    row = await logger.fetchrow("SELECT * FROM get_system_usage_stats($1, $2)", start, end)
    assert row is not None
    assert dict(row) == {
        "total_requests": 4,
        "successful_requests": 3,
        "failed_requests": 1,
        "charged": 3,
        "average_response_time_ms": 4.0,
        "p50_response_time_ms": 2.0,
        "p95_response_time_ms": 10.0,
        "p99_response_time_ms": 10.0,
        "total_users": 2,
        "active_users": 1,
        "active_api_keys": 1,
        "users_by_tier": '{"free": 1, "api_key": 1}',
    }


async def test_listing_my_usage_newest_first_needs_no_sort(
    admin: Connection, connect: Connect, alice: User
) -> None:
    """By keyset on (created_at, id), as the owner, under the policy: the index gives the order."""
    logger, api = await connect("signgate_logger"), await connect("authenticator")
    await ingest(logger, [event(alice.id, at=NOON - timedelta(seconds=n)) for n in range(3000)])
    await admin.execute("ANALYZE usage_logs")
    async with acting(api, "authenticated", alice.id):
        plan = await api.fetch(
            "EXPLAIN SELECT * FROM usage_logs WHERE user_id = $1 AND (created_at, id) < ($2, $3)"
            " ORDER BY created_at DESC, id DESC LIMIT 100",
            alice.id,
            NOON - timedelta(seconds=1500),
            UUID(int=0),
        )
    text = "\n".join(row[0] for row in plan)
    assert "Sort" not in text.replace("Sort Key", "").replace("Merge Append", "")
    assert "Seq Scan on usage_logs_" not in text
