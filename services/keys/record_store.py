"""SQL of validation and upkeep, for all users: by functions that only this service's login role may call."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final
from uuid import UUID

import asyncpg

from servicekit.postgres import Database
from services.keys.domain import Record
from services.keys.networks import plain

_records: Final = """
    SELECT api_key_id, key_hash, user_id, tier, account_state, scopes, revoked_at,
           extract(epoch FROM least(expires_at, grace_until))::float8 AS ends_at,
           extract(epoch FROM banned_until)::float8 AS banned_until,
           cidrs, daily_limit, per_minute, engine, pepper_version
    FROM public.read_key_records($1)"""


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

    async def drop_old_answers(self, at_most: int) -> int:
        """Delete answers whose 24 hours are over; how many there were. Raises `Unavailable`."""
        return int(await self._database.fetchval("SELECT public.drop_old_key_answers($1)", at_most))

    async def pepper_versions(self) -> list[tuple[int, int, int]]:
        """Pepper version, keys under it, and how many of those still work. Oldest version first."""
        rows = await self._database.fetch("SELECT * FROM public.count_keys_by_pepper()")
        return [(row["pepper_version"], row["keys"], row["working"]) for row in rows]


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
        networks=tuple(map(plain, row["cidrs"])),
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
