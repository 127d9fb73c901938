"""auth.users, auth.identities, and what of public.users is this service's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from asyncpg.exceptions import UniqueViolationError

from services.auth.domain import AccountState, User, identity_data
from services.auth.errors import EmailExists
from services.auth.store import rows

if TYPE_CHECKING:
    from servicekit.postgres import Connection

_read: Final = f"SELECT {rows.USER_COLUMNS} FROM auth.users u JOIN public.users p ON p.id = u.id"  # noqa: S608  # constants

# Columns that use cases may set, by the name they use.
_columns: Final = {
    "email": "email",
    "created_at": "created_at",
    "role": "role",
    "password_hash": "encrypted_password",
    "password_changed_at": "password_changed_at",
    "email_confirmed_at": "email_confirmed_at",
    "confirmation_sent_at": "confirmation_sent_at",
    "recovery_sent_at": "recovery_sent_at",
    "reauthentication_sent_at": "reauthentication_sent_at",
    "invited_at": "invited_at",
    "new_email": "email_change",
    "email_half": "email_change_confirm_status",
    "email_change_sent_at": "email_change_sent_at",
    "last_sign_in_at": "last_sign_in_at",
    "banned_until": "banned_until",
    "user_metadata": "raw_user_meta_data",
    "app_metadata": "raw_app_meta_data",
}
_profile_columns: Final = {"tier": "tier", "is_active": "is_active"}


class Accounts:
    """Reads and changes accounts. Addresses are given in their normal form."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def by_id(self, user_id: UUID, *, lock: bool = False) -> User | None:
        """The account, if there is one; `lock` keeps others from changing it in this transaction."""
        return await self._one(f"{_read} WHERE u.id = $1{' FOR NO KEY UPDATE OF u' if lock else ''}", user_id)

    async def by_email(self, email: str, *, lock: bool = False) -> User | None:
        """As `by_id`, by the address."""
        return await self._one(
            f"{_read} WHERE lower(u.email) = $1{' FOR NO KEY UPDATE OF u' if lock else ''}", email
        )

    async def lock(self, user_ids: Sequence[UUID]) -> None:
        """Lock these accounts. To lock codes or flows as well, lock their accounts first."""
        await self._connection.execute(
            "SELECT FROM auth.users WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE", list(user_ids)
        )

    async def page(
        self, offset: int, size: int, part: str, state: AccountState | None
    ) -> tuple[list[User], int]:
        """Accounts, newest first, whose address contains `part`, and how many there are in all.

        Only those in a state; `None`: all but those that were deleted softly.
        """
        pattern = "%" + part.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_").lower() + "%"
        which = (
            "($1 = '%%' OR lower(u.email) LIKE $1) AND CASE WHEN $2::text IS NULL THEN p.deleted_at IS NULL"
            " ELSE public.account_state(p) = $2 END"
        )
        found = await self._connection.fetch(
            f"{_read} WHERE {which} ORDER BY u.created_at DESC, u.id DESC OFFSET $3 LIMIT $4",
            pattern,
            state,
            offset,
            size,
        )
        total = await self._connection.fetchval(
            f"SELECT count(*) FROM auth.users u JOIN public.users p ON p.id = u.id WHERE {which}",  # noqa: S608  # constants
            pattern,
            state,
        )
        return [rows.user(row) for row in found], int(total)

    async def add(self, user_id: UUID, email: str, identity_id: UUID, **values: Any) -> User:
        """A new account with its e-mail identity; `values` as for `change`. Raises `EmailExists`.

        The profile in public.users is made by a trigger.
        """
        names, given = _assigned({"email": email, **values}, _columns)
        marks = ", ".join(f"${n + 2}" for n in range(len(given)))
        try:
            # A savepoint: after a violation the transaction goes on.
            async with self._connection.transaction():
                await self._connection.execute(
                    f"INSERT INTO auth.users (id, {', '.join(names)}) VALUES ($1, {marks})",  # noqa: S608  # our names
                    user_id,
                    *given,
                )
        except UniqueViolationError:
            raise EmailExists from None
        await self._connection.execute(
            "INSERT INTO auth.identities (id, user_id, provider, provider_id, identity_data)"
            " VALUES ($1, $2::uuid, 'email', $2::uuid::text, $3)",
            identity_id,
            user_id,
            json.dumps(identity_data(user_id, email, verified=bool(values.get("email_confirmed_at")))),
        )
        return await self.get(user_id)

    async def change(self, user_id: UUID, **values: Any) -> None:
        """Set these members of the account. Raises `EmailExists` for an address that another has."""
        names, given = _assigned(values, _columns)
        if names:
            pairs = "".join(f"{name} = ${n + 2}, " for n, name in enumerate(names))
            try:
                async with self._connection.transaction():
                    await self._connection.execute(
                        f"UPDATE auth.users SET {pairs}updated_at = now() WHERE id = $1",  # noqa: S608  # our names
                        user_id,
                        *given,
                    )
            except UniqueViolationError:
                raise EmailExists from None
        names, given = _assigned(values, _profile_columns)
        if names:
            pairs = ", ".join(f"{name} = ${n + 2}" for n, name in enumerate(names))
            await self._connection.execute(
                f"UPDATE public.users SET {pairs} WHERE id = $1",  # noqa: S608  # our names
                user_id,
                *given,
            )
        if values.keys() & {"email", "email_confirmed_at"}:
            await self._refresh_identity(user_id)

    async def get(self, user_id: UUID) -> User:
        """The account as it is now in this transaction. Raises `LookupError`."""
        found = await self.by_id(user_id)
        if found is None:
            raise LookupError("the account has gone")
        return found

    async def signed_in(self, user_id: UUID) -> None:
        """Record a login, in public.users by the function of the schema, and on the identity."""
        await self._connection.execute("SELECT public.update_user_last_login($1)", user_id)
        await self._connection.execute("UPDATE auth.users SET last_sign_in_at = now() WHERE id = $1", user_id)
        await self._connection.execute(
            "UPDATE auth.identities SET last_sign_in_at = now() WHERE user_id = $1 AND provider = 'email'",
            user_id,
        )

    async def remove(self, user_id: UUID) -> bool:
        """Delete the account; its keys, sessions and factors go with it. False when there was none."""
        return await self._connection.execute("DELETE FROM auth.users WHERE id = $1", user_id) == "DELETE 1"

    async def forget(self, user_id: UUID, email: str) -> None:
        """Delete the account softly: of the person nothing stays, and the address becomes this one."""
        await self._connection.execute("SELECT auth.forget_user($1, $2)", user_id, email)

    async def _refresh_identity(self, user_id: UUID) -> None:
        user = await self.get(user_id)
        await self._connection.execute(
            "UPDATE auth.identities SET identity_data = $2, updated_at = now()"
            " WHERE user_id = $1 AND provider = 'email'",
            user_id,
            json.dumps(identity_data(user_id, user.email, verified=user.confirmed)),
        )

    async def _one(self, sql: str, *args: object) -> User | None:
        row = await self._connection.fetchrow(sql, *args)
        return None if row is None else rows.user(row)


def _assigned(values: dict[str, Any], columns: dict[str, str]) -> tuple[list[str], list[Any]]:
    if unknown := values.keys() - _columns.keys() - _profile_columns.keys():
        raise TypeError(f"no such members of an account: {sorted(unknown)}")
    named = {columns[name]: value for name, value in values.items() if name in columns}
    if (half := named.get("email_change_confirm_status")) is not None:
        named["email_change_confirm_status"] = rows.HALVES[half]
    elif "email_change_confirm_status" in named:
        named["email_change_confirm_status"] = 0
    return list(named), [json.dumps(v) if isinstance(v, dict) else v for v in named.values()]
