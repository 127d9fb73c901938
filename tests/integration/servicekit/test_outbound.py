"""Requests to servers of others, over real sockets: where they go, and where they end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from threading import Event
from typing import Any

import pytest

from servicekit.errors import Unavailable
from servicekit.outbound import FetchError, NoPublicAddressError, Resolver, fetch, refused_literal
from servicekit.testing.clock import ManualClock
from servicekit.tokens import KeyCache

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]
HEAD = b"HTTP/1.1 200 OK\r\n"


@asynccontextmanager
async def answering(answer: Answer) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that reads a request's head and answers so; its URL, and what it was asked."""
    asked: list[bytes] = []
    open_now: list[Any] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_now.append(asyncio.current_task())
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                asked.append(await reader.readuntil(b"\r\n\r\n"))
                await answer(writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/keys?x=1", asked
    finally:
        server.close()
        for task in open_now:
            task.cancel()
        await asyncio.gather(*open_now, return_exceptions=True)


async def got(url: str, *, internal: bool = True, seconds: float = 10.0, most: int = 1000) -> bytes:
    return await asyncio.to_thread(fetch, url, internal=internal, seconds=seconds, most=most)


async def whole(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"content-length: 5\r\n\r\nhello")
    await writer.drain()


async def test_a_plain_answer_is_read() -> None:
    async with answering(whole) as (url, asked):
        assert await got(url) == b"hello"
    assert asked[0].startswith(b"GET /keys?x=1 HTTP/1.1\r\n")


async def _long(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"content-length: 2000\r\n\r\n" + b"x" * 2000)
    await writer.drain()


async def _endless(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"transfer-encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"400\r\n" + b"x" * 1024 + b"\r\n")
        await writer.drain()


async def _redirect(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 302 Found\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n")
    await writer.drain()


async def _broken_off(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"content-length: 900\r\n\r\nhello")
    await writer.drain()


@pytest.mark.parametrize("answer", [_long, _endless, _redirect, _broken_off])
async def test_too_long_endless_moved_and_broken_answers_are_refused(answer: Answer) -> None:
    async with answering(answer) as (url, asked):
        with pytest.raises((FetchError, OSError)):
            await got(url)
    assert len(asked) == 1, "a redirect is not followed"


async def _dripped_head(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD)
    while True:
        writer.write(b"x: y\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)


async def _dripped_body(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"content-length: 900\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.05)


async def _nothing(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


@pytest.mark.parametrize("answer", [_dripped_head, _dripped_body, _nothing])
async def test_an_answer_that_drips_ends_with_the_time_for_all_of_it(answer: Answer) -> None:
    async with answering(answer) as (url, _):
        began = time.monotonic()
        with pytest.raises(Exception, match=r".*"):
            await got(url, seconds=0.5)
        assert time.monotonic() - began < 20


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "[::ffff:127.0.0.1]", "2130706433"])
async def test_nothing_inside_is_connected_to(host: str) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        with pytest.raises((NoPublicAddressError, socket.gaierror)):
            await got(f"https://{host}:{listener.getsockname()[1]}/", internal=False)
        with pytest.raises(BlockingIOError):
            listener.accept()


@pytest.mark.parametrize("url", ["http://8.8.8.8/", "ftp://8.8.8.8/", "https:///x", "file:///etc/passwd", ""])
def test_outside_only_https_will_do(url: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        fetch(url, internal=False, seconds=1, most=1)


async def test_the_address_that_was_judged_is_the_one_that_is_connected_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name that leads elsewhere at a second look is not looked up a second time."""
    looks = 0
    connected: list[Any] = []

    def look(*_: object, **__: object) -> list[Any]:
        nonlocal looks
        looks += 1
        address = "8.8.8.8" if looks == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443))]

    def connect(address: Any, *_: object) -> None:
        connected.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "getaddrinfo", look)
    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(ConnectionRefusedError):
        fetch("https://keys.example/", internal=False, seconds=1, most=1)
    assert connected == [("8.8.8.8", 443)]


async def test_key_sets_that_are_too_large_or_no_sets_are_no_keys() -> None:
    for body in (b"[" * 100_000, b'{"keys": [' + b"{}," * 200 + b"{}]}", b"[]", b"x" * 300_000):

        async def answer(writer: asyncio.StreamWriter, body: bytes = body) -> None:
            writer.write(HEAD + f"content-length: {len(body)}\r\n\r\n".encode() + body)
            await writer.drain()

        async with answering(answer) as (url, _):
            with pytest.raises(Unavailable):
                await KeyCache(url, ManualClock()).get("any")


async def test_an_outside_issuers_keys_are_not_read_from_inside() -> None:
    async with answering(whole) as (url, asked):
        with pytest.raises(Unavailable):
            await KeyCache(url.replace("http:", "https:"), ManualClock(), internal=False).get("any")
    assert asked == []


async def test_a_slow_name_server_has_its_own_threads_and_no_more_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Lookups that hang use up the strangers' resolver, and no other lookup of the process."""
    answered = Event()

    def hang(*_: object, **__: object) -> list[Any]:
        answered.wait(30)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", 443))]

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    resolver = Resolver(threads=2)
    lookups = [asyncio.create_task(resolver.addresses("slow.example", 443)) for _ in range(2)]
    await asyncio.sleep(0.05)
    with pytest.raises(OSError, match="too many"):
        await resolver.addresses("slow.example", 443)
    lookups[0].cancel()  # given up, but its thread is still busy
    await asyncio.wait(lookups[:1])
    with pytest.raises(OSError, match="too many"):
        await resolver.addresses("slow.example", 443)
    assert await asyncio.to_thread(lambda: "free") == "free"
    answered.set()
    assert await lookups[1] == ["8.8.8.8"]
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(OSError):
                assert await resolver.addresses("slow.example", 443) == ["8.8.8.8"]
                break
    resolver.close()


def test_literals_are_judged_without_a_look_up() -> None:
    assert refused_literal("127.1")
    assert refused_literal("1.2.3.999")
    assert not refused_literal("8.8.8.8")
    assert not refused_literal("localhost"), "a name"
