"""One fact says whether an account may act. Every credential is held to it, whatever changed it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import pytest

from servicekit.errors import FailedPrecondition, NotFound, SigngateError
from services.auth.domain import User
from signgate.auth.v1 import admin_pb2 as pb
from signgate.auth.v1 import auth_pb2, user_pb2
from tests.integration.auth.test_codes import CHALLENGE, VERIFIER
from tests.integration.auth.world import PASSWORD, World, bearer, claims

NEW = {"X-Supabase-Api-Version": "2024-01-01"}


@dataclass
class Credentials:
    """All that one account can come in by: made while it may act, used when it may not."""

    world: World
    session: user_pb2.Session
    code: str
    flow: str

    @property
    def email(self) -> str:
        return self.session.user.email

    @property
    def id(self) -> str:
        return self.session.user.id

    async def outcome(self, call: Awaitable[Any]) -> str:
        try:
            await call
        except SigngateError as error:
            return error.reason
        return "OK"

    async def tried(self) -> dict[str, str]:
        """What becomes of each. The one that confirms an unconfirmed account comes last."""
        world, request = self.world, auth_pb2.GetUserRequest()
        exchange = auth_pb2.ExchangeCodeRequest(auth_code=self.flow, code_verifier=VERIFIER)
        return {
            "access token": await self.outcome(world.rpc.GetUser(request, metadata=bearer(self.session))),
            "refresh token": await self.outcome(world.refresh(self.session.refresh_token)),
            "password": await self.outcome(world.sign_in(self.email)),
            "pkce": await self.outcome(world.rpc.ExchangeCode(exchange)),
            "code": await self.outcome(world.verify(self.email, self.code, auth_pb2.OTP_TYPE_MAGICLINK)),
        }


@pytest.fixture
async def mine(world: World) -> Credentials:
    session = await world.user()
    email = session.user.email
    pkce = auth_pb2.Pkce(code_challenge=CHALLENGE, code_challenge_method="s256")
    await world.rpc.SendOtp(auth_pb2.SendOtpRequest(email=email, pkce=pkce, redirect_to="http://app.test/in"))
    link = await world.mailbox.link(email, 2)
    form = {"token": link["token"], "type": "magiclink", "redirect_to": link["redirect_to"]}
    answer = await world.auth.http.post("/verify", data=form)
    (flow,) = parse_qs(urlsplit(answer.headers["location"]).query)["code"]
    await world.rpc.SendOtp(auth_pb2.SendOtpRequest(email=email))
    return Credentials(world, session, await world.mailbox.code(email, 3), flow)


def changes(**members: Any) -> Callable[[Credentials], Awaitable[Any]]:
    async def change(mine: Credentials) -> None:
        request = pb.ModifyUserRequest(id=mine.id, **members)
        await mine.world.auth.admin.ModifyUser(request, metadata=bearer(mine.world.operator()))

    return change


def by_hand(sql: str) -> Callable[[Credentials], Awaitable[Any]]:
    async def change(mine: Credentials) -> None:
        await mine.world.sql.execute(sql, UUID(mine.id))

    return change


async def soft_delete(mine: Credentials) -> None:
    request = pb.RemoveUserRequest(id=mine.id, soft_delete=True)
    await mine.world.auth.admin.RemoveUser(request, metadata=bearer(mine.world.operator()))


BANNED = {
    "access token": "SESSION_REVOKED",
    "refresh token": "SESSION_EXPIRED",
    "password": "USER_BANNED",
    "pkce": "USER_BANNED",
    "code": "USER_BANNED",
}
UNCONFIRMED = {**BANNED, "password": "EMAIL_NOT_CONFIRMED", "pkce": "EMAIL_NOT_CONFIRMED", "code": "OK"}
ENDED = {"pkce": "FLOW_STATE_NOT_FOUND", "code": "OTP_EXPIRED"}
"""An operator who shuts an account out ends what was mailed for it, too."""
DELETED = {
    "access token": "SESSION_REVOKED",
    "refresh token": "REFRESH_TOKEN_NOT_FOUND",
    "password": "INVALID_CREDENTIALS",
    "pkce": "FLOW_STATE_NOT_FOUND",
    "code": "OTP_EXPIRED",
}


async def test_every_credential_works_while_the_account_may_act(mine: Credentials) -> None:
    """Or the next test would prove nothing."""
    assert set((await mine.tried()).values()) == {"OK"}


@pytest.mark.parametrize(
    ("change", "state", "expected"),
    [
        (changes(ban_duration="24h"), "BANNED", {**BANNED, **ENDED}),
        (changes(is_active=False), "DEACTIVATED", {**BANNED, **ENDED}),
        (changes(email_confirm=False), "UNCONFIRMED", {**UNCONFIRMED, **ENDED}),
        (soft_delete, "DELETED", DELETED),
    ],
    ids=["ban", "deactivation", "unconfirming", "soft deletion"],
)
async def test_no_credential_works_once_the_account_may_not_act(
    mine: Credentials, change: Callable[[Credentials], Awaitable[Any]], state: str, expected: dict[str, str]
) -> None:
    """S12."""
    await change(mine)
    request = pb.LookupUserRequest(id=mine.id)
    found = await mine.world.auth.admin.LookupUser(request, metadata=bearer(mine.world.operator()))
    assert user_pb2.UserState.Name(found.user.state) == f"USER_STATE_{state}"
    assert await mine.tried() == expected


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("UPDATE auth.users SET banned_until = now() + interval '1 hour' WHERE id = $1", BANNED),
        ("UPDATE public.users SET banned_until = now() + interval '1 hour' WHERE id = $1", BANNED),
        ("UPDATE public.users SET is_active = false WHERE id = $1", BANNED),
        ("UPDATE auth.users SET email_confirmed_at = NULL WHERE id = $1", UNCONFIRMED),
    ],
)
async def test_a_change_by_hand_ends_sessions_too(
    mine: Credentials, sql: str, expected: dict[str, str]
) -> None:
    """S12. The access token is refused here at once, and everywhere as soon as the deny-set is told."""
    world, request = mine.world, auth_pb2.GetUserRequest()
    await by_hand(sql)(mine)
    assert await mine.outcome(world.rpc.GetUser(request, metadata=bearer(mine.session))) != "OK"
    await until_denied(mine)
    assert await mine.tried() == expected


async def until_denied(mine: Credentials) -> None:
    async with asyncio.timeout(20):
        while not await mine.world.redis.exists(f"session:denied:{claims(mine.session)['session_id']}"):
            await asyncio.sleep(0.05)


async def test_a_session_that_redis_was_not_told_of_is_denied_later(mine: Credentials) -> None:
    """As after a crash between the commit and the deny-set: the table is enough."""
    world = mine.world
    await world.sql.execute("UPDATE auth.sessions SET revoked_at = now() WHERE user_id = $1", UUID(mine.id))
    await until_denied(mine)
    request = auth_pb2.GetUserRequest()
    assert await mine.outcome(world.rpc.GetUser(request, metadata=bearer(mine.session))) == "SESSION_REVOKED"


async def test_the_end_of_a_ban_brings_back_the_password_and_no_session(mine: Credentials) -> None:
    """By time, without any event; and by an operator."""
    await changes(ban_duration="1h")(mine)
    with pytest.raises(SigngateError) as banned:
        await mine.world.sign_in(mine.email)
    assert banned.value.metadata["banned_until"] in banned.value.message
    # An hour later, as far as a comparison with the clock can tell.
    await mine.world.sql.execute(
        "UPDATE auth.users SET banned_until = now() - interval '1 second' WHERE id = $1", UUID(mine.id)
    )
    expected = {"access token": "SESSION_REVOKED", "refresh token": "SESSION_EXPIRED", **ENDED}
    assert await mine.tried() == {**dict.fromkeys(BANNED, "OK"), **expected}
    await changes(ban_duration="24h")(mine)
    await changes(ban_duration="none")(mine)
    await mine.world.sign_in(mine.email)


async def test_only_who_proves_a_secret_learns_of_a_ban(mine: Credentials) -> None:
    await changes(ban_duration="24h")(mine)
    assert await mine.outcome(mine.world.sign_in(mine.email, "another password")) == "INVALID_CREDENTIALS"
    assert await mine.outcome(mine.world.sign_in(mine.world.address())) == "INVALID_CREDENTIALS"


async def test_a_banned_account_s_pending_codes_change_nothing(mine: Credentials) -> None:
    """Not its address either: half an e-mail change used to be taken from a banned account."""
    world, new = mine.world, mine.world.address()
    request = auth_pb2.UpdateUserRequest(email=new)
    await world.rpc.UpdateUser(request, metadata=bearer(mine.session))
    code = await world.mailbox.code(new)
    await by_hand("UPDATE auth.users SET banned_until = now() + interval '1 hour' WHERE id = $1")(mine)
    assert await mine.outcome(world.verify(new, code, auth_pb2.OTP_TYPE_EMAIL_CHANGE)) == "USER_BANNED"
    status = "SELECT email_change_confirm_status FROM auth.users WHERE id = $1"
    assert await world.sql.fetchval(status, UUID(mine.id)) == 0


async def test_the_rule_here_is_the_rule_of_the_database(world: World) -> None:
    """Over all combinations: two languages, one answer."""
    now = datetime.now(UTC)
    moments = (None, now - timedelta(days=1), now + timedelta(days=1))
    for active, banned, confirmed, deleted in product((True, False), moments, (True, False), moments[:2]):
        said = await world.sql.fetchval(
            "SELECT public.account_state(jsonb_populate_record(NULL::public.users, jsonb_build_object("
            "'is_active', $1::boolean, 'banned_until', $2::timestamptz, 'confirmed', $3::boolean,"
            " 'deleted_at', $4::timestamptz)))",
            active,
            banned,
            confirmed,
            deleted,
        )
        user = User(
            id=UUID(int=1),
            email="ann@example.com",
            created_at=now,
            updated_at=now,
            is_active=active,
            banned_until=banned,
            email_confirmed_at=now if confirmed else None,
            deleted_at=deleted,
        )
        assert user.state(now) == said
        assert user.may_act(now) is (said == "active")


async def test_every_admin_answer_shows_the_same_state(world: World) -> None:
    """Create, look up by id and address, list, filter, modify, invite and link; over both faces."""
    operator = bearer(world.operator())
    headers = {**NEW, **dict(operator)}
    http, admin = world.auth.http, world.auth.admin
    email = world.address()
    request = pb.CreateUserRequest(email=email, password=PASSWORD, email_confirm=True, ban_duration="24h")
    made = (await admin.CreateUser(request, metadata=operator)).user
    seen = {
        "create": made.state,
        "id": (await admin.LookupUser(pb.LookupUserRequest(id=made.id), metadata=operator)).user.state,
        "email": (await admin.LookupUser(pb.LookupUserRequest(email=email), metadata=operator)).user.state,
        "modify": (await admin.ModifyUser(pb.ModifyUserRequest(id=made.id), metadata=operator)).user.state,
        "list": (
            await admin.ListUsers(pb.ListUsersRequest(filter=email), metadata=operator)
        ).users[0].state,
        "link": (
            await admin.GenerateLink(
                pb.GenerateLinkRequest(type=auth_pb2.OTP_TYPE_RECOVERY, email=email), metadata=operator
            )
        ).user.state,
    }  # fmt: skip
    assert set(seen.values()) == {user_pb2.USER_STATE_BANNED}, seen
    link = {"type": "recovery", "email": email}
    shown = {
        "id": (await http.get(f"/admin/users/{made.id}", headers=headers)).json(),
        "list": (await http.get("/admin/users", params={"filter": email}, headers=headers)).json()["users"][
            0
        ],
        "email": (await http.get("/admin/users", params={"email": email}, headers=headers)).json()["users"][
            0
        ],
        "modify": (await http.put(f"/admin/users/{made.id}", json={}, headers=headers)).json(),
        "link": (await http.post("/admin/generate_link", json=link, headers=headers)).json(),
    }
    assert {name: each["state"] for name, each in shown.items()} == dict.fromkeys(shown, "banned")
    fresh = {"email": world.address()}
    for path in ("/invite", "/admin/users"):
        answer = (await http.post(path, json={**fresh, "email": world.address()}, headers=headers)).json()
        assert answer["state"] == "unconfirmed"
    for state, there in (("banned", True), ("active", False), ("deleted", False), ("", True)):
        query = {"filter": email, "state": state}
        found = (await http.get("/admin/users", params=query, headers=headers)).json()["users"]
        assert [user["id"] for user in found] == ([made.id] if there else [])
    wrong = await http.get("/admin/users", params={"state": "asleep"}, headers=headers)
    assert (wrong.status_code, wrong.json()["code"]) == (400, "validation_failed")


async def test_a_soft_deletion_keeps_the_id_and_frees_the_address(mine: Credentials) -> None:
    """S31. By the member that Supabase's clients send."""
    world, admin, operator = mine.world, mine.world.auth.admin, bearer(mine.world.operator())
    answer = await world.auth.http.request(
        "DELETE", f"/admin/users/{mine.id}", json={"should_soft_delete": True}, headers=dict(operator)
    )
    assert (answer.status_code, answer.json()) == (200, {})

    found = (await admin.LookupUser(pb.LookupUserRequest(id=mine.id), metadata=operator)).user
    assert found.HasField("deleted_at")
    assert found.email.endswith("@users.invalid")
    assert mine.email not in str(found)
    assert not found.identities
    with pytest.raises(NotFound):
        await admin.LookupUser(pb.LookupUserRequest(email=mine.email), metadata=operator)
    listed = await admin.ListUsers(pb.ListUsersRequest(filter=mine.email), metadata=operator)
    assert listed.total == 0
    deleted = pb.ListUsersRequest(state=user_pb2.USER_STATE_DELETED, per_page=1000)
    assert mine.id in [user.id for user in (await admin.ListUsers(deleted, metadata=operator)).users]

    # Nothing brings it back; the address can be used again; and it can be deleted once more, or for good.
    for change in ({"ban_duration": "none"}, {"email_confirm": True}, {"password": PASSWORD}):
        with pytest.raises(FailedPrecondition) as refused:
            request = pb.ModifyUserRequest(id=mine.id, **change)
            await admin.ModifyUser(request, metadata=operator)
        assert refused.value.reason == "USER_DELETED"
    successor = await world.user(mine.email)
    assert successor.user.id != mine.id
    await soft_delete(mine)
    await admin.RemoveUser(pb.RemoveUserRequest(id=mine.id), metadata=operator)
    with pytest.raises(NotFound):
        await admin.LookupUser(pb.LookupUserRequest(id=mine.id), metadata=operator)
    await world.rpc.GetUser(auth_pb2.GetUserRequest(), metadata=bearer(successor))
    actions = await world.sql.fetch(
        "SELECT action FROM auth.audit_log WHERE user_id = $1 AND actor_kind = 'service_role'"
        " ORDER BY created_at",
        UUID(mine.id),
    )
    assert [row["action"] for row in actions] == ["admin_soft_deleted", "admin_removed"]


async def test_without_redis_nothing_is_deleted_by_half(world: World) -> None:
    """The sessions' ids go with the account, so they are denied first: the call can be repeated."""
    session = await world.user()
    async with world.replica() as auth:
        await world.redis.acl_setuser("signgate_auth", enabled=True, commands=["-set"])
        try:
            for soft in (True, False):
                with pytest.raises(SigngateError):
                    request = pb.RemoveUserRequest(id=session.user.id, soft_delete=soft)
                    await auth.admin.RemoveUser(request, metadata=bearer(world.operator()))
            with pytest.raises(SigngateError):
                own = auth_pb2.DeleteUserRequest(password=PASSWORD)
                await auth.accounts.DeleteUser(own, metadata=bearer(session))
        finally:
            await world.redis.acl_setuser("signgate_auth", enabled=True, commands=["+set"])
        found = await auth.admin.LookupUser(
            pb.LookupUserRequest(id=session.user.id), metadata=bearer(world.operator())
        )
    assert found.user.state == user_pb2.USER_STATE_ACTIVE
