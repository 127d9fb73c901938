"""Strangers can't use up what the owner of an account needs to come in, and get no further themselves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from time import perf_counter
from typing import Any
from uuid import UUID

import httpx
import pyotp
import pytest

from servicekit.errors import (
    InvalidArgument,
    PermissionDenied,
    ResourceExhausted,
    SigngateError,
    Unauthenticated,
)
from servicekit.testing.identity import shared
from services.auth.http.devices import NAME
from services.auth.store.clients import MOST, Clients
from signgate.auth.v1 import auth_pb2, user_pb2
from tests.integration.auth.world import PASSWORD, Auth, World, bearer

Metadata = tuple[tuple[str, str], ...]

HOME = shared().from_edge("203.0.113.7")
AWAY = shared().from_edge("198.51.100.9")
STRANGERS = [shared().from_edge(f"192.0.2.{n}") for n in range(1, 13)]
RECOVERY, MAGICLINK = auth_pb2.OTP_TYPE_RECOVERY, auth_pb2.OTP_TYPE_MAGICLINK


@asynccontextmanager
async def two(world: World, **changes: Any) -> AsyncIterator[tuple[Auth, Auth]]:
    async with world.replica(**changes) as one, world.replica(**changes) as other:
        yield one, other


async def sign_in(auth: Auth, email: str, password: str, metadata: Metadata) -> user_pb2.Session:
    request = auth_pb2.SignInRequest(email=email, password=password)
    return (await auth.accounts.SignIn(request, metadata=metadata)).session


async def refused(call: Any) -> str:
    """The reason, or nothing."""
    try:
        await call
    except SigngateError as error:
        return error.reason
    return ""


async def at_home(world: World) -> str:
    """The address of a user who signed in from HOME, was mailed of it, and has used up nothing."""
    email = (await world.user()).user.email
    await sign_in(world.auth, email, PASSWORD, HOME)
    await world.mailbox.wait(email, 2)
    await world.redis.flushall()
    return email


async def flood(replicas: Sequence[Auth], email: str) -> list[str]:
    """Wrong passwords by a dozen strangers until each is refused, by turns at the replicas."""
    reasons = []
    for _ in range(10):
        reasons += await asyncio.gather(
            *(
                refused(sign_in(replicas[n % 2], email, "wrong", stranger))
                for n, stranger in enumerate(STRANGERS)
            )
        )
    return reasons


async def test_wrong_passwords_by_strangers_do_not_keep_the_owner_out(world: World) -> None:
    """S14."""
    email = await at_home(world)
    async with two(world) as replicas:
        reasons = await flood(replicas, email)
        assert reasons.count("INVALID_CREDENTIALS") == 100
        assert reasons.count("OVER_REQUEST_RATE_LIMIT") == 20
        for replica in replicas:
            assert (await sign_in(replica, email, PASSWORD, HOME)).access_token
            # Attempts stay limited: the right password from elsewhere is one of the strangers'.
            assert await refused(sign_in(replica, email, PASSWORD, AWAY)) == "OVER_REQUEST_RATE_LIMIT"
        # Nor do the owner's own sign-ins use up what the next stranger is told by.
        assert await refused(sign_in(replicas[0], email, "wrong", STRANGERS[0])) == "OVER_REQUEST_RATE_LIMIT"


async def test_who_is_kept_out_comes_in_by_mail(world: World) -> None:
    """S14, from an address that the account does not know."""
    email = await at_home(world)
    await flood((world.auth, world.auth), email)
    before = len(world.mailbox.to(email))
    await world.rpc.Recover(auth_pb2.RecoverRequest(email=email), metadata=AWAY)
    code = await world.mailbox.code(email, before + 1)
    request = auth_pb2.VerifyRequest(type=RECOVERY, email=email, token=code)
    assert (await world.rpc.Verify(request, metadata=AWAY)).session.access_token
    # Which makes that address known.
    assert (await sign_in(world.auth, email, PASSWORD, AWAY)).access_token


async def test_a_known_address_is_limited_too(world: World) -> None:
    email = await at_home(world)
    reasons = [await refused(sign_in(world.auth, email, "wrong", HOME)) for _ in range(11)]
    assert reasons == ["INVALID_CREDENTIALS"] * 10 + ["OVER_REQUEST_RATE_LIMIT"]
    rates = {"rate_sign_in_account_ip": "1000 per minute", "rate_sign_in_account": "12 per hour"}
    async with world.replica(**rates) as slow:
        reasons = [await refused(sign_in(slow, email, "wrong", HOME)) for _ in range(13)]
    assert reasons == ["INVALID_CREDENTIALS"] * 12 + ["OVER_REQUEST_RATE_LIMIT"]


async def test_accounts_that_do_not_exist_are_refused_in_the_same_words_after_as_many_tries(
    world: World,
) -> None:
    answers = []
    for email in (await at_home(world), world.address()):
        outcomes = []
        for _ in range(9):
            for stranger in STRANGERS:
                try:
                    await sign_in(world.auth, email, "wrong", stranger)
                except (Unauthenticated, ResourceExhausted) as error:
                    outcomes.append((error.reason, error.message.split(" Try again at")[0], error.metadata))
        answers.append(outcomes)
    assert answers[0] == answers[1]
    assert answers[0][99][0] == "INVALID_CREDENTIALS"
    assert answers[0][100][0] == "OVER_REQUEST_RATE_LIMIT"


async def test_what_an_account_knows_shows_in_no_answer_s_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look-up is made slow for the account that exists; no answer to a stranger may become so."""
    slow, quantum = 0.15, 0.6
    existing, invented = await at_home(world), world.address()
    original = Clients.known

    async def slowed(self: Clients, account: str | UUID, marks: Any, **more: Any) -> Any:
        await asyncio.sleep(slow if account == existing else 0)
        return await original(self, account, marks, **more)

    monkeypatch.setattr(Clients, "known", slowed)
    tries = {"rate_sign_in_account": "3 per hour", "rate_verify_account": "3 per hour"}
    async with world.replica(even_answer=quantum, **tries, rate_mail_address="3 per hour") as auth:
        for call in (_sign_in, _verify, _recover, _sign_up):
            taken: dict[tuple[str, bool], float] = {}
            for _ in range(5):
                for email in (existing, invented):
                    began = perf_counter()
                    reason = await refused(call(auth, email, AWAY))
                    which = (email, reason.startswith("OVER_"))
                    # The fastest: a busy machine adds to some tries, the slow look-up to all.
                    taken[which] = min(perf_counter() - began, taken.get(which, 9.0))
            for limited in (False, True):
                if (existing, limited) in taken:  # not the fourth call's: the third used its mails up
                    difference = taken[existing, limited] - taken[invented, limited]
                    assert abs(difference) < slow / 2, (call.__name__, limited, taken)


