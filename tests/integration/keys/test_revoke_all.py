"""All keys of an account are revoked in one step, whatever else is under way."""

from __future__ import annotations

import asyncio
from typing import Any, cast
from uuid import UUID

import pytest
import redis.exceptions
from google.protobuf.duration_pb2 import Duration
from prometheus_client import REGISTRY

from servicekit.clock import uuid7
from servicekit.errors import FailedPrecondition
from services.keys.invalidation import Invalidation
from signgate.keys.v1 import keys_pb2 as pb
from tests.integration.keys.test_revocation import until_refused
from tests.integration.keys.world import Replica, User, World, create, refused, with_key


async def revoke_all(replica: Replica, *metadata: tuple[str, str], but: str = "") -> pb.RevokeAllKeysResponse:
    request = pb.RevokeAllKeysRequest(except_key_id=but)
    return await replica.owner.RevokeAllKeys(request, metadata=metadata)


async def test_all_keys_of_the_caller_end_and_no_others(keys: Replica, ann: User, bob: User) -> None:
    made = [await create(keys, ann) for _ in range(3)]
    rotated = await keys.owner.RotateKey(pb.RotateKeyRequest(key_id=made[0].key.id), metadata=ann.auth)
    over = await create(keys, ann)
    await keys.owner.RevokeKey(pb.RevokeKeyRequest(key_id=over.key.id), metadata=ann.auth)
    bobs = await create(keys, bob)
    secrets = [*(each.secret for each in made), rotated.secret]
    assert await keys.validate_all([*secrets, bobs.secret]) == ["OK"] * 5
    answer = await revoke_all(keys, *ann.auth)
    assert answer.revoked_count == 4
    assert set(answer.key_ids) == {*(each.key.id for each in made), rotated.key.id}
    assert await keys.validate_all([*secrets, bobs.secret]) == ["KEY_REVOKED"] * 4 + ["OK"]
    events = await keys.owner.ListKeyEvents(
        pb.ListKeyEventsRequest(key_id=made[1].key.id, page_size=1), metadata=ann.auth
    )
    assert (events.events[0].action, events.events[0].actor_id) == ("key.revoked", str(ann.id))
    again = await revoke_all(keys, *ann.auth)
    assert (again.revoked_count, list(again.key_ids)) == (0, [])


async def test_every_replica_refuses_them(world: World, ann: User) -> None:
    async with world.replica(told_only=True) as one, world.replica(told_only=True) as two:
        made = [await create(one, ann) for _ in range(3)]
        for replica in (one, two):
            assert await replica.validate_all([each.secret for each in made]) == ["OK"] * 3
        await revoke_all(one, *ann.auth)
        assert await one.validate_all([each.secret for each in made]) == ["KEY_REVOKED"] * 3
        for each in made:
            await until_refused(two, each.secret)


async def test_a_redis_that_hangs_delays_it_by_one_message_not_by_one_a_key() -> None:
    """Every record is dropped here at once, and the keys that were not told of are counted."""
    forgotten: list[UUID] = []
    tried: list[str] = []

    class Hanging:
        async def publish(self, channel: str, key_id: str) -> None:
            tried.append(key_id)
            raise redis.exceptions.TimeoutError

    invalidation = Invalidation(cast("Any", Hanging()), forgotten.append)
    before = REGISTRY.get_sample_value("signgate_keys_publish_failed_total") or 0
    ids = [uuid7() for _ in range(20)]
    await invalidation.invalidate(*ids)
    assert forgotten == ids
    assert tried == [str(ids[0])]
    assert REGISTRY.get_sample_value("signgate_keys_publish_failed_total") == before + 20


async def test_one_key_can_be_kept(keys: Replica, ann: User, bob: User) -> None:
    kept, other, bobs = await create(keys, ann), await create(keys, ann), await create(keys, bob)
    for wrong in (str(uuid7()), bobs.key.id):
        assert await refused(revoke_all(keys, *ann.auth, but=wrong)) == "KEY_NOT_FOUND"
    assert await refused(revoke_all(keys, *ann.auth, but="x")) == "VALIDATION_FAILED"
    assert await keys.validate_all([kept.secret, other.secret, bobs.secret]) == ["OK"] * 3
    answer = await revoke_all(keys, *ann.auth, but=kept.key.id)
    assert list(answer.key_ids) == [other.key.id]
    assert await keys.validate_all([kept.secret, other.secret, bobs.secret]) == ["OK", "KEY_REVOKED", "OK"]
    assert await refused(revoke_all(keys, *ann.auth, but=other.key.id)) == "KEY_REVOKED"
    assert await keys.validate(kept.secret) == "OK"


async def test_a_key_that_manages_keys_ends_itself_too_and_says_so_last(keys: Replica, ann: User) -> None:
    plain = await create(keys, ann, scopes=["sign", "keys:read"])
    assert await refused(revoke_all(keys, *with_key(plain.secret))) == "SCOPE_MISSING"
    manager = await create(keys, ann, scopes=["keys:manage"])
    later = await create(keys, ann)
    answer = await revoke_all(keys, *with_key(manager.secret))
    assert answer.revoked_count == 3
    assert answer.key_ids[-1] == manager.key.id
    assert set(answer.key_ids) == {plain.key.id, manager.key.id, later.key.id}
    assert await refused(revoke_all(keys, *with_key(manager.secret))) == "KEY_REVOKED"


@pytest.mark.parametrize("grace", [0, 3600])
async def test_no_key_escapes_by_being_replaced_meanwhile(
    keys: Replica, world: World, ann: User, grace: int
) -> None:
    """Four clients replace their keys all the time; after it not one key is left that works."""
    over = asyncio.Event()

    async def rotating(key_id: str) -> None:
        while not over.is_set():
            request = pb.RotateKeyRequest(key_id=key_id, grace_period=Duration(seconds=grace))
            try:
                key_id = (await keys.owner.RotateKey(request, metadata=ann.auth)).key.id
            except FailedPrecondition:  # KEY_REVOKED
                return

    made = [(await create(keys, ann)).key.id for _ in range(4)]
    async with asyncio.TaskGroup() as group:
        tasks: list[asyncio.Task[Any]] = [group.create_task(rotating(key_id)) for key_id in made]
        while await world.sql.fetchval("SELECT count(*) FROM public.api_keys") < 12:
            await asyncio.sleep(0.01)
        await revoke_all(keys, *ann.auth)
        working = (await keys.owner.ListKeys(pb.ListKeysRequest(), metadata=ann.auth)).keys
        over.set()
        await asyncio.wait(tasks)
    assert list(working) == []
    assert not (await keys.owner.ListKeys(pb.ListKeysRequest(), metadata=ann.auth)).keys


async def test_an_account_that_is_gone_has_none(keys: Replica, world: World, ann: User) -> None:
    await world.sql.execute("DELETE FROM public.users WHERE id = $1", ann.id)
    assert await refused(revoke_all(keys, *ann.auth)) == "USER_UNKNOWN"
