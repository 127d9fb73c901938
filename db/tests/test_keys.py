"""Functions of API keys: made once, guarded by their state, every change on record."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import asyncpg
import pytest

from db.tests.support import User, acting, for_caller, refused

if TYPE_CHECKING:
    from db.tests.support import Connect, Connection

CREATE = "SELECT create_api_key($1, $2, 'laptop', p_max_active => $3)"
REVOKE_ALL = "SELECT revoke_api_keys($1, $2)"
ROTATE = "SELECT rotate_api_key($1, $2, $3, $4, 'sgk_live_new', 'abcd', 2, now() + interval '1 hour')"


async def state_of(connection: Connection, sql: str, *args: object) -> str | None:
    """The SQLSTATE that a statement fails with."""
    with pytest.raises(asyncpg.PostgresError) as failure:
        async with connection.transaction():
            await connection.execute(sql, *args)
    return failure.value.sqlstate


async def test_creating_the_first_key_raises_the_tier(
    admin: Connection, connect: Connect, alice: User
) -> None:
    keys = await connect("signgate_keys")
    assert await admin.fetchval("SELECT tier FROM users WHERE id = $1", alice.id) == "free"
    async with for_caller(keys, alice):
        key = await keys.fetchval(CREATE, alice.id, "h1", None)
        row = await keys.fetchrow("SELECT name, scopes, mode, is_active FROM api_keys WHERE id = $1", key)
    assert row is not None
    assert tuple(row) == ("laptop", ["sign", "usage:read", "quota:read"], "live", True)
    assert await admin.fetchval("SELECT tier FROM users WHERE id = $1", alice.id) == "api_key"


async def test_the_limit_of_active_keys_holds_for_creations_at_once(
    admin: Connection, connect: Connect, alice: User
) -> None:
    """Alice has one key; of eight more at once, with at most four allowed, exactly three are made."""

    async def create(number: int) -> str | None:
        keys = await connect("signgate_keys")
        try:
            async with for_caller(keys, alice):
                await keys.execute(CREATE, alice.id, f"many-{number}", 4)
        except asyncpg.PostgresError as error:
            return error.sqlstate
        return None

    results = await asyncio.gather(*(create(number) for number in range(8)))
    assert sorted(map(str, results)) == ["None"] * 3 + ["SG001"] * 5
    assert await admin.fetchval("SELECT count(*) FROM api_keys WHERE user_id = $1", alice.id) == 4


async def test_revoked_and_expired_keys_make_room(connect: Connect, alice: User) -> None:
    keys = await connect("signgate_keys")
    async with for_caller(keys, alice):
        assert await state_of(keys, CREATE, alice.id, "h1", 1) == "SG001"
        await keys.execute("UPDATE api_keys SET revoked_at = now()")
        assert await keys.fetchval(CREATE, alice.id, "h1", 1)
        await keys.execute("UPDATE api_keys SET expires_at = now() WHERE revoked_at IS NULL")
        assert await keys.fetchval(CREATE, alice.id, "h2", 1)


async def test_a_key_for_nobody_is_refused(connect: Connect) -> None:
    connection = await connect("postgres")
    async with acting(connection, "service_role"):
        assert await state_of(connection, CREATE, uuid4(), "h", None) == "P0002"


async def test_validate_api_key_answers_for_a_key_that_works_and_records_the_use(
    admin: Connection, connect: Connect, alice: User
) -> None:
    keys = await connect("signgate_keys")
    row = await keys.fetchrow("SELECT * FROM validate_api_key($1)", alice.key_hash)
    assert row is not None
    assert (row["api_key_id"], row["user_id"], row["tier"]) == (alice.key, alice.id, "free")
    assert await admin.fetchval("SELECT now() - last_used < '5s' FROM api_keys WHERE id = $1", alice.key)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE api_keys SET revoked_at = now()",
        "UPDATE api_keys SET is_active = false",
        "UPDATE api_keys SET expires_at = now()",
        "UPDATE api_keys SET grace_until = now()",
        "UPDATE users SET is_active = false",
    ],
)
async def test_validate_api_key_refuses_what_does_not_work(
    admin: Connection, connect: Connect, alice: User, change: str
) -> None:
    await admin.execute(change)
    keys = await connect("signgate_keys")
    assert await keys.fetch("SELECT * FROM validate_api_key($1)", alice.key_hash) == []
    assert await keys.fetch("SELECT * FROM validate_api_key('unknown')") == []
    assert await admin.fetchval("SELECT last_used FROM api_keys WHERE id = $1", alice.key) is None


async def test_validate_api_keys_tells_all_it_knows_also_of_keys_that_do_not_work(
    admin: Connection, connect: Connect, alice: User, bob: User
) -> None:
    await admin.execute(
        "UPDATE api_keys SET cidrs = '{203.0.113.0/24}', daily_limit = 5, per_minute = 6, engine = 'native'"
        " WHERE id = $1",
        alice.key,
    )
    await admin.execute("UPDATE api_keys SET revoked_at = now() WHERE id = $1", bob.key)
    await admin.execute("UPDATE users SET is_active = false WHERE id = $1", bob.id)
    keys = await connect("signgate_keys")
    found = await keys.fetch("SELECT * FROM validate_api_keys($1)", [alice.key_hash, "unknown", bob.key_hash])
    by_hash = {row["key_hash"]: row for row in found}
    assert set(by_hash) == {alice.key_hash, bob.key_hash}
    first, second = by_hash[alice.key_hash], by_hash[bob.key_hash]
    assert [str(cidr) for cidr in first["cidrs"]] == ["203.0.113.0/24"]
    assert (first["daily_limit"], first["per_minute"], first["engine"]) == (5, 6, "native")
    assert (first["user_is_active"], first["is_active"]) == (True, True)
    assert (second["user_is_active"], second["is_active"]) == (False, False)
    assert second["revoked_at"] is not None
    assert await keys.fetch("SELECT * FROM lookup_api_keys($1)", [alice.key, uuid4()]) == [first]
    assert await admin.fetchval("SELECT count(last_used) FROM api_keys") == 0


async def test_a_revoked_key_stays_revoked(admin: Connection, connect: Connect, alice: User) -> None:
    """Whoever asks, and by whichever of the two columns it was revoked."""
    keys = await connect("signgate_keys")
    async with for_caller(keys, alice):
        await keys.execute("UPDATE api_keys SET is_active = false")
        assert await keys.fetchval("SELECT revoked_at IS NOT NULL FROM api_keys")
        for change in (
            "is_active = true, revoked_at = NULL",
            "revoked_at = now() + '1y'",
            "scopes = '{sign}'",
        ):
            assert await state_of(keys, f"UPDATE api_keys SET {change}") == "SG002"
    assert await state_of(admin, "UPDATE api_keys SET is_active = true, revoked_at = NULL") == "SG002"
    await admin.execute("UPDATE api_keys SET last_used = now()")  # an event that was under way


@pytest.mark.parametrize("ended", ["expires_at", "grace_until"])
async def test_an_expired_key_stays_expired(
    admin: Connection, connect: Connect, alice: User, ended: str
) -> None:
    """For the owner, for administrators, and for the owner of the tables."""
    await admin.execute(f"UPDATE api_keys SET {ended} = now() - interval '1 second'")
    keys, login = await connect("signgate_keys"), await connect("postgres")
    for change in ("NULL", "'infinity'", "now() + interval '1 minute'"):
        revive = f"UPDATE api_keys SET {ended} = {change}"
        assert await state_of(admin, revive) == "SG004"
        async with acting(login, "service_role"):
            assert await state_of(login, revive) == "SG004"
        if ended == "expires_at":
            async with for_caller(keys, alice):
                assert await state_of(keys, revive) == "SG004"
    # What leaves it expired is allowed: a list of keys may hold some that have expired already.
    await admin.execute("UPDATE api_keys SET expires_at = now() - interval '1 minute', name = 'old'")
    await admin.execute("UPDATE api_keys SET revoked_at = now()")


async def test_a_grace_period_can_only_become_shorter(admin: Connection, alice: User) -> None:
    await admin.execute("UPDATE api_keys SET grace_until = now() + interval '1 hour'")
    for change in ("NULL", "now() + interval '2 hours'"):
        assert await state_of(admin, f"UPDATE api_keys SET grace_until = {change}") == "SG003"
    await admin.execute("UPDATE api_keys SET grace_until = now() + interval '1 minute'")


async def test_rotation_copies_the_key_and_gives_the_old_one_a_grace_period(
    admin: Connection, connect: Connect, alice: User
) -> None:
    await admin.execute(
        "UPDATE api_keys SET scopes = '{sign}', daily_limit = 9, engine = 'native', mode = 'test'"
    )
    keys, successor = await connect("signgate_keys"), uuid4()
    async with for_caller(keys, alice):
        assert await keys.fetchval(ROTATE, alice.id, alice.key, successor, "h2") == successor
        assert await state_of(keys, ROTATE, alice.id, alice.key, uuid4(), "h3") == "SG003"
    new = await admin.fetchrow("SELECT * FROM api_keys WHERE id = $1", successor)
    old = await admin.fetchrow("SELECT * FROM api_keys WHERE id = $1", alice.key)
    assert new is not None
    assert old is not None
    for name in ("name", "scopes", "mode", "daily_limit", "engine", "user_id"):
        assert new[name] == old[name], name
    assert (new["rotated_from"], new["pepper_version"], new["grace_until"]) == (alice.key, 2, None)
    for key_hash in (alice.key_hash, "h2"):
        assert await keys.fetchrow("SELECT * FROM validate_api_key($1)", key_hash) is not None
    await admin.execute("UPDATE api_keys SET revoked_at = now() WHERE id = $1", successor)
    async with for_caller(keys, alice):
        assert await state_of(keys, ROTATE, alice.id, successor, uuid4(), "h4") == "SG002"


async def test_a_successor_has_the_metadata_and_the_external_id_too(
    admin: Connection, connect: Connect, alice: User
) -> None:
    await admin.execute("UPDATE api_keys SET metadata = '{\"a\": \"b\"}', external_id = 'x'")
    keys, successor = await connect("signgate_keys"), uuid4()
    async with for_caller(keys, alice):
        await keys.fetchval(ROTATE, alice.id, alice.key, successor, "h2")
        row = await keys.fetchrow("SELECT metadata, external_id FROM api_keys WHERE id = $1", successor)
    assert row is not None
    assert tuple(row) == ('{"a": "b"}', "x")


@pytest.mark.parametrize(
    "change",
    [
        "metadata = '[]'",
        "metadata = '{\"a\": 1}'",
        'metadata = \'{"a": ["b"]}\'',
        "metadata = jsonb_build_object('a', repeat('x', 17000))",
        "external_id = ''",
        "external_id = repeat('x', 129)",
    ],
)
async def test_notes_about_a_key_are_bounded(admin: Connection, alice: User, change: str) -> None:
    assert await state_of(admin, f"UPDATE api_keys SET {change}") == "23514"


async def test_all_keys_of_one_user_are_revoked_but_one(
    admin: Connection, connect: Connect, alice: User, bob: User
) -> None:
    keys = await connect("signgate_keys")
    async with for_caller(keys, alice):
        others = [await keys.fetchval(CREATE, alice.id, f"h{number}", None) for number in range(3)]
        await keys.execute("UPDATE api_keys SET expires_at = now() WHERE id = $1", others[0])
        ended = {row[0] for row in await keys.fetch(REVOKE_ALL, alice.id, alice.key)}
        assert ended == set(others[1:])
        assert [row[0] for row in await keys.fetch(REVOKE_ALL, alice.id, None)] == [alice.key]
        assert await keys.fetch(REVOKE_ALL, alice.id, None) == []
    active = await admin.fetch("SELECT id FROM api_keys WHERE is_active")
    assert {row["id"] for row in active} == {bob.key, others[0]}


@pytest.mark.parametrize("grace", ["0", "1 hour"])
async def test_the_successor_of_a_rotation_under_way_is_revoked_too(
    admin: Connection, connect: Connect, alice: User, grace: str
) -> None:
    """The rotation has locked the old key and is not committed when all keys are to end."""
    rotating, keys = await connect("signgate_keys"), await connect("signgate_keys")
    rotate = ROTATE.replace("1 hour", grace)
    successor = uuid4()

    async def revoke_all() -> list[UUID]:
        async with for_caller(keys, alice):
            return [row[0] for row in await keys.fetch(REVOKE_ALL, alice.id, None)]

    async with for_caller(rotating, alice):
        await rotating.fetchval(rotate, alice.id, alice.key, successor, "h2")
        revoking = asyncio.create_task(revoke_all())
        await waiting(admin, keys)
    assert successor in await revoking
    assert await admin.fetchval("SELECT is_active FROM api_keys WHERE id = $1", successor) is False


async def test_a_creation_under_way_is_waited_for(admin: Connection, connect: Connect, alice: User) -> None:
    creating, keys = await connect("signgate_keys"), await connect("signgate_keys")

    async def revoke_all() -> list[UUID]:
        async with for_caller(keys, alice):
            return [row[0] for row in await keys.fetch(REVOKE_ALL, alice.id, None)]

    async with for_caller(creating, alice):
        made = await creating.fetchval(CREATE, alice.id, "h1", None)
        revoking = asyncio.create_task(revoke_all())
        await waiting(admin, keys)
    assert set(await revoking) == {made, alice.key}


async def test_requests_with_one_answer_wait_for_each_other(
    admin: Connection, connect: Connect, alice: User
) -> None:
    first, second = await connect("signgate_keys"), await connect("signgate_keys")
    lookup = b"l" * 32
    find, keep = "SELECT lookup, sealed FROM find_key_answer($1, $2)", "SELECT keep_key_answer($1, $2, $3)"

    async def answer() -> list[tuple[bytes, bytes]]:
        async with for_caller(second, alice):
            return [tuple(row) for row in await second.fetch(find, alice.id, [b"x" * 32, lookup])]

    async with for_caller(first, alice):
        assert await first.fetch(find, alice.id, [lookup]) == []
        asking = asyncio.create_task(answer())
        await waiting(admin, second)
        await first.execute(keep, alice.id, lookup, b"sealed")
    assert await asking == [(lookup, b"sealed")]
    async with for_caller(first, alice):
        assert await state_of(first, keep, alice.id, lookup, b"another") == "23505"
    await admin.execute("UPDATE key_answers SET expires_at = now()")
    assert await answer() == []


async def waiting(admin: Connection, connection: Connection) -> None:
    """Until a connection waits for a lock."""
    async with asyncio.timeout(20):
        while not await admin.fetchval(  # noqa: ASYNC110  # PostgreSQL has no event for it
            "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $1",
            connection.get_server_pid(),
        ):
            await asyncio.sleep(0.01)


async def test_rotating_another_users_key_is_as_if_it_did_not_exist(
    connect: Connect, alice: User, bob: User
) -> None:
    keys = await connect("signgate_keys")
    async with for_caller(keys, bob):
        assert await state_of(keys, ROTATE, bob.id, alice.key, uuid4(), "h") == "P0002"


async def test_a_new_pepper_is_taken_once_and_only_for_the_hash_that_was_read(
    admin: Connection, connect: Connect, alice: User
) -> None:
    keys = await connect("signgate_keys")
    call = "SELECT repepper_api_key($1, $2, $3, $4)"
    assert not await keys.fetchval(call, alice.key, "another", "new", 2)
    assert await keys.fetchval(call, alice.key, alice.key_hash, "new", 2)
    assert not await keys.fetchval(call, alice.key, "new", "older", 1)
    assert await admin.fetchval("SELECT (key_hash, pepper_version)::text FROM api_keys") == "(new,2)"
    assert await admin.fetchval("SELECT count(*) FROM key_audit") == 1  # no more than the creation


async def test_users_who_speak_sql_themselves_manage_their_keys_as_ever(
    connect: Connect, alice: User, bob: User
) -> None:
    """As `authenticated`, by Supabase's own interface: the keys service is not the only one."""
    api, other = await connect("authenticator"), uuid4()
    async with acting(api, "authenticated", alice.id):
        made = await api.fetchval(CREATE, alice.id, "h1", None)
        assert await api.fetchval(ROTATE, alice.id, made, other, "h2") == other
        assert await api.execute("UPDATE api_keys SET revoked_at = now() WHERE id = $1", made) == "UPDATE 1"
        assert await api.fetchval("SELECT count(*) FROM api_keys") == 3
        assert await api.fetchval("SELECT count(*) FROM key_audit") == 5
        assert await refused(api, CREATE, bob.id, "h3", None)