async def test_an_address_becomes_known_by_any_sign_in_and_by_a_refresh(world: World) -> None:
    """A password, a code, a link, the end of a PKCE flow, a refresh: each from an address of its own."""
    email = (await world.user()).user.email
    places = [shared().from_edge(f"198.51.100.{n}") for n in range(1, 6)]
    mails = len(world.mailbox.to(email))
    session = await sign_in(world.auth, email, PASSWORD, places[0])
    refresh = auth_pb2.RefreshSessionRequest(refresh_token=session.refresh_token)
    await world.rpc.RefreshSession(refresh, metadata=places[1])
    await world.mailbox.wait(email, mails + 1)  # of the first sign-in
    await world.rpc.SendOtp(auth_pb2.SendOtpRequest(email=email), metadata=places[2])
    code = await world.mailbox.code(email, mails + 2)
    request = auth_pb2.VerifyRequest(type=MAGICLINK, email=email, token=code)
    await world.rpc.Verify(request, metadata=places[2])
    await world.mailbox.wait(email, mails + 3)
    await world.rpc.SendOtp(auth_pb2.SendOtpRequest(email=email), metadata=places[3])
    link = await world.mailbox.link(email, mails + 4)
    request = auth_pb2.VerifyRequest(type=MAGICLINK, token_hash=link["token"])
    await world.rpc.Verify(request, metadata=places[3])
    await flood((world.auth, world.auth), email)
    for place in places[:4]:
        assert (await sign_in(world.auth, email, PASSWORD, place)).access_token
    assert await refused(sign_in(world.auth, email, PASSWORD, places[4])) == "OVER_REQUEST_RATE_LIMIT"


