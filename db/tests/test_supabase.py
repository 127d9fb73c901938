"""On a database that is Supabase's, all that is Supabase's stays as it was, and our tables work beside it."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from db.tests.support import acting, refused
from servicekit.testing.postgres import LOGIN_ROLES, Cluster, Database, bin_dir, postgres_cluster

STAND_IN = (Path(__file__).parent / "supabase.sql").read_text()
OURS = {
    "on_auth_user_created",
    "on_auth_user_email_changed",
    "on_auth_user_deleted",
    "on_auth_user_facts",
}
ROLES = "('anon', 'authenticated', 'service_role', 'authenticator', 'supabase_auth_admin', 'project_admin')"
ROLE_FACTS = f"SELECT string_agg(r::text, ';' ORDER BY rolname) FROM pg_roles r WHERE rolname IN {ROLES}"
# What the roles of Supabase may become; that a service may become `authenticated` is on the service's side.
MEMBERSHIPS = f"""
SELECT string_agg(format('%s>%s', member::regrole, roleid::regrole), ';' ORDER BY 1) FROM (
    SELECT DISTINCT member, roleid FROM pg_auth_members
    WHERE member::regrole::text IN {ROLES} AND roleid::regrole::text <> 'signgate_owner'
      AND roleid::regrole::text NOT LIKE 'signgate%'
) m
"""


@pytest.fixture(scope="module", params=["project_admin", "postgres"])
def migrator(request: pytest.FixtureRequest) -> str:
    """Supabase's own restricted administrator, or a superuser."""
    return str(request.param)


@pytest.fixture(scope="module")
def supabase(migrator: str) -> Iterator[tuple[Cluster, Database, dict[str, str]]]:
    """Migrated, with what it looked like before."""
    with postgres_cluster(migrated=False) as cluster:
        database = cluster.create_database("project", template="template1")
        database.execute(f"\\set database project\n{STAND_IN}")
        for role in ("project_admin", "supabase_auth_admin", "authenticator"):
            cluster.create_login(role)
        before = facts(database)
        database.migrate(migrator)
        for role in LOGIN_ROLES:
            cluster.create_login(role)
        yield cluster, database, before


