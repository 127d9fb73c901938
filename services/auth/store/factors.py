"""auth.mfa_factors, auth.mfa_challenges and auth.mfa_recovery_codes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from asyncpg.exceptions import UniqueViolationError

from services.auth.domain import Challenge, SecretFactor
from services.auth.errors import FactorNameConflict

if TYPE_CHECKING:
    from servicekit.postgres import Connection


class Factors:
    """Reads and changes second factors. Every reader names the user, so nobody's is found by id alone."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def add(self, factor_id: UUID, user_id: UUID, name: str, sealed: bytes) -> None:
        """A new unverified factor. Raises `FactorNameConflict`."""
        try:
            async with self._connection.transaction():
                await self._connection.execute(
                    "INSERT INTO auth.mfa_factors (id, user_id, friendly_name, factor_type, secret)"
                    " VALUES ($1, $2, $3, 'totp', $4)",
                    factor_id,
                    user_id,
                    name,
                    sealed,
                )
        except UniqueViolationError:
            raise FactorNameConflict from None

    async def get(self, factor_id: UUID, user_id: UUID) -> SecretFactor | None:
        """A user's factor, locked: concurrent tries take turns."""
        row = await self._connection.fetchrow(
            "SELECT id, user_id, status, secret, last_used_step FROM auth.mfa_factors"
            " WHERE id = $1 AND user_id = $2 FOR UPDATE",
            factor_id,
            user_id,
        )
        if row is None:
            return None
        return SecretFactor(row["id"], row["user_id"], row["status"], row["secret"], row["last_used_step"])

    async def verified(self, factor_id: UUID, step: int) -> None:
        """A code of this time step was right: it and all before it count no more."""
        await self._connection.execute(
            "UPDATE auth.mfa_factors SET status = 'verified', last_used_step = $2, updated_at = now()"
            " WHERE id = $1",
            factor_id,
            step,
        )

    async def remove(self, factor_id: UUID, user_id: UUID) -> None:
        """Delete a factor."""
        await self._connection.execute(
            "DELETE FROM auth.mfa_factors WHERE id = $1 AND user_id = $2", factor_id, user_id
        )

    async def drop_unverified(self, user_id: UUID, but: UUID) -> None:
        """Forget enrolments that were never proved."""
        await self._connection.execute(
            "DELETE FROM auth.mfa_factors WHERE user_id = $1 AND status = 'unverified' AND id <> $2",
            user_id,
            but,
        )

    async def challenge(self, challenge_id: UUID, factor_id: UUID, expires_at: datetime, ip: str) -> None:
        """A new challenge."""
        await self._connection.execute(
            "INSERT INTO auth.mfa_challenges (id, factor_id, expires_at, ip)"
            " VALUES ($1, $2, $3, nullif($4, '')::inet)",
            challenge_id,
            factor_id,
            expires_at,
            ip,
        )

    async def challenged(self, challenge_id: UUID, factor_id: UUID) -> Challenge | None:
        """A factor's challenge, locked."""
        row = await self._connection.fetchrow(
            "SELECT id, factor_id, expires_at, verified_at, attempts FROM auth.mfa_challenges"
            " WHERE id = $1 AND factor_id = $2 FOR UPDATE",
            challenge_id,
            factor_id,
        )
        return None if row is None else Challenge(**dict(row))

    async def missed(self, challenge_id: UUID) -> None:
        """Count one wrong try."""
        await self._connection.execute(
            "UPDATE auth.mfa_challenges SET attempts = least(attempts + 1, 5) WHERE id = $1", challenge_id
        )

    async def met(self, challenge_id: UUID, now: datetime) -> None:
        """The challenge was answered."""
        await self._connection.execute(
            "UPDATE auth.mfa_challenges SET verified_at = $2 WHERE id = $1", challenge_id, now
        )

    async def set_recovery_codes(self, user_id: UUID, ids: Sequence[UUID], hashes: Sequence[str]) -> None:
        """New recovery codes in place of all before."""
        await self._connection.execute("DELETE FROM auth.mfa_recovery_codes WHERE user_id = $1", user_id)
        await self._connection.executemany(
            "INSERT INTO auth.mfa_recovery_codes (id, user_id, code_hash) VALUES ($1, $2, $3)",
            [(code_id, user_id, code_hash) for code_id, code_hash in zip(ids, hashes, strict=True)],
        )

    async def drop_recovery_codes(self, user_id: UUID) -> None:
        """Forget them all: they protect nothing without a factor."""
        await self._connection.execute("DELETE FROM auth.mfa_recovery_codes WHERE user_id = $1", user_id)

    async def use_recovery_code(self, user_id: UUID, code_hash: str, now: datetime) -> int | None:
        """Spend a code; returns how many are left, `None` when it is not one or was spent."""
        spent = await self._connection.execute(
            "UPDATE auth.mfa_recovery_codes SET used_at = $3"
            " WHERE user_id = $1 AND code_hash = $2 AND used_at IS NULL",
            user_id,
            code_hash,
            now,
        )
        if spent != "UPDATE 1":
            return None
        left = await self._connection.fetchval(
            "SELECT count(*) FROM auth.mfa_recovery_codes WHERE user_id = $1 AND used_at IS NULL", user_id
        )
        return int(left)

    async def sweep(self) -> None:
        """Challenges that ended a day ago go, and enrolments nobody finished in a day."""
        await self._connection.execute(
            "DELETE FROM auth.mfa_challenges WHERE expires_at < now() - interval '1 day'"
        )
        await self._connection.execute(
            "DELETE FROM auth.mfa_factors WHERE status = 'unverified'"
            " AND created_at < now() - interval '1 day'"
        )
