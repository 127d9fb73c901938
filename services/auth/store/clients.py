"""auth.known_clients: where accounts were signed in from, by keyed hash."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import TYPE_CHECKING, Final, Literal
from uuid import UUID

from services.auth.domain import REMEMBERED_DAYS

if TYPE_CHECKING:
    from servicekit.postgres import Connection

Kind = Literal["address", "device", "program"]
Mark = tuple[Kind, str]
"""One thing that a client is known by: what it is, and its hash."""

MOST: Final = 20
"""Of each kind that an account knows; the one that was not seen for longest leaves first."""


class Clients:
    """Reads and changes what accounts know of their clients."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def known(
        self, account: str | UUID, marks: Collection[Mark], *, days: int = REMEMBERED_DAYS
    ) -> set[Mark]:
        """Which of these an account (by its address or id) has seen within so many days; none for an account
        that does not exist.
        """
        whose = "u.id = $1" if isinstance(account, UUID) else "lower(u.email) = $1"
        found = await self._connection.fetch(
            "SELECT k.kind, k.hash FROM auth.known_clients k JOIN auth.users u ON u.id = k.user_id"  # noqa: S608  # constants
            f" WHERE {whose} AND k.hash = ANY($2) AND k.last_seen > now() - make_interval(days => $3)",
            account,
            [hashed for _, hashed in marks],
            days,
        )
        return {(row["kind"], row["hash"]) for row in found} & set(marks)

    async def any_of(self, user_id: UUID) -> bool:
        """Whether it knows any client."""
        return bool(
            await self._connection.fetchval(
                "SELECT EXISTS (SELECT FROM auth.known_clients WHERE user_id = $1)", user_id
            )
        )

    async def seen(self, user_id: UUID, mark: Mark, now: datetime) -> None:
        """Remember one, until it was not seen for `REMEMBERED_DAYS`."""
        kind, hashed = mark
        new = await self._connection.fetchval(
            "INSERT INTO auth.known_clients AS k (user_id, kind, hash, first_seen, last_seen)"
            " VALUES ($1, $2, $3, $4, $4)"
            " ON CONFLICT (user_id, kind, hash) DO UPDATE SET last_seen = excluded.last_seen"
            " RETURNING xmax = 0",
            user_id,
            kind,
            hashed,
            now,
        )
        if new:
            # A row that another sign-in is just writing is passed over: waiting for each other could last.
            await self._connection.execute(
                "DELETE FROM auth.known_clients WHERE user_id = $1 AND kind = $2 AND hash IN ("
                " SELECT hash FROM auth.known_clients WHERE user_id = $1 AND kind = $2"
                " ORDER BY last_seen DESC, hash OFFSET $3 FOR UPDATE SKIP LOCKED)",
                user_id,
                kind,
                MOST,
            )

    async def forget(self, user_id: UUID, *, but: Collection[Mark] = ()) -> None:
        """Every other caller is a stranger to the account from now on."""
        await self._connection.execute(
            "DELETE FROM auth.known_clients WHERE user_id = $1 AND NOT hash = ANY($2)",
            user_id,
            [hashed for _, hashed in but],
        )

    async def sweep(self) -> None:
        """What was not seen for so long goes."""
        await self._connection.execute(
            "DELETE FROM auth.known_clients WHERE last_seen < now() - make_interval(days => $1)",
            REMEMBERED_DAYS,
        )
