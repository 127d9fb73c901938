"""The Starlette application and its table of routes."""

from __future__ import annotations

import json
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route, Router

from servicekit.clock import Clock
from servicekit.edge import Edge
from servicekit.rpc.server import Authenticator
from services.auth.http.accounts import Accounts
from services.auth.http.admin import Admin
from services.auth.http.factors import Factors
from services.auth.http.openapi import document
from services.auth.http.page import Page
from services.auth.http.refusals import plain
from services.auth.http.routing import ACCOUNTS, ADMIN, Routes
from services.auth.service import AuthService

JWKS_MAX_AGE: Final = 600
"""Seconds for which the key set may be kept; a rotated-in key is published for so long before it signs."""


def create_app(
    service: AuthService, authenticator: Authenticator, edge: Edge, clock: Clock | None = None
) -> Starlette:
    """The application. It has no state.

    A path with an extra slash is not found, as in Supabase Auth: Starlette's redirect would use the request's
    Host header.
    """
    served = Router(routes(service, authenticator, edge, clock), redirect_slashes=False)
    app = Starlette(routes=[Mount("/auth/v1", app=served)], exception_handlers={HTTPException: _not_served})
    app.router.redirect_slashes = False
    return app


def routes(
    service: AuthService, authenticator: Authenticator, edge: Edge, clock: Clock | None = None
) -> list[Route]:
    """Every path below `/auth/v1`, with the RPC whose policy it has; without one it is public."""
    accounts, factors, admin = Accounts(service), Factors(service), Admin(service)
    page, site = Page(service, accounts), _Site(service)
    https = service.rules.link_base.startswith("https://")
    route = Routes(authenticator, edge, clock, secure=https).route
    return [
        route("GET", "/health", site.health),
        route("GET", "/settings", site.settings),
        route("GET", "/openapi.json", site.openapi),
        route("GET", "/.well-known/jwks.json", site.jwks),
        route("POST", "/signup", accounts.signup),
        route("POST", "/token", accounts.token),
        route("POST", "/otp", accounts.otp),
        route("POST", "/resend", accounts.resend),
        route("POST", "/recover", accounts.recover),
        route("GET", "/verify", page.show),
        route("POST", "/verify", page.post),
        route("GET", "/user", accounts.user, f"{ACCOUNTS}/GetUser"),
        route("PUT", "/user", accounts.update, f"{ACCOUNTS}/UpdateUser"),
        route("DELETE", "/user", accounts.delete, f"{ACCOUNTS}/DeleteUser"),
        route("POST", "/logout", accounts.logout, f"{ACCOUNTS}/SignOut"),
        route("GET", "/reauthenticate", accounts.reauthenticate, f"{ACCOUNTS}/Reauthenticate"),
        route("POST", "/reauthenticate", accounts.confirm, f"{ACCOUNTS}/ConfirmIdentity"),
        route("GET", "/sessions", accounts.sessions, f"{ACCOUNTS}/ListSessions"),
        route("DELETE", "/sessions/{session_id}", accounts.revoke_session, f"{ACCOUNTS}/RevokeSession"),
        route("POST", "/factors", factors.enroll, f"{ACCOUNTS}/EnrollFactor"),
        route("GET", "/factors/recovery", factors.recovery, f"{ACCOUNTS}/GetRecoveryCodes"),
        route("POST", "/factors/recovery", factors.recover, f"{ACCOUNTS}/UseRecoveryCode"),
        route(
            "POST",
            "/factors/recovery/regenerate",
            factors.regenerate,
            f"{ACCOUNTS}/RegenerateRecoveryCodes",
        ),
        # The same by the paths of `mfa.recoveryCodes` of auth-js.
        route("GET", "/factors/recovery-codes", factors.recovery, f"{ACCOUNTS}/GetRecoveryCodes"),
        route("POST", "/factors/recovery-codes/verify", factors.recover, f"{ACCOUNTS}/UseRecoveryCode"),
        route(
            "POST",
            "/factors/recovery-codes/regenerate",
            factors.regenerate,
            f"{ACCOUNTS}/RegenerateRecoveryCodes",
        ),
        route("DELETE", "/factors/{factor_id}", factors.unenroll, f"{ACCOUNTS}/UnenrollFactor"),
        route("POST", "/factors/{factor_id}/challenge", factors.challenge, f"{ACCOUNTS}/ChallengeFactor"),
        route("POST", "/factors/{factor_id}/verify", factors.verify, f"{ACCOUNTS}/VerifyFactor"),
        route("POST", "/invite", admin.invite, f"{ADMIN}/InviteUser"),
        route("POST", "/admin/generate_link", admin.generate_link, f"{ADMIN}/GenerateLink"),
        route("GET", "/admin/users", admin.users, f"{ADMIN}/ListUsers"),
        route("POST", "/admin/users", admin.create, f"{ADMIN}/CreateUser"),
        route("GET", "/admin/users/{user_id}", admin.user, f"{ADMIN}/LookupUser"),
        route("PUT", "/admin/users/{user_id}", admin.modify, f"{ADMIN}/ModifyUser"),
        route("DELETE", "/admin/users/{user_id}", admin.remove, f"{ADMIN}/RemoveUser"),
        route("GET", "/admin/users/{user_id}/factors", admin.factors, f"{ADMIN}/LookupUser"),
        route(
            "DELETE",
            "/admin/users/{user_id}/factors/{factor_id}",
            admin.remove_factor,
            f"{ADMIN}/ModifyUser",
        ),
    ]


class _Site:
    """What tells of the deployment, and of nobody in it."""

    def __init__(self, service: AuthService) -> None:
        self._service = service
        self._openapi = json.dumps(document()).encode()  # once: anyone may ask, as often as they like

    async def health(self, _: Request) -> Response:
        return JSONResponse({"name": "signgate-auth", "description": "Signgate accounts"})

    async def settings(self, _: Request) -> Response:
        rules = self._service.rules
        return JSONResponse(
            {
                "external": {"email": True, "phone": False, "anonymous_users": False},
                "disable_signup": not rules.signup_enabled,
                "mailer_autoconfirm": rules.auto_confirm,
                "phone_autoconfirm": False,
                "sms_provider": "",
                "mfa_enabled": True,
                "saml_enabled": False,
            }
        )

    async def jwks(self, _: Request) -> Response:
        headers = {"cache-control": f"public, max-age={JWKS_MAX_AGE}"}
        return JSONResponse(self._service.tokens.jwks(), headers=headers)

    async def openapi(self, _: Request) -> Response:
        return Response(self._openapi, media_type="application/json")


async def _not_served(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    words = {
        404: ("no_such_path", "There is nothing at this path."),
        405: ("method_not_allowed", "This path does not take that method."),
    }
    code, message = words.get(error.status_code, ("http_error", error.detail))
    response = plain(request, error.status_code, code, message)
    response.headers.update(error.headers or {})
    return response
