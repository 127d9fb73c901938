"""What quota counts and decides, as plain values. Times are epoch microseconds, days since 1970-01-01.

A limit of a day is a count. A limit a minute is GCRA: one signature every `interval` microseconds,
and up to `burst` of them at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, NamedTuple

MINUTE: Final = 60_000_000
DAY: Final = 86_400_000_000
NO_LIMIT: Final = -1
NO_KEY: Final = bytes(16)


class Pool(IntEnum):
    """Which of a user's counters pays; numbered as `signgate.common.v1.Pool`."""

    FREE = 1
    API_KEY = 2

    @property
    def plan(self) -> str:
        """The tier whose plan gives the limits."""
        return "free" if self is Pool.FREE else "api_key"


class Limit(IntEnum):
    """What a limit counts; numbered as `signgate.common.v1.LimitKind`."""

    NONE = 0
    USER_DAY = 1
    USER_MINUTE = 2
    KEY_DAY = 3
    KEY_MINUTE = 4


def interval(per_minute: int) -> int:
    """Microseconds between two signatures of a rate, rounded up: never more than `per_minute`; 0: no limit.

    The rounding makes a rate of 600,000 a minute at most 1 % too strict, and slower ones less.
    """
    return -(-MINUTE // per_minute) if per_minute > 0 else 0


@dataclass(frozen=True, slots=True)
class Plan:
    """The limits of a pool. `daily` of NO_LIMIT and `per_minute` of 0 are no limits."""

    daily: int
    per_minute: int
    burst: int
    shadow: bool = False


@dataclass(frozen=True, slots=True)
class Override:
    """What one user has instead of the plan's limits; None leaves the plan's."""

    daily: int | None = None
    per_minute: int | None = None
    burst: int | None = None

    def applied_to(self, plan: Plan) -> Plan:
        """The user's own plan."""
        return Plan(
            plan.daily if self.daily is None else self.daily,
            plan.per_minute if self.per_minute is None else self.per_minute,
            plan.burst if self.burst is None else self.burst,
            plan.shadow,
        )


@dataclass(frozen=True, slots=True)
class UserPlans:
    """Both pools' limits of one user."""

    free: Plan
    api_key: Plan

    def of(self, pool: Pool) -> Plan:
        """The limits of a pool."""
        return self.free if pool is Pool.FREE else self.api_key


class Charge(NamedTuple):
    """Asks to count `cost` signatures. Ids are their 16 bytes; `key_id` is NO_KEY without a key.

    `key_daily` and `key_per_minute` are the key's own limits; 0: none.
    """

    id: bytes
    api_key: bool
    key_id: bytes
    cost: int
    partial: bool
    key_daily: int = 0
    key_per_minute: int = 0


class Decision(NamedTuple):
    """The answer to a charge; `limit` and what follows is the limit to show.

    `undecided`: nothing was decided; only `wait` means anything beside it.
    """

    granted: int
    day: int
    denied_by: int
    shadow_denied_by: int
    undecided: int
    wait: int
    kind: int
    limit: int
    remaining: int
    reset: int


def undecided(wait: int) -> Decision:
    """Nothing is known of this user; try again after `wait` microseconds."""
    return Decision(0, 0, 0, 0, 1, wait, 0, 0, 0, 0)


class ChargeRef(NamedTuple):
    """A charge, and how many of its units are meant; 0: all."""

    id: bytes
    units: int


class LimitState(NamedTuple):
    """One limit at one moment."""

    kind: int
    limit: int
    remaining: int
    reset: int


class Missing(NamedTuple):
    """A user whose counters must be loaded for `day`; `version` tells whether something came between."""

    user_id: str
    day: int
    version: int


@dataclass(slots=True)
class Committed:
    """What the database has committed for a user's day. `by_key` is part of `api_key`."""

    free: int = 0
    api_key: int = 0
    by_key: dict[bytes, int] = field(default_factory=dict)


@dataclass(slots=True)
class Outcome:
    """What became of a list of charges: decisions by user, in order; None for users to be loaded.

    `released`: units of abandoned reservations taken back on the way.
    """

    lease_end: int
    decisions: dict[str, list[Decision] | None]
    missing: list[Missing]
    released: int = 0


@dataclass(frozen=True, slots=True)
class Inspection:
    """One caller's limits: in the order of kinds, without those that do not exist.

    `reserved`: of `used`, what is not final, where the query asked for it.
    """

    now: int
    used: int
    limits: list[LimitState]
    reserved: int = 0


class Query(NamedTuple):
    """Whose limits to look at."""

    user_id: str
    pool: Pool
    key_id: bytes = NO_KEY
    key_daily: int = 0
    key_per_minute: int = 0
    count_open: bool = False
