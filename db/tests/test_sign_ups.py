"""Sign-ups that the previous version wrote into accounts, once none of its instances is left."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import asyncpg
import pytest

from servicekit.testing.postgres import Database

if TYPE_CHECKING:
    from db.tests.support import Connection

CONTRACTED = "20261201200002"
META = json.dumps({"name": "evil"})


async def account(
    sql: Connection, *, sign_up: bool = True, confirmed: bool = False, code: UUID | None = None
) -> UUID:
    """As the previous version leaves it; `sign_up`: its password came by a sign-up, not from an operator."""
    user = uuid4()
    await sql.execute(
        "INSERT INTO auth.users (id, email, encrypted_password, raw_user_meta_data, confirmation_sent_at,"
        " password_changed_at, email_confirmed_at) VALUES ($1, $2, 'hash', $3, now() - interval '1 day',"
        " now() - CASE WHEN $4 THEN interval '1 day' ELSE interval '1 hour' END,"
        " CASE WHEN $5 THEN now() END)",
        user,
        f"{user.hex}@example.com",
        META,
        sign_up,
        confirmed,
    )
    if code is not None:
        await sql.execute(
            "INSERT INTO auth.one_time_tokens (id, user_id, purpose, email, code_hash, expires_at)"
            " VALUES ($1, $2, 'signup', $3, 'digits', now() + interval '1 hour')",
            code,
            user,
            f"{user.hex}@example.com",
        )
    return user


async def moved(sql: Connection, user: UUID) -> tuple[asyncpg.Record, asyncpg.Record | None]:
    kept = await sql.fetchrow("SELECT * FROM auth.users WHERE id = $1", user)
    assert kept is not None
    return kept, await sql.fetchrow("SELECT * FROM auth.one_time_tokens WHERE user_id = $1", user)


@pytest.mark.parametrize("times", [1, 2])
async def test_unproved_sign_ups_move_to_their_codes(
    admin: Connection, database: Database, times: int
) -> None:
    """S8: with a live code, without one, and none that an operator or a proof stands behind."""
    code = uuid4()
    live, ended = await account(admin, code=code), await account(admin)
    operators, proved = await account(admin, sign_up=False), await account(admin, confirmed=True)
    for _ in range(times):
        database.execute(f"DELETE FROM schema_migrations WHERE version = '{CONTRACTED}'")
        database.migrate()

    user, row = await moved(admin, live)
    assert row is not None
    assert (user["encrypted_password"], user["raw_user_meta_data"]) == (None, "{}")
    assert (row["id"], row["pending_of"], row["code_hash"]) == (code, code, "digits")
    assert (row["pending_password"], json.loads(row["pending_metadata"])) == ("hash", {"name": "evil"})
    assert row["contested"] is False

    user, row = await moved(admin, ended)
    assert row is not None
    assert (user["encrypted_password"], row["pending_password"]) == (None, "hash")
    assert row["pending_of"] == row["id"]
    assert await admin.fetchval(
        "SELECT expires_at <= now() FROM auth.one_time_tokens WHERE user_id = $1", ended
    )

    for untouched in (operators, proved):
        user, row = await moved(admin, untouched)
        assert (user["encrypted_password"], json.loads(user["raw_user_meta_data"])) == (
            "hash",
            {"name": "evil"},
        )
        assert row is None


async def test_a_sign_up_over_another_one_is_contested(admin: Connection, database: Database) -> None:
    """The previous version replaced the code of a sign-up that was pending already."""
    user = await account(admin, code=uuid4())
    await admin.execute(
        "UPDATE auth.one_time_tokens SET pending_of = gen_random_uuid(), pending_password = 'another'"
        " WHERE user_id = $1",
        user,
    )
    database.execute(f"DELETE FROM schema_migrations WHERE version = '{CONTRACTED}'")
    database.migrate()
    _, row = await moved(admin, user)
    assert row is not None
    assert (row["pending_password"], row["contested"]) == ("hash", True)


async def test_each_half_of_an_e_mail_change_has_a_name(admin: Connection) -> None:
    user = await account(admin)
    for status in (0, 1, 2, 3):
        await admin.execute(
            "UPDATE auth.users SET email_change_confirm_status = $2 WHERE id = $1", user, status
        )
    with pytest.raises(asyncpg.CheckViolationError):
        await admin.execute("UPDATE auth.users SET email_change_confirm_status = 4 WHERE id = $1", user)
