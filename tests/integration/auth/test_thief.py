"""What a thief tries with half of what it takes: an ended session, one factor, a token from before."""

from __future__ import annotations

from collections.abc import Awaitable
from uuid import UUID

import pytest

from signgate.auth.v1 import admin_pb2, auth_pb2, user_pb2
from tests.integration.auth.test_assurance import DAY, changes, protected, reason, remove, whole
from tests.integration.auth.test_mfa import enroll
from tests.integration.auth.world import PASSWORD, World, bearer, claims, struct


async def test_a_request_that_was_let_in_just_before_its_session_ended_changes_nothing(world: World) -> None:
    """S17. A password waits for its hash: the owner's new one, and what it drops, may come first."""
    first, second, thief = await protected(world)
    left = await enroll(world, thief, "left open")
    # Ended, and the deny-set not told: as a request sees it that was authenticated before.
    await world.sql.execute(
        "UPDATE auth.sessions SET revoked_at = now(), denied_at = now() WHERE user_id = $1::uuid",
        thief.user.id,
    )
    who = bearer(thief)
    tries: list[Awaitable[object]] = [
        *changes(world, thief, second),
        remove(world, left, thief),
        world.rpc.UpdateUser(auth_pb2.UpdateUserRequest(data=struct(a="b")), metadata=who),
        world.rpc.UpdateUser(auth_pb2.UpdateUserRequest(email=thief.user.email), metadata=who),
        world.rpc.RegenerateRecoveryCodes(auth_pb2.RegenerateRecoveryCodesRequest(), metadata=who),
        world.rpc.ConfirmIdentity(auth_pb2.ConfirmIdentityRequest(password=PASSWORD), metadata=who),
        first.prove(thief, first.code(1)),
    ]
    for attempt in tries:
        assert await reason(attempt) == "SESSION_EXPIRED"
    user = await whole(world, thief)
    assert (user.new_email, len(user.factors), len(user.user_metadata.fields)) == ("", 3, 0)


async def test_an_administrator_with_a_second_factor_needs_it(world: World) -> None:
    """S7. The password of an account that was given the role must not open what administrators may do."""
    session = await world.user()
    phone = await enroll(world, session)
    await phone.prove(session, phone.code(-1))
    await make_administrator(world, session)
    by_password = await world.sign_in(session.user.email)
    assert claims(by_password)["role"] == "service_role"
    for attempt in administration(world, by_password):
        assert await reason(attempt) == "INSUFFICIENT_AAL"
    refused = await world.auth.http.get("/admin/users", headers=header(by_password))
    assert (refused.status_code, refused.headers["x-sb-error-code"]) == (401, "insufficient_aal")
    raised = (await phone.prove(by_password, phone.code())).session
    for attempt in administration(world, raised):
        assert await reason(attempt) == ""
    assert (await world.auth.http.get("/admin/users", headers=header(raised))).status_code == 200


async def test_an_administrator_can_sign_out_and_has_nothing_else_of_a_user(world: World) -> None:
    """The token of an account ends with its session; an operator's token is in none."""
    session = await world.user()
    await make_administrator(world, session)
    admin = await world.sign_in(session.user.email)
    tries: list[Awaitable[object]] = [
        world.rpc.GetUser(auth_pb2.GetUserRequest(), metadata=bearer(admin)),
        world.rpc.UpdateUser(auth_pb2.UpdateUserRequest(password="another one 1"), metadata=bearer(admin)),
        world.rpc.EnrollFactor(auth_pb2.EnrollFactorRequest(factor_type="totp"), metadata=bearer(admin)),
        world.rpc.SignOut(auth_pb2.SignOutRequest(), metadata=bearer(world.operator())),
        world.rpc.ListSessions(auth_pb2.ListSessionsRequest(), metadata=bearer(world.operator())),
    ]
    for attempt in tries:
        assert await reason(attempt) == "USER_REQUIRED"
    await world.rpc.SignOut(auth_pb2.SignOutRequest(), metadata=bearer(admin))
    for attempt in administration(world, admin):
        assert await reason(attempt) == "SESSION_REVOKED"


async def make_administrator(world: World, session: user_pb2.Session) -> None:
    request = admin_pb2.ModifyUserRequest(id=session.user.id, role="service_role")
    await world.auth.admin.ModifyUser(request, metadata=bearer(world.operator()))


def administration(world: World, session: user_pb2.Session) -> list[Awaitable[object]]:
    return [world.auth.admin.ListUsers(admin_pb2.ListUsersRequest(), metadata=bearer(session))]


def header(session: user_pb2.Session) -> dict[str, str]:
    return {"Authorization": f"Bearer {session.access_token}"}


