"""E-mail changes: two named halves, no session for one of them, and an end with a new password."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest

from servicekit.clock import SystemEntropy
from servicekit.errors import FailedPrecondition, PermissionDenied, SigngateError, Unauthenticated
from services.auth.secrets import Secrets
from services.auth.service.even import EvenAnswers
from signgate.auth.v1 import admin_pb2, auth_pb2, user_pb2
from tests.integration.auth.pkce import OWNER, THIEF, press
from tests.integration.auth.world import PASSWORD, PEPPER, World, bearer

CHANGE = auth_pb2.OTP_TYPE_EMAIL_CHANGE
REFUSALS = (PermissionDenied, Unauthenticated, FailedPrecondition)


async def ask(world: World, session: user_pb2.Session, new: str, **more: Any) -> user_pb2.User:
    request = auth_pb2.UpdateUserRequest(email=new, **more)
    return (await world.rpc.UpdateUser(request, metadata=bearer(session))).user


async def confirm(world: World, email: str, n: int) -> bool:
    """Redeem the n-th mail's code; whether that opened a session."""
    token = await world.mailbox.code(email, n)
    request = auth_pb2.VerifyRequest(type=CHANGE, email=email, token=token)
    return (await world.rpc.Verify(request)).HasField("session")


async def test_the_answer_does_not_tell_whether_the_new_address_has_an_account(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does its time: it comes at a multiple, as answers do that could tell."""
    held = 0
    original = EvenAnswers._wait

    async def counting(even: EvenAnswers, started: float) -> None:
        nonlocal held
        held += 1
        await original(even, started)

    taken, free, found = (await world.user()).user.email, world.address(), []
    monkeypatch.setattr(EvenAnswers, "_wait", counting)
    for new in (taken, free):
        session, held = await world.user(), 0
        headers = {"Authorization": f"Bearer {session.access_token}"}
        answer = await world.auth.http.put("/user", json={"email": new}, headers=headers)
        assert (answer.status_code, answer.json()["new_email"], held) == (200, new, 1)
        found.append({name for name, value in answer.json().items() if value})
    assert found[0] == found[1]
    assert "already" in str((await world.mailbox.wait(taken, 2))["Subject"])


async def address_of(world: World, session: user_pb2.Session) -> tuple[str, str | None]:
    row = await world.sql.fetchrow(
        "SELECT email, email_change FROM auth.users WHERE id = $1", UUID(session.user.id)
    )
    assert row is not None
    return row["email"], row["email_change"]


async def sessions_of(world: World, session: user_pb2.Session) -> int:
    found = await world.sql.fetchval(
        "SELECT count(*) FROM auth.sessions WHERE user_id = $1", UUID(session.user.id)
    )
    return int(found)


async def test_half_a_change_opens_no_session_by_a_pkce_flow(world: World) -> None:
    """S10: a thief with an old session presses only the link that their own mailbox got."""
    session = await world.user()
    old, evil = session.user.email, world.address()
    await ask(world, session, evil, pkce=THIEF.pkce)
    before = await sessions_of(world, session)
    half = await press(world, await world.mailbox.link(evil))
    assert "code" not in half
    assert "access_token" not in half
    assert "other address" in half["message"]
    assert await sessions_of(world, session) == before
    assert await address_of(world, session) == (old, evil)
    # The other half makes it whole, and the flow's client gets its session by exchange alone.
    led = await press(world, await world.mailbox.link(old, 2))
    assert "access_token" not in led
    assert (await THIEF.exchange(world, led["code"])).session.user.email == evil


async def test_a_flow_that_the_version_before_let_through_opens_no_session_for_half_a_change(
    world: World,
) -> None:
    """S10: that version gave a code for a half; its exchange may come here."""
    session = await world.user()
    evil = world.address()
    await ask(world, session, evil, pkce=THIEF.pkce)
    await press(world, await world.mailbox.link(evil))
    code = "c" * 43
    hashed = Secrets(PEPPER, SystemEntropy()).flow_hash(code)
    await world.sql.execute(
        "UPDATE auth.flow_state SET auth_code_hash = $2, expires_at = now() + interval '5 minutes'"
        " WHERE user_id = $1",
        UUID(session.user.id),
        hashed,
    )
    before = await sessions_of(world, session)
    body = {"auth_code": code, "code_verifier": THIEF.verifier}
    answer = await world.auth.http.post("/token?grant_type=pkce", json=body)
    assert answer.status_code == 200
    assert "access_token" not in answer.json()
    assert answer.json()["new_email"] == evil
    assert await sessions_of(world, session) == before
    again = await world.auth.http.post("/token?grant_type=pkce", json=body)
    assert again.status_code == 404


async def test_the_same_half_twice_is_one_half(world: World) -> None:
    session = await world.user()
    old, new = session.user.email, world.address()
    await ask(world, session, new)
    assert not await confirm(world, new, 1)
    await world.rpc.Resend(auth_pb2.ResendRequest(type=CHANGE, email=old))
    assert not await confirm(world, new, 2)
    await ask(world, session, new)
    assert not await confirm(world, new, 3)
    assert await address_of(world, session) == (old, new)
    # What was confirmed stays confirmed: the current address makes it whole, once.
    assert await confirm(world, old, 4)
    assert await address_of(world, session) == (new, None)


async def test_the_current_address_twice_is_one_half(world: World) -> None:
    session = await world.user()
    old, new = session.user.email, world.address()
    await ask(world, session, new)
    assert not await confirm(world, old, 2)
    await world.rpc.Resend(auth_pb2.ResendRequest(type=CHANGE, email=old))
    assert not await confirm(world, old, 3)
    assert await address_of(world, session) == (old, new)
    assert await confirm(world, new, 2)


async def test_another_new_address_starts_both_halves_again(world: World) -> None:
    session = await world.user()
    old, first, second = session.user.email, world.address(), world.address()
    await ask(world, session, first)
    assert not await confirm(world, old, 2)
    await ask(world, session, second)
    assert not await confirm(world, second, 1)
    with pytest.raises(PermissionDenied):
        await confirm(world, first, 1)
    assert await address_of(world, session) == (old, second)
    assert await confirm(world, old, 3)


async def test_a_mail_about_one_new_address_confirms_no_other(world: World) -> None:
    """An operator's link names another new address: the owner's mail told of the first."""
    session = await world.user()
    old, first, second = session.user.email, world.address(), world.address()
    await ask(world, session, first)
    await world.mailbox.wait(old, 2)
    request = admin_pb2.GenerateLinkRequest(type=CHANGE, email=old, new_email=second)
    made = await world.auth.admin.GenerateLink(request, metadata=bearer(world.operator()))
    with pytest.raises(PermissionDenied):
        await confirm(world, old, 2)
    done = await world.rpc.Verify(auth_pb2.VerifyRequest(type=CHANGE, token_hash=made.hashed_token))
    assert not done.HasField("session")
    assert await address_of(world, session) == (old, second)


async def test_two_halves_at_once_make_one_change(world: World) -> None:
    session = await world.user()
    old, new = session.user.email, world.address()
    await ask(world, session, new)
    codes = {old: await world.mailbox.code(old, 2), new: await world.mailbox.code(new)}
    done = await asyncio.gather(
        *(
            world.rpc.Verify(auth_pb2.VerifyRequest(type=CHANGE, email=email, token=code))
            for email, code in codes.items()
        )
    )
    assert sorted(each.HasField("session") for each in done) == [False, True]
    assert await address_of(world, session) == (new, None)


async def test_one_half_pressed_many_times_at_once_is_one_half(world: World) -> None:
    session = await world.user()
    old, new = session.user.email, world.address()
    await ask(world, session, new)
    link = await world.mailbox.link(new)
    request = auth_pb2.VerifyRequest(type=CHANGE, token_hash=link["token"])
    outcomes = await asyncio.gather(*(world.rpc.Verify(request) for _ in range(6)), return_exceptions=True)
    assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) == 1
    assert await address_of(world, session) == (old, new)


async def test_where_the_new_address_alone_counts_the_current_one_changes_nothing(world: World) -> None:
    session = await world.user()
    old, new = session.user.email, world.address()
    async with world.replica(secure_email_change=False) as auth:
        operator = bearer(world.operator())
        request = admin_pb2.GenerateLinkRequest(type=CHANGE, email=old, new_email=new)
        made = await auth.admin.GenerateLink(request, metadata=operator)
        body = {"type": "email_change_current", "email": old, "new_email": new}
        current = await auth.http.post(
            "/admin/generate_link", json=body, headers={"authorization": f"Bearer {world.operator()}"}
        )
        verify = auth_pb2.VerifyRequest(type=CHANGE, token_hash=current.json()["hashed_token"])
        assert not (await auth.accounts.Verify(verify)).HasField("session")
        assert await address_of(world, session) == (old, new)
        verify = auth_pb2.VerifyRequest(type=CHANGE, token_hash=made.hashed_token)
        assert (await auth.accounts.Verify(verify)).session.user.email == new


@pytest.mark.parametrize("by", ["type email", "magic link", "signup"])
async def test_a_change_s_code_is_good_for_nothing_else(world: World, by: str) -> None:
    session = await world.user()
    old, new = session.user.email, world.address()
    await ask(world, session, new)
    kinds = {
        "type email": auth_pb2.OTP_TYPE_EMAIL,
        "magic link": auth_pb2.OTP_TYPE_MAGICLINK,
        "signup": auth_pb2.OTP_TYPE_SIGNUP,
    }
    for email, n in ((old, 2), (new, 1)):
        code, link = await world.mailbox.code(email, n), await world.mailbox.link(email, n)
        with pytest.raises(PermissionDenied):
            await world.verify(email, code, kinds[by])
        with pytest.raises(PermissionDenied):
            await world.rpc.Verify(auth_pb2.VerifyRequest(type=kinds[by], token_hash=link["token"]))


# What ends a change


async def change_password(world: World, session: user_pb2.Session) -> None:
    request = auth_pb2.UpdateUserRequest(password="a new fine password", current_password=PASSWORD)
    await world.rpc.UpdateUser(request, metadata=bearer(session))


async def recover(world: World, session: user_pb2.Session) -> None:
    email = session.user.email
    n = len(world.mailbox.to(email)) + 1
    await world.rpc.Recover(auth_pb2.RecoverRequest(email=email))
    found = await world.verify(email, await world.mailbox.code(email, n), auth_pb2.OTP_TYPE_RECOVERY)
    request = auth_pb2.UpdateUserRequest(password="a new fine password")
    await world.rpc.UpdateUser(request, metadata=bearer(found))


async def by_operator(world: World, session: user_pb2.Session, **change: Any) -> None:
    request = admin_pb2.ModifyUserRequest(id=session.user.id, **change)
    await world.auth.admin.ModifyUser(request, metadata=bearer(world.operator()))


async def operator_s_password(world: World, session: user_pb2.Session) -> None:
    await by_operator(world, session, password="what the operator says")


async def sign_out_everywhere(world: World, session: user_pb2.Session) -> None:
    await world.rpc.SignOut(auth_pb2.SignOutRequest(), metadata=bearer(session))


async def sign_out_others(world: World, session: user_pb2.Session) -> None:
    request = auth_pb2.SignOutRequest(scope=auth_pb2.SIGN_OUT_SCOPE_OTHERS)
    await world.rpc.SignOut(request, metadata=bearer(session))


async def revoke_the_other_session(world: World, session: user_pb2.Session) -> None:
    listed = await world.rpc.ListSessions(auth_pb2.ListSessionsRequest(), metadata=bearer(session))
    other = next(each for each in listed.sessions if not each.current)
    request = auth_pb2.RevokeSessionRequest(session_id=other.id)
    await world.rpc.RevokeSession(request, metadata=bearer(session))


async def own_address(world: World, session: user_pb2.Session) -> None:
    await ask(world, session, session.user.email.upper())


async def empty_value(world: World, session: user_pb2.Session) -> None:
    await ask(world, session, "")


async def null_over_http(world: World, session: user_pb2.Session) -> None:
    headers = {"authorization": f"Bearer {session.access_token}"}
    answer = await world.auth.http.put("/user", json={"email": None}, headers=headers)
    assert answer.status_code == 200
    assert answer.json()["new_email"] is None


ENDS = [
    change_password,
    recover,
    operator_s_password,
    sign_out_everywhere,
    sign_out_others,
    revoke_the_other_session,
    own_address,
    empty_value,
    null_over_http,
]


@pytest.mark.parametrize("end", ENDS)
async def test_a_pending_change_ends_with(world: World, end: Any) -> None:
    """S17: the thief asks from a stolen session, and comes back with the code of their own mailbox."""
    async with world.replica(secure_email_change=False) as auth:
        owner = await world.user()
        email, evil = owner.user.email, world.address()
        stolen = await world.sign_in(email)
        request = auth_pb2.UpdateUserRequest(email=evil, pkce=THIEF.pkce)
        await auth.accounts.UpdateUser(request, metadata=bearer(stolen))
        code, link = await world.mailbox.code(evil), await world.mailbox.link(evil)
        await end(world, owner)
        assert await address_of(world, owner) == (email, None)
        verify = auth_pb2.VerifyRequest(type=CHANGE, email=evil, token=code)
        with pytest.raises(PermissionDenied):
            await auth.accounts.Verify(verify)
        page = await auth.http.post("/verify", data={"token": link["token"], "type": "email_change"})
        assert "error_code=otp_expired" in page.headers["location"]
        assert await address_of(world, owner) == (email, None)


@pytest.mark.parametrize("end", [change_password, operator_s_password, sign_out_everywhere, sign_out_others])
async def test_other_codes_links_and_flows_end_as_well(world: World, end: Any) -> None:
    """S17: what rested on the old password, or was asked for by a session that is signed out now."""
    owner = await world.user()
    email = owner.user.email
    await world.rpc.Recover(auth_pb2.RecoverRequest(email=email))
    recovery = await world.mailbox.link(email, 2)
    await world.rpc.SendOtp(auth_pb2.SendOtpRequest(email=email, pkce=OWNER.pkce))
    led = await press(world, await world.mailbox.link(email, 3))
    await world.rpc.Reauthenticate(auth_pb2.ReauthenticateRequest(), metadata=bearer(owner))
    await world.mailbox.wait(email, 4)
    await end(world, owner)
    with pytest.raises(PermissionDenied):
        await world.rpc.Verify(
            auth_pb2.VerifyRequest(type=auth_pb2.OTP_TYPE_RECOVERY, token_hash=recovery["token"])
        )
    with pytest.raises(PermissionDenied) as failed:
        await OWNER.exchange(world, led["code"])
    assert failed.value.reason == "FLOW_STATE_NOT_FOUND"
    for table in ("one_time_tokens", "flow_state"):
        query = f"SELECT count(*) FROM auth.{table} WHERE user_id = $1"
        assert await world.sql.fetchval(query, UUID(owner.user.id)) == 0


async def test_leaving_one_session_or_changing_metadata_ends_no_change(world: World) -> None:
    owner = await world.user()
    email, new = owner.user.email, world.address()
    await ask(world, owner, new)
    headers = {"authorization": f"Bearer {owner.access_token}"}
    answer = await world.auth.http.put("/user", json={"data": {"a": 1}}, headers=headers)
    assert answer.json()["new_email"] == new
    blank = await world.auth.http.put("/user", json={"email": ""}, headers=headers)
    assert blank.status_code == 400
    request = auth_pb2.SignOutRequest(scope=auth_pb2.SIGN_OUT_SCOPE_LOCAL)
    await world.rpc.SignOut(request, metadata=bearer(owner))
    assert await address_of(world, owner) == (email, new)
    assert not await confirm(world, new, 1)
    assert await confirm(world, email, 2)


# Codes of an address that is no longer the account's


@pytest.mark.parametrize("how", ["operator", "owner"])
async def test_nothing_that_went_to_the_old_address_works(world: World, how: str) -> None:
    session = await world.user()
    old, new = session.user.email, world.address()
    await world.rpc.Recover(auth_pb2.RecoverRequest(email=old))
    recovery = await world.mailbox.link(old, 2)
    await world.rpc.Reauthenticate(auth_pb2.ReauthenticateRequest(), metadata=bearer(session))
    nonce = await world.mailbox.code(old, 3)
    await world.rpc.SendOtp(auth_pb2.SendOtpRequest(email=old, pkce=OWNER.pkce))
    led = await press(world, await world.mailbox.link(old, 4))
    if how == "operator":
        await by_operator(world, session, email=new)
    else:
        await ask(world, session, new)
        assert not await confirm(world, old, 5)
        assert await confirm(world, new, 1)
    with pytest.raises(PermissionDenied):
        await world.rpc.Verify(
            auth_pb2.VerifyRequest(type=auth_pb2.OTP_TYPE_RECOVERY, token_hash=recovery["token"])
        )
    with pytest.raises(PermissionDenied):
        await OWNER.exchange(world, led["code"])
    with pytest.raises(SigngateError) as failed:
        request = auth_pb2.UpdateUserRequest(password="by the nonce of the old address", nonce=nonce)
        await world.rpc.UpdateUser(request, metadata=bearer(session))
    assert failed.value.reason == "REAUTHENTICATION_NEEDED"


async def test_an_operator_who_sends_the_same_address_back_ends_no_sign_up(world: World) -> None:
    """Consoles send whole accounts back."""
    email = world.address()
    user = (await world.sign_up(email)).user
    code = await world.mailbox.code(email)
    request = admin_pb2.ModifyUserRequest(id=user.id, email=email)
    await world.auth.admin.ModifyUser(request, metadata=bearer(world.operator()))
    await world.verify(email, code)
    await world.sign_in(email, PASSWORD)


async def test_whatever_meets_at_once_waits_its_turn(world: World) -> None:
    """Locks are taken in one order: a deadlock would be a call that fails for no reason of its own."""
    session = await world.user()
    email, new = session.user.email, world.address()
    mine = bearer(session)
    for n in range(3):
        other = await world.sign_in(email)
        await ask(world, session, new, pkce=OWNER.pkce)
        await world.mailbox.wait(new, n + 1)
        link = await world.mailbox.link(new, n + 1)
        half = auth_pb2.VerifyRequest(type=CHANGE, token_hash=link["token"])
        wrong = auth_pb2.VerifyRequest(type=CHANGE, email=email, token="000000")
        others = auth_pb2.SignOutRequest(scope=auth_pb2.SIGN_OUT_SCOPE_OTHERS)
        nonce = auth_pb2.UpdateUserRequest(password="never to be set", nonce="000000")
        done = await asyncio.gather(
            world.rpc.Verify(half),
            world.rpc.Verify(wrong),
            world.refresh(other.refresh_token),
            world.rpc.SignOut(others, metadata=mine),
            world.rpc.UpdateUser(nonce, metadata=mine),
            world.rpc.UpdateUser(auth_pb2.UpdateUserRequest(email=""), metadata=mine),
            world.rpc.Verify(half),
            return_exceptions=True,
        )
        for each in done:
            assert not isinstance(each, BaseException) or isinstance(each, REFUSALS), each