async def test_every_change_is_on_record_with_who_and_what_and_never_a_hash(
    admin: Connection, connect: Connect, alice: User
) -> None:
    keys, acting_key = await connect("signgate_keys"), uuid4()

    async def change(sql: str, claims: dict[str, str]) -> None:
        async with keys.transaction():
            for name, value in (("request.jwt.claims", json.dumps(claims)), ("signgate.request_id", "req-1")):
                await keys.execute("SELECT set_config($1, $2, true)", name, value)
            await keys.execute(sql)

    user = {"sub": str(alice.id), "role": "authenticated"}
    await change("UPDATE api_keys SET name = 'renamed', daily_limit = 3", user)
    await change("UPDATE api_keys SET name = 'renamed'", user)  # changes nothing
    await change("UPDATE api_keys SET revoked_at = now()", {**user, "api_key_id": str(acting_key)})
    rows = await admin.fetch("SELECT * FROM key_audit WHERE api_key_id = $1 ORDER BY created_at", alice.key)
    assert [(row["action"], row["actor_kind"], row["actor_id"], row["request_id"]) for row in rows] == [
        ("key.created", "system", None, None),
        ("key.updated", "user", alice.id, "req-1"),
        ("key.revoked", "key", acting_key, "req-1"),
    ]
    assert json.loads(rows[1]["changes"]) == {"name": ["first", "renamed"], "daily_limit": [None, 3]}
    assert alice.key_hash not in str([row["changes"] for row in rows])


