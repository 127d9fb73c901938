"""What an unproved party wrote of an account dies at the proof, unless the very code that was mailed for it
is the proof.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest

from servicekit.errors import FailedPrecondition, PermissionDenied, SigngateError, Unauthenticated
from servicekit.postgres import open_database
from servicekit.testing.postgres import Database
from services.auth.store import Store
from signgate.auth.v1 import admin_pb2, auth_pb2, user_pb2
from tests.integration.auth.pkce import OWNER, THIEF, press
from tests.integration.auth.world import PASSWORD, World, bearer, struct, text_of

VICTIM, STRANGER = "the victim's own words", "the stranger's own words"
EVIL = {"name": "evil"}
Prove = Callable[[World, str], Awaitable[user_pb2.Session]]


async def refused(world: World, email: str, password: str) -> str:
    with pytest.raises(SigngateError) as failed:
        await world.sign_in(email, password)
    return failed.value.reason


async def newest(world: World, email: str) -> int:
    """How many mails there are, once the last has come."""
    return len(world.mailbox.to(email))


async def by_signup_digits(world: World, email: str) -> user_pb2.Session:
    return await world.verify(email, await world.mailbox.code(email, await newest(world, email)))


async def by_signup_link(world: World, email: str) -> user_pb2.Session:
    link = await world.mailbox.link(email, await newest(world, email))
    request = auth_pb2.VerifyRequest(type=auth_pb2.OTP_TYPE_SIGNUP, token_hash=link["token"])
    return (await world.rpc.Verify(request)).session


async def by_email_type(world: World, email: str) -> user_pb2.Session:
    code = await world.mailbox.code(email, await newest(world, email))
    return await world.verify(email, code, auth_pb2.OTP_TYPE_EMAIL)


async def by_page(world: World, email: str) -> user_pb2.Session:
    led = await press(world, await world.mailbox.link(email, await newest(world, email)))
    mine = await world.rpc.GetUser(auth_pb2.GetUserRequest(), metadata=bearer(led["access_token"]))
    return user_pb2.Session(access_token=led["access_token"], user=mine.user)


async def by_resent_code(world: World, email: str) -> user_pb2.Session:
    n = await newest(world, email) + 1
    await world.rpc.Resend(auth_pb2.ResendRequest(type=auth_pb2.OTP_TYPE_SIGNUP, email=email))
    return await world.verify(email, await world.mailbox.code(email, n))


async def by_magic_link(world: World, email: str) -> user_pb2.Session:
    n = await newest(world, email) + 1
    await world.rpc.SendOtp(auth_pb2.SendOtpRequest(email=email))
    link = await world.mailbox.link(email, n)
    request = auth_pb2.VerifyRequest(type=auth_pb2.OTP_TYPE_MAGICLINK, token_hash=link["token"])
    return (await world.rpc.Verify(request)).session


async def by_email_code(world: World, email: str) -> user_pb2.Session:
    n = await newest(world, email) + 1
    await world.rpc.SendOtp(auth_pb2.SendOtpRequest(email=email))
    return await world.verify(email, await world.mailbox.code(email, n), auth_pb2.OTP_TYPE_EMAIL)


async def by_recovery(world: World, email: str) -> user_pb2.Session:
    n = await newest(world, email) + 1
    await world.rpc.Recover(auth_pb2.RecoverRequest(email=email))
    return await world.verify(email, await world.mailbox.code(email, n), auth_pb2.OTP_TYPE_RECOVERY)


async def by_invitation(world: World, email: str) -> user_pb2.Session:
    n = await newest(world, email) + 1
    request = admin_pb2.InviteUserRequest(email=email)
    await world.auth.admin.InviteUser(request, metadata=bearer(world.operator()))
    return await world.verify(email, await world.mailbox.code(email, n), auth_pb2.OTP_TYPE_INVITE)


def by_admin_link(kind: auth_pb2.OtpType.ValueType, **more: Any) -> Prove:
    async def prove(world: World, email: str) -> user_pb2.Session:
        request = admin_pb2.GenerateLinkRequest(type=kind, email=email, **more)
        made = await world.auth.admin.GenerateLink(request, metadata=bearer(world.operator()))
        verify = auth_pb2.VerifyRequest(type=kind, token_hash=made.hashed_token)
        return (await world.rpc.Verify(verify)).session

    return prove


async def by_an_operators_word(world: World, email: str) -> user_pb2.Session:
    operator = bearer(world.operator())
    user = (
        await world.auth.admin.LookupUser(admin_pb2.LookupUserRequest(email=email), metadata=operator)
    ).user
    request = admin_pb2.ModifyUserRequest(id=user.id, email_confirm=True)
    return user_pb2.Session(user=(await world.auth.admin.ModifyUser(request, metadata=operator)).user)


THE_VERY_CODE: list[Prove] = [by_signup_digits, by_signup_link, by_email_type, by_page, by_resent_code]
OTHER_PROOFS: dict[str, Prove] = {
    "magic link": by_magic_link,
    "email code": by_email_code,
    "recovery": by_recovery,
    "invitation": by_invitation,
    "admin magic link": by_admin_link(auth_pb2.OTP_TYPE_MAGICLINK),
    "admin recovery": by_admin_link(auth_pb2.OTP_TYPE_RECOVERY),
    "admin invitation": by_admin_link(auth_pb2.OTP_TYPE_INVITE),
    "admin sign-up": by_admin_link(auth_pb2.OTP_TYPE_SIGNUP, password="what the operator says"),
    "operator's word": by_an_operators_word,
}


@pytest.mark.parametrize("prove", THE_VERY_CODE)
async def test_the_very_code_of_a_sign_up_applies_it(world: World, prove: Prove) -> None:
    email = world.address()
    shown = await world.sign_up(email, VICTIM, data=struct(name="Ann"))
    assert shown.user.user_metadata["name"] == "Ann"
    assert await refused(world, email, VICTIM) == "EMAIL_NOT_CONFIRMED"
    assert await refused(world, email, STRANGER) == "INVALID_CREDENTIALS"
    await world.mailbox.wait(email)
    session = await prove(world, email)
    assert session.user.HasField("email_confirmed_at")
    assert dict(session.user.user_metadata) == {"name": "Ann"}
    assert (await world.sign_in(email, VICTIM)).user.id == shown.user.id


async def test_before_the_proof_nothing_of_a_sign_up_stands_in_the_account(world: World) -> None:
    email = world.address()
    user = (await world.sign_up(email, STRANGER, data=struct(**EVIL))).user
    row = await world.sql.fetchrow("SELECT * FROM auth.users WHERE id = $1", UUID(user.id))
    assert row is not None
    assert row["encrypted_password"] is None
    assert row["raw_user_meta_data"] == "{}"


@pytest.mark.parametrize("how", OTHER_PROOFS)
async def test_any_other_proof_ends_a_stranger_s_sign_up(world: World, how: str) -> None:
    """S8, S9: the stranger signs up; the address's owner comes in another way."""
    email = world.address()
    await world.sign_up(email, STRANGER, data=struct(**EVIL))
    code = await world.mailbox.code(email)
    session = await OTHER_PROOFS[how](world, email)
    assert session.user.HasField("email_confirmed_at")
    assert dict(session.user.user_metadata) == {}
    assert await refused(world, email, STRANGER) == "INVALID_CREDENTIALS"
    with pytest.raises(PermissionDenied):
        await world.verify(email, code)
    row = await world.sql.fetchval(
        "SELECT count(*) FROM auth.one_time_tokens WHERE user_id = $1 AND pending_of IS NOT NULL",
        UUID(session.user.id),
    )
    assert row == 0


