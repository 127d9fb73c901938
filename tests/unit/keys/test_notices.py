"""Owners' mails about keys: asked for behind the answer, within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from servicekit.errors import NotFound, ResourceExhausted, SigngateError, Unavailable
from servicekit.rpc import create_channel, create_server
from servicekit.testing.clock import ManualClock
from servicekit.testing.identity import shared
from services.keys.domain import Key
from services.keys.metrics import NOTICES
from services.keys.notices import ROOM, ROOM_EACH, TRIES, MailedNotices
from signgate.auth.v1 import notices_pb2 as pb
from signgate.auth.v1 import notices_pb2_grpc

USER = uuid4()
NOW = datetime(2026, 12, 1, tzinfo=UTC)


def key(name: str = "server") -> Key:
    return Key(uuid4(), USER, name, "live", f"sgk_live_…{name}", (), NOW, NOW)


class Auth(notices_pb2_grpc.NoticeServiceServicer):
    """Auth's part of it; `answer` is called for each notice."""

    def __init__(self) -> None:
        self.asked: list[pb.SendKeyNoticeRequest] = []
        self.answer: Callable[[], Any] = lambda: None
        self.changed = asyncio.Event()

    async def SendKeyNotice(self, request: pb.SendKeyNoticeRequest, context: Any) -> pb.SendKeyNoticeResponse:
        self.asked.append(request)
        self.changed.set()
        self.answer()
        return pb.SendKeyNoticeResponse()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.asked) < count:
                self.changed.clear()
                await self.changed.wait()


def fails(error: type[SigngateError], times: int) -> Callable[[], None]:
    left = times

    def answer() -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            raise error

    return answer


@asynccontextmanager
async def serving(room: int = 1000) -> AsyncIterator[tuple[Auth, MailedNotices]]:
    auth, server = Auth(), create_server(callers=shared().callers("auth"))
    server.add(auth, notices_pb2_grpc.add_NoticeServiceServicer_to_server)
    port = server.listen("127.0.0.1:0")
    await server.start()
    async with create_channel(f"127.0.0.1:{port}", peer=shared().peer("keys", "auth")) as channel:
        yield auth, MailedNotices(channel, ManualClock(), room=room, pause=0.01)
    await server.stop(0)


def counted(outcome: str) -> float:
    return NOTICES.labels(outcome)._value.get()  # type: ignore[no-any-return]


@asynccontextmanager
async def sending(notices: MailedNotices) -> AsyncIterator[None]:
    task = asyncio.create_task(notices.run())
    yield
    task.cancel()


async def test_each_event_is_told_with_its_key() -> None:
    before = counted("sent")
    async with serving() as (auth, notices), sending(notices):
        one = key("build")
        notices.key_changed("created", USER, [one], "203.0.113.7")
        notices.key_changed("rotated", USER, [key()], "")
        notices.key_changed("revoked", USER, [key(), key(), key()], "203.0.113.7")
        notices.key_changed("revoked", USER, [], "203.0.113.7")
        await auth.until(3)
        notices.key_changed("created", USER, [key()], "")
        await auth.until(4)  # so the third is counted
    auth.asked.pop()
    first, second, third = auth.asked
    assert (UUID(first.user_id), first.kind) == (USER, pb.KEY_NOTICE_KIND_CREATED)
    assert (first.key_name, first.masked, first.count) == ("build", one.masked, 1)
    assert first.client_ip == "203.0.113.7"
    assert first.at.ToDatetime(UTC) == ManualClock().now()
    assert second.kind == pb.KEY_NOTICE_KIND_ROTATED
    assert (third.kind, third.count, third.key_name, third.masked) == (pb.KEY_NOTICE_KIND_REVOKED, 3, "", "")
    assert counted("sent") - before >= 3


async def test_auth_that_is_away_for_a_moment_is_asked_again() -> None:
    lost, sent = counted("lost"), counted("sent")
    async with serving() as (auth, notices), sending(notices):
        auth.answer = fails(Unavailable, TRIES - 1)
        notices.key_changed("created", USER, [key()], "")
        await auth.until(TRIES)
        notices.key_changed("created", USER, [key("next")], "")
        await auth.until(TRIES + 1)
    assert counted("lost") == lost
    assert counted("sent") > sent
    assert auth.asked[-1].key_name == "next"


async def test_a_notice_that_is_given_up_is_counted_and_the_next_one_goes_on() -> None:
    lost = counted("lost")
    async with serving() as (auth, notices), sending(notices):
        auth.answer = fails(Unavailable, TRIES)
        notices.key_changed("created", USER, [key("lost")], "")
        notices.key_changed("created", USER, [key("next")], "")
        await auth.until(TRIES + 1)
    assert [one.key_name for one in auth.asked] == ["lost"] * TRIES + ["next"]
    assert counted("lost") - lost == 1


@pytest.mark.parametrize("error", [NotFound, ResourceExhausted])
async def test_what_auth_refuses_is_not_asked_again(error: type[SigngateError]) -> None:
    refused = counted("refused")
    async with serving() as (auth, notices), sending(notices):
        auth.answer = fails(error, 1)
        notices.key_changed("created", USER, [key("refused")], "")
        notices.key_changed("created", USER, [key("next")], "")
        await auth.until(2)
    assert [one.key_name for one in auth.asked] == ["refused", "next"]
    assert counted("refused") - refused == 1


async def test_no_more_wait_than_there_is_room_for_and_nothing_waits_for_auth() -> None:
    lost = counted("lost")
    async with create_channel("127.0.0.1:1", peer=shared().peer("keys", "auth")) as channel:
        notices = MailedNotices(channel, ManualClock(), room=3)
        for _ in range(5):
            notices.key_changed("created", USER, [key()], "")
        assert counted("lost") - lost == 2
        await notices.flush()  # at the end of the process: each is tried once, until auth is away
    assert counted("lost") - lost == 5


async def test_one_owner_takes_no_room_from_others() -> None:
    """Someone who makes keys all day, while auth is away, does not silence the notice about another's key."""
    async with serving() as (auth, notices):
        for _ in range(ROOM):
            notices.key_changed("created", USER, [key("flood")], "")
        other = uuid4()
        notices.key_changed("created", other, [key("stolen")], "")
        async with sending(notices):
            await auth.until(ROOM_EACH + 1)
            assert [one.key_name for one in auth.asked] == ["flood"] * ROOM_EACH + ["stolen"]
            notices.key_changed("created", USER, [key("later")], "")
            await auth.until(ROOM_EACH + 2)
    assert [one.key_name for one in auth.asked[ROOM_EACH:]] == ["stolen", "later"]
