"""No role reaches another user's rows. Tables come from the catalog, so a new one can't be forgotten."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg
import pytest
import pytest_asyncio

from db.tests.support import LOGINS, User, acting, for_caller, refused

if TYPE_CHECKING:
    from db.tests.support import Connect, Connection

TABLES = """
SELECT c.oid::regclass::text AS name, n.nspname AS schema, c.relname, c.relrowsecurity, c.relforcerowsecurity,
       (SELECT a.attname FROM pg_attribute a
        WHERE a.attrelid = c.oid AND (a.attname = 'user_id' OR (a.attname = 'id' AND c.relname = 'users'))
        ORDER BY a.attname DESC LIMIT 1) AS owner
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'f', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
ORDER BY 1
"""
# A role, and every role that it is a member of. Whether a membership is inherited or has to be taken by SET
# ROLE makes no difference to who has taken the service.
MAY_BE = """
WITH RECURSIVE may_be (m) AS (
    SELECT $1::text::regrole::oid
    UNION SELECT a.roleid FROM pg_auth_members a JOIN may_be ON a.member = may_be.m
)
"""
# Everybody may read these; no row of them belongs to anyone.
SHARED = {"plans"}
BOOKKEEPING = {"schema_migrations"}  # dbmate's
KEY_COLUMNS = """id, user_id, name, created_at, last_used, is_active, prefix, last4, scopes, mode, expires_at,
    revoked_at, cidrs, daily_limit, per_minute, engine, rotated_from, grace_until, updated_at, metadata,
    external_id"""
# Where a role may read some columns only: which.
COLUMNS = {
    ("api_keys", "signgate_keys"): KEY_COLUMNS,
    ("plans", "signgate_keys"): "tier, daily_limit, per_minute",
}

S, U, SU = {"SELECT"}, {"UPDATE"}, {"SELECT", "UPDATE"}
ALL = {"SELECT", "INSERT", "UPDATE", "DELETE"}
# What each role may do with each table, on the whole or on some columns. A grant more or less fails.
PRIVILEGES: dict[str, dict[str, set[str]]] = {
    "plans": {"anon": S, "authenticated": S, "service_role": ALL, "signgate_quota": S, "signgate_keys": S},
    "users": {"authenticated": SU, "service_role": ALL, "signgate_auth": SU},
    "api_keys": {"authenticated": SU, "service_role": ALL, "signgate_keys": SU},
    "key_audit": {"authenticated": S, "service_role": S, "signgate_keys": S},
    "usage_logs": {"authenticated": S, "service_role": ALL, "signgate_logger": S},
    "quota_alerts": {"authenticated": S, "service_role": ALL, "signgate_logger": S},
    "alert_settings": {},
    "key_answers": {},
    "usage_hours": {"authenticated": S, "service_role": ALL},
    "usage_days": {"authenticated": S, "service_role": ALL},
    "quota_usage": {"authenticated": S, "service_role": ALL, "signgate_quota": S},
    "api_key_quota_usage": {"authenticated": S, "service_role": ALL, "signgate_quota": S},
    "user_plan_overrides": {"authenticated": S, "service_role": ALL, "signgate_quota": S},
    "schema_migrations": {},
    "auth.audit_log": {"signgate_auth": {"SELECT", "INSERT"}},
    **{
        f"auth.{name}": {"signgate_auth": ALL}
        for name in (
            *("users", "identities", "sessions", "refresh_tokens", "one_time_tokens", "flow_state"),
            *("mfa_factors", "mfa_challenges", "mfa_recovery_codes"),
            "known_clients",
        )
    },
}


@dataclass(frozen=True)
class Table:
    name: str
    owner: str | None

    def of(self, user: object) -> str:
        return f"{self.owner} = '{user}'" if self.owner else "true"


@pytest_asyncio.fixture
async def tables(admin: Connection, alice: User, bob: User) -> list[Table]:
    return [Table(row["name"], row["owner"]) for row in await admin.fetch(TABLES)]


@pytest_asyncio.fixture
async def caller(connect: Connect) -> Connection:
    """What an interface over SQL has: a login role that may become `authenticated`."""
    return await connect("authenticator")


async def contents(admin: Connection, table: Table) -> str:
    return str(
        await admin.fetchval(f"SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {table.name} t")
    )


async def test_every_table_has_row_level_security_on_and_forced(admin: Connection) -> None:
    rows = await admin.fetch(TABLES)
    assert len(rows) > len(PRIVILEGES)  # and partitions
    assert [row["name"] for row in rows if not row["relrowsecurity"]] == []
    assert {row["name"] for row in rows if not row["relforcerowsecurity"]} == BOOKKEEPING


async def test_every_role_has_the_privileges_written_here_and_no_others(admin: Connection) -> None:
    """By itself, or as any role that it is a member of, however far: by inheritance or by SET ROLE."""
    found: dict[str, dict[str, set[str]]] = {}
    for row in await admin.fetch(TABLES):
        for role in ("anon", "authenticated", "service_role", *LOGINS):
            held = set()
            for privilege in ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "TRIGGER", "REFERENCES"):
                on_table = "has_table_privilege(m, $2::text, $3)"
                by_column = f"{on_table} OR has_any_column_privilege(m, $2::text, $3)"
                ask = on_table if privilege in {"DELETE", "TRUNCATE", "TRIGGER"} else by_column
                if await admin.fetchval(
                    f"{MAY_BE} SELECT bool_or({ask}) FROM may_be", role, row["name"], privilege
                ):
                    held.add(privilege)
            if held:
                found.setdefault(row["name"], {})[role] = held
    partitions = {row["name"] for row in await admin.fetch(TABLES) if row["schema"] == "signgate"}
    assert len(partitions) >= 6
    assert partitions.isdisjoint(found)
    assert found == {name: roles for name, roles in PRIVILEGES.items() if roles}
    assert set(PRIVILEGES) | partitions == {row["name"] for row in await admin.fetch(TABLES)}


async def test_every_table_has_rows_of_both_users_so_that_these_tests_can_fail(
    admin: Connection, tables: list[Table], alice: User
) -> None:
    """A new table needs a row in `make_user`. Partitions ahead of time are empty by nature."""
    empty = [
        t.name
        for t in tables
        if not await admin.fetchval(f"SELECT count(*) FROM {t.name} WHERE {t.of(alice.id)}")
    ]
    assert [name for name in empty if not name.startswith("signgate.usage_logs_2")] == []


@pytest.mark.parametrize("who", ["bob", "nobody", "anon"])
async def test_no_caller_reads_another_users_rows(
    tables: list[Table], caller: Connection, connect: Connect, alice: User, bob: User, who: str
) -> None:
    """Bob; someone logged in as nobody; and a caller without a login."""
    connection = await connect("postgres") if who == "anon" else caller
    role, user = ("anon", None) if who == "anon" else ("authenticated", bob.id if who == "bob" else None)
    leaks = []
    async with acting(connection, role, user):
        for table in tables:
            if table.name in SHARED:
                continue
            try:
                async with connection.transaction():
                    seen = await connection.fetchval(f"SELECT count(*) FROM {table.name}")
                    own = await connection.fetchval(
                        f"SELECT count(*) FROM {table.name} WHERE {table.of(bob.id)}"
                    )
            except asyncpg.InsufficientPrivilegeError:
                continue
            if seen != (own if who == "bob" else 0):
                leaks.append(table.name)
    assert leaks == []


async def test_users_read_their_own_rows(caller: Connection, alice: User) -> None:
    """The other half: the policies do admit the owner."""
    async with acting(caller, "authenticated", alice.id):
        for table in (
            "users",
            "api_keys",
            "key_audit",
            "quota_usage",
            "api_key_quota_usage",
            "user_plan_overrides",
            "quota_alerts",
            "usage_hours",
            "usage_days",
        ):
            assert await caller.fetchval(f"SELECT count(*) FROM {table}") == 1, table
        assert await caller.fetchval("SELECT count(*) FROM usage_logs") == 3
        assert await caller.fetchval("SELECT count(*) FROM plans") == 2


@pytest.mark.parametrize("role", ["authenticated", "anon"])
async def test_no_caller_changes_another_users_rows(
    admin: Connection, tables: list[Table], connect: Connect, alice: User, bob: User, role: str
) -> None:
    """Update of each column, delete, truncate, and insert of a row in Alice's name, all as Bob."""
    connection = await connect("postgres")
    before = {table.name: await contents(admin, table) for table in tables}
    done = []
    columns = {
        table.name: [
            row["attname"]
            for row in await admin.fetch(
                "SELECT attname FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0",
                table.name,
            )
        ]
        for table in tables
    }
    copies = {
        table.name: await admin.fetchval(
            f"SELECT to_jsonb(t) FROM {table.name} t WHERE {table.of(alice.id)} LIMIT 1"
        )
        for table in tables
    }
    async with acting(connection, role, bob.id if role == "authenticated" else None):
        for table in tables:
            await refused(connection, f"DELETE FROM {table.name} WHERE {table.of(alice.id)}")
            if not await refused(connection, f"TRUNCATE {table.name} CASCADE"):
                done.append(f"TRUNCATE {table.name}")
            for column in columns[table.name]:
                sql = f"UPDATE {table.name} SET {column} = {column} WHERE {table.of(alice.id)}"
                async with connection.transaction():
                    if not await refused(connection, sql) and await connection.execute(sql) != "UPDATE 0":
                        done.append(sql)
            if copies[table.name]:
                row = json.loads(copies[table.name])
                row.update({name: None for name in row if name.endswith("_hash")})
                insert = (
                    f"INSERT INTO {table.name} SELECT * FROM jsonb_populate_record(NULL::{table.name}, $1)"
                )
                if not await refused(connection, insert, json.dumps(row)):
                    done.append(insert)
            if table.owner and not await refused(
                connection, f"UPDATE {table.name} SET {table.owner} = '{alice.id}'"
            ):
                done.append(f"gave rows of {table.name} away")
    assert done == []
    assert {table.name: await contents(admin, table) for table in tables} == before