async def test_a_wrong_password_makes_no_address_known(world: World) -> None:
    email = await at_home(world)
    rows = await known(world, email)
    assert await refused(sign_in(world.auth, email, "wrong", AWAY)) == "INVALID_CREDENTIALS"
    assert await known(world, email) == rows


async def test_wrong_codes_by_strangers_kill_neither_the_link_nor_the_code_at_home(world: World) -> None:
    """S14, for codes: five wrong ones end the digits for strangers, twenty their tries."""
    email = await at_home(world)
    for known_one, by_link in ((HOME, False), (AWAY, True)):
        before = len(world.mailbox.to(email))
        await world.rpc.SendOtp(auth_pb2.SendOtpRequest(email=email), metadata=HOME)
        code = await world.mailbox.code(email, before + 1)
        wrong = auth_pb2.VerifyRequest(type=MAGICLINK, email=email, token=other_than(code))
        reasons = [
            await refused(world.rpc.Verify(wrong, metadata=STRANGERS[n % len(STRANGERS)])) for n in range(25)
        ]
        assert set(reasons) <= {"OTP_EXPIRED", "OVER_REQUEST_RATE_LIMIT"}
        assert reasons[-1] == "OVER_REQUEST_RATE_LIMIT"
        right = auth_pb2.VerifyRequest(type=MAGICLINK, email=email, token=code)
        assert await refused(world.rpc.Verify(right, metadata=STRANGERS[0])) == "OVER_REQUEST_RATE_LIMIT"
        if by_link:
            link = await world.mailbox.link(email, before + 1)
            right = auth_pb2.VerifyRequest(type=MAGICLINK, token_hash=link["token"])
        assert (await world.rpc.Verify(right, metadata=known_one)).session.access_token


async def test_five_wrong_codes_from_a_known_address_end_the_code_for_it(world: World) -> None:
    email = await at_home(world)
    before = len(world.mailbox.to(email))
    await world.rpc.SendOtp(auth_pb2.SendOtpRequest(email=email), metadata=HOME)
    code = await world.mailbox.code(email, before + 1)
    wrong = auth_pb2.VerifyRequest(type=MAGICLINK, email=email, token=other_than(code))
    for _ in range(5):
        with pytest.raises(PermissionDenied):
            await world.rpc.Verify(wrong, metadata=HOME)
    right = auth_pb2.VerifyRequest(type=MAGICLINK, email=email, token=code)
    assert await refused(world.rpc.Verify(right, metadata=HOME)) == "OTP_EXPIRED"


async def test_mails_that_strangers_ask_for_leave_the_owner_s_nonce_and_recovery(world: World) -> None:
    """S15."""
    email = await at_home(world)
    session = await sign_in(world.auth, email, PASSWORD, HOME)
    async with two(world) as replicas:
        request = auth_pb2.SendOtpRequest(email=email)
        asked = [await refused(replicas[n % 2].accounts.SendOtp(request, metadata=AWAY)) for n in range(8)]
        assert asked == [""] * 6 + ["OVER_EMAIL_SEND_RATE_LIMIT"] * 2
        for replica in replicas:
            reauthenticate = replica.accounts.Reauthenticate
            await reauthenticate(auth_pb2.ReauthenticateRequest(), metadata=AWAY + bearer(session))
            await replica.accounts.Recover(auth_pb2.RecoverRequest(email=email), metadata=HOME)
        recover = replicas[0].accounts.Recover(auth_pb2.RecoverRequest(email=email), metadata=AWAY)
        assert await refused(recover) == "OVER_EMAIL_SEND_RATE_LIMIT"
        # His own change of address as well: it mails to the current one too.
        new = world.address()
        change = auth_pb2.UpdateUserRequest(email=new)
        await replicas[0].accounts.UpdateUser(change, metadata=AWAY + bearer(session))
        await world.mailbox.code(new)


