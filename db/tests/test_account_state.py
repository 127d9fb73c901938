"""One fact says whether an account may act, whatever wrote it, and everything that asks reads it."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest

from db.tests.support import User

if TYPE_CHECKING:
    from db.tests.support import Connect, Connection

HASHED = "SELECT api_key_id FROM validate_api_key($1)"
STATE = "SELECT account_state(u) FROM users u WHERE id = $1"
WAYS = {
    "banned": "UPDATE auth.users SET banned_until = now() + interval '1 hour' WHERE id = $1",
    "deactivated": "UPDATE users SET is_active = false WHERE id = $1",
    "unconfirmed": "UPDATE auth.users SET email_confirmed_at = NULL WHERE id = $1",
    "deleted": "UPDATE auth.users SET deleted_at = now() WHERE id = $1",
}
"""Statements by hand, as Supabase's dashboard and operators write them."""


async def state(admin: Connection, user: UUID) -> str:
    return str(await admin.fetchval(STATE, user))


@pytest.mark.parametrize("way", WAYS)
async def test_every_reader_of_the_fact_sees_a_change_by_hand(
    admin: Connection, connect: Connect, alice: User, bob: User, way: str
) -> None:
    """S12: of keys, limits, statistics, alerts and sessions, none has a switch of its own."""
    keys, quota, logger = [await connect(f"signgate_{name}") for name in ("keys", "quota", "logger")]
    alerts = "UPDATE quota_usage SET date = current_date, request_count = 100000"
    await admin.execute(alerts)
    await admin.execute("UPDATE quota_alerts SET mail = 'pending', next_attempt_at = '2001-01-01'")

    await admin.execute(WAYS[way], alice.id)

    assert await state(admin, alice.id) == way
    assert await state(admin, bob.id) == "active"
    assert await keys.fetchval(HASHED, alice.key_hash) is None
    assert await keys.fetchval(HASHED, bob.key_hash) == bob.key
    hashes = [alice.key_hash, bob.key_hash]
    rows = await keys.fetch("SELECT user_id, user_is_active FROM validate_api_keys($1)", hashes)
    assert {row["user_id"]: row["user_is_active"] for row in rows} == {alice.id: False, bob.id: True}
    rows = await keys.fetch("SELECT user_id, account_state FROM read_key_records($1)", [alice.key, bob.key])
    assert {row["user_id"]: row["account_state"] for row in rows} == {alice.id: way, bob.id: "active"}
    rows = await quota.fetch("SELECT user_id, is_active FROM get_user_limits($1)", [alice.id, bob.id])
    assert {(row["user_id"], row["is_active"]) for row in rows} == {(alice.id, False), (bob.id, True)}
    assert await logger.fetchval("SELECT active_api_keys FROM get_system_usage_stats()") == 1
    await logger.execute("SELECT raise_quota_alerts()")
    claimed = await logger.fetch("SELECT user_id FROM claim_quota_alerts(10, '1 hour')")
    assert {row["user_id"] for row in claimed} == {bob.id}
    ended = await admin.fetch("SELECT user_id FROM auth.sessions WHERE revoked_at IS NOT NULL")
    assert [row["user_id"] for row in ended] == [alice.id]


async def test_a_ban_ends_by_time_alone(admin: Connection, connect: Connect, alice: User) -> None:
    """Nothing has to happen for it: the fact is read against the clock."""
    keys = await connect("signgate_keys")
    ban = "UPDATE auth.users SET banned_until = now() + $2 * interval '1 second' WHERE id = $1"
    await admin.execute(ban, alice.id, 3600)
    assert await keys.fetchval(HASHED, alice.key_hash) is None
    # The same row an hour later, as far as a comparison with the clock can tell.
    await admin.execute("ALTER TABLE users DISABLE TRIGGER USER")
    await admin.execute("UPDATE users SET banned_until = now() - interval '1 microsecond'")
    assert await state(admin, alice.id) == "active"
    assert await keys.fetchval(HASHED, alice.key_hash) == alice.key


async def test_of_several_reasons_the_one_that_lasts_longest_is_told(admin: Connection, alice: User) -> None:
    order = ["deleted", "deactivated", "banned", "unconfirmed"]
    for chosen in product([True, False], repeat=4):
        await admin.execute(
            "UPDATE users SET is_active = true, banned_until = NULL, confirmed = true, deleted_at = NULL"
        )
        reasons = [name for name, is_so in zip(order, chosen, strict=True) if is_so]
        for name in reasons:
            await admin.execute(
                {
                    "deleted": "UPDATE users SET deleted_at = now()",
                    "deactivated": "UPDATE users SET is_active = false",
                    "banned": "UPDATE users SET banned_until = now() + interval '1 hour'",
                    "unconfirmed": "UPDATE users SET confirmed = false",
                }[name]
            )
        assert await state(admin, alice.id) == (reasons[0] if reasons else "active")


async def test_an_account_that_is_kept_elsewhere_may_act(admin: Connection) -> None:
    """It has no row in auth.users, so nothing says that it is unconfirmed. It can be banned here."""
    user = await admin.fetchval("INSERT INTO users (email) VALUES ('outside@example.com') RETURNING id")
    assert await state(admin, user) == "active"
    await admin.execute("UPDATE users SET banned_until = now() + interval '1 hour' WHERE id = $1", user)
    assert await state(admin, user) == "banned"


async def test_a_new_account_is_unconfirmed_until_its_address_is_proved(connect: Connect) -> None:
    auth = await connect("signgate_auth")
    user = await auth.fetchval("INSERT INTO auth.users (email) VALUES ('new@example.com') RETURNING id")
    assert await state(auth, user) == "unconfirmed"
    await auth.execute("UPDATE auth.users SET email_confirmed_at = now() WHERE id = $1", user)
    assert await state(auth, user) == "active"