@pytest.mark.parametrize("role", LOGINS)
async def test_a_service_reaches_no_table_beyond_its_grants(
    tables: list[Table], connect: Connect, role: str
) -> None:
    """As the login role itself, with nobody's claims."""
    connection = await connect(role)
    for table in tables:
        may = "SELECT" in PRIVILEGES.get(table.name, {}).get(role, set())
        column = COLUMNS.get((table.name, role), "*")
        assert await refused(connection, f"SELECT {column} FROM {table.name}") is not may, table.name


@pytest.mark.parametrize("role", LOGINS)
async def test_a_service_can_become_no_other_role(admin: Connection, connect: Connect, role: str) -> None:
    """Tried with every role that the server has; and it has no attribute that would give it one."""
    row = await admin.fetchrow("SELECT * FROM pg_roles WHERE rolname = $1", role)
    assert row is not None
    powers = ("rolsuper", "rolbypassrls", "rolcreaterole", "rolcreatedb", "rolreplication", "rolinherit")
    assert [name for name in powers if row[name]] == []
    assert await admin.fetch(f"{MAY_BE} SELECT m FROM may_be WHERE m <> $1::text::regrole", role) == []
    connection = await connect(role)
    others = [other["rolname"] for other in await admin.fetch("SELECT rolname FROM pg_roles")]
    assert {"authenticated", "anon", "service_role", "signgate_owner", "postgres", *LOGINS} <= set(others)
    for other in others:
        for verb in ("SET ROLE", "SET SESSION AUTHORIZATION"):
            assert await refused(connection, f'{verb} "{other}"') is (other != role), f"{verb} {other}"


