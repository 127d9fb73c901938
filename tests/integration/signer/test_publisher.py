"""The usage stream's writing end against a real Redis, and a real cluster: fence, loss, doubt."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from redis.asyncio import Redis

from servicekit.redis import open_redis
from servicekit.testing.network import RedisProcess
from servicekit.testing.redis_cluster import RedisClusterProcesses, redis_cluster
from services.signer.jobs import API_KEY, Caller, Job, Part, Wish
from services.signer.ports import LeaseLost, StreamDown, StreamFull, StreamUnknown
from services.signer.publisher import ClusterPublisher, Publisher, publisher
from signgate.usage.v1.event_pb2 import UsageEvents
from tests.integration.keys.world import Cable


def shards(*numbers: int) -> dict[int, list[tuple[Job, Part]]]:
    """One failed request in each."""
    found = {}
    for number in numbers:
        part = Part(f"0198a2b4-0000-7000-8000-{number:012d}", Wish("nope"), None, None)
        job = Job([part], arrived=time.time(), started=0.0, deadline=None, partial=False)
        job.caller = Caller("11111111-1111-4111-8111-111111111111", "", API_KEY, frozenset())
        found[number] = [(job, part)]
    return found


@pytest.fixture(scope="module")
def three_masters() -> Iterator[RedisClusterProcesses]:
    with redis_cluster() as found:
        yield found


@pytest.fixture
async def redis(redis_process: RedisProcess) -> AsyncIterator[Redis]:
    client = Redis.from_url(redis_process.url)
    await client.flushall()
    yield client
    await client.aclose()


async def read(redis: Any, shard: int) -> list[str]:
    entries = await redis.xrange(f"usage:{{{shard}}}")
    return [event.id for _, entry in entries for event in UsageEvents.FromString(entry[b"e"]).events]


async def test_entries_of_all_shards_are_appended_by_one_call(redis: Redis) -> None:
    assert await publisher(redis).publish(shards(0, 2), time.time() + 5) == {}
    assert [len(await read(redis, shard)) for shard in (0, 1, 2)] == [1, 0, 1]


async def test_nothing_is_appended_after_the_lease(redis: Redis) -> None:
    failures = await publisher(redis).publish(shards(0, 2), time.time() - 0.001)
    assert {shard: type(error) for shard, error in failures.items()} == {0: LeaseLost, 2: LeaseLost}
    assert await redis.keys("*") == []


async def test_without_a_lease_there_is_no_fence(redis: Redis) -> None:
    assert await publisher(redis).publish(shards(1), None) == {}


async def test_what_is_appended_is_counted_by_day_in_the_same_step(redis: Redis) -> None:
    found = publisher(redis)
    await found.publish(shards(0, 2), time.time() + 5)
    await found.publish(shards(2), time.time() + 5)
    await found.publish(shards(2), time.time() - 1)  # not appended, so not counted
    today = str(int(time.time()) // 86_400).encode()
    assert await redis.hgetall("usage:{0}:published") == {today: b"1"}
    assert await redis.hgetall("usage:{2}:published") == {today: b"2"}


async def test_a_stream_that_is_full_takes_nothing_more_until_it_is_trimmed(redis: Redis) -> None:
    found = publisher(redis, max_bytes=50_000)
    appended = 0
    while appended < 2_000 and not (failures := await found.publish(shards(0, 1), time.time() + 5)):
        appended += 1
    assert 50 < appended < 2_000
    assert {type(error) for error in failures.values()} == {StreamFull}
    assert [await redis.xlen(f"usage:{{{shard}}}") for shard in (0, 1)] == [appended, appended]
    assert 50_000 <= (await redis.memory_usage("usage:{0}") or 0) < 60_000
    await redis.xtrim("usage:{0}", maxlen=0)
    await redis.xtrim("usage:{1}", maxlen=0)
    assert await found.publish(shards(0, 1), time.time() + 5) == {}


async def test_a_redis_that_is_full_took_nothing_and_that_is_certain(redis: Redis) -> None:
    found = publisher(redis)
    await redis.config_set("maxmemory", 1)
    try:
        failures = await found.publish(shards(0, 2), time.time() + 5)
    finally:
        await redis.config_set("maxmemory", 0)
    assert {shard: type(error) for shard, error in failures.items()} == {0: StreamDown, 2: StreamDown}
    assert await redis.keys("*") == []
    assert await found.publish(shards(0, 2), time.time() + 5) == {}


async def test_a_redis_that_forgot_the_script_is_told_again(redis: Redis) -> None:
    found = publisher(redis)
    await found.publish(shards(0), None)
    await redis.script_flush()
    assert await found.publish(shards(0), time.time() + 5) == {}
    assert len(await read(redis, 0)) == 2


async def test_a_redis_that_is_gone_took_nothing_and_that_is_certain(redis_process: RedisProcess) -> None:
    cable = Cable(redis_process.port)
    await cable.mend()
    async with open_redis(f"redis://127.0.0.1:{cable.port}/0", timeout=0.2) as client:
        await cable.cut()
        found = publisher(client)
        # The pool's idle connection may be seen to be dead only on use; then it is in doubt.
        async with asyncio.timeout(10):
            outcomes = [await found.publish(shards(0), time.time() + 5) for _ in range(3)]
        assert type(outcomes[-1][0]) is StreamDown
        await cable.mend()
        assert await found.publish(shards(0), time.time() + 5) == {}
        await cable.cut()


async def test_a_redis_that_does_not_answer_leaves_doubt_soon(
    redis_process: RedisProcess, redis: Redis
) -> None:
    cable = Cable(redis_process.port)
    await cable.mend()
    async with open_redis(f"redis://127.0.0.1:{cable.port}/0", timeout=0.2) as client:
        found = publisher(client)
        await found.publish(shards(0), None)
        cable.hang()
        began = time.monotonic()
        failures = await found.publish(shards(0), time.time() + 5)
        assert 0.1 < time.monotonic() - began < 10  # for ever, without a limit of 0.2
        assert type(failures[0]) is StreamUnknown
        # And rightly so: it arrives after all.
        await cable.mend()
        for _ in range(100):
            if len(await read(redis, 0)) == 2:
                break
            await asyncio.sleep(0.02)
        assert len(await read(redis, 0)) == 2
        # The late answer is nobody else's.
        assert await found.publish(shards(0), time.time() - 1) != {}
        assert await found.publish(shards(0), time.time() + 5) == {}
        await cable.cut()


async def test_a_cancelled_call_leaves_no_answer_for_the_next(
    redis_process: RedisProcess, redis: Redis
) -> None:
    cable = Cable(redis_process.port)
    await cable.mend()
    async with open_redis(f"redis://127.0.0.1:{cable.port}/0", timeout=5, max_connections=1) as client:
        found = publisher(client)
        await found.publish(shards(0), None)
        cable.hang()
        call = asyncio.ensure_future(found.publish(shards(0), time.time() + 5))
        await asyncio.sleep(0.05)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await cable.mend()
        assert type((await found.publish(shards(0), time.time() - 1))[0]) is LeaseLost
        await cable.cut()


async def test_a_cluster_takes_each_shard_in_its_own_slot(three_masters: RedisClusterProcesses) -> None:
    three_masters.flush()
    async with open_redis(three_masters.url, timeout=3) as client:
        found = publisher(client)
        assert isinstance(found, ClusterPublisher)
        assert await found.publish(shards(*range(8)), time.time() + 5) == {}
        assert [len(await read(client, shard)) for shard in range(8)] == [1] * 8
        for master in three_masters.masters:
            async with Redis.from_url(master.url) as node:
                await node.config_set("maxmemory", 1)
        failures = await found.publish(shards(*range(8)), time.time() + 5)
        for master in three_masters.masters:
            async with Redis.from_url(master.url) as node:
                await node.config_set("maxmemory", 0)
        assert {type(error) for error in failures.values()} == {StreamDown}
        failures = await found.publish(shards(*range(8)), time.time() - 1)
        assert {type(error) for error in failures.values()} == {LeaseLost}
        assert len(failures) == 8
        assert [len(await read(client, shard)) for shard in range(8)] == [1] * 8


def test_one_server_needs_one_call(redis: Redis) -> None:
    assert type(publisher(redis)) is Publisher
