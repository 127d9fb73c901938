"""What callers see of usage: their own, all of it, once, however it is asked for."""

from __future__ import annotations

import csv
import io
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pyarrow.parquet as pq
import pytest

from servicekit.clock import SystemClock, uuid7
from servicekit.errors import InvalidArgument
from servicekit.postgres import open_database
from servicekit.principal import Principal
from services.logger import codec, export
from services.logger.domain import UsageFilter, UsageRecord, UsageRow
from services.logger.errors import PageTokenInvalid
from services.logger.ingest import IngestStore
from services.logger.service import UsageService
from services.logger.store import UsageStore
from tests.integration.logger.world import World, event

DAY = timedelta(days=1)
BEGIN = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - 3 * DAY
REASONS = ("RATE_LIMITED", "QUOTA_EXHAUSTED", "ENGINE_UNAVAILABLE")


@dataclass
class Library:
    """Two users with keys, and what they did in three days. `rows` are those of the first."""

    service: UsageService
    ingest: IngestStore
    user: Principal
    keys: tuple[UUID, UUID]
    other: Principal
    rows: list[UsageRow]

    def matching(self, **wanted: object) -> list[UsageRow]:
        return [
            row for row in self.rows if all(getattr(row, name) == value for name, value in wanted.items())
        ]

    def as_key(self, key: UUID) -> Principal:
        return Principal(self.user.user_id, api_key_id=key)


def some(chance: random.Random, user: UUID, keys: tuple[UUID, ...]) -> UsageRow:
    at = BEGIN + timedelta(seconds=chance.randrange(3 * 86_400), microseconds=chance.randrange(10**6))
    good = chance.random() < 0.7
    made = event(
        user,
        success=good,
        api_key_id=str(chance.choice(keys)) if chance.random() < 0.8 else "",
        response_time_ms=chance.randrange(15),  # counted exactly: see `latency_bucket`
        engine=chance.choice(("native", "websdk")) if good else "",
        error_reason="" if good else chance.choice(REASONS),
        charged_day=0,
        charged=0,
    )
    made.created_at.FromDatetime(at)
    return codec.row(made)


async def key_of(world: World, user: UUID) -> UUID:
    key = uuid7()
    await world.sql.execute(
        "INSERT INTO api_keys (id, user_id, key_hash, name) VALUES ($1, $2, $3, 'k')", key, user, str(key)
    )
    return key


@pytest.fixture
async def library(world: World) -> AsyncIterator[Library]:
    chance = random.Random(7)  # noqa: S311 - repeatable, not secret
    mine, theirs = await world.user(), await world.user()
    keys = await key_of(world, mine), await key_of(world, mine)
    async with open_database(world.database.dsn("signgate_logger"), name="test") as database:
        ingest = IngestStore(database)
        rows = [some(chance, mine, keys) for _ in range(600)]
        their_keys = (await key_of(world, theirs),)
        await ingest.ingest(rows + [some(chance, theirs, their_keys) for _ in range(100)])
        service = UsageService(UsageStore(database), SystemClock())
        yield Library(
            service,
            ingest,
            Principal(mine),
            keys,
            Principal(theirs),
            sorted(rows, key=lambda r: r.created_at),
        )


async def pages(library: Library, caller: Principal, where: UsageFilter, size: int) -> list[UsageRecord]:
    found: list[UsageRecord] = []
    token = ""
    while True:
        page, token = await library.service.list_usage(caller, where, size, token)
        assert len(page) <= size
        found += page
        if not token:
            return found


async def test_pages_hold_every_row_once_newest_first(library: Library) -> None:
    for size in (1000, 600, 599, 77):
        found = await pages(library, library.user, UsageFilter(), size)
        assert [one.id for one in found] == [row.id for row in reversed(library.rows)]


