"""A key gives at most what it has and raises no key, itself included; taking power away is always allowed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from google.protobuf.duration_pb2 import Duration

from servicekit.apikey import mint
from servicekit.clock import SystemEntropy, uuid7
from servicekit.errors import PermissionDenied
from signgate.keys.v1 import keys_pb2 as pb
from tests.integration.keys.test_lifecycle import stamp
from tests.integration.keys.world import Replica, User, World, create, refused, with_key

SCOPES = ["keys:manage", "keys:read", "sign"]
HERE = ["127.0.0.0/8"]
ELSEWHERE = ["203.0.113.0/24"]
SOON = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)
LATER = SOON + timedelta(days=1)
BOUND: dict[str, Any] = {
    "scopes": SCOPES, "expires_at": stamp(SOON), "allowed_cidrs": HERE, "daily_limit": 50, "per_minute": 5,
    "mode": pb.KEY_MODE_TEST, "engine": "native",
}  # fmt: skip
WIDER: dict[str, Any] = {
    "expires_at": stamp(LATER), "allowed_cidrs": ["127.0.0.0/8", "10.0.0.0/8"], "daily_limit": 51,
    "per_minute": 6, "mode": pb.KEY_MODE_LIVE, "engine": "websdk",
}  # fmt: skip


@pytest.fixture
async def keys(world: World) -> AsyncIterator[Replica]:
    async with world.replica(engines=["native", "websdk"]) as found:
        yield found


def bounds(key: pb.Key) -> dict[str, Any]:
    """The members that bound a key, as `BOUND` writes them."""
    return {
        "scopes": list(key.scopes),
        "expires_at": key.expires_at,
        "allowed_cidrs": list(key.allowed_cidrs),
        "daily_limit": key.daily_limit if key.HasField("daily_limit") else None,
        "per_minute": key.per_minute if key.HasField("per_minute") else None,
        "mode": key.mode,
        "engine": key.engine,
    }


async def refused_fields(call: Any) -> set[str]:
    """The members for which a call is refused as wider than its caller."""
    with pytest.raises(PermissionDenied) as caught:
        await call
    assert caught.value.reason == "KEY_WIDER_THAN_CALLER"
    found = {violation.field for violation in caught.value.violations}
    assert set(caught.value.metadata["fields"].split()) == found
    return found


async def state(world: World) -> list[Any]:
    """All keys as they are stored."""
    return await world.sql.fetch("SELECT * FROM public.api_keys ORDER BY id")


async def test_a_bound_key_makes_keys_that_are_bound_as_it_is(keys: Replica, ann: User) -> None:
    """S20: members that are not named are those of the calling key."""
    own = await create(keys, ann, **BOUND)
    made = await keys.owner.CreateKey(
        pb.CreateKeyRequest(name="x", scopes=SCOPES), metadata=with_key(own.secret)
    )
    assert bounds(made.key) == BOUND
    assert made.secret.startswith("sgk_test_")
    # And so on: what it makes is no freer.
    again = await keys.owner.CreateKey(
        pb.CreateKeyRequest(name="x", scopes=SCOPES), metadata=with_key(made.secret)
    )
    assert bounds(again.key) == BOUND


@pytest.mark.parametrize("member", sorted(WIDER))
async def test_a_key_makes_no_key_that_is_wider_in_any_member(
    keys: Replica, world: World, ann: User, member: str
) -> None:
    """S20."""
    own = await create(keys, ann, **BOUND)
    before = await state(world)
    wider = pb.CreateKeyRequest(**{"name": "x", **BOUND, member: WIDER[member]})
    assert await refused_fields(keys.owner.CreateKey(wider, metadata=with_key(own.secret))) == {member}
    assert await state(world) == before


async def test_all_members_that_are_wider_are_named(keys: Replica, ann: User) -> None:
    """S20."""
    own = await create(keys, ann, **BOUND)
    wider = pb.CreateKeyRequest(**{"name": "x", "scopes": ["sign"], **WIDER})
    assert await refused_fields(keys.owner.CreateKey(wider, metadata=with_key(own.secret))) == set(WIDER)


async def test_a_key_makes_narrower_keys(keys: Replica, ann: User) -> None:
    own = await create(keys, ann, **BOUND)
    narrower = {
        **BOUND, "scopes": ["sign"], "expires_at": stamp(SOON - timedelta(days=1)), "daily_limit": 1,
        "per_minute": 1, "allowed_cidrs": ["127.0.0.1/32", "127.128.0.0/9"],
    }  # fmt: skip
    request = pb.CreateKeyRequest(**{"name": "x", **narrower})
    made = await keys.owner.CreateKey(request, metadata=with_key(own.secret))
    assert bounds(made.key) == narrower
    free = await create(keys, ann, scopes=SCOPES)
    test_key = pb.CreateKeyRequest(**{"name": "x", **BOUND})
    made = await keys.owner.CreateKey(test_key, metadata=with_key(free.secret))
    assert bounds(made.key) == BOUND


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ({"expires_at": stamp(LATER)}, {"expires_at"}),
        ({"clear_expires_at": True}, {"expires_at"}),
        ({"allowed_cidrs": pb.Cidrs()}, {"allowed_cidrs"}),
        ({"allowed_cidrs": pb.Cidrs(cidrs=["0.0.0.0/0", "::/0"])}, {"allowed_cidrs"}),
        ({"allowed_cidrs": pb.Cidrs(cidrs=["127.0.0.1/32", "10.0.0.1/32"])}, {"allowed_cidrs"}),
        ({"daily_limit": 0}, {"daily_limit"}),
        ({"daily_limit": 51}, {"daily_limit"}),
        ({"per_minute": 0}, {"per_minute"}),
        ({"per_minute": 6}, {"per_minute"}),
        ({"engine": ""}, {"engine"}),
        ({"engine": "websdk"}, {"engine"}),
        (
            {"clear_expires_at": True, "allowed_cidrs": pb.Cidrs(), "daily_limit": 0, "name": "free"},
            {"expires_at", "allowed_cidrs", "daily_limit"},
        ),
    ],
)
async def test_a_key_raises_neither_itself_nor_its_like(
    keys: Replica, world: World, ann: User, change: dict[str, Any], fields: set[str]
) -> None:
    """S21."""
    own = await create(keys, ann, **BOUND)
    like = await create(keys, ann, **BOUND)
    before = await state(world)
    for key in (own.key, like.key):
        update = pb.UpdateKeyRequest(key_id=key.id, **change)
        assert await refused_fields(keys.owner.UpdateKey(update, metadata=with_key(own.secret))) == fields
    assert await state(world) == before
    # A login may.
    await keys.owner.UpdateKey(pb.UpdateKeyRequest(key_id=own.key.id, **change), metadata=ann.auth)


async def test_a_key_narrows_itself_and_a_wider_one(keys: Replica, ann: User) -> None:
    """S21: power can always be taken away."""
    own = await create(keys, ann, **BOUND)
    wider = await create(keys, ann, scopes=[*SCOPES, "profile:write"])
    end = stamp(SOON - timedelta(hours=1))
    for key in (wider.key, own.key):
        update = pb.UpdateKeyRequest(
            key_id=key.id, expires_at=end, allowed_cidrs=pb.Cidrs(cidrs=["127.0.0.1"]), daily_limit=2,
            per_minute=1, engine="native", scopes=pb.Scopes(scopes=SCOPES),
        )  # fmt: skip
        answer = await keys.owner.UpdateKey(update, metadata=with_key(own.secret))
        assert bounds(answer.key) == {
            **BOUND, "expires_at": end, "allowed_cidrs": ["127.0.0.1/32"], "daily_limit": 2, "per_minute": 1,
            "mode": key.mode,
        }  # fmt: skip


async def test_no_part_of_a_wider_key_is_widened(keys: Replica, ann: User) -> None:
    """S21: its scopes with the caller's network are more than either has."""
    own = await create(keys, ann, scopes=SCOPES, allowed_cidrs=HERE)
    wider = await create(keys, ann, scopes=["profile:write", "sign"], allowed_cidrs=ELSEWHERE, daily_limit=1)
    both = pb.UpdateKeyRequest(key_id=wider.key.id, allowed_cidrs=pb.Cidrs(cidrs=HERE))
    assert await refused(keys.owner.UpdateKey(both, metadata=with_key(own.secret))) == "SCOPE_MISSING"
    elsewhere = await create(keys, ann, scopes=["sign"], allowed_cidrs=ELSEWHERE, daily_limit=1)
    more = pb.UpdateKeyRequest(key_id=elsewhere.key.id, daily_limit=2)
    fields = await refused_fields(keys.owner.UpdateKey(more, metadata=with_key(own.secret)))
    assert fields == {"allowed_cidrs"}
    # A name is no power.
    renamed = pb.UpdateKeyRequest(key_id=wider.key.id, name="renamed")
    assert (await keys.owner.UpdateKey(renamed, metadata=with_key(own.secret))).key.name == "renamed"


