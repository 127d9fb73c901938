"""Revocation is a promise: over two replicas, with and without the message, with parts missing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from redis.asyncio import Redis

from servicekit import apikey
from servicekit.clock import SystemEntropy, uuid7
from servicekit.errors import Unavailable
from servicekit.testing.network import RedisProcess
from signgate.keys.v1 import keys_pb2 as pb
from tests.integration.keys.world import Replica, User, World, create, refused

NOBODY = "redis://127.0.0.1:1/0"


async def until_refused(replica: Replica, secret: str) -> None:
    """How long that takes is measured by `make bench ONLY=revocation`, not here."""
    async with asyncio.timeout(20):
        while (outcome := await replica.validate(secret)) == "OK":
            await asyncio.sleep(0.002)
    assert outcome == "KEY_REVOKED"


async def listeners(url: str, count: int) -> None:
    """Wait until so many subscribers are there."""
    redis: Any = Redis.from_url(url)
    async with asyncio.timeout(20):
        while sum([n for _, n in await redis.pubsub_numsub(*await redis.pubsub_channels())]) < count:
            await asyncio.sleep(0.02)
    await redis.aclose()


async def revoke(replica: Replica, user: User, key_id: str) -> None:
    await replica.owner.RevokeKey(pb.RevokeKeyRequest(key_id=key_id), metadata=user.auth)


async def test_the_message_reaches_the_other_replica(world: World, ann: User) -> None:
    async with world.replica(told_only=True) as one, world.replica(told_only=True) as two:
        for _ in range(5):
            made = await create(one, ann)
            assert [await one.validate(made.secret), await two.validate(made.secret)] == ["OK", "OK"]
            await revoke(one, ann, made.key.id)
            assert await one.validate(made.secret) == "KEY_REVOKED"
            await until_refused(two, made.secret)


async def test_without_the_message_the_soft_age_holds(world: World, ann: User) -> None:
    """The revoking replica has no Redis, so nothing is published; and no Redis hinders nothing."""
    made = None
    async with world.replica(hard_age=60.0) as two:  # so that the soft age alone can tell
        # A login needs Redis (revoked sessions); the key presents itself instead.
        made = await create(two, ann, scopes=["keys:manage"])
        async with world.replica(redis_url=NOBODY) as one:
            assert [await one.validate(made.secret), await two.validate(made.secret)] == ["OK", "OK"]
            await one.owner.RevokeSelf(pb.RevokeSelfRequest(), metadata=(("x-api-key", made.secret),))
            assert await one.validate(made.secret) == "KEY_REVOKED"
            await until_refused(two, made.secret)


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
        world.replica(redis_url=url, told_only=True) as one,
        world.replica(redis_url=url, told_only=True) as two,
    ):
        made = await create(one, ann)
        assert await two.validate(made.secret) == "OK"
        own_redis.stop()
        assert [await one.validate(made.secret), await two.validate(made.secret)] == ["OK", "OK"]
        # Nobody can say which sessions are revoked: logins fail closed.
        assert await refused(create(one, ann)) == "REDIS_UNAVAILABLE"
        own_redis.start()
        await listeners(url, 2)
        assert await two.validate(made.secret) == "OK"
        await revoke(one, ann, made.key.id)
        await until_refused(two, made.secret)


async def test_redis_may_refuse_to_take_or_give_messages(
    world: World, ann: User, own_redis: RedisProcess
) -> None:
    """A change that is committed never fails for it, and no replica dies of it."""
    async with (
        world.replica(redis_url=own_redis.url) as one,
        world.replica(redis_url=own_redis.url, hard_age=60.0) as two,
    ):
        made = await create(one, ann)
        assert await two.validate(made.secret) == "OK"
        redis: Any = Redis.from_url(own_redis.url)
        await redis.execute_command("ACL", "SETUSER", "default", "resetchannels")
        await redis.aclose()
        await asyncio.sleep(0.1)
        await revoke(one, ann, made.key.id)
        await until_refused(two, made.secret)


async def test_while_postgresql_is_gone_warm_keys_serve_until_the_hard_age(world: World, ann: User) -> None:
    async with world.replica(hard_age=4.0) as keys:
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
        await asyncio.sleep(read_at + 4.1 - time.monotonic())
        assert await refused(keys.results([made.secret])) == "KEYS_UNAVAILABLE"
        assert await refused(create(keys, ann)) == "DATABASE_UNAVAILABLE"
        await world.cable.mend()
        await served_again(keys, made.secret, cold)


async def served_again(keys: Replica, *secrets: str) -> None:
    async with asyncio.timeout(20):
        while True:
            with suppress(Unavailable):
                if await keys.validate_all(secrets) == ["OK"] * len(secrets):
                    return
            await asyncio.sleep(0.05)


async def test_while_postgresql_hangs_warm_keys_do_not_wait_for_it(world: World, ann: User) -> None:
    def reads_that_failed() -> float:
        return REGISTRY.get_sample_value("signgate_keys_record_read_failed_total") or 0.0

    async with world.replica(hard_age=60.0) as keys:
        made = await create(keys, ann)
        assert await keys.validate(made.secret) == "OK"
        world.cable.hang()
        await asyncio.sleep(0.3)
        failed = reads_that_failed()
        assert await keys.validate(made.secret) == "OK"
        assert reads_that_failed() == failed, "answered while the read still hung, not after it was given up"
        for _ in range(5):
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
