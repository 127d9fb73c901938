"""The machine behind floods: whole requests at a fixed rate from a few connections.

Floods are bounded by what a modest stranger sends. Where such a rate is a load by itself, the comparison is
the same rate of well-formed requests by a customer (`Attack.twin`): what is held is that strangers cost no
more than customers do.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from h2.exceptions import ProtocolError

from tests.attack.attacks.base import Attacker, addresses
from tests.attack.wire import Headers, Http2


@dataclass(frozen=True)
class Request:
    """One request: headers, and the body that follows them. `pieces`: in DATA frames of so many bytes."""

    headers: Headers
    body: bytes = b""
    pieces: int = 16_384


Make = Callable[[Attacker], Request]


def frame(message: Any) -> bytes:
    """A message as gRPC frames it."""
    body = message.SerializeToString()
    return b"\0" + len(body).to_bytes(4, "big") + bytes(body)


def flood(
    makers: Sequence[Make], *, per_second: float, connections: int = 4, sources: int = 1, in_flight: int = 60
) -> Callable[[Attacker], Awaitable[None]]:
    """Each kind of request in turn, at fixed times.

    With `in_flight` requests unanswered on a connection, those that are due on it are left out.
    """

    async def act(attacker: Attacker) -> None:
        found, turn = addresses(count=sources), itertools.cycle(makers)
        given = list(itertools.islice(found, connections))
        async with asyncio.TaskGroup() as group:
            for source in given:
                group.create_task(_lane(attacker, source, turn, per_second / connections, in_flight))

    return act


async def _lane(
    attacker: Attacker, source: str, turn: Iterator[Make], per_second: float, in_flight: int
) -> None:
    due = time.monotonic()
    while True:
        with suppress(OSError, TimeoutError, ProtocolError):
            connection = await Http2.dial(attacker.door, source)
            try:
                while not connection.ended.is_set():
                    due = max(due + 1 / per_second, time.monotonic() - 1.0)
                    await asyncio.sleep(max(0.0, due - time.monotonic()))
                    if connection.h2.open_outbound_streams < min(in_flight, connection.free):
                        await _send(connection, next(turn)(attacker))
            finally:
                await connection.close()
        await asyncio.sleep(0.2)


async def _send(connection: Http2, request: Request) -> None:
    """All of it; a body that flow control has no room for within a second is given up."""
    stream = connection.start(request.headers, end=not request.body)
    body, at = request.body, 0
    while at < len(body):
        part = body[at : at + request.pieces]
        for _ in range(50):
            if connection.data(stream, part, end=at + len(part) == len(body)):
                break
            await connection.flush()
            await asyncio.sleep(0.02)
        else:
            connection.reset(stream)
            break
        at += len(part)
    await connection.flush()