@pytest.mark.parametrize("member", sorted(WIDER))
async def test_a_key_rotates_no_wider_key(keys: Replica, world: World, ann: User, member: str) -> None:
    """S20: it would hold the successor."""
    own = await create(keys, ann, **BOUND)
    wider = await create(keys, ann, **{**BOUND, member: WIDER[member]})
    before = await state(world)
    rotate = pb.RotateKeyRequest(key_id=wider.key.id)
    assert await refused_fields(keys.owner.RotateKey(rotate, metadata=with_key(own.secret))) == {member}
    assert await state(world) == before


async def test_a_key_rotates_itself_and_then_gives_until_its_grace_ends(keys: Replica, ann: User) -> None:
    """S20: the end of the grace period is an end."""
    own = await create(keys, ann, **BOUND)
    rotated = await keys.owner.RotateKey(
        pb.RotateKeyRequest(key_id=own.key.id, grace_period=Duration(seconds=600)),
        metadata=with_key(own.secret),
    )
    assert bounds(rotated.key) == BOUND
    made = await keys.owner.CreateKey(
        pb.CreateKeyRequest(name="x", scopes=["sign"]), metadata=with_key(own.secret)
    )
    assert made.key.expires_at == rotated.previous.expires_at
    longer = pb.CreateKeyRequest(name="x", scopes=["sign"], expires_at=stamp(SOON))
    fields = await refused_fields(keys.owner.CreateKey(longer, metadata=with_key(own.secret)))
    assert fields == {"expires_at"}
    successor = pb.RotateKeyRequest(key_id=rotated.key.id)
    fields = await refused_fields(keys.owner.RotateKey(successor, metadata=with_key(own.secret)))
    assert fields == {"expires_at"}


