"""The blobs that go between this service and its scripts; the layouts are those of lua/*.lua.

One packed blob a call, either way, costs a fraction of what one Redis argument a field would: a
charge is one `struct.pack`, a decision one tuple.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from struct import Struct
from typing import Final

from services.quota.domain import (
    NO_KEY,
    NO_LIMIT,
    Charge,
    ChargeRef,
    Committed,
    Decision,
    LimitState,
    Missing,
    Outcome,
    Plan,
    Query,
    UserPlans,
    interval,
)

_count: Final = Struct("<H")
_pools: Final = Struct("<qIIBqIIB")
_charge: Final = Struct("<16sIB16sqII")
_reply: Final = Struct("<QQ")
_user: Final = Struct("<BIQI")
_decision: Final = Struct("<IIBBBQBqqQ")
_ref: Final = Struct("<16sI")
_load: Final = Struct("<IQIIH")
_key_count: Final = Struct("<16sI")
_query: Final = Struct("<B16sqIIqII")
_inspection: Final = Struct("<QBIQQQ")
_state: Final = Struct("<BqqQ")

_api_key, _keyed, _partial, _open = 1, 2, 4, 8
_uint32: Final = 0xFFFF_FFFF


def pack_pools(plans: UserPlans) -> bytes:
    """A user's limits as the scripts read them; made once a plan, not once a call."""
    return _pools.pack(*_pool(plans.free), *_pool(plans.api_key))


def _pool(plan: Plan) -> tuple[int, int, int, int]:
    return plan.daily, interval(plan.per_minute), min(plan.burst, _uint32), plan.shadow


def pack_charges(groups: Iterable[tuple[bytes, Sequence[Charge]]]) -> bytes:
    """Groups are a user's packed pools and charges."""
    parts: list[bytes] = []
    for pools, charges in groups:
        parts += (_count.pack(len(charges)), pools)
        for id_, api_key, key_id, cost, partial, daily, per_minute in charges:
            flags = (_api_key if api_key else 0) | (_keyed if key_id != NO_KEY else 0)
            parts.append(
                _charge.pack(
                    id_,
                    cost,
                    flags | _partial if partial else flags,
                    key_id,
                    daily or NO_LIMIT,
                    interval(per_minute) if per_minute else 0,
                    # A key has no burst of its own: a minute's worth at once.
                    min(per_minute, _uint32),
                )
            )
    return b"".join(parts)


def unpack_decisions(reply: bytes, groups: Iterable[tuple[str, int]]) -> Outcome:
    """What a script decided. `groups`: each user, with the count of their charges."""
    _, lease_end = _reply.unpack_from(reply)
    at = _reply.size
    outcome = Outcome(lease_end, {}, [])
    make, size = Decision._make, _decision.size
    for user_id, count in groups:
        status, day, version, released = _user.unpack_from(reply, at)
        at += _user.size
        outcome.released += released
        if status:
            outcome.decisions[user_id] = None
            outcome.missing.append(Missing(user_id, day, version))
            continue
        end = at + count * size
        answers = list(map(make, _decision.iter_unpack(reply[at:end])))
        outcome.decisions[user_id] = answers
        at = end
        if any(answer.undecided for answer in answers):
            outcome.missing.append(Missing(user_id, day, version))
    return outcome


def pack_refs(groups: Iterable[Sequence[ChargeRef]]) -> bytes:
    """One group a user."""
    parts = []
    for refs in groups:
        parts.append(_count.pack(len(refs)))
        parts += [_ref.pack(id_, units) for id_, units in refs]
    return b"".join(parts)


def pack_committed(users: Sequence[Missing], committed: Mapping[str, Committed]) -> bytes:
    """What the database has for each user; nothing when it has no row."""
    parts = []
    for user_id, day, version in users:
        found = committed.get(user_id) or Committed()
        parts.append(_load.pack(day, version, found.free, found.api_key, len(found.by_key)))
        parts += [_key_count.pack(key_id, used) for key_id, used in found.by_key.items()]
    return b"".join(parts)


def pack_query(query: Query, plan: Plan) -> bytes:
    """Whose limits to look at, and what they are."""
    flags = (_api_key if query.pool.plan == "api_key" else 0) | (_keyed if query.key_id != NO_KEY else 0)
    if query.count_open:
        flags |= _open
    return _query.pack(
        flags,
        query.key_id,
        *_pool(plan)[:3],
        query.key_daily or NO_LIMIT,
        interval(query.key_per_minute),
        min(query.key_per_minute, _uint32),
    )


def unpack_inspection(reply: bytes) -> tuple[int, int, int, int, int, int, list[LimitState]]:
    """Moment, status, day, version, used today, of it what is open, and the limits that exist."""
    now, status, day, version, used, reserved = _inspection.unpack_from(reply)
    states = [LimitState(*fields) for fields in _state.iter_unpack(reply[_inspection.size :])]
    return now, status, day, version, used, reserved, [state for state in states if state.kind]
