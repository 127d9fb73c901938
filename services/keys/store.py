"""The service's only SQL. Owners' work runs with their claims, by which row level security shows this
service their keys alone; the records of the hot path come by functions that only its login role may call.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import asyncpg

from servicekit.postgres import Database
from servicekit.principal import Principal
from servicekit.turns import SharedDatabase
from services.keys.domain import Draft, Event, Key, Page, PlanLimits, Record
from services.keys.errors import KeyIsRevoked, KeyIsRotated, KeyLimit, KeyNotFound, UserUnknown
from services.keys.service import Hashed

if TYPE_CHECKING:
    from servicekit.postgres import Connection

_columns: Final = """id, user_id, name, mode, prefix, last4, scopes, created_at, updated_at, last_used,
    expires_at, revoked_at, cidrs, daily_limit, per_minute, rotated_from, engine, grace_until"""

_get: Final = f"SELECT {_columns} FROM public.api_keys WHERE id = $1"  # noqa: S608  # constants only
_list: Final = f"""
    SELECT {_columns} FROM public.api_keys
    WHERE user_id = $1
      AND ($2::timestamptz IS NULL OR (created_at, id) < ($2, $3::uuid))
      AND ($4::timestamptz IS NULL
           OR (revoked_at IS NULL AND coalesce(least(expires_at, grace_until) > $4, true)))
    ORDER BY created_at DESC, id DESC LIMIT $5"""  # noqa: S608  # constants only
_create: Final = """
    SELECT public.create_api_key(
        p_user_id => $1, p_key_hash => $2, p_name => $3, p_id => $4, p_prefix => $5, p_last4 => $6,
        p_scopes => $7, p_mode => $8, p_expires_at => $9, p_cidrs => $10, p_daily_limit => $11,
        p_per_minute => $12, p_engine => $13, p_pepper_version => $14, p_max_active => $15)"""
_rotate: Final = "SELECT public.rotate_api_key($1, $2, $3, $4, $5, $6, $7, $8)"
_save: Final = f"""
    UPDATE public.api_keys
    SET name = $2, scopes = $3, expires_at = $4, cidrs = $5, daily_limit = $6, per_minute = $7, engine = $8
    WHERE id = $1 RETURNING {_columns}"""  # noqa: S608  # constants only
_revoke: Final = f"""
    UPDATE public.api_keys SET revoked_at = now(), is_active = false
    WHERE id = $1 AND revoked_at IS NULL RETURNING {_columns}"""  # noqa: S608  # constants only
_events: Final = """
    SELECT id, action, created_at, actor_kind, actor_id, changes, request_id FROM public.key_audit
    WHERE api_key_id = $1 AND ($2::timestamptz IS NULL OR (created_at, id) < ($2, $3::uuid))
    ORDER BY created_at DESC, id DESC LIMIT $4"""
_plan: Final = "SELECT daily_limit, per_minute FROM public.plans WHERE tier = 'api_key'"
_records: Final = """
    SELECT api_key_id, key_hash, user_id, tier, account_state, scopes, revoked_at,
           extract(epoch FROM least(expires_at, grace_until))::float8 AS ends_at,
           extract(epoch FROM banned_until)::float8 AS banned_until,
           cidrs, daily_limit, per_minute, engine, pepper_version
    FROM public.read_key_records($1)"""


class KeyStore:
    """Transactions as a user. See `service.Units`."""

    def __init__(self, database: Database | SharedDatabase) -> None:
        self._database = database

    @asynccontextmanager
    async def as_user(self, principal: Principal) -> AsyncIterator[KeyUnit]:
        """See `service.Units.as_user`."""
        async with self._database.as_user(principal) as connection:
            yield KeyUnit(connection, principal.user_id)


class KeyUnit:
    """See `service.Unit`."""

    def __init__(self, connection: Connection, user_id: UUID) -> None:
        self._connection = connection
        self._user_id = user_id

    async def plan(self) -> PlanLimits:
        """See `service.Unit.plan`."""
        row = await self._connection.fetchrow(_plan)
        if row is None:
            raise LookupError("the table plans has no row `api_key`")
        return PlanLimits(row["daily_limit"], row["per_minute"])

    async def get(self, key_id: UUID, *, for_change: bool = False) -> Key | None:
        """See `service.Unit.get`."""
        lock = " FOR NO KEY UPDATE" if for_change else ""
        row = await self._connection.fetchrow(_get + lock, key_id)
        return None if row is None else key_of(row)

    async def list(self, after: Page | None, size: int, working_at: datetime | None) -> Sequence[Key]:
        """See `service.Unit.list`."""
        at, key_id = (after.at, after.id) if after else (None, None)
        rows = await self._connection.fetch(_list, self._user_id, at, key_id, working_at, size)
        return [key_of(row) for row in rows]

    async def create(self, hashed: Hashed, draft: Draft, key_limit: int) -> Key:
        """See `service.Unit.create`."""
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
            )
        return await self._written(hashed.id)

    async def rotate(self, old: UUID, hashed: Hashed, grace_until: datetime) -> Key:
        """See `service.Unit.rotate`."""
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
        """See `service.Unit.save`."""
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
            )
        if row is None:
            raise KeyNotFound
        return key_of(row)

    async def revoke(self, key_id: UUID) -> Key:
        """See `service.Unit.revoke`."""
        row = await self._connection.fetchrow(_revoke, key_id)
        if row is None:
            raise KeyNotFound
        return key_of(row)

    async def events(self, key_id: UUID, after: Page | None, size: int) -> Sequence[Event]:
        """See `service.Unit.events`."""
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
            )
            for row in rows
        ]

    async def _written(self, key_id: UUID) -> Key:
        key = await self.get(key_id)
        if key is None:
            raise LookupError("a key that was just made is not there")
        return key


class RecordStore:
    """What validation reads and the re-pepper path writes, for all users, by functions alone."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, key_ids: Collection[UUID]) -> Mapping[UUID, Record]:
        """The records of those keys that exist, in one statement. Raises `Unavailable`."""
        rows = await self._database.fetch(_records, list(key_ids))
        return {row["api_key_id"]: record_of(row) for row in rows}

    async def repepper(self, key_id: UUID, old: bytes, new: bytes, version: int) -> bool:
        """Replace a hash if it is still the old one, under an older pepper. Raises `Unavailable`."""
        sql = "SELECT public.repepper_api_key($1, $2, $3, $4)"
        return bool(await self._database.fetchval(sql, key_id, old.hex(), new.hex(), version))

    async def pepper_versions(self) -> list[tuple[int, int, int]]:
        """Pepper version, keys under it, and how many of those still work. Oldest version first."""
        rows = await self._database.fetch("SELECT * FROM public.count_keys_by_pepper()")
        return [(row["pepper_version"], row["keys"], row["working"]) for row in rows]


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


