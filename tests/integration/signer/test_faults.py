"""Parts that die, hang and come back: nothing signed is lost, nothing unsigned is charged."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from servicekit import keyset
from servicekit.errors import SigngateError, Unavailable
from services.signer.domain import Signed, SignRequest
from services.signer.engines.native import NativeEngine
from signgate.signer.v1 import signer_pb2 as pb
from tests.integration.signer.world import ROOM, Signer, World


async def eventually(holds: Callable[[], Awaitable[bool]], seconds: float = 30.0) -> None:
    """Wait until it holds; fail when it does not in time."""
    give_up = time.monotonic() + seconds
    while not await holds():
        assert time.monotonic() < give_up, "it did not come to hold"
        await asyncio.sleep(0.05)


async def refused_fast(call: Awaitable[Any]) -> Unavailable:
    async with asyncio.timeout(8):  # long before a caller's own deadline
        with pytest.raises(Unavailable) as caught:
            await call
    assert caught.value.retry_after is not None
    return caught.value


async def served_again(signer: Signer, who: Any) -> None:
    async def holds() -> bool:
        try:
            await signer.sign(who)
        except Unavailable:
            return False
        return True

    await eventually(holds)


async def test_redis_gone_refuses_fast_charges_nothing_and_comes_back(world: World, signer: Signer) -> None:
    key = await world.key()
    await signer.sign(key)
    await world.redis_cable.cut()
    for _ in range(3):
        assert (await refused_fast(signer.sign(key))).reason == "USAGE_STREAM_UNAVAILABLE"
    await world.redis_cable.mend()
    await served_again(signer, key)
    events = [event for event in await world.events() if event.success]

    # What was certainly not published is refunded at once; what is in doubt (the one connection that
    # died in use) when its lease has ended and the logger's watermark has passed it.
    await eventually(lambda: _at_most(world, key, len(events) + 1))
    assert len(events) == 2


async def _at_most(world: World, key: Any, count: int) -> bool:
    return await world.used(key) <= count


async def test_a_stream_that_is_full_refuses_and_charges_nothing_until_it_is_read(world: World) -> None:
    async with world.signer(usage_backlog_bytes=1_000_000) as signer:
        key = await world.key()
        await signer.sign(key)
        for shard in range(4):
            pipe = world.redis.pipeline()
            for _ in range(400):
                pipe.xadd(f"usage:{{{shard}}}", {"e": b"x" * 4000})
            await pipe.execute()
        for _ in range(3):
            assert (await refused_fast(signer.sign(key))).reason == "USAGE_BACKLOG"
        await eventually(lambda: _at_most(world, key, 1))
        for shard in range(4):
            await world.redis.xtrim(f"usage:{{{shard}}}", maxlen=0)
        await signer.sign(key)
        assert await world.used(key) == 2


async def test_redis_hanging_refuses_in_bounded_time(world: World, signer: Signer) -> None:
    key = await world.key()
    await signer.sign(key)
    world.redis_cable.hang()
    assert (await refused_fast(signer.sign(key))).reason == "USAGE_STREAM_UNAVAILABLE"
    await world.redis_cable.mend()
    await served_again(signer, key)


async def test_without_redis_a_login_is_refused_and_not_charged(world: World, signer: Signer) -> None:
    user = await world.keys_world.user()
    await signer.sign(user)
    await world.redis_cable.cut()
    assert (await refused_fast(signer.sign(user))).reason == "REDIS_UNAVAILABLE"
    await world.redis_cable.mend()
    assert await world.used(user) == 1


async def test_keys_gone_and_back(world: World, signer: Signer) -> None:
    key = await world.key()
    await signer.sign(key)
    await world.keys_cable.cut()
    assert (await refused_fast(signer.sign(key))).reason == "PEER_UNAVAILABLE"
    await world.keys_cable.mend()
    await served_again(signer, key)


async def test_quota_gone_and_back(world: World, signer: Signer) -> None:
    key = await world.key()
    await signer.sign(key)
    await world.quota_cable.cut()
    assert (await refused_fast(signer.sign(key))).reason == "PEER_UNAVAILABLE"
    await world.quota_cable.mend()
    await served_again(signer, key)
    events = await world.events()
    assert next(event.error_reason for event in events if not event.success) == "PEER_UNAVAILABLE"

    async def exact() -> bool:
        return await world.used(key) == sum(event.success for event in await world.events())

    await eventually(exact)


async def test_a_hanging_quota_is_given_up_and_what_it_counted_is_refunded(world: World) -> None:
    async with world.signer(peer_timeout=2.0) as signer:
        key = await world.key()
        await signer.sign(key)
        world.quota_cable.hang()
        await refused_fast(signer.sign(key))
        await world.quota_cable.mend()
        await served_again(signer, key)

        async def exact() -> bool:
            return await world.used(key) == sum(event.success for event in await world.events())

        await eventually(exact)


async def test_a_lost_lease_is_fenced_and_refunded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signer that was paused between charging and publishing, longer than its lease."""
    real = NativeEngine.sign

    async def slow(engine: NativeEngine, requests: Sequence[SignRequest]) -> list[Signed | SigngateError]:
        signed = await real(engine, requests)
        await asyncio.sleep(0.8)
        return signed

    async with (
        world.quota_world.replica(lease=0.5) as quota,
        world.signer(quota_addr=str(quota.address)) as signer,
    ):
        key = await world.key()
        monkeypatch.setattr(NativeEngine, "sign", slow)
        with pytest.raises(Unavailable) as caught:
            await signer.sign(key)
        assert caught.value.reason == "LEASE_LOST"
        monkeypatch.setattr(NativeEngine, "sign", real)
        assert await world.outcomes() == ["LEASE_LOST"]

        async def refunded() -> bool:
            return await world.used(key) == 0

        await eventually(refunded)
        await served_again(signer, key)  # a machine that pauses for half a second loses a lease itself