async def test_what_a_token_gives_ends_with_it(keys: Replica, ann: User) -> None:
    """S20: a short life would mean nothing if it could make a long one."""
    own = await create(keys, ann, **BOUND)
    minted = await keys.owner.MintToken(
        pb.MintTokenRequest(scopes=["keys:manage"], ttl=Duration(seconds=600)), metadata=with_key(own.secret)
    )
    token = with_key(minted.token)
    request = pb.CreateKeyRequest(name="x", scopes=["keys:manage"])
    made = await keys.owner.CreateKey(request, metadata=token)
    assert bounds(made.key) == {**BOUND, "scopes": ["keys:manage"], "expires_at": minted.expires_at}
    more = pb.CreateKeyRequest(name="x", scopes=["keys:manage", "sign"])
    assert await refused(keys.owner.CreateKey(more, metadata=token)) == "SCOPE_MISSING"
    longer = pb.CreateKeyRequest(name="x", scopes=["keys:manage"], expires_at=stamp(SOON))
    assert await refused_fields(keys.owner.CreateKey(longer, metadata=token)) == {"expires_at"}
    assert await refused(keys.owner.RotateKey(pb.RotateKeyRequest(key_id=own.key.id), metadata=token)) == (
        "SCOPE_MISSING"
    )
    every = await keys.owner.MintToken(pb.MintTokenRequest(scopes=SCOPES), metadata=with_key(own.secret))
    rotate = keys.owner.RotateKey(pb.RotateKeyRequest(key_id=own.key.id), metadata=with_key(every.token))
    assert await refused_fields(rotate) == {"expires_at"}
    # What it may do beyond that, it does: it takes away.
    narrow = pb.UpdateKeyRequest(key_id=own.key.id, daily_limit=1)
    assert (await keys.owner.UpdateKey(narrow, metadata=with_key(every.token))).key.daily_limit == 1


