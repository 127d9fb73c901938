"""A credential gives only what it has; tokens that keys mint do no more than their key."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration

from signgate.keys.v1 import keys_pb2 as pb
from tests.integration.keys.world import Replica, User, World, create, refused, with_key

MANAGER = ["keys:manage", "keys:read", "sign"]


async def test_a_key_makes_only_keys_with_scopes_that_it_has(keys: Replica, ann: User) -> None:
    manager = with_key((await create(keys, ann, scopes=MANAGER)).secret)
    wider = pb.CreateKeyRequest(name="x", scopes=["sign", "profile:write"])
    assert await refused(keys.owner.CreateKey(wider, metadata=manager)) == "SCOPE_MISSING"
    # The default scopes are no way around it.
    default = pb.CreateKeyRequest(name="x")
    assert await refused(keys.owner.CreateKey(default, metadata=manager)) == "SCOPE_MISSING"
    equal = await keys.owner.CreateKey(pb.CreateKeyRequest(name="x", scopes=MANAGER), metadata=manager)
    assert list(equal.key.scopes) == MANAGER


async def test_a_key_raises_itself_by_neither_update_nor_rotation(keys: Replica, ann: User) -> None:
    own = await create(keys, ann, scopes=MANAGER)
    manager = with_key(own.secret)
    wider = pb.UpdateKeyRequest(key_id=own.key.id, scopes=pb.Scopes(scopes=[*MANAGER, "usage:read"]))
    assert await refused(keys.owner.UpdateKey(wider, metadata=manager)) == "SCOPE_MISSING"
    other = await create(keys, ann, scopes=["usage:read", "sign"])
    rotate = pb.RotateKeyRequest(key_id=other.key.id)
    assert await refused(keys.owner.RotateKey(rotate, metadata=manager)) == "SCOPE_MISSING"
    narrower = pb.UpdateKeyRequest(key_id=other.key.id, scopes=pb.Scopes(scopes=["usage:read"]))
    updated = await keys.owner.UpdateKey(narrower, metadata=manager)
    assert list(updated.key.scopes) == ["usage:read"]


async def test_revoke_self_needs_no_scope_and_only_the_key(keys: Replica, ann: User) -> None:
    made = await create(keys, ann, scopes=["sign"])
    answer = await keys.owner.RevokeSelf(pb.RevokeSelfRequest(), metadata=with_key(made.secret))
    assert answer.key.id == made.key.id
    assert answer.key.status == pb.KEY_STATUS_REVOKED
    assert await keys.validate(made.secret) == "KEY_REVOKED"
    again = await keys.owner.RevokeSelf(pb.RevokeSelfRequest(), metadata=with_key(made.secret))
    assert again.key == answer.key
    login = keys.owner.RevokeSelf(pb.RevokeSelfRequest(), metadata=ann.auth)
    assert await refused(login) == "API_KEY_REQUIRED"


async def test_a_minted_token_has_fewer_scopes_and_an_end(keys: Replica, ann: User) -> None:
    made = await create(keys, ann, scopes=["sign", "usage:read", "keys:manage"], daily_limit=5)
    minted = await keys.owner.MintToken(
        pb.MintTokenRequest(scopes=["sign"], ttl=Duration(seconds=60)), metadata=with_key(made.secret)
    )
    assert minted.token.startswith("sgt_")
    assert list(minted.scopes) == ["sign"]
    left = minted.expires_at.ToDatetime(UTC) - datetime.now(UTC)
    assert timedelta(seconds=55) < left <= timedelta(seconds=60)
    (result,) = await keys.results([minted.token])
    assert (result.key.key_id, list(result.key.scopes), result.key.derived) == (made.key.id, ["sign"], True)
    assert result.key.daily_limit == 5
    assert result.key.expires_at == minted.expires_at
    default = await keys.owner.MintToken(pb.MintTokenRequest(), metadata=with_key(made.secret))
    assert list(default.scopes) == ["sign", "usage:read"]


async def test_what_a_token_may_not_be(keys: Replica, ann: User) -> None:
    made = await create(keys, ann, scopes=["sign"])
    mint = keys.owner.MintToken
    wider = mint(pb.MintTokenRequest(scopes=["usage:read"]), metadata=with_key(made.secret))
    assert await refused(wider) == "SCOPE_MISSING"
    for seconds in (0, -1, 3601):
        ttl = pb.MintTokenRequest(ttl=Duration(seconds=seconds))
        assert await refused(mint(ttl, metadata=with_key(made.secret))) == "VALIDATION_FAILED"
    token = (await mint(pb.MintTokenRequest(), metadata=with_key(made.secret))).token
    assert await refused(mint(pb.MintTokenRequest(), metadata=with_key(token))) == "DERIVED_TOKEN"
    assert await refused(mint(pb.MintTokenRequest(), metadata=ann.auth)) == "API_KEY_REQUIRED"
    assert await keys.validate(token[:-4] + "AAAA") == "KEY_MALFORMED"
    assert await keys.validate("sgt_") == "KEY_MALFORMED"


async def test_a_token_dies_with_its_key_and_shrinks_with_it(keys: Replica, ann: User) -> None:
    made = await create(keys, ann, scopes=["sign", "usage:read"])
    token = (await keys.owner.MintToken(pb.MintTokenRequest(), metadata=with_key(made.secret))).token
    assert await keys.validate(token) == "OK"
    await keys.owner.UpdateKey(
        pb.UpdateKeyRequest(
            key_id=made.key.id,
            scopes=pb.Scopes(scopes=["usage:read"]),
            allowed_cidrs=pb.Cidrs(cidrs=["10.0.0.0/8"]),
        ),
        metadata=ann.auth,
    )
    assert await keys.validate(token) == "KEY_NETWORK"
    (result,) = await keys.results([token], "10.0.0.1")
    assert list(result.key.scopes) == ["usage:read"]
    await keys.owner.RevokeKey(pb.RevokeKeyRequest(key_id=made.key.id), metadata=ann.auth)
    assert await keys.validate(token, "10.0.0.1") == "KEY_REVOKED"


async def test_a_token_ends_and_other_replicas_know_it(keys: Replica, world: World, ann: User) -> None:
    made = await create(keys, ann)
    async with world.replica() as other:
        minted = await keys.owner.MintToken(
            pb.MintTokenRequest(ttl=Duration(seconds=1)), metadata=with_key(made.secret)
        )
        assert await other.validate(minted.token) == "OK"
        await asyncio.sleep(1.1)
        assert [await replica.validate(minted.token) for replica in (keys, other)] == ["KEY_EXPIRED"] * 2


async def test_the_holder_of_a_token_can_revoke_its_key(keys: Replica, ann: User) -> None:
    """Whoever finds a token may end what it came from."""
    made = await create(keys, ann)
    token = (await keys.owner.MintToken(pb.MintTokenRequest(), metadata=with_key(made.secret))).token
    await keys.owner.RevokeSelf(pb.RevokeSelfRequest(), metadata=with_key(token))
    assert await keys.validate_all([made.secret, token]) == ["KEY_REVOKED"] * 2