@pytest.mark.parametrize("prove", THE_VERY_CODE)
@pytest.mark.parametrize("order", [(STRANGER, VICTIM), (VICTIM, STRANGER), (VICTIM, STRANGER, VICTIM)])
async def test_of_several_sign_ups_none_sets_a_password(
    world: World, prove: Prove, order: tuple[str, ...]
) -> None:
    """S8 in either order: the code in the mailbox does not tell whose sign-up its reader wants."""
    email = world.address()
    for n, password in enumerate(order, 1):
        await world.sign_up(email, password, data=struct(of=password))
        letter = await world.mailbox.wait(email, n)
        assert ("sets none of these passwords" in text_of(letter)) is (n > 1)
    assert await refused(world, email, order[-1]) == "EMAIL_NOT_CONFIRMED"
    session = await prove(world, email)
    assert session.access_token
    assert dict(session.user.user_metadata) == {}
    for password in (VICTIM, STRANGER):
        assert await refused(world, email, password) == "INVALID_CREDENTIALS"
    # The owner, who has the mailbox, chooses one now.
    request = auth_pb2.UpdateUserRequest(password="a password of the owner's")
    await world.rpc.UpdateUser(request, metadata=bearer(session))
    await world.sign_in(email, "a password of the owner's")


async def test_a_contest_outlives_the_codes_and_ends_with_the_proof(world: World, database: Database) -> None:
    """S8: the stranger waits until the owner's code has ended and was swept."""
    email = world.address()
    user = (await world.sign_up(email, VICTIM, pkce=OWNER.pkce)).user
    await world.mailbox.wait(email)
    for table in ("one_time_tokens", "flow_state"):
        await world.sql.execute(
            f"UPDATE auth.{table} SET expires_at = now() - interval '40 days' WHERE user_id = $1",
            UUID(user.id),
        )
    async with open_database(database.dsn("signgate_auth"), name="test") as pool:
        await Store(pool).sweep()
    assert await refused(world, email, VICTIM) == "EMAIL_NOT_CONFIRMED"
    await world.sign_up(email, STRANGER)
    await world.verify(email, await world.mailbox.code(email, 2))
    assert await refused(world, email, STRANGER) == "INVALID_CREDENTIALS"