async def test_a_token_ends_no_later_than_its_key(keys: Replica, ann: User) -> None:
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=2)
    own = await create(keys, ann, expires_at=stamp(end))
    minted = await keys.owner.MintToken(
        pb.MintTokenRequest(ttl=Duration(seconds=3600)), metadata=with_key(own.secret)
    )
    assert minted.expires_at == stamp(end)
    (result,) = await keys.results([minted.token])
    assert result.key.expires_at == stamp(end)


async def test_a_narrowing_or_a_revocation_under_way_counts(keys: Replica, world: World, ann: User) -> None:
    """S20: the calling key's row is read in the transaction that gives, and locked."""
    own = await create(keys, ann, scopes=SCOPES)
    caller = with_key(own.secret)
    await keys.owner.ListKeys(pb.ListKeysRequest(), metadata=caller)  # its record is in memory
    for change, reason in (("daily_limit = 3", ""), ("revoked_at = now()", "KEY_REVOKED")):
        async with world.sql.transaction():
            await world.sql.execute(f"UPDATE public.api_keys SET {change} WHERE id = $1", own.key.id)
            call = asyncio.ensure_future(
                keys.owner.CreateKey(pb.CreateKeyRequest(name="x", scopes=["sign"]), metadata=caller)
            )
            await waits_for_a_lock(world)
        if reason:
            assert await refused(call) == reason
        else:
            assert (await call).key.daily_limit == 3


async def test_who_gives_and_who_locks_the_user_first_wait_in_one_order(
    keys: Replica, world: World, ann: User
) -> None:
    """S20: no circle between a key that makes keys and a transaction that locks the user, then their keys."""
    own = await create(keys, ann, scopes=SCOPES)
    async with world.sql.transaction():
        await world.sql.execute("SELECT FROM public.users WHERE id = $1 FOR NO KEY UPDATE", ann.id)
        call = asyncio.ensure_future(
            keys.owner.CreateKey(
                pb.CreateKeyRequest(name="x", scopes=["sign"]), metadata=with_key(own.secret)
            )
        )
        await waits_for_a_lock(world)
        await world.sql.execute("UPDATE public.api_keys SET revoked_at = now() WHERE user_id = $1", ann.id)
    assert await refused(call) == "KEY_REVOKED"


