"""Connections and calls that are opened and then left: S2, S3, S4."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

from servicekit import apikey
from servicekit.clock import SystemEntropy
from tests.attack.attacks.base import SIGN, SIGN_STREAM, Attack, Attacker, addresses, forever, many
from tests.attack.wire import Headers, Http2

CONNECTIONS = 18
STREAMS = 256
"""What the edge allowed on one connection when this was found."""


def made_up_key() -> str:
    """A key that does not exist: its checksum is right, which anyone can compute."""
    return apikey.mint("live", UUID(int=secrets.randbits(128)), SystemEntropy())


REST = 2.0
"""Seconds until a connection whose calls have all been ended is opened again."""


def opened(
    headers: Callable[[Attacker], Headers],
    *,
    sources: int = 1,
    connections: int = CONNECTIONS,
    first: bytes = b"",
    drip: float = 0.0,
) -> Callable[[Attacker], Awaitable[None]]:
    """As many calls as each connection allows, none of them ended; again when they are.

    `first`: what follows the headers; `drip`: seconds after which one more byte follows on each.
    """

    async def act(attacker: Attacker) -> None:
        found = addresses(count=sources)
        given = list(itertools.islice(found, connections))

        async def once(source: str) -> None:
            connection = await Http2.dial(attacker.door, source)
            try:
                streams: list[int] = []
                for number in range(min(STREAMS, connection.free)):
                    streams.append(connection.start(headers(attacker)))
                    if first:
                        connection.data(streams[-1], first)
                    if number % 16 == 0:
                        await connection.flush()
                await connection.flush()
                await _wait(connection, streams, drip)
            finally:
                await connection.close()
            await asyncio.sleep(REST)  # a flood is another attack, and has a rate

        await many(connections, lambda number: forever(lambda: once(given[number])))

    return act


async def _wait(connection: Http2, streams: Sequence[int], drip: float) -> None:
    """Until the peer closes it, or has ended every stream."""
    while not connection.ended.is_set() and connection.h2.open_outbound_streams:
        try:
            async with asyncio.timeout(drip or 0.5):
                await connection.ended.wait()
        except TimeoutError:
            if drip:
                for stream in streams:
                    connection.data(stream, b"\0")
                await connection.flush()


def _unfinished(attacker: Attacker) -> Headers:
    return attacker.call(SIGN)


def _idle(attacker: Attacker) -> Headers:
    return attacker.call(SIGN_STREAM, ("x-api-key", attacker.thief.key))


def _unproved(attacker: Attacker) -> Headers:
    return attacker.call(SIGN_STREAM, ("x-api-key", made_up_key()))


def _web(attacker: Attacker) -> Headers:
    return attacker.head("POST", SIGN, ("content-type", "application/grpc-web+proto"))


def _rest(attacker: Attacker) -> Headers:
    return attacker.head("POST", "/v1/sign", ("content-type", "application/json"), ("content-length", "1000"))


def _web_stream(attacker: Attacker) -> Headers:
    return attacker.head(
        "POST", SIGN_STREAM, ("content-type", "application/grpc-web+proto"), ("x-api-key", attacker.thief.key)
    )


ATTACKS = (
    Attack("calls opened and never ended", "S2", opened(_unfinished)),
    Attack("calls opened and never ended, 18 addresses", "S2", opened(_unfinished, sources=18), quick=True),
    Attack("calls whose body drips", "S2", opened(_unfinished, sources=6, drip=3.0, first=b"\0\0\0\x10")),
    Attack("gRPC-web calls never ended", "S2", opened(_web, sources=6), quick=True),
    Attack("REST bodies never ended", "S2", opened(_rest, sources=6), quick=True),
    Attack("idle streams of a free account", "S3", opened(_idle), quick=True),
    Attack("idle streams of a free account, 18 addresses", "S3", opened(_idle, sources=18)),
    Attack("idle gRPC-web streams of a free account", "S3", opened(_web_stream, sources=6)),
    Attack("streams with made-up keys", "S4", opened(_unproved, sources=6), quick=True),
)
