"""From the stream to PostgreSQL, once each, whatever dies in between."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.logger.stream import DEAD, GROUP, name
from tests.integration.logger.world import World, event

pytestmark = pytest.mark.parametrize("redis_url", ["redis", "cluster"], indirect=True)


async def test_events_become_rows_counts_and_settled_charges(world: World) -> None:
    user = await world.user()
    events = [event(user) for _ in range(5)] + [event(user, success=False)]
    async with world.logger():
        await world.publish(*events[:3], shard=0)
        await world.publish(*events[3:], shard=1)
        await world.until(rows=6)
    assert await world.sql.fetchval("SELECT sum(request_count) FROM quota_usage") == 5
    assert await world.sql.fetchval("SELECT count(*) FROM usage_logs WHERE error_message IS NOT NULL") == 1
    assert set(world.quota.settled) == {e.charge_id for e in events if e.charge_id}


async def test_the_same_entry_twice_counts_once(world: World) -> None:
    user = await world.user()
    one = event(user)
    async with world.logger():
        await world.publish(one)
        await world.publish(one)
        await world.publish(one, shard=1)
        await world.until(rows=1)
    assert await world.rows() == 1
    assert await world.sql.fetchval("SELECT sum(request_count) FROM quota_usage") == 1


async def test_a_consumer_that_died_with_entries_in_hand_loses_none(world: World) -> None:
    user = await world.user()
    await world.redis.xgroup_create(name(0), GROUP, id="0", mkstream=True)
    await world.publish(*[event(user) for _ in range(4)])
    await world.redis.xreadgroup(GROUP, "dead", {name(0): ">"})  # took it, and was never seen again
    async with world.logger("another"):
        await world.until(rows=4)
    assert await world.rows() == 4


async def test_a_restarted_consumer_comes_back_to_its_own_entries_at_once(world: World) -> None:
    user = await world.user()
    await world.redis.xgroup_create(name(0), GROUP, id="0", mkstream=True)
    await world.publish(event(user))
    await world.redis.xreadgroup(GROUP, "logger-1", {name(0): ">"})
    async with world.logger("logger-1", claim_idle=3600.0):
        await world.until(rows=1)


async def test_two_consumers_share_the_work_and_count_everything_once(world: World) -> None:
    user = await world.user()
    async with world.logger("a"), world.logger("b"):
        for shard in range(40):
            await world.publish(*[event(user) for _ in range(5)], shard=shard % 2)
        await world.until(rows=200)
    assert await world.rows() == 200
    assert await world.sql.fetchval("SELECT sum(request_count) FROM quota_usage") == 200


async def test_while_quota_is_away_rows_are_committed_and_entries_stay_pending(world: World) -> None:
    user = await world.user()
    world.quota.down = True
    async with world.logger():
        await world.publish(event(user))
        async with asyncio.timeout(10):
            while await world.rows() < 1:
                await asyncio.sleep(0.02)
        assert await world.unacknowledged() == 1
        world.quota.down = False
        await world.until(rows=1)
    assert len(world.quota.settled) == 1


async def test_garbage_in_the_stream_is_set_aside_and_the_rest_goes_on(world: World) -> None:
    user = await world.user()
    async with world.logger():
        await world.redis.xadd(name(0), {b"e": b"\xff\xff"})
        await world.redis.xadd(name(0), {b"something": b"else"})
        await world.publish(event(user, response_time_ms=2**31 - 1))
        await world.until(rows=1)
    dead: Any = await world.redis.xrange(DEAD)
    assert len(dead) == 2
    assert all(fields[b"reason"] for _, fields in dead)


async def test_what_no_row_is_to_blame_for_is_waited_for(world: World) -> None:
    """A grant that is missing, as in the middle of a roll-out, must not fill the dead letters."""
    user = await world.user()
    function = "ingest_usage(uuid[], uuid[], uuid[], text[], boolean[], integer[], text[], timestamptz[], text[], text[], uuid[], integer[], date[])"  # noqa: E501
    async with world.logger(max_attempts=1):
        await world.sql.execute(f"REVOKE EXECUTE ON FUNCTION {function} FROM signgate_logger")
        await world.publish(event(user))
        await asyncio.sleep(1.0)
        assert await world.unacknowledged() == 1
        await world.sql.execute(f"GRANT EXECUTE ON FUNCTION {function} TO signgate_logger")
        await world.until(rows=1)
    assert not await world.redis.exists(DEAD)


async def test_an_event_of_a_deleted_user_keeps_its_row_without_the_person(world: World) -> None:
    user = await world.user()
    one = event(user)
    await world.sql.execute("DELETE FROM auth.users WHERE id = $1", user)
    async with world.logger():
        await world.publish(one)
        await world.until(rows=1)
    assert await world.sql.fetchval("SELECT user_id FROM usage_logs") is None


async def test_what_is_acknowledged_is_trimmed_and_the_watermark_moves_on(world: World) -> None:
    user = await world.user()
    async with world.logger():
        for _ in range(250):
            await world.publish(event(user))
        await world.until(rows=250)
        async with asyncio.timeout(10):
            # Trimming is by whole nodes of a hundred entries.
            while await world.redis.xlen(name(0)) >= 150 or len(world.quota.watermarks) < 2:
                await asyncio.sleep(0.05)
    assert world.quota.watermarks[-1] >= world.quota.watermarks[0]


async def test_retention_drops_old_months_and_keeps_their_counts(world: World) -> None:
    """Also: an event that comes late lands on its own day."""
    user = await world.user()
    await world.sql.execute("SELECT ensure_usage_partitions(0, 6)")
    old, kept = event(user), event(user)
    for one, days in ((old, 150), (kept, 20)):
        one.created_at.FromDatetime(datetime.now(UTC) - timedelta(days=days))
    async with world.logger():
        await world.publish(old, kept)
        await world.until(rows=2)
    async with world.logger(retention_months=2):
        await world.until(rows=1)
    assert str(await world.sql.fetchval("SELECT id FROM usage_logs")) == kept.id
    counts = await world.sql.fetch("SELECT day FROM usage_days WHERE user_id = $1 ORDER BY day", user)
    assert [row["day"].date() for row in counts] == [
        one.created_at.ToDatetime(tzinfo=UTC).date() for one in (old, kept)
    ]


async def test_a_redis_that_lost_the_stream_does_not_stop_the_logger(world: World) -> None:
    user = await world.user()
    async with world.logger():
        await world.publish(event(user))
        await world.until(rows=1)
        await world.redis.flushall()
        await world.publish(event(user))
        await world.until(rows=2)
