"""From sign-up to sign-out, over gRPC, with a mail that really arrives."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import jwt
import pytest

from servicekit.errors import (
    FailedPrecondition,
    InvalidArgument,
    PermissionDenied,
    Unauthenticated,
)
from signgate.auth.v1 import auth_pb2
from tests.integration.auth.pkce import OWNER
from tests.integration.auth.world import PASSWORD, World, bearer, claims, struct, text_of


async def test_a_new_user_confirms_by_mail_signs_in_refreshes_and_signs_out(world: World) -> None:
    email = world.address()
    done = await world.sign_up(email, data={"name": "Ann"})
    assert done.user.email == email
    assert not done.HasField("session")
    assert not done.user.HasField("email_confirmed_at")

    with pytest.raises(FailedPrecondition) as refused:
        await world.sign_in(email)
    assert refused.value.reason == "EMAIL_NOT_CONFIRMED"

    first = await world.verify(email, await world.mailbox.code(email))
    assert first.user.HasField("email_confirmed_at")
    assert first.user.id == done.user.id

    session = await world.sign_in(email)
    row = await world.sql.fetchrow("SELECT * FROM public.users WHERE id = $1", UUID(session.user.id))
    assert row is not None
    assert row["email"] == email
    assert row["last_login"] is not None
    assert session.user.last_login.ToDatetime() == row["last_login"].replace(tzinfo=None)

    mine = await world.rpc.GetUser(auth_pb2.GetUserRequest(), metadata=bearer(session))
    assert mine.user.user_metadata["name"] == "Ann"
    assert mine.user.tier == "free"

    fresh = await world.refresh(session.refresh_token)
    assert fresh.refresh_token != session.refresh_token
    assert claims(fresh)["session_id"] == claims(session)["session_id"]

    await world.rpc.SignOut(auth_pb2.SignOutRequest(), metadata=bearer(fresh))
    with pytest.raises(Unauthenticated) as signed_out:
        await world.rpc.GetUser(auth_pb2.GetUserRequest(), metadata=bearer(fresh))
    assert signed_out.value.reason == "SESSION_REVOKED"
    with pytest.raises(Unauthenticated) as ended:
        await world.refresh(fresh.refresh_token)
    assert ended.value.reason == "SESSION_EXPIRED"


async def test_the_token_is_proved_by_the_published_keys_over_grpc_and_http(world: World) -> None:
    session = await world.user()
    by_grpc = json.loads((await world.rpc.GetJwks(auth_pb2.GetJwksRequest())).jwks_json)
    answer = await world.auth.http.get("/.well-known/jwks.json")
    assert answer.headers["cache-control"] == "public, max-age=600"
    assert answer.json() == by_grpc
    key = jwt.PyJWKSet.from_dict(by_grpc)[jwt.get_unverified_header(session.access_token)["kid"]]
    proved = jwt.decode(
        session.access_token,
        key,
        algorithms=["ES256"],
        audience="authenticated",
        issuer="http://signgate.test/auth/v1",
    )
    assert proved["sub"] == session.user.id
    assert proved["role"] == "authenticated"
    assert proved["app_metadata"] == {"provider": "email", "providers": ["email"], "tier": "free"}
    assert proved["exp"] == session.expires_at.seconds == proved["iat"] + 3600
    assert proved["amr"][0]["method"] == "otp"
    assert not any("d" in key for key in by_grpc["keys"])


async def test_the_mail_carries_a_code_and_a_link_in_text_and_html(world: World) -> None:
    email = world.address()
    await world.sign_up(email)
    message = await world.mailbox.wait(email)
    code, link = await world.mailbox.code(email), await world.mailbox.link(email)
    assert message["To"] == email
    assert message["Subject"] == "Confirm your address for Signgate"
    assert link["type"] == "signup"
    assert link["link"].startswith("http://signgate.test/auth/v1/verify?")
    html = message.get_body(("html",))
    assert html is not None
    assert code in html.get_content()
    assert link["link"].replace("&", "&amp;") in html.get_content()
    assert "ignore this mail" in text_of(message)


async def test_a_link_confirms_once(world: World) -> None:
    email = world.address()
    await world.sign_up(email)
    link = await world.mailbox.link(email)
    request = auth_pb2.VerifyRequest(type=auth_pb2.OTP_TYPE_SIGNUP, token_hash=link["token"])
    assert (await world.rpc.Verify(request)).session.user.email == email
    with pytest.raises(PermissionDenied) as used:
        await world.rpc.Verify(request)
    assert used.value.reason == "OTP_EXPIRED"


async def test_a_wrong_password_and_an_unknown_address_get_the_same_answer(world: World) -> None:
    session = await world.user()
    answers = []
    for email in (session.user.email, world.address()):
        with pytest.raises(Unauthenticated) as refused:
            await world.sign_in(email, "not the password")
        answers.append((refused.value.reason, refused.value.message, refused.value.metadata))
    assert answers[0] == answers[1]
    assert answers[0][0] == "INVALID_CREDENTIALS"


@pytest.mark.parametrize(
    ("password", "reason"),
    [("short", "length"), ("x" * 1025, "length"), ("iloveyou", "pwned"), ("Password123!", "pwned")],
)
async def test_a_weak_password_is_refused_with_the_reason(world: World, password: str, reason: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await world.sign_up(world.address(), password)
    assert refused.value.reason == "WEAK_PASSWORD"
    assert refused.value.metadata["reasons"] == reason


async def test_every_way_to_set_a_password_refuses_one_that_is_about_the_account(world: World) -> None:
    """On all of them the words are those of the address that the account has, or is to have."""
    session, operator = await world.user(), dict(bearer(world.operator()))
    local, new = world.address().partition("@")[0], "somebody.else@elsewhere.test"
    http, mine, user = world.auth.http, dict(bearer(session)), f"/admin/users/{session.user.id}"
    about, own = f"{local}-2026", f"{session.user.email.partition('@')[0]}-2026"
    email = f"{local}@example.com"
    tried = [
        await http.post("/signup", json={"email": email, "password": about}),
        await http.post("/admin/users", json={"email": email, "password": about}, headers=operator),
        await http.post(
            "/admin/generate_link",
            json={"type": "signup", "email": email, "password": about},
            headers=operator,
        ),
        await http.put(user, json={"password": own}, headers=operator),
        await http.put(user, json={"email": new, "password": "somebody-else-1"}, headers=operator),
        await http.put("/user", json={"password": own}, headers=mine),
        await http.put("/user", json={"email": new, "password": "somebody-else-1"}, headers=mine),
    ]
    for answer in tried:
        assert answer.status_code == 422, answer.text
        assert answer.json()["weak_password"]["reasons"] == ["context"]
    await world.sign_in(session.user.email)


@pytest.mark.parametrize(
    "bad",
    [{"email": "no address"}, {"data": {"x": "a" * 17_000}}, {"data": {"x": "\0"}}, {"nonce": "000000"}],
    ids=["address", "much data", "data that no table holds", "nonce"],
)
async def test_a_change_that_is_refused_for_one_member_changes_nothing(
    world: World, bad: dict[str, Any]
) -> None:
    session = await world.user()
    headers = dict(bearer(session))
    body = {"password": "another set of words", "data": {"colour": "red"}, "email": world.address(), **bad}
    answer = await world.auth.http.put("/user", json=body, headers=headers)
    assert answer.status_code == 400
    kept = (await world.auth.http.get("/user", headers=headers)).json()
    assert kept["user_metadata"] == {}
    assert not kept.get("new_email")
    await world.sign_in(session.user.email)


async def test_a_change_over_the_limit_of_mails_changes_nothing(world: World) -> None:
    session, new = await world.user(), world.address()
    for _ in range(6):
        await world.rpc.SendOtp(auth_pb2.SendOtpRequest(email=new, create_user=False))
    body = {"password": "another set of words", "email": new}
    answer = await world.auth.http.put("/user", json=body, headers=dict(bearer(session)))
    assert answer.status_code == 429
    await world.sign_in(session.user.email)


async def test_a_text_that_no_table_can_hold_is_no_server_error(world: World) -> None:
    """A place to lead to is compared before it is kept, in a PKCE flow as well."""
    redirect = "http://app.test/\0"
    new, owner = (
        await world.sign_up(world.address(), redirect_to=redirect, pkce=OWNER.pkce),
        await world.user(),
    )
    request = auth_pb2.UpdateUserRequest(email=world.address(), redirect_to=redirect, pkce=OWNER.pkce)
    await world.rpc.UpdateUser(request, metadata=bearer(owner))
    kept = await world.sql.fetch(
        "SELECT redirect_to FROM auth.flow_state WHERE user_id = ANY($1::uuid[])",
        [new.user.id, owner.user.id],
    )
    assert [row["redirect_to"] for row in kept] == ["http://signgate.test"] * 2


async def test_a_second_sign_up_of_a_confirmed_address_looks_alike_and_changes_nothing(
    world: World,
) -> None:
    session = await world.user()
    email = session.user.email
    again = await world.sign_up(email, "another good password")
    assert again.user.id != session.user.id
    assert again.user.id == (await world.sign_up(email, "another good password")).user.id
    assert again.user.email == email
    assert not again.user.identities
    assert "You already have an account" in (await world.mailbox.wait(email, 2))["Subject"]
    assert (await world.sign_in(email, PASSWORD)).user.id == session.user.id


async def test_a_user_changes_their_own_metadata_and_nothing_else(world: World) -> None:
    session = await world.user()
    request = auth_pb2.UpdateUserRequest(data=struct(theme="dark", beta=True))
    await world.rpc.UpdateUser(request, metadata=bearer(session))
    request = auth_pb2.UpdateUserRequest(data=struct(beta=None, n=3))
    user = (await world.rpc.UpdateUser(request, metadata=bearer(session))).user
    assert dict(user.user_metadata) == {"theme": "dark", "n": 3}
    assert user.email == session.user.email


async def test_nothing_secret_reaches_the_tables(world: World) -> None:
    email = world.address()
    await world.sign_up(email)
    code, link = await world.mailbox.code(email), await world.mailbox.link(email)
    session = await world.verify(email, code)
    dump = json.dumps(
        [
            str(dict(row))
            for table in ("users", "one_time_tokens", "refresh_tokens", "sessions", "audit_log")
            for row in await world.sql.fetch(f"SELECT * FROM auth.{table}")
        ]
    )
    for secret in (PASSWORD, code, link["token"], session.refresh_token, session.access_token):
        assert secret not in dump
