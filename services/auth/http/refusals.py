"""Errors in the two styles that Supabase's clients know.

A request that says `X-Supabase-Api-Version: 2024-01-01` (or later) gets that header back and
`{"code": "<code>", "message": …}`; any other gets `{"code": <status>, "error_code": "<code>", "msg": …}`.
Both carry `x-sb-error-code`. A code is an error's reason in small letters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse

from servicekit.errors import SigngateError
from servicekit.rpc.limits import error_metadata

VERSION_HEADER: Final = "x-supabase-api-version"
VERSION: Final = "2024-01-01"

_by_status: Final[Mapping[str, int]] = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 422,
    "FAILED_PRECONDITION": 422,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
# Where Supabase Auth answers otherwise than the kind of error would.
_by_reason: Final[Mapping[str, int]] = {
    "INVALID_CREDENTIALS": 400,
    "EMAIL_NOT_CONFIRMED": 400,
    "REFRESH_TOKEN_NOT_FOUND": 400,
    "REFRESH_TOKEN_ALREADY_USED": 400,
    "SESSION_EXPIRED": 400,
    "REAUTHENTICATION_NEEDED": 400,
    "WEAK_PASSWORD": 422,
    "SAME_PASSWORD": 422,
    "MFA_VERIFICATION_FAILED": 422,
    "MFA_CHALLENGE_EXPIRED": 422,
    "BAD_CODE_VERIFIER": 400,
    "FLOW_STATE_NOT_FOUND": 404,
    "BODY_TOO_LARGE": 413,
    "KEY_MALFORMED": 403,
    "TOKEN_INVALID": 403,
    "TOKEN_EXPIRED": 403,
    "TOKEN_AUDIENCE": 403,
    "SESSION_REVOKED": 403,
}
_codes: Final[Mapping[str, str]] = {
    "CREDENTIAL_MISSING": "no_authorization",
    "CREDENTIAL_MALFORMED": "no_authorization",
    "KEY_MALFORMED": "bad_jwt",  # a bearer of no known form: their clients send no keys
    "TOKEN_INVALID": "bad_jwt",
    "TOKEN_EXPIRED": "bad_jwt",
    "TOKEN_AUDIENCE": "bad_jwt",
    "SESSION_REVOKED": "session_not_found",
    "SERVICE_ROLE_REQUIRED": "not_admin",
    "INTERNAL": "unexpected_failure",
    "BODY_TOO_LARGE": "validation_failed",
}


def status_of(error: SigngateError) -> int:
    """The HTTP status of an error."""
    return _by_reason.get(error.reason, _by_status.get(error.status, 500))


def code_of(error: SigngateError) -> str:
    """Supabase's code for an error, or ours in the same style."""
    return _codes.get(error.reason, error.reason.lower())


def refusal(request: Request, error: SigngateError) -> JSONResponse:
    """An error as the caller's version of the interface knows it."""
    found = plain(request, status_of(error), code_of(error), error.message, _more(error))
    for name, value in error_metadata(error):
        found.headers[name] = value
    return found


def plain(
    request: Request, status: int, code: str, message: str, more: Mapping[str, Any] | None = None
) -> JSONResponse:
    """An error of these words."""
    new = request.headers.get(VERSION_HEADER, "") >= VERSION
    body = {"code": code, "message": message} if new else {"code": status, "error_code": code, "msg": message}
    headers = {"x-sb-error-code": code, "cache-control": "no-store"}
    if new:
        headers[VERSION_HEADER] = VERSION
    return JSONResponse({**body, **(more or {})}, status, headers)


def _more(error: SigngateError) -> dict[str, Any]:
    if error.reason == "WEAK_PASSWORD":
        return {"weak_password": {"reasons": error.metadata["reasons"].split(",")}}
    return {}
