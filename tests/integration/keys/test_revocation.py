"""Revocation is a promise: over two replicas, with and without the message, with parts missing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from servicekit import apikey
from servicekit.clock import SystemEntropy, uuid7
from servicekit.testing.network import RedisProcess
from signgate.keys.v1 import keys_pb2 as pb
from tests.integration.keys.world import Replica, User, World, create, refused

NOBODY = "redis://127.0.0.1:1/0"


async def seconds_until_refused(replica: Replica, secret: str, limit: float = 3.0) -> float:
    """From now until the first refusal, asked every few milliseconds."""
    began = time.monotonic()
    while (outcome := await replica.validate(secret)) == "OK":
        assert time.monotonic() - began < limit, "still accepted"
        await asyncio.sleep(0.002)
    assert outcome == "KEY_REVOKED"
    return time.monotonic() - began


async def revoke(replica: Replica, user: User, key_id: str) -> None:
    await replica.owner.RevokeKey(pb.RevokeKeyRequest(key_id=key_id), metadata=user.auth)


async def test_the_message_reaches_the_other_replica(world: World, ann: User) -> None:
    """With a soft age of a second, only the message can be faster than half of it."""
    async with world.replica(soft_age=1.0) as one, world.replica(soft_age=1.0) as two:
        for _ in range(5):
            made = await create(one, ann)
            assert [await one.validate(made.secret), await two.validate(made.secret)] == ["OK", "OK"]
            await revoke(one, ann, made.key.id)
            assert await one.validate(made.secret) == "KEY_REVOKED"
            assert await seconds_until_refused(two, made.secret) < 0.3


async def test_without_the_message_the_soft_age_holds(world: World, ann: User) -> None:
    """The revoking replica has no Redis, so nothing is published; and no Redis hinders nothing."""
    made = None
    async with world.replica() as two:
        # A login needs Redis (revoked sessions); the key presents itself instead.
        made = await create(two, ann, scopes=["keys:manage"])
        async with world.replica(redis_url=NOBODY) as one:
            assert [await one.validate(made.secret), await two.validate(made.secret)] == ["OK", "OK"]
            await one.owner.RevokeSelf(pb.RevokeSelfRequest(), metadata=(("x-api-key", made.secret),))
            assert await one.validate(made.secret) == "KEY_REVOKED"
            # 150 ms, and what this machine's load adds.
            assert await seconds_until_refused(two, made.secret) < 0.4


@pytest.fixture
async def own_redis(tmp_path: Path) -> AsyncIterator[RedisProcess]:
    process = RedisProcess(tmp_path)
    process.start()
    yield process
    process.stop()


async def test_redis_may_come_and_go(world: World, ann: User, own_redis: RedisProcess) -> None:
    """Validation works on while it is gone; messages arrive again once it is back."""
    url = own_redis.url
    async with (
        world.replica(redis_url=url, soft_age=1.0) as one,
        world.replica(redis_url=url, soft_age=1.0) as two,
    ):
        made = await create(one, ann)
        assert await two.validate(made.secret) == "OK"
        own_redis.stop()
        assert [await one.validate(made.secret), await two.validate(made.secret)] == ["OK", "OK"]
        # Nobody can say which sessions are revoked: logins fail closed.
        assert await refused(create(one, ann)) == "REDIS_UNAVAILABLE"
        own_redis.start()
        await asyncio.sleep(1.5)  # the subscriber's longest wait, and a connection
        await revoke(one, ann, made.key.id)
        assert await seconds_until_refused(two, made.secret) < 0.3


async def test_redis_may_refuse_to_take_or_give_messages(
    world: World, ann: User, own_redis: RedisProcess
) -> None:
    """A change that is committed never fails for it, and no replica dies of it."""
    async with world.replica(redis_url=own_redis.url) as one, world.replica(redis_url=own_redis.url) as two:
        made = await create(one, ann)
        assert await two.validate(made.secret) == "OK"
        redis: Any = Redis.from_url(own_redis.url)
        await redis.execute_command("ACL", "SETUSER", "default", "resetchannels")
        await redis.aclose()
        await asyncio.sleep(0.1)
        await revoke(one, ann, made.key.id)
        assert await seconds_until_refused(two, made.secret) < 0.4


async def test_while_postgresql_is_gone_warm_keys_serve_until_the_hard_age(world: World, ann: User) -> None:
    async with world.replica(hard_age=1.5) as keys:
        made = await create(keys, ann)
        cold = (await create(keys, ann)).secret
        assert await keys.validate(made.secret) == "OK"
        read_at = time.monotonic()
        await world.cable.cut()
        await asyncio.sleep(0.3)  # past the soft age
        assert await keys.validate(made.secret) == "OK"
        # A cold key beside a warm one: each gets its own answer.
        assert await keys.validate_all([made.secret, cold]) == ["OK", "KEYS_UNAVAILABLE"]
        assert await refused(keys.results([cold])) == "KEYS_UNAVAILABLE"
        # What can be told without a record is told.
        assert await keys.validate("rubbish") == "KEY_MALFORMED"
        await asyncio.sleep(read_at + 1.6 - time.monotonic())
        assert await refused(keys.results([made.secret])) == "KEYS_UNAVAILABLE"
        assert await refused(create(keys, ann)) == "DATABASE_UNAVAILABLE"
        await world.cable.mend()
        await asyncio.sleep(0.4)
        assert await keys.validate_all([made.secret, cold]) == ["OK", "OK"]


async def test_while_postgresql_hangs_warm_keys_wait_a_quarter_second_at_most(
    world: World, ann: User
) -> None:
    async with world.replica() as keys:
        made = await create(keys, ann)
        assert await keys.validate(made.secret) == "OK"
        world.cable.hang()
        await asyncio.sleep(0.3)
        for _ in range(5):
            async with asyncio.timeout(0.9):  # the statement itself may take a second
                assert await keys.validate(made.secret) == "OK"
        await world.cable.cut()
        await world.cable.mend()


async def test_a_flood_of_made_up_keys_does_not_hold_up_good_ones(world: World, ann: User) -> None:
    """Well-formed keys of nobody: they share list reads, and push no real record out."""
    async with world.replica(record_cache=1000) as keys:
        made = await create(keys, ann)
        assert await keys.validate(made.secret) == "OK"

        async def flood() -> None:
            for _ in range(4):
                strangers = [apikey.mint("live", uuid7(), SystemEntropy()) for _ in range(500)]
                assert set(await keys.validate_all(strangers)) == {"KEY_UNKNOWN"}

        floods = [asyncio.create_task(flood()) for _ in range(4)]
        for _ in range(20):
            assert await keys.validate(made.secret) == "OK"
            await asyncio.sleep(0.01)
        await asyncio.gather(*floods)
