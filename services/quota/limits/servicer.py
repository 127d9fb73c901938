"""protobuf ↔ administration of limits, one method an RPC."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

from servicekit.errors import InvalidArgument
from services.quota.domain import Pool
from services.quota.limits.model import Limits, OverrideRecord, Place, PlanRecord
from services.quota.limits.service import LimitService
from signgate.common.v1 import quota_pb2 as common
from signgate.quota.v1 import admin_pb2 as pb
from signgate.quota.v1 import admin_pb2_grpc

if TYPE_CHECKING:
    import grpc.aio

    Context = grpc.aio.ServicerContext[Any, Any]

_pool_names: Final = {Pool.FREE: common.POOL_FREE, Pool.API_KEY: common.POOL_API_KEY}


class LimitServicer(admin_pb2_grpc.QuotaAdminServiceServicer):
    """`signgate.quota.v1.QuotaAdminService`. The interceptor has let the service role in."""

    def __init__(self, service: LimitService) -> None:
        self._service = service

    async def ListPlans(self, request: pb.ListPlansRequest, context: Context) -> pb.ListPlansResponse:
        return pb.ListPlansResponse(plans=[_plan(plan) for plan in await self._service.plans()])

    async def UpdatePlan(self, request: pb.UpdatePlanRequest, context: Context) -> pb.UpdatePlanResponse:
        plan = await self._service.set_plan(_pool(request.pool), _limits(request))
        return pb.UpdatePlanResponse(plan=_plan(plan))

    async def ListOverrides(
        self, request: pb.ListOverridesRequest, context: Context
    ) -> pb.ListOverridesResponse:
        user_id = _uuid(request.user_id, "user_id") if request.user_id else None
        after = _place(request.page_token) if request.page_token else None
        page, end = await self._service.overrides(user_id, request.page_size, after)
        return pb.ListOverridesResponse(
            overrides=[_override(one) for one in page],
            next_page_token="" if end is None else f"{end.user_id}.{end.pool}",
        )

    async def SetOverride(self, request: pb.SetOverrideRequest, context: Context) -> pb.SetOverrideResponse:
        now = await self._service.set_override(
            OverrideRecord(
                _uuid(request.user_id, "user_id"),
                _pool(request.pool),
                _limits(request),
                _moment(request.expires_at) if request.HasField("expires_at") else None,
                request.reason,
            )
        )
        return pb.SetOverrideResponse(override=None if now is None else _override(now))


def _wrong(field: str, description: str) -> InvalidArgument:
    return InvalidArgument.field(field, description, "VALIDATION_FAILED")


def _pool(value: int) -> Pool:
    try:
        return Pool(value)  # numbered alike
    except ValueError as error:
        raise _wrong("pool", "must be POOL_FREE or POOL_API_KEY") from error


def _uuid(text: str, field: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise _wrong(field, "must be a UUID") from error


def _place(token: str) -> Place:
    user_id, _, pool = token.partition(".")
    if pool not in {known.plan for known in Pool}:
        raise _wrong("page_token", "is not a page's")
    return Place(_uuid(user_id, "page_token"), pool)


def _moment(value: Timestamp) -> datetime:
    try:
        return value.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise _wrong("expires_at", "is not a moment between the years 1 and 9999") from error


def _timestamp(value: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(value)
    return message


def _limits(message: pb.UpdatePlanRequest | pb.SetOverrideRequest) -> Limits:
    return Limits(
        message.daily_limit if message.HasField("daily_limit") else None,
        message.per_minute if message.HasField("per_minute") else None,
        message.burst if message.HasField("burst") else None,
    )


def _plan(plan: PlanRecord) -> pb.Plan:
    return pb.Plan(
        pool=_pool_names[plan.pool],
        daily_limit=plan.limits.daily or 0,
        per_minute=plan.limits.per_minute or 0,
        burst=plan.limits.burst or 0,
        updated_at=_timestamp(plan.updated_at),
    )


def _override(one: OverrideRecord) -> pb.Override:
    return pb.Override(
        user_id=str(one.user_id),
        pool=_pool_names[one.pool],
        daily_limit=one.limits.daily,
        per_minute=one.limits.per_minute,
        burst=one.limits.burst,
        expires_at=None if one.expires_at is None else _timestamp(one.expires_at),
        reason=one.reason,
        updated_at=None if one.updated_at is None else _timestamp(one.updated_at),
    )
