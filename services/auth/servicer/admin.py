"""`signgate.auth.v1.AuthAdminService`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from servicekit import context
from services.auth.domain import OtpType, Purpose
from services.auth.errors import ValidationFailed
from services.auth.service import AuthService
from services.auth.service.admin import NewUser, UserChange
from services.auth.servicer import convert
from services.auth.servicer.accounts import caller
from signgate.auth.v1 import admin_pb2 as pb
from signgate.auth.v1 import admin_pb2_grpc

if TYPE_CHECKING:
    import grpc.aio

    Context = grpc.aio.ServicerContext[Any, Any]

PURPOSES: Final[dict[OtpType, Purpose]] = {
    "signup": "signup",
    "magiclink": "magiclink",
    "email": "magiclink",
    "recovery": "recovery",
    "email_change": "email_change_new",
    "invite": "invite",
}


class AuthAdminServicer(admin_pb2_grpc.AuthAdminServiceServicer):
    """Accounts for administrators. That the caller is one was looked at before a method runs."""

    def __init__(self, service: AuthService) -> None:
        self._admin = service.admin

    async def CreateUser(self, request: pb.CreateUserRequest, context_: Context) -> pb.CreateUserResponse:
        new = NewUser(
            email=request.email,
            password=request.password if request.HasField("password") else None,
            password_hash=request.password_hash if request.HasField("password_hash") else None,
            confirmed=request.email_confirm,
            user_metadata=convert.struct(request, "user_metadata"),
            app_metadata=convert.struct(request, "app_metadata"),
            role=request.role,
            id=convert.uuid(request.id, "id") if request.id else None,
            ban=request.ban_duration,
        )
        user = await self._admin.create(context.principal(), new, caller(context_))
        return pb.CreateUserResponse(user=convert.user(user))

    async def ListUsers(self, request: pb.ListUsersRequest, context_: Context) -> pb.ListUsersResponse:
        state = convert.state(request.state)
        users, total = await self._admin.page(request.page, request.per_page, request.filter, state)
        return pb.ListUsersResponse(users=[convert.user(user) for user in users], total=total)

    async def LookupUser(self, request: pb.LookupUserRequest, context_: Context) -> pb.LookupUserResponse:
        how = request.WhichOneof("by")
        if how == "id":
            user = await self._admin.by_id(convert.uuid(request.id, "id"))
        elif how == "email":
            user = await self._admin.by_email(request.email)
        else:
            raise ValidationFailed("by", "name the account by id or by email")
        return pb.LookupUserResponse(user=convert.user(user))

    async def ModifyUser(self, request: pb.ModifyUserRequest, context_: Context) -> pb.ModifyUserResponse:
        def given(name: Any) -> Any:
            return getattr(request, name) if request.HasField(name) else None

        change = UserChange(
            email=given("email"),
            password=given("password"),
            password_hash=given("password_hash"),
            confirmed=given("email_confirm"),
            user_metadata=convert.struct(request, "user_metadata"),
            app_metadata=convert.struct(request, "app_metadata"),
            role=given("role"),
            ban=given("ban_duration"),
            is_active=given("is_active"),
            tier=given("tier"),
        )
        user_id = convert.uuid(request.id, "id")
        user = await self._admin.modify(context.principal(), user_id, change, caller(context_))
        return pb.ModifyUserResponse(user=convert.user(user))

    async def RemoveUser(self, request: pb.RemoveUserRequest, context_: Context) -> pb.RemoveUserResponse:
        user_id = convert.uuid(request.id, "id")
        await self._admin.remove(context.principal(), user_id, caller(context_), soft=request.soft_delete)
        return pb.RemoveUserResponse()

    async def InviteUser(self, request: pb.InviteUserRequest, context_: Context) -> pb.InviteUserResponse:
        user = await self._admin.invite(
            context.principal(),
            request.email,
            caller(context_),
            data=convert.struct(request, "data"),
            redirect_to=request.redirect_to,
        )
        return pb.InviteUserResponse(user=convert.user(user))

    async def GenerateLink(
        self, request: pb.GenerateLinkRequest, context_: Context
    ) -> pb.GenerateLinkResponse:
        made = await self._admin.link(
            context.principal(),
            PURPOSES[convert.otp_type(request.type)],
            request.email,
            caller(context_),
            password=request.password,
            new_email=request.new_email,
            data=convert.struct(request, "data"),
            redirect_to=request.redirect_to,
        )
        return pb.GenerateLinkResponse(
            action_link=made.action_link,
            email_otp=made.code,
            hashed_token=made.token,
            redirect_to=made.redirect_to,
            verification_type=request.type,
            user=convert.user(made.user),
            expires_at=convert.stamp(made.expires_at),
        )
