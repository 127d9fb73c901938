"""How much of a sign-in a session shows, and how long ago: raised, lowered at once, and made fresh again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from servicekit.errors import SigngateError
from signgate.auth.v1 import auth_pb2, user_pb2
from tests.integration.auth.test_mfa import Phone, enroll
from tests.integration.auth.world import PASSWORD, World, bearer, claims

DAY = 86_400


async def reason(call: Awaitable[object]) -> str:
    """What a call is refused with, "" if it succeeds."""
    try:
        await call
    except SigngateError as error:
        return error.reason
    return ""


async def protected(world: World) -> tuple[Phone, Phone, user_pb2.Session]:
    """An account with two factors, and its session, raised by the first."""
    session = await world.user()
    first = await enroll(world, session, "first")
    raised = (await first.prove(session, first.code())).session
    second = await enroll(world, raised, "second")
    await second.prove(raised, second.code())
    again = await world.sign_in(session.user.email)
    return first, second, (await first.prove(again, first.code(1))).session


def changes(world: World, session: user_pb2.Session, other: Phone) -> list[Awaitable[object]]:
    """All that a thief would do to an account in the auth service."""
    who = bearer(session)
    return [
        world.rpc.UpdateUser(auth_pb2.UpdateUserRequest(password="the thief's password"), metadata=who),
        world.rpc.UpdateUser(auth_pb2.UpdateUserRequest(email="thief@example.com"), metadata=who),
        world.rpc.EnrollFactor(auth_pb2.EnrollFactorRequest(factor_type="totp"), metadata=who),
        world.rpc.UnenrollFactor(auth_pb2.UnenrollFactorRequest(factor_id=other.factor_id), metadata=who),
        world.rpc.DeleteUser(auth_pb2.DeleteUserRequest(password=PASSWORD), metadata=who),
    ]


async def remove(world: World, phone: Phone, session: user_pb2.Session) -> None:
    request = auth_pb2.UnenrollFactorRequest(factor_id=phone.factor_id)
    await world.rpc.UnenrollFactor(request, metadata=bearer(session))


async def test_sessions_of_a_removed_factor_are_lowered_at_once(world: World) -> None:
    """S11. The thief's token lives for an hour yet, and is worth one factor."""
    first, second, thief = await protected(world)
    signed_in = await world.sign_in(thief.user.email)
    owner = (await second.prove(signed_in, second.code(1))).session
    await remove(world, first, owner)
    for attempt in changes(world, thief, second):
        assert await reason(attempt) == "INSUFFICIENT_AAL"
    fallen = await world.refresh(thief.refresh_token)
    assert (claims(fallen)["aal"], claims(fallen)["mfa"]) == ("aal1", True)
    for attempt in changes(world, fallen, second):
        assert await reason(attempt) == "INSUFFICIENT_AAL"
    renamed = auth_pb2.UpdateUserRequest(email="moved@example.com")
    assert await reason(world.rpc.UpdateUser(renamed, metadata=bearer(owner))) == ""


async def test_the_removers_own_session_falls_too_and_a_refresh_cures_what_it_can(world: World) -> None:
    first, second, session = await protected(world)
    await remove(world, first, session)
    assert await reason(remove(world, second, session)) == "INSUFFICIENT_AAL"
    session = await world.refresh(session.refresh_token)
    assert await reason(remove(world, second, session)) == "INSUFFICIENT_AAL"
    raised = (await second.prove(session, second.code(1))).session
    await remove(world, second, raised)
    await enroll(world, raised)  # one factor is all there is now
    plain = await world.refresh(raised.refresh_token)
    assert (claims(plain)["aal"], claims(plain)["mfa"]) == ("aal1", False)


