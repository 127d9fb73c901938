"""SQL of owners' and operators' work. It runs with the claims of one user, by which row level security shows
this service that user's keys alone. `record_store` has the rest of the service's SQL.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Final
from uuid import UUID

import asyncpg

from servicekit.postgres import Database
from servicekit.principal import Principal
from servicekit.turns import SharedDatabase
from services.keys.domain import Draft, Event, Key, Page, PlanLimits
from services.keys.errors import (
    KeyIsExpired,
    KeyIsRevoked,
    KeyIsRotated,
    KeyLimit,
    KeyNotFound,
    UserUnknown,
)
from services.keys.metadata import Pairs, pairs_of
from services.keys.ports import Hashed
from services.keys.search import Search

if TYPE_CHECKING:
    from servicekit.postgres import Connection

_columns: Final = """id, user_id, name, mode, prefix, last4, scopes, created_at, updated_at, last_used,
    expires_at, revoked_at, cidrs, daily_limit, per_minute, rotated_from, engine, grace_until,
    metadata, external_id"""

_get: Final = f"SELECT {_columns} FROM public.api_keys WHERE id = $1"  # noqa: S608  # constants only
_list: Final = f"""
    SELECT {_columns} FROM public.api_keys
    WHERE user_id = $1
      AND ($2::timestamptz IS NULL OR (created_at, id) < ($2, $3::uuid))
      AND ($4::timestamptz IS NULL
           OR (revoked_at IS NULL AND coalesce(least(expires_at, grace_until) > $4, true)))
      AND ($6 = '' OR external_id = $6)
      AND ($7 = '{{}}'::jsonb OR metadata @> $7::jsonb)
      AND ($8 = '' OR strpos(lower(name), lower($8)) > 0)
    ORDER BY created_at DESC, id DESC LIMIT $5"""  # noqa: S608  # constants only
_get_all: Final = f"""
    SELECT {_columns} FROM public.api_keys WHERE id = ANY ($1::uuid[])
    ORDER BY array_position($1::uuid[], id)"""  # noqa: S608  # constants only
_create: Final = """
    SELECT public.create_api_key(
        p_user_id => $1, p_key_hash => $2, p_name => $3, p_id => $4, p_prefix => $5, p_last4 => $6,
        p_scopes => $7, p_mode => $8, p_expires_at => $9, p_cidrs => $10, p_daily_limit => $11,
        p_per_minute => $12, p_engine => $13, p_pepper_version => $14, p_max_active => $15,
        p_metadata => $16, p_external_id => $17)"""
_rotate: Final = "SELECT public.rotate_api_key($1, $2, $3, $4, $5, $6, $7, $8)"
_save: Final = f"""
    UPDATE public.api_keys
    SET name = $2, scopes = $3, expires_at = $4, cidrs = $5, daily_limit = $6, per_minute = $7, engine = $8,
        metadata = $9, external_id = $10
    WHERE id = $1 RETURNING {_columns}"""  # noqa: S608  # constants only
_revoke: Final = f"""
    UPDATE public.api_keys SET revoked_at = now(), is_active = false
    WHERE id = $1 AND revoked_at IS NULL RETURNING {_columns}"""  # noqa: S608  # constants only
_events: Final = """
    SELECT id, action, created_at, actor_kind, actor_id, changes, request_id, reason FROM public.key_audit
    WHERE api_key_id = $1 AND ($2::timestamptz IS NULL OR (created_at, id) < ($2, $3::uuid))
    ORDER BY created_at DESC, id DESC LIMIT $4"""
_plan: Final = "SELECT daily_limit, per_minute FROM public.plans WHERE tier = 'api_key'"


class KeyStore:
    """Transactions about one user's keys. See `ports.Units`."""

    def __init__(self, database: Database | SharedDatabase) -> None:
        self._database = database
        # Operators do not wait for their turn behind the calls of the user whose keys they end.
        self._whole = database.database if isinstance(database, SharedDatabase) else database

    @asynccontextmanager
    async def as_user(self, principal: Principal) -> AsyncIterator[KeyUnit]:
        """See `ports.Units.as_user`."""
        async with self._database.as_user(principal) as connection:
            yield KeyUnit(connection, principal.user_id)

    @asynccontextmanager
    async def as_operator(self, operator: Principal, user_id: UUID, reason: str) -> AsyncIterator[KeyUnit]:
        """See `ports.Units.as_operator`. Row level security sees the user; the audit trail the operator."""
        async with self._whole.as_user(Principal(user_id=user_id)) as connection:
            await connection.execute(
                "SELECT set_config('signgate.operator', $1, true), set_config('signgate.reason', $2, true)",
                str(operator.user_id),
                reason,
            )
            yield KeyUnit(connection, user_id)