async def test_the_owner_s_nonces_leave_strangers_mails_and_have_an_end(world: World) -> None:
    """S15, the other way round."""
    email = await at_home(world)
    session = await sign_in(world.auth, email, PASSWORD, HOME)
    reasons = [
        await refused(
            world.rpc.Reauthenticate(auth_pb2.ReauthenticateRequest(), metadata=HOME + bearer(session))
        )
        for _ in range(7)
    ]
    assert reasons == [""] * 6 + ["OVER_EMAIL_SEND_RATE_LIMIT"]
    await world.rpc.SendOtp(auth_pb2.SendOtpRequest(email=email), metadata=AWAY)


async def test_mails_to_one_address_have_an_end_a_day_whoever_asks(world: World) -> None:
    """Strangers, known clients and sessions together."""
    email = await at_home(world)
    session = await sign_in(world.auth, email, PASSWORD, HOME)
    free = "10000 per minute"
    rates = dict.fromkeys(("rate_mail_address", "rate_nonce_account"), free)
    ends = {"rate_mail_address_day": "9 per day", "rate_nonce_account_day": "3 per day"}
    async with world.replica(**rates, **ends) as auth:
        otp, again = auth_pb2.SendOtpRequest(email=email), auth_pb2.ReauthenticateRequest()
        asked = [await refused(auth.accounts.SendOtp(otp, metadata=AWAY)) for _ in range(10)]
        asked += [await refused(auth.accounts.SendOtp(otp, metadata=HOME)) for _ in range(10)]
        for _ in range(4):
            asked.append(await refused(auth.accounts.Reauthenticate(again, metadata=HOME + bearer(session))))
    assert asked.count("") == 9 + 9 + 3
    assert set(asked) == {"", "OVER_EMAIL_SEND_RATE_LIMIT"}


async def test_many_accounts_that_are_to_have_one_address_do_not_flood_it(world: World) -> None:
    """A change's mails go to an address that the caller of `/resend` does not name; it is counted as well."""
    target, rates = world.address(), {"rate_mail_address": "10000 per minute"}
    async with world.replica(**rates, rate_mail_address_day="4 per day") as auth:
        for _ in range(3):
            session = await world.user()
            change = auth_pb2.UpdateUserRequest(email=target)
            await refused(auth.accounts.UpdateUser(change, metadata=AWAY + bearer(session)))
            again = auth_pb2.ResendRequest(type=auth_pb2.OTP_TYPE_EMAIL_CHANGE, email=session.user.email)
            for _ in range(2):
                assert await refused(auth.accounts.Resend(again, metadata=AWAY)) == ""
    assert len(world.mailbox.to(target)) == 4


async def test_a_network_of_ipv6_counts_as_one(world: World) -> None:
    """S16: a /64 as an address, a /48 by a looser limit."""
    email = world.address()
    reasons = [
        await refused(sign_in(world.auth, email, "wrong", shared().from_edge(f"2001:db8:1:1::{n:x}")))
        for n in range(1, 20)
    ]
    assert reasons == ["INVALID_CREDENTIALS"] * 10 + ["OVER_REQUEST_RATE_LIMIT"] * 9
    rates = {"rate_sign_in_net": "5 per hour", "rate_verify_net": "5 per hour"}
    rates |= {"rate_mail_net": "5 per hour", "rate_sign_up_net": "4 per hour"}
    async with two(world, **rates) as replicas:
        for site, call in enumerate((_sign_in, _verify, _recover, _sign_up)):
            answers = []
            for n in range(1, 7):
                place = shared().from_edge(f"2001:db8:a{site}:{n:x}::1")
                answers.append(await refused(call(replicas[n % 2], world.address(), place)))
            assert [reason.startswith("OVER_") for reason in answers] in (
                [False] * 5 + [True],
                [False] * 4 + [True] * 2,
            ), call.__name__
            elsewhere = shared().from_edge("2001:db8:3:1::1")
            reason = await refused(call(replicas[0], world.address(), elsewhere))
            assert not reason.startswith("OVER_"), call.__name__


