"""What the line promises each member of a list, whatever happens to the others."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from uuid import uuid4

import pytest

from servicekit.errors import (
    Cancelled,
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    PermissionDenied,
    ResourceExhausted,
    SigngateError,
    Unauthenticated,
    Unavailable,
)
from services.signer.errors import EngineFailure
from services.signer.jobs import Refund, Wish
from services.signer.ports import LeaseLost, StreamDown, StreamUnknown
from signgate.common.v1 import quota_pb2
from tests.unit.signer_service.world import DAY, World, unknown_key


async def reason(world: World, secret: str, wish: Wish | str = "@someone") -> str:
    with pytest.raises(SigngateError) as caught:
        await world.sign(secret, wish)
    return caught.value.reason


async def test_a_signature_is_charged_recorded_and_holds(world: World) -> None:
    secret, caller = world.key()
    job = await world.job(secret, "@Someone")
    part = await world.service.sign(job)
    assert part.signed is not None
    verdict = world.service.verify(part.signed.signed_url)
    assert verdict.valid
    assert verdict.room is not None
    assert verdict.room.username == "someone"
    (event,) = world.events.all
    assert event.id == part.request_id == event.charge_id
    assert (event.user_id, event.api_key_id) == (caller.user_id, caller.key_id)
    assert (event.success, event.charged, event.charged_day) == (True, 1, DAY)
    assert event.pool == quota_pb2.POOL_API_KEY
    assert event.engine == "native"
    assert event.room_url == "https://www.tiktok.com/@someone/live"
    assert event.error_reason == ""
    assert world.events.leases == [2_000_000_000.0]
    assert world.quota.refunded == []
    assert job.limit is not None
    assert job.limit.remaining == world.quota.limit - 1


async def test_requests_that_come_together_pass_the_line_as_one_list(world: World) -> None:
    one, _ = world.key()
    other, _ = world.key()
    parts = await asyncio.gather(*(world.sign(secret) for secret in (one, other) * 8))
    assert len({part.request_id for part in parts}) == 16
    assert [len(found) for found in world.keys.lists] == [2]
    assert [len(found) for found in world.quota.lists] == [16]
    assert len(world.events.all) == 16


async def test_answers_belong_to_their_own_requests(world: World) -> None:
    secret, _ = world.key()
    names = [f"name{n}" for n in range(20)]
    parts = await asyncio.gather(*(world.sign(secret, f"@{name}") for name in names))
    assert [part.room.username for part in parts if part.room] == names
    assert [part.signed.signed_url.split("/")[3] for part in parts if part.signed] == [f"@{n}" for n in names]


async def test_a_logged_in_caller_pays_from_the_free_pool(world: World) -> None:
    user = uuid4()
    await world.sign(world.token(user))
    (event,) = world.events.all
    assert (event.user_id, event.api_key_id) == (str(user), "")
    assert event.pool == quota_pb2.POOL_FREE
    assert [charge.caller.pool for charge in world.quota.lists[0]] == ["free"]
    assert world.keys.lists == []


async def test_one_members_failure_does_not_touch_its_neighbours(world: World) -> None:
    """A bad key, a bad URL, a used-up quota, a broken engine and a good request in one list."""
    good, _ = world.key()
    poor, poor_caller = world.key()
    gone, _ = world.key()
    del world.keys.known[gone]
    world.quota.left[poor_caller.user_id] = 0
    world.broken.fails["bad"] = EngineFailure()
    asked: list[tuple[str, Wish | str]] = [
        (good, "@first"),
        (gone, "@someone"),
        (good, "https://evil.example/"),
        (poor, "@someone"),
        (good, Wish("@bad", engine="broken")),
        (good, "@last"),
    ]
    answers = await asyncio.gather(*(world.sign(*one) for one in asked), return_exceptions=True)
    assert len(world.keys.lists) == 1
    assert [type(answer).__name__ for answer in answers] == [
        "Part", "Unauthenticated", "RoomUrlError", "QuotaExhausted", "EngineFailure", "Part",
    ]  # fmt: skip
    by_reason = sorted((event.error_reason, event.charged) for event in world.events.all)
    assert by_reason == [
        ("", 1),
        ("", 1),
        ("ENGINE_FAILURE", 0),
        ("QUOTA_EXHAUSTED", 0),
        ("ROOM_URL_HOST", 0),
    ]
    (refund,) = world.quota.refunded
    assert refund.units == 1


async def test_a_bad_url_is_never_charged(world: World) -> None:
    secret, _ = world.key()
    assert await reason(world, secret, "https://www.tiktok.com/@name") == "ROOM_URL_NOT_LIVE"
    assert world.quota.lists == []
    (event,) = world.events.all
    assert (event.success, event.error_reason, event.charge_id) == (False, "ROOM_URL_NOT_LIVE", "")
    assert event.room_url == "https://www.tiktok.com/@name"
    assert world.events.leases == [None]


@pytest.mark.parametrize("wish", ["@someone", "https://www.tiktok.com/@name"], ids=["signed", "refused"])
async def test_an_event_says_how_long_the_request_took_whatever_came_of_it(world: World, wish: str) -> None:
    secret, _ = world.key()
    world.keys.gate = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, world.keys.gate.set)
    with suppress(SigngateError):
        await world.sign(secret, wish)
    (event,) = world.events.all
    assert event.response_time_ms >= 49


async def test_the_event_of_an_endless_url_is_cut(world: World) -> None:
    secret, _ = world.key()
    assert await reason(world, secret, "x" * 5000) == "ROOM_URL_TOO_LONG"
    assert world.events.all[0].room_url == "x" * 2048


async def test_an_unknown_caller_leaves_no_event(world: World) -> None:
    assert await reason(world, unknown_key()) == "KEY_UNKNOWN"
    assert world.events.all == []
    assert world.quota.lists == []


async def test_a_revoked_key_whose_owner_is_known_is_recorded_and_not_charged(world: World) -> None:
    user, key_id = str(uuid4()), str(uuid4())
    assert await reason(world, world.refused_key("KEY_REVOKED", user, key_id)) == "KEY_REVOKED"
    (event,) = world.events.all
    assert (event.user_id, event.api_key_id, event.error_reason) == (user, key_id, "KEY_REVOKED")
    assert (event.success, event.charged, event.pool) == (False, 0, quota_pb2.POOL_UNSPECIFIED)
    assert world.quota.lists == []


async def test_a_key_without_the_scope_is_refused_and_recorded(world: World) -> None:
    secret, _ = world.key(scopes=frozenset({"usage:read"}))
    with pytest.raises(PermissionDenied) as caught:
        await world.sign(secret)
    assert caught.value.reason == "SCOPE_MISSING"
    assert caught.value.metadata == {"missing_scopes": "sign"}
    assert [event.error_reason for event in world.events.all] == ["SCOPE_MISSING"]
    assert world.quota.lists == []


async def test_a_malformed_key_is_refused_before_any_io(world: World) -> None:
    good = unknown_key()
    for secret in ("sgk_live_short", good[:-1] + ("0" if good[-1] != "0" else "1"), "hello", "sgt_x"):
        assert await reason(world, secret) == "KEY_MALFORMED"
    assert world.keys.lists == []


async def test_no_credential_is_told_so(world: World) -> None:
    with pytest.raises(Unauthenticated) as caught:
        await world.service.identify(())
    assert caught.value.reason == "CREDENTIAL_MISSING"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({"exp": 1}, "TOKEN_EXPIRED"), ({"aud": "other"}, "TOKEN_AUDIENCE"), ({"iss": "x"}, "TOKEN_INVALID")],
)
async def test_tokens_that_do_not_hold_are_refused_before_the_line(
    world: World, changes: dict[str, object], expected: str
) -> None:
    assert await reason(world, world.token(uuid4(), **changes)) == expected
    assert world.events.all == []


async def test_a_signed_out_session_is_refused_and_recorded(world: World) -> None:
    session, user = uuid4(), uuid4()
    token = world.token(user, session_id=str(session))
    await world.sign(token)
    world.sessions.revoked.add(str(session))
    assert await reason(world, token) == "SESSION_REVOKED"
    assert [(event.user_id, event.error_reason) for event in world.events.all] == [
        (str(user), ""),
        (str(user), "SESSION_REVOKED"),
    ]


async def test_without_the_deny_set_tokens_are_refused_and_keys_go_on(world: World) -> None:
    world.sessions.fails = Unavailable(reason="REDIS_UNAVAILABLE")
    secret, _ = world.key()
    by_token, by_key = await asyncio.gather(
        world.sign(world.token(uuid4())), world.sign(secret), return_exceptions=True
    )
    assert isinstance(by_token, Unavailable)
    assert by_token.reason == "REDIS_UNAVAILABLE"
    assert not isinstance(by_key, BaseException)


async def test_a_service_token_without_a_user_cannot_sign(world: World) -> None:
    token = world.mint.token(None, sub=None, role="service_role", session_id=None)
    assert await reason(world, token) == "NO_ACCOUNT"


async def test_when_keys_is_down_everyone_gets_an_own_unavailable_with_retry(world: World) -> None:
    world.keys.fails = Unavailable(reason="PEER_UNAVAILABLE")
    secret, _ = world.key()
    answers = await asyncio.gather(*(world.sign(secret) for _ in range(5)), return_exceptions=True)
    assert all(isinstance(answer, Unavailable) and answer.retry_after == 1.0 for answer in answers)
    assert len({id(answer) for answer in answers}) == 5
    assert world.events.all == []
    assert world.quota.lists == []


@pytest.mark.parametrize(
    ("failure", "why"), [(DeadlineExceeded, "PEER_TIMEOUT"), (Cancelled, "PEER_UNAVAILABLE")]
)
async def test_when_quota_is_down_nothing_is_signed_and_refunds_are_tried(
    world: World, failure: type[SigngateError], why: str
) -> None:
    world.quota.fails = failure()
    secret, caller = world.key()
    answers = await asyncio.gather(*(world.sign(secret) for _ in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [Unavailable] * 3
    assert {answer.reason for answer in answers if isinstance(answer, SigngateError)} == {why}
    assert [refund.units for refund in world.quota.refunded] == [0, 0, 0]
    assert {refund.user_id for refund in world.quota.refunded} == {caller.user_id}
    assert {(event.success, event.error_reason) for event in world.events.all} == {(False, why)}


async def test_a_user_whose_counters_are_away_gets_unavailable_never_over_quota(world: World) -> None:
    lost, lost_caller = world.key()
    other, _ = world.key()
    world.quota.undecided.add(lost_caller.user_id)
    refused, served = await asyncio.gather(world.sign(lost), world.sign(other), return_exceptions=True)
    assert isinstance(refused, Unavailable)
    assert (refused.reason, refused.retry_after) == ("QUOTA_UNAVAILABLE", 0.5)
    assert not isinstance(served, BaseException)
    assert world.quota.refunded == []


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("user_day", "QUOTA_EXHAUSTED"),
        ("key_day", "QUOTA_EXHAUSTED"),
        ("user_minute", "RATE_LIMITED"),
        ("key_minute", "RATE_LIMITED"),
    ],
)
async def test_a_denial_names_its_limit_and_when_to_come_back(world: World, kind: str, expected: str) -> None:
    secret, caller = world.key()
    world.quota.kind = kind
    world.quota.left[caller.user_id] = 0
    with pytest.raises(ResourceExhausted) as caught:
        await world.sign(secret)
    error = caught.value
    assert (error.reason, error.metadata["limit"], error.retry_after) == (expected, kind, 30.0)
    assert error.quota is not None
    assert (error.quota.name, error.quota.limit, error.quota.remaining) == (kind, 1000, 0)
    assert [event.error_reason for event in world.events.all] == [expected]
    assert world.quota.refunded == []


async def test_an_engine_that_fails_one_is_refunded_for_that_one(world: World) -> None:
    secret, caller = world.key()
    world.broken.fails["bad"] = EngineFailure()
    bad, good = await asyncio.gather(
        world.sign(secret, Wish("@bad", engine="broken")),
        world.sign(secret, Wish("@good", engine="broken")),
        return_exceptions=True,
    )
    assert isinstance(bad, EngineFailure)
    assert not isinstance(good, BaseException)
    failed = next(event for event in world.events.all if not event.success)
    assert world.quota.refunded == [Refund(failed.id, caller.user_id, 1)]
    assert (failed.error_reason, failed.charged, failed.charge_id) == ("ENGINE_FAILURE", 0, "")


async def test_an_engine_that_raises_fails_its_own_members_only(world: World) -> None:
    secret, _ = world.key()
    world.broken.raises = RuntimeError("a bug")
    bad, good = await asyncio.gather(
        world.sign(secret, Wish("@x_y", engine="broken")), world.sign(secret), return_exceptions=True
    )
    assert isinstance(bad, Internal)
    assert "a bug" not in str(bad)
    assert not isinstance(good, BaseException)
    assert len(world.quota.refunded) == 1


async def test_an_engine_that_is_not_ready_is_not_charged_for(world: World) -> None:
    secret, _ = world.key()
    world.broken.ready = False
    assert await reason(world, secret, Wish("@x_y", engine="broken")) == "ENGINE_UNAVAILABLE"
    assert world.quota.lists == []


async def test_the_keys_engine_is_used_when_the_request_names_none(world: World) -> None:
    secret, _ = world.key(engine="broken")
    await world.sign(secret)
    await world.sign(secret, Wish("@x_y", engine="native"))
    assert [request.room.username for request in world.broken.signed] == ["someone"]
    assert [event.engine for event in world.events.all] == ["broken", "native"]


async def test_an_unknown_engine_is_refused_uncharged_and_its_name_kept_nowhere(world: World) -> None:
    secret, _ = world.key()
    with pytest.raises(InvalidArgument) as caught:
        await world.sign(secret, Wish("@x_y", engine="no-such"))
    assert caught.value.reason == "ENGINE_UNKNOWN"
    assert world.quota.lists == []
    assert world.events.all[0].engine == ""


@pytest.mark.parametrize(
    "wish",
    [
        Wish("@x_y", user_agent="x" * 513),
        Wish("@x_y", user_agent="two\nlines"),
        Wish("@x_y", engine="x" * 65),
        Wish("@x_y", ttl=0.0),
        Wish("@x_y", ttl=float("nan")),
        Wish("@x_y", wrong=InvalidArgument.field("algorithm", "unknown")),
    ],
)
async def test_wishes_out_of_bounds_are_refused_uncharged(world: World, wish: Wish) -> None:
    secret, _ = world.key()
    assert await reason(world, secret, wish) == "VALIDATION_FAILED"
    assert world.quota.lists == []
    assert [event.error_reason for event in world.events.all] == ["VALIDATION_FAILED"]


async def test_a_lifetime_that_the_engine_refuses_is_refunded(world: World) -> None:
    secret, _ = world.key()
    assert await reason(world, secret, Wish("@x_y", ttl=1e9)) == "TTL_OUT_OF_RANGE"
    assert [refund.units for refund in world.quota.refunded] == [1]


async def test_a_lost_lease_answers_nothing_as_signed_and_says_so_in_the_stream(world: World) -> None:
    """The fence: quota may have taken the charges back already."""
    world.events.fails_fenced = LeaseLost(retry_after=1.0)
    secret, _ = world.key()
    answers = await asyncio.gather(*(world.sign(secret) for _ in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [LeaseLost] * 3
    assert [(e.success, e.error_reason, e.charged) for e in world.events.all] == [
        (False, "LEASE_LOST", 0)
    ] * 3
    assert world.events.leases == [2_000_000_000.0, None]
    assert sorted(refund.units for refund in world.quota.refunded) == [1, 1, 1]


async def test_redis_down_answers_nothing_as_signed_and_refunds(world: World) -> None:
    world.events.fails_all = StreamDown(retry_after=1.0)
    secret, _ = world.key()
    assert await reason(world, secret) == "USAGE_STREAM_UNAVAILABLE"
    assert [refund.units for refund in world.quota.refunded] == [1]
    assert world.events.all == []


async def test_when_nobody_knows_whether_it_was_appended_the_lease_decides(world: World) -> None:
    """A refund of an event that is in the stream would let the caller sign once more than paid for."""
    world.events.fails_all = StreamUnknown(retry_after=1.0)
    secret, _ = world.key()
    assert await reason(world, secret) == "USAGE_STREAM_UNAVAILABLE"
    assert world.quota.refunded == []


async def test_one_shards_failure_leaves_the_others_signed(world: World) -> None:
    people = [world.key() for _ in range(12)]
    await asyncio.gather(*(world.sign(secret) for secret, _ in people))
    shard_of = {events[0].user_id: shard for shard, events in world.events.entries}
    # What was one entry a shard: several users share one.
    for shard, events in world.events.entries:
        shard_of.update({event.user_id: shard for event in events})
    bad = shard_of[people[0][1].user_id]
    world.events.fails[bad] = StreamDown(retry_after=1.0)
    answers = await asyncio.gather(*(world.sign(secret) for secret, _ in people), return_exceptions=True)
    for (_, caller), answer in zip(people, answers, strict=True):
        assert isinstance(answer, StreamDown) == (shard_of[caller.user_id] == bad)
    assert len(set(shard_of.values())) > 1


async def test_a_caller_gone_before_its_list_left_is_never_validated(world: World) -> None:
    secret, _ = world.key()
    world.keys.gate = asyncio.Event()
    first = asyncio.ensure_future(world.sign(secret))
    await asyncio.sleep(0.01)
    second = asyncio.ensure_future(world.sign(secret, "@gone"))
    await asyncio.sleep(0.01)
    second.cancel()
    world.keys.gate.set()
    await first
    await world.singles.close()
    assert len(world.keys.lists) == 1
    assert [event.room_url for event in world.events.all] == ["https://www.tiktok.com/@someone/live"]


async def test_a_caller_gone_during_validation_is_not_charged(world: World) -> None:
    secret, _ = world.key()
    world.keys.gate = asyncio.Event()
    call = asyncio.ensure_future(world.sign(secret))
    await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    world.keys.gate.set()
    await world.singles.close()
    assert world.quota.lists == []
    assert [(event.error_reason, event.charged) for event in world.events.all] == [("CANCELLED", 0)]


@pytest.mark.parametrize("at", ["quota", "engine"])
async def test_a_caller_gone_after_charging_is_refunded(world: World, at: str) -> None:
    secret, caller = world.key(engine="broken")
    gate = asyncio.Event()
    if at == "quota":
        world.quota.gate = gate
    else:
        world.broken.gate = gate
    call = asyncio.ensure_future(world.sign(secret))
    await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    gate.set()
    await world.singles.close()
    (event,) = world.events.all
    assert (event.success, event.error_reason, event.charged) == (False, Cancelled.reason, 0)
    assert world.quota.refunded == [Refund(event.id, caller.user_id, 1)]
    assert len(world.broken.signed) == (0 if at == "quota" else 1)


async def test_a_caller_gone_while_publishing_is_charged_and_recorded(world: World) -> None:
    secret, _ = world.key()
    world.events.gate = asyncio.Event()
    call = asyncio.ensure_future(world.sign(secret))
    await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    world.events.gate.set()
    await world.singles.close()
    assert [(event.success, event.charged) for event in world.events.all] == [(True, 1)]
    assert world.quota.refunded == []


async def test_a_full_queue_refuses_at_once_with_retry(world: World) -> None:
    keys = [world.key()[0] for _ in range(97)]  # of as many accounts
    world.keys.gate = asyncio.Event()
    # One list in flight, then as many as may wait.
    calls = [asyncio.ensure_future(world.sign(secret)) for secret in keys[:64]]
    await asyncio.sleep(0.01)
    calls += [asyncio.ensure_future(world.sign(secret)) for secret in keys[64:96]]
    await asyncio.sleep(0.01)
    with pytest.raises(Unavailable) as caught:
        await world.sign(keys[96])
    assert caught.value.reason == "OVERLOADED"
    assert caught.value.retry_after is not None
    world.keys.gate.set()
    await asyncio.gather(*calls)


async def test_a_deadline_that_passed_while_waiting_is_not_charged(world: World) -> None:
    secret, _ = world.key()
    world.keys.gate = asyncio.Event()
    first = asyncio.ensure_future(world.sign(secret))
    await asyncio.sleep(0.01)
    late = await world.job(secret, "@late", deadline=world.clock.monotonic() + 0.02)
    second = asyncio.ensure_future(world.service.sign(late))
    await asyncio.sleep(0.05)
    world.keys.gate.set()
    await first
    with pytest.raises(DeadlineExceeded):
        await second
    assert [len(charges) for charges in world.quota.lists] == [1]


async def test_equal_refusals_are_separate_errors(world: World) -> None:
    """One instance raised in many tasks would share, and grow, one traceback."""
    secret = world.refused_key("KEY_EXPIRED")
    answers = await asyncio.gather(*(world.sign(secret) for _ in range(3)), return_exceptions=True)
    assert len({id(answer) for answer in answers}) == 3
