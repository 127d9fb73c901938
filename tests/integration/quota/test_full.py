"""A Redis that takes no more: nothing is granted, nobody is told "over quota", and what frees it goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from uuid import UUID

import pytest
import redis

from servicekit.errors import Unavailable
from servicekit.testing.network import RedisProcess
from servicekit.testing.redis_cluster import RedisClusterProcesses
from signgate.common.v1 import quota_pb2 as common
from signgate.quota.v1 import enforcement_pb2 as pb
from tests.integration.quota.test_rebuild import eventually_granted, settle_up_to
from tests.integration.quota.world import Replica, World, free, ref


@pytest.fixture
def masters(request: pytest.FixtureRequest, redis_url: str) -> list[RedisProcess]:
    if "+cluster" in redis_url:
        cluster: RedisClusterProcesses = request.getfixturevalue("three_masters")
        return cluster.masters
    return [request.getfixturevalue("one_redis")]


@contextmanager
def full(masters: list[RedisProcess]) -> Iterator[None]:
    """As if all memory that it may have were in use."""
    set_maxmemory(masters, 1)
    try:
        yield
    finally:
        set_maxmemory(masters, 0)


def set_maxmemory(masters: list[RedisProcess], bytes_: int) -> None:
    for master in masters:
        with redis.Redis(port=master.port) as client:
            client.config_set("maxmemory", bytes_)


async def test_nothing_is_granted_and_nobody_is_over_quota(
    world: World, quota: Replica, masters: list[RedisProcess], ann: UUID
) -> None:
    await world.plan("free", daily=2)
    await quota.sees(2, ann)
    await quota.consume(free(ann))
    with full(masters):
        for _ in range(7):  # the circuit breaker opens on the way
            with pytest.raises(Unavailable) as caught:
                await quota.consume(free(ann))
            assert caught.value.reason == "QUOTA_UNAVAILABLE"
    assert await eventually_granted(quota, ann)
    assert await quota.used(ann) == 2
    (last,) = await quota.consume(free(ann))
    assert last.denied_by == common.LIMIT_KIND_USER_DAY


async def test_what_gives_memory_back_goes_on(quota: Replica, masters: list[RedisProcess], ann: UUID) -> None:
    """Without settlements nothing is acknowledged and trimmed, and Redis would stay full for ever."""
    signed, failed, lost = free(ann, 2), free(ann, 3), free(ann, 4)
    await quota.consume(signed, failed, lost)
    with full(masters):
        done = await quota.stub.Settle(pb.SettleRequest(charges=[ref(signed)]))
        assert done.settled == 1
        taken = await quota.stub.Refund(pb.RefundRequest(charges=[ref(failed)]))
        assert list(taken.refunded) == [3]
        await settle_up_to(quota, datetime.now(UTC))
        assert await quota.used(ann) == 6
