"""One-time codes and links: bound, counted, spent once."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from uuid import UUID

import pytest

from servicekit.errors import PermissionDenied, SigngateError, Unauthenticated
from signgate.auth.v1 import admin_pb2, auth_pb2
from tests.integration.auth.pkce import press
from tests.integration.auth.world import PASSWORD, World, bearer

VERIFIER = "v" * 50
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()


def other(code: str) -> str:
    return str((int(code) + 1) % 1_000_000).zfill(6)


async def refused(world: World, email: str, code: str, kind: auth_pb2.OtpType.ValueType) -> str:
    with pytest.raises(PermissionDenied) as failed:
        await world.verify(email, code, kind)
    return failed.value.reason


async def test_the_sixth_try_fails_even_with_the_right_code(world: World) -> None:
    email = world.address()
    await world.sign_up(email)
    code = await world.mailbox.code(email)
    for _ in range(5):
        assert await refused(world, email, other(code), auth_pb2.OTP_TYPE_SIGNUP) == "OTP_EXPIRED"
    assert await refused(world, email, code, auth_pb2.OTP_TYPE_SIGNUP) == "OTP_EXPIRED"


@pytest.mark.parametrize("kind", ["signup", "magiclink", "recovery", "invite", "email_change"])
@pytest.mark.parametrize("way", ["token_hash", "page"])
async def test_wrong_digits_do_not_void_the_link_of_the_same_mail(world: World, kind: str, way: str) -> None:
    """Five guesses take no more than an address; a link's token has 256 bits."""
    email, n = await mailed(world, kind)
    code, link = await world.mailbox.code(email, n), await world.mailbox.link(email, n)
    number = auth_pb2.OtpType.Value(f"OTP_TYPE_{kind.upper()}")
    for _ in range(6):
        assert await refused(world, email, other(code), number) == "OTP_EXPIRED"
    assert await refused(world, email, code, number) == "OTP_EXPIRED"
    if way == "page":
        assert "error" not in await press(world, link)
    else:
        await world.rpc.Verify(auth_pb2.VerifyRequest(type=number, token_hash=link["token"]))
    assert "error" in await press(world, link)


async def mailed(world: World, kind: str) -> tuple[str, int]:
    """An address and which of its mails carries such a code."""
    email = world.address()
    if kind == "signup":
        await world.sign_up(email)
        return email, 1
    if kind == "invite":
        request = admin_pb2.InviteUserRequest(email=email)
        await world.auth.admin.InviteUser(request, metadata=bearer(world.operator()))
        return email, 1
    session = await world.user(email)
    if kind == "magiclink":
        await world.rpc.SendOtp(auth_pb2.SendOtpRequest(email=email))
    elif kind == "recovery":
        await world.rpc.Recover(auth_pb2.RecoverRequest(email=email))
    else:
        change = auth_pb2.UpdateUserRequest(email=world.address())
        await world.rpc.UpdateUser(change, metadata=bearer(session))
    return email, 2


async def test_a_nonce_has_five_tries(world: World) -> None:
    session = await world.user()
    await world.rpc.Reauthenticate(auth_pb2.ReauthenticateRequest(), metadata=bearer(session))
    nonce = await world.mailbox.code(session.user.email, 2)
    for typed in [other(nonce)] * 5 + [nonce]:
        with pytest.raises(SigngateError) as failed:
            request = auth_pb2.UpdateUserRequest(password="another fine password", nonce=typed)
            await world.rpc.UpdateUser(request, metadata=bearer(session))
        assert failed.value.reason == "REAUTHENTICATION_NEEDED"


async def test_tries_at_once_are_counted_one_by_one(world: World) -> None:
    """A hundred parallel guesses must not share one look at the counter."""
    email = world.address()
    await world.sign_up(email)
    code = await world.mailbox.code(email)
    tries = [world.verify(email, other(code)) for _ in range(15)]
    outcomes = await asyncio.gather(*tries, return_exceptions=True)
    assert all(isinstance(outcome, SigngateError) for outcome in outcomes)
    assert await world.sql.fetchval("SELECT attempts FROM auth.one_time_tokens WHERE email = $1", email) == 5
    assert await refused(world, email, code, auth_pb2.OTP_TYPE_SIGNUP) == "OTP_EXPIRED"


async def test_a_code_redeemed_twice_at_once_counts_once(world: World) -> None:
    email = world.address()
    await world.sign_up(email)
    code = await world.mailbox.code(email)
    outcomes = await asyncio.gather(*(world.verify(email, code) for _ in range(5)), return_exceptions=True)
    assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) == 1