async def test_the_same_password_again_is_no_contest(world: World) -> None:
    email = world.address()
    for n in (1, 2, 3):
        await world.sign_up(email, VICTIM, data=struct(n=n))
    letter = await world.mailbox.wait(email, 3)
    assert "sets none" not in text_of(letter)
    session = await by_signup_digits(world, email)
    assert dict(session.user.user_metadata) == {"n": 3}
    await world.sign_in(email, VICTIM)


async def test_a_form_that_is_sent_twice_at_once_is_no_contest(world: World) -> None:
    email = world.address()
    await asyncio.gather(*(world.sign_up(email, VICTIM) for _ in range(2)))
    await world.mailbox.wait(email, 2)
    contested = await world.sql.fetchval("SELECT contested FROM auth.one_time_tokens WHERE email = $1", email)
    assert contested is False


async def test_two_parties_at_once_are_a_contest(world: World) -> None:
    email = world.address()
    await asyncio.gather(world.sign_up(email, VICTIM), world.sign_up(email, STRANGER))
    await world.mailbox.wait(email, 2)
    contested = await world.sql.fetchval("SELECT contested FROM auth.one_time_tokens WHERE email = $1", email)
    assert contested is True


async def test_of_several_sign_ups_the_client_that_redeems_its_own_keeps_it(world: World) -> None:
    """The exchange of a PKCE flow proves that who reads the mail is who signed up."""
    email = world.address()
    await world.sign_up(email, STRANGER, data=struct(**EVIL), pkce=THIEF.pkce)
    await world.sign_up(email, VICTIM, data=struct(name="Ann"), pkce=OWNER.pkce)
    led = await press(world, await world.mailbox.link(email, 2))
    assert await refused(world, email, VICTIM) == "INVALID_CREDENTIALS"  # confirmed, not yet exchanged
    with pytest.raises(PermissionDenied):
        await THIEF.exchange(world, led["code"])
    session = (await OWNER.exchange(world, led["code"])).session
    assert dict(session.user.user_metadata) == {"name": "Ann"}
    await world.sign_in(email, VICTIM)
    assert await refused(world, email, STRANGER) == "INVALID_CREDENTIALS"


async def test_a_stranger_s_flow_of_several_sets_nothing(world: World) -> None:
    email = world.address()
    await world.sign_up(email, VICTIM, pkce=OWNER.pkce)
    await world.sign_up(email, STRANGER, pkce=THIEF.pkce)
    led = await press(world, await world.mailbox.link(email, 2))
    with pytest.raises(PermissionDenied) as failed:
        await OWNER.exchange(world, led["code"])
    assert failed.value.reason == "BAD_CODE_VERIFIER"
    for password in (VICTIM, STRANGER):
        assert await refused(world, email, password) == "INVALID_CREDENTIALS"


