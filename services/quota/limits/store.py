"""The SQL of administration: reads as the service's role, writes by the functions that it may call."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from asyncpg import exceptions as pg

from servicekit.postgres import Database
from services.quota.domain import Pool
from services.quota.errors import UserUnknown
from services.quota.limits.model import Limits, OverrideRecord, Place, PlanRecord

_plans: Final = "SELECT tier, daily_limit, per_minute, burst, updated_at FROM plans"
_set_plan: Final = "SELECT * FROM set_plan($1, $2, $3, $4)"
_columns: Final = "user_id, pool, daily_limit, per_minute, burst, expires_at, reason, updated_at"
_overrides: Final = f"""
SELECT {_columns} FROM user_plan_overrides
WHERE ($1::uuid IS NULL OR user_id = $1) AND ($2::uuid IS NULL OR (user_id, pool) > ($2, $3))
ORDER BY user_id, pool LIMIT $4
"""  # noqa: S608 - from constants
_set_override: Final = f"SELECT {_columns} FROM set_user_plan_override($1, $2, $3, $4, $5, $6, $7)"  # noqa: S608 - likewise


class LimitStore:
    """Raises `DatabaseUnavailable`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def plans(self) -> list[PlanRecord]:
        """Every pool's."""
        return sorted(map(_plan, await self._database.fetch(_plans)), key=lambda plan: plan.pool)

    async def set_plan(self, pool: Pool, limits: Limits) -> PlanRecord | None:
        """Change what is named. `None`: there is no such plan."""
        row = await self._database.fetchrow(
            _set_plan, pool.plan, limits.daily, limits.per_minute, limits.burst
        )
        return None if row is None else _plan(row)

    async def overrides(self, user_id: UUID | None, after: Place | None, limit: int) -> list[OverrideRecord]:
        """By user; those that have ended too."""
        place = (None, None) if after is None else after
        rows = await self._database.fetch(_overrides, user_id, *place, limit)
        return [_override(row) for row in rows]

    async def set_override(self, override: OverrideRecord) -> OverrideRecord | None:
        """Replace it; `None`: it names no limit, so there is none any more. Raises `UserUnknown`."""
        try:
            row = await self._database.fetchrow(
                _set_override,
                override.user_id,
                override.pool.plan,
                override.limits.daily,
                override.limits.per_minute,
                override.limits.burst,
                override.expires_at,
                override.reason or None,
            )
        except pg.ForeignKeyViolationError as error:
            raise UserUnknown from error
        return None if row is None else _override(row)


def _pool(tier: str) -> Pool:
    return Pool.FREE if tier == Pool.FREE.plan else Pool.API_KEY


def _plan(row: Any) -> PlanRecord:
    limits = Limits(row["daily_limit"], row["per_minute"], row["burst"])
    return PlanRecord(_pool(row["tier"]), limits, row["updated_at"])


def _override(row: Any) -> OverrideRecord:
    return OverrideRecord(
        row["user_id"],
        _pool(row["pool"]),
        Limits(row["daily_limit"], row["per_minute"], row["burst"]),
        row["expires_at"],
        row["reason"] or "",
        row["updated_at"],
    )
