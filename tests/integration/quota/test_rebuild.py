"""Counters that Redis does not have, or not for sure; and Redis or PostgreSQL away."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from servicekit.clock import uuid7
from servicekit.errors import SigngateError, Unavailable
from servicekit.redis import Redis
from servicekit.testing.network import RedisProcess
from servicekit.testing.postgres import Cluster
from servicekit.testing.redis_cluster import redis_cluster
from services.quota import wire
from services.quota.counters import Counters, CounterSettings
from services.quota.domain import (
    NO_KEY,
    Charge,
    ChargeRef,
    Committed,
    Inspection,
    Missing,
    Plan,
    Pool,
    Query,
    UserPlans,
)
from services.quota.epochs import Epochs
from signgate.common.v1 import quota_pb2 as common
from signgate.quota.v1 import enforcement_pb2 as pb
from tests.integration.quota.conftest import WorldOn
from tests.integration.quota.world import Replica, World, free, keyed, ref
from tests.redis_users import USERS

LEASE = 0.3
PLANS = UserPlans(Plan(10, 0, 1), Plan(10, 0, 1))


class Bench:
    """Counters of one user, without a service round them."""

    def __init__(self, client: Redis) -> None:
        self.counters = Counters(client, Epochs(client, 5), CounterSettings(timeout=5, lease=LEASE))
        self.user = str(uuid7())

    async def consume(self, cost: int) -> tuple[bytes, int, int]:
        """Id, granted, undecided; the counters must be there."""
        id_ = uuid7().bytes
        group = (self.user, wire.pack_pools(PLANS), [Charge(id_, False, NO_KEY, cost, False)])
        decisions = (await self.counters.consume([group])).decisions[self.user]
        assert decisions is not None
        return id_, decisions[0].granted, decisions[0].undecided

    async def look(self) -> Inspection | Missing:
        return await self.counters.inspect(Query(self.user, Pool.FREE), PLANS.free)

    async def load(self, committed: int) -> list[str]:
        missing = await self.look()
        assert isinstance(missing, Missing)
        return await self.counters.load([missing], {self.user: Committed(free=committed)})

    async def pass_leases(self) -> None:
        """All that was published so far is settled: whatever was held is cleared at the next call."""
        await asyncio.sleep(1.1 * LEASE)
        self.counters.watermark = int(time.time() * 1e6)

    async def settle(self, id_: bytes) -> list[str]:
        return (await self.counters.settle({self.user: [ChargeRef(id_, 0)]}, 0))[2]


@pytest.fixture
def bench(client: Redis) -> Bench:
    return Bench(client)


async def test_what_is_reserved_counts_beside_what_is_committed(bench: Bench) -> None:
    await bench.load(0)
    await bench.consume(5)
    assert await bench.settle(uuid7().bytes) == [bench.user]  # a stranger's settlement: counts are in doubt
    assert await bench.load(3) == []
    found = await bench.look()
    assert isinstance(found, Inspection)
    assert found.used == 8


async def test_a_denial_by_provisional_counts_is_not_believed(bench: Bench) -> None:
    """Committed and not yet settled, a charge counts twice when counters are loaded."""
    await bench.load(0)
    id_, _, _ = await bench.consume(5)
    await bench.settle(uuid7().bytes)
    await bench.load(8)  # the five are among them
    _, granted, undecided = await bench.consume(1)
    assert (granted, undecided) == (0, 1)
    await bench.settle(id_)
    await bench.settle(uuid7().bytes)
    await bench.load(8)
    _, granted, undecided = await bench.consume(2)
    assert (granted, undecided) == (2, 0)


async def test_provisional_counts_are_made_exact_when_somebody_looks_at_rest(bench: Bench) -> None:
    await bench.load(0)
    id_, _, _ = await bench.consume(5)
    await bench.settle(uuid7().bytes)
    await bench.load(8)  # the five are among them, and counted twice
    found = await bench.look()
    assert isinstance(found, Inspection)
    assert found.used == 13
    await bench.settle(id_)
    await bench.pass_leases()
    assert await bench.load(8) == []
    found = await bench.look()
    assert isinstance(found, Inspection)
    assert found.used == 8


async def test_a_settlement_during_loading_makes_it_begin_again(bench: Bench) -> None:
    await bench.load(0)
    id_, _, _ = await bench.consume(5)
    await bench.settle(uuid7().bytes)
    missing = await bench.look()
    assert isinstance(missing, Missing)
    await bench.settle(id_)  # committed after the database was read, settled before the load
    assert await bench.counters.load([missing], {}) == [bench.user]
    assert isinstance(await bench.look(), Missing)
    assert await bench.load(5) == []


async def test_the_first_charge_finds_what_is_committed(world: World, quota: Replica, ann: UUID) -> None:
    key = uuid7()
    await world.commit(ann, free=4, keys={key: 3})
    assert await quota.used(ann) == 4
    assert await quota.used(ann, common.POOL_API_KEY) == 3
    within, beyond = await quota.consume(keyed(ann, key, daily=4), keyed(ann, key, daily=4))
    assert (within.granted, beyond.granted, beyond.denied_by) == (1, 0, common.LIMIT_KIND_KEY_DAY)


async def test_a_lost_redis_grants_no_second_quota(world: World, client: Redis, ann: UUID) -> None:
    """Refused with UNAVAILABLE until all that was published before is committed, then exact."""
    await world.plan("free", daily=10)
    async with world.replica(lease=1.0) as quota:
        charges = [free(ann) for _ in range(8)]
        await quota.consume(*charges)
        await world.commit(ann, free=3)
        await quota.stub.Settle(pb.SettleRequest(charges=[ref(charge) for charge in charges[:3]]))
        await client.flushall()  # type: ignore[no-untyped-call, unused-ignore]
        (before,) = await quota.consume(free(ann))
        assert (before.undecided, before.granted, before.denied_by) == (True, 0, 0)
        with pytest.raises(Unavailable) as caught:
            await quota.used(ann)
        assert caught.value.reason == "QUOTA_REBUILDING"
        await asyncio.sleep(1.2)
        await world.commit(ann, free=8)  # the logger has caught up with the stream
        await settle_up_to(quota, datetime.now(UTC))
        decisions = await quota.consume(*(free(ann) for _ in range(3)))
        assert [d.granted for d in decisions] == [1, 1, 0]
        assert decisions[2].denied_by == common.LIMIT_KIND_USER_DAY


async def test_an_unknown_settlement_makes_counters_right(world: World, quota: Replica, ann: UUID) -> None:
    assert await quota.used(ann) == 0
    await world.commit(ann, free=7)
    await quota.stub.Settle(pb.SettleRequest(charges=[ref(free(ann))]))
    assert await quota.used(ann) == 7


async def test_an_abandoned_reservation_is_taken_back(world: World, ann: UUID) -> None:
    """Once its lease ended before the watermark, and not while nothing is known of the stream."""
    async with world.replica(lease=0.5) as quota:
        abandoned, signed = free(ann, 3), free(ann, 2)
        await quota.consume(abandoned, signed)
        await quota.stub.Settle(pb.SettleRequest(charges=[ref(signed)]))
        await asyncio.sleep(0.7)
        assert await quota.used(ann) == 5
        await settle_up_to(quota, datetime.now(UTC) - timedelta(seconds=5))
        assert await quota.used(ann) == 5
        await settle_up_to(quota, datetime.now(UTC))
        assert await quota.used(ann) == 2


async def test_without_postgres_those_who_are_counted_go_on(
    world: World, postgres: Cluster, quota: Replica, ann: UUID, bob: UUID
) -> None:
    """Plans from memory, counters from Redis; a stranger can't be counted, and is not told "over quota"."""
    await quota.consume(free(ann))
    admin = postgres.database()
    name = world.database.name
    admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
    admin.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    known, stranger = await quota.consume(free(ann), free(bob))
    assert known.granted == 1
    assert (stranger.undecided, stranger.granted, stranger.denied_by) == (True, 0, 0)
    admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    assert await eventually_granted(quota, bob)


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisProcess]:
    """One that a test may stop; it keeps an append-only file."""
    server = RedisProcess(tmp_path, USERS)
    server.start("--appendonly", "yes", "--appendfsync", "always")
    yield server
    server.stop()


