"""E-mail addresses that are work to parse: S1."""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any

from signgate.auth.v1 import auth_pb2
from tests.attack.attacks.base import Attack, Attacker, addresses, paced
from tests.attack.wire import Http1, Http2

_routes = (
    "/auth/v1/token?grant_type=password",
    "/auth/v1/signup",
    "/auth/v1/otp",
    "/auth/v1/recover",
    "/auth/v1/resend",
    "/auth/v1/verify",
)
_methods: tuple[tuple[str, Any], ...] = (
    ("SignIn", auth_pb2.SignInRequest),
    ("SignUp", auth_pb2.SignUpRequest),
    ("SendOtp", auth_pb2.SendOtpRequest),
    ("Recover", auth_pb2.RecoverRequest),
    ("Resend", auth_pb2.ResendRequest),
    ("Verify", auth_pb2.VerifyRequest),
)


POOL = "".join(map(chr, (*range(0x4E00, 0x9FA6), *range(0xAC00, 0xD7A4))))
"""Every letter of the CJK and Hangul blocks once."""


def letters(count: int) -> str:
    """So many distinct letters, over and over when all are used up."""
    return (POOL * (count // len(POOL) + 1))[:count]


SHAPES = 7


@functools.cache
def forms(count: int) -> tuple[str, ...]:
    """`SHAPES` addresses that different parsers stumble over."""
    return (
        f"a@{letters(count)}.de",
        f"{letters(count)}@example.com",
        "a@" + ".".join(letters(50) for _ in range(count // 51)) + ".de",
        "a@" + "a." * (count // 2) + "de",
        "a" + "\u0301" * count + "@example.com",
        '"' + '\\"' * (count // 2) + '"@example.com',
        "a@" * (count // 2) + "b.de",
    )


def shuffled(*parts: Iterable[Any]) -> Iterator[tuple[Any, ...]]:
    """Every combination, over and over, in a mixed order that is always the same."""
    every = list(itertools.product(*parts))
    random.Random(12).shuffle(every)
    return itertools.cycle(every)


def http(
    sizes: Sequence[int], routes: Sequence[str] = _routes, shapes: int | None = None
) -> Callable[[Attacker], Awaitable[None]]:
    """Each of the first forms at each route, as JSON."""

    async def act(attacker: Attacker) -> None:
        found = addresses(count=5)

        async def one(route: str, body: bytes) -> None:
            connection = await Http1.dial(attacker.door, next(found))
            try:
                attacker.tally.requests += 1
                head = f"POST {route} HTTP/1.1\r\nhost: edge\r\ncontent-type: application/json\r\n"
                await connection.send(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
                await connection.status()
            finally:
                await connection.close()

        def bodies() -> Iterator[Callable[[], Awaitable[None]]]:
            for size, route, shape in shuffled(sizes, routes, range(shapes or SHAPES)):
                document = {
                    "email": forms(size)[shape],
                    "password": "correct horse",
                    "type": "signup",
                    "token": "123456",
                }
                yield functools.partial(one, route, json.dumps(document, ensure_ascii=False).encode())

        await paced(bodies())

    return act


def grpc(sizes: Sequence[int]) -> Callable[[Attacker], Awaitable[None]]:
    """Each form in each method."""

    async def act(attacker: Attacker) -> None:
        found = addresses(count=5)

        async def one(method: str, message: bytes) -> None:
            connection = await Http2.dial(attacker.door, next(found))
            try:
                stream = connection.start(attacker.call(f"/signgate.auth.v1.AuthService/{method}"))
                await _send(connection, stream, b"\0" + len(message).to_bytes(4, "big") + message)
                while not connection.ended.is_set() and connection.h2.open_outbound_streams:
                    await asyncio.sleep(0.1)
            finally:
                await connection.close()

        def calls() -> Iterator[Callable[[], Awaitable[None]]]:
            for size, (method, kind), shape in shuffled(sizes, _methods, range(SHAPES)):
                yield functools.partial(one, method, kind(email=forms(size)[shape]).SerializeToString())

        await paced(calls())

    return act


async def _send(connection: Http2, stream: int, frame: bytes) -> None:
    """All of it, as flow control lets; given up after five seconds."""
    for at in range(0, len(frame), 16_384):
        part = frame[at : at + 16_384]
        for _ in range(500):
            if connection.data(stream, part, end=at + len(part) == len(frame)):
                break
            await asyncio.sleep(0.01)
        await connection.flush()


ATTACKS = (
    Attack("addresses of 12 KB, signing in", "S1", http((4_000,), _routes[:1], 1), quick=True),
    Attack(
        "addresses of 3 KB to 1 MB at every route", "S1", http((1_000, 4_000, 60_000, 300_000)), quick=True
    ),
    Attack("addresses of 12 KB to 3 MB by gRPC", "S1", grpc((4_000, 60_000, 1_000_000)), quick=True),
)
