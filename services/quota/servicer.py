"""gRPC for quota: protobuf to domain and back, one method an RPC. No rules but those of the contract."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from servicekit import context as calls
from servicekit.errors import InvalidArgument
from servicekit.principal import Principal
from services.quota.domain import (
    NO_KEY,
    Charge,
    ChargeRef,
    Decision,
    LimitState,
    Pool,
    Query,
)
from services.quota.service import QuotaService
from signgate.common.v1 import quota_pb2 as common
from signgate.quota.v1 import (
    enforcement_pb2 as pb,
)
from signgate.quota.v1 import (
    enforcement_pb2_grpc,
    quota_pb2,
    quota_pb2_grpc,
)

MAX_LIST: Final = 1000
MAX_SETTLE: Final = 10_000
MAX_COST: Final = 1_000_000
_max_limit: Final = 2**62

Context = grpc.aio.ServicerContext[Any, Any]

_uuid_length: Final = 36


def _id_bytes(text: str) -> bytes | None:
    """The 16 bytes of a UUID in its usual form; None for anything else."""
    if len(text) != _uuid_length:
        return None
    try:
        raw = bytes.fromhex(text.replace("-", ""))
    except ValueError:
        return None
    return raw if len(raw) == len(NO_KEY) else None


def _invalid(field: str, description: str) -> InvalidArgument:
    return InvalidArgument.field(field, description)


def _user(text: str, field: str) -> str:
    """A user's id in its canonical form, which names their keys in Redis."""
    raw = _id_bytes(text)
    if raw is None:
        raise _invalid(field, "must be a UUID")
    return text.lower()


class EnforcementServicer(enforcement_pb2_grpc.QuotaEnforcementServiceServicer):
    """Internal: decides lists. Raises `InvalidArgument` for the whole list when a member is malformed."""

    def __init__(self, service: QuotaService) -> None:
        self._service = service

    async def Consume(self, request: pb.ConsumeRequest, context: Context) -> pb.ConsumeResponse:
        """See the contract."""
        charges = request.charges
        _bounded(charges, MAX_LIST)
        decisions, lease_end = await self._service.consume(
            [_charge(charge, place) for place, charge in enumerate(charges)]
        )
        response = pb.ConsumeResponse(lease_expires_at=_moment(lease_end) if lease_end else None)
        _add_decisions(response, decisions)
        return response

    async def Refund(self, request: pb.RefundRequest, context: Context) -> pb.RefundResponse:
        """See the contract."""
        _bounded(request.charges, MAX_LIST)
        refs = [_ref(ref, place) for place, ref in enumerate(request.charges)]
        return pb.RefundResponse(refunded=await self._service.refund(refs))

    async def Settle(self, request: pb.SettleRequest, context: Context) -> pb.SettleResponse:
        """See the contract."""
        _bounded(request.charges, MAX_SETTLE)
        refs = [_ref(ref, place) for place, ref in enumerate(request.charges)]
        watermark = request.watermark.ToMicroseconds() if request.HasField("watermark") else 0
        settled, released = await self._service.settle(refs, max(0, watermark))
        return pb.SettleResponse(settled=settled, released=released)

    async def Inspect(self, request: pb.InspectRequest, context: Context) -> pb.InspectResponse:
        """See the contract."""
        key_id = NO_KEY
        if request.pool == common.POOL_API_KEY:
            key_id = _key(request.key_id, "key_id") if request.key_id else NO_KEY
        elif request.pool != common.POOL_FREE:
            raise _invalid("pool", "must be named")
        found = await self._service.inspect(
            Query(
                _user(request.user_id, "user_id"),
                Pool(request.pool),
                key_id,
                _limit(request.key_daily_limit, "key_daily_limit"),
                _limit(request.key_per_minute, "key_per_minute"),
                request.count_open,
            )
        )
        return pb.InspectResponse(
            used_today=found.used,
            limits=[_state(limit) for limit in found.limits],
            open_today=found.reserved,
        )


class KeyLimits(Protocol):
    """Where a key's own limits are read: see `store.QuotaStore`."""

    async def own_key_limits(self, principal: Principal) -> tuple[int, int]:
        """The day's and the minute's; 0: none."""
        ...