async def _sign_in(auth: Auth, email: str, place: Metadata) -> object:
    return await sign_in(auth, email, "wrong", place)


async def _verify(auth: Auth, email: str, place: Metadata) -> object:
    request = auth_pb2.VerifyRequest(type=MAGICLINK, email=email, token="000000")
    return await auth.accounts.Verify(request, metadata=place)


async def _recover(auth: Auth, email: str, place: Metadata) -> object:
    return await auth.accounts.Recover(auth_pb2.RecoverRequest(email=email), metadata=place)


async def _sign_up(auth: Auth, email: str, place: Metadata) -> object:
    return await auth.accounts.SignUp(auth_pb2.SignUpRequest(email=email, password=PASSWORD), metadata=place)


async def test_a_thief_of_the_password_does_not_use_up_the_owner_s_second_factor(world: World) -> None:
    """S14, for challenges; and what one factor opened makes no address known."""
    email = await at_home(world)
    session = await sign_in(world.auth, email, PASSWORD, HOME)
    enrolled = await world.rpc.EnrollFactor(
        auth_pb2.EnrollFactorRequest(factor_type="totp"), metadata=bearer(session)
    )
    totp = pyotp.TOTP(enrolled.secret)

    async def challenge(session: user_pb2.Session, place: Metadata) -> auth_pb2.ChallengeFactorResponse:
        request = auth_pb2.ChallengeFactorRequest(factor_id=enrolled.factor.id)
        return await world.rpc.ChallengeFactor(request, metadata=place + bearer(session))

    async def answer(session: user_pb2.Session, place: Metadata, code: str) -> auth_pb2.VerifyFactorResponse:
        asked = await challenge(session, place)
        request = auth_pb2.VerifyFactorRequest(
            factor_id=enrolled.factor.id, challenge_id=asked.challenge_id, code=code
        )
        return await world.rpc.VerifyFactor(request, metadata=place + bearer(session))

    await answer(session, HOME, totp.now())
    thief = await sign_in(world.auth, email, PASSWORD, AWAY)
    rows = await known(world, email)
    reasons = []
    for _ in range(10):
        try:
            await answer(thief, AWAY, "000000")
        except (InvalidArgument, ResourceExhausted) as error:
            reasons.append(error.reason)
    assert "MFA_VERIFICATION_FAILED" in reasons
    assert reasons[-1] == "OVER_REQUEST_RATE_LIMIT"
    assert await known(world, email) == rows
    owner = await sign_in(world.auth, email, PASSWORD, HOME)
    step = totp.interval + int(time.time())
    raised = await answer(owner, HOME, totp.at(step))
    assert raised.session.access_token


async def test_a_known_browser_comes_in_from_anywhere(world: World) -> None:
    """S14, for an owner who moves: a device cookie, which only pages of this origin are given."""
    email = (await world.user()).user.email
    body = {"email": email, "password": PASSWORD}

    async def post(place: Metadata, site: str, proof: str = "") -> httpx.Response:
        headers = {**dict(place), "sec-fetch-site": site} | ({"cookie": f"{NAME}={proof}"} if proof else {})
        return await world.auth.http.post("/token?grant_type=password", json=body, headers=headers)

    assert "set-cookie" not in (await post(HOME, "cross-site")).headers
    planted = "A" * 43
    first = await post(HOME, "same-origin", planted)
    cookie, *attributes = first.headers["set-cookie"].split("; ")
    assert set(attributes) == {"HttpOnly", "Max-Age=7776000", "Path=/auth/v1", "SameSite=strict"}
    proof = cookie.removeprefix(f"{NAME}=")
    world.auth.http.cookies.clear()
    assert proof != planted
    await flood((world.auth, world.auth), email)
    assert (await post(AWAY, "same-origin", planted)).status_code == 429
    mails = len(world.mailbox.to(email))
    moved = await post(AWAY, "same-origin", proof)
    assert moved.status_code == 200
    assert moved.headers["set-cookie"].startswith(f"{NAME}={proof};")
    assert len(world.mailbox.to(email)) == mails
    # It is a name for a count, no way round one; and it tells nothing of another account.
    body["password"] = "wrong"
    answers = [(await post(STRANGERS[0], "same-origin", proof)).status_code for _ in range(11)]
    assert answers == [400] * 10 + [429]
    row = await world.sql.fetchval("SELECT count(*) FROM auth.known_clients WHERE hash = $1", proof)
    assert row == 0


