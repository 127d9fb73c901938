"""Who may call what. Functions come from the catalog, so a new one can't be forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import asyncpg
import pytest

from db.tests.support import LOGINS, User, acting, for_caller, refused

if TYPE_CHECKING:
    from db.tests.support import Connect, Connection

FUNCTIONS = """
SELECT p.oid, p.oid::regprocedure::text AS signature, n.nspname AS schema, p.proname AS name, p.prosecdef,
       p.prorettype = 'trigger'::regtype AS is_trigger, p.proargnames,
       coalesce(p.proconfig, '{}') AS settings, p.prosqlbody IS NOT NULL AS parsed,
       pg_get_userbyid(p.proowner) AS owner,
       (SELECT coalesce(array_agg(format_type(t, NULL) ORDER BY i), '{}')
        FROM unnest(p.proargtypes) WITH ORDINALITY AS a (t, i)) AS types
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname IN ('public', 'auth', 'signgate')
ORDER BY 2
"""
ROLES = ("anon", "authenticated", "service_role", *LOGINS)
USER, SERVICE = "authenticated", "service_role"
AUTH, KEYS, QUOTA, LOGGER = LOGINS

# Every function that any role may call, and the roles. What is not here, nobody but the owner may call.
CALLERS: dict[str, set[str]] = {
    "auth.uid": set(ROLES) - {KEYS, QUOTA, LOGGER},  # those have policies that call it
    "auth.role": set(ROLES) - {KEYS, QUOTA, LOGGER},
    "auth.jwt": set(ROLES) - {KEYS, QUOTA, LOGGER},
    "auth.email": set(ROLES) - {KEYS, QUOTA, LOGGER},
    "public.update_user_last_login": {USER, SERVICE, AUTH},
    "public.create_api_key": {USER, SERVICE, KEYS},
    "public.rotate_api_key": {USER, SERVICE, KEYS},
    "public.lock_key_owner": {KEYS},
    "public.validate_api_key": {KEYS, SERVICE},
    "public.validate_api_keys": {KEYS},
    "public.lookup_api_keys": {KEYS},
    "public.read_key_records": {KEYS},
    "public.account_state": {AUTH, SERVICE},
    "auth.forget_user": {AUTH},
    "public.repepper_api_key": {KEYS},
    "public.count_keys_by_pepper": {KEYS},
    "public.revoke_api_keys": {KEYS},
    "public.user_exists": {KEYS},
    "public.find_key_answer": {KEYS},
    "public.keep_key_answer": {KEYS},
    "public.drop_old_key_answers": {KEYS},
    "public.get_user_limits": {QUOTA, SERVICE},
    "public.get_api_key_limits": {QUOTA},
    "public.get_user_quota_usage": {USER, QUOTA, SERVICE},
    "public.check_user_quota_limit": {USER, QUOTA, SERVICE},
    "public.set_plan": {QUOTA, SERVICE},
    "public.set_user_plan_override": {QUOTA, SERVICE},
    "public.update_quota_usage": {LOGGER, SERVICE},
    "public.ingest_usage": {LOGGER},
    "public.log_api_usage": {LOGGER, SERVICE},
    "public.get_user_usage_stats": {USER, SERVICE},
    "public.get_usage_counts": {USER, SERVICE, LOGGER},
    "public.get_system_usage_stats": {LOGGER, SERVICE},
    "public.reconcile_usage_day": {LOGGER, SERVICE},
    "public.reconcile_charges": {LOGGER, SERVICE},
    "public.find_usage": {LOGGER, SERVICE},
    "public.get_alert_settings": {USER, SERVICE, LOGGER},
    "public.postpone_quota_alert": {LOGGER},
    "public.set_alert_settings": {USER, SERVICE, LOGGER},
    "public.raise_quota_alerts": {LOGGER, SERVICE},
    "public.claim_quota_alerts": {LOGGER},
    "public.settle_quota_alert": {LOGGER},
    "public.ensure_usage_partitions": {LOGGER, SERVICE},
    "public.drop_usage_partitions_before": {LOGGER, SERVICE},
}
SEED = {
    *("handle_new_user", "update_user_last_login", "create_api_key", "validate_api_key", "log_api_usage"),
    *("update_quota_usage", "get_user_quota_usage", "check_user_quota_limit", "get_user_usage_stats"),
    "get_system_usage_stats",
}


async def test_the_ten_functions_of_the_seed_are_there_by_name(admin: Connection) -> None:
    assert {row["name"] for row in await admin.fetch(FUNCTIONS) if row["schema"] == "public"} >= SEED


async def test_every_function_can_be_called_by_the_roles_written_here_and_no_others(
    admin: Connection,
) -> None:
    found: dict[str, set[str]] = {}
    for row in await admin.fetch(FUNCTIONS):
        for role in ROLES:
            if await admin.fetchval(
                "SELECT has_function_privilege($1::name, $2::oid, 'EXECUTE')"
                " AND has_schema_privilege($1::name, $3, 'USAGE')",
                role,
                row["oid"],
                row["schema"],
            ):
                found.setdefault(f"{row['schema']}.{row['name']}", set()).add(role)
    assert found == CALLERS


async def test_every_function_refuses_who_may_not_call_it(admin: Connection, connect: Connect) -> None:
    """By calling it, as each role in turn."""
    admitted = []
    functions = await admin.fetch(FUNCTIONS)
    for role in ROLES:
        login = role in LOGINS
        connection = await connect(role) if login else await connect("postgres")
        if not login:
            await connection.execute(f"SET ROLE {role}")
        for row in functions:
            name = f"{row['schema']}.{row['name']}"
            if role in CALLERS.get(name, set()) or row["is_trigger"]:
                continue
            arguments = ", ".join(f"NULL::{kind}" for kind in row["types"])
            if not await refused(connection, f"SELECT {name}({arguments})"):
                admitted.append((role, row["signature"]))
    assert admitted == []


async def test_functions_about_one_user_refuse_another(
    admin: Connection, connect: Connect, alice: User, bob: User
) -> None:
    """Each function that takes p_user_id and that `authenticated` may call, asked by Bob about Alice.

    And by the services that may call it for one user at a time.
    """
    connection = await connect("authenticator")
    services = {role: await connect(role) for role in (KEYS, LOGGER)}
    asked = 0
    for row in await admin.fetch(FUNCTIONS):
        name = f"{row['schema']}.{row['name']}"
        if USER not in CALLERS.get(name, set()) or row["schema"] == "auth":
            continue
        assert row["proargnames"][0] == "p_user_id", f"{name}: say here how it knows whose data it is about"
        values = {"uuid": f"'{uuid4()}'::uuid"}
        rest = [values.get(kind, f"NULL::{kind}") for kind in row["types"][1:]]
        for whose, caller in (
            (f"'{alice.id}'", bob.id),
            ("NULL", bob.id),
            (f"'{alice.id}'", None),
            ("NULL", None),
        ):
            sql = f"SELECT {name}({', '.join([whose, *rest])})"
            async with acting(connection, USER, caller):
                assert await refused(connection, sql), (sql, caller)
            for role in CALLERS[name] & services.keys():
                async with acting(services[role], role, caller):
                    assert await refused(services[role], sql), (role, sql, caller)
            asked += 1
    assert asked == 4 * 9


async def test_functions_of_the_keys_service_about_one_user_refuse_another(
    admin: Connection, connect: Connect, alice: User, bob: User
) -> None:
    """Those that only the keys service may call, asked with Bob's claims, or with none, about Alice."""
    keys = await connect(KEYS)
    asked = 0
    for row in await admin.fetch(FUNCTIONS):
        name = f"{row['schema']}.{row['name']}"
        if CALLERS.get(name) != {KEYS} or "p_user_id" not in (row["proargnames"] or []):
            continue
        assert row["proargnames"][0] == "p_user_id", name
        rest = [f"NULL::{kind}" for kind in row["types"][1:]]
        for whose in (f"'{alice.id}'", "NULL"):
            sql = f"SELECT {name}({', '.join([whose, *rest])})"
            async with for_caller(keys, bob):
                assert await refused(keys, sql), sql
            assert await refused(keys, sql), sql
            asked += 1
    assert asked == 2 * 5


