"""What managing keys asks of the owner's sign-in."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from redis.asyncio import Redis

from servicekit.redis import DeniedSessions
from signgate.keys.v1 import keys_pb2 as pb
from tests.integration.keys.world import Replica, User, World, create, refused, with_key

Call = Callable[[tuple[tuple[str, str], ...]], Awaitable[Any]]
MANAGER = ["keys:manage", "sign"]


def calls(keys: Replica, key_id: str) -> dict[str, Call]:
    """Everything that changes a key, by name."""
    owner = keys.owner
    return {
        "create": lambda who: owner.CreateKey(pb.CreateKeyRequest(name="x"), metadata=who),
        "rename": lambda who: owner.UpdateKey(pb.UpdateKeyRequest(key_id=key_id, name="y"), metadata=who),
        "rotate": lambda who: owner.RotateKey(pb.RotateKeyRequest(key_id=key_id), metadata=who),
        "revoke": lambda who: owner.RevokeKey(pb.RevokeKeyRequest(key_id=key_id), metadata=who),
    }


async def events(keys: Replica, user: User, key_id: str) -> list[str]:
    found = await keys.owner.ListKeyEvents(pb.ListKeyEventsRequest(key_id=key_id), metadata=user.auth)
    return [event.action for event in found.events]


async def test_one_factor_of_two_changes_no_key(world: World, keys: Replica, ann: User) -> None:
    """S7. A thief with the password makes a key that outlives the new password."""
    made = await create(keys, ann, scopes=["sign"])
    thief = User(ann.id, world.mint.token(ann.id, mfa=True))
    for name, call in calls(keys, made.key.id).items():
        assert await refused(call(thief.auth)) == "INSUFFICIENT_AAL", name
    listed = await keys.owner.ListKeys(pb.ListKeysRequest(include_inactive=True), metadata=thief.auth)
    assert [key.name for key in listed.keys] == ["test"]
    assert await events(keys, ann, made.key.id) == ["key.created"]
    raised = User(ann.id, world.mint.token(ann.id, mfa=True, aal="aal2"))
    for name, call in calls(keys, made.key.id).items():
        assert await call(raised.auth), name


async def test_a_token_made_before_the_claim_counts_as_of_a_protected_account(
    world: World, keys: Replica, ann: User
) -> None:
    before = User(ann.id, world.mint.token(ann.id, mfa=None, assurance_version=None))
    for name, call in calls(keys, str(uuid4())).items():
        assert await refused(call(before.auth)) == "INSUFFICIENT_AAL", name


async def test_a_lowered_session_changes_no_key_from_then_on(world: World, keys: Replica, ann: User) -> None:
    """S11."""
    made, session = await create(keys, ann, scopes=["sign"]), str(uuid4())

    def token(version: int) -> tuple[tuple[str, str], ...]:
        claims = {"session_id": session, "mfa": True, "aal": "aal2", "assurance_version": version}
        return User(ann.id, world.mint.token(ann.id, **claims)).auth

    await calls(keys, made.key.id)["rename"](token(1))
    async with Redis.from_url(world.redis_url) as redis:
        await DeniedSessions(redis).lower(session, 2, 60)
    for name, call in calls(keys, made.key.id).items():
        assert await refused(call(token(1))) == "INSUFFICIENT_AAL", name
    await calls(keys, made.key.id)["rename"](token(2))


@pytest.mark.parametrize("age", [3000, 3700])
async def test_a_key_that_manages_keys_asks_for_a_sign_in_of_the_last_hour(
    world: World, keys: Replica, ann: User, age: int
) -> None:
    """To be made, to be given the scope, and to be made again: only the key itself shows the last."""
    plain, manager = await create(keys, ann, scopes=["sign"]), await create(keys, ann, scopes=MANAGER)
    amr = [{"method": "password", "timestamp": int(time.time()) - age}]
    old = User(ann.id, world.mint.token(ann.id, amr=amr)).auth
    update = pb.UpdateKeyRequest(key_id=plain.key.id, scopes=pb.Scopes(scopes=MANAGER))
    asks: list[Awaitable[Any]] = [
        keys.owner.CreateKey(pb.CreateKeyRequest(name="x", scopes=MANAGER), metadata=old),
        keys.owner.UpdateKey(update, metadata=old),
        keys.owner.RotateKey(pb.RotateKeyRequest(key_id=manager.key.id), metadata=old),
    ]
    for ask in asks:
        if age > 3600:
            assert await refused(ask) == "REAUTHENTICATION_NEEDED"
        else:
            await ask
    if age > 3600:
        assert await events(keys, ann, plain.key.id) == ["key.created"]
        assert await events(keys, ann, manager.key.id) == ["key.created"]
        for name, call in calls(keys, plain.key.id).items():
            assert await call(old), name


async def test_a_key_is_asked_for_its_scopes_alone(keys: Replica, ann: User) -> None:
    """Programs have no second factor, and sign in never."""
    manager = await create(keys, ann, scopes=MANAGER)
    another = pb.CreateKeyRequest(name="made by a key", scopes=MANAGER)
    made = await keys.owner.CreateKey(another, metadata=with_key(manager.secret))
    assert list(made.key.scopes) == MANAGER


def old_session(world: World, user: User) -> User:
    """A login whose sign-in was more than an hour ago."""
    amr = [{"method": "password", "timestamp": int(time.time()) - 3700}]
    return User(user.id, world.mint.token(user.id, amr=amr))


@pytest.mark.parametrize("method", ["create", "rotate"])
async def test_a_repeat_by_an_old_session_gives_no_key_that_manages_keys_by_now(
    world: World, keys: Replica, ann: User, method: str
) -> None:
    """A kept answer is a key as it is now: its request had no such scope, or its old key has none now."""
    thief = old_session(world, ann)
    made = await create(keys, ann, scopes=["sign"] if method == "create" else MANAGER, idempotency_key="ci")
    scopes = pb.Scopes(scopes=MANAGER if method == "create" else ["sign"])

    async def repeat(who: User) -> str:
        if method == "create":
            return (await create(keys, who, scopes=["sign"], idempotency_key="ci")).secret
        request = pb.RotateKeyRequest(key_id=made.key.id, idempotency_key="turn")
        return (await keys.owner.RotateKey(request, metadata=who.auth)).secret

    first = await repeat(ann)
    update = pb.UpdateKeyRequest(key_id=made.key.id, scopes=scopes)
    await keys.owner.UpdateKey(update, metadata=(ann if method == "create" else thief).auth)
    assert await refused(repeat(thief)) == "REAUTHENTICATION_NEEDED"
    assert await repeat(ann) == first


async def test_an_old_session_widens_no_key_that_manages_keys(world: World, keys: Replica, ann: User) -> None:
    """What holds a stolen key back is taken away by who knows the password. All else is as for other keys."""
    thief = old_session(world, ann)
    bounds = {"allowed_cidrs": ["203.0.113.0/24"], "daily_limit": 5, "per_minute": 5, "engine": "native"}
    managing = (await create(keys, ann, scopes=MANAGER, expires_at=later(1), **bounds)).key
    plain = (await create(keys, ann, scopes=["sign"], expires_at=later(1), **bounds)).key
    for wider in (
        {"clear_expires_at": True},
        {"expires_at": later(2)},
        {"allowed_cidrs": pb.Cidrs()},
        {"daily_limit": 6},
        {"per_minute": 0},
        {"engine": ""},
    ):
        update = pb.UpdateKeyRequest(key_id=managing.id, **wider)
        call = keys.owner.UpdateKey(update, metadata=thief.auth)
        assert await refused(call) == "REAUTHENTICATION_NEEDED", wider
        update.key_id = plain.id
        await keys.owner.UpdateKey(update, metadata=thief.auth)
    assert await events(keys, ann, managing.id) == ["key.created"]
    scopes = pb.Scopes(scopes=["sign"])
    narrower = pb.UpdateKeyRequest(key_id=managing.id, name="y", daily_limit=4, scopes=scopes)
    assert (await keys.owner.UpdateKey(narrower, metadata=thief.auth)).key.name == "y"


def later(hours: int) -> Timestamp:
    return Timestamp(seconds=int(time.time()) + hours * 3600)