async def test_a_flow_that_waits_sets_nothing_once_a_password_was_set(world: World) -> None:
    email = world.address()
    await world.sign_up(email, STRANGER, pkce=THIEF.pkce)
    await world.sign_up(email, VICTIM, pkce=OWNER.pkce)
    led = await press(world, await world.mailbox.link(email, 2))
    await world.rpc.Recover(auth_pb2.RecoverRequest(email=email))
    session = await world.verify(email, await world.mailbox.code(email, 3), auth_pb2.OTP_TYPE_RECOVERY)
    request = auth_pb2.UpdateUserRequest(password="chosen after recovery")
    await world.rpc.UpdateUser(request, metadata=bearer(session))
    with pytest.raises(PermissionDenied) as failed:
        await OWNER.exchange(world, led["code"])
    assert failed.value.reason == "FLOW_STATE_NOT_FOUND"
    await world.sign_in(email, "chosen after recovery")


async def test_a_flow_of_a_single_sign_up_applies_it(world: World) -> None:
    email = world.address()
    await world.sign_up(email, VICTIM, data=struct(name="Ann"), pkce=OWNER.pkce)
    led = await press(world, await world.mailbox.link(email))
    session = (await OWNER.exchange(world, led["code"])).session
    assert dict(session.user.user_metadata) == {"name": "Ann"}
    await world.sign_in(email, VICTIM)


# What an operator wrote


async def test_an_operator_s_password_survives_a_stranger_s_sign_up(world: World) -> None:
    email, operator = world.address(), bearer(world.operator())
    request = admin_pb2.CreateUserRequest(email=email, password=VICTIM, user_metadata=struct(name="Ann"))
    await world.auth.admin.CreateUser(request, metadata=operator)
    shown = (await world.sign_up(email, STRANGER, data=struct(name="evil", x=1))).user
    assert dict(shown.user_metadata) == {"name": "evil", "x": 1}
    assert await refused(world, email, VICTIM) == "EMAIL_NOT_CONFIRMED"
    session = await world.verify(email, await world.mailbox.code(email))
    assert dict(session.user.user_metadata) == {"name": "Ann"}
    await world.sign_in(email, VICTIM)
    assert await refused(world, email, STRANGER) == "INVALID_CREDENTIALS"


@pytest.mark.parametrize("how", ["magic link", "email code", "recovery"])
async def test_what_an_operator_wrote_survives_any_proof(world: World, how: str) -> None:
    email, operator = world.address(), bearer(world.operator())
    request = admin_pb2.GenerateLinkRequest(
        type=auth_pb2.OTP_TYPE_SIGNUP, email=email, password=VICTIM, data=struct(name="Ann")
    )
    await world.auth.admin.GenerateLink(request, metadata=operator)
    await world.sign_up(email, STRANGER, data=struct(**EVIL))
    await world.mailbox.wait(email)
    session = await OTHER_PROOFS[how](world, email)
    assert dict(session.user.user_metadata) == {"name": "Ann"}
    await world.sign_in(email, VICTIM)
    assert await refused(world, email, STRANGER) == "INVALID_CREDENTIALS"


async def test_who_signs_up_for_an_invited_address_gets_nothing_by_the_invitation(world: World) -> None:
    """S9, the other order: the invitation first."""
    email, operator = world.address(), bearer(world.operator())
    invite = admin_pb2.InviteUserRequest(email=email, data=struct(team="blue"))
    await world.auth.admin.InviteUser(invite, metadata=operator)
    shown = (await world.sign_up(email, STRANGER, data=struct(**EVIL))).user
    assert dict(shown.user_metadata) == EVIL
    assert not shown.HasField("invited_at")
    code = await world.mailbox.code(email, 1)
    session = await world.verify(email, code, auth_pb2.OTP_TYPE_INVITE)
    assert dict(session.user.user_metadata) == {"team": "blue"}
    assert await refused(world, email, STRANGER) == "INVALID_CREDENTIALS"


async def test_an_operator_s_new_password_ends_what_was_mailed_before(world: World) -> None:
    session = await world.user()
    email = session.user.email
    await world.rpc.Recover(auth_pb2.RecoverRequest(email=email))
    code = await world.mailbox.code(email, 2)
    request = admin_pb2.ModifyUserRequest(id=session.user.id, password="what the operator says")
    await world.auth.admin.ModifyUser(request, metadata=bearer(world.operator()))
    with pytest.raises(PermissionDenied):
        await world.verify(email, code, auth_pb2.OTP_TYPE_RECOVERY)


