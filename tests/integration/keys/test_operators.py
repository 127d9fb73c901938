"""Operators list and revoke one user's keys; the history says who did it and why."""

from __future__ import annotations

from typing import Any

import pytest

from servicekit.clock import uuid7
from signgate.keys.v1 import admin_pb2 as pb
from signgate.keys.v1 import keys_pb2
from tests.integration.keys.test_revocation import until_refused
from tests.integration.keys.world import Replica, User, World, create, refused, with_key


def listed(replica: Replica, metadata: Any, user_id: object, **members: Any) -> Any:
    request = pb.ListUserKeysRequest(user_id=str(user_id), **members)
    return replica.admin.ListUserKeys(request, metadata=metadata)


async def last_event(replica: Replica, user: User, key_id: str) -> keys_pb2.KeyEvent:
    request = keys_pb2.ListKeyEventsRequest(key_id=key_id, page_size=1)
    return (await replica.owner.ListKeyEvents(request, metadata=user.auth)).events[0]


async def test_an_operator_sees_a_users_keys_as_the_user_does(
    keys: Replica, world: World, ann: User, bob: User
) -> None:
    operator = world.operator()
    made = [await create(keys, ann, metadata={"n": str(i)}, external_id=f"x{i}") for i in range(3)]
    await create(keys, bob)
    first = await listed(keys, operator, ann.id, page_size=2)
    rest = await listed(keys, operator, ann.id, page_size=2, page_token=first.next_page_token)
    assert [*first.keys, *rest.keys] == [each.key for each in reversed(made)]
    for filters in ({"external_id": "x1"}, {"metadata_filter": ["n=1"]}):
        assert list((await listed(keys, operator, ann.id, **filters)).keys) == [made[1].key]
    assert not (await listed(keys, operator, ann.id, name_contains="nothing like it")).keys
    assert await refused(listed(keys, operator, uuid7())) == "USER_NOT_FOUND"
    assert await refused(listed(keys, operator, "x")) == "VALIDATION_FAILED"
    assert await refused(listed(keys, operator, ann.id, page_token="x")) == "PAGE_TOKEN_INVALID"


async def test_a_key_that_an_operator_revokes_is_refused_everywhere(world: World, ann: User) -> None:
    operator_id = uuid7()
    async with world.replica(told_only=True) as one, world.replica(told_only=True) as two:
        made, other = await create(one, ann), await create(one, ann)
        assert [await one.validate(made.secret), await two.validate(made.secret)] == ["OK", "OK"]
        request = pb.RevokeUserKeyRequest(
            user_id=str(ann.id), key_id=made.key.id, reason=" found in a paste "
        )
        answer = await one.admin.RevokeUserKey(request, metadata=world.operator(operator_id))
        assert answer.key.status == keys_pb2.KEY_STATUS_REVOKED
        assert await one.validate(made.secret) == "KEY_REVOKED"
        await until_refused(two, made.secret)
        assert await one.validate(other.secret) == "OK"
        event = await last_event(one, ann, made.key.id)
        assert (event.action, event.actor_kind, event.actor_id, event.reason) == (
            "key.revoked",
            "service_role",
            str(operator_id),
            "found in a paste",
        )
        again = await one.admin.RevokeUserKey(request, metadata=world.operator())
        assert again.key == answer.key
        assert await last_event(one, ann, made.key.id) == event


async def test_an_operator_without_an_id_is_still_an_operator(keys: Replica, world: World, ann: User) -> None:
    made = await create(keys, ann)
    token = world.mint.token(ann.id, role="service_role", sub=None)
    request = pb.RevokeUserKeyRequest(user_id=str(ann.id), key_id=made.key.id, reason="leaked")
    await keys.admin.RevokeUserKey(request, metadata=(("authorization", f"Bearer {token}"),))
    event = await last_event(keys, ann, made.key.id)
    assert (event.actor_kind, event.actor_id, event.reason) == ("service_role", "", "leaked")


