"""A stream holds nothing that it has not earned: a proven credential, a slot, and requests that come."""

from __future__ import annotations

import asyncio
from typing import Any, cast
from uuid import uuid4

import grpc
import pytest

from servicekit.errors import PermissionDenied, ResourceExhausted, SigngateError, Unauthenticated, Unavailable
from servicekit.testing.clock import ManualClock
from services.signer import messages
from services.signer.jobs import Refusal, Wish
from services.signer.streaming import SignStream
from services.signer.streams import StreamLimits, Streams
from signgate.signer.v1 import signer_pb2 as pb
from tests.unit.signer_service.world import World, unknown_key

LIMITS = StreamLimits(total=6, by_user=4, by_key=2)


class Client:
    """One call: sends what it is told to, reads while it may, and counts how often it was asked."""

    def __init__(self, secret: str) -> None:
        self._metadata = (("authorization", f"Bearer {secret}"),)
        self.requests: asyncio.Queue[object] = asyncio.Queue()
        self.reads = asyncio.Event()
        self.reads.set()
        self.asked = 0
        self.tags: list[int] = []

    def invocation_metadata(self) -> object:
        return self._metadata

    async def send_initial_metadata(self, metadata: object) -> None: ...

    async def read(self) -> object:
        self.asked += 1
        return await self.requests.get()

    async def write(self, answer: pb.SignStreamResponse) -> None:
        await self.reads.wait()
        self.tags.append(answer.tag)

    def send(self, tag: int, url: str = "@someone") -> None:
        self.requests.put_nowait(pb.SignStreamRequest(tag=tag, request=pb.SignRequest(room_url=url)))