async def test_a_redis_that_hangs_makes_unavailable_soon(world_on: WorldOn, own_redis: RedisProcess) -> None:
    """Never granted, never "over quota"; it does not take long; and what timed out is not charged."""
    async with world_on(own_redis.url) as world:
        user = await world.user()
        async with world.replica(redis_timeout=1.0, lease=0.5) as quota:
            await quota.consume(free(user, 2))
            pid = own_redis._process.pid  # type: ignore[union-attr]
            os.kill(pid, signal.SIGSTOP)
            try:
                for _ in range(8):
                    async with asyncio.timeout(10):  # for ever, without a limit
                        with pytest.raises(Unavailable) as caught:
                            await quota.consume(free(user))
                    assert caught.value.reason == "QUOTA_UNAVAILABLE"
            finally:
                os.kill(pid, signal.SIGCONT)
            assert await eventually_granted(quota, user)
            await asyncio.sleep(0.7)
            await settle_up_to(quota, datetime.now(UTC))
            assert await quota.used(user) == 0


async def test_a_redis_that_was_restarted_is_loaded_anew(world_on: WorldOn, own_redis: RedisProcess) -> None:
    """Its counters may lack the last moments; what is committed is the truth."""
    async with world_on(own_redis.url) as world:
        user = await world.user()
        async with world.replica() as quota:
            charge = free(user, 2)
            await quota.consume(charge)
            await quota.stub.Settle(pb.SettleRequest(charges=[ref(charge)]))
            assert await quota.used(user) == 2
            await world.commit(user, free=6)  # four more, of which the file lacks the counts
            own_redis.stop()
            with pytest.raises(Unavailable):
                await quota.consume(free(user))
            own_redis.start("--appendonly", "yes", "--appendfsync", "always")
            await eventually_granted(quota, user)
            assert await quota.used(user) == 7


async def test_a_lost_master_fails_its_own_users_only(world_on: WorldOn) -> None:
    with redis_cluster(always=USERS) as servers:
        async with world_on(servers.url) as world:
            users = [await world.user() for _ in range(12)]
            async with world.replica() as quota:
                assert all(d.granted for d in await quota.consume(*(free(user) for user in users)))
                servers.masters[1].stop()
                decisions = await quota.consume(*(free(user) for user in users))
                assert {(d.granted, d.undecided) for d in decisions} == {(1, False), (0, True)}
                assert not any(d.denied_by for d in decisions)


async def settle_up_to(quota: Replica, moment: datetime) -> None:
    """What the logger says when it has committed everything up to a moment."""
    request = pb.SettleRequest()
    request.watermark.FromDatetime(moment)
    await quota.stub.Settle(request)


async def eventually_granted(quota: Replica, user: UUID) -> bool:
    """Within some seconds: the breakers are tried again, and the pool connects anew."""
    for _ in range(100):
        try:
            (decision,) = await quota.consume(free(user))
        except SigngateError:
            decision = pb.Decision()
        if decision.granted:
            return True
        await asyncio.sleep(0.1)
    return False
