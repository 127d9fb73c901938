"""What strangers' bytes meet first, each as a function of bytes that may only do what it declares.

`make fuzz` drives them by coverage (`run.py`), `test_targets.py` by hypothesis in every test run. A target
raises for a fault and returns what became of the input, so that tests can see that it is reached.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Coroutine, Mapping, MutableMapping
from typing import Any, Final, NoReturn, TypeVar, cast
from uuid import UUID

import jwt
from argon2 import PasswordHasher
from starlette.applications import Starlette

from servicekit import apikey
from servicekit.authn import find_credential
from servicekit.edge import Edge
from servicekit.errors import InvalidArgument, Unauthenticated
from servicekit.principal import ALL_SCOPES, Principal
from servicekit.testing.clock import ManualClock
from servicekit.testing.tokens import TokenMint
from services.auth import hash_formats
from services.auth.errors import ValidationFailed
from services.auth.http.app import create_app
from services.auth.http.openapi import OPERATIONS
from services.auth.service import AuthService
from services.keys.derived import DerivedTokens
from services.keys.peppers import Keyring

T = TypeVar("T")
Target = Callable[[bytes], str]

USER: Final = UUID(int=7)
MINT: Final = TokenMint(clock=ManualClock())
VERIFIER: Final = MINT.verifier()
DERIVED: Final = DerivedTokens(Keyring({1: b"1" * 32}), ManualClock())
CHEAP: Final = hash_formats.ImportLimits(4, 64, 1, 1)
HASHER: Final = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
KEPT: Final = (
    "$2b$04$4UPnnfKAylZ3t4v4nBum.OewpGmiohAXzpeF60TemGSrQ4xKQilfa",
    "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$YvCoPZMTmYa5EDyNQ4P6yZKJD0hJ4zC0y2NUh0NnJlU",
)
WITH_BODY: Final = [operation for operation in OPERATIONS if operation.body]


def key(data: bytes) -> str:
    """The key parser: any text is a key or `KeyMalformed`; a key survives being taken apart."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        apikey.check(text)
        if apikey.is_token(text):
            return "a token's shape"
        found = apikey.id_of(apikey.id_text(text))
    except apikey.KeyMalformed:
        return "malformed"
    assert apikey.text_of(found) == text[9:31]
    assert len(text) == apikey.KEY_LENGTH
    return apikey.mode_of(text)


def credential(data: bytes) -> str:
    """A header's value, as ASGI gives it: a credential or a declared refusal; never a principal."""
    try:
        found = find_credential([("authorization", data.decode("latin-1"))])
    except Unauthenticated as refused:
        return refused.reason
    if found is None:
        return "none"
    assert repr(found) == f"Credential({found.kind!r})"
    return token(found.secret.encode()) if found.kind == "jwt" else key(found.secret.encode())


def token(data: bytes) -> str:
    """The token parsers: nobody but the issuer makes a good one, and no text makes another error."""
    text = data.decode("utf-8", "surrogateescape")
    outcomes = []
    for verify in (lambda: run(VERIFIER.verify(text)), lambda: DERIVED.verify(text)):
        try:
            verify()
        except Unauthenticated as refused:
            outcomes.append(refused.reason)
        else:
            raise AssertionError("a token that nobody made is good")
    return outcomes[0]


def claims(data: bytes) -> str:
    """What a trusted issuer signs may still be nonsense: a principal or a declared refusal."""
    signing: Any = MINT.key.key
    signed = jwt.api_jws.encode(data, signing, algorithm="ES256", headers={"kid": MINT.key.kid})
    try:
        return str(run(VERIFIER.verify(signed)).role)
    except Unauthenticated as refused:
        return refused.reason