async def test_rows_that_arrive_between_pages_neither_repeat_nor_skip_others(library: Library) -> None:
    first, token = await library.service.list_usage(library.user, UsageFilter(), 100, "")
    chance = random.Random(8)  # noqa: S311
    await library.ingest.ingest([some(chance, library.user.user_id, library.keys) for _ in range(50)])
    newest = codec.row(event(library.user.user_id, charged=0, charged_day=0))
    await library.ingest.ingest([newest])
    seen = list(first)
    while token:
        page, token = await library.service.list_usage(library.user, UsageFilter(), 100, token)
        seen += page
    ids = [one.id for one in seen]
    assert len(ids) == len(set(ids))
    assert {row.id for row in library.rows} <= set(ids)
    assert newest.id not in ids


@pytest.mark.parametrize(
    "wanted",
    [
        {"success": True}, {"success": False}, {"error_message": "RATE_LIMITED"}, {"engine": "websdk"},
        {"success": False, "error_message": "QUOTA_EXHAUSTED"}, {"engine": "nope"},
    ],
)  # fmt: skip
async def test_each_filter_holds_in_lists_statistics_and_exports(
    library: Library, wanted: dict[str, object]
) -> None:
    members: dict[str, Any] = {"error_reason" if k == "error_message" else k: v for k, v in wanted.items()}
    where = UsageFilter(start=BEGIN, end=BEGIN + 3 * DAY, **members)
    expected = library.matching(**wanted)
    listed = await pages(library, library.user, where, 100)
    assert [one.id for one in reversed(listed)] == [row.id for row in expected]
    whole, parted = await library.service.stats(library.user, where, None, None)
    assert (whole.total, parted) == (len(expected), [])
    assert whole.successful == sum(row.success for row in expected)
    exported = [one async for chunk in library.service.export(library.user, where) for one in chunk]
    assert [one.id for one in exported] == [row.id for row in expected]


async def test_a_span_of_time_has_its_start_and_not_its_end(library: Library) -> None:
    first, last = library.rows[100].created_at, library.rows[400].created_at
    where = UsageFilter(start=first, end=last)
    assert len(await pages(library, library.user, where, 1000)) == 300
    assert (await library.service.stats(library.user, where, None, None))[0].total == 300
    with pytest.raises(InvalidArgument, match="start_time"):
        await library.service.list_usage(library.user, UsageFilter(start=last, end=first), 10, "")