# Metadata of a sign-in by code for a new address


async def ask(world: World, email: str, n: int, **data: Any) -> str:
    await world.rpc.SendOtp(auth_pb2.SendOtpRequest(email=email, data=struct(**data)))
    return await world.mailbox.code(email, n)


async def test_metadata_of_a_first_sign_in_comes_with_its_very_code(world: World) -> None:
    email = world.address()
    await ask(world, email, 1, name="Ann")
    code = await ask(world, email, 2, name="Ann")  # the form's button pressed again
    session = await world.verify(email, code, auth_pb2.OTP_TYPE_EMAIL)
    assert dict(session.user.user_metadata) == {"name": "Ann"}


@pytest.mark.parametrize("second", [{"name": "Ann"}, {}])
async def test_metadata_of_two_parties_is_dropped(world: World, second: dict[str, str]) -> None:
    email = world.address()
    await ask(world, email, 1, **EVIL)
    session = await world.verify(email, await ask(world, email, 2, **second), auth_pb2.OTP_TYPE_EMAIL)
    assert dict(session.user.user_metadata) == {}


async def test_metadata_of_a_first_sign_in_yields_to_a_sign_up(world: World) -> None:
    email = world.address()
    code = await ask(world, email, 1, **EVIL)
    await world.sign_up(email, VICTIM, data=struct(name="Ann"))
    await world.mailbox.wait(email, 2)
    session = await world.verify(email, code, auth_pb2.OTP_TYPE_EMAIL)
    assert dict(session.user.user_metadata) == {}
    other = world.address()
    await ask(world, other, 1, **EVIL)
    await world.sign_up(other, VICTIM, data=struct(name="Ann"))
    session = await world.verify(other, await world.mailbox.code(other, 2))
    assert dict(session.user.user_metadata) == {"name": "Ann"}


async def test_metadata_never_reaches_an_account_that_is_there(world: World) -> None:
    session = await world.user()
    email = session.user.email
    session = await world.verify(email, await ask(world, email, 2, **EVIL), auth_pb2.OTP_TYPE_EMAIL)
    assert dict(session.user.user_metadata) == {}


# Beside the version before, which writes a sign-up into the account


async def before(world: World, password: str) -> str:
    """An address that somebody signed up for with the version before."""
    email = world.address()
    await world.sign_up(email, password, data=struct(of=password))
    await world.mailbox.wait(email)
    await world.sql.execute(
        "UPDATE auth.users u SET encrypted_password = t.pending_password,"
        " raw_user_meta_data = t.pending_metadata, password_changed_at = u.confirmation_sent_at"
        " FROM auth.one_time_tokens t WHERE u.email = $1 AND t.user_id = u.id",
        email,
    )
    await world.sql.execute(
        "UPDATE auth.one_time_tokens SET pending_of = NULL, pending_password = NULL, pending_metadata = NULL"
        " WHERE email = $1",
        email,
    )
    return email


async def test_a_sign_up_of_the_version_before_counts_by_its_code_alone(world: World) -> None:
    email = await before(world, VICTIM)
    assert await refused(world, email, VICTIM) == "EMAIL_NOT_CONFIRMED"
    session = await world.verify(email, await world.mailbox.code(email))
    assert dict(session.user.user_metadata) == {"of": VICTIM}
    await world.sign_in(email, VICTIM)


@pytest.mark.parametrize("how", OTHER_PROOFS)
async def test_any_other_proof_ends_a_sign_up_of_the_version_before(world: World, how: str) -> None:
    email = await before(world, STRANGER)
    session = await OTHER_PROOFS[how](world, email)
    assert dict(session.user.user_metadata) == {}
    assert await refused(world, email, STRANGER) == "INVALID_CREDENTIALS"


async def test_a_sign_up_of_the_version_before_is_contested_by_another(world: World) -> None:
    email = await before(world, STRANGER)
    await world.sign_up(email, VICTIM)
    session = await world.verify(email, await world.mailbox.code(email, 2))
    assert dict(session.user.user_metadata) == {}
    for password in (VICTIM, STRANGER):
        assert await refused(world, email, password) == "INVALID_CREDENTIALS"


