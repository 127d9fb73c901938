"""The outbox: addresses that make the mail server wait or refuse hold up no other one's mail."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.message import EmailMessage
from typing import Any

import aiosmtplib
import pytest

from services.auth.errors import EmailRateLimit
from services.auth.mail import outbox as module
from services.auth.mail.letters import Letter
from services.auth.mail.outbox import Outbox


def letter(to: str) -> Letter:
    return Letter("password_changed", to=to)


class Writer:
    def write(self, one: Letter) -> EmailMessage:
        message = EmailMessage()
        message["To"] = one.to
        return message


class Server:
    """A mail server: what it does depends on the domain."""

    def __init__(self) -> None:
        self.tried: Counter[str] = Counter()
        self.sent: list[str] = []
        self.now = self.most = 0
        self.answer = asyncio.Event()

    async def send(self, message: EmailMessage) -> None:
        to = str(message["To"])
        self.tried[to] += 1
        if to.endswith("@slow.example"):
            self.now += 1
            self.most = max(self.most, self.now)
            await self.answer.wait()
            self.now -= 1
        if to.endswith("@deferred.example"):
            raise aiosmtplib.SMTPResponseException(451, "later")
        self.sent.append(to)


@asynccontextmanager
async def running(room: int = 1000) -> AsyncIterator[tuple[Outbox, Server]]:
    server = Server()
    smtp: Any = server
    writer: Any = Writer()
    box = Outbox(smtp, writer, room=room)
    task = asyncio.create_task(box.run())
    yield box, server
    task.cancel()
    await asyncio.wait((task,))


async def until(server: Server, *addresses: str) -> None:
    async with asyncio.timeout(10):
        while not set(addresses) <= set(server.sent):
            await asyncio.sleep(0.01)


async def test_a_domain_that_makes_the_server_wait_holds_up_no_other_ones_mail() -> None:
    async with running() as (box, server):
        for n in range(100):
            box.post(letter(f"{n}@slow.example"))
        others = [f"ann@{n}.example" for n in range(50)]
        for to in others:
            box.post(letter(to))
        await until(server, *others)
        assert 0 < server.most < 8
        server.answer.set()
        await until(server, *(f"{n}@slow.example" for n in range(100)))
        await box.drain(10)


async def test_letters_that_wait_for_their_next_try_hold_no_sender() -> None:
    async with running() as (box, server):
        for n in range(100):
            box.post(letter(f"ann@{n}.deferred.example"))
            box.post(letter(f"{n}@deferred.example"))
        box.post(letter("bob@quick.example"))
        await until(server, "bob@quick.example")


async def test_a_letter_is_tried_so_often_and_then_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITS", (0.01, 0.01))
    async with running() as (box, server):
        box.post(letter("ann@deferred.example"))
        await box.drain(10)
        assert server.tried["ann@deferred.example"] == 3
        assert not box._held


async def test_one_domain_fills_no_more_than_half_of_the_room() -> None:
    async with running(room=10) as (box, server):
        for n in range(5):
            box.post(letter(f"{n}@slow.example"))
        with pytest.raises(EmailRateLimit):
            box.post(letter("6@SLOW.example"))
        box.post(letter("bob@quick.example"))
        await until(server, "bob@quick.example")
        for n in range(5):
            box.post(letter(f"ann@{n}.slow.example"))
        with pytest.raises(EmailRateLimit):
            for n in range(9):
                box.post(letter(f"carl@{n}.quick.example"))
        server.answer.set()
        await box.drain(10)
        assert not box._held
        assert not box._behind


async def test_a_letter_that_can_not_be_written_is_dropped_and_others_are_sent() -> None:
    async with running() as (box, server):
        box._writer = None  # type: ignore[assignment]  # whatever goes wrong in writing
        box.post(letter("ann@a.example"))
        await box.drain(10)
        box._writer = Writer()  # type: ignore[assignment]
        box.post(letter("bob@a.example"))
        await until(server, "bob@a.example")