_refusals: Final = {"SG001": KeyLimit, "SG002": KeyIsRevoked, "SG003": KeyIsRotated, "P0002": UserUnknown}


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
    )


def record_of(row: asyncpg.Record) -> Record:
    """A row of read_key_records()."""
    return Record(
        key_id=_uuid(row["api_key_id"]),
        user_id=_uuid(row["user_id"]),
        digest=_digest(row["key_hash"]),
        pepper_version=row["pepper_version"],
        revoked=row["revoked_at"] is not None,
        user_active=row["account_state"] == "active",
        tier=row["tier"],
        scopes=tuple(row["scopes"]),
        expires_at=row["ends_at"],
        networks=tuple(row["cidrs"]),
        daily_limit=row["daily_limit"] or 0,
        per_minute=row["per_minute"] or 0,
        engine=row["engine"] or "",
        user_state=row["account_state"],
        banned_until=row["banned_until"] if row["account_state"] == "banned" else None,
    )


def _digest(key_hash: str) -> bytes:
    """A stored hash. What is no hexadecimal text was written by other hands and matches no key."""
    try:
        return bytes.fromhex(key_hash)
    except ValueError:
        return b""


def _uuid(value: Any) -> UUID:
    # asyncpg's own UUID compares and hashes like the standard one, and is slower at both.
    return UUID(int=value.int)
