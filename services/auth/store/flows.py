"""auth.flow_state: PKCE flows between a mailed link and the client that asked for it."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from services.auth.domain import FlowState
from services.auth.store import rows

if TYPE_CHECKING:
    from servicekit.postgres import Connection


class Flows:
    """Reads and changes PKCE flows."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def add(self, flow: FlowState, redirect_to: str) -> None:
        """A new flow, its link not yet followed."""
        await self._connection.execute(
            "INSERT INTO auth.flow_state (id, user_id, code_challenge, code_challenge_method,"
            " authentication_method, redirect_to, expires_at)"
            " VALUES ($1, $2, $3, $4, $5, nullif($6, ''), $7)",
            flow.id,
            flow.user_id,
            flow.pkce.challenge,
            flow.pkce.method,
            flow.method,
            redirect_to,
            flow.expires_at,
        )

    async def followed(self, flow_id: UUID, code_hash: str, now: datetime, expires_at: datetime) -> None:
        """The link was followed: from now until `expires_at` the code may be exchanged."""
        await self._connection.execute(
            "UPDATE auth.flow_state SET auth_code_hash = $2, auth_code_issued_at = $3, expires_at = $4"
            " WHERE id = $1",
            flow_id,
            code_hash,
            now,
            expires_at,
        )

    async def owner(self, code_hash: str) -> UUID | None:
        """Whose flow this code belongs to."""
        found: UUID | None = await self._connection.fetchval(
            "SELECT user_id FROM auth.flow_state WHERE auth_code_hash = $1", code_hash
        )
        return found

    async def by_code(self, code_hash: str) -> FlowState | None:
        """The flow that this code belongs to, locked."""
        row = await self._connection.fetchrow(
            "SELECT id, user_id, code_challenge, code_challenge_method, authentication_method, expires_at,"
            " used_at FROM auth.flow_state WHERE auth_code_hash = $1 FOR UPDATE",
            code_hash,
        )
        return None if row is None else rows.flow_state(row)

    async def use(self, flow_id: UUID, now: datetime) -> None:
        """Spend a flow."""
        await self._connection.execute("UPDATE auth.flow_state SET used_at = $2 WHERE id = $1", flow_id, now)

    async def drop(self, user_id: UUID, *, but: UUID | None = None) -> None:
        """End a user's flows, but one and those that a code of theirs still waits for."""
        await self._connection.execute(
            "DELETE FROM auth.flow_state f WHERE f.user_id = $1 AND f.id IS DISTINCT FROM $2"
            " AND NOT EXISTS (SELECT FROM auth.one_time_tokens t WHERE t.flow_state_id = f.id)",
            user_id,
            but,
        )

    async def sweep(self) -> None:
        """Flows that ended a day ago go."""
        await self._connection.execute(
            "DELETE FROM auth.flow_state WHERE expires_at < now() - interval '1 day'"
        )