async def test_a_client_that_goes_away_is_charged_only_if_recorded(world: World, signer: Signer) -> None:
    key = await world.key()
    calls = []
    for n in range(60):
        calls.append(signer.raw.Sign(pb.SignRequest(room_url=f"@name{n}"), metadata=key.auth))
        if n % 3 == 0:
            await asyncio.sleep(0.002)
            calls[-1].cancel()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    answered = {one.request_id for one in answers if isinstance(one, pb.SignResponse)}
    assert 40 <= len(answered) < 60

    async def exact() -> bool:
        signed = {event.id for event in await world.events() if event.success}
        return answered <= signed and await world.used(key) == len(signed)

    await eventually(exact)


async def test_a_deadline_is_kept(world: World) -> None:
    async with world.signer() as signer:
        key = await world.key()
        await signer.sign(key)
        world.keys_cable.hang()
        began = time.monotonic()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await signer.raw.Sign(pb.SignRequest(room_url=ROOM), metadata=key.auth, timeout=0.3)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - began < 10  # the peer never answers
        await world.keys_cable.mend()


async def test_readiness_follows_the_peers(world: World, signer: Signer) -> None:
    health: Any = health_pb2_grpc.HealthStub(signer.channel)

    async def serving() -> bool:
        answer = await health.Check(health_pb2.HealthCheckRequest())
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def not_serving() -> bool:
        return not await serving()

    assert await serving()
    await world.keys_cable.cut()
    await eventually(not_serving)
    await world.keys_cable.mend()
    await eventually(serving)


async def test_a_rotated_key_signs_and_its_elder_still_verifies(world: World, signer: Signer) -> None:
    key = await world.key()
    before = (await signer.sign(key)).signature
    now = time.time()
    rotated = keyset.load(world.keyset).rotated("EdDSA", now, lead=0, overlap=600)
    keyset.save(world.keyset, rotated.keys)

    async def by_the_new_one() -> bool:
        return (await signer.sign(key)).signature.signing_key_id != before.signing_key_id

    await eventually(by_the_new_one)
    verdict = await signer.stub.VerifySignature(pb.VerifySignatureRequest(signed_url=before.signed_url))
    assert verdict.valid
    published = (await signer.stub.ListSigningKeys(pb.ListSigningKeysRequest())).keys
    assert len(published) == 2
    assert published[0].id != before.signing_key_id
    assert published[1].HasField("not_after")