async def test_a_session_that_fell_with_the_last_factor_is_worth_one_beside_a_new_one(world: World) -> None:
    first, second, session = await protected(world)
    await remove(world, first, session)
    raised = (await second.prove(session, second.code(1))).session
    await remove(world, second, raised)
    third = await enroll(world, raised, "third")
    again = (await third.prove(raised, third.code())).session
    for old in (session, raised):
        for attempt in changes(world, old, third):
            assert await reason(attempt) == "INSUFFICIENT_AAL"
    await enroll(world, again, "fourth")


async def test_what_a_recovery_code_raised_falls_with_the_last_factor(world: World) -> None:
    session = await world.user()
    phone = await enroll(world, session)
    proved = await phone.prove(session, phone.code())
    other = await world.sign_in(session.user.email)
    request = auth_pb2.UseRecoveryCodeRequest(code=proved.recovery_codes[0])
    recovered = (await world.rpc.UseRecoveryCode(request, metadata=bearer(other))).session
    second = await enroll(world, proved.session, "second")
    await second.prove(proved.session, second.code())
    # The first proof of a factor has ended the others.
    assert await reason(world.rpc.GetUser(auth_pb2.GetUserRequest(), metadata=bearer(recovered)))
    other = await world.sign_in(session.user.email)
    request = auth_pb2.UseRecoveryCodeRequest(code=proved.recovery_codes[1])
    recovered = (await world.rpc.UseRecoveryCode(request, metadata=bearer(other))).session
    await remove(world, phone, recovered)  # a code stands in for no factor in particular
    await remove(world, second, recovered)
    assert claims(await world.refresh(recovered.refresh_token))["aal"] == "aal1"


async def test_older_tokens_of_the_session_that_proved_the_first_factor_are_worth_one(world: World) -> None:
    """They say that the account has none."""
    before = await world.user()
    phone = await enroll(world, before)
    refreshed = await world.refresh(before.refresh_token)
    raised = (await phone.prove(before, phone.code())).session
    for old in (before, refreshed):
        assert claims(old)["mfa"] is False
        for attempt in changes(world, old, phone):
            assert await reason(attempt) == "INSUFFICIENT_AAL"
    await enroll(world, raised, "another")


@pytest.mark.parametrize("by", ["owner", "administrator"])
async def test_while_redis_takes_no_writes_no_factor_is_removed(world: World, by: str) -> None:
    """Otherwise the thief's token would go on for its hour."""
    first, _, session = await protected(world)
    user_id = session.user.id

    async def act() -> None:
        if by == "owner":
            await remove(world, first, session)
            return
        headers = {"Authorization": f"Bearer {world.operator()}"}
        path = f"/admin/users/{user_id}/factors/{first.factor_id}"
        (await world.auth.http.delete(path, headers=headers)).raise_for_status()

    await world.redis.config_set("maxmemory", 1)
    try:
        with pytest.raises((SigngateError, httpx.HTTPStatusError)):
            await act()
    finally:
        await world.redis.config_set("maxmemory", 0)
    left = await world.sql.fetchval("SELECT count(*) FROM auth.mfa_factors WHERE user_id = $1::uuid", user_id)
    assert left == 2
    assert claims(await world.refresh(session.refresh_token))["aal"] == "aal2"
    await act()


async def test_an_administrators_removal_takes_effect_at_once(world: World) -> None:
    first, second, thief = await protected(world)
    path = f"/admin/users/{thief.user.id}/factors/{first.factor_id}"
    done = await world.auth.http.delete(path, headers={"Authorization": f"Bearer {world.operator()}"})
    assert done.status_code == 200
    for attempt in changes(world, thief, second):
        assert await reason(attempt) == "SESSION_REVOKED"


async def test_a_request_that_was_let_in_just_before_is_held_to_the_rows(world: World) -> None:
    """S11. The token was looked at before the removal, the change is made after it."""
    _, second, thief = await protected(world)
    await world.sql.execute("UPDATE auth.sessions SET aal = 'aal1' WHERE user_id = $1::uuid", thief.user.id)
    for attempt in changes(world, thief, second):
        assert await reason(attempt) == "INSUFFICIENT_AAL"
    assert len((await whole(world, thief)).factors) == 2


