"""What was set aside can be looked at, replayed and dropped."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.logger.dead_letters import DeadLetters, run
from services.logger.stream import DEAD, FIELD, name
from tests.integration.logger.world import World, event

pytestmark = pytest.mark.parametrize("redis_url", ["redis", "cluster"], indirect=True)


async def set_aside(world: World, payload: bytes, reason: str = "no such thing") -> str:
    fields: Any = {"stream": name(1), "id": "5-0", "reason": reason, FIELD: payload}
    letter: bytes = await world.redis.xadd(DEAD, fields)
    return letter.decode()


async def test_they_are_listed_and_shown_without_being_changed(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    user = await world.user()
    await world.publish(event(user), shard=1)
    [(_, fields)] = await world.redis.xrange(name(1))
    first = await set_aside(world, fields[FIELD], "PostgreSQL refuses it")
    second = await set_aside(world, b"\xff\xff")
    letters = DeadLetters(world.redis)
    assert await run(letters, "list", []) == 0
    listed = capsys.readouterr().out
    assert "PostgreSQL refuses it" in listed
    assert "2 set aside" in listed
    assert await run(letters, "show", [first, second]) == 0
    shown = capsys.readouterr().out
    assert str(user) in shown
    assert "hold no events: ff ff" in shown
    assert await world.redis.xlen(DEAD) == 2


async def test_a_replayed_one_becomes_its_rows_once(world: World) -> None:
    user = await world.user()
    await world.publish(event(user), event(user), shard=1)
    [(_, fields)] = await world.redis.xrange(name(1))
    letter = await set_aside(world, fields[FIELD])
    async with world.logger():
        await world.until(rows=2)
        assert await run(DeadLetters(world.redis), "replay", [letter]) == 0
        await world.until(rows=2)
    assert await world.redis.xlen(DEAD) == 0
    assert await world.rows() == 2
    assert await world.sql.fetchval("SELECT sum(request_count) FROM quota_usage") == 2


async def test_one_that_is_refused_again_is_set_aside_again(world: World) -> None:
    letter = await set_aside(world, b"\xff\xff")
    async with world.logger():
        assert await run(DeadLetters(world.redis), "replay", []) == 0
        await world.until(rows=0)
        async with asyncio.timeout(20):
            while await world.redis.xlen(DEAD) != 1 or await world.unacknowledged():
                await asyncio.sleep(0.02)
    [(again, _)] = await world.redis.xrange(DEAD)
    assert again.decode() != letter


async def test_dropping_takes_what_is_named_and_tells_what_is_not_there(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = await set_aside(world, b"a"), await set_aside(world, b"b")
    letters = DeadLetters(world.redis)
    assert await run(letters, "drop", [first, "1-1"]) == 1
    assert "1-1: there is no dead letter" in capsys.readouterr().err
    assert [entry.decode() for entry, _ in await world.redis.xrange(DEAD)] == [second]
    assert await run(letters, "drop", []) == 0
    assert await world.redis.xlen(DEAD) == 0