async def test_an_operators_change_is_on_record_with_the_operator_and_the_reason(
    admin: Connection, connect: Connect, alice: User, bob: User
) -> None:
    """The settings of the transaction count, whatever the claims say."""
    keys, operator = await connect("signgate_keys"), uuid4()
    for user, named in ((alice, operator), (bob, UUID(int=0))):
        async with for_caller(keys, user):
            for name, value in (("signgate.operator", str(named)), ("signgate.reason", "leaked")):
                await keys.execute("SELECT set_config($1, $2, true)", name, value)
            await keys.execute(REVOKE_ALL, user.id, None)
    rows = await admin.fetch(
        "SELECT user_id, actor_kind, actor_id, reason FROM key_audit WHERE action = 'key.revoked'"
    )
    assert {tuple(row) for row in rows} == {
        (alice.id, "service_role", operator, "leaked"),
        (bob.id, "service_role", None, "leaked"),
    }


async def test_deleting_an_account_deletes_its_keys_and_its_trail_but_not_its_usage(
    admin: Connection, connect: Connect, alice: User, bob: User
) -> None:
    auth = await connect("signgate_auth")
    await auth.execute("DELETE FROM auth.users WHERE id = $1", alice.id)
    left: dict[str, list[UUID]] = {}
    for table in ("users", "api_keys", "key_audit", "quota_usage", "api_key_quota_usage"):
        owner = "id" if table == "users" else "user_id"
        left[table] = [row[0] for row in await admin.fetch(f"SELECT {owner} FROM {table}")]
    assert left == {table: [bob.id] for table in left}
    assert (
        await admin.fetchval("SELECT count(*) FROM usage_logs WHERE user_id IS NULL AND api_key_id IS NULL")
        == 3
    )
