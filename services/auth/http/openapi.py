"""The contract of this face as an OpenAPI 3.1 document, built from the table below.

A test holds it beside the routes that are served: neither can have a path that the other lacks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, get_args

from services.auth.domain import AccountState, OtpType, Purpose, SignOutScope

Json = dict[str, Any]

LINKS: Final[dict[str, Purpose]] = {
    "signup": "signup",
    "invite": "invite",
    "magiclink": "magiclink",
    "recovery": "recovery",
    "email_change_current": "email_change_current",
    "email_change_new": "email_change_new",
}
"""The kinds of links that an administrator can have made."""


class Operation(NamedTuple):
    """One operation. `body` maps members to types, `*` for required ones; `needs`: public, user or admin."""

    method: str
    path: str
    summary: str
    needs: str
    body: Mapping[str, str]
    answer: str
    status: int = 200
    query: tuple[str, ...] = ()


_pkce: Final = {"code_challenge": "text", "code_challenge_method": "text"}
_attributes: Final = {
    "email": "email",
    "password": "new_password",
    "password_hash": "text",
    "email_confirm": "flag",
    "user_metadata": "object",
    "app_metadata": "object",
    "role": "text",
    "ban_duration": "text",
}
_redirect: Final = ("redirect_to",)

OPERATIONS: Final = (
    Operation("GET", "/health", "Whether the service answers", "public", {}, "Any"),
    Operation("GET", "/settings", "What the deployment offers", "public", {}, "Any"),
    Operation("GET", "/openapi.json", "This document", "public", {}, "Any"),
    Operation("GET", "/.well-known/jwks.json", "Public keys of access tokens", "public", {}, "Jwks"),
    Operation(
        "POST", "/signup", "Make an account; a session only where accounts confirm themselves", "public",
        {"email": "email*", "password": "new_password*", "data": "object", **_pkce}, "UserOrSession",
        query=_redirect,
    ),
    Operation(
        "POST", "/token", "Sign in by password, refresh token or PKCE code", "public",
        {"email": "email", "password": "text", "refresh_token": "text", "auth_code": "text",
         "code_verifier": "text"}, "Session", query=("grant_type*",),
    ),
    Operation(
        "POST", "/otp", "Mail a code and a link to sign in with", "public",
        {"email": "email*", "create_user": "flag", "data": "object", **_pkce}, "Empty", query=_redirect,
    ),
    Operation(
        "POST", "/resend", "Mail a pending code once more", "public",
        {"type": "resend*", "email": "email*"}, "Empty", query=_redirect,
    ),
    Operation(
        "POST", "/recover", "Mail a way in without the password", "public",
        {"email": "email*", **_pkce}, "Empty", query=_redirect,
    ),
    Operation(
        "GET", "/verify", "The page behind a mailed link; looking changes nothing", "public", {}, "Page",
        query=("token", "type*", "redirect_to"),
    ),
    Operation(
        "POST", "/verify", "Redeem a code or a link", "public",
        {"type": "otp*", "email": "email", "token": "text", "token_hash": "text"}, "UserOrSession",
    ),
    Operation("GET", "/user", "The caller's account", "user", {}, "User"),
    Operation(
        "PUT", "/user", "Change the caller's account", "user",
        {"email": "email", "password": "new_password", "data": "object", "nonce": "text",
         "current_password": "text",
         **_pkce}, "User", query=_redirect,
    ),
    Operation(
        "DELETE", "/user", "Delete the caller's account", "user",
        {"password": "text", "nonce": "text"}, "None", 204,
    ),
    Operation("POST", "/logout", "End sessions", "user", {}, "None", 204, ("scope",)),
    Operation("GET", "/reauthenticate", "Mail a nonce that proves the caller", "user", {}, "Empty"),
    Operation(
        "POST", "/reauthenticate", "Prove the caller by nonce or password: the session is fresh", "user",
        {"nonce": "text", "password": "text"}, "Session",
    ),
    Operation("GET", "/sessions", "The caller's sessions", "user", {}, "Sessions"),
    Operation("DELETE", "/sessions/{session_id}", "End one session", "user", {}, "None", 204),
    Operation(
        "POST", "/factors", "Start a second factor", "user",
        {"factor_type": "factor*", "friendly_name": "text", "issuer": "text"}, "Any",
    ),
    Operation("GET", "/factors/recovery", "How many recovery codes are left", "user", {}, "RecoveryCodes"),
    Operation(
        "POST", "/factors/recovery", "Raise the session by a recovery code", "user",
        {"code": "text*"}, "Session",
    ),
    Operation(
        "POST", "/factors/recovery/regenerate", "Make new recovery codes in place of all before", "user",
        {}, "NewRecoveryCodes",
    ),
    Operation(
        "GET", "/factors/recovery-codes", "How many recovery codes are left, for auth-js", "user",
        {}, "RecoveryCodes",
    ),
    Operation(
        "POST", "/factors/recovery-codes/verify", "Raise the session by a recovery code, for auth-js", "user",
        {"code": "text*"}, "Session",
    ),
    Operation(
        "POST", "/factors/recovery-codes/regenerate", "Make new recovery codes, for auth-js", "user",
        {}, "NewRecoveryCodes",
    ),
    Operation("DELETE", "/factors/{factor_id}", "Remove a second factor", "user", {}, "Any"),
    Operation("POST", "/factors/{factor_id}/challenge", "Ask to prove a factor", "user",
              {"webauthn": "party"}, "Any"),
    Operation(
        "POST", "/factors/{factor_id}/verify", "Answer a challenge", "user",
        {"challenge_id": "text*", "code": "text", "webauthn": "passkey"}, "Session",
    ),
    Operation(
        "POST", "/invite", "Make an account and mail an invitation", "admin",
        {"email": "email*", "data": "object"}, "User", query=_redirect,
    ),
    Operation(
        "POST", "/admin/generate_link", "Make a code and a link, and mail nothing", "admin",
        {"type": "link*", "email": "email*", "password": "new_password", "new_email": "email",
         "data": "object", "redirect_to": "text"}, "User", query=_redirect,
    ),
    Operation(
        "GET", "/admin/users", "Accounts, newest first", "admin", {}, "Users",
        query=("page", "per_page", "filter", "email", "state"),
    ),
    Operation(
        "POST", "/admin/users", "Make an account", "admin",
        {**_attributes, "email": "email*", "id": "text"}, "User",
    ),
    Operation("GET", "/admin/users/{user_id}", "One account", "admin", {}, "User"),
    Operation(
        "PUT", "/admin/users/{user_id}", "Change an account", "admin",
        {**_attributes, "is_active": "flag", "tier": "text"}, "User",
    ),
    Operation(
        "DELETE", "/admin/users/{user_id}", "Delete an account; softly, its id and usage stay", "admin",
        {"should_soft_delete": "flag"}, "Empty",
    ),
    Operation("GET", "/admin/users/{user_id}/factors", "An account's second factors", "admin", {}, "Factors"),
    Operation(
        "DELETE", "/admin/users/{user_id}/factors/{factor_id}", "Remove an account's second factor", "admin",
        {}, "Any",
    ),
)  # fmt: skip

_party: Final[Json] = {
    "rpId": {"type": "string"},
    "rpOrigins": {"type": "array", "items": {"type": "string"}},
}
_types: Final[Mapping[str, Json]] = {
    "text": {"type": ["string", "null"]},
    "text*": {"type": "string"},
    "new_password": {"type": ["string", "null"]},
    "new_password*": {"type": "string"},
    "email": {"type": ["string", "null"], "format": "email"},
    "email*": {"type": "string", "format": "email"},
    "flag": {"type": ["boolean", "null"]},
    "object": {"type": ["object", "null"]},
    "otp*": {"enum": [*get_args(OtpType)]},
    "resend*": {"enum": ["signup", "email_change"]},
    "link*": {"enum": [*LINKS]},
    "factor*": {"enum": ["totp", "webauthn"]},
    "party": {"type": ["object", "null"], "properties": _party},
    "passkey": {
        "type": ["object", "null"],
        "required": ["type", "credential_response"],
        "properties": {
            **_party,
            "type": {"enum": ["create", "request"]},
            "credential_response": {
                "type": "object",
                "description": "RegistrationResponseJSON or AuthenticationResponseJSON of WebAuthn Level 3",
                "required": ["rawId", "response"],
            },
        },
    },
}
_choices: Final[Mapping[str, Json]] = {
    "grant_type": {"enum": ["password", "refresh_token", "pkce"]},
    "scope": {"enum": [*get_args(SignOutScope)]},
    "type": {"enum": [*get_args(OtpType)]},
    "state": {"enum": ["", *get_args(AccountState)]},
}
_user: Final[Json] = {
    "type": "object",
    "required": ["id", "aud", "role", "email", "app_metadata", "user_metadata", "identities", "created_at"],
    "properties": {
        "id": {"type": "string", "format": "uuid"},
        "aud": {"type": "string"},
        "role": {"type": "string"},
        "email": {"type": "string"},
        "email_confirmed_at": {"type": ["string", "null"], "format": "date-time"},
        "banned_until": {"type": ["string", "null"], "format": "date-time"},
        "deleted_at": {"type": ["string", "null"], "format": "date-time"},
        "state": {"enum": [*get_args(AccountState)]},
        "app_metadata": {"type": "object"},
        "user_metadata": {"type": "object"},
        "identities": {"type": "array", "items": {"type": "object"}},
        "factors": {"type": "array", "items": {"type": "object"}},
        "created_at": {"type": "string", "format": "date-time"},
        "is_anonymous": {"type": "boolean"},
    },
}
_session: Final[Json] = {
    "type": "object",
    "required": ["access_token", "token_type", "expires_in", "expires_at", "refresh_token", "user"],
    "properties": {
        "access_token": {"type": "string"},
        "token_type": {"const": "bearer"},
        "expires_in": {"type": "integer"},
        "expires_at": {"type": "integer"},
        "refresh_token": {"type": "string"},
        "user": {"$ref": "#/components/schemas/User"},
    },
}


def _list(name: str, items: Json) -> Json:
    return {"type": "object", "required": [name], "properties": {name: {"type": "array", "items": items}}}


_schemas: Final[Json] = {
    "Any": {"type": "object"},
    "Empty": {"type": "object", "maxProperties": 0},
    "User": _user,
    "Session": _session,
    "UserOrSession": {
        "anyOf": [{"$ref": "#/components/schemas/Session"}, {"$ref": "#/components/schemas/User"}]
    },
    "Users": _list("users", {"$ref": "#/components/schemas/User"}),
    "Sessions": _list("sessions", {"type": "object"}),
    "Factors": {"type": "array", "items": {"type": "object"}},
    "RecoveryCodes": {
        "type": "object",
        "required": ["left", "total", "created_at"],
        "properties": {
            "id": {"type": "string", "format": "uuid"},
            "type": {"const": "recovery_code"},
            "left": {"type": "integer"},
            "remaining": {"type": "integer"},
            "total": {"type": "integer"},
            "created_at": {"type": ["string", "null"], "format": "date-time"},
        },
    },
    "NewRecoveryCodes": _list("codes", {"type": "string"}),
    "Jwks": _list("keys", {"type": "object", "required": ["kid", "kty", "alg"]}),
    "Error": {
        "type": "object",
        "required": ["code"],
        "properties": {
            "code": {"type": ["string", "integer"]},
            "message": {"type": "string"},
            "error_code": {"type": "string"},
            "msg": {"type": "string"},
            "weak_password": _list("reasons", {"type": "string"}),
        },
    },
}


def document() -> Json:
    """The whole document."""
    paths: Json = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Signgate accounts",
            "version": "1",
            "description": "Sign-up, sign-in, sessions, one-time codes and second factors, in the form that"
            " Supabase Auth's clients speak. The same use cases are served over gRPC as"
            " signgate.auth.v1.AuthService and AuthAdminService.",
        },
        "servers": [{"url": "/auth/v1"}],
        "paths": paths,
        "components": {
            "schemas": _schemas,
            "securitySchemes": {
                "user": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "admin": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT, role service_role"},
            },
        },
    }


def _operation(operation: Operation) -> Json:
    found: Json = {
        "summary": operation.summary,
        "security": [] if operation.needs == "public" else [{operation.needs: []}],
        "parameters": [*map(_query, operation.query), *_in_path(operation.path)],
        "responses": {
            str(operation.status): _answer(operation.answer),
            "default": {
                "description": "A refusal; `x-sb-error-code` repeats its code",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
            },
        },
    }
    if operation.body:
        schema = {
            "type": "object",
            "properties": {name: _types[kind] for name, kind in operation.body.items()},
            "required": [name for name, kind in operation.body.items() if kind.endswith("*")],
        }
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return found


def _answer(name: str) -> Json:
    if name == "None":
        return {"description": "Done"}
    if name == "Page":
        return {"description": "A page", "content": {"text/html": {"schema": {"type": "string"}}}}
    schema = {"$ref": f"#/components/schemas/{name}"}
    return {"description": "Done", "content": {"application/json": {"schema": schema}}}


def _query(name: str) -> Json:
    bare = name.rstrip("*")
    return {
        "name": bare,
        "in": "query",
        "required": bare != name,
        "schema": _choices.get(bare, {"type": "string"}),
    }


def _in_path(path: str) -> list[Json]:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    uuid = {"type": "string", "format": "uuid"}
    return [{"name": name, "in": "path", "required": True, "schema": uuid} for name in names]
