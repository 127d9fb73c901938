"""How one stream uses the line: what is on its way, what waits, and in what order answers leave."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import grpc
import pytest

from servicekit.rpc.bounds import MessageMalformed
from services.signer import messages
from services.signer.jobs import Job
from services.signer.streaming import LIST, SignStream
from signgate.signer.v1 import signer_pb2 as pb
from tests.unit.signer_service.world import World


class Client:
    """The other end of one call: sends so many requests, and keeps what comes back."""

    def __init__(self, secret: str, count: int) -> None:
        self._metadata = (("x-api-key", secret),)
        self._left = [
            pb.SignStreamRequest(tag=n, request=pb.SignRequest(room_url=f"@name{n}")) for n in range(count)
        ]
        self.tags: list[int] = []

    def invocation_metadata(self) -> object:
        return self._metadata

    async def send_initial_metadata(self, metadata: object) -> None: ...

    async def read(self) -> object:
        await asyncio.sleep(0)
        return self._left.pop(0) if self._left else grpc.aio.EOF

    async def write(self, answer: pb.SignStreamResponse) -> None:
        self.tags.append(answer.tag)


class Held:
    """Hands jobs on, each list when its own number is let go."""

    def __init__(self, world: World) -> None:
        self._sign_many = world.service.sign_many
        self.sizes: list[int] = []
        self.go: list[asyncio.Event] = []

    async def sign_many(self, jobs: Sequence[Job], owner: str) -> Sequence[Job | Exception]:
        self.sizes.append(len(jobs))
        self.go.append(asyncio.Event())
        await self.go[-1].wait()
        return await self._sign_many(jobs, owner)


@pytest.fixture
def held(world: World, monkeypatch: pytest.MonkeyPatch) -> Held:
    found = Held(world)
    monkeypatch.setattr(world.service, "sign_many", found.sign_many)
    return found


async def turns() -> None:
    for _ in range(20 * LIST):
        await asyncio.sleep(0)


async def test_the_next_list_waits_in_the_line_and_the_one_after_it_does_not(
    world: World, held: Held
) -> None:
    client = Client(world.key()[0], 4 * LIST)
    stream = SignStream(world.service, world.open_streams, messages.Writer(), cast("Any", client), None)
    running = asyncio.create_task(stream.run())
    await turns()
    assert len(held.sizes) == 2
    held.go[0].set()
    await turns()
    assert len(held.sizes) == 3
    while not running.done():
        for event in held.go:
            event.set()
        await turns()
    await running
    assert client.tags == list(range(4 * LIST))
    assert max(held.sizes) <= LIST


async def test_answers_leave_in_order_whichever_list_is_done_first(world: World, held: Held) -> None:
    client = Client(world.key()[0], 2 * LIST)
    stream = SignStream(world.service, world.open_streams, messages.Writer(), cast("Any", client), None)
    running = asyncio.create_task(stream.run())
    await turns()
    held.go[1].set()
    await turns()
    assert client.tags == []
    while not running.done():
        for event in held.go:
            event.set()
        await turns()
    assert client.tags == list(range(2 * LIST))


class Malformed(Client):
    """Sends some requests, then what the reader refuses."""

    async def read(self) -> object:
        if not self._left:
            raise MessageMalformed
        return await super().read()


async def test_a_message_that_is_refused_as_it_is_read_ends_the_stream_after_what_came_before(
    world: World,
) -> None:
    client = Malformed(world.key()[0], 3)
    with pytest.raises(MessageMalformed):
        await SignStream(
            world.service, world.open_streams, messages.Writer(), cast("Any", client), None
        ).run()
    assert client.tags == [0, 1, 2]
