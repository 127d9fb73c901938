"""Mails that the keys service asks for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from servicekit.errors import (
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    SigngateError,
    Unauthenticated,
)
from servicekit.rpc import create_channel
from servicekit.testing.identity import shared
from signgate.auth.v1 import notices_pb2 as pb
from signgate.auth.v1 import notices_pb2_grpc
from tests.integration.auth.world import World, text_of

AT = Timestamp(seconds=1_800_000_000)  # 2027-01-15 08:00 UTC


@pytest.fixture
def address(world: World) -> str:
    return str(world.auth.grpc)


def notice(user: str, **changes: Any) -> pb.SendKeyNoticeRequest:
    members: dict[str, Any] = {
        "user_id": user,
        "kind": pb.KEY_NOTICE_KIND_CREATED,
        "key_name": "build <b>server</b>",
        "masked": "sgk_live_…wxyz",
        "client_ip": "203.0.113.7",
        "at": AT,
        "count": 1,
    }
    return pb.SendKeyNoticeRequest(**{**members, **changes})


async def send(address: str, request: pb.SendKeyNoticeRequest, caller: str = "keys") -> None:
    async with create_channel(address, peer=shared().peer(caller, "auth")) as channel:
        await notices_pb2_grpc.NoticeServiceStub(channel).SendKeyNotice(request)


@contextmanager
def refused(kind: type[SigngateError], reason: str) -> Iterator[None]:
    with pytest.raises(kind) as caught:
        yield
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("kind", "subject", "what"),
    [
        (pb.KEY_NOTICE_KIND_CREATED, "new API key", "created"),
        (pb.KEY_NOTICE_KIND_ROTATED, "replaced", "replaced"),
        (pb.KEY_NOTICE_KIND_REVOKED, "revoked", "revoked"),
    ],
)
async def test_an_owner_is_told_what_happened_to_which_key_when_and_from_where(
    world: World, address: str, kind: pb.KeyNoticeKind.ValueType, subject: str, what: str
) -> None:
    user = (await world.user()).user
    await send(address, notice(user.id, kind=kind))
    message = await world.mailbox.wait(user.email, 2)
    text = " ".join(text_of(message).split())
    assert subject in message["Subject"]
    assert 'The API key "build <b>server</b>"' in text
    assert "sgk_live_…wxyz" in text
    assert what in text
    assert "at 2027-01-15 08:00 UTC from 203.0.113.7." in text
    assert "If it was not you," in text
    html = message.get_body(("html",))
    assert html is not None
    assert "build &lt;b&gt;server&lt;/b&gt;" in html.get_content()
    assert "<b>" not in html.get_content()


async def test_several_keys_are_one_mail_and_a_name_is_one_line(world: World, address: str) -> None:
    user = (await world.user()).user
    many = {"kind": pb.KEY_NOTICE_KIND_REVOKED, "key_name": "", "masked": "", "client_ip": "", "count": 12}
    await send(address, notice(user.id, **many))
    text = " ".join(text_of(await world.mailbox.wait(user.email, 2)).split())
    assert "12 API keys of your Signgate account were revoked at 2027-01-15 08:00 UTC." in text
    await send(address, notice(user.id, key_name="a\r\nSubject: b\n\nc\u202e" + "d" * 180))
    message = await world.mailbox.wait(user.email, 3)
    assert 'The API key "aSubject: bc' + "d" * 88 + '"' in " ".join(text_of(message).split())


async def test_only_the_keys_service_may_ask_and_for_accounts_alone(world: World, address: str) -> None:
    user = (await world.user()).user
    with refused(PermissionDenied, "SERVICE_NOT_ALLOWED"):
        await send(address, notice(user.id), "signer")
    async with create_channel(address) as channel:
        with refused(Unauthenticated, "SERVICE_CREDENTIAL_MISSING"):
            await notices_pb2_grpc.NoticeServiceStub(channel).SendKeyNotice(notice(user.id))
    with refused(NotFound, "USER_NOT_FOUND"):
        await send(address, notice(str(uuid4())))
    wrong: list[dict[str, Any]] = [
        {"user_id": "x"},
        {"kind": 0},
        {"kind": 77},
        {"count": 0},
        {"at": None},
        {"key_name": "x" * 201},
    ]
    for changes in wrong:
        with refused(InvalidArgument, "VALIDATION_FAILED"):
            await send(address, notice(user.id, **changes))
    assert len(world.mailbox.to(user.email)) == 1


async def test_an_account_gets_so_many_of_each_kind(world: World, address: str) -> None:
    """Who rotates keys all day still hears of one that is new. The mails that people ask for are others."""
    user = (await world.user()).user
    for _ in range(10):
        await send(address, notice(user.id, kind=pb.KEY_NOTICE_KIND_ROTATED))
    with refused(ResourceExhausted, "OVER_EMAIL_SEND_RATE_LIMIT"):
        await send(address, notice(user.id, kind=pb.KEY_NOTICE_KIND_ROTATED))
    await send(address, notice(user.id))
    other = (await world.user()).user
    await send(address, notice(other.id, kind=pb.KEY_NOTICE_KIND_ROTATED))
    await world.mailbox.wait(user.email, 12)
    again = await world.auth.http.post("/recover", json={"email": user.email})
    assert again.status_code == 200
