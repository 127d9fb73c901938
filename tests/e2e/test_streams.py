"""Open streams hold nothing that others need: S3 and S4 on the real stack."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import grpc
import httpx
import pytest

from servicekit import apikey
from servicekit.clock import SystemEntropy, SystemIds
from servicekit.rpc.status import from_rpc_error
from signgate.signer.v1 import signer_pb2 as pb
from signgate.signer.v1 import signer_pb2_grpc
from tests.conftest import Running
from tests.e2e.conftest import Account

CONNECTIONS = 18
STREAMS = 4_400
BY_KEY = 32
ELSEWHERE = "127.0.0.2"
"""Where the victim calls from: what the edge limits by address is not what is tried here."""


async def ended(call: Any) -> grpc.aio.AioRpcError:
    """How a call ends that sends nothing."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        while await asyncio.wait_for(call.read(), 30) is not grpc.aio.EOF:
            pass
        raise AssertionError("the stream went on")
    return caught.value


async def test_a_made_up_key_opens_no_stream(running: Running) -> None:
    made_up = apikey.mint("live", SystemIds().uuid7(), SystemEntropy())
    async with grpc.aio.insecure_channel(running.edge) as channel:
        stub: Any = signer_pb2_grpc.SignerServiceStub(channel)
        error = await ended(stub.SignStream(metadata=(("x-api-key", made_up),)))
    assert (error.code(), from_rpc_error(error).reason) == (grpc.StatusCode.UNAUTHENTICATED, "KEY_UNKNOWN")


async def test_one_account_s_idle_streams_leave_others_signing(
    running: Running, new_account: Callable[[], Account]
) -> None:
    """4,400 idle streams of one account over 18 connections: every other call is answered."""
    greedy, victim = await asyncio.to_thread(new_account), await asyncio.to_thread(new_account)
    channels = [
        grpc.aio.insecure_channel(running.edge, options=(("grpc.use_local_subchannel_pool", 1),))
        for _ in range(CONNECTIONS)
    ]
    stubs: list[Any] = [signer_pb2_grpc.SignerServiceStub(channel) for channel in channels]
    metadata = (("x-api-key", greedy.key),)
    transport = httpx.AsyncHTTPTransport(local_address=ELSEWHERE)
    statuses: Counter[int] = Counter()
    async with httpx.AsyncClient(base_url=running.edge_url, transport=transport, timeout=30) as http:

        async def sign(count: int) -> None:
            for n in range(count):
                answer = await http.post(
                    "/v1/sign", json={"room_url": f"@victim{n}"}, headers={"x-api-key": victim.key}
                )
                statuses[answer.status_code] += 1

        await sign(5)
        calls: list[Any] = []
        attacked = asyncio.create_task(sign(40))
        for n in range(STREAMS):
            calls.append(stubs[n % CONNECTIONS].SignStream(metadata=metadata))
            if n % 50 == 0:
                await asyncio.sleep(0)
        await attacked
        await sign(20)
        still_open = sum(not call.done() for call in calls)
        for call in calls:
            call.cancel()
        for channel in channels:
            await channel.close()
        await sign(5)
    assert statuses == {200: 70}
    assert still_open <= BY_KEY


async def test_a_stream_that_works_goes_on(running: Running, account: Account) -> None:
    async with grpc.aio.insecure_channel(running.edge) as channel:
        stub: Any = signer_pb2_grpc.SignerServiceStub(channel)
        call = stub.SignStream(metadata=(("x-api-key", account.key),))
        for tag in range(3):
            request = pb.SignRequest(room_url="@someone")
            await call.write(pb.SignStreamRequest(tag=tag, request=request))
            assert (await call.read()).result.HasField("signature")
            await asyncio.sleep(1.5)
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