async def test_all_keys_of_one_user_are_revoked(keys: Replica, world: World, ann: User, bob: User) -> None:
    operator_id = uuid7()
    made, bobs = [await create(keys, ann) for _ in range(3)], await create(keys, bob)
    assert await keys.validate_all([each.secret for each in made]) == ["OK"] * 3
    request = pb.RevokeUserKeysRequest(user_id=str(ann.id), reason="the account was taken over")
    answer = await keys.admin.RevokeUserKeys(request, metadata=world.operator(operator_id))
    assert answer.revoked_count == 3
    assert set(answer.key_ids) == {each.key.id for each in made}
    outcomes = await keys.validate_all([*(each.secret for each in made), bobs.secret])
    assert outcomes == ["KEY_REVOKED"] * 3 + ["OK"]
    event = await last_event(keys, ann, made[0].key.id)
    assert (event.actor_kind, event.actor_id, event.reason) == (
        "service_role",
        str(operator_id),
        "the account was taken over",
    )
    none = pb.RevokeUserKeysRequest(user_id=str(uuid7()), reason="x")
    assert await refused(keys.admin.RevokeUserKeys(none, metadata=world.operator())) == "USER_NOT_FOUND"


async def test_what_the_user_does_has_no_operators_reason(keys: Replica, world: World, ann: User) -> None:
    """On the same connections, after an operator's work."""
    made = await create(keys, ann)
    request = pb.RevokeUserKeysRequest(user_id=str(ann.id), reason="leaked")
    await keys.admin.RevokeUserKeys(request, metadata=world.operator())
    for _ in range(8):
        made = await create(keys, ann)
        event = await last_event(keys, ann, made.key.id)
        assert (event.actor_kind, event.actor_id, event.reason) == ("user", str(ann.id), "")


async def test_a_key_is_looked_for_among_the_named_users_only(
    keys: Replica, world: World, ann: User, bob: User
) -> None:
    made = await create(keys, ann)
    for user_id, key_id in ((bob.id, made.key.id), (ann.id, uuid7()), (uuid7(), made.key.id)):
        request = pb.RevokeUserKeyRequest(user_id=str(user_id), key_id=str(key_id), reason="x")
        call = keys.admin.RevokeUserKey(request, metadata=world.operator())
        assert await refused(call) == "KEY_NOT_FOUND"
    assert await keys.validate(made.secret) == "OK"


@pytest.mark.parametrize("reason", ["", "  ", "x" * 201, "a\nb", "\0", "\u3164", "a\u2060b"])
async def test_a_revocation_needs_a_reason(keys: Replica, world: World, ann: User, reason: str) -> None:
    made = await create(keys, ann)
    one = pb.RevokeUserKeyRequest(user_id=str(ann.id), key_id=made.key.id, reason=reason)
    assert await refused(keys.admin.RevokeUserKey(one, metadata=world.operator())) == "VALIDATION_FAILED"
    every = pb.RevokeUserKeysRequest(user_id=str(ann.id), reason=reason)
    assert await refused(keys.admin.RevokeUserKeys(every, metadata=world.operator())) == "VALIDATION_FAILED"
    assert await keys.validate(made.secret) == "OK"


async def test_users_and_keys_are_no_operators(keys: Replica, ann: User) -> None:
    made = await create(keys, ann, scopes=["keys:manage", "keys:read"])
    for method in pb.DESCRIPTOR.services_by_name["KeysAdminService"].methods:
        call, request = getattr(keys.admin, method.name), getattr(pb, method.input_type.name)
        for metadata in (ann.auth, with_key(made.secret)):
            refusal = await refused(call(request(user_id=str(ann.id)), metadata=metadata))
            assert refusal == "SERVICE_ROLE_REQUIRED", method.name
        assert await refused(call(request(user_id=str(ann.id)))) == "CREDENTIAL_MISSING"
