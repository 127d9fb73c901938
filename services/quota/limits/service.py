"""The use cases of administration."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Protocol
from uuid import UUID

from servicekit.clock import Clock
from servicekit.errors import InvalidArgument
from servicekit.texts import checked_name
from services.quota.domain import Pool
from services.quota.errors import PlansUnknown
from services.quota.limits.model import Limits, OverrideRecord, Place, PlanRecord

DEFAULT_PAGE, MAX_PAGE = 100, 1000
MAX_DAILY: Final = 2**53
"""The largest whole number that every JSON reader takes."""
MAX_RATE: Final = 2**31 - 1
MAX_REASON: Final = 200


class Store(Protocol):
    """See `store.LimitStore`."""

    async def plans(self) -> list[PlanRecord]: ...

    async def set_plan(self, pool: Pool, limits: Limits) -> PlanRecord | None: ...

    async def overrides(
        self, user_id: UUID | None, after: Place | None, limit: int
    ) -> list[OverrideRecord]: ...

    async def set_override(self, override: OverrideRecord) -> OverrideRecord | None: ...


class PlanBook(Protocol):
    """See `services.quota.plans.Plans`."""

    async def refresh(self) -> None:
        """Read what has changed."""
        ...


class LimitService:
    """For administrators: the policy admits only the service role. Raises `InvalidArgument`."""

    def __init__(self, store: Store, plans: PlanBook, clock: Clock) -> None:
        self._store = store
        self._plans = plans
        self._clock = clock

    async def plans(self) -> list[PlanRecord]:
        """Every pool's."""
        return await self._store.plans()

    async def set_plan(self, pool: Pool, limits: Limits) -> PlanRecord:
        """Change what is named."""
        _check(limits)
        plan = await self._store.set_plan(pool, limits)
        if plan is None:
            raise PlansUnknown("A plan is missing from the table of plans.")
        await self._plans.refresh()
        return plan

    async def overrides(
        self, user_id: UUID | None, page_size: int, after: Place | None
    ) -> tuple[list[OverrideRecord], Place | None]:
        """A page, and where it ended unless it is the last."""
        if page_size < 0:
            raise _wrong("page_size", "must not be negative")
        limit = min(page_size or DEFAULT_PAGE, MAX_PAGE)
        found = await self._store.overrides(user_id, after, limit + 1)
        page = found[:limit]
        return page, Place(page[-1].user_id, page[-1].pool.plan) if len(found) > limit else None

    async def set_override(self, override: OverrideRecord) -> OverrideRecord | None:
        """Replace a user's; `None`: it is taken away. Raises `UserUnknown`."""
        _check(override.limits)
        if override.expires_at is not None and override.expires_at <= self._clock.now():
            raise _wrong("expires_at", "must lie ahead")
        if override.reason:
            try:
                override = replace(override, reason=checked_name(override.reason, MAX_REASON))
            except ValueError as error:
                raise _wrong("reason", str(error)) from None
        now = await self._store.set_override(override)
        await self._plans.refresh()
        return now


def _check(limits: Limits) -> None:
    for name, value, least, most in (
        ("daily_limit", limits.daily, 0, MAX_DAILY),
        ("per_minute", limits.per_minute, 1, MAX_RATE),
        ("burst", limits.burst, 1, MAX_RATE),
    ):
        if value is not None and not least <= value <= most:
            raise _wrong(name, f"must be from {least} to {most}")


def _wrong(field: str, description: str) -> InvalidArgument:
    return InvalidArgument.field(field, description, "VALIDATION_FAILED")
