"""auth.mfa_factors, auth.mfa_challenges and auth.mfa_recovery_codes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from asyncpg.exceptions import UniqueViolationError

from services.auth.errors import FactorNameConflict, PasskeyExists
from services.auth.second_factors import Challenge, Passkey, SecretFactor

if TYPE_CHECKING:
    from servicekit.postgres import Connection


class Factors:
    """Reads and changes second factors. Every reader names the user, so nobody's is found by id alone."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def add(
        self, factor_id: UUID, user_id: UUID, name: str, sealed: bytes | None, kind: str = "totp"
    ) -> None:
        """A new unverified factor; a passkey has no secret. Raises `FactorNameConflict`."""
        try:
            async with self._connection.transaction():
                await self._connection.execute(
                    "INSERT INTO auth.mfa_factors (id, user_id, friendly_name, factor_type, secret)"
                    " VALUES ($1, $2, $3, $5, $4)",
                    factor_id,
                    user_id,
                    name,
                    sealed,
                    kind,
                )
        except UniqueViolationError:
            raise FactorNameConflict from None

    async def get(self, factor_id: UUID, user_id: UUID) -> SecretFactor | None:
        """A user's factor, locked: concurrent tries take turns."""
        row = await self._connection.fetchrow(
            "SELECT id, user_id, factor_type, status, secret, last_used_step, credential_id, public_key,"
            " sign_count, transports FROM auth.mfa_factors WHERE id = $1 AND user_id = $2 FOR UPDATE",
            factor_id,
            user_id,
        )
        if row is None:
            return None
        return SecretFactor(
            row["id"],
            row["user_id"],
            row["factor_type"],
            row["status"],
            row["secret"] or b"",
            row["last_used_step"],
            _passkey(row),
        )

    async def passkeys(self, user_id: UUID) -> list[Passkey]:
        """The credentials of a user's passkeys."""
        found = await self._connection.fetch(
            "SELECT credential_id, public_key, sign_count, transports FROM auth.mfa_factors"
            " WHERE user_id = $1 AND credential_id IS NOT NULL",
            user_id,
        )
        return [passkey for passkey in map(_passkey, found) if passkey is not None]

    async def verified(self, factor_id: UUID, step: int) -> None:
        """A code of this time step was right: it and all before it count no more."""
        await self._connection.execute(
            "UPDATE auth.mfa_factors SET status = 'verified', last_used_step = $2, updated_at = now()"
            " WHERE id = $1",
            factor_id,
            step,
        )

    async def created(self, factor_id: UUID, passkey: Passkey) -> None:
        """A passkey was created: its factor counts. Raises `PasskeyExists`."""
        try:
            async with self._connection.transaction():
                await self._connection.execute(
                    "UPDATE auth.mfa_factors SET status = 'verified', credential_id = $2, public_key = $3,"
                    " sign_count = $4, transports = $5, updated_at = now() WHERE id = $1",
                    factor_id,
                    passkey.credential_id,
                    passkey.public_key,
                    passkey.sign_count,
                    list(passkey.transports),
                )
        except UniqueViolationError:
            raise PasskeyExists from None

    async def signed(self, factor_id: UUID, sign_count: int) -> None:
        """A passkey has signed; its counter is now this."""
        await self._connection.execute(
            "UPDATE auth.mfa_factors SET sign_count = $2, updated_at = now() WHERE id = $1",
            factor_id,
            sign_count,
        )

    async def remove(self, factor_id: UUID, user_id: UUID) -> None:
        """Delete a factor."""
        await self._connection.execute(
            "DELETE FROM auth.mfa_factors WHERE id = $1 AND user_id = $2", factor_id, user_id
        )

    async def drop_unverified(self, user_id: UUID, but: UUID | None = None) -> None:
        """Forget enrolments that were never proved, but one."""
        await self._connection.execute(
            "DELETE FROM auth.mfa_factors WHERE user_id = $1 AND status = 'unverified'"
            " AND id IS DISTINCT FROM $2",
            user_id,
            but,
        )

    async def challenge(
        self,
        challenge_id: UUID,
        factor_id: UUID,
        expires_at: datetime,
        ip: str,
        webauthn: bytes | None = None,
    ) -> None:
        """A new challenge; `webauthn`: what a passkey signs."""
        await self._connection.execute(
            "INSERT INTO auth.mfa_challenges (id, factor_id, expires_at, ip, webauthn)"
            " VALUES ($1, $2, $3, nullif($4, '')::inet, $5)",
            challenge_id,
            factor_id,
            expires_at,
            ip,
            webauthn,
        )

    async def challenged(self, challenge_id: UUID, factor_id: UUID) -> Challenge | None:
        """A factor's challenge, locked."""
        row = await self._connection.fetchrow(
            "SELECT id, factor_id, expires_at, verified_at, attempts, webauthn FROM auth.mfa_challenges"
            " WHERE id = $1 AND factor_id = $2 FOR UPDATE",
            challenge_id,
            factor_id,
        )
        return None if row is None else Challenge(**dict(row))

    async def missed(self, challenge_id: UUID, *, over: bool) -> None:
        """Count one wrong try; `over`: there is no other."""
        await self._connection.execute(
            "UPDATE auth.mfa_challenges SET attempts = CASE WHEN $2 THEN 5 ELSE least(attempts + 1, 5) END"
            " WHERE id = $1",
            challenge_id,
            over,
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

    async def recovery_state(self, user_id: UUID) -> tuple[int, int, datetime | None]:
        """How many recovery codes are left, how many there were, and when they were made."""
        row = await self._connection.fetchrow(
            "SELECT count(*) FILTER (WHERE used_at IS NULL) AS unused, count(*) AS made,"
            " min(created_at) AS since FROM auth.mfa_recovery_codes WHERE user_id = $1",
            user_id,
        )
        return (0, 0, None) if row is None else (row["unused"], row["made"], row["since"])

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


def _passkey(row: Any) -> Passkey | None:
    if row["credential_id"] is None:
        return None
    return Passkey(row["credential_id"], row["public_key"], row["sign_count"], tuple(row["transports"]))