# The tables that a service reads for one user at a time, and those that it reads for all, which is its work.
FOR_A_CALLER = {
    "signgate_auth": set(),
    "signgate_keys": {"api_keys", "key_audit"},
    "signgate_quota": set(),
    "signgate_logger": {"usage_logs", "quota_alerts"},
}
FOR_ALL = {
    "signgate_auth": {"users"},
    "signgate_keys": set(),
    "signgate_quota": {"quota_usage", "api_key_quota_usage", "user_plan_overrides"},
    "signgate_logger": set(),
}


@pytest.mark.parametrize("claims", ["none", "nobody", "alice", "alice as service_role", "the older form"])
@pytest.mark.parametrize("role", LOGINS)
async def test_claims_open_no_table_to_a_service_but_its_own(
    tables: list[Table], connect: Connect, alice: User, role: str, claims: str
) -> None:
    """A compromised service can claim to be anyone. It sees what that service works with, at most."""
    connection = await connect(role)
    said = {
        "none": {},
        "nobody": {"request.jwt.claims": "{}"},
        "alice": {"request.jwt.claims": json.dumps({"sub": str(alice.id), "role": "authenticated"})},
        "alice as service_role": {
            "request.jwt.claims": json.dumps({"sub": str(alice.id), "role": "service_role"})
        },
        "the older form": {"request.jwt.claim.sub": str(alice.id), "request.jwt.claim.role": "service_role"},
    }[claims]
    seen: dict[str, bool] = {}
    async with connection.transaction():
        for name, value in said.items():
            await connection.execute("SELECT set_config($1, $2, true)", name, value)
        for table in tables:
            if table.name in SHARED or (role == "signgate_auth" and table.name.startswith("auth.")):
                continue
            column = COLUMNS.get((table.name, role), "*")
            try:
                async with connection.transaction():
                    rows = await connection.fetch(f"SELECT {column} FROM {table.name}")
            except asyncpg.InsufficientPrivilegeError:
                continue
            owners = {str(row[table.owner]) for row in rows} if rows and table.owner else set()
            seen[table.name] = bool(rows)
            if table.name not in FOR_ALL[role]:
                assert owners <= ({str(alice.id)} if "alice" in claims or "older" in claims else set())
    claimed = "alice" in claims or "older" in claims
    assert set(seen) == FOR_A_CALLER[role] | FOR_ALL[role]
    assert {name for name, rows in seen.items() if rows} == (
        FOR_ALL[role] | (FOR_A_CALLER[role] if claimed else set())
    )