class Stage:
    """Streams over a clock that a test moves."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.clock = ManualClock()
        self.streams = Streams(world.door, world.keys, world.sessions, LIMITS, self.clock)
        self.calls: list[asyncio.Task[None]] = []

    def open(self, client: Client) -> asyncio.Task[None]:
        stream = SignStream(self.world.service, self.streams, messages.Writer(), cast("Any", client), None)
        call = asyncio.create_task(stream.run())
        self.calls.append(call)
        return call

    async def opened(self, secret: str) -> Client:
        """A stream that is open."""
        client = Client(secret)
        call = self.open(client)
        await until(lambda: client.asked > 0 or call.done())
        return client

    def pass_time(self, seconds: float) -> None:
        self.streams.end_quiet()
        self.clock.advance(seconds)
        self.streams.end_quiet()

    @property
    def open_now(self) -> int:
        return len(self.streams._open)


@pytest.fixture
def stage(world: World) -> Stage:
    return Stage(world)


async def until(condition: Any) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.002)
    raise AssertionError("never came true")


async def error_of(call: asyncio.Task[None]) -> SigngateError:
    await asyncio.wait((call,), timeout=5)
    error = call.exception() if call.done() else None
    assert isinstance(error, SigngateError)
    return error


async def test_a_made_up_key_is_refused_before_a_message_is_waited_for(world: World, stage: Stage) -> None:
    client = Client(unknown_key())
    error = await error_of(stage.open(client))
    assert (type(error), error.reason) == (Unauthenticated, "KEY_UNKNOWN")
    assert (client.asked, stage.open_now, world.events.all) == (0, 0, [])


async def test_a_key_that_may_not_sign_is_refused_when_it_opens(world: World, stage: Stage) -> None:
    client = Client(world.key(scopes=frozenset({"usage:read"}))[0])
    assert isinstance(await error_of(stage.open(client)), PermissionDenied)
    assert client.asked == 0


async def test_a_signed_out_session_opens_no_stream(world: World, stage: Stage) -> None:
    session = uuid4()
    world.sessions.revoked.add(str(session))
    client = Client(world.token(uuid4(), session_id=str(session)))
    assert (await error_of(stage.open(client))).reason == "SESSION_REVOKED"
    assert client.asked == 0


async def test_what_can_t_be_validated_opens_no_stream(world: World, stage: Stage) -> None:
    world.keys.fails = Unavailable(reason="PEER_UNAVAILABLE", retry_after=1.0)
    client = Client(world.key()[0])
    assert (await error_of(stage.open(client))).reason == "PEER_UNAVAILABLE"
    assert client.asked == 0


async def test_one_key_and_one_account_open_so_many_and_others_still_can(world: World, stage: Stage) -> None:
    first, caller = world.key()
    second, _ = world.key(user_id=caller.user_id)
    third, _ = world.key(user_id=caller.user_id)
    for secret in (first, first, second, second):
        await stage.opened(secret)
    assert stage.open_now == 4
    for secret, limit in ((first, "user"), (third, "user")):
        error = await error_of(stage.open(Client(secret)))
        assert (type(error), error.reason, error.metadata["limit"]) == (
            ResourceExhausted,
            "STREAM_LIMIT",
            limit,
        )
        assert error.retry_after is not None
    other, _ = world.key()
    for _ in range(2):
        await stage.opened(other)
    assert (await error_of(stage.open(Client(other)))).metadata["limit"] == "process"


async def test_every_way_to_end_gives_the_slot_back(world: World, stage: Stage) -> None:
    secret, _ = world.key()
    for turn in range(4):
        client = await stage.opened(secret)
        call = stage.calls[-1]
        if turn == 0:
            call.cancel()  # the client is gone
        elif turn == 1:
            client.requests.put_nowait(grpc.aio.EOF)
        elif turn == 2:
            stage.pass_time(LIMITS.first_message)
        else:
            stage.streams.stop()
        await asyncio.wait((call,), timeout=5)
        assert call.done()
        assert stage.open_now == 0
    assert stage.streams._users.total == stage.streams._by_key.total == 0


async def test_a_stream_that_sends_nothing_is_ended(world: World, stage: Stage) -> None:
    await stage.opened(world.key()[0])
    stage.pass_time(LIMITS.first_message - 1)
    assert stage.open_now == 1
    stage.pass_time(1)
    assert (await error_of(stage.calls[0])).reason == "FIRST_MESSAGE_TIMEOUT"


async def test_a_stream_that_sent_something_may_rest_for_longer(world: World, stage: Stage) -> None:
    client = await stage.opened(world.key()[0])
    client.send(1)
    await until(lambda: client.tags == [1])
    stage.pass_time(LIMITS.idle - 1)
    assert stage.open_now == 1
    stage.pass_time(1)
    assert (await error_of(stage.calls[0])).reason == "STREAM_IDLE"


async def test_a_stream_that_waits_for_the_signer_is_not_idle(world: World, stage: Stage) -> None:
    client = await stage.opened(world.key()[0])
    world.quota.gate = asyncio.Event()
    client.send(1)
    await until(lambda: world.quota.lists)
    stage.pass_time(10 * LIMITS.idle)
    world.quota.gate.set()
    await until(lambda: client.tags == [1])
    assert stage.open_now == 1
    stage.calls[0].cancel()


async def test_a_reader_that_stalls_is_ended_and_holds_no_list(world: World, stage: Stage) -> None:
    client = await stage.opened(world.key()[0])
    client.reads.clear()
    for tag in range(3):
        client.send(tag)
    await until(lambda: len(world.events.all) == 3)
    stage.pass_time(LIMITS.stall - 1)
    assert stage.open_now == 1
    stage.pass_time(1)
    assert (await error_of(stage.calls[0])).reason == "STREAM_STALLED"
    assert (world.streams.waiting, stage.open_now) == (0, 0)


async def test_a_revoked_key_ends_its_idle_stream_and_no_other(world: World, stage: Stage) -> None:
    (gone, caller), (good, _) = world.key(), world.key()
    await stage.opened(gone)
    await stage.opened(good)
    refusal = Refusal(Unauthenticated(reason="KEY_REVOKED"), caller.user_id, caller.key_id)
    world.keys.known[gone] = refusal
    await stage.streams.end_revoked()
    assert (await error_of(stage.calls[0])).reason == "KEY_REVOKED"
    assert stage.open_now == 1
    stage.calls[1].cancel()


async def test_a_signed_out_session_ends_its_idle_stream(world: World, stage: Stage) -> None:
    session = uuid4()
    await stage.opened(world.token(uuid4(), session_id=str(session)))
    await stage.streams.end_revoked()
    assert stage.open_now == 1
    world.sessions.revoked.add(str(session))
    await stage.streams.end_revoked()
    assert (await error_of(stage.calls[0])).reason == "SESSION_REVOKED"


async def test_peers_that_fail_end_no_idle_stream(world: World, stage: Stage) -> None:
    await stage.opened(world.key()[0])
    await stage.opened(world.token(uuid4()))
    world.keys.fails = world.sessions.fails = Unavailable(reason="PEER_UNAVAILABLE")
    await stage.streams.end_revoked()
    assert stage.open_now == 2
    for call in stage.calls:
        call.cancel()


async def test_a_stream_reads_no_further_ahead_than_its_bytes_allow(world: World, stage: Stage) -> None:
    """Few but huge requests must not fill the memory."""
    client = await stage.opened(world.key()[0])
    world.quota.gate = asyncio.Event()
    client.send(0)
    await until(lambda: world.quota.lists)
    for tag in range(1, 50):
        client.send(tag, "x" * 100_000)
    await asyncio.sleep(0.05)
    # Two lists of three in the line, three in the inbox, and one call of `read` for each of them.
    assert client.requests.qsize() >= 35
    world.quota.gate.set()
    await until(lambda: len(client.tags) == 50)
    stage.calls[0].cancel()


async def test_a_flood_of_made_up_keys_takes_no_place_of_the_line(world: World) -> None:
    """Strangers wait at the door; a caller whose key held before signs on, a new one still gets in."""
    known, _ = world.key()
    fresh, _ = world.fresh_key()
    world.keys.gate = asyncio.Event()
    strangers = [asyncio.create_task(_from(world, unknown_key(), "192.0.2.1")) for _ in range(200)]
    await asyncio.sleep(0.01)
    refused = [task for task in strangers if task.done()]
    assert len(refused) > 100
    assert {cast("SigngateError", task.exception()).reason for task in refused} == {"ACCOUNT_BUSY"}
    assert world.singles.waiting == 0
    signing = asyncio.create_task(world.sign(known))
    joining = asyncio.create_task(_from(world, fresh, "192.0.2.2"))
    await asyncio.sleep(0.01)
    assert not signing.done()
    assert not joining.done()
    world.keys.gate.set()
    assert (await signing).signed is not None
    await joining
    await asyncio.wait(strangers)
    assert len(world.door._owners) == 2


async def _from(world: World, secret: str, address: str) -> None:
    headers = (("x-api-key", secret), ("x-envoy-external-address", address))
    identity = await world.service.identify(headers)
    await world.service.sign(world.service.job(identity, (Wish("@someone"),), None))
