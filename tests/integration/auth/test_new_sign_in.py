"""The mail on a sign-in from a device that the account does not know."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pyotp

from servicekit.testing.identity import shared
from signgate.auth.v1 import auth_pb2, user_pb2
from tests.integration.auth.world import PASSWORD, Auth, World, bearer, text_of

Metadata = tuple[tuple[str, str], ...]

SUBJECT = "A sign-in from a new device"
HOME = shared().from_edge("203.0.113.7")
AWAY = shared().from_edge("198.51.100.9")
CHROME = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/140.0.0.0 Safari/537.36"
NEWER = CHROME.replace("140", "141")
EVIL = "Mozilla/5.0 (see https://evil.example/<b>win</b> and call 555-0100)"


async def sign_in(world: World, email: str, place: Metadata, agent: str = CHROME) -> None:
    answer = await world.auth.http.post(
        "/token?grant_type=password",
        json={"email": email, "password": PASSWORD},
        headers={**dict(place), "user-agent": agent},
    )
    assert answer.status_code == 200


def notices(world: World, email: str) -> int:
    return sum(message["subject"] == SUBJECT for message in world.mailbox.to(email))


async def noticed(world: World, email: str, times: int) -> None:
    """That many came in all, and no further one before a letter that was asked for later."""
    async with asyncio.timeout(10):
        while notices(world, email) < times:
            await world.mailbox.wait(email, len(world.mailbox.to(email)) + 1)
    others = len(world.mailbox.to(email)) - times
    await world.redis.flushall()
    await world.rpc.SendOtp(auth_pb2.SendOtpRequest(email=email), metadata=HOME)
    async with asyncio.timeout(10):
        while len(world.mailbox.to(email)) - notices(world, email) == others:
            await world.mailbox.wait(email, len(world.mailbox.to(email)) + 1)
    assert notices(world, email) == times


async def test_a_sign_in_from_elsewhere_is_mailed_once(world: World) -> None:
    email = (await world.user()).user.email
    await sign_in(world, email, AWAY)
    message = await world.mailbox.wait(email, 2)
    assert message["subject"] == SUBJECT
    text = text_of(message)
    assert "198.51.100.9" in text
    assert "Chrome on Windows" in text
    assert "UTC" in text
    assert "change your password" in text
    assert "sign out everywhere" in text
    await sign_in(world, email, AWAY, NEWER)
    await noticed(world, email, 1)
    # Another program from there is another device.
    await sign_in(world, email, AWAY, "curl/8.5.0")
    await noticed(world, email, 2)


async def test_the_first_sign_in_and_the_same_device_again_are_not_mailed(world: World) -> None:
    session = await world.user()
    email = session.user.email
    await world.sign_in(email)
    await world.refresh(session.refresh_token)
    await world.sign_in(email)
    await noticed(world, email, 0)


async def test_what_a_sign_in_sends_does_not_stand_in_the_mail(world: World) -> None:
    """A user agent is a stranger's text."""
    email = (await world.user()).user.email
    await sign_in(world, email, AWAY, EVIL)
    message = await world.mailbox.wait(email, 2)
    assert message["subject"] == SUBJECT
    whole = message.as_string()
    assert "evil.example" not in whole
    assert "555-0100" not in whole
    assert "an unknown program" in text_of(message)


async def test_a_day_has_few_of_these_mails(world: World) -> None:
    email = (await world.user()).user.email
    async with world.replica(rate_notice_account="2 per day") as auth:
        for n in range(5):
            await _by_rpc(auth, email, shared().from_edge(f"198.51.100.{n + 1}"))
    await noticed(world, email, 2)


async def test_a_second_factor_mails_no_second_time(world: World) -> None:
    """The password alone is told of each time, since it makes no device known; the factor does."""
    session = await world.user()
    email = session.user.email
    enrolled = await world.rpc.EnrollFactor(
        auth_pb2.EnrollFactorRequest(factor_type="totp"), metadata=bearer(session)
    )
    totp = pyotp.TOTP(enrolled.secret)

    async def prove(session: user_pb2.Session, ahead: int) -> None:
        asked = await world.rpc.ChallengeFactor(
            auth_pb2.ChallengeFactorRequest(factor_id=enrolled.factor.id), metadata=bearer(session)
        )
        now = await world.sql.fetchval("SELECT extract(epoch FROM now())::bigint")
        request = auth_pb2.VerifyFactorRequest(
            factor_id=enrolled.factor.id,
            challenge_id=asked.challenge_id,
            code=totp.at(now + ahead * totp.interval),
        )
        await world.rpc.VerifyFactor(request, metadata=bearer(session))

    await prove(session, 0)
    await _by_rpc(world.auth, email, AWAY)
    there = await _by_rpc(world.auth, email, AWAY)
    await noticed(world, email, 2)
    await prove(there, 1)
    await _by_rpc(world.auth, email, AWAY)
    await noticed(world, email, 2)


async def test_nothing_known_is_nothing_to_compare_with_unless_it_was_forgotten(world: World) -> None:
    """After the upgrade to this version no account knows anything; after 90 days neither."""
    email = (await world.user()).user.email
    user_id = await world.sql.fetchval("SELECT id FROM auth.users WHERE email = $1", email)
    forget = "DELETE FROM auth.known_clients WHERE user_id = $1"
    await world.sql.execute(forget, user_id)
    await _by_rpc(world.auth, email, HOME)
    await noticed(world, email, 0)
    await world.sql.execute(forget, user_id)
    await world.sql.execute(
        "UPDATE public.users SET last_login = last_login - $2::interval WHERE id = $1",
        user_id,
        timedelta(days=91),
    )
    await _by_rpc(world.auth, email, AWAY)
    await noticed(world, email, 1)


async def _by_rpc(auth: Auth, email: str, place: Metadata) -> user_pb2.Session:
    request = auth_pb2.SignInRequest(email=email, password=PASSWORD)
    return (await auth.accounts.SignIn(request, metadata=place)).session
