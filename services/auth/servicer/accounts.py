"""`signgate.auth.v1.AuthService`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from servicekit import context
from services.auth.client import Pairs, client_of
from services.auth.domain import Client
from services.auth.errors import ValidationFailed
from services.auth.service import AuthService, Change
from services.auth.servicer import convert
from signgate.auth.v1 import auth_pb2 as pb
from signgate.auth.v1 import auth_pb2_grpc

if TYPE_CHECKING:
    import grpc.aio

    Context = grpc.aio.ServicerContext[Any, Any]


class AuthServicer(auth_pb2_grpc.AuthServiceServicer):
    """Accounts for their owners. Credentials and policies were looked at before a method runs."""

    def __init__(self, service: AuthService) -> None:
        self._service = service

    async def SignUp(self, request: pb.SignUpRequest, context_: Context) -> pb.SignUpResponse:
        done = await self._service.signup.sign_up(
            request.email,
            request.password,
            caller(context_),
            data=convert.struct(request, "data"),
            pkce=convert.pkce(request),
            redirect_to=request.redirect_to,
        )
        return pb.SignUpResponse(user=convert.user(done.user), session=convert.session(done.issued))

    async def SignIn(self, request: pb.SignInRequest, context_: Context) -> pb.SignInResponse:
        issued = await self._service.signin.sign_in(request.email, request.password, caller(context_))
        return pb.SignInResponse(session=convert.session(issued))

    async def SendOtp(self, request: pb.SendOtpRequest, context_: Context) -> pb.SendOtpResponse:
        await self._service.otp.send(
            request.email,
            caller(context_),
            create_user=request.create_user if request.HasField("create_user") else True,
            data=convert.struct(request, "data"),
            pkce=convert.pkce(request),
            redirect_to=request.redirect_to,
        )
        return pb.SendOtpResponse()

    async def Verify(self, request: pb.VerifyRequest, context_: Context) -> pb.VerifyResponse:
        kind, how = convert.otp_type(request.type), request.WhichOneof("code")
        if how == "token":
            done = await self._service.verify.by_code(kind, request.email, request.token, caller(context_))
        elif how == "token_hash":
            done = await self._service.verify.by_link(kind, request.token_hash, caller(context_))
        else:
            raise ValidationFailed("token", "give the code, or the hash that the link carries")
        return pb.VerifyResponse(session=convert.session(done.issued))

    async def Resend(self, request: pb.ResendRequest, context_: Context) -> pb.ResendResponse:
        kind = convert.otp_type(request.type)
        if kind not in ("signup", "email_change"):
            raise ValidationFailed("type", "must be SIGNUP or EMAIL_CHANGE")
        await self._service.otp.resend(kind, request.email, caller(context_), redirect_to=request.redirect_to)
        return pb.ResendResponse()

    async def Recover(self, request: pb.RecoverRequest, context_: Context) -> pb.RecoverResponse:
        await self._service.otp.recover(
            request.email,
            caller(context_),
            pkce=convert.pkce(request),
            redirect_to=request.redirect_to,
        )
        return pb.RecoverResponse()

    async def ExchangeCode(
        self, request: pb.ExchangeCodeRequest, context_: Context
    ) -> pb.ExchangeCodeResponse:
        done = await self._service.verify.exchange(request.auth_code, request.code_verifier, caller(context_))
        return pb.ExchangeCodeResponse(session=convert.session(done.issued))

    async def RefreshSession(
        self, request: pb.RefreshSessionRequest, context_: Context
    ) -> pb.RefreshSessionResponse:
        issued = await self._service.sessions.refresh(request.refresh_token, caller(context_))
        return pb.RefreshSessionResponse(session=convert.session(issued))

    async def SignOut(self, request: pb.SignOutRequest, context_: Context) -> pb.SignOutResponse:
        await self._service.sessions.sign_out(
            context.principal(), convert.scope(request.scope), caller(context_)
        )
        return pb.SignOutResponse()

    async def GetUser(self, request: pb.GetUserRequest, context_: Context) -> pb.GetUserResponse:
        user = await self._service.profile.get(context.principal())
        return pb.GetUserResponse(user=convert.user(user))

    async def UpdateUser(self, request: pb.UpdateUserRequest, context_: Context) -> pb.UpdateUserResponse:
        change = Change(
            email=request.email if request.HasField("email") else None,
            cancel_email=request.HasField("email") and not request.email,
            password=request.password if request.HasField("password") else None,
            data=convert.struct(request, "data"),
            nonce=request.nonce,
            current_password=request.current_password,
            redirect_to=request.redirect_to,
            pkce=convert.pkce(request),
        )
        user = await self._service.profile.update(context.principal(), change, caller(context_))
        return pb.UpdateUserResponse(user=convert.user(user))

    async def DeleteUser(self, request: pb.DeleteUserRequest, context_: Context) -> pb.DeleteUserResponse:
        await self._service.profile.delete(
            context.principal(), request.password, request.nonce, caller(context_)
        )
        return pb.DeleteUserResponse()

    async def Reauthenticate(
        self, request: pb.ReauthenticateRequest, context_: Context
    ) -> pb.ReauthenticateResponse:
        await self._service.profile.reauthenticate(context.principal(), caller(context_))
        return pb.ReauthenticateResponse()

    async def ConfirmIdentity(
        self, request: pb.ConfirmIdentityRequest, context_: Context
    ) -> pb.ConfirmIdentityResponse:
        issued = await self._service.confirm.confirm(
            context.principal(), request.nonce, request.password, caller(context_)
        )
        return pb.ConfirmIdentityResponse(session=convert.session(issued))

    async def ListSessions(
        self, request: pb.ListSessionsRequest, context_: Context
    ) -> pb.ListSessionsResponse:
        principal = context.principal()
        found = await self._service.sessions.of_caller(principal)
        return pb.ListSessionsResponse(
            sessions=[convert.session_info(session, principal.session_id) for session in found]
        )

    async def RevokeSession(
        self, request: pb.RevokeSessionRequest, context_: Context
    ) -> pb.RevokeSessionResponse:
        session_id = convert.uuid(request.session_id, "session_id")
        await self._service.sessions.revoke(context.principal(), session_id, caller(context_))
        return pb.RevokeSessionResponse()

    async def EnrollFactor(
        self, request: pb.EnrollFactorRequest, context_: Context
    ) -> pb.EnrollFactorResponse:
        done = await self._service.mfa.enroll(
            context.principal(),
            request.factor_type,
            request.friendly_name,
            request.issuer,
            caller(context_),
        )
        return pb.EnrollFactorResponse(
            factor=convert.factor(done.factor), secret=done.secret, uri=done.uri, qr_code=done.qr_code
        )

    async def ChallengeFactor(
        self, request: pb.ChallengeFactorRequest, context_: Context
    ) -> pb.ChallengeFactorResponse:
        factor_id = convert.uuid(request.factor_id, "factor_id")
        party = request.relying_party
        asked = await self._service.mfa.challenge(
            context.principal(), factor_id, caller(context_), rp_id=party.rp_id, origins=party.origins
        )
        return pb.ChallengeFactorResponse(
            challenge_id=str(asked.id),
            expires_at=convert.stamp(asked.expires_at),
            factor_type=asked.kind,
            ceremony=convert.CEREMONIES[asked.ceremony],
            options_json="" if asked.options is None else json.dumps(asked.options),
        )

    async def VerifyFactor(
        self, request: pb.VerifyFactorRequest, context_: Context
    ) -> pb.VerifyFactorResponse:
        proved = await self._service.mfa.verify(
            context.principal(),
            convert.uuid(request.factor_id, "factor_id"),
            convert.uuid(request.challenge_id, "challenge_id"),
            convert.passkey(request.passkey) if request.HasField("passkey") else request.code,
            caller(context_),
        )
        return pb.VerifyFactorResponse(
            session=convert.session(proved.issued), recovery_codes=proved.recovery_codes
        )

    async def UseRecoveryCode(
        self, request: pb.UseRecoveryCodeRequest, context_: Context
    ) -> pb.UseRecoveryCodeResponse:
        issued, left = await self._service.mfa.recover(context.principal(), request.code, caller(context_))
        return pb.UseRecoveryCodeResponse(session=convert.session(issued), codes_left=left)

    async def GetRecoveryCodes(
        self, request: pb.GetRecoveryCodesRequest, context_: Context
    ) -> pb.GetRecoveryCodesResponse:
        state = await self._service.recovery.state(context.principal())
        return pb.GetRecoveryCodesResponse(
            left=state.left, total=state.total, created_at=convert.stamp(state.created_at)
        )

    async def RegenerateRecoveryCodes(
        self, request: pb.RegenerateRecoveryCodesRequest, context_: Context
    ) -> pb.RegenerateRecoveryCodesResponse:
        codes = await self._service.recovery.regenerate(context.principal(), caller(context_))
        return pb.RegenerateRecoveryCodesResponse(recovery_codes=codes)

    async def UnenrollFactor(
        self, request: pb.UnenrollFactorRequest, context_: Context
    ) -> pb.UnenrollFactorResponse:
        factor_id = convert.uuid(request.factor_id, "factor_id")
        await self._service.mfa.unenroll(context.principal(), factor_id, caller(context_))
        return pb.UnenrollFactorResponse(factor_id=str(factor_id))

    async def GetJwks(self, request: pb.GetJwksRequest, context_: Context) -> pb.GetJwksResponse:
        return pb.GetJwksResponse(jwks_json=json.dumps(self._service.tokens.jwks()))


def caller(context_: Context) -> Client:
    """Where the call comes from."""
    return client_of(cast("Pairs", context_.invocation_metadata() or ()))
