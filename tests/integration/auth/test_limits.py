"""Rate limits in Redis, mail that fails, and answers that tell nothing by their time."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from servicekit.errors import ResourceExhausted, Unauthenticated, Unavailable
from servicekit.testing.identity import shared
from services.auth.store.accounts import Accounts
from services.auth.store.codes import Codes
from signgate.auth.v1 import auth_pb2
from tests.integration.auth.world import World

FROM = shared().from_edge("203.0.113.7")
ELSEWHERE = shared().from_edge("198.51.100.9")


async def test_wrong_passwords_are_limited_by_account_and_address_with_a_telling_answer(
    world: World,
) -> None:
    email = (await world.user()).user.email
    wrong = auth_pb2.SignInRequest(email=email, password="wrong")
    for _ in range(10):
        with pytest.raises(Unauthenticated):
            await world.rpc.SignIn(wrong, metadata=FROM)
    with pytest.raises(ResourceExhausted) as limited:
        await world.rpc.SignIn(wrong, metadata=FROM)
    error = limited.value
    assert error.reason == "OVER_REQUEST_RATE_LIMIT"
    assert error.metadata["limit"] == "sign_in_account_ip"
    assert "the limit is 10 per 5 minutes." in error.message
    until = datetime.fromisoformat(error.message.split("Try again at ")[1].rstrip("."))
    assert 0 < (until - datetime.now(UTC)).total_seconds() <= 301
    assert error.retry_after is not None
    assert 0 < error.retry_after <= 301
    assert email not in str(error)
    # Who sits elsewhere is not locked out by it.
    right = auth_pb2.SignInRequest(email=email, password="ten green bottles")
    await world.rpc.SignIn(right, metadata=ELSEWHERE)


async def test_who_calls_past_the_edge_is_counted_by_their_own_address(world: World) -> None:
    """S35: a header of one's own would be a fresh address for each try, at either face."""
    email = world.address()
    reasons = []
    for n in range(11):
        said = {"x-forwarded-for": f"203.0.113.{n}", "x-envoy-external-address": f"203.0.113.{n}"}
        if n % 2:
            said |= {"x-signgate-edge": "a guess" * 8}
        request = auth_pb2.SignInRequest(email=email, password="wrong")
        try:
            await world.rpc.SignIn(request, metadata=tuple(said.items()))
        except (Unauthenticated, ResourceExhausted) as refused:
            reasons.append(refused.reason)
    assert reasons == ["INVALID_CREDENTIALS"] * 10 + ["OVER_REQUEST_RATE_LIMIT"]
    body = {"email": email, "password": "wrong"}
    proven = dict(shared().from_edge("198.51.100.1"))
    for headers, status in (({"x-forwarded-for": "198.51.100.1"}, 429), (proven, 400)):
        answer = await world.auth.http.post("/token?grant_type=password", json=body, headers=headers)
        assert answer.status_code == status


async def test_limits_hold_over_replicas(world: World) -> None:
    """Counters in one process would give each replica a count of its own."""
    async with world.replica() as second:
        request = auth_pb2.SignInRequest(email=world.address(), password="wrong")
        outcomes = []
        for n in range(12):
            rpc = (world.rpc, second.accounts)[n % 2]
            try:
                await rpc.SignIn(request, metadata=FROM)
            except (Unauthenticated, ResourceExhausted) as refused:
                outcomes.append(refused.reason)
    assert outcomes == ["INVALID_CREDENTIALS"] * 10 + ["OVER_REQUEST_RATE_LIMIT"] * 2


async def test_mails_to_one_address_are_limited_whether_it_is_known_or_not(world: World) -> None:
    answers = []
    for email in ((await world.user()).user.email, world.address()):
        sent = 0
        with pytest.raises(ResourceExhausted) as limited:
            for _ in range(10):
                await world.rpc.Recover(auth_pb2.RecoverRequest(email=email), metadata=FROM)
                sent += 1
        assert limited.value.reason == "OVER_EMAIL_SEND_RATE_LIMIT"
        answers.append((sent, limited.value.message.split(" Try again")[0]))
    # The first had one mail more: its sign-up's.
    assert answers[0][0] + 1 == answers[1][0] == 6
    assert answers[0][1] == answers[1][1]


async def test_no_address_stands_in_redis(world: World) -> None:
    email = (await world.user()).user.email
    with pytest.raises(Unauthenticated):
        await world.sign_in(email, "wrong")
    keys = await world.redis.keys("auth:rate*")
    assert keys
    assert not any(b"example.com" in key for key in keys)


