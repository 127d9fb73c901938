"""What an instance says of itself; and that one which is told to stop loses nobody a call."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from servicekit.errors import SigngateError
from servicekit.rpc import create_channel
from servicekit.rpc.server import ACCEPTING, LIVENESS
from servicekit.testing.identity import shared
from servicekit.testing.network import listening
from signgate.keys.v1 import validation_pb2 as pb
from signgate.keys.v1 import validation_pb2_grpc as keys_grpc

CALLERS = 64


class Keys(keys_grpc.KeyValidationServiceServicer):
    """Answers in two milliseconds, and counts."""

    def __init__(self) -> None:
        self.calls = 0

    async def ValidateKeys(self, request: Any, context_: Any) -> Any:
        self.calls += 1
        await asyncio.sleep(0.002)
        return pb.ValidateKeysResponse()


async def in_a_moment(keys: Keys) -> int:
    """How often it has been called, after a fifth of a second."""
    await asyncio.sleep(0.2)
    return keys.calls


@pytest.mark.parametrize("round_", range(3))
async def test_no_call_fails_when_one_of_two_peers_is_stopped_under_load(round_: int) -> None:
    leaves, stays = Keys(), Keys()
    add = keys_grpc.add_KeyValidationServiceServicer_to_server
    done = asyncio.Event()
    answers: Counter[str] = Counter()

    async def call(stub: Any) -> None:
        while not done.is_set():
            try:
                await stub.ValidateKeys(pb.ValidateKeysRequest())
            except SigngateError as error:
                answers[error.status] += 1
            else:
                answers["OK"] += 1

    async with (
        listening((leaves, add)) as (leaving, one),
        listening((stays, add)) as (_, two),
        create_channel(f"127.0.0.1:{one},127.0.0.1:{two}", peer=shared().peer("signer", "keys")) as channel,
        asyncio.TaskGroup() as callers,
    ):
        stub = keys_grpc.KeyValidationServiceStub(channel)
        for _ in range(CALLERS):
            callers.create_task(call(stub))
        await asyncio.sleep(1)
        took_part = leaves.calls
        await leaving.withdraw()
        async with asyncio.timeout(30):
            while leaves.calls != await in_a_moment(leaves):
                pass
        await leaving.stop(5)
        await asyncio.sleep(0.3)
        done.set()
    assert took_part > CALLERS
    assert stays.calls > CALLERS
    assert answers.keys() == {"OK"}


async def test_readiness_liveness_and_leaving_stand_apart() -> None:
    add = keys_grpc.add_KeyValidationServiceServicer_to_server
    async with (
        listening((Keys(), add)) as (server, port),
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        stub: Any = health_pb2_grpc.HealthStub(channel)

        async def state(name: str) -> str:
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
            return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

        ready = ["", "signgate.keys.v1.KeyValidationService"]
        names = [*ready, LIVENESS, ACCEPTING]
        assert [await state(name) for name in names] == ["SERVING"] * 4
        await server.set_ready(ready=False)
        assert [await state(name) for name in names] == ["NOT_SERVING", "NOT_SERVING", "SERVING", "SERVING"]
        await server.set_ready(ready=True)
        await server.withdraw()
        await server.set_ready(ready=True)  # by a check that had begun before
        assert [await state(name) for name in names] == ["NOT_SERVING"] * 2 + ["SERVING", "NOT_SERVING"]
