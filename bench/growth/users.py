"""What a quota decision costs, against the number of users who ask at once.

Lists of 100 charges, each of another user as long as there are so many; the counters of all are in Redis.
"""

from __future__ import annotations

import asyncio
import time
from itertools import cycle, islice
from typing import Any

import grpc

from bench.growth.curves import Curve
from bench.processes import accounted
from bench.progress import Say
from bench.world import Credential, World
from servicekit.clock import uuid7
from signgate.common.v1 import quota_pb2
from signgate.quota.v1 import enforcement_pb2 as pb
from signgate.quota.v1 import enforcement_pb2_grpc

LIST = 100


async def decisions(world: World, sizes: tuple[int, ...], rounds: int, lists: int, say: Say) -> list[Curve]:
    """CPU microseconds of quota and Redis a decision."""
    curve = Curve("decide", "users at once", "µs of CPU a decision (quota and Redis)")
    pids = {name: pid for name, pid in world.pids().items() if name.startswith(("quota", "redis"))}
    credential = world.credential("signer", "quota")
    users = [str(uuid7()) for _ in range(sizes[-1])]
    async with grpc.aio.insecure_channel(world.address("quota")) as channel:
        stub: Any = enforcement_pb2_grpc.QuotaEnforcementServiceStub(channel)
        for size in sizes:
            asking = cycle(users[:size])
            for _ in range(-(-size // LIST)):
                await _decided(stub, credential, list(islice(asking, LIST)), complete=False)
            found = []
            for _ in range(rounds):
                with accounted(pids) as cost:
                    for _ in range(lists):
                        await _decided(stub, credential, list(islice(asking, LIST)))
                found.append(sum(cost.seconds[name] for name in pids) / (lists * LIST) * 1e6)
            curve.add(size, found)
            say(f"{size:,} users: {curve.medians[size]:.1f} µs a decision")
    return [curve]


async def _decided(stub: Any, credential: Credential, users: list[str], *, complete: bool = True) -> None:
    request = pb.ConsumeRequest(
        charges=[
            pb.Charge(charge_id=str(uuid7()), user_id=user, pool=quota_pb2.POOL_FREE, cost=1)
            for user in users
        ]
    )
    answer = await stub.Consume(request, timeout=10, metadata=credential())
    granted = sum(decision.granted for decision in answer.decisions)
    if complete and granted != len(users):
        raise RuntimeError(f"{granted} of {len(users)} were granted")
    # What nobody publishes is given back at once: no round finds the reservations of the one before.
    await stub.Refund(
        pb.RefundRequest(
            charges=[
                pb.ChargeRef(charge_id=charge.charge_id, user_id=charge.user_id) for charge in request.charges
            ]
        ),
        timeout=10,
        metadata=credential(),
    )


def measure(world: World, sizes: tuple[int, ...], rounds: int, lists: int, say: Say) -> list[Curve]:
    """`decisions`, from outside an event loop."""
    began = time.monotonic()
    found = asyncio.run(decisions(world, sizes, rounds, lists, say))
    say(f"users: {time.monotonic() - began:.0f} s")
    return found