class KeyUnit:
    """See `ports.Unit`."""

    def __init__(self, connection: Connection, user_id: UUID) -> None:
        self._connection = connection
        self._user_id = user_id

    async def user_exists(self) -> bool:
        """See `ports.Unit.user_exists`."""
        return bool(await self._connection.fetchval("SELECT public.user_exists($1)", self._user_id))

    async def plan(self) -> PlanLimits:
        """See `ports.Unit.plan`."""
        row = await self._connection.fetchrow(_plan)
        if row is None:
            raise LookupError("the table plans has no row `api_key`")
        return PlanLimits(row["daily_limit"], row["per_minute"])

    async def lock_user(self) -> None:
        """See `ports.Unit.lock_user`."""
        if not await self._connection.fetchval("SELECT public.lock_key_owner($1)", self._user_id):
            raise UserUnknown

    async def get(self, key_id: UUID, *, for_change: bool = False) -> Key | None:
        """See `ports.Unit.get`."""
        lock = " FOR NO KEY UPDATE" if for_change else ""
        row = await self._connection.fetchrow(_get + lock, key_id)
        return None if row is None else key_of(row)

    async def get_all(self, key_ids: Sequence[UUID]) -> Sequence[Key]:
        """See `ports.Unit.get_all`."""
        return [key_of(row) for row in await self._connection.fetch(_get_all, key_ids)]

    async def list(
        self, search: Search, after: Page | None, size: int, working_at: datetime | None
    ) -> Sequence[Key]:
        """See `ports.Unit.list`."""
        at, key_id = (after.at, after.id) if after else (None, None)
        rows = await self._connection.fetch(
            _list,
            self._user_id,
            at,
            key_id,
            working_at,
            size,
            search.external_id,
            _json(search.metadata),
            search.name_contains,
        )
        return [key_of(row) for row in rows]

    async def create(self, hashed: Hashed, draft: Draft, key_limit: int) -> Key:
        """See `ports.Unit.create`."""
        with refusals():
            await self._connection.execute(
                _create,
                self._user_id,
                hashed.key_hash.hex(),
                draft.name,
                hashed.id,
                hashed.prefix,
                hashed.last4,
                draft.scopes,
                draft.mode,
                draft.expires_at,
                draft.allowed_cidrs,
                draft.daily_limit,
                draft.per_minute,
                draft.engine or None,
                hashed.pepper_version,
                key_limit,
                _json(draft.metadata),
                draft.external_id or None,
            )
        return await self._written(hashed.id)

    async def rotate(self, old: UUID, hashed: Hashed, grace_until: datetime) -> Key:
        """See `ports.Unit.rotate`."""
        with refusals():
            await self._connection.execute(
                _rotate,
                self._user_id,
                old,
                hashed.id,
                hashed.key_hash.hex(),
                hashed.prefix,
                hashed.last4,
                hashed.pepper_version,
                grace_until,
            )
        return await self._written(hashed.id)

    async def save(self, key: Key) -> Key:
        """See `ports.Unit.save`."""
        with refusals():
            row = await self._connection.fetchrow(
                _save,
                key.id,
                key.name,
                key.scopes,
                key.expires_at,
                key.allowed_cidrs,
                key.daily_limit,
                key.per_minute,
                key.engine or None,
                _json(key.metadata),
                key.external_id or None,
            )
        if row is None:
            raise KeyNotFound
        return key_of(row)

    async def revoke(self, key_id: UUID) -> Key:
        """See `ports.Unit.revoke`."""
        row = await self._connection.fetchrow(_revoke, key_id)
        if row is None:
            raise KeyNotFound
        return key_of(row)

    async def revoke_all(self, but: UUID | None) -> Sequence[UUID]:
        """See `ports.Unit.revoke_all`."""
        with refusals():
            rows = await self._connection.fetch(
                "SELECT public.revoke_api_keys($1, $2) AS id", self._user_id, but
            )
        return [row["id"] for row in rows]

    async def answer(self, lookups: Sequence[bytes]) -> tuple[bytes, bytes] | None:
        """See `ports.Unit.answer`."""
        with refusals():
            row = await self._connection.fetchrow(
                "SELECT lookup, sealed FROM public.find_key_answer($1, $2)", self._user_id, lookups
            )
        return None if row is None else (row["lookup"], row["sealed"])

    async def keep_answer(self, lookup: bytes, sealed: bytes) -> None:
        """See `ports.Unit.keep_answer`."""
        await self._connection.execute(
            "SELECT public.keep_key_answer($1, $2, $3)", self._user_id, lookup, sealed
        )

    async def events(self, key_id: UUID, after: Page | None, size: int) -> Sequence[Event]:
        """See `ports.Unit.events`."""
        at, event_id = (after.at, after.id) if after else (None, None)
        rows = await self._connection.fetch(_events, key_id, at, event_id, size)
        return [
            Event(
                row["id"],
                row["action"],
                row["created_at"],
                row["actor_kind"],
                row["actor_id"],
                row["changes"],
                row["request_id"] or "",
                row["reason"] or "",
            )
            for row in rows
        ]

    async def _written(self, key_id: UUID) -> Key:
        key = await self.get(key_id)
        if key is None:
            raise LookupError("a key that was just made is not there")
        return key


@contextmanager
def refusals() -> Iterator[None]:
    """The schema's own refusals as the service's errors."""
    try:
        yield
    except asyncpg.PostgresError as error:
        known = _refusals.get(error.sqlstate or "")
        if known is None:
            raise
        raise known from None


_refusals: Final = {
    "SG001": KeyLimit,
    "SG002": KeyIsRevoked,
    "SG003": KeyIsRotated,
    "SG004": KeyIsExpired,
    "P0002": UserUnknown,
}


def key_of(row: asyncpg.Record) -> Key:
    """A row of api_keys as its owner sees it."""
    return Key(
        id=row["id"],
        user_id=row["user_id"],
        name=row["name"],
        mode=row["mode"],
        masked=f"{row['prefix']}…{row['last4']}",
        scopes=tuple(row["scopes"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        last_used=row["last_used"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        allowed_cidrs=tuple(map(str, row["cidrs"])),
        daily_limit=row["daily_limit"],
        per_minute=row["per_minute"],
        rotated_from=row["rotated_from"],
        engine=row["engine"] or "",
        grace_until=row["grace_until"],
        metadata=pairs_of(json.loads(row["metadata"])),
        external_id=row["external_id"] or "",
    )


def _json(pairs: Pairs) -> str:
    return json.dumps(dict(pairs))
