"""Administration of limits, as an operator does it; and that what they say counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import grpc
import pytest

from servicekit.authn import CredentialAuthenticator
from servicekit.clock import SystemClock, uuid7
from servicekit.errors import InvalidArgument, NotFound, PermissionDenied
from servicekit.postgres import open_database
from servicekit.testing.network import serving
from servicekit.testing.tokens import FakeKeys, FakeSessions
from services.quota.limits.service import LimitService
from services.quota.limits.servicer import LimitServicer
from services.quota.limits.store import LimitStore
from services.quota.plans import Plans
from services.quota.store import QuotaStore
from signgate.common.v1 import quota_pb2 as common
from signgate.quota.v1 import admin_pb2 as pb
from signgate.quota.v1 import admin_pb2_grpc
from tests.integration.quota.world import Replica, World, bearer, free

if TYPE_CHECKING:
    Stub = admin_pb2_grpc.QuotaAdminServiceAsyncStub  # in the stubs only

pytestmark = pytest.mark.parametrize("redis_url", ["redis"], indirect=True)


@pytest.fixture
async def stub(world: World) -> AsyncIterator[Stub]:
    clock = SystemClock()
    async with open_database(world.database.dsn("signgate_quota"), name="quota") as database:
        plans = Plans(QuotaStore(database), clock)
        servicer = LimitServicer(LimitService(LimitStore(database), plans, clock))
        authenticator = CredentialAuthenticator(world.mint.verifier(), FakeSessions(), FakeKeys())
        add = admin_pb2_grpc.add_QuotaAdminServiceServicer_to_server
        async with serving((servicer, add), authenticator=authenticator) as channel:
            yield admin_pb2_grpc.QuotaAdminServiceStub(channel)


async def granted(quota: Replica, user: UUID, *, limit: int) -> list[int]:
    """What becomes of so many charges and one more, once a replica has seen the limit."""
    await quota.sees(limit, user)
    used = await quota.used(user)
    return [d.granted for d in await quota.consume(*(free(user) for _ in range(limit - used + 1)))]


@pytest.fixture
def operator(world: World) -> grpc.aio.Metadata:
    return bearer(world.mint.token(role="service_role"))


async def test_an_override_counts_at_once_until_it_is_taken_away(
    quota: Replica, stub: Stub, operator: grpc.aio.Metadata, ann: UUID
) -> None:
    said = pb.SetOverrideRequest(user_id=str(ann), pool=common.POOL_FREE, daily_limit=1, reason="a trial")
    made = (await stub.SetOverride(said, metadata=operator)).override
    assert (made.daily_limit, made.HasField("per_minute"), made.reason) == (1, False, "a trial")
    assert await granted(quota, ann, limit=1) == [1, 0]
    said.daily_limit = 3
    await stub.SetOverride(said, metadata=operator)
    assert await granted(quota, ann, limit=3) == [1, 1, 0]
    said.ClearField("daily_limit")
    assert not (await stub.SetOverride(said, metadata=operator)).HasField("override")
    assert (await granted(quota, ann, limit=100))[:2] == [1, 1]


async def test_an_override_ends_by_itself(
    quota: Replica, stub: Stub, operator: grpc.aio.Metadata, ann: UUID
) -> None:
    said = pb.SetOverrideRequest(user_id=str(ann), pool=common.POOL_FREE, daily_limit=0)
    said.expires_at.FromDatetime(datetime.now(UTC) + timedelta(seconds=3))
    await stub.SetOverride(said, metadata=operator)
    assert await granted(quota, ann, limit=0) == [0]
    async with asyncio.timeout(20):
        while not (await quota.consume(free(ann)))[0].granted:
            await asyncio.sleep(0.2)
    (ended,) = (await stub.ListOverrides(pb.ListOverridesRequest(), metadata=operator)).overrides
    assert ended.expires_at.ToDatetime(tzinfo=UTC) <= datetime.now(UTC)


async def test_a_plan_changes_in_what_is_named(
    quota: Replica, stub: Stub, operator: grpc.aio.Metadata, ann: UUID
) -> None:
    request = pb.UpdatePlanRequest(pool=common.POOL_FREE, daily_limit=2)
    plan = (await stub.UpdatePlan(request, metadata=operator)).plan
    assert (plan.daily_limit, plan.per_minute, plan.burst) == (2, 20, 10)
    assert await granted(quota, ann, limit=2) == [1, 1, 0]
    plans = (await stub.ListPlans(pb.ListPlansRequest(), metadata=operator)).plans
    assert [(one.pool, one.daily_limit) for one in plans] == [
        (common.POOL_FREE, 2),
        (common.POOL_API_KEY, 10_000),
    ]


async def test_overrides_come_by_pages(world: World, stub: Stub, operator: grpc.aio.Metadata) -> None:
    users = sorted([str(await world.user()) for _ in range(3)])
    for user in users:
        for pool in (common.POOL_FREE, common.POOL_API_KEY):
            said = pb.SetOverrideRequest(user_id=user, pool=pool, burst=5)
            await stub.SetOverride(said, metadata=operator)
    found, token = [], ""
    while True:
        request = pb.ListOverridesRequest(page_size=4, page_token=token)
        page = await stub.ListOverrides(request, metadata=operator)
        found += [(one.user_id, one.pool) for one in page.overrides]
        token = page.next_page_token
        if not token:
            break
    assert sorted(found) == [(u, p) for u in users for p in (common.POOL_FREE, common.POOL_API_KEY)]
    only = await stub.ListOverrides(pb.ListOverridesRequest(user_id=users[1]), metadata=operator)
    assert {one.user_id for one in only.overrides} == {users[1]}


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"user_id": "nobody"}, "user_id"),
        ({"pool": 0}, "pool"),
        ({"pool": 9}, "pool"),
        ({"daily_limit": -1}, "daily_limit"),
        ({"daily_limit": 2**60}, "daily_limit"),
        ({"per_minute": 0}, "per_minute"),
        ({"burst": 0}, "burst"),
        ({"reason": "x" * 201}, "reason"),
        ({"reason": "a\0b"}, "reason"),
        ({"expires_at": datetime.now(UTC) - timedelta(seconds=1)}, "expires_at"),
    ],
)
async def test_what_is_wrong_is_named_and_changes_nothing(
    stub: Stub, operator: grpc.aio.Metadata, ann: UUID, wrong: dict[str, Any], field: str
) -> None:
    said: dict[str, Any] = {"user_id": str(ann), "pool": common.POOL_FREE, "daily_limit": 5} | wrong
    with pytest.raises(InvalidArgument) as caught:
        await stub.SetOverride(pb.SetOverrideRequest(**said), metadata=operator)
    assert [violation.field for violation in caught.value.violations] == [field]
    assert caught.value.reason == "VALIDATION_FAILED"
    assert not (await stub.ListOverrides(pb.ListOverridesRequest(), metadata=operator)).overrides


@pytest.mark.parametrize("limit", [{"daily_limit": 5}, {}], ids=["set", "take away"])
async def test_nobody_has_no_override(stub: Stub, operator: grpc.aio.Metadata, limit: dict[str, Any]) -> None:
    said = pb.SetOverrideRequest(user_id=str(uuid7()), pool=common.POOL_FREE, **limit)
    with pytest.raises(NotFound) as caught:
        await stub.SetOverride(said, metadata=operator)
    assert caught.value.reason == "USER_NOT_FOUND"


async def test_a_page_token_that_no_list_gave_is_refused(stub: Stub, operator: grpc.aio.Metadata) -> None:
    for token in ("x", "-", "1.2", f"{uuid7()}.gold", f"{uuid7()}.free\0"):
        with pytest.raises(InvalidArgument):
            await stub.ListOverrides(pb.ListOverridesRequest(page_token=token), metadata=operator)


async def test_users_give_themselves_nothing(world: World, stub: Stub, ann: UUID) -> None:
    said = pb.SetOverrideRequest(user_id=str(ann), pool=common.POOL_FREE, daily_limit=1_000_000)
    with pytest.raises(PermissionDenied):
        await stub.SetOverride(said, metadata=bearer(world.mint.token(ann)))


async def test_a_reason_is_readable(stub: Stub, operator: grpc.aio.Metadata, ann: UUID) -> None:
    """S26."""
    said = pb.SetOverrideRequest(
        user_id=str(ann), pool=common.POOL_FREE, daily_limit=5, reason=" a tria\u0300l "
    )
    made = (await stub.SetOverride(said, metadata=operator)).override
    assert made.reason == "a tri\u00e0l"
    for char in "\u3164\u2060\u00ad\0\n":
        for reason in (char, f"a{char}b"):
            said.reason = reason
            with pytest.raises(InvalidArgument) as caught:
                await stub.SetOverride(said, metadata=operator)
            assert [violation.field for violation in caught.value.violations] == ["reason"]
