"""What an attack is."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from h2.exceptions import ProtocolError

from tests.attack.stage import Thief
from tests.attack.wire import Door, Headers, Http2, Tally

GRPC: Final = (("content-type", "application/grpc"), ("te", "trailers"))
SIGN: Final = "/signgate.signer.v1.SignerService/Sign"
SIGN_STREAM: Final = "/signgate.signer.v1.SignerService/SignStream"


@dataclass(frozen=True)
class Attacker:
    """Who attacks: what they know, where they call, and what it has cost so far."""

    thief: Thief
    tally: Tally

    @property
    def door(self) -> Door:
        """The edge."""
        return Door(self.thief.host, self.thief.port, self.tally)

    def head(self, method: str, path: str, *more: tuple[str, str]) -> Headers:
        """Headers of an HTTP/2 request."""
        authority = f"{self.thief.host}:{self.thief.port}"
        return (
            (":method", method),
            (":scheme", "http"),
            (":path", path),
            (":authority", authority),
            *more,
        )

    def call(self, path: str, *more: tuple[str, str]) -> Headers:
        """Headers of a gRPC call."""
        return self.head("POST", path, *GRPC, *more)


Act = Callable[[Attacker], Awaitable[None]]


@dataclass(frozen=True)
class Attack:
    """One attack.

    `case`: its line in the list of cases, or the kind that it belongs to. `act` goes on until cancelled.
    `twin`: the same load made of a customer's well-formed requests, which victims are served beside; where
    there is none the attack is compared with calm. `quick`: part of every test run.
    """

    name: str
    case: str
    act: Act
    twin: Act | None = None
    quick: bool = False


def addresses(first: int = 2, count: int = 1) -> Iterator[str]:
    """Loopback addresses other than the victims', over and over."""
    return itertools.cycle(f"127.0.{(first + n) // 250}.{(first + n) % 250 + 1}" for n in range(count))


async def many(count: int, act: Callable[[int], Awaitable[Any]]) -> None:
    """So many at once; what one of them meets (a refusal, a closed connection) does not end the others."""

    async def one(number: int) -> None:
        with suppress(OSError, TimeoutError, ProtocolError):
            await act(number)

    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(one(number))


async def hold(connection: Http2) -> None:
    """Keep it until the peer closes it."""
    await connection.ended.wait()


async def forever(act: Callable[[], Awaitable[Any]]) -> None:
    """Again as soon as it has ended, however it ended; never quicker than the attacker's machine would."""
    while True:
        with suppress(OSError, TimeoutError, ProtocolError):
            await act()
        await asyncio.sleep(0.05)


async def paced(
    acts: Iterator[Callable[[], Awaitable[Any]]], *, every: float = 0.1, at_once: int = 8
) -> None:
    """One every so many seconds, while so many at most have no answer yet."""
    room = asyncio.Semaphore(at_once)

    async def one(act: Callable[[], Awaitable[Any]]) -> None:
        with suppress(OSError, TimeoutError, ProtocolError):
            await act()
        room.release()

    async with asyncio.TaskGroup() as group:
        for act in acts:
            await room.acquire()
            group.create_task(one(act))
            await asyncio.sleep(every)