@pytest.mark.parametrize("face", ["rpc", "http"])
async def test_an_old_session_removes_no_factor(world: World, face: str) -> None:
    """S11. Without it, what a thief of the session lacks is the password alone."""
    session = await world.user()
    phone = await enroll(world, session)
    old = await world.aged((await phone.prove(session, phone.code(-1))).session, DAY)

    async def unenroll(by: user_pb2.Session) -> str:
        if face == "rpc":
            return await reason(remove(world, phone, by))
        done = await world.auth.http.delete(f"/factors/{phone.factor_id}", headers=header(by))
        return "" if done.status_code == 200 else done.headers["x-sb-error-code"].upper()

    assert await unenroll(old) == "REAUTHENTICATION_NEEDED"
    assert len((await whole(world, old)).factors) == 1
    assert await unenroll((await phone.prove(old, phone.code())).session) == ""


async def test_an_enrolment_that_a_thief_left_open_ends_with_the_thief(world: World) -> None:
    """Its secret is known to who began it, and a session stolen before would do to prove it."""
    mine = await world.user()
    thief = await world.sign_in(mine.user.email)
    phone = await enroll(world, thief, "the thief's")
    change = auth_pb2.UpdateUserRequest(password="a second fine password")
    await world.rpc.UpdateUser(change, metadata=bearer(mine))
    assert len((await whole(world, mine)).factors) == 0
    assert await reason(phone.prove(mine, phone.code(), mine.user.id)) == "MFA_FACTOR_NOT_FOUND"


async def test_a_factor_that_goes_by_sql_takes_along_what_it_raised(world: World) -> None:
    """S11. The sessions that it had raised end; others stay."""
    first, second, thief = await protected(world)
    owner = await world.sign_in(thief.user.email)
    owner = (await second.prove(owner, second.code(1))).session
    await world.sql.execute("DELETE FROM auth.mfa_factors WHERE id = $1::uuid", UUID(first.factor_id))
    ended = await world.sql.fetchval(
        "SELECT revoked_at IS NOT NULL FROM auth.sessions WHERE id = $1::uuid", claims(thief)["session_id"]
    )
    assert ended
    assert claims(await world.refresh(owner.refresh_token))["aal"] == "aal2"


async def test_what_a_removed_factor_proved_makes_no_session_fresh(world: World) -> None:
    """S11. A lost phone has an old session and the authenticator; its owner removes the factor elsewhere."""
    mine = await world.user()
    phone = await enroll(world, mine)
    await phone.prove(mine, phone.code(-1))
    old = await world.aged(await world.sign_in(mine.user.email), 2 * DAY)
    thief = (await phone.prove(old, phone.code())).session
    owner = await world.sign_in(mine.user.email)
    owner = (await phone.prove(owner, phone.code(1))).session
    await remove(world, phone, owner)
    for tokens in (thief, await world.refresh(thief.refresh_token)):
        who = bearer(tokens)
        tries: list[Awaitable[object]] = [
            world.rpc.UpdateUser(auth_pb2.UpdateUserRequest(password="the thief's own"), metadata=who),
            world.rpc.UpdateUser(auth_pb2.UpdateUserRequest(email="thief@example.com"), metadata=who),
            world.rpc.EnrollFactor(auth_pb2.EnrollFactorRequest(factor_type="totp"), metadata=who),
        ]
        for attempt in tries:
            assert await reason(attempt) == "REAUTHENTICATION_NEEDED"
    await enroll(world, owner)  # the password was proved just now


@pytest.mark.parametrize("method", ["confirm", "factor", "recovery"])
async def test_a_session_past_its_end_is_given_no_new_tokens(world: World, method: str) -> None:
    """Its last access token outlives it by an hour, and must not be exchanged for others."""
    session = await world.user()
    phone = await enroll(world, session)
    codes = (await phone.prove(session, phone.code(-1))).recovery_codes
    session = await world.sign_in(session.user.email)
    await world.sql.execute(
        "UPDATE auth.sessions SET not_after = now() WHERE id = $1::uuid", claims(session)["session_id"]
    )
    who = bearer(session)
    attempt: Awaitable[object]
    if method == "confirm":
        attempt = world.rpc.ConfirmIdentity(auth_pb2.ConfirmIdentityRequest(password=PASSWORD), metadata=who)
    elif method == "factor":
        attempt = phone.prove(session, phone.code())
    else:
        attempt = world.rpc.UseRecoveryCode(auth_pb2.UseRecoveryCodeRequest(code=codes[0]), metadata=who)
    assert await reason(attempt) == "SESSION_EXPIRED"