def body(data: bytes) -> str:
    """A request's body at every operation that takes one: never a server error.

    The first byte chooses the operation, the second between JSON and a form; the rest is the body.
    Behind the handlers stand use cases that only say that they were reached.
    """
    if len(data) < 2:  # the choice of the operation and of the form
        return "too short"
    operation = WITH_BODY[data[0] % len(WITH_BODY)]
    form = data[1] % 2 == 1
    path = operation.path
    for name in ("{session_id}", "{factor_id}", "{user_id}"):
        path = path.replace(name, str(USER))
    kind = b"application/x-www-form-urlencoded" if form else b"application/json"
    query = b"grant_type=" + (b"password", b"refresh_token", b"pkce")[data[1] // 2 % 3]
    status, answer, headers = run(asked(operation.method, path, query, kind, data[2:]))
    assert status < 500, (operation.method, operation.path, kind, data[2:], answer)
    if status == 303:  # the page's button leads on
        return "redirected"
    found = json.loads(answer)
    assert headers["x-sb-error-code"] == found["error_code"]
    return str(found["error_code"])


def form(data: bytes) -> str:
    """The body of the page's button."""
    number = next(n for n, operation in enumerate(WITH_BODY) if operation.path == "/verify")
    return body(bytes([number, 1]) + data)


def imported_hash(data: bytes) -> str:
    """A password hash from elsewhere: `ValidationFailed`, or taken, and then it can be verified."""
    text = data.decode("utf-8", "replace")
    try:
        hash_formats.checked(text, CHEAP)
    except ValidationFailed:
        assert text not in KEPT
        return "refused"
    return str(hash_formats.verified(HASHER, text, "ten green bottles"))


TARGETS: Final[Mapping[str, Target]] = {
    "key": key,
    "credential": credential,
    "token": token,
    "claims": claims,
    "body": body,
    "form": form,
    "hash": imported_hash,
}


def seeds() -> Mapping[str, list[bytes]]:
    """Inputs near to what is good, from which mutation goes on."""
    good = apikey.mint("live", UUID(int=5), _Ones()).encode()
    minted, derived = MINT.token(USER), DERIVED.mint(UUID(int=5), ("sign",), 2e9, UUID(int=6))
    head, payload, signature = minted.split(".")
    unsigned = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=").decode()
    torn = [
        f"{head}.{payload}.{signature[:-4]}",
        f"{unsigned}.{payload}.",
        f"{head}..{signature}",
        derived[:-4],
    ]
    examples = {"text": "a@example.com", "flag": True, "object": {"a": [1]}}
    bodies = [
        bytes([n, form])
        + json.dumps(
            {name: examples.get(kind.rstrip("*"), "signup") for name, kind in o.body.items()}
        ).encode()
        for n, o in enumerate(WITH_BODY)
        for form in (0, 1)
    ]
    return {
        "key": [good, good[:-1], good.replace(b"live", b"test"), derived.encode()],
        "credential": [b"Bearer " + each.encode() for each in torn] + [b"Bearer " + good, b"Basic dTpw"],
        "token": [each.encode() for each in torn],
        "claims": [json.dumps(MINT.claims(USER)).encode(), b'{"iss":"http://issuer.test/auth/v1"}', b"[]"],
        "body": bodies,
        "form": [b"type=signup&token=x&redirect_to=http%3A%2F%2Fapp.test%2F", b"a=1&" * 30],
        "hash": [text.encode() for text in KEPT],
    }


class _Ones:
    def token_bytes(self, length: int) -> bytes:
        return b"\1" * length


class _Reached(InvalidArgument):
    reason = "REACHED"
    message = "The request came through to its use case."


class _UseCases:
    """All use cases, and the rules a redirect is checked by: each call ends here."""

    def __getattr__(self, name: str) -> Any:
        return self

    def redirect(self, wanted: str) -> str:
        return "http://site.test"

    def __call__(self, *_: object, **__: object) -> Any:
        return self._reached()

    async def _reached(self) -> NoReturn:
        raise _Reached


class _Anyone:
    """Lets in a user who is an operator as well: it is the bodies that are looked at."""

    async def authenticate(self, metadata: object) -> Principal:
        return Principal(USER, role="service_role", scopes=ALL_SCOPES, session_id=UUID(int=8), aal="aal2")


APP: Final[Starlette] = create_app(cast("AuthService", _UseCases()), _Anyone(), Edge())


async def asked(
    method: str, path: str, query: bytes, kind: bytes, content: bytes
) -> tuple[int, bytes, dict[str, str]]:
    """One request to the application itself, without a socket."""
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": f"/auth/v1{path}", "raw_path": b"", "root_path": "", "query_string": query,
        "headers": [(b"host", b"face.test"), (b"content-type", kind)],
        "client": ("127.0.0.1", 1), "server": ("face.test", 80),
    }  # fmt: skip
    parts: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": content, "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        parts.append(message)

    await APP(scope, receive, send)
    headers = {name.decode(): value.decode() for name, value in parts[0]["headers"]}
    return parts[0]["status"], b"".join(part.get("body", b"") for part in parts[1:]), headers


def run(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine. Raises what it raises."""
    return _loop.run_until_complete(work)


_loop = asyncio.new_event_loop()
