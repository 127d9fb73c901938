"""The SQL of alerts."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from uuid import UUID

from servicekit.postgres import Database
from servicekit.principal import Principal
from servicekit.turns import SharedDatabase
from services.logger.alerts.model import Alert, Due, Outcome, Wishes


class AlertStore:
    """Raises `DatabaseUnavailable`. What concerns one caller runs as that caller, on `callers`."""

    def __init__(self, database: Database, callers: SharedDatabase | None = None) -> None:
        self._database = database
        self._callers = callers or database

    async def wishes(self, caller: Principal) -> Wishes:
        """How the caller wants to be told."""
        async with self._callers.as_user(caller) as connection:
            row = await connection.fetchrow("SELECT * FROM get_alert_settings($1)", caller.user_id)
        return Wishes() if row is None else Wishes(row["mail"], row["webhook_url"] or "")

    async def wish(self, caller: Principal, wishes: Wishes, secret: str | None) -> None:
        """Replace them. A secret of `None` leaves the one there is."""
        async with self._callers.as_user(caller) as connection:
            await connection.execute(
                "SELECT set_alert_settings($1, $2, $3, $4)",
                caller.user_id,
                wishes.mail,
                wishes.webhook_url or None,
                secret,
            )

    async def latest(self, caller: Principal) -> list[Alert]:
        """Newest first, at most 100."""
        async with self._callers.as_user(caller) as connection:
            rows = await connection.fetch(
                "SELECT id, pool, date, threshold, used, daily_limit, created_at, mail, webhook"
                " FROM quota_alerts WHERE user_id = $1 ORDER BY created_at DESC, id DESC LIMIT 100",
                caller.user_id,
            )
        return [Alert(*row) for row in rows]

    async def make(self, users: Collection[UUID] | None) -> int:
        """Make what is due today, of these users or (`None`) of everybody; how many are new."""
        chosen = None if users is None else list(users)
        return int(await self._database.fetchval("SELECT raise_quota_alerts($1)", chosen))

    async def claim(self, count: int, hold: timedelta) -> list[Due]:
        """What is to be delivered now; nobody else gets it for `hold`."""
        return [
            Due(*row)
            for row in await self._database.fetch("SELECT * FROM claim_quota_alerts($1, $2)", count, hold)
        ]

    async def settle(self, due: Due, outcome: Outcome, wait: timedelta) -> None:
        """Note what came of it, and when to try again what is still pending."""
        await self._database.execute(
            "SELECT settle_quota_alert($1, $2, $3, $4)", due.id, outcome.mail, outcome.webhook, wait
        )

    async def postpone(self, due: Due, outcome: Outcome, wait: timedelta) -> None:
        """As `settle`, but the webhook was not tried: it is not counted as an attempt."""
        await self._database.execute("SELECT postpone_quota_alert($1, $2, $3)", due.id, outcome.mail, wait)
