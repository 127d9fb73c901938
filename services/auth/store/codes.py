"""auth.one_time_tokens: what mails carry, by hash. One live code for each user and purpose.

With a code stands what an unproved party wants of the account (`Pending`). The account's lock comes before
a code's: see `Accounts.lock`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final
from uuid import UUID

from services.auth.domain import NewCode, OneTimeToken, Pending, Purpose
from services.auth.store import rows

if TYPE_CHECKING:
    from servicekit.postgres import Connection

_columns: Final = (
    "id, user_id, purpose, email, code_hash, attempts, expires_at, used_at, redirect_to, flow_state_id,"
    " pending_password, pending_metadata, contested, pending_of, known_attempts"
)
_read: Final = f"SELECT {_columns} FROM auth.one_time_tokens"  # noqa: S608  # constants


class Codes:
    """Reads and changes one-time codes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def put(self, code: NewCode) -> None:
        """Keep a code, with what is pending; it takes the place of the one before for user and purpose."""
        pending = code.pending
        await self._connection.execute(
            "INSERT INTO auth.one_time_tokens (created_at, link_hash, id, user_id, purpose, email, code_hash,"
            " expires_at, redirect_to, flow_state_id, pending_password, pending_metadata, contested,"
            " pending_of)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, nullif($9, ''), $10, $11, $12, $13, $14)"
            " ON CONFLICT (user_id, purpose) DO UPDATE SET id = excluded.id, email = excluded.email,"
            " code_hash = excluded.code_hash, link_hash = excluded.link_hash, attempts = 0, used_at = NULL,"
            " known_attempts = 0,"
            " redirect_to = excluded.redirect_to, flow_state_id = excluded.flow_state_id,"
            " created_at = excluded.created_at, expires_at = excluded.expires_at,"
            " pending_password = excluded.pending_password, pending_metadata = excluded.pending_metadata,"
            " contested = excluded.contested, pending_of = excluded.pending_of",
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
            pending.password_hash if pending else None,
            json.dumps(pending.metadata) if pending else None,
            pending.contested if pending else False,
            code.id if pending else None,
        )

    async def adopt(self, code_id: UUID, user_id: UUID, email: str, pending: Pending, now: datetime) -> None:
        """Keep a sign-up of the version before with its code; without one, with a code that has ended.

        One that was pending already becomes contested: that version has replaced its code.
        """
        await self._connection.execute(
            "INSERT INTO auth.one_time_tokens AS t (id, user_id, purpose, email, code_hash, created_at,"
            " expires_at, pending_password, pending_metadata, pending_of)"
            " VALUES ($1, $2, 'signup', $3, '', $4, $4, $5, $6, $1)"
            " ON CONFLICT (user_id, purpose) DO UPDATE SET contested = t.pending_of IS NOT NULL,"
            " pending_password = excluded.pending_password, pending_metadata = excluded.pending_metadata,"
            " pending_of = t.id",
            code_id,
            user_id,
            email,
            now,
            pending.password_hash,
            json.dumps(pending.metadata),
        )

    async def claim(self, email: str) -> str | None:
        """The hash of the password that an unconfirmed account has or would get; else nothing."""
        found: str | None = await self._connection.fetchval(
            "SELECT coalesce(u.encrypted_password, t.pending_password) FROM auth.users u"
            " LEFT JOIN auth.one_time_tokens t ON t.user_id = u.id AND t.purpose = 'signup'"
            " WHERE lower(u.email) = $1 AND u.email_confirmed_at IS NULL",
            email,
        )
        return found

    async def owners(self, email: str, purposes: Sequence[Purpose]) -> list[UUID]:
        """Whose codes went to an address."""
        found = await self._connection.fetch(
            "SELECT DISTINCT user_id FROM auth.one_time_tokens WHERE email = $1 AND purpose = ANY($2)",
            email,
            list(purposes),
        )
        return [row["user_id"] for row in found]

    async def sent_to(
        self, email: str, purposes: Sequence[Purpose], owners: Sequence[UUID]
    ) -> list[OneTimeToken]:
        """These owners' codes that went to an address, locked: concurrent tries of one code take turns."""
        found = await self._connection.fetch(
            f"{_read} WHERE email = $1 AND purpose = ANY($2) AND user_id = ANY($3)"
            " ORDER BY created_at DESC FOR UPDATE",
            email,
            list(purposes),
            list(owners),
        )
        return [rows.one_time_token(row) for row in found]

    async def of_user(self, user_id: UUID, purpose: Purpose) -> OneTimeToken | None:
        """A user's code for a purpose, locked."""
        row = await self._connection.fetchrow(
            f"{_read} WHERE user_id = $1 AND purpose = $2 FOR UPDATE", user_id, purpose
        )
        return None if row is None else rows.one_time_token(row)

    async def of_flow(self, flow_id: UUID) -> list[OneTimeToken]:
        """The codes, used or not, whose links belong to a PKCE flow, locked."""
        found = await self._connection.fetch(f"{_read} WHERE flow_state_id = $1 FOR UPDATE", flow_id)
        return [rows.one_time_token(row) for row in found]

    async def owner_of_link(self, link_hash: str) -> UUID | None:
        """Whose link it is."""
        found: UUID | None = await self._connection.fetchval(
            "SELECT user_id FROM auth.one_time_tokens WHERE link_hash = $1", link_hash
        )
        return found

    async def by_link(self, link_hash: str) -> OneTimeToken | None:
        """The code whose link this is, locked."""
        row = await self._connection.fetchrow(f"{_read} WHERE link_hash = $1 FOR UPDATE", link_hash)
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

    async def end_pending(self, user_id: UUID, *, but: UUID | None = None) -> None:
        """Forget what is pending with a user's codes, and the codes of sign-ups that were not used.

        `but` keeps what is pending with one code.
        """
        await self._connection.execute(
            "DELETE FROM auth.one_time_tokens WHERE user_id = $1 AND purpose = 'signup' AND used_at IS NULL",
            user_id,
        )
        await self._connection.execute(
            "UPDATE auth.one_time_tokens SET pending_password = NULL, pending_metadata = NULL,"
            " pending_of = NULL, contested = false"
            " WHERE user_id = $1 AND pending_of IS NOT NULL AND id IS DISTINCT FROM $2",
            user_id,
            but,
        )

    async def drop(self, user_id: UUID, purposes: Sequence[Purpose]) -> None:
        """Forget a user's codes for these purposes."""
        await self._connection.execute(
            "DELETE FROM auth.one_time_tokens WHERE user_id = $1 AND purpose = ANY($2)",
            user_id,
            list(purposes),
        )

    async def drop_all(self, user_id: UUID, *, but: Sequence[Purpose] = ()) -> None:
        """Forget all of a user's codes, but those for these purposes."""
        await self._connection.execute(
            "DELETE FROM auth.one_time_tokens WHERE user_id = $1 AND purpose <> ALL($2)", user_id, list(but)
        )

    async def sweep(self) -> None:
        """Codes that ended a day ago go. A pending sign-up stays until its address is proved: what its
        account's next code may do depends on it.
        """
        await self._connection.execute(
            "DELETE FROM auth.one_time_tokens t WHERE t.expires_at < now() - interval '1 day'"
            " AND NOT (t.purpose = 'signup' AND t.pending_of IS NOT NULL AND EXISTS"
            " (SELECT FROM auth.users u WHERE u.id = t.user_id AND u.email_confirmed_at IS NULL))"
        )
        # Their flows end all the same, and would take them along.
        await self._connection.execute(
            "UPDATE auth.one_time_tokens t SET flow_state_id = NULL FROM auth.flow_state f"
            " WHERE f.id = t.flow_state_id AND f.expires_at < now() - interval '1 day'"
        )
