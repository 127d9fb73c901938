"""A creation or rotation that is repeated with its idempotency key is done once, and answered as before."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from servicekit.postgres import open_database
from services.keys.record_store import RecordStore
from signgate.keys.v1 import keys_pb2 as pb
from tests.integration.keys.world import PEPPER_1, PEPPER_2, Replica, User, World, create, refused, with_key

MANAGER = ["keys:manage", "keys:read", "sign"]


async def rotate(replica: Replica, user: User, key_id: str, **members: Any) -> pb.RotateKeyResponse:
    request = pb.RotateKeyRequest(key_id=key_id, **members)
    return await replica.owner.RotateKey(request, metadata=user.auth)


async def count(world: World) -> int:
    return int(await world.sql.fetchval("SELECT count(*) FROM public.api_keys"))


async def test_a_repeated_creation_makes_one_key_and_gives_the_same_answer(
    keys: Replica, world: World, ann: User
) -> None:
    members = {"name": "ci", "metadata": {"a": "1", "b": "2"}, "idempotency_key": "deploy-1"}
    first = await create(keys, ann, **members)
    assert await create(keys, ann, **members) == first
    assert await count(world) == 1
    assert await keys.validate(first.secret) == "OK"
    assert (await create(keys, ann, **{**members, "idempotency_key": "deploy-2"})).secret != first.secret
    assert (await create(keys, ann, name="ci")).secret != (await create(keys, ann, name="ci")).secret


async def test_the_header_is_the_same_as_the_field(keys: Replica, world: World, ann: User) -> None:
    def call(header: str, **members: Any) -> Any:
        metadata = (*ann.auth, ("idempotency-key", header))
        return keys.owner.CreateKey(pb.CreateKeyRequest(name="ci", **members), metadata=metadata)

    first = await call("deploy-1")
    assert await call("deploy-1", idempotency_key="deploy-1") == first
    assert await create(keys, ann, name="ci", idempotency_key="deploy-1") == first
    assert await refused(call("deploy-1", idempotency_key="deploy-2")) == "VALIDATION_FAILED"
    for wrong in ("x" * 129, "a b"):
        assert await refused(call(wrong)) == "VALIDATION_FAILED"
    assert await refused(create(keys, ann, idempotency_key="a b")) == "VALIDATION_FAILED"
    assert await count(world) == 1


async def test_another_request_with_the_same_key_is_refused(keys: Replica, world: World, ann: User) -> None:
    first = await create(keys, ann, name="ci", idempotency_key="once")
    for other in ({"name": "ci2"}, {"name": "ci", "scopes": ["sign"]}, {"name": "ci", "external_id": "x"}):
        assert await refused(create(keys, ann, **other, idempotency_key="once")) == "IDEMPOTENCY_KEY_REUSED"
    rotation = rotate(keys, ann, first.key.id, idempotency_key="once")
    assert await refused(rotation) == "IDEMPOTENCY_KEY_REUSED"
    assert await count(world) == 1


async def test_repeats_at_once_make_one_key(keys: Replica, world: World, ann: User) -> None:
    """By two replicas; each waits for the first and answers the same."""
    async with world.replica() as other:
        made = await asyncio.gather(
            *(create(replica, ann, idempotency_key="once") for replica in (keys, other) * 8)
        )
    assert len({answer.secret for answer in made}) == 1
    assert await count(world) == 1
    old = made[0].key.id
    rotated = await asyncio.gather(*(rotate(keys, ann, old, idempotency_key="turn") for _ in range(8)))
    assert len({answer.secret for answer in rotated}) == 1
    assert await count(world) == 2


async def test_a_repeated_rotation_gives_the_same_successor(keys: Replica, world: World, ann: User) -> None:
    old = await create(keys, ann)
    first = await rotate(keys, ann, old.key.id, idempotency_key="turn")
    assert await rotate(keys, ann, old.key.id, idempotency_key="turn") == first
    assert await refused(rotate(keys, ann, old.key.id)) == "KEY_ROTATED"
    assert await refused(rotate(keys, ann, old.key.id, idempotency_key="another")) == "KEY_ROTATED"
    changed = rotate(keys, ann, old.key.id, idempotency_key="turn", grace_period=Duration(seconds=5))
    assert await refused(changed) == "IDEMPOTENCY_KEY_REUSED"
    assert await count(world) == 2


async def test_only_the_same_caller_gets_the_answer_again(
    keys: Replica, world: World, ann: User, bob: User
) -> None:
    """Logins of one account share their idempotency keys; each API key has its own."""
    request = pb.CreateKeyRequest(name="ci", scopes=MANAGER, idempotency_key="once")

    async def made(*metadata: tuple[str, str]) -> str:
        return (await keys.owner.CreateKey(request, metadata=metadata)).secret

    by_login = await made(*ann.auth)
    assert await made(("authorization", f"Bearer {world.mint.token(ann.id)}")) == by_login
    one, two = [(await create(keys, ann, scopes=MANAGER)).secret for _ in range(2)]
    found = [by_login, await made(*bob.auth), await made(*with_key(one)), await made(*with_key(two))]
    assert len(set(found)) == 4
    assert await made(*with_key(one)) == found[2]


async def test_a_key_that_lost_a_scope_gets_no_secret_that_has_it(keys: Replica, ann: User) -> None:
    manager = await create(keys, ann, scopes=MANAGER)
    request = pb.CreateKeyRequest(name="ci", scopes=["sign"], idempotency_key="once")
    await keys.owner.CreateKey(request, metadata=with_key(manager.secret))
    fewer = pb.UpdateKeyRequest(key_id=manager.key.id, scopes=pb.Scopes(scopes=["keys:manage"]))
    await keys.owner.UpdateKey(fewer, metadata=ann.auth)
    again = keys.owner.CreateKey(request, metadata=with_key(manager.secret))
    assert await refused(again) == "SCOPE_MISSING"


async def test_a_repeat_shows_the_key_as_it_is_by_then(keys: Replica, ann: User) -> None:
    """The secret is the same; a key that was revoked stays revoked."""
    first = await create(keys, ann, idempotency_key="once")
    await keys.owner.RevokeKey(pb.RevokeKeyRequest(key_id=first.key.id), metadata=ann.auth)
    again = await create(keys, ann, idempotency_key="once")
    assert (again.secret, again.key.status) == (first.secret, pb.KEY_STATUS_REVOKED)
    assert await keys.validate(again.secret) == "KEY_REVOKED"


async def test_what_failed_is_not_kept_and_a_repeat_needs_no_room(world: World, ann: User) -> None:
    async with world.replica(key_limit=1) as keys:
        assert await refused(create(keys, ann, scopes=["x"], idempotency_key="once")) == "VALIDATION_FAILED"
        first = await create(keys, ann, idempotency_key="once")
        assert await refused(create(keys, ann, idempotency_key="more")) == "KEY_LIMIT"
        assert await create(keys, ann, idempotency_key="once") == first
        await keys.owner.RevokeKey(pb.RevokeKeyRequest(key_id=first.key.id), metadata=ann.auth)
        assert (await create(keys, ann, idempotency_key="more")).secret != first.secret


async def test_after_24_hours_the_answer_is_gone(keys: Replica, world: World, ann: User) -> None:
    first = await create(keys, ann, idempotency_key="once")
    left = await world.sql.fetchval("SELECT expires_at - now() FROM public.key_answers")
    assert 23 * 3600 < left.total_seconds() <= 24 * 3600
    await world.sql.execute("UPDATE public.key_answers SET expires_at = now()")
    second = await create(keys, ann, idempotency_key="once", name="another request")
    assert second.secret != first.secret
    assert await world.sql.fetchval("SELECT count(*) FROM public.key_answers") == 1


async def test_old_answers_are_deleted_and_others_are_not(keys: Replica, world: World, ann: User) -> None:
    """By the service's own role, a few at a time."""
    for number in range(4):
        await create(keys, ann, idempotency_key=f"old-{number}")
    await world.sql.execute("UPDATE public.key_answers SET expires_at = now()")
    async with open_database(world.database.dsn("signgate_keys"), name="test") as database:
        store = RecordStore(database)
        assert [await store.drop_old_answers(3) for _ in range(3)] == [3, 1, 0]
        await create(keys, ann, idempotency_key="new")
        assert await store.drop_old_answers(3) == 0
    assert await world.sql.fetchval("SELECT count(*) FROM public.key_answers") == 1