async def test_a_new_password_leaves_only_where_it_was_changed_known(world: World) -> None:
    email = await at_home(world)
    session = await sign_in(world.auth, email, PASSWORD, AWAY)
    change = auth_pb2.UpdateUserRequest(password="eleven green bottles")
    await world.rpc.UpdateUser(change, metadata=AWAY + bearer(session))
    await flood((world.auth, world.auth), email)
    assert (await sign_in(world.auth, email, "eleven green bottles", AWAY)).access_token
    reason = await refused(sign_in(world.auth, email, "eleven green bottles", HOME))
    assert reason == "OVER_REQUEST_RATE_LIMIT"


async def test_sign_ins_and_refreshes_at_once_wait_for_each_other_and_all_succeed(world: World) -> None:
    """Each writes what the account knows, from as many addresses that some are forgotten for others."""
    email = await at_home(world)
    async with world.replica(rate_sign_in_account="1000 per hour") as auth:
        sessions = [await sign_in(auth, email, PASSWORD, HOME) for _ in range(8)]
        for round_ in range(4):
            places = [shared().from_edge(f"198.51.{100 + round_}.{n}") for n in range(1, 17)]
            refreshes = [
                auth.accounts.RefreshSession(
                    auth_pb2.RefreshSessionRequest(refresh_token=session.refresh_token), metadata=place
                )
                for session, place in zip(sessions, places[:8], strict=True)
            ]
            refreshed, _ = await asyncio.gather(
                asyncio.gather(*refreshes),
                asyncio.gather(*(sign_in(auth, email, PASSWORD, place) for place in places[4:12])),
            )
            sessions = [answer.session for answer in refreshed]
        # Rows that another call was writing were passed over; the next new address ends that.
        await sign_in(auth, email, PASSWORD, AWAY)
    assert sum(kind == "address" for kind, _ in await known(world, email)) == MOST


async def test_what_an_account_knows_is_bounded_hashed_forgotten_and_goes_with_it(world: World) -> None:
    email = await at_home(world)
    async with world.replica(rate_sign_in_account="1000 per hour") as auth:
        for n in range(MOST + 5):
            await sign_in(auth, email, PASSWORD, shared().from_edge(f"198.51.100.{n + 100}"))
    rows = await known(world, email)
    assert sum(kind == "address" for kind, _ in rows) == MOST
    assert all(len(hashed) == 64 for _, hashed in rows)
    aged = "UPDATE auth.known_clients SET last_seen = last_seen - $2::interval WHERE user_id = $1"
    user_id = await world.sql.fetchval("SELECT id FROM auth.users WHERE email = $1", email)
    await world.sql.execute(aged, user_id, timedelta(days=91))
    latest = shared().from_edge(f"198.51.100.{MOST + 104}")
    await flood((world.auth, world.auth), email)
    assert await refused(sign_in(world.auth, email, PASSWORD, latest)) == "OVER_REQUEST_RATE_LIMIT"
    await world.sql.execute("DELETE FROM auth.users WHERE id = $1", user_id)
    assert (
        await world.sql.fetchval("SELECT count(*) FROM auth.known_clients WHERE user_id = $1", user_id) == 0
    )


def other_than(code: str) -> str:
    return f"{(int(code) + 1) % 10**6:06}"


async def known(world: World, email: str) -> set[tuple[str, str]]:
    rows = await world.sql.fetch(
        "SELECT kind, hash FROM auth.known_clients k JOIN auth.users u ON u.id = k.user_id"
        " WHERE u.email = $1",
        email,
    )
    return {(row["kind"], row["hash"]) for row in rows}