async def whole(world: World, session: user_pb2.Session) -> user_pb2.User:
    return (await world.rpc.GetUser(auth_pb2.GetUserRequest(), metadata=bearer(session))).user


async def nonce(world: World, session: user_pb2.Session) -> str:
    email = session.user.email
    before = len(world.mailbox.to(email))
    await world.rpc.Reauthenticate(auth_pb2.ReauthenticateRequest(), metadata=bearer(session))
    return await world.mailbox.code(email, before + 1)


def by_rpc(world: World, session: user_pb2.Session) -> Callable[..., Awaitable[dict[str, Any]]]:
    async def confirm(**proof: str) -> dict[str, Any]:
        request = auth_pb2.ConfirmIdentityRequest(**proof)
        done = await world.rpc.ConfirmIdentity(request, metadata=bearer(session))
        return {"access_token": done.session.access_token, "refresh_token": done.session.refresh_token}

    return confirm


def by_http(world: World, session: user_pb2.Session) -> Callable[..., Awaitable[dict[str, Any]]]:
    async def confirm(**proof: str) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {session.access_token}"}
        done = await world.auth.http.post("/reauthenticate", json=proof, headers=headers)
        if done.status_code != 200:
            raise SigngateError(done.text, reason=done.headers["x-sb-error-code"].upper())
        found: dict[str, Any] = done.json()
        return found

    return confirm


@pytest.mark.parametrize("face", [by_rpc, by_http])
@pytest.mark.parametrize("how", ["nonce", "password"])
async def test_who_confirms_their_identity_is_fresh_again_and_at_the_same_assurance(
    world: World, face: Callable[..., Any], how: str
) -> None:
    session = await world.aged(await world.user(), 2 * DAY)
    confirm = face(world, session)
    assert await reason(enroll(world, session)) == "REAUTHENTICATION_NEEDED"
    for empty in ({}, {"nonce": "1", "password": "2"}):
        assert await reason(confirm(**empty)) == "VALIDATION_FAILED"
    code = await nonce(world, session)
    wrong = {"nonce": f"{(int(code) + 1) % 1_000_000:06}"} if how == "nonce" else {"password": "wrong"}
    assert await reason(confirm(**wrong)) == "INVALID_CREDENTIALS"
    assert await reason(enroll(world, session)) == "REAUTHENTICATION_NEEDED"
    done = await confirm(**({"nonce": code} if how == "nonce" else {"password": PASSWORD}))
    fresh = user_pb2.Session(
        access_token=done["access_token"], refresh_token=done["refresh_token"], user=session.user
    )
    assert claims(fresh)["aal"] == "aal1"
    assert claims(fresh)["session_id"] == claims(session)["session_id"]
    assert claims(fresh)["amr"][0]["method"] == ("otp" if how == "nonce" else "password")
    await enroll(world, fresh)
    renewed = await world.refresh(fresh.refresh_token)
    assert claims(renewed)["amr"] == claims(fresh)["amr"]
    if how == "nonce":
        assert await reason(confirm(nonce=code)) == "INVALID_CREDENTIALS"


async def test_confirming_raises_nothing(world: World) -> None:
    first, second, _ = await protected(world)
    session = await world.sign_in(first.world.mailbox._messages[-1][0])
    confirmed = await by_rpc(world, session)(password=PASSWORD)
    assert claims(user_pb2.Session(**confirmed))["aal"] == "aal1"
    thief = user_pb2.Session(**confirmed, user=session.user)
    for attempt in changes(world, thief, second):
        assert await reason(attempt) == "INSUFFICIENT_AAL"


