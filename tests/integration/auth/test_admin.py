"""Administrators' RPCs, with a token that the operators' tool minted."""

from __future__ import annotations

from uuid import UUID

import pytest

from servicekit.errors import AlreadyExists, InvalidArgument, NotFound, PermissionDenied, Unauthenticated
from services.auth import admin as tool
from signgate.auth.v1 import admin_pb2 as pb
from signgate.auth.v1 import auth_pb2
from tests.integration.auth.world import PASSWORD, World, bearer, struct

Operator = tuple[tuple[str, str], ...]


@pytest.fixture
def operator(world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Operator:
    monkeypatch.setenv("SIGNGATE_JWT_KEYSET_FILE", str(world.auth.settings.jwt_keyset_file))
    monkeypatch.setenv("SIGNGATE_JWT_ISSUER", world.auth.settings.jwt_issuer)
    assert tool.main(["token", "--ttl", "60"]) == 0
    return bearer(capsys.readouterr().out.strip())


async def test_a_user_may_not_administrate(world: World) -> None:
    session = await world.user()
    with pytest.raises(PermissionDenied) as refused:
        await world.auth.admin.ListUsers(pb.ListUsersRequest(), metadata=bearer(session))
    assert refused.value.reason == "SERVICE_ROLE_REQUIRED"


async def test_an_account_is_made_found_changed_and_removed(world: World, operator: Operator) -> None:
    admin, email = world.auth.admin, world.address()
    request = pb.CreateUserRequest(email=email, password=PASSWORD, email_confirm=True)
    made = (await admin.CreateUser(request, metadata=operator)).user
    with pytest.raises(AlreadyExists) as taken:
        await admin.CreateUser(request, metadata=operator)
    assert taken.value.reason == "EMAIL_EXISTS"

    found = await admin.LookupUser(pb.LookupUserRequest(email=email.upper()), metadata=operator)
    assert found.user.id == made.id
    listed = await admin.ListUsers(pb.ListUsersRequest(filter=email, per_page=5), metadata=operator)
    assert [user.id for user in listed.users] == [made.id]
    assert listed.total == 1

    session = await world.sign_in(email)
    change = pb.ModifyUserRequest(id=made.id, tier="api_key", app_metadata=struct(team="blue"))
    changed = (await admin.ModifyUser(change, metadata=operator)).user
    assert changed.tier == "api_key"
    assert changed.app_metadata["team"] == "blue"
    await world.rpc.GetUser(auth_pb2.GetUserRequest(), metadata=bearer(session))

    await admin.RemoveUser(pb.RemoveUserRequest(id=made.id), metadata=operator)
    with pytest.raises(Unauthenticated):
        await world.rpc.GetUser(auth_pb2.GetUserRequest(), metadata=bearer(session))
    with pytest.raises(NotFound):
        await admin.LookupUser(pb.LookupUserRequest(id=made.id), metadata=operator)
    assert await world.sql.fetchval("SELECT count(*) FROM public.users WHERE id = $1", UUID(made.id)) == 0
    actions = await world.sql.fetch(
        "SELECT action, actor_kind FROM auth.audit_log WHERE user_id = $1 AND actor_kind = 'service_role'"
        " ORDER BY created_at",
        UUID(made.id),
    )
    assert [row["action"] for row in actions] == ["admin_created", "admin_modified", "admin_removed"]


@pytest.mark.parametrize("change", [{"ban_duration": "24h"}, {"is_active": False}])
async def test_a_ban_ends_the_sessions_and_keeps_the_user_out(
    world: World, operator: Operator, change: dict[str, object]
) -> None:
    session = await world.user()
    request = pb.ModifyUserRequest(id=session.user.id, **change)  # type: ignore[arg-type]  # one of two
    await world.auth.admin.ModifyUser(request, metadata=operator)
    with pytest.raises(Unauthenticated) as ended:
        await world.rpc.GetUser(auth_pb2.GetUserRequest(), metadata=bearer(session))
    assert ended.value.reason == "SESSION_REVOKED"
    with pytest.raises(PermissionDenied) as banned:
        await world.sign_in(session.user.email)
    assert banned.value.reason == "USER_BANNED"
    undo = pb.ModifyUserRequest(id=session.user.id, ban_duration="none", is_active=True)
    await world.auth.admin.ModifyUser(undo, metadata=operator)
    await world.sign_in(session.user.email)


async def test_an_invitation_arrives_and_lets_in(world: World, operator: Operator) -> None:
    email = world.address()
    invited = await world.auth.admin.InviteUser(pb.InviteUserRequest(email=email), metadata=operator)
    assert invited.user.HasField("invited_at")
    link = await world.mailbox.link(email)
    assert link["type"] == "invite"
    request = auth_pb2.VerifyRequest(type=auth_pb2.OTP_TYPE_INVITE, token_hash=link["token"])
    session = (await world.rpc.Verify(request)).session
    assert session.user.HasField("email_confirmed_at")
    with pytest.raises(AlreadyExists):
        await world.auth.admin.InviteUser(pb.InviteUserRequest(email=email), metadata=operator)


@pytest.mark.parametrize(
    "kind",
    [
        auth_pb2.OTP_TYPE_SIGNUP,
        auth_pb2.OTP_TYPE_INVITE,
        auth_pb2.OTP_TYPE_MAGICLINK,
        auth_pb2.OTP_TYPE_RECOVERY,
    ],
)
async def test_a_generated_link_and_its_code_each_let_in(
    world: World, operator: Operator, kind: auth_pb2.OtpType.ValueType
) -> None:
    for by in ("token_hash", "token"):
        fresh = kind in (auth_pb2.OTP_TYPE_SIGNUP, auth_pb2.OTP_TYPE_INVITE)
        email = world.address() if fresh else (await world.user()).user.email
        mails = len(world.mailbox.to(email))
        request = pb.GenerateLinkRequest(type=kind, email=email, password=PASSWORD)
        made = await world.auth.admin.GenerateLink(request, metadata=operator)
        assert made.hashed_token in made.action_link
        verify = (
            auth_pb2.VerifyRequest(type=kind, token_hash=made.hashed_token)
            if by == "token_hash"
            else auth_pb2.VerifyRequest(type=kind, token=made.email_otp, email=email)
        )
        assert (await world.rpc.Verify(verify)).session.user.id == made.user.id
        assert len(world.mailbox.to(email)) == mails


@pytest.mark.parametrize(
    "request_",
    [
        pb.CreateUserRequest(email="no address"),
        pb.CreateUserRequest(email="a@example.com", role="superuser"),
        pb.CreateUserRequest(email="a@example.com", ban_duration="for ever"),
        pb.CreateUserRequest(email="a@example.com", id="1"),
        pb.CreateUserRequest(email="a@example.com", password="short"),
    ],
)
async def test_bad_input_makes_no_account(
    world: World, operator: Operator, request_: pb.CreateUserRequest
) -> None:
    with pytest.raises(InvalidArgument):
        await world.auth.admin.CreateUser(request_, metadata=operator)
    assert await world.sql.fetchval("SELECT count(*) FROM auth.users WHERE email = 'a@example.com'") == 0
