"""What the contract refuses, before anything is counted; and what decisions look like on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from servicekit.clock import uuid7
from servicekit.errors import InvalidArgument
from services.quota.domain import (
    NO_KEY,
    Charge,
    ChargeRef,
    Decision,
    Inspection,
    LimitState,
    Query,
    undecided,
)
from services.quota.service import QuotaService
from services.quota.servicer import EnforcementServicer
from signgate.common.v1 import quota_pb2 as common
from signgate.quota.v1 import enforcement_pb2 as pb

CONTEXT = cast("Any", None)


class FakeService:
    """Grants all, but what `answers` says; keeps what it was asked."""

    def __init__(self) -> None:
        self.charges: list[tuple[str, Charge]] = []
        self.refs: list[tuple[str, ChargeRef]] = []
        self.watermark = -1
        self.query: Query | None = None
        self.answers: list[Decision] = []

    async def consume(self, charges: Sequence[tuple[str, Charge]]) -> tuple[list[Decision], int]:
        self.charges = list(charges)
        return self.answers, 1_700_000_000_250_000

    async def refund(self, refs: Sequence[tuple[str, ChargeRef]]) -> list[int]:
        self.refs = list(refs)
        return [ref.units for _, ref in refs]

    async def settle(self, refs: Sequence[tuple[str, ChargeRef]], watermark: int) -> tuple[int, int]:
        self.refs, self.watermark = list(refs), watermark
        return len(refs), 0

    async def inspect(self, query: Query) -> Inspection:
        self.query = query
        return Inspection(0, 4, [LimitState(1, 10, 6, 1_700_000_000_000_000)])


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def servicer(service: FakeService) -> EnforcementServicer:
    return EnforcementServicer(cast("QuotaService", service))


def good() -> pb.Charge:
    return pb.Charge(charge_id=str(uuid7()), user_id=str(uuid7()), pool=common.POOL_FREE, cost=1)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"charge_id": "x"}, "charges[0].charge_id"),
        ({"charge_id": "zzzzzzzz-zzzz-zzzz-zzzz-zzzzzzzzzzzz"}, "charges[0].charge_id"),
        ({"user_id": ""}, "charges[0].user_id"),
        ({"cost": 0}, "charges[0].cost"),
        ({"cost": -1}, "charges[0].cost"),
        ({"cost": 2**40}, "charges[0].cost"),
        ({"pool": common.POOL_UNSPECIFIED}, "charges[0].pool"),
        ({"pool": common.POOL_API_KEY}, "charges[0].key_id"),
        (
            {"pool": common.POOL_API_KEY, "key_id": str(uuid7()), "key_daily_limit": -1},
            "charges[0].key_daily_limit",
        ),
    ],
)
async def test_a_malformed_charge_is_refused(
    servicer: EnforcementServicer, service: FakeService, change: dict[str, object], field: str
) -> None:
    """The whole list is: a peer that sends such a thing is broken, and nothing of it is counted."""
    charge = good()
    for name, value in change.items():
        setattr(charge, name, value)
    with pytest.raises(InvalidArgument) as caught:
        await servicer.Consume(pb.ConsumeRequest(charges=[charge, good()]), CONTEXT)
    assert [violation.field for violation in caught.value.violations] == [field]
    assert service.charges == []


async def test_lists_have_a_largest_size(servicer: EnforcementServicer) -> None:
    with pytest.raises(InvalidArgument):
        await servicer.Consume(pb.ConsumeRequest(charges=[good()] * 1001), CONTEXT)
    with pytest.raises(InvalidArgument):
        await servicer.Settle(pb.SettleRequest(charges=[pb.ChargeRef()] * 10_001), CONTEXT)


async def test_a_charge_arrives_whole(servicer: EnforcementServicer, service: FakeService) -> None:
    user, key, id_ = uuid7(), uuid7(), uuid7()
    charge = pb.Charge(
        charge_id=str(id_).upper(), user_id=str(user).upper(), pool=common.POOL_API_KEY, key_id=str(key),
        cost=7, allow_partial=True, key_daily_limit=9, key_per_minute=8,
    )  # fmt: skip
    await servicer.Consume(pb.ConsumeRequest(charges=[charge]), CONTEXT)
    assert service.charges == [(str(user), Charge(id_.bytes, True, key.bytes, 7, True, 9, 8))]
    await servicer.Consume(pb.ConsumeRequest(charges=[good()]), CONTEXT)
    assert service.charges[0][1].key_id == NO_KEY


async def test_decisions_on_the_wire(servicer: EnforcementServicer, service: FakeService) -> None:
    service.answers = [
        Decision(2, 20_000, 0, 0, 0, 0, 1, 10, 8, 1_728_086_400_000_000),
        Decision(2, 20_000, 0, 0, 0, 0, 1, 10, 6, 1_728_086_400_000_000),
        Decision(1, 20_000, 2, 0, 0, 1_500_000, 2, 5, 0, 1_728_000_000_500_000),
        Decision(3, 20_000, 0, 1, 0, 0, 1, 10, 0, 1_728_086_400_000_000),
        undecided(1_000_000),
    ]
    response = await servicer.Consume(pb.ConsumeRequest(), CONTEXT)
    whole, alike, part, shadow, unknown = response.decisions
    assert response.lease_expires_at.ToMilliseconds() == 1_700_000_000_250
    assert (whole.granted, whole.charged_day, whole.state.remaining) == (2, 20_000, 8)
    assert (alike.granted, alike.charged_day, alike.state.remaining) == (2, 20_000, 6)
    assert alike.state.reset_at == whole.state.reset_at
    assert not whole.HasField("retry_after")
    assert not alike.HasField("retry_after")
    assert whole.state.reset_at.seconds == 1_728_086_400
    assert (part.denied_by, part.retry_after.ToMilliseconds()) == (common.LIMIT_KIND_USER_MINUTE, 1500)
    assert part.state.reset_at.ToMilliseconds() == 1_728_000_000_500
    assert (shadow.denied_by, shadow.shadow_denied_by) == (0, common.LIMIT_KIND_USER_DAY)
    assert unknown == pb.Decision(undecided=True, retry_after=unknown.retry_after)
    assert unknown.retry_after.seconds == 1


async def test_a_watermark_may_be_absent(servicer: EnforcementServicer, service: FakeService) -> None:
    await servicer.Settle(pb.SettleRequest(), CONTEXT)
    assert service.watermark == 0
    request = pb.SettleRequest()
    request.watermark.FromMilliseconds(1_700_000_000_123)
    await servicer.Settle(request, CONTEXT)
    assert service.watermark == 1_700_000_000_123_000


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.InspectRequest(user_id="x", pool=common.POOL_FREE), "user_id"),
        (pb.InspectRequest(user_id=str(uuid7())), "pool"),
        (pb.InspectRequest(user_id=str(uuid7()), pool=common.POOL_API_KEY, key_id="x"), "key_id"),
    ],
)
async def test_a_malformed_look_is_refused(
    servicer: EnforcementServicer, request_: pb.InspectRequest, field: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await servicer.Inspect(request_, CONTEXT)
    assert caught.value.violations[0].field == field
