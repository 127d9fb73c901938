"""SignStream: answers in any order, joined by tags; bounds; and every way in which it ends."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from prometheus_client import REGISTRY

from servicekit.rpc.status import from_rpc_error
from services.signer.streaming import READ_AHEAD, SignStream
from signgate.signer.v1 import signer_pb2 as pb
from signgate.signer.v1 import signer_pb2_grpc
from tests.integration.signer.world import Signer, World
from tests.unit.signer_service.world import unknown_key


def request(tag: int, url: str = "@someone") -> pb.SignStreamRequest:
    return pb.SignStreamRequest(tag=tag, request=pb.SignRequest(room_url=url))


async def many(count: int) -> AsyncIterator[pb.SignStreamRequest]:
    for tag in range(count):
        yield request(tag, f"@name{tag}")


async def test_every_request_is_answered_once_under_its_tag(world: World, signer: Signer) -> None:
    key = await world.key()
    answers = [answer async for answer in signer.raw.SignStream(many(700), metadata=key.auth)]
    assert sorted(answer.tag for answer in answers) == list(range(700))
    assert all(a.result.signature.username == f"name{a.tag}" for a in answers)
    assert {answer.result.request_id for answer in answers} == {e.id for e in await world.events()}
    assert await world.used(key) == 700


async def test_what_is_not_signed_says_why_and_the_stream_goes_on(world: World, signer: Signer) -> None:
    user = await world.free_user(2)
    call = signer.raw.SignStream(metadata=user.auth)
    found = []
    for tag, url in enumerate(("@aa", "nope", "@bb", "@cc")):
        await call.write(request(tag, url))
        answer = await call.read()
        assert answer.tag == tag
        found.append(answer.result.error.reason)
    assert found == ["", "ROOM_URL_UNRECOGNISED", "", "QUOTA_EXHAUSTED"]
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() == grpc.StatusCode.OK


async def test_a_revoked_key_ends_the_stream(world: World, signer: Signer) -> None:
    key = await world.key()
    call = signer.raw.SignStream(metadata=key.auth)
    await call.write(request(1))
    assert (await call.read()).result.HasField("signature")
    await world.revoked(key)
    await call.write(request(2))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        while await call.read() is not grpc.aio.EOF:
            pass
        raise AssertionError("the stream went on")
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert await world.outcomes() == ["", "KEY_REVOKED"]


@pytest.mark.parametrize("metadata", [(), (("x-api-key", "sgk_live_x"),), (("x-api-key", unknown_key()),)])
async def test_a_bad_credential_ends_the_stream(
    world: World, signer: Signer, metadata: tuple[tuple[str, str], ...]
) -> None:
    call = signer.raw.SignStream(metadata=metadata, timeout=10)  # and nothing is sent
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert await world.events() == []


async def test_a_missing_scope_ends_the_stream(world: World, signer: Signer) -> None:
    key = await world.key(scopes=["usage:read"])
    call = signer.raw.SignStream(many(3), metadata=key.auth)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED


async def test_an_empty_stream_ends_well(world: World, signer: Signer) -> None:
    key = await world.key()
    assert [answer async for answer in signer.raw.SignStream(many(0), metadata=key.auth)] == []


def streams() -> list[SignStream]:
    return [one for one in gc.get_objects() if type(one) is SignStream]


async def test_a_client_that_reads_nothing_is_held_back(world: World, signer: Signer) -> None:
    """What the server takes of a client that never reads is bounded."""
    key = await world.key()
    earlier = streams()  # of other tests, and not collected yet
    call = signer.raw.SignStream(metadata=key.auth)
    written = 0

    async def flood() -> None:
        nonlocal written
        while True:
            await call.write(request(written, f"https://www.tiktok.com/@x_y/live?{'q' * 1900}"))
            written += 1

    writing = asyncio.ensure_future(flood())
    stood: list[int] = []
    while len(stood) < 30 and (len(stood) < 2 or stood[-1] != stood[-2]):
        await asyncio.sleep(1.0)
        stood.append(written)
    writing.cancel()
    assert stood[-1] == stood[-2] > 0
    # One list is being written, two wait for it, two are in the line; the rest is in the inbox.
    (stream,) = (one for one in streams() if not any(one is each for each in earlier))
    assert 0 < len(stream._inbox) <= READ_AHEAD
    call.cancel()


async def test_a_client_that_goes_away_leaves_no_charge_unrecorded(world: World, signer: Signer) -> None:
    key = await world.key()
    call = signer.raw.SignStream(many(500), metadata=key.auth)
    for _ in range(20):
        await call.read()
    call.cancel()
    for _ in range(100):
        signed = sum(event.success for event in await world.events())
        if signed >= 20 and await world.used(key) == signed:
            break
        await asyncio.sleep(0.05)
    assert await world.used(key) == sum(event.success for event in await world.events())


async def test_peers_that_fail_leave_the_stream_open(world: World, signer: Signer) -> None:
    key = await world.key()
    call = signer.raw.SignStream(metadata=key.auth)
    await call.write(request(1))
    assert (await call.read()).result.HasField("signature")
    await world.quota_cable.cut()
    await call.write(request(2))
    error = (await call.read()).result.error
    assert (error.code, error.reason) == (14, "PEER_UNAVAILABLE")
    assert error.HasField("retry_after")
    await world.quota_cable.mend()
    for tag in range(3, 100):
        await call.write(request(tag))
        if (await call.read()).result.HasField("signature"):
            break
        await asyncio.sleep(0.05)
    else:
        raise AssertionError("never signed again")
    await call.done_writing()
    assert await call.code() == grpc.StatusCode.OK


async def test_a_stopping_server_answers_what_it_read_then_ends_the_stream(world: World) -> None:
    key = await world.key()
    async with world.signer(drain_grace=5.0) as signer:
        call = signer.raw.SignStream(metadata=key.auth)
        for tag in range(10):
            await call.write(request(tag))
        first = await call.read()
        signer.runtime.stopping.set()
        tags = [first.tag]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            while (answer := await call.read()) is not grpc.aio.EOF:
                tags.append(answer.tag)
            raise AssertionError("ended well")
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert len(tags) == len(set(tags)) == sum(event.success for event in await world.events())


async def ended(call: Any) -> grpc.aio.AioRpcError:
    """How a call ends that sends nothing more."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        while await asyncio.wait_for(call.read(), 20) is not grpc.aio.EOF:
            pass
        raise AssertionError("the stream went on")
    return caught.value