async def test_wrong_nonces_are_counted(world: World) -> None:
    session = await world.user()
    code = await nonce(world, session)
    confirm = by_rpc(world, session)
    for _ in range(5):
        assert await reason(confirm(nonce="no number")) == "INVALID_CREDENTIALS"
    assert await reason(confirm(nonce=code)) == "INVALID_CREDENTIALS"


async def test_wrong_passwords_are_counted_before_any_hash(world: World) -> None:
    async with world.replica(rate_sign_in_account="3 per hour") as tight:
        session = await world.user()
        request = auth_pb2.ConfirmIdentityRequest(password="wrong")
        for _ in range(3):
            assert (
                await reason(tight.accounts.ConfirmIdentity(request, metadata=bearer(session)))
                == "INVALID_CREDENTIALS"
            )
        right = auth_pb2.ConfirmIdentityRequest(password=PASSWORD)
        refused = await reason(tight.accounts.ConfirmIdentity(right, metadata=bearer(session)))
        assert refused == "OVER_REQUEST_RATE_LIMIT"


async def test_an_account_that_may_not_sign_in_is_not_confirmed(world: World) -> None:
    session = await world.user()
    await world.sql.execute(
        "UPDATE auth.users SET banned_until = now() + interval '1 day' WHERE id = $1::uuid", session.user.id
    )
    assert await reason(by_rpc(world, session)(password=PASSWORD)) != ""
    await world.sql.execute("UPDATE auth.users SET banned_until = NULL WHERE id = $1::uuid", session.user.id)


@pytest.mark.parametrize("member", ["email", "password"])
@pytest.mark.parametrize("face", ["rpc", "http"])
async def test_an_old_session_changes_address_and_password_by_a_right_proof_only(
    world: World, member: str, face: str
) -> None:
    """A proof lets the request past the policy, so the method must look at it, for each member."""
    session = await world.aged(await world.user(), DAY + 60)
    value = "new@example.com" if member == "email" else "a second fine password"

    async def update(**proof: str) -> str:
        if face == "rpc":
            request = auth_pb2.UpdateUserRequest(**{member: value}, **proof)  # type: ignore[arg-type]
            return await reason(world.rpc.UpdateUser(request, metadata=bearer(session)))
        done = await world.auth.http.put(
            "/user",
            json={member: value, **proof},
            headers={"Authorization": f"Bearer {session.access_token}"},
        )
        return "" if done.status_code == 200 else done.headers["x-sb-error-code"].upper()

    assert await update() == "REAUTHENTICATION_NEEDED"
    assert await update(nonce="") == "REAUTHENTICATION_NEEDED"
    assert await update(nonce="no number") == "REAUTHENTICATION_NEEDED"
    assert await update(current_password="wrong") == "INVALID_CREDENTIALS"
    right = await nonce(world, session)
    assert await update(nonce=right, current_password="wrong") == "INVALID_CREDENTIALS"
    assert (await whole(world, session)).new_email == ""
    assert await update(nonce=await nonce(world, session)) == ""


async def test_the_http_face_asks_for_the_same_age(world: World) -> None:
    session = await world.aged(await world.user(), 3700)
    headers = {"Authorization": f"Bearer {session.access_token}"}
    refused = await world.auth.http.post("/factors", json={"factor_type": "totp"}, headers=headers)
    assert (refused.status_code, refused.headers["x-sb-error-code"]) == (400, "reauthentication_needed")
    plain = await world.auth.http.put("/user", json={"data": {"a": 1}}, headers=headers)
    assert plain.status_code == 200


async def test_tokens_carry_what_policies_ask(world: World) -> None:
    session = await world.user()
    assert (claims(session)["mfa"], claims(session)["assurance_version"]) == (False, 0)
    phone = await enroll(world, session)
    raised = (await phone.prove(session, phone.code())).session
    assert (claims(raised)["mfa"], claims(raised)["assurance_version"]) == (True, 1)
    other = await world.sign_in(session.user.email)
    assert (claims(other)["mfa"], claims(other)["assurance_version"]) == (True, 0)
