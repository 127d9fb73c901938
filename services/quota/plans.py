"""Plans and overrides in memory, read again each interval: a change counts within about one.

While PostgreSQL is away the last known ones go on, for as long as it takes: limits that are minutes
old are better than no service, and nobody can change them meanwhile anyway.
"""

from __future__ import annotations

import asyncio
from typing import Literal, Protocol

from servicekit import log
from servicekit.clock import Clock
from services.quota import metrics
from services.quota.domain import Override, Plan, Pool, UserPlans
from services.quota.errors import PlansUnknown
from services.quota.wire import pack_pools

Shadow = Literal["", "free", "api_key", "all"]

_log = log.get("plans")


class PlanSource(Protocol):
    """Where plans are written: see `store.QuotaStore`."""

    async def plans(self) -> dict[str, Plan]:
        """By tier."""
        ...

    async def overrides_fingerprint(self) -> object:
        """Changes whenever an override does."""
        ...

    async def overrides(self) -> dict[str, dict[Pool, Override]]:
        """By user and pool."""
        ...


class Plans:
    """Every user's limits, without I/O. Raises `PlansUnknown` until they were read once."""

    def __init__(
        self, source: PlanSource, clock: Clock, *, interval: float = 1.0, shadow: Shadow = ""
    ) -> None:
        self._source = source
        self._clock = clock
        self._interval = interval
        self._shadow = shadow
        self._fingerprint: object = None
        self._overrides: dict[str, dict[Pool, Override]] = {}
        self._plans: UserPlans | None = None
        self._packed = b""
        self._own: dict[str, tuple[UserPlans, bytes]] = {}

    def of(self, user_id: str) -> UserPlans:
        """A user's limits."""
        if self._plans is None:
            raise PlansUnknown(retry_after=1.0)
        own = self._own.get(user_id)
        return self._plans if own is None else own[0]

    def packed(self, user_id: str) -> bytes:
        """The same as the scripts read it."""
        if self._plans is None:
            raise PlansUnknown(retry_after=1.0)
        own = self._own.get(user_id)
        return self._packed if own is None else own[1]

    async def refresh(self) -> None:
        """Read what has changed. Raises `Unavailable`; then all stays as it was."""
        tiers = await self._source.plans()
        fingerprint = await self._source.overrides_fingerprint()
        changed = fingerprint != self._fingerprint
        if changed:
            self._overrides = await self._source.overrides()
            # Taken before the rows: a change in between is seen at the next look.
            self._fingerprint = fingerprint
        free, api_key = tiers.get(Pool.FREE.plan), tiers.get(Pool.API_KEY.plan)
        if free is None or api_key is None:
            raise PlansUnknown("A plan is missing from the table of plans.")
        plans = UserPlans(self._shadowed(free, Pool.FREE), self._shadowed(api_key, Pool.API_KEY))
        metrics.PLANS_READ.set(self._clock.time())
        if plans == self._plans and not changed:
            return
        self._own = {}
        for user_id, own in self._overrides.items():
            theirs = UserPlans(
                own.get(Pool.FREE, Override()).applied_to(plans.free),
                own.get(Pool.API_KEY, Override()).applied_to(plans.api_key),
            )
            self._own[user_id] = (theirs, pack_pools(theirs))
        self._packed = pack_pools(plans)
        self._plans = plans

    async def watch(self) -> None:
        """Refresh for ever."""
        while True:
            try:
                await self.refresh()
            except Exception as error:  # noqa: BLE001  # whatever it is, limits must go on
                cause = error.__cause__ or error
                _log.warning("plans can't be read; the last known ones hold", cause=cause)
            await asyncio.sleep(self._interval)

    def _shadowed(self, plan: Plan, pool: Pool) -> Plan:
        shadow = self._shadow in ("all", pool.plan)
        return Plan(plan.daily, plan.per_minute, plan.burst, shadow)