async def waits_for_a_lock(world: World) -> None:
    """Until another connection waits for one that this test's transaction holds."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid))"
    for _ in range(1000):
        if await world.sql.fetchval(waiting):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("nothing waits")


@pytest.mark.parametrize("by", ["login", "key"])
async def test_an_expired_key_stays_expired(keys: Replica, world: World, ann: User, by: str) -> None:
    """S21: for its owner too; what has ended may be known to others."""
    caller = ann.auth if by == "login" else with_key((await create(keys, ann, scopes=SCOPES)).secret)
    by_end = await create(keys, ann, scopes=["sign"], expires_at=stamp(SOON))
    by_grace = await create(keys, ann, scopes=["sign"])
    await keys.owner.RotateKey(
        pb.RotateKeyRequest(key_id=by_grace.key.id, grace_period=Duration()), metadata=ann.auth
    )
    await world.sql.execute("UPDATE public.api_keys SET expires_at = now() WHERE id = $1", by_end.key.id)
    before = await state(world)
    for made in (by_end, by_grace):
        for change in ({"expires_at": stamp(LATER)}, {"clear_expires_at": True}):
            update = pb.UpdateKeyRequest(key_id=made.key.id, **change)
            assert await refused(keys.owner.UpdateKey(update, metadata=caller)) == "KEY_EXPIRED"
        rotate = pb.RotateKeyRequest(key_id=made.key.id)
        assert await refused(keys.owner.RotateKey(rotate, metadata=caller)) == "KEY_EXPIRED"
    assert await state(world) == before
    assert await keys.validate_all([by_end.secret, by_grace.secret]) == ["KEY_EXPIRED"] * 2
    # It can still be named, and revoked.
    named = pb.UpdateKeyRequest(key_id=by_end.key.id, name="old")
    assert (await keys.owner.UpdateKey(named, metadata=caller)).key.name == "old"
    revoked = await keys.owner.RevokeKey(pb.RevokeKeyRequest(key_id=by_end.key.id), metadata=caller)
    assert revoked.key.status == pb.KEY_STATUS_REVOKED


async def test_a_grace_period_is_not_prolonged(keys: Replica, ann: User) -> None:
    """S21."""
    made = await create(keys, ann, scopes=SCOPES)
    rotated = await keys.owner.RotateKey(
        pb.RotateKeyRequest(key_id=made.key.id, grace_period=Duration(seconds=600)), metadata=ann.auth
    )
    end = rotated.previous.expires_at
    for change in ({"expires_at": stamp(LATER)}, {"clear_expires_at": True}):
        update = pb.UpdateKeyRequest(key_id=made.key.id, **change)
        assert (await keys.owner.UpdateKey(update, metadata=ann.auth)).key.expires_at == end


async def test_who_finds_a_key_revokes_it_from_anywhere(keys: Replica, ann: User) -> None:
    """S22: the networks bound its use, not its end."""
    made = await create(keys, ann, scopes=["sign"], allowed_cidrs=ELSEWHERE)
    assert await keys.validate(made.secret, "203.0.113.9") == "OK"
    token = await create(keys, ann, scopes=["sign"])
    minted = await keys.owner.MintToken(pb.MintTokenRequest(), metadata=with_key(token.secret))
    narrowed = pb.UpdateKeyRequest(key_id=token.key.id, allowed_cidrs=pb.Cidrs(cidrs=ELSEWHERE))
    await keys.owner.UpdateKey(narrowed, metadata=ann.auth)
    for own, secret in ((made, made.secret), (token, minted.token)):
        mint_token = keys.owner.MintToken(pb.MintTokenRequest(), metadata=with_key(secret))
        assert await refused(mint_token) == "KEY_NETWORK"
        answer = await keys.owner.RevokeSelf(pb.RevokeSelfRequest(), metadata=with_key(secret))
        assert (answer.key.id, answer.key.status) == (own.key.id, pb.KEY_STATUS_REVOKED)
        assert await keys.validate(own.secret, "203.0.113.9") == "KEY_REVOKED"
        again = await keys.owner.RevokeSelf(pb.RevokeSelfRequest(), metadata=with_key(secret))
        assert again.key == answer.key


async def test_a_key_that_is_refused_otherwise_is_revoked_as_well(
    keys: Replica, world: World, ann: User
) -> None:
    """S22: it may hold again tomorrow, or has another end than its finder knows."""
    expired = await create(keys, ann, scopes=["sign"])
    await world.sql.execute("UPDATE public.api_keys SET expires_at = now() WHERE id = $1", expired.key.id)
    assert await keys.validate(expired.secret) == "KEY_EXPIRED"
    dormant = await create(keys, ann, scopes=["sign"])
    await world.sql.execute("UPDATE public.users SET is_active = false WHERE id = $1", ann.id)
    async with world.replica() as other:
        assert await other.validate(dormant.secret) == "USER_INACTIVE"
        for made in (expired, dormant):
            answer = await other.owner.RevokeSelf(pb.RevokeSelfRequest(), metadata=with_key(made.secret))
            assert (answer.key.id, answer.key.status) == (made.key.id, pb.KEY_STATUS_REVOKED)
    events = await world.sql.fetch("SELECT * FROM public.key_audit WHERE action = 'key.revoked'")
    assert {str(event["actor_id"]) for event in events} == {expired.key.id, dormant.key.id}


async def test_only_the_secret_itself_revokes(keys: Replica, world: World, ann: User) -> None:
    """S22: a key's id is public, and a token that has expired proves nothing any more."""
    made = await create(keys, ann, scopes=["sign"], allowed_cidrs=ELSEWHERE)
    other = await create(keys, ann, scopes=["sign"])
    minted = await keys.owner.MintToken(
        pb.MintTokenRequest(ttl=Duration(seconds=1)), metadata=with_key(other.secret)
    )
    before = await state(world)

    def revoke(*metadata: tuple[str, str]) -> Any:
        return keys.owner.RevokeSelf(pb.RevokeSelfRequest(), metadata=metadata)

    forged = mint("live", UUID(made.key.id), SystemEntropy())
    assert await refused(revoke(*with_key(forged))) == "KEY_UNKNOWN"
    assert await refused(revoke(*with_key(mint("live", uuid7(), SystemEntropy())))) == "KEY_UNKNOWN"
    assert await refused(revoke(*with_key(made.secret[:-1]))) == "KEY_MALFORMED"
    assert await refused(revoke(*with_key(minted.token[:-4] + "AAAA"))) == "KEY_MALFORMED"
    assert await refused(revoke()) == "CREDENTIAL_MISSING"
    assert await refused(revoke(*ann.auth)) == "API_KEY_REQUIRED"
    assert await refused(revoke(("authorization", "Basic abc"))) != ""
    while await keys.validate(minted.token) == "OK":
        await asyncio.sleep(0.05)
    assert await refused(revoke(*with_key(minted.token))) == "KEY_EXPIRED"
    assert await state(world) == before


