"""Metadata and external ids: kept, copied, on record, and searched by."""

from __future__ import annotations

import json
from typing import Any

import grpc
import pytest

from servicekit.errors import InvalidArgument
from signgate.keys.v1 import keys_pb2 as pb
from signgate.keys.v1 import keys_pb2_grpc
from tests.integration.keys.world import Replica, User, create, refused


async def update(replica: Replica, user: User, key_id: str, **members: Any) -> pb.Key:
    request = pb.UpdateKeyRequest(key_id=key_id, **members)
    return (await replica.owner.UpdateKey(request, metadata=user.auth)).key


async def names(replica: Replica, user: User, **filters: Any) -> list[str]:
    """Of the keys that match, through all pages of one key."""
    found: list[str] = []
    token = ""
    while True:
        request = pb.ListKeysRequest(page_size=1, page_token=token, **filters)
        page = await replica.owner.ListKeys(request, metadata=user.auth)
        found += [key.name for key in page.keys]
        if not (token := page.next_page_token):
            return found


async def test_a_key_has_the_metadata_and_the_external_id_that_it_was_given(keys: Replica, ann: User) -> None:
    given = {"team": "blau", "env": "prod/eu-1", "note": "größer, “quoted” \\ 🔑"}
    made = await create(keys, ann, metadata=given, external_id="cust_42:a/b")
    assert dict(made.key.metadata) == given
    assert made.key.external_id == "cust_42:a/b"
    fetched = await keys.owner.GetKey(pb.GetKeyRequest(key_id=made.key.id), metadata=ann.auth)
    assert fetched.key == made.key
    listed = await keys.owner.ListKeys(pb.ListKeysRequest(), metadata=ann.auth)
    assert list(listed.keys) == [made.key]
    plain = await create(keys, ann)
    assert not plain.key.metadata
    assert plain.key.external_id == ""


async def test_an_update_sets_pairs_and_takes_away_those_that_are_empty(keys: Replica, ann: User) -> None:
    made = await create(keys, ann, metadata={"team": "a", "env": "prod"}, external_id="one")
    key = await update(keys, ann, made.key.id, metadata={"team": "b", "env": "", "new": "x", "absent": ""})
    assert dict(key.metadata) == {"team": "b", "new": "x"}
    assert key.external_id == "one"
    assert await update(keys, ann, made.key.id, metadata={"team": "b"}) == key  # changes nothing
    key = await update(keys, ann, made.key.id, external_id="")
    assert key.external_id == ""
    assert dict(key.metadata) == {"team": "b", "new": "x"}
    full = {f"n{i}": "x" for i in range(30)}
    assert len((await update(keys, ann, made.key.id, metadata=full)).metadata) == 32
    one_more = pb.UpdateKeyRequest(key_id=made.key.id, metadata={"another": "x"})
    assert await refused(keys.owner.UpdateKey(one_more, metadata=ann.auth)) == "VALIDATION_FAILED"


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"metadata": {"": "x"}}, "metadata"),
        ({"metadata": {"a b": "x"}}, "metadata"),
        ({"metadata": {"a=b": "x"}}, "metadata"),
        ({"metadata": {"n" * 65: "x"}}, "metadata"),
        ({"metadata": {"ü": "x"}}, "metadata"),
        ({"metadata": {"a": "x\ny"}}, "metadata"),
        ({"metadata": {"a": "x\0"}}, "metadata"),
        ({"metadata": {"a": "\u202ex"}}, "metadata"),
        ({"metadata": {"a": "ä" * 257}}, "metadata[0]"),
        ({"metadata": {f"n{i}": "x" for i in range(33)}}, "metadata"),
        ({"metadata": {f"n{i}": "x" * 512 for i in range(8)}}, "metadata"),
        ({"external_id": "x" * 129}, "external_id"),
        ({"external_id": "a b"}, "external_id"),
        ({"external_id": "ä"}, "external_id"),
        ({"external_id": "\0"}, "external_id"),
    ],
)
async def test_what_is_too_much_or_unprintable_is_named(
    keys: Replica, ann: User, members: dict[str, Any], field: str
) -> None:
    made = await create(keys, ann)
    for attempt in (create(keys, ann, **members), update(keys, ann, made.key.id, **members)):
        with pytest.raises(InvalidArgument) as caught:
            await attempt
        assert caught.value.reason == "VALIDATION_FAILED"
        assert field in [violation.field for violation in caught.value.violations]


async def test_an_empty_value_is_none_to_begin_with(keys: Replica, ann: User) -> None:
    with pytest.raises(InvalidArgument):
        await create(keys, ann, metadata={"a": ""})


async def test_rotation_copies_them_and_the_history_tells_of_changes(keys: Replica, ann: User) -> None:
    made = await create(keys, ann, metadata={"team": "a"}, external_id="one")
    await update(keys, ann, made.key.id, metadata={"team": "b"}, external_id="two")
    rotated = await keys.owner.RotateKey(pb.RotateKeyRequest(key_id=made.key.id), metadata=ann.auth)
    for key in (rotated.key, rotated.previous):
        assert dict(key.metadata) == {"team": "b"}
        assert key.external_id == "two"
    listed = await keys.owner.ListKeyEvents(pb.ListKeyEventsRequest(key_id=made.key.id), metadata=ann.auth)
    changes = [json.loads(event.changes_json) for event in reversed(listed.events)]
    assert changes[0]["metadata"] == [None, {"team": "a"}]
    assert changes[0]["external_id"] == [None, "one"]
    assert changes[1] == {"metadata": [{"team": "a"}, {"team": "b"}], "external_id": ["one", "two"]}
    assert set(changes[2]) == {"grace_until"}