@pytest.mark.parametrize("bucket", [None, "hour", "day"])
@pytest.mark.parametrize("group", [None, "api_key", "result", "engine"])
async def test_statistics_say_what_the_rows_say(library: Library, bucket: str, group: str) -> None:
    start, end = BEGIN + timedelta(hours=5, minutes=17), BEGIN + 3 * DAY - timedelta(minutes=1)
    whole, parted = await library.service.stats(
        library.user,
        UsageFilter(start=start, end=end),
        bucket,  # type: ignore[arg-type]
        group,  # type: ignore[arg-type]
    )
    inside = [row for row in library.rows if start <= row.created_at < end]
    assert (whole.total, whole.successful) == (len(inside), sum(row.success for row in inside))
    assert whole.average_ms == pytest.approx(sum(row.response_time_ms for row in inside) / len(inside))
    latencies = sorted(row.response_time_ms for row in inside)
    for told, part in ((whole.p50_ms, 0.5), (whole.p95_ms, 0.95), (whole.p99_ms, 0.99)):
        assert told == latencies[-(-int(len(latencies) * part * 100) // 100) - 1]
    if bucket is None and group is None:
        assert parted == []
        return

    def place(row: UsageRow) -> tuple[datetime | None, str]:
        at = row.created_at
        begin = {
            None: None,
            "hour": at.replace(minute=0, second=0, microsecond=0),
            "day": at.replace(hour=0, minute=0, second=0, microsecond=0),
        }[bucket]
        name = {
            None: "",
            "api_key": str(row.api_key_id or ""),
            "result": "signed" if row.success else str(row.error_message),
            "engine": row.engine or "",
        }[group]
        return begin, name

    expected = Counter(place(row) for row in inside)
    assert {(one.bucket, one.group): one.total for one in parted} == expected
    order = [(one.bucket, one.group) for one in parted]
    assert order == sorted(order, key=lambda pair: (pair[0] or BEGIN, pair[1]))


async def test_a_key_sees_its_own_requests_and_no_others(library: Library) -> None:
    key, other_key = library.keys
    caller = library.as_key(key)
    found = await pages(library, caller, UsageFilter(), 1000)
    assert {one.id for one in found} == {row.id for row in library.matching(api_key_id=key)}
    whole, _ = await library.service.stats(caller, UsageFilter(start=BEGIN, end=BEGIN + 3 * DAY), None, None)
    assert whole.total == len(found)
    with pytest.raises(InvalidArgument, match="api_key_id"):
        await library.service.list_usage(caller, UsageFilter(api_key_id=other_key), 10, "")


async def test_nobody_sees_anothers(library: Library) -> None:
    assert len(await pages(library, library.other, UsageFilter(), 1000)) == 100
    where = UsageFilter(start=BEGIN, end=BEGIN + 3 * DAY, api_key_id=library.keys[0])
    assert await pages(library, library.other, where, 1000) == []
    assert (await library.service.stats(library.other, where, None, None))[0].total == 0


async def test_hours_span_a_month_at_most_and_days_any_time(library: Library) -> None:
    where = UsageFilter(start=BEGIN - 400 * DAY, end=BEGIN + 3 * DAY)
    with pytest.raises(InvalidArgument, match="31 days"):
        await library.service.stats(library.user, where, "hour", None)
    whole, days = await library.service.stats(library.user, where, "day", None)
    assert whole.total == sum(one.total for one in days) == 600


@pytest.mark.parametrize("token", ["x", "AAAA", "MjAyNi0wMS0wMXxub3BlCg", "é", "=" * 50])
async def test_a_page_token_that_no_list_gave_is_refused(library: Library, token: str) -> None:
    with pytest.raises(PageTokenInvalid):
        await library.service.list_usage(library.user, UsageFilter(), 10, token)


async def test_exports_hold_the_same_rows_in_each_form(library: Library) -> None:
    async def file(form: export.Format) -> bytes:
        chunks = library.service.export(library.user, UsageFilter())
        return b"".join([part async for part in export.write(form, chunks)])

    ids = [str(row.id) for row in library.rows]
    table = list(csv.DictReader(io.StringIO((await file("csv")).decode())))
    assert [row["id"] for row in table] == ids
    lines = [json.loads(line) for line in (await file("jsonl")).splitlines()]
    assert [row["id"] for row in lines] == ids
    parquet = pq.read_table(io.BytesIO(await file("parquet"))).to_pylist()
    assert [row["id"] for row in parquet] == ids
    for text, plain, typed, row in zip(table, lines, parquet, library.rows, strict=True):
        assert int(text["response_time_ms"]) == plain["response_time_ms"] == row.response_time_ms
        assert plain["success"] is typed["success"] is row.success
        assert text["success"] == str(row.success).lower()
        assert (plain["engine"], plain["error_reason"]) == (row.engine, row.error_message)
        assert typed["created_at"] == row.created_at == datetime.fromisoformat(plain["created_at"])


async def test_the_systems_statistics_count_everybody(library: Library, world: World) -> None:
    found = await library.service.system_stats(BEGIN, BEGIN + 3 * DAY)
    assert (found.total.total, found.active_users, found.total_users, found.active_api_keys) == (700, 2, 2, 3)
    assert found.users_by_tier == {"free": 2}
    with pytest.raises(InvalidArgument):
        await library.service.system_stats(BEGIN, BEGIN)


async def test_usage_of_a_deleted_account_stays_in_the_counts_without_the_person(
    library: Library, world: World
) -> None:
    await world.sql.execute("DELETE FROM users WHERE id = $1", library.user.user_id)
    found = await library.service.system_stats(BEGIN, BEGIN + 3 * DAY)
    assert (found.total.total, found.active_users) == (700, 1)
    columns = await world.sql.fetch("SELECT user_id, api_key_id FROM usage_logs WHERE user_id IS NULL")
    assert len(columns) == 600
    assert all(row["api_key_id"] is None for row in columns)