async def test_a_role_that_inherits_from_authenticated_is_held_to_its_claims_too(
    admin: Connection, connect: Connect, alice: User
) -> None:
    """Trust comes by the role's own name, not by membership of a role that may execute."""
    await admin.execute("CREATE ROLE reporting NOLOGIN INHERIT; GRANT authenticated TO reporting")
    try:
        connection = await connect("postgres")
        await connection.execute("SET ROLE reporting")
        assert await refused(connection, "SELECT get_user_usage_stats($1)", alice.id)
    finally:
        await admin.execute("DROP ROLE reporting")


async def test_no_function_can_be_led_astray_by_the_callers_search_path(admin: Connection) -> None:
    for row in await admin.fetch(FUNCTIONS):
        if row["schema"] != "auth" and not row["parsed"]:
            # Not: Supabase's four, which name no object, and bodies that were parsed when they were made.
            assert "search_path=pg_catalog, pg_temp" in row["settings"], row["signature"]
        assert row["owner"] == "signgate_owner", row["signature"]


async def test_the_owner_of_all_functions_is_no_superuser_and_does_not_bypass_policies(
    admin: Connection,
) -> None:
    row = await admin.fetchrow("SELECT * FROM pg_roles WHERE rolname = 'signgate_owner'")
    assert row is not None
    held = ("rolsuper", "rolbypassrls", "rolcanlogin", "rolcreaterole", "rolcreatedb", "rolreplication")
    assert [name for name in held if row[name]] == []


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, None),
        ({"request.jwt.claims": ""}, None),
        ({"request.jwt.claims": '{"sub": "%s"}'}, "%s"),
        ({"request.jwt.claim.sub": "%s"}, "%s"),
        ({"request.jwt.claim.sub": "", "request.jwt.claims": '{"sub": "%s"}'}, "%s"),
    ],
)
async def test_auth_uid_reads_the_claims_in_both_forms(
    connect: Connect, settings: dict[str, str], expected: str | None
) -> None:
    connection, user = await connect("signgate_auth"), str(uuid4())
    async with connection.transaction():
        for name, value in settings.items():
            await connection.execute("SELECT set_config($1, $2, true)", name, value.replace("%s", user))
        found = await connection.fetchval("SELECT auth.uid()::text")
    assert found == (expected and user)


async def test_auth_role_email_and_jwt_tell_what_the_claims_say(connect: Connect) -> None:
    connection = await connect("signgate_auth")
    async with connection.transaction():
        claims = '{"role": "authenticated", "email": "a@example.com", "aal": "aal2"}'
        await connection.execute("SELECT set_config('request.jwt.claims', $1, true)", claims)
        row = await connection.fetchrow("SELECT auth.role(), auth.email(), auth.jwt() ->> 'aal' AS aal")
    assert row is not None
    assert dict(row) == {"role": "authenticated", "email": "a@example.com", "aal": "aal2"}


async def test_the_claims_end_with_the_transaction(connect: Connect, alice: User) -> None:
    """A pooled connection hands no one's identity on."""
    connection = await connect("signgate_auth")
    async with for_caller(connection, alice):
        assert await connection.fetchval("SELECT auth.uid()") == alice.id
    assert await connection.fetchval("SELECT auth.uid()") is None
    assert await connection.fetchval("SELECT current_user") == "signgate_auth"


async def test_a_trigger_function_cannot_be_called(connect: Connect) -> None:
    connection = await connect("signgate_auth")
    with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.FeatureNotSupportedError)):
        await connection.execute("SELECT handle_new_user()")