@pytest.mark.parametrize("text", ["::ffff:127.0.0.1/128", "::ffff:127.0.0.1", "::ffff:7f00:0/104"])
async def test_a_mapped_network_is_the_ipv4_network_that_it_is(keys: Replica, ann: User, text: str) -> None:
    """S23."""
    canonical = "127.0.0.0/8" if "/104" in text else "127.0.0.1/32"
    made = await create(keys, ann, scopes=SCOPES, allowed_cidrs=[text, canonical])
    assert list(made.key.allowed_cidrs) == [canonical]
    assert await keys.validate(made.secret, "127.0.0.1") == "OK"
    assert await keys.validate(made.secret, "::ffff:127.0.0.1") == "OK"
    assert await keys.validate(made.secret, "128.0.0.1") == "KEY_NETWORK"
    listed = await keys.owner.ListKeys(pb.ListKeysRequest(), metadata=with_key(made.secret))
    assert list(listed.keys[0].allowed_cidrs) == [canonical]
    update = pb.UpdateKeyRequest(key_id=made.key.id, allowed_cidrs=pb.Cidrs(cidrs=[text]))
    assert list((await keys.owner.UpdateKey(update, metadata=ann.auth)).key.allowed_cidrs) == [canonical]


@pytest.mark.parametrize("text", ["::ffff:0:0/95", "::/64", "::127.0.0.1", "fe80::1%eth0", "127.0.0.1/8"])
async def test_a_network_that_no_caller_is_in_is_refused(keys: Replica, ann: User, text: str) -> None:
    """S23."""
    assert await refused(create(keys, ann, allowed_cidrs=[text])) == "VALIDATION_FAILED"
    made = await create(keys, ann)
    update = pb.UpdateKeyRequest(key_id=made.key.id, allowed_cidrs=pb.Cidrs(cidrs=[text]))
    assert await refused(keys.owner.UpdateKey(update, metadata=ann.auth)) == "VALIDATION_FAILED"


async def test_a_network_that_was_stored_as_mapped_counts(keys: Replica, world: World, ann: User) -> None:
    """S23: rows from before."""
    made = await create(keys, ann, scopes=SCOPES)
    await world.sql.execute("UPDATE public.api_keys SET cidrs = '{::ffff:127.0.0.1/128}'")
    async with world.replica() as fresh:
        assert await fresh.validate(made.secret, "127.0.0.1") == "OK"
        request = pb.CreateKeyRequest(name="x", scopes=["sign"])
        child = await fresh.owner.CreateKey(request, metadata=with_key(made.secret))
        assert list(child.key.allowed_cidrs) == ["127.0.0.1/32"]


