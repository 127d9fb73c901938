"""The service's SQL: it only reads."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import date, timedelta
from typing import Final
from uuid import UUID

from servicekit.postgres import Database
from servicekit.principal import Principal
from servicekit.turns import SharedDatabase
from services.quota.domain import Committed, Override, Plan, Pool

_epoch: Final = date(1970, 1, 1)

_plans: Final = "SELECT tier, daily_limit, per_minute, burst FROM plans"

# Changes with every insert, update, delete and expiry, whoever makes them, and ships no rows.
_fingerprint: Final = """
SELECT count(*), coalesce(sum(hashtext(ctid::text || ' ' || xmin::text)), 0)
FROM user_plan_overrides WHERE expires_at IS NULL OR expires_at > now()
"""

_overrides: Final = """
SELECT user_id, pool, daily_limit, per_minute, burst
FROM user_plan_overrides WHERE expires_at IS NULL OR expires_at > now()
"""

_totals: Final = """
SELECT user_id, request_count FROM quota_usage
WHERE date = $1 AND user_id = ANY($2::uuid[])
"""

_by_key: Final = """
SELECT user_id, api_key_id, request_count FROM api_key_quota_usage
WHERE date = $1 AND user_id = ANY($2::uuid[])
"""

_own_key: Final = "SELECT daily_limit, per_minute FROM get_api_key_limits($1, $2)"


class QuotaStore:
    """Plans, overrides and what is committed. Raises `DatabaseUnavailable`.

    `callers` is for callers' reads about themselves: no charge waits behind it.
    """

    def __init__(self, database: Database, callers: SharedDatabase | None = None) -> None:
        self._database = database
        self._callers = callers or database

    async def plans(self) -> dict[str, Plan]:
        """Every plan, by tier."""
        return {
            row["tier"]: Plan(row["daily_limit"], row["per_minute"], row["burst"])
            for row in await self._database.fetch(_plans)
        }

    async def overrides_fingerprint(self) -> object:
        """Equal to an earlier one exactly when no override that holds has changed since."""
        row = await self._database.fetchrow(_fingerprint)
        return None if row is None else tuple(row)

    async def overrides(self) -> dict[str, dict[Pool, Override]]:
        """Every override that holds now, by user and pool."""
        found: dict[str, dict[Pool, Override]] = {}
        for row in await self._database.fetch(_overrides):
            pool = Pool.FREE if row["pool"] == Pool.FREE.plan else Pool.API_KEY
            own = Override(row["daily_limit"], row["per_minute"], row["burst"])
            found.setdefault(str(row["user_id"]), {})[pool] = own
        return found

    async def committed(self, day: int, users: Collection[str]) -> Mapping[str, Committed]:
        """What is committed for a day (days since 1970-01-01); users without a row are not in it.

        Both tables are written in one transaction, and read in one snapshot.
        """
        wanted = [UUID(user_id) for user_id in users]
        when = _epoch + timedelta(days=day)
        found: dict[str, Committed] = {}
        async with (
            self._database.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            totals = await connection.fetch(_totals, when, wanted)
            by_key = await connection.fetch(_by_key, when, wanted)
        for row in totals:
            found[str(row["user_id"])] = Committed(free=row["request_count"])
        for row in by_key:
            user = found.setdefault(str(row["user_id"]), Committed())
            user.by_key[row["api_key_id"].bytes] = row["request_count"]
            user.api_key += row["request_count"]
        for user in found.values():
            user.free = max(0, user.free - user.api_key)
        return found

    async def ever_used(self) -> bool:
        """Whether anything was ever committed: false only for a new installation."""
        return bool(await self._database.fetchval("SELECT EXISTS (SELECT FROM quota_usage)"))

    async def own_key_limits(self, principal: Principal) -> tuple[int, int]:
        """The day's and the minute's limit of the caller's own key; 0: none."""
        async with self._callers.as_user(principal) as connection:
            row = await connection.fetchrow(_own_key, principal.user_id, principal.api_key_id)
        return (0, 0) if row is None else (row["daily_limit"] or 0, row["per_minute"] or 0)
