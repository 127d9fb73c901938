"""One straight line on real parts: credential, keys, quota, engine, event, reply."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from servicekit.errors import (
    InvalidArgument,
    PermissionDenied,
    ResourceExhausted,
    SigngateError,
    Unauthenticated,
)
from servicekit.redis import DeniedSessions
from signgate.common.v1 import quota_pb2
from signgate.signer.v1 import signer_pb2 as pb
from tests.integration.signer.world import ROOM, Signer, World
from tests.unit.signer_service.world import unknown_key


async def reason(call: Any) -> str:
    try:
        await call
    except SigngateError as error:
        return error.reason
    raise AssertionError("the call succeeded")


async def test_a_key_signs_is_charged_and_recorded(world: World, signer: Signer) -> None:
    key = await world.key()
    answer = await signer.sign(key)
    assert UUID(answer.request_id).version == 7
    signature = answer.signature
    assert signature.canonical_url == ROOM
    assert signature.username == "someone"
    assert signature.engine.name == "native"
    verdict = await signer.stub.VerifySignature(
        pb.VerifySignatureRequest(signed_url=signature.signed_url), metadata=()
    )
    assert verdict.valid
    assert (answer.quota.limit, answer.quota.remaining) == (1000, 999)
    (event,) = await world.events()
    assert (event.id, event.charge_id) == (answer.request_id, answer.request_id)
    assert (event.user_id, event.api_key_id) == (str(key.user.id), key.id)
    assert (event.success, event.charged, event.pool) == (True, 1, quota_pb2.POOL_API_KEY)
    assert event.charged_day == (datetime.now(UTC).date() - datetime(1970, 1, 1, tzinfo=UTC).date()).days
    assert await world.used(key) == 1


async def test_a_login_signs_on_the_free_pool(world: World, signer: Signer) -> None:
    user = await world.keys_world.user()
    await signer.sign(user)
    (event,) = await world.events()
    assert (event.user_id, event.api_key_id, event.pool) == (str(user.id), "", quota_pb2.POOL_FREE)
    assert await world.used(user) == 1


async def test_trailing_metadata_tells_the_quota_and_the_request_id(world: World, signer: Signer) -> None:
    key = await world.key()
    call = signer.raw.Sign(pb.SignRequest(room_url=ROOM), metadata=key.auth)
    answer = await call
    told = dict(await call.trailing_metadata())
    assert told["x-request-id"] == answer.request_id
    assert (told["ratelimit-limit"], told["ratelimit-remaining"]) == ("1000", "999")
    midnight = answer.quota.reset_at.seconds
    assert told["x-ratelimit-reset"] == str(midnight)
    assert abs(int(told["ratelimit-reset"]) - (midnight - datetime.now(UTC).timestamp())) < 3
    assert "retry-after" not in told
    call = signer.raw.Sign(
        pb.SignRequest(room_url=ROOM), metadata=(*key.auth, ("x-request-id", "my-own-id-1"))
    )
    await call
    assert dict(await call.trailing_metadata())["x-request-id"] == "my-own-id-1"


async def test_a_used_up_quota_is_refused_told_and_recorded(world: World, signer: Signer) -> None:
    user = await world.free_user(2)
    await signer.sign(user)
    await signer.sign(user)
    with pytest.raises(ResourceExhausted) as caught:
        await signer.sign(user)
    error = caught.value
    assert error.reason == "QUOTA_EXHAUSTED"
    assert error.metadata["limit"] == "user_day"
    assert error.retry_after is not None
    assert 0 < error.retry_after <= 86_400
    assert error.quota is not None
    assert (error.quota.limit, error.quota.remaining) == (2, 0)
    with pytest.raises(grpc.aio.AioRpcError) as raw:
        await signer.raw.Sign(pb.SignRequest(room_url=ROOM), metadata=user.auth)
    told = dict(raw.value.trailing_metadata() or ())
    assert told["ratelimit-remaining"] == "0"
    assert int(str(told["retry-after"])) > 0
    assert "x-request-id" in told
    assert sorted(await world.outcomes()) == ["", "", "QUOTA_EXHAUSTED", "QUOTA_EXHAUSTED"]
    assert await world.used(user) == 2


async def test_two_signers_never_grant_more_than_the_plan(world: World, signer: Signer) -> None:
    user = await world.free_user(25)
    async with world.signer() as other:
        answers = await asyncio.gather(
            *((signer, other)[n % 2].sign(user) for n in range(60)), return_exceptions=True
        )
    signed = [answer for answer in answers if isinstance(answer, pb.SignResponse)]
    assert len(signed) == 25
    assert len({answer.request_id for answer in signed}) == 25
    assert {answer.reason for answer in answers if isinstance(answer, SigngateError)} == {"QUOTA_EXHAUSTED"}
    events = await world.events()
    assert len(events) == 60
    assert {event.id for event in events if event.success} == {answer.request_id for answer in signed}
    assert await world.used(user) == 25


async def test_a_keys_own_limit_stands(world: World, signer: Signer) -> None:
    key = await world.key(daily_limit=1)
    await signer.sign(key)
    with pytest.raises(ResourceExhausted) as caught:
        await signer.sign(key)
    assert caught.value.metadata["limit"] == "key_day"


async def test_a_revoked_key_is_refused_and_recorded(world: World, signer: Signer) -> None:
    key = await world.key()
    await signer.sign(key)
    await world.revoked(key)
    assert await reason(signer.sign(key)) == "KEY_REVOKED"
    last = (await world.events())[-1]
    assert (last.error_reason, last.user_id, last.api_key_id) == ("KEY_REVOKED", str(key.user.id), key.id)
    assert await world.used(key) == 1


async def test_an_unknown_key_leaves_nothing(world: World, signer: Signer) -> None:
    call = signer.stub.Sign(pb.SignRequest(room_url=ROOM), metadata=(("x-api-key", unknown_key()),))
    assert await reason(call) == "KEY_UNKNOWN"
    assert await world.events() == []


async def test_a_key_without_the_scope(world: World, signer: Signer) -> None:
    key = await world.key(scopes=["usage:read"])
    with pytest.raises(PermissionDenied):
        await signer.sign(key)
    assert await world.outcomes() == ["SCOPE_MISSING"]


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ((), "CREDENTIAL_MISSING"),
        ((("authorization", "Basic YTpi"),), "CREDENTIAL_MALFORMED"),
        ((("authorization", "Bearer x"),), "KEY_MALFORMED"),
        ((("x-api-key", "sgk_live_short"),), "KEY_MALFORMED"),
        ((("authorization", "Bearer eyJhbGciOiJub25lIn0.e30."),), "TOKEN_INVALID"),
    ],
)
async def test_bad_credentials(signer: Signer, metadata: tuple[tuple[str, str], ...], expected: str) -> None:
    for method, request in (
        (signer.stub.Sign, pb.SignRequest(room_url=ROOM)),
        (signer.stub.SignBatch, pb.SignBatchRequest(requests=[pb.SignRequest(room_url=ROOM)])),
    ):
        assert await reason(method(request, metadata=metadata)) == expected


async def test_forged_expired_and_foreign_tokens(world: World, signer: Signer) -> None:
    mint = world.keys_world.mint
    for token, expected in (
        (mint.token(uuid4(), exp=1), "TOKEN_EXPIRED"),
        (mint.token(uuid4(), aud="anon"), "TOKEN_AUDIENCE"),
        (type(mint)().token(uuid4()), "TOKEN_INVALID"),  # the same issuer's name, another key
    ):
        call = signer.stub.Sign(
            pb.SignRequest(room_url=ROOM), metadata=(("authorization", f"Bearer {token}"),)
        )
        assert await reason(call) == expected


async def test_a_signed_out_session_is_refused(world: World, signer: Signer) -> None:
    session = str(uuid4())
    token = world.keys_world.mint.token((await world.keys_world.user()).id, session_id=session)
    auth = (("authorization", f"Bearer {token}"),)
    await signer.stub.Sign(pb.SignRequest(room_url=ROOM), metadata=auth)
    await DeniedSessions(world.redis).deny(session, 60)
    assert await reason(signer.stub.Sign(pb.SignRequest(room_url=ROOM), metadata=auth)) == "SESSION_REVOKED"


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"room_url": ""}, "ROOM_URL_EMPTY"),
        ({"room_url": "https://tiktok.com.evil.example/@a_b/live"}, "ROOM_URL_HOST"),
        ({"room_url": "x" * 100_000}, "ROOM_URL_TOO_LONG"),
        ({"room_url": ROOM, "engine": "no-such"}, "ENGINE_UNKNOWN"),
        ({"room_url": ROOM, "user_agent": "x" * 600}, "VALIDATION_FAILED"),
        ({"room_url": ROOM, "algorithm": 99}, "VALIDATION_FAILED"),
        ({"room_url": ROOM, "ttl": Duration(seconds=-5)}, "VALIDATION_FAILED"),
        ({"room_url": ROOM, "ttl": Duration(seconds=10**9)}, "TTL_OUT_OF_RANGE"),
    ],
)
async def test_bad_requests_are_recorded_and_cost_nothing(
    world: World, signer: Signer, members: dict[str, Any], expected: str
) -> None:
    key = await world.key()
    with pytest.raises(InvalidArgument) as caught:
        await signer.stub.Sign(pb.SignRequest(**members), metadata=key.auth)
    assert caught.value.reason == expected
    assert await world.outcomes() == [expected]
    for _ in range(50):
        if await world.used(key) == 0:
            break
        await asyncio.sleep(0.05)
    assert await world.used(key) == 0


async def test_unknown_fields_are_passed_over(world: World, signer: Signer) -> None:
    key = await world.key()
    sign: Any = signer.channel.unary_unary(
        "/signgate.signer.v1.SignerService/Sign", response_deserializer=pb.SignResponse.FromString
    )
    with_more = pb.SignRequest(room_url=ROOM).SerializeToString() + b"\xfa\x3f\x03abc"
    answer = await sign(with_more, metadata=key.auth)
    assert answer.signature.canonical_url == ROOM


async def test_both_algorithms_and_a_lifetime(world: World, signer: Signer) -> None:
    key = await world.key()
    answer = await signer.sign(key, algorithm=pb.ALGORITHM_HMAC_SHA256, ttl=Duration(seconds=60))
    assert answer.signature.algorithm == pb.ALGORITHM_HMAC_SHA256
    left = answer.signature.expires_at.seconds - datetime.now(UTC).timestamp()
    assert 50 < left <= 60


async def test_a_batch_answers_in_order_and_is_charged_for_what_was_signed(
    world: World, signer: Signer
) -> None:
    key = await world.key()
    answer = await signer.batch(key, "@aa", "nonsense!", "@bb")
    assert [one.WhichOneof("result") for one in answer.results] == ["signature", "error", "signature"]
    assert [one.signature.username for one in answer.results] == ["aa", "", "bb"]
    assert answer.signed == 2
    error = answer.results[1].error
    assert (error.code, error.reason) == (3, "ROOM_URL_UNRECOGNISED")
    assert answer.quota.remaining == 998
    assert await world.used(key) == 2
    events = await world.events()
    assert [event.id for event in events] == [one.request_id for one in answer.results]


async def test_a_partly_granted_batch_says_so(world: World, signer: Signer) -> None:
    user = await world.free_user(3)
    answer = await signer.batch(user, *(f"@name{n}" for n in range(5)))
    assert [one.error.reason for one in answer.results] == ["", "", "", "QUOTA_EXHAUSTED", "QUOTA_EXHAUSTED"]
    denied = answer.results[4].error
    assert denied.code == 8
    assert denied.denied_by == quota_pb2.LIMIT_KIND_USER_DAY
    assert denied.HasField("retry_after")
    assert answer.signed == 3
    assert await world.used(user) == 3


@pytest.mark.parametrize("count", [0, 101])
async def test_a_batch_of_a_wrong_size(world: World, signer: Signer, count: int) -> None:
    key = await world.key()
    with pytest.raises(InvalidArgument) as caught:
        await signer.batch(key, *["@aa"] * count)
    assert caught.value.reason == "VALIDATION_FAILED"


async def test_a_batch_of_a_hundred(world: World, signer: Signer) -> None:
    key = await world.key()
    answer = await signer.batch(key, *(f"@name{n}" for n in range(100)))
    assert answer.signed == 100
    assert [one.signature.username for one in answer.results] == [f"name{n}" for n in range(100)]
    assert await world.used(key) == 100


async def test_engines_and_keys_are_public(signer: Signer) -> None:
    engines = await signer.stub.ListEngines(pb.ListEnginesRequest())
    (native,) = engines.engines
    assert (native.info.name, native.ready, native.default) == ("native", True, True)
    keys = await signer.stub.ListSigningKeys(pb.ListSigningKeysRequest())
    (published,) = keys.keys
    assert (published.algorithm, len(published.public_key)) == (pb.ALGORITHM_ED25519, 32)
    assert published.id in keys.jwks_json


async def test_a_forged_url_does_not_verify(signer: Signer) -> None:
    verdict = await signer.stub.VerifySignature(pb.VerifySignatureRequest(signed_url=ROOM))
    assert (verdict.valid, verdict.reason) == (False, "MALFORMED")


async def test_unauthenticated_is_answered_without_peers(world: World) -> None:
    async with world.signer() as found:
        await world.keys_cable.cut()
        await world.quota_cable.cut()
        with pytest.raises(Unauthenticated):
            await found.stub.Sign(
                pb.SignRequest(room_url=ROOM), metadata=(("x-api-key", unknown_key()[:-1] + "!"),)
            )