class QuotaServicer(quota_pb2_grpc.QuotaServiceServicer):
    """Public: callers see their own."""

    def __init__(self, service: QuotaService, keys: KeyLimits) -> None:
        self._service = service
        self._keys = keys

    async def GetQuota(
        self, request: quota_pb2.GetQuotaRequest, context: Context
    ) -> quota_pb2.GetQuotaResponse:
        """See the contract."""
        caller = calls.principal()
        user_id = str(caller.user_id)
        if caller.api_key_id is not None:
            daily, per_minute = await self._keys.own_key_limits(caller)
            queries = [Query(user_id, Pool.API_KEY, caller.api_key_id.bytes, daily, per_minute)]
        else:
            queries = [Query(user_id, Pool.FREE), Query(user_id, Pool.API_KEY)]
        response = quota_pb2.GetQuotaResponse(tier=caller.tier)
        for query in queries:
            found = await self._service.inspect(query)
            response.pools.add(
                pool=_pool_names[query.pool],
                plan=query.pool.plan,
                used_today=found.used,
                limits=[_state(limit) for limit in found.limits],
            )
            response.as_of.FromMicroseconds(found.now)
        return response


_pool_names: Final = {Pool.FREE: common.POOL_FREE, Pool.API_KEY: common.POOL_API_KEY}


def _bounded(items: Sequence[object], most: int) -> None:
    if len(items) > most:
        raise _invalid("charges", f"at most {most}")


def _charge(charge: pb.Charge, place: int) -> tuple[str, Charge]:
    """The hot loop of a request: texts about what is wrong are made only when it is."""
    id_, user_id, cost, pool = _id_bytes(charge.charge_id), charge.user_id, charge.cost, charge.pool
    if id_ is None or _id_bytes(user_id) is None:
        raise _invalid(f"charges[{place}].{'user_id' if id_ else 'charge_id'}", "must be a UUID")
    if not 1 <= cost <= MAX_COST:
        raise _invalid(f"charges[{place}].cost", f"must be from 1 to {MAX_COST}")
    if pool == common.POOL_FREE:
        return user_id.lower(), Charge(id_, False, NO_KEY, cost, charge.allow_partial)
    if pool != common.POOL_API_KEY:
        raise _invalid(f"charges[{place}].pool", "must be named")
    key_id, daily, per_minute = _id_bytes(charge.key_id), charge.key_daily_limit, charge.key_per_minute
    if key_id is None or key_id == NO_KEY:
        raise _invalid(f"charges[{place}].key_id", "must be a UUID")
    if not (0 <= daily <= _max_limit and 0 <= per_minute <= _max_limit):
        name = "key_per_minute" if 0 <= daily <= _max_limit else "key_daily_limit"
        raise _invalid(f"charges[{place}].{name}", "must not be negative, nor absurd")
    return user_id.lower(), Charge(id_, True, key_id, cost, charge.allow_partial, daily, per_minute)


def _key(text: str, field: str) -> bytes:
    raw = _id_bytes(text)
    if raw is None or raw == NO_KEY:
        raise _invalid(field, "must be a UUID")
    return raw


def _limit(value: int, field: str) -> int:
    if not 0 <= value <= _max_limit:
        raise _invalid(field, "must not be negative, nor absurd")
    return value


def _ref(ref: pb.ChargeRef, place: int) -> tuple[str, ChargeRef]:
    id_, user_id, units = _id_bytes(ref.charge_id), ref.user_id, ref.units
    if id_ is None or _id_bytes(user_id) is None:
        raise _invalid(f"charges[{place}].{'user_id' if id_ else 'charge_id'}", "must be a UUID")
    if not 0 <= units <= MAX_COST:
        raise _invalid(f"charges[{place}].units", f"must be from 0 to {MAX_COST}")
    return user_id.lower(), ChargeRef(id_, units)


def _add_decisions(response: pb.ConsumeResponse, decisions: Sequence[Decision]) -> None:
    """The hot loop of an answer. Charges that were granted whole differ in what remains, most often in
    nothing else: they are copies of the first such one, at a quarter of the cost of a new message.
    """
    add = response.decisions.add
    alike: dict[tuple[int, ...], pb.Decision] = {}
    for decision in decisions:
        granted, day, denied, shadow, unknown, wait, kind, limit, remaining, reset = decision
        if unknown:
            add(undecided=True, retry_after=_wait(wait))
            continue
        look = (granted, day, kind, limit, reset, shadow)
        first = alike.get(look)
        if first is not None and not denied:
            copy = add()
            copy.CopyFrom(first)
            copy.state.remaining = remaining
            continue
        made = add(
            granted=granted,
            denied_by=denied,  # Limit is numbered as LimitKind
            retry_after=_wait(wait) if denied else None,
            state=_state(LimitState(kind, limit, remaining, reset)),
            charged_day=day,
            shadow_denied_by=shadow,
        )
        if not denied:
            alike[look] = made


def _state(state: LimitState) -> common.LimitState:
    return common.LimitState(
        kind=state.kind,  # type: ignore[arg-type]  # Limit is numbered as LimitKind
        limit=state.limit,
        remaining=state.remaining,
        reset_at=_moment(state.reset),
    )


def _moment(micros: int) -> Timestamp:
    return Timestamp(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1000)


def _wait(micros: int) -> Duration:
    return Duration(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1000)
