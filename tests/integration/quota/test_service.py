"""Charges through gRPC, on one Redis and on a cluster."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

from servicekit.clock import uuid7
from signgate.common.v1 import quota_pb2 as common
from signgate.quota.v1 import enforcement_pb2 as pb
from tests.integration.quota.world import Replica, World, free, keyed, ref


async def test_the_seeded_plan_holds_to_the_last_signature(world: World, quota: Replica, ann: UUID) -> None:
    """Daily limit 100, then refused until midnight, with the numbers that headers show."""
    await world.plan("free", daily=100)
    await quota.sees(100, ann, at_once=6000)
    decisions = await quota.consume(*(free(ann) for _ in range(101)))
    assert [d.granted for d in decisions] == [1] * 100 + [0]
    assert [d.state.remaining for d in decisions[:3]] == [99, 98, 97]
    last = decisions[-1]
    assert last.denied_by == common.LIMIT_KIND_USER_DAY
    assert (last.state.kind, last.state.limit, last.state.remaining) == (common.LIMIT_KIND_USER_DAY, 100, 0)
    midnight = last.state.reset_at.ToDatetime(tzinfo=UTC)
    assert (midnight.hour, midnight.minute, midnight.second) == (0, 0, 0)
    left = midnight - datetime.now(UTC)
    assert abs(last.retry_after.ToTimedelta() - left) < timedelta(seconds=30)
    assert last.charged_day == 0
    assert decisions[0].charged_day == (midnight - timedelta(days=1) - datetime(1970, 1, 1, tzinfo=UTC)).days
    assert await quota.used(ann) == 100


async def test_a_list_of_many_users_is_answered_in_order(world: World, quota: Replica) -> None:
    users = [await world.user() for _ in range(12)]
    charges = [free(user, cost=place % 3 + 1) for place, user in enumerate(users * 2)]
    decisions = await quota.consume(*charges)
    assert [d.granted for d in decisions] == [charge.cost for charge in charges]
    for place, user in enumerate(users):
        assert await quota.used(user) == 2 * (place % 3 + 1)


async def test_the_lease_is_told(quota: Replica, ann: UUID) -> None:
    response = await quota.stub.Consume(pb.ConsumeRequest(charges=[free(ann)]))
    lease = response.lease_expires_at.ToDatetime(tzinfo=UTC) - datetime.now(UTC)
    assert timedelta(seconds=1) < lease < timedelta(seconds=9)


async def test_a_key_is_held_by_its_own_limit_inside_the_pool(quota: Replica, ann: UUID) -> None:
    low, other = uuid7(), uuid7()
    decisions = await quota.consume(
        *(keyed(ann, low, daily=2) for _ in range(3)), keyed(ann, other), free(ann)
    )
    assert [d.granted for d in decisions] == [1, 1, 0, 1, 1]
    assert decisions[2].denied_by == common.LIMIT_KIND_KEY_DAY
    assert decisions[2].state.limit == 2
    assert await quota.used(ann, common.POOL_API_KEY, low) == 3
    assert await quota.used(ann, common.POOL_FREE) == 1


async def test_all_or_nothing_unless_less_is_welcome(world: World, quota: Replica, ann: UUID) -> None:
    await world.plan("free", daily=5)
    await quota.sees(5, ann)
    whole, part = await quota.consume(free(ann, 6), free(ann, 6, partial=True))
    assert (whole.granted, whole.state.remaining) == (0, 5)
    assert (part.granted, part.denied_by, part.state.remaining) == (5, common.LIMIT_KIND_USER_DAY, 0)


async def test_the_same_charge_again_counts_nothing_more(quota: Replica, ann: UUID) -> None:
    charge = free(ann, 3)
    first, twice = await quota.consume(charge, charge)
    (later,) = await quota.consume(charge)
    assert first.granted == twice.granted == later.granted == 3
    assert later.charged_day == first.charged_day
    await quota.stub.Settle(pb.SettleRequest(charges=[ref(charge)]))
    (settled,) = await quota.consume(charge)
    assert settled.granted == 3
    assert await quota.used(ann) == 3


async def test_a_refund_counts_once_and_not_after_settlement(quota: Replica, ann: UUID) -> None:
    failed, signed = free(ann, 4), free(ann)
    await quota.consume(failed, signed)
    await quota.stub.Settle(pb.SettleRequest(charges=[ref(signed)]))
    once = await quota.stub.Refund(pb.RefundRequest(charges=[ref(failed, 3), ref(signed), ref(free(ann))]))
    again = await quota.stub.Refund(pb.RefundRequest(charges=[ref(failed)]))
    assert list(once.refunded) == [3, 0, 0]
    assert list(again.refunded) == [0]
    assert await quota.used(ann) == 2


async def test_a_change_of_plan_counts_at_once(world: World, quota: Replica, ann: UUID) -> None:
    """Both ways, without touching what is counted."""
    await quota.consume(*(free(ann) for _ in range(7)))
    await world.plan("free", daily=7)
    await quota.sees(7, ann)
    (refused,) = await quota.consume(free(ann))
    assert refused.denied_by == common.LIMIT_KIND_USER_DAY
    await world.sql.execute(
        "INSERT INTO user_plan_overrides (user_id, pool, daily_limit) VALUES ($1, 'free', 8)", ann
    )
    await quota.sees(8, ann)
    (granted,) = await quota.consume(free(ann))
    assert (granted.granted, granted.state.limit, granted.state.remaining) == (1, 8, 0)
    await world.sql.execute("DELETE FROM user_plan_overrides WHERE user_id = $1", ann)
    await quota.sees(7, ann)
    (refused,) = await quota.consume(free(ann))
    assert refused.state.limit == 7


async def test_two_services_share_one_count(world: World, quota: Replica, ann: UUID) -> None:
    """Concurrent lists of two replicas never grant more than the limit, nor less."""
    await world.plan("free", daily=150)
    async with world.replica() as other:
        for replica in (quota, other):
            await replica.sees(150, ann)
        lists = [
            replica.consume(*(free(ann) for _ in range(10))) for replica in (quota, other) for _ in range(10)
        ]
        decisions = [d for answer in await asyncio.gather(*lists) for d in answer]
    assert sum(d.granted for d in decisions) == 150
    assert {d.denied_by for d in decisions if not d.granted} == {common.LIMIT_KIND_USER_DAY}
    assert await quota.used(ann) == 150


async def test_shadow_mode_reports_and_does_not_refuse(world: World, ann: UUID) -> None:
    await world.plan("free", daily=2)
    async with world.replica(shadow="free") as quota:
        decisions = await quota.consume(*(free(ann) for _ in range(3)))
        assert [d.granted for d in decisions] == [1, 1, 1]
        assert [d.shadow_denied_by for d in decisions] == [0, 0, common.LIMIT_KIND_USER_DAY]
        assert {d.denied_by for d in decisions} == {common.LIMIT_KIND_UNSPECIFIED}
        assert await quota.used(ann) == 3