async def test_without_redis_nothing_is_let_through_uncounted(world: World) -> None:
    email = (await world.user()).user.email
    async with world.replica() as auth:
        limits_down = auth_pb2.SignInRequest(email=email, password="ten green bottles")
        await auth.accounts.SignIn(limits_down)
        await world.redis.client_pause(2500, all=True)
        with pytest.raises(Unavailable) as refused:
            await auth.accounts.SignIn(limits_down)
        assert refused.value.reason == "REDIS_UNAVAILABLE"
        await world.redis.ping()


async def test_a_mail_server_that_refuses_for_now_gets_the_letter_again(world: World) -> None:
    email = world.address()
    world.mailbox.refuse = "451 not now"
    await world.sign_up(email)
    await asyncio.sleep(0.5)
    world.mailbox.refuse = ""
    assert len(await world.mailbox.code(email)) == 6


@pytest.mark.timeout(600)
async def test_known_and_unknown_addresses_are_answered_in_the_same_time(world: World) -> None:
    """Three hundred tries of each, mixed: the medians may differ by no more than chance makes them.

    The bound is set by shuffling the labels: were the two alike, the observed difference of medians
    would stand among those of random labellings, not beyond 99.9 % of them.
    """
    rates = dict.fromkeys(
        ["rate_sign_in_ip", "rate_sign_in_account", "rate_sign_in_account_ip", "rate_mail_ip"],
        "100000 per minute",
    ) | {"rate_mail_address": "100000 per minute", "rate_mail_address_day": "100000 per minute"}
    known = (await world.user()).user.email
    async with world.replica(even_answer=0.02, **rates) as auth:

        async def sign_in(email: str) -> None:
            with pytest.raises(Unauthenticated):
                await auth.accounts.SignIn(auth_pb2.SignInRequest(email=email, password="wrong"))

        async def recover(email: str) -> None:
            await auth.accounts.Recover(auth_pb2.RecoverRequest(email=email))

        for call in (sign_in, recover):
            labels = ["known", "unknown"] * 300
            random.Random(7).shuffle(labels)  # noqa: S311
            taken = []
            for label in labels:
                email = known if label == "known" else world.address()
                started = time.perf_counter()
                await call(email)
                taken.append(time.perf_counter() - started)
            assert difference(labels, taken) <= chance(labels, taken), call.__name__


async def test_work_for_known_or_new_addresses_shows_in_no_answer_s_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every write that only one kind of address needs is made slow; answers must not become so."""
    slow, quantum = 0.15, 0.6
    for kind, name in ((Accounts, "add"), (Codes, "put")):
        original = getattr(kind, name)

        async def slowed(*args: object, original: Any = original, **more: object) -> object:
            await asyncio.sleep(slow)
            return await original(*args, **more)

        monkeypatch.setattr(kind, name, slowed)
    async with world.replica(even_answer=quantum) as auth:

        async def sign_up(email: str) -> None:
            await auth.accounts.SignUp(auth_pb2.SignUpRequest(email=email, password="ten green bottles"))

        async def recover(email: str) -> None:
            await auth.accounts.Recover(auth_pb2.RecoverRequest(email=email))

        async def send_otp(email: str) -> None:
            await auth.accounts.SendOtp(auth_pb2.SendOtpRequest(email=email))

        for call in (sign_up, recover, send_otp):
            taken: dict[str, float] = {}
            known = (await world.user()).user.email  # one a call: an address gets few mails
            for label in ("known", "unknown") * 3:
                email = known if label == "known" else world.address()
                started = time.perf_counter()
                await call(email)
                # The fastest of three: a busy machine adds to some tries, the slow write to all.
                taken[label] = min(time.perf_counter() - started, taken.get(label, 9.0))
            assert abs(taken["known"] - taken["unknown"]) < slow / 2, (call.__name__, taken)


def difference(labels: list[str], taken: list[float]) -> float:
    by = {
        label: statistics.median(t for t, each in zip(taken, labels, strict=True) if each == label)
        for label in ("known", "unknown")
    }
    return abs(by["known"] - by["unknown"])


def chance(labels: list[str], taken: list[float]) -> float:
    """The difference that 99.9 % of random labellings stay below."""
    shuffled, rng = list(labels), random.Random(11)  # noqa: S311
    found = []
    for _ in range(1000):
        rng.shuffle(shuffled)
        found.append(difference(shuffled, taken))
    return sorted(found)[-2]
