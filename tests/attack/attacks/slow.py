"""What arrives, or is taken, as slowly as can be: S5, and its kin on HTTP/1.1."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Awaitable, Callable

import httpx

from tests.attack.attacks.base import Attack, Attacker, addresses, forever, many
from tests.attack.wire import Http1, Http2

ROUTES = (
    ("POST", "/auth/v1/otp"),
    ("POST", "/auth/v1/token?grant_type=password"),
    ("POST", "/auth/v1/signup"),
    ("POST", "/auth/v1/verify"),
    ("PUT", "/auth/v1/user"),
    ("POST", "/v1/sign"),
    ("POST", "/v1/sign:batch"),
    ("POST", "/v1/verify"),
    ("POST", "/v1/keys"),
    ("GET", "/webcast/fetch/?room_id=1"),
    ("POST", "/nowhere"),
    ("GET", "/healthz"),
)
"""Any route may be sent a body, also one that wants none."""


def bodies(connections: int, sources: int, every: float) -> Callable[[Attacker], Awaitable[None]]:
    """Bodies at every route, of which one more byte comes now and then."""

    async def act(attacker: Attacker) -> None:
        found, routes = addresses(count=sources), itertools.cycle(ROUTES)

        async def once() -> None:
            method, path = next(routes)
            connection = await Http1.dial(attacker.door, next(found))
            try:
                attacker.tally.requests += 1
                await connection.send(
                    f"{method} {path} HTTP/1.1\r\nhost: edge\r\ncontent-type: application/json\r\n"
                    "content-length: 500\r\n\r\n{".encode()
                )
                ended = asyncio.create_task(connection.status())
                while not ended.done():
                    await asyncio.wait((ended,), timeout=every)
                    if not ended.done():
                        await connection.send(b" ")
            finally:
                await connection.close()

        await many(connections, lambda _: forever(once))

    return act


def heads(connections: int, sources: int) -> Callable[[Attacker], Awaitable[None]]:
    """Requests whose headers never end."""

    async def act(attacker: Attacker) -> None:
        found = addresses(count=sources)

        async def once() -> None:
            connection = await Http1.dial(attacker.door, next(found))
            try:
                await connection.send(b"POST /v1/sign HTTP/1.1\r\nhost: edge\r\n")
                ended = asyncio.create_task(connection.status())
                for number in range(90):
                    await asyncio.wait((ended,), timeout=2.0)
                    if ended.done():
                        break
                    await connection.send(f"x-{number}: a\r\n".encode())
            finally:
                await connection.close()

        await many(connections, lambda _: forever(once))

    return act


def idle(connections: int, sources: int) -> Callable[[Attacker], Awaitable[None]]:
    """Connections on which nothing is ever said."""

    async def act(attacker: Attacker) -> None:
        found = addresses(count=sources)

        async def once() -> None:
            connection = await Http1.dial(attacker.door, next(found))
            try:
                await connection.reader.read(1)
            finally:
                await connection.close()

        room = asyncio.Semaphore(64)

        async def gently(_: int) -> None:
            async with room:
                await asyncio.sleep(0.02)
            await forever(once)

        await many(connections, gently)

    return act


async def script(attacker: Attacker) -> str:
    """The largest file that the edge serves by itself: the console's program."""
    url = f"http://{attacker.thief.host}:{attacker.thief.port}/console/"
    async with httpx.AsyncClient(trust_env=False) as client:
        page = (await client.get(url)).text
    match = re.search(r'"(?:/console/)?([\w./-]+\.js)"', page)
    if match is None:
        raise LookupError("the console has no program")
    return "/console/" + match[1].removeprefix("./")


def unread(connections: int, path: str = "") -> Callable[[Attacker], Awaitable[None]]:
    """Pages asked for over HTTP/2 and never taken; by default the console's program."""

    async def act(attacker: Attacker) -> None:
        found, wanted = addresses(count=connections), path or await script(attacker)

        async def once() -> None:
            connection = await Http2.dial(attacker.door, next(found), window=0)
            try:
                for _ in range(min(256, connection.free)):
                    connection.start(attacker.head("GET", wanted), end=True)
                await connection.flush()
                while not connection.ended.is_set() and connection.h2.open_outbound_streams:
                    await asyncio.sleep(0.5)
            finally:
                await connection.close()

        await many(connections, lambda _: forever(once))

    return act


ATTACKS = (
    Attack("bodies that drip, at every route", "S5", bodies(200, 1, 2.0), quick=True),
    Attack("bodies that drip, at every route, 1,200 from 60 addresses", "S5", bodies(1_200, 60, 5.0)),
    Attack("HTTP/1.1 headers that never end, 600 from 30 addresses", "S5", heads(600, 30)),
    Attack("4,000 idle connections from 400 addresses", "S2", idle(4_000, 400), quick=True),
    Attack("programs never read, 20 connections", "S6", unread(20), quick=True),
    Attack("answers never read, 20 connections", "S6", unread(20, "/auth/v1/openapi.json")),
)
