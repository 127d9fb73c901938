"""Shares of a pool: one caller's heavy reads leave connections to others, and none of what is recorded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from servicekit.clock import SystemClock, uuid7
from servicekit.errors import SigngateError
from servicekit.postgres import Database, open_database
from servicekit.principal import Principal
from servicekit.turns import CallerBusy, SharedDatabase, Turns
from services.logger import service as module
from services.logger import store as store_module
from services.logger.alerts.model import Outcome
from services.logger.alerts.store import AlertStore
from services.logger.config import LoggerSettings
from services.logger.domain import UsageFilter
from services.logger.errors import StatisticsTooLarge
from services.logger.ingest import IngestStore
from services.logger.service import UsageService
from services.logger.store import UsageStore
from tests.integration.logger.test_exports import one
from tests.integration.logger.world import World


@pytest.fixture
async def pool(world: World) -> AsyncIterator[Database]:
    async with open_database(world.database.dsn("signgate_logger"), name="shares", max_size=3) as database:
        yield database


async def test_one_callers_heavy_reads_leave_connections_to_others(pool: Database) -> None:
    """Ten at once of one user, as heavy as they may be; another user's read waits for none of them."""
    shared = SharedDatabase(pool, Turns(at_once=2, waiting=20))
    heavy, other = Principal(uuid7()), Principal(uuid7())
    running = 0

    async def hold(caller: Principal, until: asyncio.Event) -> None:
        nonlocal running
        async with shared.as_user(caller) as connection:
            running += 1
            await connection.fetchval("SELECT 1")
            await until.wait()
            running -= 1

    release = asyncio.Event()
    held = [asyncio.create_task(hold(heavy, release)) for _ in range(10)]
    async with asyncio.timeout(10):
        while running < 2:
            await asyncio.sleep(0.01)
        at_once = asyncio.Event()
        at_once.set()
        for _ in range(5):
            await hold(other, at_once)
    assert running == 2
    release.set()
    await asyncio.gather(*held)


async def test_what_waits_beyond_its_bound_is_refused_and_turns_are_given_back(pool: Database) -> None:
    turns = Turns(at_once=1, waiting=1)
    shared = SharedDatabase(pool, turns)
    caller = Principal(uuid7())
    entered, release = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with shared.as_user(caller):
            entered.set()
            await release.wait()

    first = asyncio.create_task(hold())
    await entered.wait()
    waiting = asyncio.create_task(hold())
    await asyncio.sleep(0.05)
    with pytest.raises(CallerBusy) as caught:
        await hold()
    assert caught.value.retry_after == 1.0
    waiting.cancel()  # its caller is gone
    await asyncio.wait((waiting,))
    first.cancel()
    await asyncio.wait((first,))
    assert len(turns) == 0
    with pytest.raises(RuntimeError):
        async with shared.as_user(caller):
            raise RuntimeError
    assert len(turns) == 0


async def test_statistics_have_so_many_buckets_at_most(
    world: World, pool: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "MAX_BUCKETS", 3)
    caller = Principal(await world.user())
    now = datetime.now(UTC)
    await IngestStore(pool).ingest([one(caller.user_id, now - timedelta(days=n)) for n in range(4)])
    service = UsageService(UsageStore(pool), SystemClock())
    where = UsageFilter(start=now - timedelta(days=9), end=now + timedelta(days=1))
    with pytest.raises(StatisticsTooLarge):
        await service.stats(caller, where, "day", None)
    narrower = replace(where, start=now - timedelta(days=2, hours=1))
    assert len((await service.stats(caller, narrower, "day", None))[1]) == 3
    assert module.MAX_BUCKETS == 10_000


async def test_what_is_put_off_is_not_counted_as_an_attempt(world: World, pool: Database) -> None:
    alerts = AlertStore(pool)
    user = await world.user()
    await world.sql.execute(
        "INSERT INTO quota_alerts (user_id, pool, date, threshold, used, daily_limit, mail, webhook)"
        " VALUES ($1, 'free', current_date, 80, 8, 10, 'pending', 'pending')",
        user,
    )
    [due] = await alerts.claim(10, timedelta(seconds=60))
    assert due.attempts == 1
    assert await alerts.claim(10, timedelta(seconds=60)) == []
    await alerts.postpone(due, Outcome("sent"), timedelta(0))
    [again] = await alerts.claim(10, timedelta(seconds=60))
    assert (again.attempts, again.email) == (1, None)


async def test_each_kind_of_call_has_connections_of_its_own(world: World) -> None:
    """What is recorded goes on while callers have every connection that is theirs."""
    async with world.logger():
        rows = await world.sql.fetch(
            "SELECT DISTINCT application_name AS name FROM pg_stat_activity"
            " WHERE application_name LIKE 'signgate-logger%'"
        )
    kinds = {row["name"].removeprefix("signgate-logger") for row in rows}
    assert {"", "-upkeep", "-pages", "-statistics", "-exports"} <= kinds
    fields = LoggerSettings.model_fields
    most = sum(
        fields[f"{kind}_pool"].default for kind in ("ingest", "upkeep", "pages", "statistics", "exports")
    )
    assert most + 2 == 21, "with the two of reconciliation; see docs/operations.md"


def test_an_error_says_whose_turn_it_is_not() -> None:
    error: SigngateError = CallerBusy(retry_after=1.0)
    assert (error.status, error.reason) == ("RESOURCE_EXHAUSTED", "CALLER_BUSY")