async def test_the_keys_service_sees_no_hash_and_changes_no_key_but_its_callers(
    admin: Connection, connect: Connect, alice: User, bob: User
) -> None:
    keys = await connect("signgate_keys")
    async with for_caller(keys, bob):
        assert await refused(keys, "SELECT key_hash FROM api_keys")
        assert await keys.execute("UPDATE api_keys SET name = 'new'") == "UPDATE 1"
        assert await keys.execute("UPDATE api_keys SET name = 'x' WHERE id = $1", alice.key) == "UPDATE 0"
        for sql in (
            "DELETE FROM api_keys",
            "UPDATE api_keys SET key_hash = 'x'",
            f"UPDATE api_keys SET user_id = '{alice.id}'",
            "INSERT INTO api_keys (user_id, key_hash, name) VALUES (auth.uid(), 'x', 'x')",
            "DELETE FROM key_audit",
        ):
            assert await refused(keys, sql), sql
    assert await admin.fetchval("SELECT name FROM api_keys WHERE id = $1", alice.key) == "first"


@pytest.mark.parametrize("role", LOGINS)
async def test_every_service_has_time_outs_and_leaves_connections_to_the_others(
    admin: Connection, connect: Connect, role: str
) -> None:
    """Set at the role, so that a session which asks for nothing has them too."""
    connection = await connect(role)
    for name in (
        "statement_timeout",
        "lock_timeout",
        "idle_in_transaction_session_timeout",
        "idle_session_timeout",
    ):
        found = await connection.fetchval("SELECT setting::integer FROM pg_settings WHERE name = $1", name)
        assert 0 < found <= 15 * 60 * 1000, name
    most = await admin.fetchval("SELECT current_setting('max_connections')::integer")
    limit = await admin.fetchval("SELECT rolconnlimit FROM pg_roles WHERE rolname = $1", role)
    assert 0 < limit <= most / 2