@pytest.mark.parametrize("char", list("\u3164\u2060\u00ad\u2800\u200d\u034f\ufe0f\u2066\u0007\U000e0041"))
async def test_a_name_has_no_invisible_characters(keys: Replica, ann: User, char: str) -> None:
    """S26."""
    made = await create(keys, ann)
    for name in (char, char * 3, f"a{char}b", f"{char}a", f"a{char}"):
        assert await refused(create(keys, ann, name=name)) == "VALIDATION_FAILED"
        update = pb.UpdateKeyRequest(key_id=made.key.id, name=name)
        assert await refused(keys.owner.UpdateKey(update, metadata=ann.auth)) == "VALIDATION_FAILED"


async def test_a_name_is_stored_in_one_form(keys: Replica, ann: User) -> None:
    """S26."""
    made = await create(keys, ann, name=" cle\u0301 🚀 ")
    assert made.key.name == "cl\u00e9 🚀"
    found = await keys.owner.ListKeys(pb.ListKeysRequest(name_contains="cle\u0301"), metadata=ann.auth)
    assert [key.id for key in found.keys] == [made.key.id]


async def test_a_repeat_gives_no_more_than_the_caller_has_now(keys: Replica, ann: User) -> None:
    """S20: the kept answer holds a secret, which is given again."""
    own = await create(keys, ann, scopes=SCOPES)
    request = pb.CreateKeyRequest(name="x", scopes=["sign"], idempotency_key="once")
    made = await keys.owner.CreateKey(request, metadata=with_key(own.secret))
    minted = await keys.owner.MintToken(pb.MintTokenRequest(scopes=SCOPES), metadata=with_key(own.secret))
    by_token = keys.owner.CreateKey(request, metadata=with_key(minted.token))
    assert await refused_fields(by_token) == {"expires_at"}
    again = await keys.owner.CreateKey(request, metadata=with_key(own.secret))
    assert again.secret == made.secret
    await keys.owner.UpdateKey(pb.UpdateKeyRequest(key_id=own.key.id, daily_limit=3), metadata=ann.auth)
    assert await refused_fields(keys.owner.CreateKey(request, metadata=with_key(own.secret))) == {
        "daily_limit"
    }


async def test_a_key_that_rotated_itself_can_ask_again_for_its_successor(keys: Replica, ann: User) -> None:
    own = await create(keys, ann, **BOUND)
    request = pb.RotateKeyRequest(key_id=own.key.id, idempotency_key="once")
    first = await keys.owner.RotateKey(request, metadata=with_key(own.secret))
    again = await keys.owner.RotateKey(request, metadata=with_key(own.secret))
    assert (again.secret, again.key) == (first.secret, first.key)
    minted = await keys.owner.MintToken(pb.MintTokenRequest(scopes=SCOPES), metadata=with_key(own.secret))
    by_token = keys.owner.RotateKey(request, metadata=with_key(minted.token))
    assert await refused_fields(by_token) == {"expires_at"}
    for change in ({"expires_at": stamp(LATER)}, {"clear_expires_at": True}):
        update = pb.UpdateKeyRequest(key_id=first.key.id, **change)
        await keys.owner.UpdateKey(update, metadata=ann.auth)
        longer = keys.owner.RotateKey(request, metadata=with_key(own.secret))
        assert await refused_fields(longer) == {"expires_at"}, change


async def test_who_finds_a_key_is_told_nothing_that_its_owner_wrote(keys: Replica, ann: User) -> None:
    """S22: a finder is a stranger. Which key it was, and that it has ended."""
    end = stamp(LATER)
    written = {"name": "billing of Ann", "metadata": {"customer": "Ann"}, "external_id": "ann-42"}
    made = await create(keys, ann, allowed_cidrs=ELSEWHERE, expires_at=end, per_minute=5, **written)
    for _ in range(2):
        answer = await keys.owner.RevokeSelf(pb.RevokeSelfRequest(), metadata=with_key(made.secret))
        assert answer.key.revoked_at.seconds
        assert answer.key == pb.Key(
            id=made.key.id,
            masked=made.key.masked,
            status=pb.KEY_STATUS_REVOKED,
            created_at=made.key.created_at,
            expires_at=end,
            revoked_at=answer.key.revoked_at,
        )