async def test_a_new_pepper_loses_no_answer(world: World, ann: User) -> None:
    async with world.replica() as keys:
        first = await create(keys, ann, idempotency_key="once")
    async with world.replica(key_pepper=f"1:{PEPPER_1},2:{PEPPER_2}") as keys:
        assert (await create(keys, ann, idempotency_key="once")).secret == first.secret
        assert await refused(create(keys, ann, name="x", idempotency_key="once")) == "IDEMPOTENCY_KEY_REUSED"
    async with world.replica(key_pepper=f"2:{PEPPER_2}") as keys:
        assert (await create(keys, ann, idempotency_key="once")).secret != first.secret


async def test_the_table_tells_neither_the_secret_nor_the_idempotency_key(
    keys: Replica, world: World, ann: User
) -> None:
    made = await create(keys, ann, idempotency_key="a-rather-long-idempotency-key")
    row = await world.sql.fetchrow("SELECT * FROM public.key_answers")
    assert row is not None
    kept = row["lookup"] + row["sealed"]
    for plain in (made.secret, made.secret[31:58], "a-rather-long-idempotency-key", "test"):
        assert plain.encode() not in kept
    await world.sql.execute("UPDATE public.key_answers SET sealed = overlay(sealed PLACING 'x' FROM 20)")
    again = create(keys, ann, idempotency_key="a-rather-long-idempotency-key")
    assert await refused(again) == "IDEMPOTENCY_KEY_REUSED"


@pytest.mark.parametrize("method", ["CreateKey", "RotateKey"])
async def test_an_account_that_is_gone_gets_no_answer(
    keys: Replica, world: World, ann: User, method: str
) -> None:
    made = await create(keys, ann, idempotency_key="once")
    await world.sql.execute("DELETE FROM public.users WHERE id = $1", ann.id)
    assert await world.sql.fetchval("SELECT count(*) FROM public.key_answers") == 0
    if method == "CreateKey":
        assert await refused(create(keys, ann, idempotency_key="once")) == "USER_UNKNOWN"
    else:
        assert await refused(rotate(keys, ann, made.key.id, idempotency_key="once")) == "USER_UNKNOWN"
