"""auth.one_time_tokens: what mails carry, by hash. One live code for each user and purpose."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final
from uuid import UUID

from services.auth.domain import NewCode, OneTimeToken, Purpose
from services.auth.store import rows

if TYPE_CHECKING:
    from servicekit.postgres import Connection

_columns: Final = (
    "id, user_id, purpose, email, code_hash, attempts, expires_at, used_at, redirect_to, flow_state_id"
)
_read: Final = f"{_columns}, known_attempts"


class Codes:
    """Reads and changes one-time codes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def put(self, code: NewCode) -> None:
        """Keep a code; it takes the place of the one before for that user and purpose."""
        await self._connection.execute(
            f"INSERT INTO auth.one_time_tokens (created_at, link_hash, {_columns})"  # noqa: S608  # constants
            " VALUES ($1, $2, $3, $4, $5, $6, $7, 0, $8, NULL, nullif($9, ''), $10)"
            " ON CONFLICT (user_id, purpose) DO UPDATE SET id = excluded.id, email = excluded.email,"
            " code_hash = excluded.code_hash, link_hash = excluded.link_hash, attempts = 0, used_at = NULL,"
            " known_attempts = 0,"
            " redirect_to = excluded.redirect_to, flow_state_id = excluded.flow_state_id,"
            " created_at = excluded.created_at, expires_at = excluded.expires_at",
            code.created_at,
            code.link_hash,
            code.id,
            code.user_id,
            code.purpose,
            code.email,
            code.code_hash,
            code.expires_at,
            code.redirect_to,
            code.flow_state_id,
        )

    async def sent_to(self, email: str, purposes: Sequence[Purpose]) -> list[OneTimeToken]:
        """The codes that went to an address, locked: concurrent tries of one code take turns."""
        found = await self._connection.fetch(
            f"SELECT {_read} FROM auth.one_time_tokens WHERE email = $1 AND purpose = ANY($2)"  # noqa: S608  # constants
            " ORDER BY created_at DESC FOR UPDATE",
            email,
            list(purposes),
        )
        return [rows.one_time_token(row) for row in found]

    async def of_user(self, user_id: UUID, purpose: Purpose) -> OneTimeToken | None:
        """A user's code for a purpose, locked."""
        row = await self._connection.fetchrow(
            f"SELECT {_read} FROM auth.one_time_tokens WHERE user_id = $1 AND purpose = $2 FOR UPDATE",  # noqa: S608  # constants
            user_id,
            purpose,
        )
        return None if row is None else rows.one_time_token(row)

    async def by_link(self, link_hash: str) -> OneTimeToken | None:
        """The code whose link this is, locked."""
        row = await self._connection.fetchrow(
            f"SELECT {_read} FROM auth.one_time_tokens WHERE link_hash = $1 FOR UPDATE",  # noqa: S608  # constants
            link_hash,
        )
        return None if row is None else rows.one_time_token(row)

    async def missed(self, ids: Sequence[UUID], *, known: bool = False) -> None:
        """Count one wrong try of each, by a client that the account knows or by a stranger."""
        column = "known_attempts" if known else "attempts"
        await self._connection.execute(
            f"UPDATE auth.one_time_tokens SET {column} = least({column} + 1, 5) WHERE id = ANY($1)",  # noqa: S608  # constants
            list(ids),
        )

    async def use(self, code_id: UUID, now: datetime) -> None:
        """Spend a code."""
        await self._connection.execute(
            "UPDATE auth.one_time_tokens SET used_at = $2 WHERE id = $1", code_id, now
        )

    async def drop(self, user_id: UUID, purposes: Sequence[Purpose]) -> None:
        """Forget a user's codes for these purposes."""
        await self._connection.execute(
            "DELETE FROM auth.one_time_tokens WHERE user_id = $1 AND purpose = ANY($2)",
            user_id,
            list(purposes),
        )

    async def sweep(self) -> None:
        """Codes that ended a day ago go."""
        await self._connection.execute(
            "DELETE FROM auth.one_time_tokens WHERE expires_at < now() - interval '1 day'"
        )
