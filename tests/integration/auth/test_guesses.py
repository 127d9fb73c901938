"""S19: guessing a second factor has an end, and the owner is not locked out by it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from servicekit.errors import InvalidArgument, ResourceExhausted
from signgate.auth.v1 import admin_pb2, auth_pb2, user_pb2
from tests.integration.auth.passkeys import enroll_key
from tests.integration.auth.test_mfa import Phone, enroll
from tests.integration.auth.world import World, bearer, claims, text_of

SUBJECT = "guess your second factor"
SIGN_IN = "Your sign-in code"


@asynccontextmanager
async def patient(world: World, **changes: object) -> AsyncIterator[World]:
    """The world with a replica whose limit of five minutes is out of the way."""
    async with world.replica(rate_factor_account="1000 per minute", **changes) as auth:
        yield replace(world, auth=auth)


async def protected(world: World) -> tuple[str, Phone, user_pb2.Session, list[str]]:
    """An account with an app: its address, the app, a raised session, its recovery codes."""
    session = await world.user()
    phone = await enroll(world, session)
    # A step back: the present one's code stays unused.
    proved = await phone.prove(session, phone.code(-1))
    return session.user.email, phone, proved.session, list(proved.recovery_codes)


def wrong(phone: Phone) -> str:
    valid = {phone.code(step) for step in range(-3, 4)}
    return next(code for code in map("{:06}".format, range(9)) if code not in valid)


async def guess(phone: Phone, session: user_pb2.Session, times: int) -> list[str]:
    """Wrong codes, on as many challenges as it takes. Returns the reasons of the refusals."""
    reasons: list[str] = []
    while len(reasons) < times:
        challenge = await phone.challenge(session)
        for _ in range(min(5, times - len(reasons))):
            with pytest.raises((InvalidArgument, ResourceExhausted)) as refused:
                await phone.prove(session, wrong(phone), challenge)
            reasons.append(refused.value.reason)
    return reasons


async def mailed(world: World, email: str) -> user_pb2.Session:
    """A sign-in by a mailed code."""
    before = len(world.mailbox.about(email, SIGN_IN))
    await world.rpc.SendOtp(auth_pb2.SendOtpRequest(email=email))
    text = text_of(await world.mailbox.wait_about(email, SIGN_IN, before + 1))
    found = re.search(r"^\s+(\d{6})\s*$", text, re.MULTILINE)
    assert found is not None
    return await world.verify(email, found[1], auth_pb2.OTP_TYPE_EMAIL)


async def test_wrong_codes_have_an_end_a_day(world: World) -> None:
    """S19: 30 a day, over challenges and replicas; then the right code is refused too, and says why."""
    async with patient(world) as one, patient(world) as other:
        email, phone, *_ = await protected(one)
        thief = await one.sign_in(email)
        phone.world = one
        assert await guess(phone, thief, 15) == ["MFA_VERIFICATION_FAILED"] * 15
        phone.world = other
        reasons = await guess(phone, thief, 17)
        assert reasons == ["MFA_VERIFICATION_FAILED"] * 15 + ["OVER_REQUEST_RATE_LIMIT"] * 2
        with pytest.raises(ResourceExhausted) as refused:
            await phone.prove(await one.sign_in(email), phone.code())
    assert refused.value.metadata["limit"] == "factor_account_day"
    assert "passkeys and recovery codes are still accepted" in str(refused.value)


async def test_tries_at_once_are_not_more_tries(world: World) -> None:
    """S19: challenges side by side share the count."""
    async with patient(world, rate_factor_account_day="6 per day") as here:
        email, phone, *_ = await protected(here)
        phone.world = here
        thief = await here.sign_in(email)
        challenges = [await phone.challenge(thief) for _ in range(6)]
        outcomes = await asyncio.gather(
            *(phone.prove(thief, wrong(phone), each) for each in challenges * 2), return_exceptions=True
        )
    reasons = [getattr(outcome, "reason", "") for outcome in outcomes]
    assert sorted(reasons) == ["MFA_VERIFICATION_FAILED"] * 6 + ["OVER_REQUEST_RATE_LIMIT"] * 6


async def test_the_owner_is_told_once_a_day(world: World) -> None:
    """S19: a mail after ten wrong ones, whatever they were, and no second one."""
    async with patient(world) as here:
        email, phone, *_ = await protected(here)
        phone.world = here
        thief = await here.sign_in(email)
        await guess(phone, thief, 8)
        with pytest.raises(InvalidArgument):
            await here.rpc.UseRecoveryCode(
                auth_pb2.UseRecoveryCodeRequest(code="aaaaa-aaaaa"), metadata=bearer(thief)
            )
        assert here.mailbox.about(email, SUBJECT) == []
        await guess(phone, thief, 1)
        letter = await here.mailbox.wait_about(email, SUBJECT)
        assert "change your password" in text_of(letter)
        await guess(phone, thief, 12)
    # The replica has sent what it had to before it ended.
    assert len(world.mailbox.about(email, SUBJECT)) == 1


async def test_who_knows_the_password_does_not_lock_the_owner_out(world: World) -> None:
    """S19: a sign-in by a mailed code has its own count; recovery codes are never refused by the cap."""
    async with patient(world, rate_factor_account_day="3 per day") as here:
        email, phone, _, codes = await protected(here)
        phone.world = here
        thief = await here.sign_in(email)
        assert (await guess(phone, thief, 4))[-1] == "OVER_REQUEST_RATE_LIMIT"
        await here.mailbox.wait_about(email, SUBJECT)  # with a lower limit it comes at the limit
        owner = await mailed(here, email)
        assert claims((await phone.prove(owner, phone.code())).session)["aal"] == "aal2"
        by_password = await here.sign_in(email)
        used = await here.rpc.UseRecoveryCode(
            auth_pb2.UseRecoveryCodeRequest(code=codes[0]), metadata=bearer(by_password)
        )
        assert claims(used.session)["aal"] == "aal2"


async def test_a_mailed_sign_in_has_an_end_too(world: World) -> None:
    """S19: also who reads the owner's mail can't guess for ever."""
    async with patient(world, rate_factor_account_day="3 per day") as here:
        email, phone, *_ = await protected(here)
        phone.world = here
        reader = await mailed(here, email)
        assert await guess(phone, reader, 4) == ["MFA_VERIFICATION_FAILED"] * 3 + ["OVER_REQUEST_RATE_LIMIT"]
        again = await mailed(here, email)
        assert await guess(phone, again, 1) == ["OVER_REQUEST_RATE_LIMIT"]


async def test_a_flood_of_challenges_does_not_lock_the_owner_out(world: World) -> None:
    """S19: nor does the limit of five minutes, which counts right answers and challenges as well."""
    email, phone, *_ = await protected(world)
    thief = await world.sign_in(email)
    with pytest.raises(ResourceExhausted) as refused:
        for _ in range(20):
            await phone.challenge(thief)
    assert refused.value.metadata["limit"] == "factor_account"
    owner = await mailed(world, email)
    assert claims((await phone.prove(owner, phone.code())).session)["aal"] == "aal2"


async def test_a_passkey_can_not_be_guessed_and_is_not_capped(world: World) -> None:
    async with patient(world, rate_factor_account_day="3 per day") as here:
        email, phone, raised, _ = await protected(here)
        phone.world = here
        key = await enroll_key(here, raised)
        await key.prove(raised)
        thief = await here.sign_in(email)
        with pytest.raises(InvalidArgument):
            await key.prove(thief, signature=b"wrong")
        # The wrong passkey counted: two codes more, not three.
        assert await guess(phone, thief, 3) == ["MFA_VERIFICATION_FAILED"] * 2 + ["OVER_REQUEST_RATE_LIMIT"]
        assert claims((await key.prove(await here.sign_in(email))).session)["aal"] == "aal2"


@pytest.mark.parametrize("by", ["owner", "operator"])
async def test_a_new_password_clears_the_count(world: World, by: str) -> None:
    async with patient(world, rate_factor_account_day="3 per day") as here:
        email, phone, raised, _ = await protected(here)
        phone.world = here
        assert (await guess(phone, await here.sign_in(email), 4))[-1] == "OVER_REQUEST_RATE_LIMIT"
        if by == "owner":
            await here.rpc.UpdateUser(
                auth_pb2.UpdateUserRequest(password="eleven green bottles"), metadata=bearer(raised)
            )
        else:
            await here.auth.admin.ModifyUser(
                admin_pb2.ModifyUserRequest(id=raised.user.id, password="eleven green bottles"),
                metadata=bearer(here.operator()),
            )
        again = await here.sign_in(email, "eleven green bottles")
        assert claims((await phone.prove(again, phone.code())).session)["aal"] == "aal2"


async def test_an_enrolment_s_wrong_codes_are_no_guesses(world: World) -> None:
    """Who sets a factor up knows its secret: what they mistype counts on that challenge alone."""
    async with patient(world, rate_factor_account_day="3 per day") as here:
        session = await here.user()
        phone = await enroll(here, session)
        assert await guess(phone, session, 4) == ["MFA_VERIFICATION_FAILED"] * 4
        assert (await phone.prove(session, phone.code())).recovery_codes