async def test_keys_are_found_by_what_they_have(keys: Replica, ann: User, bob: User) -> None:
    for name, external_id, metadata in (
        ("Alpha worker", "x1", {"team": "a", "env": "prod"}),
        ("beta WORKER", "x1", {"team": "a", "env": "dev"}),
        ("gamma", "x2", {"team": "b", "env": "prod", "eq": "a=b"}),
        ("100%_sure", "", {}),
    ):
        await create(keys, ann, name=name, external_id=external_id, metadata=metadata)
    await create(keys, bob, name="worker of bob", external_id="x1", metadata={"team": "a"})
    everything = ["100%_sure", "gamma", "beta WORKER", "Alpha worker"]
    assert await names(keys, ann) == everything
    assert await names(keys, ann, external_id="x1") == ["beta WORKER", "Alpha worker"]
    assert await names(keys, ann, external_id="X1") == []
    assert await names(keys, ann, metadata_filter=["env=prod"]) == ["gamma", "Alpha worker"]
    assert await names(keys, ann, metadata_filter=["env=prod", "team=a"]) == ["Alpha worker"]
    assert await names(keys, ann, metadata_filter=["eq=a=b"]) == ["gamma"]
    assert await names(keys, ann, metadata_filter=["eq=a"]) == []
    assert await names(keys, ann, name_contains="worker") == ["beta WORKER", "Alpha worker"]
    assert await names(keys, ann, name_contains="%") == ["100%_sure"]
    assert await names(keys, ann, name_contains="work", external_id="x1", metadata_filter=["env=dev"]) == [
        "beta WORKER"
    ]
    alpha = (await keys.owner.ListKeys(pb.ListKeysRequest(name_contains="alpha"), metadata=ann.auth)).keys[0]
    await keys.owner.RevokeKey(pb.RevokeKeyRequest(key_id=alpha.id), metadata=ann.auth)
    assert await names(keys, ann, external_id="x1") == ["beta WORKER"]
    assert await names(keys, ann, external_id="x1", include_inactive=True) == ["beta WORKER", "Alpha worker"]


@pytest.mark.parametrize(
    ("filters", "field"),
    [
        ({"metadata_filter": ["team"]}, "metadata_filter[0]"),
        ({"metadata_filter": ["a=1", "=x"]}, "metadata_filter[1]"),
        ({"metadata_filter": ["a="]}, "metadata_filter[0]"),
        ({"metadata_filter": ["a=1", "a=2"]}, "metadata_filter[1]"),
        ({"metadata_filter": ["a=\0"]}, "metadata_filter[0]"),
        ({"metadata_filter": [f"n{i}=1" for i in range(9)]}, "metadata_filter"),
        ({"metadata_filter": ["a=" + "x" * 600]}, "metadata_filter[0]"),
        ({"external_id": "a b"}, "external_id"),
        ({"external_id": "x" * 129}, "external_id"),
        ({"name_contains": "x\0"}, "name_contains"),
        ({"name_contains": "x" * 101}, "name_contains"),
    ],
)
async def test_a_wrong_filter_is_named(keys: Replica, ann: User, filters: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await keys.owner.ListKeys(pb.ListKeysRequest(**filters), metadata=ann.auth)
    assert field in [violation.field for violation in caught.value.violations]


async def test_a_page_token_holds_for_its_own_filters_only(keys: Replica, ann: User) -> None:
    for _ in range(3):
        await create(keys, ann, metadata={"team": "a"})
    plain = await keys.owner.ListKeys(pb.ListKeysRequest(page_size=1), metadata=ann.auth)
    filtered = pb.ListKeysRequest(page_size=1, metadata_filter=["team=a"])
    token = (await keys.owner.ListKeys(filtered, metadata=ann.auth)).next_page_token
    for wrong in (
        pb.ListKeysRequest(page_token=token),
        pb.ListKeysRequest(page_token=token, metadata_filter=["team=b"]),
        pb.ListKeysRequest(page_token=plain.next_page_token, metadata_filter=["team=a"]),
        pb.ListKeysRequest(page_token="no token", metadata_filter=["team=a"]),
        pb.ListKeysRequest(page_token="ü"),
    ):
        assert await refused(keys.owner.ListKeys(wrong, metadata=ann.auth)) == "PAGE_TOKEN_INVALID"


async def test_an_error_about_many_pairs_reaches_every_client(keys: Replica, ann: User) -> None:
    """It travels in headers, of which gRPC's clients take 8 KiB unless told otherwise."""
    made, pairs = await create(keys, ann), {f"{number:064}": "\n" for number in range(64)}
    async with grpc.aio.insecure_channel(str(keys.address)) as channel:
        update = keys_pb2_grpc.KeysServiceStub(channel).UpdateKey
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await update(pb.UpdateKeyRequest(key_id=made.key.id, metadata=pairs), metadata=ann.auth)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    sent = sum(len(name) + len(value) + 32 for name, value in caught.value.trailing_metadata())
    assert sent + len(caught.value.details() or "") < 8 * 1024
