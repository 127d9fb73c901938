from __future__ import annotations

from typing import Any, cast

import httpx
import pytest
from starlette.requests import Request

from servicekit.edge import Edge
from servicekit.errors import Internal, ResourceExhausted, Unauthenticated
from servicekit.principal import Principal
from servicekit.rpc.policy import policies
from services.auth import errors
from services.auth.http.app import create_app, routes
from services.auth.http.limits import LIMITS
from services.auth.http.openapi import OPERATIONS, document
from services.auth.http.refusals import code_of, refusal, status_of
from services.auth.http.routing import ACCOUNTS, ADMIN, Routes
from services.auth.service import AuthService
from tests.unit.auth.test_rules import RULES


class Nobody:
    async def authenticate(self, metadata: object) -> Principal:
        raise Unauthenticated(reason="CREDENTIAL_MISSING")


class Nothing:
    """Use cases that no test here reaches."""

    rules = RULES

    def __getattr__(self, name: str) -> Any:
        return self


async def ask(method: str, path: str, body: Any = None) -> httpx.Response:
    transport = httpx.ASGITransport(create_app(face(), Nobody(), Edge()), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://face.test/auth/v1") as client:
        return await client.request(method, path, json=body)


def face() -> AuthService:
    return cast("AuthService", Nothing())


async def test_a_parameter_that_stands_twice_is_refused() -> None:
    """S25: which of two one-time tokens counts is not for us to guess."""
    for path in ("/verify?token=a&type=signup&token=b", "/verify?token=a&%74oken=a&type=signup"):
        answer = await ask("GET", path)
        assert answer.status_code == 400
        assert answer.json()["error_code"] == "validation_failed"
        assert "token" in answer.json()["msg"]
    transport = httpx.ASGITransport(create_app(face(), Nobody(), Edge()), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://face.test/auth/v1") as client:
        kind = {"content-type": "application/x-www-form-urlencoded"}
        answer = await client.post("/verify", content="token=a&type=signup&token=b", headers=kind)
    assert answer.status_code == 400
    assert "token" in answer.json()["msg"]


def test_the_document_has_every_served_path_and_no_other() -> None:
    served = {
        (method, route.path)
        for route in routes(face(), Nobody(), Edge())
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert served == {(operation.method, operation.path) for operation in OPERATIONS}


def test_every_rpc_stands_behind_some_path() -> None:
    """A use case that only one face has would be a surprise. GetJwks is the set itself."""
    import inspect  # noqa: PLC0415

    from services.auth.http import app  # noqa: PLC0415

    source = inspect.getsource(app.routes)
    public = {"SignUp", "SignIn", "SendOtp", "Verify", "Resend", "Recover", "ExchangeCode", "RefreshSession"}
    missing = [
        name
        for service, constant in ((ACCOUNTS, "ACCOUNTS"), (ADMIN, "ADMIN"))
        for name in policies(service)
        if name not in public | {"GetJwks"} and f"{{{constant}}}/{name}" not in source
    ]
    assert missing == []


@pytest.mark.parametrize("operation", [o for o in OPERATIONS if o.needs != "public"], ids=str)
async def test_what_is_not_public_refuses_who_shows_nothing(operation: Any) -> None:
    path = operation.path
    for name in ("session_id", "factor_id", "user_id"):
        path = path.replace(f"{{{name}}}", "0" * 32)
    answer = await ask(operation.method, path)
    assert answer.status_code == 401
    assert answer.headers["x-sb-error-code"] == "no_authorization"


def test_the_document_names_only_schemas_that_it_has() -> None:
    found = document()

    def refs(value: object) -> list[str]:
        if isinstance(value, dict):
            here = [value["$ref"]] if "$ref" in value else []
            return here + [ref for each in value.values() for ref in refs(each)]
        return [ref for each in value for ref in refs(each)] if isinstance(value, list) else []

    names = {ref.removeprefix("#/components/schemas/") for ref in refs(found["paths"])}
    assert names <= found["components"]["schemas"].keys()


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.InvalidCredentials(), 400, "invalid_credentials"),
        (errors.EmailNotConfirmed(), 400, "email_not_confirmed"),
        (errors.RefreshTokenNotFound(), 400, "refresh_token_not_found"),
        (errors.RefreshTokenAlreadyUsed(), 400, "refresh_token_already_used"),
        (errors.SessionExpired(), 400, "session_expired"),
        (errors.ValidationFailed("x", "y"), 400, "validation_failed"),
        (errors.InsufficientAal(), 401, "insufficient_aal"),
        (errors.ReauthenticationNeeded(), 400, "reauthentication_needed"),
        (errors.OtpExpired(), 403, "otp_expired"),
        (errors.UserBanned(), 403, "user_banned"),
        (errors.WeakPassword(["length"], 8), 422, "weak_password"),
        (errors.EmailExists(reason="USER_ALREADY_EXISTS"), 422, "user_already_exists"),
        (errors.SamePassword(), 422, "same_password"),
        (errors.SignupDisabled(), 422, "signup_disabled"),
        (errors.RequestRateLimit(), 429, "over_request_rate_limit"),
        (errors.EmailRateLimit(), 429, "over_email_send_rate_limit"),
        (Unauthenticated(reason="TOKEN_EXPIRED"), 403, "bad_jwt"),
        (Unauthenticated(reason="SESSION_REVOKED"), 403, "session_not_found"),
        (Internal(), 500, "unexpected_failure"),
    ],
)
def test_an_error_has_the_status_and_code_that_clients_know(error: Any, status: int, code: str) -> None:
    assert (status_of(error), code_of(error)) == (status, code)