def reason_of(error: grpc.aio.AioRpcError) -> str:
    return from_rpc_error(error).reason


async def open_streams(count: int) -> None:
    """Return once so many are open."""
    for _ in range(600):
        if (REGISTRY.get_sample_value("signgate_signer_streams_open") or 0) == count:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"never {count} open streams")


async def test_a_key_that_is_revoked_ends_its_idle_stream(world: World, signer: Signer) -> None:
    key = await world.key()
    call = signer.raw.SignStream(metadata=key.auth)
    await call.write(request(1))
    assert (await call.read()).result.HasField("signature")
    await world.revoked(key)
    error = await ended(call)
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.UNAUTHENTICATED, "KEY_REVOKED")


async def test_a_stream_that_sends_nothing_is_ended(world: World) -> None:
    key = await world.key()
    async with world.signer(stream_first_message=1.0) as signer:
        error = await ended(signer.raw.SignStream(metadata=key.auth))
    assert reason_of(error) == "FIRST_MESSAGE_TIMEOUT"
    assert error.code() == grpc.StatusCode.ABORTED


async def test_one_account_opens_so_many_streams_and_others_sign(world: World) -> None:
    """Also: clients that are killed give their slots back."""
    key, other = await world.key(), await world.key()
    async with world.signer(streams_by_key=3, streams_by_user=4) as signer:
        address = str(signer.runtime.grpc_address)
        channel = grpc.aio.insecure_channel(address, options=(("grpc.use_local_subchannel_pool", 1),))
        stub: Any = signer_pb2_grpc.SignerServiceStub(channel)
        calls = [stub.SignStream(metadata=key.auth) for _ in range(3)]
        await open_streams(3)
        error = await ended(signer.raw.SignStream(metadata=key.auth))
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        found = from_rpc_error(error)
        assert (found.reason, found.metadata["limit"]) == ("STREAM_LIMIT", "key")
        assert found.retry_after is not None
        assert (await signer.sign(other)).HasField("signature")
        assert (await signer.sign(key)).HasField("signature")
        await channel.close()  # as if the process were killed: the connection is gone, no call was ended
        await open_streams(0)
        again = signer.raw.SignStream(metadata=key.auth)
        await again.write(request(1))
        assert (await again.read()).result.HasField("signature")
        again.cancel()
        del calls


async def test_a_client_that_reads_nothing_is_ended(world: World) -> None:
    key = await world.key()
    async with world.signer(stream_stall=1.0, streams_by_key=1) as signer:
        call = signer.raw.SignStream(metadata=key.auth)

        async def flood() -> None:
            tag = 0
            while True:
                await call.write(request(tag, f"https://www.tiktok.com/@x_y/live?{'q' * 1900}"))
                tag += 1

        writing = asyncio.ensure_future(flood())
        await open_streams(1)
        await open_streams(0)
        writing.cancel()
        call.cancel()
        again = signer.raw.SignStream(metadata=key.auth)
        await again.write(request(1))
        assert (await again.read()).tag == 1
        again.cancel()