async def test_an_old_code_is_void_and_a_new_one_replaces_it(world: World) -> None:
    email = world.address()
    await world.sign_up(email)
    old = await world.mailbox.code(email)
    request = auth_pb2.ResendRequest(type=auth_pb2.OTP_TYPE_SIGNUP, email=email)
    await world.rpc.Resend(request)
    new = await world.mailbox.code(email, 2)
    if old != new:
        assert await refused(world, email, old, auth_pb2.OTP_TYPE_SIGNUP) == "OTP_EXPIRED"
    await world.verify(email, new)


async def test_a_code_ends_with_its_time(world: World) -> None:
    email = world.address()
    await world.sign_up(email)
    code = await world.mailbox.code(email)
    await world.sql.execute(
        "UPDATE auth.one_time_tokens SET expires_at = now() - interval '1 second' WHERE email = $1", email
    )
    assert await refused(world, email, code, auth_pb2.OTP_TYPE_SIGNUP) == "OTP_EXPIRED"


async def test_a_code_is_good_for_its_own_purpose_only(world: World) -> None:
    session = await world.user()
    email = session.user.email
    await world.rpc.Recover(auth_pb2.RecoverRequest(email=email))
    code = await world.mailbox.code(email, 2)
    for kind in (auth_pb2.OTP_TYPE_SIGNUP, auth_pb2.OTP_TYPE_EMAIL, auth_pb2.OTP_TYPE_EMAIL_CHANGE):
        assert await refused(world, email, code, kind) == "OTP_EXPIRED"
    assert (await world.verify(email, code, auth_pb2.OTP_TYPE_RECOVERY)).user.id == session.user.id


async def test_a_new_address_signs_in_by_code_and_needs_no_password(world: World) -> None:
    email = world.address()
    await world.rpc.SendOtp(auth_pb2.SendOtpRequest(email=email))
    session = await world.verify(email, await world.mailbox.code(email), auth_pb2.OTP_TYPE_EMAIL)
    assert session.user.HasField("email_confirmed_at")
    with pytest.raises(Unauthenticated):
        await world.sign_in(email, "")


async def test_no_account_is_made_where_none_was_asked_for(world: World) -> None:
    email = world.address()
    await world.rpc.SendOtp(auth_pb2.SendOtpRequest(email=email, create_user=False))
    await world.rpc.Recover(auth_pb2.RecoverRequest(email=email))
    await world.rpc.Resend(auth_pb2.ResendRequest(type=auth_pb2.OTP_TYPE_SIGNUP, email=email))
    await world.user()  # its mail came after theirs would have
    assert world.mailbox.to(email) == []
    assert await world.sql.fetchval("SELECT count(*) FROM auth.users WHERE email = $1", email) == 0


async def test_whoever_proves_the_address_drops_a_stranger_s_password(world: World) -> None:
    """A squatter signs up with the victim's address; the victim comes in by a magic link."""
    email = world.address()
    await world.sign_up(email, "the squatter's password")
    await world.rpc.SendOtp(auth_pb2.SendOtpRequest(email=email))
    await world.verify(email, await world.mailbox.code(email, 2), auth_pb2.OTP_TYPE_EMAIL)
    with pytest.raises(Unauthenticated):
        await world.sign_in(email, "the squatter's password")


async def test_recovery_sets_a_new_password_and_ends_the_other_sessions(world: World) -> None:
    stolen = await world.user()
    email = stolen.user.email
    await world.rpc.Recover(auth_pb2.RecoverRequest(email=email))
    session = await world.verify(email, await world.mailbox.code(email, 2), auth_pb2.OTP_TYPE_RECOVERY)
    request = auth_pb2.UpdateUserRequest(password="another fine password")
    await world.rpc.UpdateUser(request, metadata=bearer(session))
    with pytest.raises(Unauthenticated) as ended:
        await world.rpc.GetUser(auth_pb2.GetUserRequest(), metadata=bearer(stolen))
    assert ended.value.reason == "SESSION_REVOKED"
    with pytest.raises(Unauthenticated):
        await world.sign_in(email, PASSWORD)
    await world.sign_in(email, "another fine password")
    assert "password was changed" in (await world.mailbox.wait(email, 3))["Subject"]


async def test_a_link_leads_only_where_the_deployment_allows(world: World) -> None:
    for wanted, leads_to in [
        ("http://app.test/welcome", "http://app.test/welcome"),
        ("http://signgate.test/console", "http://signgate.test/console"),
        ("http://evil.test/", "http://signgate.test"),
        ("http://signgate.test.evil.test/", "http://signgate.test"),
        ("javascript:alert(1)", "http://signgate.test"),
        ("", "http://signgate.test"),
    ]:
        email = world.address()
        await world.sign_up(email, redirect_to=wanted)
        assert (await world.mailbox.link(email))["redirect_to"] == leads_to


