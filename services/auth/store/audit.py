"""auth.audit_log: append-only; who did what to which account. Never an address, a code or a token."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from services.auth.domain import Client

if TYPE_CHECKING:
    from servicekit.postgres import Connection

ActorKind = Literal["user", "service_role", "system", "anonymous"]


class Audit:
    """Writes the audit log, in the transaction of what it tells of."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def add(
        self,
        action: str,
        user_id: UUID | None,
        client: Client,
        *,
        actor: ActorKind = "user",
        actor_id: UUID | None = None,
        **details: Any,
    ) -> None:
        """One line. Without `actor_id` a user acted on their own account."""
        await self._connection.execute(
            "INSERT INTO auth.audit_log"
            " (action, user_id, actor_kind, actor_id, ip, user_agent, request_id, details)"
            " VALUES ($1, $2, $3, $4, nullif($5, '')::inet, nullif($6, ''), nullif($7, ''), $8)",
            action,
            user_id,
            actor,
            actor_id or (user_id if actor == "user" else None),
            client.ip,
            client.user_agent[:256],
            client.request_id[:128],
            json.dumps(details),
        )
