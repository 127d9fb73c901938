"""Downloads that their reader takes slowly: S6."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from signgate.usage.v1 import usage_pb2
from tests.attack.attacks.base import Attack, Attacker, addresses, forever, many
from tests.attack.wire import Http1, Http2

READERS = 10
PER_SECOND = 20_000


def http1(sources: int) -> Callable[[Attacker], Awaitable[None]]:
    """Ten at once over HTTP/1.1, each read at so many bytes a second."""

    async def act(attacker: Attacker) -> None:
        found = addresses(count=sources)

        async def once() -> None:
            connection = await Http1.dial(attacker.door, next(found))
            try:
                await connection.send(
                    b"GET /v1/usage:export HTTP/1.1\r\nhost: edge\r\n"
                    + f"x-api-key: {attacker.thief.key}\r\n\r\n".encode()
                )
                attacker.tally.requests += 1
                if await connection.status() != "http 200":
                    return
                while await connection.reader.read(PER_SECOND // 10):
                    await asyncio.sleep(0.1)
            finally:
                await connection.close()

        await many(READERS, lambda _: forever(once))

    return act


def http2(window: int) -> Callable[[Attacker], Awaitable[None]]:
    """Ten calls on one connection, whose windows never open again."""

    async def act(attacker: Attacker) -> None:
        source = next(addresses())
        message = usage_pb2.ExportUsageRequest().SerializeToString()

        async def once() -> None:
            connection = await Http2.dial(attacker.door, source, window=window)
            try:
                for _ in range(READERS):
                    stream = connection.start(
                        attacker.call(
                            "/signgate.usage.v1.UsageService/ExportUsage", ("x-api-key", attacker.thief.key)
                        )
                    )
                    connection.data(stream, b"\0" + len(message).to_bytes(4, "big") + message, end=True)
                await connection.flush()
                while not connection.ended.is_set() and connection.h2.open_outbound_streams:
                    await asyncio.sleep(0.5)
            finally:
                await connection.close()

        await forever(once)

    return act


ATTACKS = (
    Attack("ten slow exports of one key", "S6", http1(1), quick=True),
    Attack("ten slow exports of one key, 10 addresses", "S6", http1(10)),
    Attack("ten exports that are never read, over HTTP/2", "S6", http2(0), quick=True),
)