async def test_a_soft_deletion_leaves_nothing_of_the_person(
    admin: Connection, connect: Connect, alice: User, bob: User
) -> None:
    """S31. By the catalog: what a hard deletion takes goes, but for sessions, which keep no address."""
    auth = await connect("signgate_auth")
    await admin.execute(
        "UPDATE auth.users SET encrypted_password = 'argon2', email_change = 'next@example.com',"
        ' raw_user_meta_data = \'{"name": "Alice"}\', raw_app_meta_data = \'{"note": "Alice"}\''
    )
    await admin.execute("UPDATE auth.sessions SET ip = '203.0.113.7', user_agent = 'Alice'' browser'")
    await admin.execute("UPDATE users SET display_name = 'Alice', last_login = now()")
    ended = "INSERT INTO api_keys (user_id, key_hash, name) VALUES ($1, 'ended', 'old') RETURNING id"
    ended_key = await admin.fetchval(ended, alice.id)
    await admin.execute(
        "UPDATE api_keys SET name = 'Alice at work', metadata = '{\"owner\": \"Alice\"}',"
        " external_id = 'alice-7', cidrs = '{203.0.113.7/32}' WHERE user_id = $1",
        alice.id,
    )
    await admin.execute("UPDATE api_keys SET is_active = false WHERE id = $1", ended_key)
    ended_at = await admin.fetchval("SELECT revoked_at FROM api_keys WHERE id = $1", ended_key)
    audit = await admin.fetchval("SELECT count(*) FROM key_audit WHERE api_key_id = $1", alice.key)
    kept = {"users", "api_keys", "key_audit", "usage_logs", "usage_hours", "usage_days", "quota_usage",
            "api_key_quota_usage", "user_plan_overrides", "auth.users", "auth.audit_log",
            "auth.sessions"}  # fmt: skip

    assert await auth.fetchval("SELECT auth.forget_user($1, 'gone@users.invalid')", alice.id)

    tables = await admin.fetch(
        "SELECT c.oid::regclass::text AS name,"
        " CASE WHEN c.relname = 'users' THEN 'id' ELSE 'user_id' END AS owner"
        " FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid"
        " WHERE c.relkind IN ('r', 'p') AND c.relnamespace IN ('public'::regnamespace, 'auth'::regnamespace)"
        " AND (a.attname = 'user_id' OR (c.relname = 'users' AND a.attname = 'id'))"
    )
    for table in tables:
        name, owner = table["name"], table["owner"]
        counts = {
            user.id: await admin.fetchval(f"SELECT count(*) FROM {name} WHERE {owner} = $1", user.id)
            for user in (alice, bob)
        }
        assert counts[bob.id] > 0, name
        assert bool(counts[alice.id]) is (name in kept), name
    whole = await admin.fetch(
        "SELECT to_jsonb(u)::text AS text FROM auth.users u WHERE id = $1"
        " UNION ALL SELECT to_jsonb(u)::text FROM users u WHERE id = $1"
        " UNION ALL SELECT to_jsonb(s)::text FROM auth.sessions s WHERE user_id = $1"
        " UNION ALL SELECT to_jsonb(k)::text FROM api_keys k WHERE user_id = $1"
        " UNION ALL SELECT to_jsonb(a)::text FROM key_audit a WHERE user_id = $1",
        alice.id,
    )
    assert len(whole) > 3 + 2
    for row in whole:
        for trace in ("alice", "Alice", "argon2", "next@", "203.0.113"):
            assert trace not in row["text"]
    assert await state(admin, alice.id) == "deleted"
    assert await admin.fetchval("SELECT revoked_at FROM api_keys WHERE id = $1", alice.key)
    assert await admin.fetchval("SELECT revoked_at FROM api_keys WHERE id = $1", ended_key) == ended_at
    trail = "SELECT count(*) FROM key_audit WHERE api_key_id = $1"
    assert await admin.fetchval(trail, alice.key) == audit + 1
    assert await admin.fetchval("SELECT name FROM api_keys WHERE id = $1", bob.key) != "deleted"
    # Once is enough; the address is free, and a hard deletion takes the rest.
    assert not await auth.fetchval("SELECT auth.forget_user($1, 'again@users.invalid')", alice.id)
    assert not await auth.fetchval("SELECT auth.forget_user($1, 'no@users.invalid')", uuid4())
    await auth.execute("INSERT INTO auth.users (email) VALUES ($1)", alice.email)
    await auth.execute("DELETE FROM auth.users WHERE id = $1", alice.id)
    assert await admin.fetchval("SELECT count(*) FROM api_keys WHERE user_id = $1", alice.id) == 0


async def test_tables_of_others_are_left_alone_by_a_soft_deletion(
    admin: Connection, connect: Connect, alice: User
) -> None:
    """A project's own tables may hang on auth.users; a soft deletion is not theirs to follow."""
    await admin.execute(
        "CREATE TABLE notes (user_id uuid REFERENCES auth.users (id) ON DELETE CASCADE);"
        " ALTER TABLE notes ENABLE ROW LEVEL SECURITY"
    )
    await admin.execute("INSERT INTO notes VALUES ($1)", alice.id)
    auth = await connect("signgate_auth")
    assert await auth.fetchval("SELECT auth.forget_user($1, 'gone@users.invalid')", alice.id)
    assert await admin.fetchval("SELECT count(*) FROM notes") == 1
