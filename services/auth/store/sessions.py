"""auth.sessions and the chain of refresh tokens of each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

from services.auth.domain import Aal, RefreshToken, Session
from services.auth.store import rows

if TYPE_CHECKING:
    from servicekit.postgres import Connection

LISTED: Final = 100
_columns: Final = (
    "id, user_id, created_at, aal, assurance_version, amr, refreshed_at, not_after, revoked_at, user_agent,"
    " host(ip) AS ip"
)


class Sessions:
    """Reads and changes sessions and their refresh tokens, which are known by their hashes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def add(self, session: Session) -> None:
        """A new session."""
        await self._connection.execute(
            "INSERT INTO auth.sessions (id, user_id, created_at, aal, amr, not_after, user_agent, ip)"
            " VALUES ($1, $2, $3, $4, $5, $6, nullif($7, ''), nullif($8, '')::inet)",
            session.id,
            session.user_id,
            session.created_at,
            session.aal,
            _amr(session.amr),
            session.not_after,
            session.user_agent[:256],
            session.ip,
        )

    async def get(self, session_id: UUID, *, lock: bool = False) -> Session | None:
        """One session, revoked or not; `lock` makes refreshes of it take turns."""
        row = await self._connection.fetchrow(
            f"SELECT {_columns} FROM auth.sessions WHERE id = $1{' FOR UPDATE' if lock else ''}",  # noqa: S608  # constants
            session_id,
        )
        return None if row is None else rows.session(row)

    async def of_user(self, user_id: UUID) -> list[Session]:
        """A user's sessions that were not revoked, newest first; at most `LISTED`."""
        found = await self._connection.fetch(
            f"SELECT {_columns} FROM auth.sessions WHERE user_id = $1 AND revoked_at IS NULL"  # noqa: S608  # constants
            " ORDER BY created_at DESC LIMIT $2",
            user_id,
            LISTED,
        )
        return [rows.session(row) for row in found]

    async def revoke(
        self,
        user_id: UUID,
        now: datetime,
        token_life: timedelta,
        *,
        only: UUID | None = None,
        but: UUID | None = None,
    ) -> list[UUID]:
        """End a user's sessions: all, `only` one, or all `but` one.

        Returns every session whose access tokens may still be alive, those that were ended before
        too: so that a caller whose write to the deny-set failed may simply ask again.
        """
        found = await self._connection.fetch(
            "UPDATE auth.sessions SET revoked_at = coalesce(revoked_at, $2), updated_at = $2"
            " WHERE user_id = $1 AND (revoked_at IS NULL OR revoked_at > $3)"
            " AND ($4::uuid IS NULL OR id = $4) AND ($5::uuid IS NULL OR id <> $5) RETURNING id",
            user_id,
            now,
            now - token_life,
            only,
            but,
        )
        return [row["id"] for row in found]

    async def undenied(self, oldest: datetime, count: int) -> list[UUID]:
        """Sessions that ended since, and that the deny-set was not told of; others' work is left to them."""
        found = await self._connection.fetch(
            "SELECT id FROM auth.sessions WHERE revoked_at > $1 AND denied_at IS NULL"
            " ORDER BY revoked_at LIMIT $2 FOR UPDATE SKIP LOCKED",
            oldest,
            count,
        )
        return [row["id"] for row in found]

    async def denied(self, session_ids: Sequence[UUID]) -> None:
        """Note that the deny-set was told of these."""
        if session_ids:
            await self._connection.execute(
                "UPDATE auth.sessions SET denied_at = now() WHERE id = ANY($1)", list(session_ids)
            )

    async def raise_to(
        self, session_id: UUID, aal: Aal, amr: Sequence[tuple[str, int]], factor: UUID | None
    ) -> int:
        """Raise a session's assurance by a factor or (`None`) a recovery code. Returns its new version."""
        version: int = await self._connection.fetchval(
            "UPDATE auth.sessions SET aal = $2, amr = $3, factor_id = $4,"
            " assurance_version = assurance_version + 1, updated_at = now()"
            " WHERE id = $1 RETURNING assurance_version",
            session_id,
            aal,
            _amr(amr),
            factor,
        )
        return version

    async def lower(self, user_id: UUID, factor_id: UUID | None, methods: Sequence[str]) -> list[Session]:
        """Lower a user's sessions that a factor had raised, or (`None`) all; proofs by these methods go.

        Returns the sessions as they are now.
        """
        found = await self._connection.fetch(
            "UPDATE auth.sessions SET aal = 'aal1', factor_id = NULL,"  # noqa: S608  # constants
            " amr = (SELECT coalesce(jsonb_agg(proof ORDER BY n), '[]')"
            " FROM jsonb_array_elements(amr) WITH ORDINALITY AS proofs (proof, n)"
            " WHERE proof ->> 'method' <> ALL($3)),"
            " assurance_version = assurance_version + 1, updated_at = now()"
            " WHERE user_id = $1 AND revoked_at IS NULL AND CASE WHEN $2::uuid IS NULL"
            " THEN aal = 'aal2' OR EXISTS (SELECT FROM jsonb_array_elements(amr) proof"
            " WHERE proof ->> 'method' = ANY($3))"
            f" ELSE aal = 'aal2' AND factor_id = $2 END RETURNING {_columns}",
            user_id,
            factor_id,
            list(methods),
        )
        return [rows.session(row) for row in found]

    async def prove(self, session_id: UUID, amr: Sequence[tuple[str, int]]) -> None:
        """Note a proof of identity that changes nothing else."""
        await self._connection.execute(
            "UPDATE auth.sessions SET amr = $2, updated_at = now() WHERE id = $1", session_id, _amr(amr)
        )

    async def refreshed(self, session_id: UUID, now: datetime) -> None:
        """Note that it was refreshed."""
        await self._connection.execute(
            "UPDATE auth.sessions SET refreshed_at = $2, updated_at = $2 WHERE id = $1", session_id, now
        )

    async def add_token(
        self, token_id: UUID, token_hash: str, session: Session, parent: UUID | None, now: datetime
    ) -> None:
        """A new refresh token, exchanged for `parent` unless it is the first."""
        await self._connection.execute(
            "INSERT INTO auth.refresh_tokens (id, token_hash, session_id, user_id, parent, created_at)"
            " VALUES ($1, $2, $3, $4, $5, $6)",
            token_id,
            token_hash,
            session.id,
            session.user_id,
            parent,
            now,
        )

    async def session_of_token(self, token_hash: str) -> UUID | None:
        """Whose token it is."""
        found: UUID | None = await self._connection.fetchval(
            "SELECT session_id FROM auth.refresh_tokens WHERE token_hash = $1", token_hash
        )
        return found

    async def token(self, token_hash: str) -> RefreshToken | None:
        """The token as it is once its session is locked."""
        row = await self._connection.fetchrow(
            "SELECT id, session_id, used_at, revoked_at FROM auth.refresh_tokens WHERE token_hash = $1",
            token_hash,
        )
        return None if row is None else rows.refresh_token(row)

    async def successor_used(self, token_id: UUID) -> bool:
        """Whether any token that this one was exchanged for has itself been exchanged."""
        return bool(
            await self._connection.fetchval(
                "SELECT EXISTS (SELECT FROM auth.refresh_tokens WHERE parent = $1 AND used_at IS NOT NULL)",
                token_id,
            )
        )

    async def revoke_successors(self, token_id: UUID, now: datetime) -> None:
        """Whoever shows one of them from now on is not who got this one's last answer."""
        await self._connection.execute(
            "UPDATE auth.refresh_tokens SET revoked_at = coalesce(revoked_at, $2) WHERE parent = $1",
            token_id,
            now,
        )

    async def use_token(self, token_id: UUID, now: datetime) -> None:
        """Note the first exchange of a token."""
        await self._connection.execute(
            "UPDATE auth.refresh_tokens SET used_at = coalesce(used_at, $2) WHERE id = $1", token_id, now
        )

    async def sweep(self) -> None:
        """Sessions that ended a month ago go, with their refresh tokens."""
        await self._connection.execute(
            "DELETE FROM auth.sessions WHERE revoked_at < now() - interval '30 days'"
            " OR not_after < now() - interval '30 days'"
        )


def _amr(amr: Sequence[tuple[str, int]]) -> str:
    return json.dumps([{"method": method, "timestamp": at} for method, at in amr])