def facts(database: Database) -> dict[str, str]:
    """The schema `auth` as pg_dump tells it, without our triggers; its rows; the roles."""
    dump = subprocess.run(  # noqa: S603
        [bin_dir() / "pg_dump", "--schema=auth", "--inserts", "--restrict-key=x", database.dsn()],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    lines = [line for line in dump.splitlines() if line and not line.startswith("--")]
    kept = [line for line in lines if not re.match(rf"CREATE TRIGGER ({'|'.join(OURS)}) ", line)]
    return {
        "auth": "\n".join(kept),
        "roles": database.execute(ROLE_FACTS),
        "memberships": database.execute(MEMBERSHIPS),
    }


async def test_nothing_of_supabases_was_changed(supabase: tuple[Cluster, Database, dict[str, str]]) -> None:
    _, database, before = supabase
    assert "CREATE TABLE auth.refresh_tokens" in before["auth"]
    assert facts(database) == before
    triggers = database.execute(
        "SELECT tgname FROM pg_trigger WHERE tgrelid = 'auth.users'::regclass AND NOT tgisinternal"
    )
    assert set(triggers.split()) == OURS


async def test_migrating_again_changes_nothing(
    supabase: tuple[Cluster, Database, dict[str, str]], migrator: str
) -> None:
    _, database, before = supabase
    database.migrate(migrator)
    database.execute("DELETE FROM schema_migrations")
    database.migrate(migrator)
    assert facts(database) == before


async def test_accounts_from_before_have_profiles(supabase: tuple[Cluster, Database, dict[str, str]]) -> None:
    """Also those without an address, and with the address of another (single sign-on)."""
    _, database, _ = supabase
    emails = database.execute("SELECT email FROM users WHERE id::text LIKE '00000000-%' ORDER BY id").split()
    number = "00000000-0000-4000-8000-00000000000"
    assert sorted(emails) == sorted(
        ["before@example.com", f"{number}2@users.invalid", f"{number}3@users.invalid"]
    )


async def test_the_triggers_follow_supabases_accounts(
    supabase: tuple[Cluster, Database, dict[str, str]],
) -> None:
    _, database, _ = supabase
    auth = await asyncpg.connect(database.dsn("supabase_auth_admin"))
    admin = await asyncpg.connect(database.dsn())
    profile = "SELECT email FROM users WHERE id = $1"
    first, second, phone = uuid4(), uuid4(), uuid4()
    try:
        for user, email in ((first, "new@example.com"), (second, "new@example.com"), (phone, None)):
            await auth.execute("INSERT INTO auth.users (id, email) VALUES ($1, $2)", user, email)
        assert await admin.fetchval(profile, first) == "new@example.com"
        assert await admin.fetchval(profile, second) == f"{second}@users.invalid"
        assert await admin.fetchval(profile, phone) == f"{phone}@users.invalid"
        await auth.execute("UPDATE auth.users SET email = 'newer@example.com' WHERE id = $1", first)
        assert await admin.fetchval(profile, first) == "newer@example.com"
        await auth.execute("DELETE FROM auth.users WHERE id = ANY ($1)", [first, second, phone])
        assert await admin.fetchval(profile, first) is None
    finally:
        await auth.close()
        await admin.close()


async def test_a_ban_at_supabase_stops_keys(supabase: tuple[Cluster, Database, dict[str, str]]) -> None:
    """S12: by the dashboard, which knows nothing of Signgate; and its other states."""
    _, database, _ = supabase
    auth = await asyncpg.connect(database.dsn("supabase_auth_admin"))
    admin = await asyncpg.connect(database.dsn())
    fact = "SELECT account_state(u) FROM users u WHERE id = $1"
    user, nameless = uuid4(), uuid4()
    try:
        await auth.execute("INSERT INTO auth.users (id, email) VALUES ($1, 'fact@example.com')", user)
        await auth.execute("INSERT INTO auth.users (id) VALUES ($1)", nameless)
        assert await admin.fetchval(fact, user) == "unconfirmed"
        assert await admin.fetchval(fact, nameless) == "active"  # anonymous: nothing to confirm
        for change, expected in (
            ("phone_confirmed_at = now()", "active"),
            ("email_confirmed_at = now()", "active"),
            ("banned_until = now() + interval '1 hour'", "banned"),
            ("banned_until = 'infinity'", "banned"),
            ("banned_until = now()", "active"),
            ("deleted_at = now()", "deleted"),
        ):
            await auth.execute(f"UPDATE auth.users SET {change} WHERE id = $1", user)
            assert await admin.fetchval(fact, user) == expected, change
    finally:
        await auth.execute("DELETE FROM auth.users WHERE id = ANY ($1)", [user, nameless])
        await auth.close()
        await admin.close()


async def test_users_and_services_work_beside_it(supabase: tuple[Cluster, Database, dict[str, str]]) -> None:
    """A Supabase user makes a key through Supabase's own interface; Signgate validates it and counts."""
    _, database, _ = supabase
    user, other = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"
    api = await asyncpg.connect(database.dsn("authenticator"))
    keys = await asyncpg.connect(database.dsn("signgate_keys"))
    logger = await asyncpg.connect(database.dsn("signgate_logger"))
    try:
        async with api.transaction():
            await api.execute("SET LOCAL ROLE authenticated")
            claims = json.dumps({"sub": user, "role": "authenticated"})
            await api.execute("SELECT set_config('request.jwt.claims', $1, true)", claims)
            key = await api.fetchval("SELECT create_api_key($1::text::uuid, 'hash-1', 'mine')", user)
            assert [str(row["id"]) for row in await api.fetch("SELECT id FROM users")] == [user]
            assert await refused(api, "SELECT create_api_key($1::text::uuid, 'hash-2', 'theirs')", other)
            assert await refused(
                api, "INSERT INTO usage_logs (room_url, success, response_time_ms) VALUES ('u', true, 1)"
            )
            assert await refused(api, "SELECT * FROM validate_api_keys(ARRAY['hash-1'])")
        [row] = await keys.fetch("SELECT * FROM validate_api_keys(ARRAY['hash-1', 'hash-2'])")
        assert (row["api_key_id"], str(row["user_id"]), row["tier"]) == (key, user, "api_key")
        await logger.execute(
            "SELECT ensure_usage_partitions(), log_api_usage($1, $2, 'u', true, 1, p_charged => 1)",
            row["user_id"],
            key,
        )
        async with acting(api, "authenticated", row["user_id"]):
            assert await api.fetchval("SELECT count(*) FROM usage_logs") == 1
            assert await api.fetchval("SELECT request_count FROM quota_usage") == 1
        async with acting(api, "anon"):
            assert await refused(api, "SELECT * FROM users")
    finally:
        for connection in (api, keys, logger):
            await connection.close()