async def test_a_link_of_a_pkce_flow_gives_a_code_that_only_its_client_can_use(world: World) -> None:
    email = world.address()
    pkce = auth_pb2.Pkce(code_challenge=CHALLENGE, code_challenge_method="s256")
    await world.sign_up(email, pkce=pkce, redirect_to="http://app.test/in")
    link = await world.mailbox.link(email)
    page = await world.auth.http.post(
        "/verify", data={"token": link["token"], "type": "signup", "redirect_to": link["redirect_to"]}
    )
    assert page.status_code == 303
    where = page.headers["location"]
    assert where.startswith("http://app.test/in?code=")
    code = where.partition("code=")[2]
    wrong = auth_pb2.ExchangeCodeRequest(auth_code=code, code_verifier="w" * 50)
    with pytest.raises(PermissionDenied) as refused_:
        await world.rpc.ExchangeCode(wrong)
    assert refused_.value.reason == "BAD_CODE_VERIFIER"
    right = auth_pb2.ExchangeCodeRequest(auth_code=code, code_verifier=VERIFIER)
    assert (await world.rpc.ExchangeCode(right)).session.user.email == email
    with pytest.raises(PermissionDenied) as used:
        await world.rpc.ExchangeCode(right)
    assert used.value.reason == "FLOW_STATE_NOT_FOUND"


async def test_a_changed_address_counts_once_both_have_confirmed(world: World) -> None:
    session = await world.user()
    old, new = session.user.email, world.address()
    request = auth_pb2.UpdateUserRequest(email=new)
    user = (await world.rpc.UpdateUser(request, metadata=bearer(session))).user
    assert (user.email, user.new_email) == (old, new)

    first = auth_pb2.VerifyRequest(
        type=auth_pb2.OTP_TYPE_EMAIL_CHANGE, email=new, token=await world.mailbox.code(new)
    )
    assert not (await world.rpc.Verify(first)).HasField("session")
    with pytest.raises(PermissionDenied):
        await world.rpc.Verify(first)  # the same half twice is not both halves
    second = await world.verify(old, await world.mailbox.code(old, 2), auth_pb2.OTP_TYPE_EMAIL_CHANGE)
    assert (second.user.email, second.user.new_email) == (new, "")
    row = await world.sql.fetchrow("SELECT email FROM public.users WHERE id = $1", UUID(session.user.id))
    assert row is not None
    assert row["email"] == new
    await world.sign_in(new)
    with pytest.raises(Unauthenticated):
        await world.sign_in(old)


async def test_a_taken_address_is_told_to_its_owner_only(world: World) -> None:
    owner, session = await world.user(), await world.user()
    request = auth_pb2.UpdateUserRequest(email=owner.user.email)
    await world.rpc.UpdateUser(request, metadata=bearer(session))
    notice = await world.mailbox.wait(owner.user.email, 2)
    assert "has an account already" in notice["Subject"]


async def test_an_old_sign_in_needs_proof_to_change_the_password(world: World) -> None:
    session = await world.aged(await world.user(), 2 * 86_400)
    email = session.user.email

    async def change(password: str, **proof: str) -> None:
        request = auth_pb2.UpdateUserRequest(password=password, **proof)  # type: ignore[arg-type]  # two strings
        await world.rpc.UpdateUser(request, metadata=bearer(session))

    for proof in ({}, {"nonce": "000000"}):
        with pytest.raises(SigngateError) as refused_:
            await change("a second fine password", **proof)
        assert refused_.value.reason == "REAUTHENTICATION_NEEDED"
    await world.rpc.Reauthenticate(auth_pb2.ReauthenticateRequest(), metadata=bearer(session))
    nonce = await world.mailbox.code(email, 2)
    await change("a second fine password", nonce=nonce)
    with pytest.raises(SigngateError):
        await change("a third fine password", nonce=nonce)
    with pytest.raises(Unauthenticated):
        await change("a third fine password", current_password="wrong")
    await change("a third fine password", current_password="a second fine password")
    with pytest.raises(SigngateError) as same:
        await change("a third fine password", current_password="a third fine password")
    assert same.value.reason == "SAME_PASSWORD"


async def test_an_account_is_deleted_by_its_owner_and_nothing_of_it_stays(world: World) -> None:
    session = await world.user()
    with pytest.raises(Unauthenticated):
        await world.rpc.DeleteUser(auth_pb2.DeleteUserRequest(password="wrong"), metadata=bearer(session))
    await world.rpc.DeleteUser(auth_pb2.DeleteUserRequest(password=PASSWORD), metadata=bearer(session))
    with pytest.raises(Unauthenticated):
        await world.rpc.GetUser(auth_pb2.GetUserRequest(), metadata=bearer(session))
    for table in ("auth.users", "public.users"):
        count = await world.sql.fetchval(f"SELECT count(*) FROM {table} WHERE id = $1", UUID(session.user.id))
        assert count == 0
    with pytest.raises(Unauthenticated):
        await world.sign_in(session.user.email)