async def test_a_table_without_a_policy_refuses_even_with_every_grant(
    admin: Connection, tables: list[Table], alice: User
) -> None:
    for table in tables:
        transaction = admin.transaction()
        await transaction.start()
        try:
            for row in await admin.fetch(
                "SELECT polname FROM pg_policy WHERE polrelid = $1::text::regclass", table.name
            ):
                await admin.execute(f'DROP POLICY "{row["polname"]}" ON {table.name}')
            await admin.execute(f"GRANT ALL ON {table.name} TO authenticated, signgate_owner")
            await admin.execute("GRANT USAGE ON SCHEMA auth, signgate TO authenticated")
            for role in ("authenticated", *([] if table.name in BOOKKEEPING else ["signgate_owner"])):
                async with acting(admin, role, alice.id):
                    assert await admin.fetchval(f"SELECT count(*) FROM {table.name}") == 0, (table.name, role)
        finally:
            await transaction.rollback()


async def test_users_change_only_the_columns_they_may(caller: Connection, bob: User) -> None:
    async with acting(caller, "authenticated", bob.id):
        assert await caller.execute("UPDATE users SET display_name = 'Bob'") == "UPDATE 1"
        assert await caller.execute("UPDATE api_keys SET name = 'new', daily_limit = 5") == "UPDATE 1"
        for sql in (
            "UPDATE users SET tier = 'api_key'",
            "UPDATE users SET is_active = true",
            "UPDATE users SET email = 'x@example.com'",
            "UPDATE users SET last_login = now()",
            "UPDATE api_keys SET key_hash = 'x'",
            "UPDATE api_keys SET grace_until = now() + interval '1 year'",
            "UPDATE api_keys SET last_used = now()",
            "UPDATE api_keys SET metadata = '{}'",
            "UPDATE api_keys SET external_id = 'x'",
            "SELECT key_hash FROM api_keys",
            "UPDATE plans SET daily_limit = 1000000",
            "UPDATE user_plan_overrides SET daily_limit = 1000000",
            "UPDATE quota_usage SET request_count = 0",
            "INSERT INTO usage_logs (room_url, success, response_time_ms) VALUES ('u', true, 1)",
        ):
            assert await refused(caller, sql), sql


async def test_the_service_role_manages_everything_of_the_seed(
    connect: Connect, alice: User, bob: User
) -> None:
    connection = await connect("postgres")
    async with acting(connection, "service_role"):
        assert await connection.fetchval("SELECT count(*) FROM users") == 2
        assert await connection.fetchval("SELECT count(*) FROM usage_logs") == 6
        assert await connection.execute("UPDATE plans SET burst = 5") == "UPDATE 2"
        assert await connection.execute("DELETE FROM users WHERE id = $1", alice.id) == "DELETE 1"
        assert await refused(connection, "SELECT * FROM auth.users")


async def test_the_auth_service_can_add_to_the_audit_log_but_not_rewrite_it(
    connect: Connect, alice: User
) -> None:
    connection = await connect("signgate_auth")
    await connection.execute("INSERT INTO auth.audit_log (action, actor_kind) VALUES ('x', 'system')")
    assert await refused(connection, "UPDATE auth.audit_log SET action = 'y'")
    assert await refused(connection, "DELETE FROM auth.audit_log")


async def test_the_auth_service_cannot_make_a_profile_without_an_account(connect: Connect) -> None:
    connection = await connect("signgate_auth")
    assert await refused(connection, "INSERT INTO users (email) VALUES ('x@example.com')")
    assert await refused(connection, "DELETE FROM users")
    assert await refused(connection, "UPDATE users SET email = 'x@example.com'")
