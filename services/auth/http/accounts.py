"""Handlers for the account's owner."""

from __future__ import annotations

from typing import Final, get_args

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from servicekit import context
from servicekit.errors import InvalidArgument
from servicekit.http import unless_gone
from services.auth.domain import OtpType, SignOutScope
from services.auth.errors import ValidationFailed
from services.auth.http import present
from services.auth.http.bodies import Body, body, path_id, query
from services.auth.http.routing import client
from services.auth.service import AuthService, Change

SCOPES: Final[tuple[SignOutScope, ...]] = get_args(SignOutScope)
OTP_TYPES: Final[tuple[OtpType, ...]] = get_args(OtpType)


class Accounts:
    """One method a path; each reads the request, calls one use case, and answers."""

    def __init__(self, service: AuthService) -> None:
        self._service = service

    async def signup(self, request: Request) -> Response:
        given = await body(request)
        done = await self._service.signup.sign_up(
            given.text("email"),
            given.text("password"),
            client(request),
            data=given.mapping("data"),
            pkce=given.pkce(),
            redirect_to=query(request, "redirect_to"),
        )
        return JSONResponse(present.user(done.user) if done.issued is None else present.session(done.issued))

    async def token(self, request: Request) -> Response:
        given, grant = await body(request), query(request, "grant_type")
        if grant == "password":
            # A caller that disconnects leaves the hash queue.
            issued = await unless_gone(
                request,
                self._service.signin.sign_in(given.text("email"), given.text("password"), client(request)),
            )
        elif grant == "refresh_token":
            issued = await self._service.sessions.refresh(given.text("refresh_token"), client(request))
        elif grant == "pkce":
            done = await self._service.verify.exchange(
                given.text("auth_code"), given.text("code_verifier"), client(request)
            )
            return JSONResponse(present.redeemed(done))
        else:
            raise InvalidArgument(
                "grant_type must be password, refresh_token or pkce.", reason="UNSUPPORTED_GRANT_TYPE"
            )
        return JSONResponse(present.session(issued))

    async def user(self, request: Request) -> Response:
        return JSONResponse(present.user(await self._service.profile.get(context.principal())))

    async def update(self, request: Request) -> Response:
        given = await body(request)
        change = Change(
            email=given.optional_text("email"),
            cancel_email=given.null("email"),
            password=given.optional_text("password"),
            data=given.mapping("data"),
            nonce=given.text("nonce"),
            current_password=given.text("current_password"),
            redirect_to=query(request, "redirect_to"),
            pkce=given.pkce(),
        )
        user = await self._service.profile.update(context.principal(), change, client(request))
        return JSONResponse(present.user(user))

    async def delete(self, request: Request) -> Response:
        given = await body(request)
        await self._service.profile.delete(
            context.principal(), given.text("password"), given.text("nonce"), client(request)
        )
        return Response(status_code=204)

    async def logout(self, request: Request) -> Response:
        scope = query(request, "scope", "global")
        found = next((each for each in SCOPES if each == scope), None)
        if found is None:
            raise ValidationFailed("scope", "must be global, local or others")
        await self._service.sessions.sign_out(context.principal(), found, client(request))
        return Response(status_code=204)

    async def otp(self, request: Request) -> Response:
        given = await body(request)
        create = given.flag("create_user")
        await self._service.otp.send(
            given.text("email"),
            client(request),
            create_user=True if create is None else create,
            data=given.mapping("data"),
            pkce=given.pkce(),
            redirect_to=query(request, "redirect_to"),
        )
        return JSONResponse({})

    async def resend(self, request: Request) -> Response:
        given = await body(request)
        kind = given.text("type")
        if kind not in ("signup", "email_change"):
            raise ValidationFailed("type", "must be signup or email_change")
        await self._service.otp.resend(
            "signup" if kind == "signup" else "email_change",
            given.text("email"),
            client(request),
            redirect_to=query(request, "redirect_to"),
        )
        return JSONResponse({})

    async def verify(self, given: Body, request: Request) -> Response:
        """By a code, or by what a link carries: the page's form comes elsewhere."""
        kind, token_hash = otp_type(given.text("type")), given.text("token_hash")
        if token_hash:
            done = await self._service.verify.by_link(kind, token_hash, client(request))
        elif given.text("token"):
            done = await self._service.verify.by_code(
                kind, given.text("email"), given.text("token"), client(request)
            )
        else:
            raise ValidationFailed("token", "give token and email, or token_hash")
        return JSONResponse(present.redeemed(done))

    async def recover(self, request: Request) -> Response:
        given = await body(request)
        await self._service.otp.recover(
            given.text("email"),
            client(request),
            pkce=given.pkce(),
            redirect_to=query(request, "redirect_to"),
        )
        return JSONResponse({})

    async def reauthenticate(self, request: Request) -> Response:
        await self._service.profile.reauthenticate(context.principal(), client(request))
        return JSONResponse({})

    async def confirm(self, request: Request) -> Response:
        given = await body(request)
        issued = await self._service.confirm.confirm(
            context.principal(), given.text("nonce"), given.text("password"), client(request)
        )
        return JSONResponse(present.session(issued))

    async def sessions(self, request: Request) -> Response:
        principal = context.principal()
        found = await self._service.sessions.of_caller(principal)
        return JSONResponse(
            {"sessions": [present.session_info(each, principal.session_id) for each in found]}
        )

    async def revoke_session(self, request: Request) -> Response:
        session_id = path_id(request, "session_id")
        await self._service.sessions.revoke(context.principal(), session_id, client(request))
        return Response(status_code=204)


def otp_type(text: str) -> OtpType:
    """Raises `ValidationFailed`."""
    found = next((each for each in OTP_TYPES if each == text), None)
    if found is None:
        raise ValidationFailed("type", f"must be one of {', '.join(OTP_TYPES)}")
    return found