def test_a_limit_s_answer_says_how_long_to_wait() -> None:
    request = Request({"type": "http", "headers": []})
    answer = refusal(request, ResourceExhausted(retry_after=1.2))
    assert answer.headers["retry-after"] == "2"


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
async def test_a_query_is_held_to_its_limits_before_a_credential_is_looked_at(operation: Any) -> None:
    path = operation.path
    for name in ("session_id", "factor_id", "user_id"):
        path = path.replace(f"{{{name}}}", "0" * 32)
    for query in ("x=" + "%41" * 4000, "&".join(["x=1"] * 40)):
        answer = await ask(operation.method, f"{path}?{query}")
        assert (answer.status_code, answer.headers["x-sb-error-code"]) == (400, "validation_failed")


@pytest.mark.parametrize("operation", [o for o in OPERATIONS if o.body], ids=str)
async def test_a_body_over_its_route_s_limit_is_not_parsed(operation: Any) -> None:
    """By its stated length before a credential is looked at; by its real one while it is read."""
    limits = LIMITS[operation.method, operation.path]
    assert limits.body < 96 * 1024
    path = operation.path
    for name in ("session_id", "factor_id", "user_id"):
        path = path.replace(f"{{{name}}}", "0" * 32)
    answer = await ask(operation.method, path, {"x": "x" * limits.body})
    assert answer.status_code == 413


async def test_a_member_over_its_limit_is_named_and_not_quoted() -> None:
    answer = await ask("POST", "/otp", {"email": "a" * 255})
    assert (answer.status_code, answer.json()["error_code"]) == (400, "validation_failed")
    assert answer.json()["msg"].startswith("email: ")
    assert "aaa" not in answer.text


async def test_an_id_in_a_path_is_no_longer_than_one() -> None:
    answer = await ask("DELETE", f"/sessions/{'0' * 37}")
    assert (answer.status_code, answer.json()["error_code"]) == (400, "validation_failed")


def test_a_route_without_limits_can_not_be_registered() -> None:
    with pytest.raises(KeyError):
        Routes(Nobody(), Edge()).route("POST", "/new", cast("Any", None))


async def test_a_failure_tells_nothing_of_itself() -> None:
    """The handler falls over the stand-in above; what it was must not leave."""
    answer = await ask("POST", "/otp", {"email": "ann@example.com"})
    assert answer.status_code == 500
    assert answer.json()["error_code"] == "unexpected_failure"
    assert "Nothing" not in answer.text
    assert "ann@" not in answer.text