async def test_a_code_that_the_version_before_replaced_sets_nothing(world: World) -> None:
    """It leaves what was pending with the code before, which may be another party's."""
    email = world.address()
    await world.sign_up(email, STRANGER)
    code = await world.mailbox.code(email)
    await world.sql.execute("UPDATE auth.one_time_tokens SET id = gen_random_uuid() WHERE email = $1", email)
    await world.verify(email, code)
    assert await refused(world, email, STRANGER) == "INVALID_CREDENTIALS"


@pytest.mark.parametrize("way", ["link", "flow"])
async def test_a_sign_up_counts_no_more_once_the_version_before_has_confirmed(world: World, way: str) -> None:
    """It passes over what is pending, when somebody else's proof comes there."""
    email = world.address()
    await world.sign_up(email, STRANGER, pkce=THIEF.pkce if way == "flow" else None)
    await world.mailbox.wait(email)
    await world.sql.execute("UPDATE auth.users SET email_confirmed_at = now() WHERE email = $1", email)
    if way == "link":
        await by_signup_link(world, email)
    else:
        led = await press(world, await world.mailbox.link(email))
        await THIEF.exchange(world, led["code"])
    assert await refused(world, email, STRANGER) == "INVALID_CREDENTIALS"


# Accounts that may not act


@pytest.mark.parametrize("kind", ["signup", "magiclink", "recovery"])
async def test_a_banned_account_s_codes_open_and_change_nothing(world: World, kind: str) -> None:
    email, types = world.address(), dict(auth_pb2.OtpType.items())
    user = (await world.sign_up(email, VICTIM)).user
    if kind == "magiclink":
        await world.rpc.SendOtp(auth_pb2.SendOtpRequest(email=email))
    elif kind == "recovery":
        await world.rpc.Recover(auth_pb2.RecoverRequest(email=email))
    n = 1 if kind == "signup" else 2
    link, code = await world.mailbox.link(email, n), await world.mailbox.code(email, n)
    ban = admin_pb2.ModifyUserRequest(id=user.id, ban_duration="24h")
    await world.auth.admin.ModifyUser(ban, metadata=bearer(world.operator()))
    number: Any = types[f"OTP_TYPE_{kind.upper()}"]
    with pytest.raises(PermissionDenied):
        await world.verify(email, code, number)
    assert "error" in await press(world, link)
    confirmed = await world.sql.fetchval(
        "SELECT email_confirmed_at FROM auth.users WHERE id = $1", UUID(user.id)
    )
    assert confirmed is None


async def test_where_accounts_confirm_themselves_a_sign_up_signs_in(world: World) -> None:
    async with world.replica(auto_confirm=True) as auth:
        request = auth_pb2.SignUpRequest(email=world.address(), password=VICTIM, data=struct(name="Ann"))
        made = await auth.accounts.SignUp(request)
        assert made.session.access_token
        assert dict(made.user.user_metadata) == {"name": "Ann"}
        await world.sign_in(request.email, VICTIM)
        with pytest.raises(SigngateError) as known:
            await auth.accounts.SignUp(request)
        assert known.value.reason == "USER_ALREADY_EXISTS"


async def test_an_unconfirmed_account_and_an_unknown_address_are_refused_alike(world: World) -> None:
    email = world.address()
    await world.sign_up(email, VICTIM)
    with pytest.raises(Unauthenticated):
        await world.sign_in(email, STRANGER)
    with pytest.raises(Unauthenticated):
        await world.sign_in(world.address(), STRANGER)
    with pytest.raises(FailedPrecondition):
        await world.sign_in(email, VICTIM)


async def test_an_account_that_was_signed_in_to_is_no_sign_up_once_it_is_to_be_confirmed_again(
    world: World,
) -> None:
    """Its password is its owner's, though it was given when a confirmation was asked for."""
    email, admin = world.address(), bearer(world.operator())
    async with world.replica(auto_confirm=True) as open_to_all:
        request = auth_pb2.SignUpRequest(email=email, password=PASSWORD, data=struct(name="Ann"))
        user = (await open_to_all.accounts.SignUp(request)).user
        for confirmed in (False, True):
            change = admin_pb2.ModifyUserRequest(id=user.id, email_confirm=confirmed)
            user = (await open_to_all.admin.ModifyUser(change, metadata=admin)).user
    assert dict(user.user_metadata) == {"name": "Ann"}
    assert (await world.sign_in(email)).access_token
