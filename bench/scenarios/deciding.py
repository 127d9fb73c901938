"""quota's decisions a second by lists of 100, against `decide`: the same as bare EVALSHA, one at a time.

Both ask the stack's Redis for the same charges of the same accounts and keys, each with a new id; both are
one process that asks. `decide` is the script itself by the synchronous driver with hiredis, its arguments
packed beforehand where they are the same for all: nothing else of the service is between.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import grpc

from bench.figures import Results
from bench.progress import Say
from bench.world import World
from servicekit.redis import open_redis
from services.quota import wire
from services.quota.domain import Charge, Plan, UserPlans
from services.quota.epochs import SINGLE, Epochs, base, lua
from signgate.common.v1 import quota_pb2
from signgate.quota.v1 import enforcement_pb2 as pb
from signgate.quota.v1 import enforcement_pb2_grpc

LIST = 100
IN_FLIGHT = 2
"""Lists on their way at a time: while one is decided, the next is on the wire."""
LEASE_US = 5_000_000
LONGEST = 3.0
"""Seconds of a round: less than a lease, so that nothing is cleared on either side."""


def decisions(world: World, rounds: int, seconds: float, results: Results, say: Say) -> None:
    """The ratio, a round."""
    lists, bare = [], []
    seconds = min(seconds, LONGEST)
    for number in range(rounds):
        _forget(world)
        bare.append(_bare(world, seconds))
        say(f"round {number + 1} of {rounds}: decide {bare[-1]:,.0f} decisions/s")
        _forget(world)
        lists.append(asyncio.run(_lists(world, seconds)))
        say(f"round {number + 1} of {rounds}: quota {lists[-1]:,.0f} decisions/s by lists of {LIST}")
    results.add("quota_over_decide", [a / b for a, b in zip(lists, bare, strict=True)])
    results.details["decisions_per_second"] = {
        "quota": [round(rate) for rate in lists],
        "decide": [round(rate) for rate in bare],
    }


async def _lists(world: World, seconds: float) -> float:
    """Decisions a second of the service, all granted."""
    users = [(str(account.user_id), str(account.key_id)) for account in world.accounts]
    credential = world.credential("signer", "quota")
    async with grpc.aio.insecure_channel(world.address("quota")) as channel:
        stub: Any = enforcement_pb2_grpc.QuotaEnforcementServiceStub(channel)
        end = time.monotonic() + seconds
        done = 0

        async def asking(first: int) -> None:
            nonlocal done
            place = first
            while time.monotonic() < end:
                request = pb.ConsumeRequest()
                for _ in range(LIST):
                    user_id, key_id = users[place % len(users)]
                    place += 1
                    request.charges.add(
                        charge_id=_id(),
                        user_id=user_id,
                        pool=quota_pb2.POOL_API_KEY,
                        key_id=key_id,
                        cost=1,
                    )
                answer = await stub.Consume(request, timeout=5, metadata=credential())
                granted = sum(decision.granted for decision in answer.decisions)
                if granted != LIST:
                    raise RuntimeError(f"{granted} of {LIST} were granted")
                done += LIST

        began = time.monotonic()
        await asyncio.gather(*(asking(n) for n in range(IN_FLIGHT)))
        return done / (time.monotonic() - began)


def _bare(world: World, seconds: float) -> float:
    """Decisions a second of the script alone."""
    generation = asyncio.run(_generation(world))
    script = lua("consume")
    sha = world.redis.script_load(script)
    plan = Plan(10**12, 60_000_000, 1_000_000)
    pools = wire.pack_pools(UserPlans(plan, plan))
    users = [(base(str(account.user_id)), account.key_id.bytes) for account in world.accounts]
    done = place = 0
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        for _ in range(100):
            name, key_id = users[place % len(users)]
            place += 1
            charge = Charge(os.urandom(16), True, key_id, 1, False)
            reply: Any = world.redis.evalsha(
                sha, 1, name, 0, generation, LEASE_US, 0, wire.pack_charges(((pools, (charge,)),))
            )
            outcome = wire.unpack_decisions(reply, ((name, 1),))
            if not (made := outcome.decisions[name]) or made[0].granted != 1:
                raise RuntimeError("not granted")
        done += 100
    return done / (time.monotonic() - began)


def _forget(world: World) -> None:
    """Nobody publishes what was charged here: its reservations would be taken back in the next round."""
    for account in world.accounts:
        world.redis.delete(*(f"{base(str(account.user_id))}:{part}" for part in "uol"))
    asyncio.run(_load(world))


async def _load(world: World) -> None:
    """Have each user's counters loaded."""
    credential = world.credential("signer", "quota")
    async with grpc.aio.insecure_channel(world.address("quota")) as channel:
        stub: Any = enforcement_pb2_grpc.QuotaEnforcementServiceStub(channel)
        for account in world.accounts:
            request = pb.InspectRequest(
                user_id=str(account.user_id), pool=quota_pb2.POOL_API_KEY, key_id=str(account.key_id)
            )
            await stub.Inspect(request, timeout=5, metadata=credential())


async def _generation(world: World) -> int:
    async with open_redis(world.redis_url, timeout=1.0, name="bench") as redis:
        return await Epochs(redis, 1.0).generation(SINGLE)


def _id() -> str:
    raw = os.urandom(16).hex()
    return f"{raw[:8]}-{raw[8:12]}-{raw[12:16]}-{raw[16:20]}-{raw[20:]}"
