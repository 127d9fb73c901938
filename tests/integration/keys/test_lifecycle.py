"""Every RPC of the owner's service, through gRPC, as a logged-in user."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from servicekit.apikey import KEY_PATTERN
from servicekit.clock import uuid7
from servicekit.errors import InvalidArgument
from signgate.keys.v1 import keys_pb2 as pb
from tests.integration.keys.world import Replica, User, World, create, refused


def stamp(moment: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(moment)
    return message


async def test_a_created_key_works_and_its_secret_is_stored_nowhere(
    keys: Replica, world: World, ann: User
) -> None:
    made = await create(keys, ann, name="  ci  ")
    assert re.fullmatch(KEY_PATTERN, made.secret)
    assert made.key.name == "ci"
    assert made.key.masked == f"{made.secret[:12]}…{made.secret[-4:]}"
    assert list(made.key.scopes) == ["quota:read", "sign", "usage:read"]
    assert made.key.mode == pb.KEY_MODE_LIVE
    assert made.key.status == pb.KEY_STATUS_ACTIVE
    (result,) = await keys.results([made.secret])
    assert result.key.key_id == made.key.id
    assert result.key.user_id == str(ann.id)
    assert result.key.tier == "api_key"
    assert list(result.key.scopes) == list(made.key.scopes)
    dump = await world.sql.fetchval(
        "SELECT string_agg(k::text, '') || (SELECT string_agg(a::text, '') FROM public.key_audit a)"
        " FROM public.api_keys k"
    )
    assert made.secret[31:58] not in dump


async def test_all_members_of_a_key_reach_the_service_that_asks(keys: Replica, ann: User) -> None:
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(days=3)
    made = await create(
        keys, ann, scopes=["sign"], mode=pb.KEY_MODE_TEST, expires_at=stamp(end), daily_limit=7, per_minute=3,
        allowed_cidrs=["203.0.113.0/24", "2001:db8::/32"], engine="native",
    )  # fmt: skip
    assert made.secret.startswith("sgk_test_")
    assert made.key.mode == pb.KEY_MODE_TEST
    (result,) = await keys.results([made.secret], "203.0.113.9")
    assert list(result.key.scopes) == ["sign"]
    assert (result.key.daily_limit, result.key.per_minute, result.key.engine) == (7, 3, "native")
    assert result.key.expires_at.ToDatetime(UTC) == end
    fetched = (await keys.owner.GetKey(pb.GetKeyRequest(key_id=made.key.id), metadata=ann.auth)).key
    assert fetched == made.key


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"name": " "}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"scopes": ["sign", "admin"]}, "scopes"),
        ({"allowed_cidrs": ["10.0.0.1/8"]}, "allowed_cidrs[0]"),
        ({"allowed_cidrs": ["10.0.0.0/8", "nowhere"]}, "allowed_cidrs[1]"),
        ({"allowed_cidrs": [f"10.0.0.{i}" for i in range(33)]}, "allowed_cidrs"),
        ({"daily_limit": 0}, "daily_limit"),
        ({"daily_limit": 10_001}, "daily_limit"),
        ({"per_minute": 601}, "per_minute"),
        ({"per_minute": -1}, "per_minute"),
        ({"engine": "nobody"}, "engine"),
        ({"expires_at": Timestamp(seconds=1)}, "expires_at"),
        ({"expires_at": Timestamp(seconds=2**60)}, "expires_at"),
        ({"mode": 9}, "mode"),
    ],
)
async def test_a_wrong_member_is_named(keys: Replica, ann: User, members: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await create(keys, ann, **members)
    assert caught.value.reason == "VALIDATION_FAILED"
    assert field in [violation.field for violation in caught.value.violations]


async def test_the_number_of_working_keys_is_limited_also_at_once(world: World, ann: User) -> None:
    async with world.replica(key_limit=3) as keys:
        outcomes = await asyncio.gather(*(create(keys, ann) for _ in range(8)), return_exceptions=True)
        made = [outcome for outcome in outcomes if isinstance(outcome, pb.CreateKeyResponse)]
        assert len(made) == 3
        assert {getattr(o, "reason", "") for o in outcomes if o not in made} == {"KEY_LIMIT"}
        await keys.owner.RevokeKey(pb.RevokeKeyRequest(key_id=made[0].key.id), metadata=ann.auth)
        await create(keys, ann)


async def test_lists_run_newest_first_in_pages(keys: Replica, ann: User) -> None:
    made = [(await create(keys, ann, name=f"k{i}")).key.id for i in range(5)]
    await keys.owner.RevokeKey(pb.RevokeKeyRequest(key_id=made[0]), metadata=ann.auth)
    seen: list[str] = []
    token = ""
    pages = 0
    while True:
        page = await keys.owner.ListKeys(pb.ListKeysRequest(page_size=2, page_token=token), metadata=ann.auth)
        seen += [key.id for key in page.keys]
        pages += 1
        if not (token := page.next_page_token):
            break
    assert seen == made[:0:-1]
    assert pages == 2
    every = await keys.owner.ListKeys(pb.ListKeysRequest(include_inactive=True), metadata=ann.auth)
    assert [key.id for key in every.keys] == made[::-1]
    assert every.keys[-1].status == pb.KEY_STATUS_REVOKED
    wrong = pb.ListKeysRequest(page_token="AAAA")
    assert await refused(keys.owner.ListKeys(wrong, metadata=ann.auth)) == "PAGE_TOKEN_INVALID"
    negative = pb.ListKeysRequest(page_size=-1)
    assert await refused(keys.owner.ListKeys(negative, metadata=ann.auth)) == "VALIDATION_FAILED"


async def test_an_update_changes_what_it_names_and_counts_at_once(keys: Replica, ann: User) -> None:
    made = await create(keys, ann, daily_limit=5, per_minute=5, scopes=["sign"])
    assert await keys.validate(made.secret) == "OK"
    updated = await keys.owner.UpdateKey(
        pb.UpdateKeyRequest(
            key_id=made.key.id, name="new", scopes=pb.Scopes(scopes=["sign", "keys:read"]), daily_limit=0,
            allowed_cidrs=pb.Cidrs(cidrs=["10.0.0.0/8"]), engine="native",
        ),
        metadata=ann.auth,
    )  # fmt: skip
    key = updated.key
    assert (key.name, list(key.scopes), key.per_minute, key.engine) == (
        "new",
        ["keys:read", "sign"],
        5,
        "native",
    )
    assert not key.HasField("daily_limit")
    assert key.updated_at.ToDatetime() > made.key.updated_at.ToDatetime()
    assert await keys.validate(made.secret, "192.0.2.1") == "KEY_NETWORK"
    (result,) = await keys.results([made.secret], "10.1.2.3")
    assert list(result.key.scopes) == ["keys:read", "sign"]
    assert result.key.daily_limit == 0
    both = pb.UpdateKeyRequest(
        key_id=made.key.id, clear_expires_at=True, expires_at=stamp(datetime.now(UTC) + timedelta(1))
    )
    assert await refused(keys.owner.UpdateKey(both, metadata=ann.auth)) == "VALIDATION_FAILED"
    none = pb.UpdateKeyRequest(key_id=made.key.id, scopes=pb.Scopes())
    assert await refused(keys.owner.UpdateKey(none, metadata=ann.auth)) == "VALIDATION_FAILED"


async def test_an_end_can_be_set_and_taken_away(keys: Replica, ann: User) -> None:
    made = await create(keys, ann)
    soon = stamp(datetime.now(UTC) + timedelta(hours=1))
    updated = await keys.owner.UpdateKey(
        pb.UpdateKeyRequest(key_id=made.key.id, expires_at=soon), metadata=ann.auth
    )
    assert updated.key.expires_at == soon
    cleared = await keys.owner.UpdateKey(
        pb.UpdateKeyRequest(key_id=made.key.id, clear_expires_at=True), metadata=ann.auth
    )
    assert not cleared.key.HasField("expires_at")


async def test_rotation_lets_both_work_until_the_grace_period_ends(
    keys: Replica, world: World, ann: User
) -> None:
    made = await create(keys, ann, name="prod", scopes=["sign"], daily_limit=9)
    rotated = await keys.owner.RotateKey(pb.RotateKeyRequest(key_id=made.key.id), metadata=ann.auth)
    assert rotated.key.rotated_from == made.key.id
    assert (rotated.key.name, rotated.key.daily_limit, list(rotated.key.scopes)) == ("prod", 9, ["sign"])
    assert rotated.previous.status == pb.KEY_STATUS_ROTATING
    left = rotated.previous.expires_at.ToDatetime(UTC) - datetime.now(UTC)
    assert timedelta(hours=23) < left <= timedelta(days=1)
    assert await keys.validate_all([made.secret, rotated.secret]) == ["OK", "OK"]
    again = pb.RotateKeyRequest(key_id=made.key.id)
    assert await refused(keys.owner.RotateKey(again, metadata=ann.auth)) == "KEY_ROTATED"
    at_once = await keys.owner.RotateKey(
        pb.RotateKeyRequest(key_id=rotated.key.id, grace_period=Duration()), metadata=ann.auth
    )
    assert await keys.validate_all([rotated.secret, at_once.secret]) == ["KEY_EXPIRED", "OK"]
    expired = pb.RotateKeyRequest(key_id=rotated.key.id)
    assert await refused(keys.owner.RotateKey(expired, metadata=ann.auth)) == "KEY_EXPIRED"
    long = pb.RotateKeyRequest(key_id=at_once.key.id, grace_period=Duration(seconds=31 * 86_400))
    assert await refused(keys.owner.RotateKey(long, metadata=ann.auth)) == "VALIDATION_FAILED"


async def test_a_revoked_key_is_refused_at_once_and_for_good(keys: Replica, ann: User) -> None:
    made = await create(keys, ann)
    assert await keys.validate(made.secret) == "OK"
    revoked = await keys.owner.RevokeKey(pb.RevokeKeyRequest(key_id=made.key.id), metadata=ann.auth)
    assert revoked.key.status == pb.KEY_STATUS_REVOKED
    (result,) = await keys.results([made.secret])
    assert result.refusal.reason == "KEY_REVOKED"
    assert (result.refusal.user_id, result.refusal.key_id) == (str(ann.id), made.key.id)
    again = await keys.owner.RevokeKey(pb.RevokeKeyRequest(key_id=made.key.id), metadata=ann.auth)
    assert again.key == revoked.key
    update = pb.UpdateKeyRequest(key_id=made.key.id, name="back")
    assert await refused(keys.owner.UpdateKey(update, metadata=ann.auth)) == "KEY_REVOKED"
    rotate = pb.RotateKeyRequest(key_id=made.key.id)
    assert await refused(keys.owner.RotateKey(rotate, metadata=ann.auth)) == "KEY_REVOKED"


async def test_every_change_leaves_a_row_with_who_when_what_and_which_request(
    keys: Replica, ann: User
) -> None:
    made = await create(keys, ann, name="a", scopes=["keys:manage", "keys:read"])
    as_key = (("x-api-key", made.secret), ("x-request-id", "request-of-the-key"))
    await keys.owner.UpdateKey(pb.UpdateKeyRequest(key_id=made.key.id, name="b"), metadata=as_key)
    # The same again is no change.
    await keys.owner.UpdateKey(pb.UpdateKeyRequest(key_id=made.key.id, name="b"), metadata=as_key)
    await keys.owner.RotateKey(pb.RotateKeyRequest(key_id=made.key.id), metadata=ann.auth)
    await keys.owner.RevokeKey(pb.RevokeKeyRequest(key_id=made.key.id), metadata=ann.auth)
    listed = await keys.owner.ListKeyEvents(pb.ListKeyEventsRequest(key_id=made.key.id), metadata=ann.auth)
    events = list(listed.events)
    assert [event.action for event in events] == ["key.revoked", "key.rotated", "key.updated", "key.created"]
    created, updated = events[3], events[2]
    assert (created.actor_kind, created.actor_id) == ("user", str(ann.id))
    assert (updated.actor_kind, updated.actor_id) == ("key", made.key.id)
    assert updated.request_id == "request-of-the-key"
    assert json.loads(updated.changes_json) == {"name": ["a", "b"]}
    assert events[0].created_at.ToDatetime() > created.created_at.ToDatetime()
    assert all(event.request_id for event in events)
    assert made.secret[31:58] not in str(events)
    first = await keys.owner.ListKeyEvents(
        pb.ListKeyEventsRequest(key_id=made.key.id, page_size=3), metadata=ann.auth
    )
    rest = await keys.owner.ListKeyEvents(
        pb.ListKeyEventsRequest(key_id=made.key.id, page_size=3, page_token=first.next_page_token),
        metadata=ann.auth,
    )
    assert [*first.events, *rest.events] == events
    assert rest.next_page_token == ""


async def test_another_users_key_is_as_one_that_does_not_exist(
    keys: Replica, world: World, ann: User, bob: User
) -> None:
    made = await create(keys, ann)
    before = await world.sql.fetchrow("SELECT * FROM public.api_keys")
    # From the contract itself, so that a new RPC can't be forgotten.
    methods = [
        m
        for m in pb.DESCRIPTOR.services_by_name["KeysService"].methods
        if "key_id" in m.input_type.fields_by_name
    ]
    assert len(methods) >= 5
    for method in methods:
        call, request = getattr(keys.owner, method.name), getattr(pb, method.input_type.name)
        for key_id in (made.key.id, str(uuid7())):
            assert await refused(call(request(key_id=key_id), metadata=bob.auth)) == "KEY_NOT_FOUND", (
                method.name
            )
    listed = await keys.owner.ListKeys(pb.ListKeysRequest(include_inactive=True), metadata=bob.auth)
    assert not listed.keys
    assert await world.sql.fetchrow("SELECT * FROM public.api_keys") == before
    assert await refused(keys.owner.GetKey(pb.GetKeyRequest(key_id="x"), metadata=ann.auth)) == (
        "VALIDATION_FAILED"
    )


async def test_a_token_of_an_account_that_is_gone_makes_no_key(
    keys: Replica, world: World, ann: User
) -> None:
    await world.sql.execute("DELETE FROM public.users WHERE id = $1", ann.id)
    assert await refused(create(keys, ann)) == "USER_UNKNOWN"
