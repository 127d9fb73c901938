"""From a request's metadata to a `Principal`.

A request presents one credential, in one of these places:

* `x-api-key: <API key>`;
* `authorization: Bearer <token>`: an access token if it has the shape of a JWT, else an API key;
* `authorization: Basic <base64 of KEY:>`: an API key as the user name, without a password (`curl -u KEY:`).

More than one is refused (CREDENTIAL_AMBIGUOUS), even if they are equal: a header that stands twice, values
that were joined with a comma, or `x-api-key` beside an API key in `authorization`. The one exception is an
access token beside `x-api-key`: Supabase's clients send one with every call, and the key then counts.
`apikey`, which those clients send as well, is no credential here.

Failures are `Unauthenticated` with the reason CREDENTIAL_MISSING, CREDENTIAL_MALFORMED,
CREDENTIAL_AMBIGUOUS, TOKEN_INVALID, TOKEN_EXPIRED, TOKEN_AUDIENCE, SESSION_REVOKED or one of the key
service's own (KEY_MALFORMED, KEY_UNKNOWN, KEY_REVOKED, KEY_EXPIRED, …). What cannot be looked up is refused
with `Unavailable`.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final, Literal, NamedTuple, Protocol

from servicekit import context, headers
from servicekit.apikey import TOKEN_MAX_LENGTH, KeyMalformed
from servicekit.errors import SigngateError, Unauthenticated
from servicekit.principal import Principal
from servicekit.telemetry import CREDENTIALS

Metadata = Iterable[tuple[str, str | bytes]]


MAX_CREDENTIAL: Final = headers.EDGE
"""Bytes of a credential's header: what the edge takes of all headers. Outside issuers' tokens may be long."""
_longest_basic: Final = (TOKEN_MAX_LENGTH + 1 + 2) // 3 * 4
"""Characters of the longest key and a colon, in base64."""


class Credential(NamedTuple):
    """A secret as presented. `client_ip`: the caller's address, "" when unknown."""

    kind: Literal["key", "jwt"]
    secret: str
    client_ip: str

    def __repr__(self) -> str:
        return f"Credential({self.kind!r})"


class KeyValidator(Protocol):
    """Whoever can tell good API keys from bad ones: the keys service, through its client."""

    async def validate(self, credential: Credential) -> Principal:
        """The key's principal. Raises `Unauthenticated` or `Unavailable`."""
        ...


class TokenVerifier(Protocol):
    """Whoever can tell good access tokens from bad ones: see `servicekit.tokens`."""

    async def verify(self, token: str) -> Principal:
        """The token's principal, its session not yet looked at. Raises `Unauthenticated`."""
        ...


class SessionState(NamedTuple):
    """What has happened to a session since its tokens were made.

    `denied`: it was revoked. `lowered`: its tokens with a lower assurance version count as `aal1` tokens; 0
    if there are none. `has_factor`: whether they count as tokens of an account with a second factor.
    `proved_at`: for them, when the user last proved their identity by what still counts; in epoch seconds.
    """

    denied: bool = False
    lowered: int = 0
    has_factor: bool = True
    proved_at: int = 0


class Sessions(Protocol):
    """Which sessions have been revoked, or lowered, before their tokens ran out."""

    async def states(self, session_ids: Sequence[str]) -> Sequence[SessionState]:
        """The state of each, in one round trip. Raises `Unavailable`."""
        ...


class CredentialAmbiguous(Unauthenticated):
    """More than one credential: which one the caller means is not for us to guess."""

    reason = "CREDENTIAL_AMBIGUOUS"
    message = (
        "The request has more than one credential. Send exactly one: x-api-key: <key>, or"
        " authorization: Bearer <credential>, each at most once."
    )


def find_credential(metadata: Metadata) -> Credential | None:
    """The credential a request presents, `None` when there is none. Does no I/O.

    Its address is that of the current call (see `servicekit.edge`). Names in `metadata` are lower case, as
    gRPC and ASGI give them; a header without a value does not count. Raises `CredentialAmbiguous`, and
    `Unauthenticated` (CREDENTIAL_MALFORMED) for an `authorization` header of another form and for a header
    longer than `MAX_CREDENTIAL`, or (KEY_MALFORMED) for a key that is longer than any. All before they are
    read.
    """
    key = bearer = ""
    for name, value in metadata:
        if name == "x-api-key":
            key = _one(value, key)
        elif name == "authorization":
            bearer = _one(value, bearer)
    if not bearer:
        return _key(key) if key else None
    scheme, _, secret = bearer.partition(" ")
    secret = secret.strip()
    is_jwt = secret.startswith("eyJ") and secret.count(".") == 2  # noqa: PLR2004  # RFC 7519: 3 parts
    if scheme.lower() == "bearer" and is_jwt:
        return _key(key) if key else Credential("jwt", secret, context.client_ip())
    if key:
        raise CredentialAmbiguous
    if scheme.lower() == "bearer" and secret:
        return _key(secret)
    if scheme.lower() == "basic" and secret:
        return _key(_user_name(secret))
    raise Unauthenticated(
        "The authorization header must read: Bearer <credential>.", reason="CREDENTIAL_MALFORMED"
    )


def _one(value: str | bytes, known: str) -> str:
    """The value of a header of which `known` has been seen before."""
    # Bytes are what no text could be made of: no credential has such, and it fails as what it looks like.
    found = (value if isinstance(value, str) else value.decode("latin-1")).strip()
    if not found:
        return known
    if len(found) > MAX_CREDENTIAL:
        raise Unauthenticated(
            "The credential is longer than any that is valid.", reason="CREDENTIAL_MALFORMED"
        )
    # Proxies join a header that stands twice: no credential has a comma in it.
    if known or "," in found:
        raise CredentialAmbiguous
    return found


def _user_name(encoded: str) -> str:
    """The key in Basic credentials (RFC 7617) that have a user name and an empty password."""
    if len(encoded) <= _longest_basic:
        with suppress(ValueError):
            text = b64decode(encoded, validate=True).decode("ascii")
            key, colon, password = text.partition(":")
            if key and colon and not password:
                return key
    raise Unauthenticated(
        "Basic credentials must have an API key as the user name and no password, as in: curl -u KEY:",
        reason="CREDENTIAL_MALFORMED",
    )


def _key(secret: str) -> Credential:
    if len(secret) > TOKEN_MAX_LENGTH:
        raise KeyMalformed
    return Credential("key", secret, context.client_ip())


class CredentialAuthenticator:
    """The authenticator of every service: API keys by the key service, access tokens here.

    Either may be `None` where a service takes only the other kind (the keys service validates keys
    in its own process). Costs one round trip: to the key service for a key, to Redis for a token.
    """

    def __init__(
        self, tokens: TokenVerifier | None, sessions: Sessions | None, keys: KeyValidator | None
    ) -> None:
        if tokens is not None and sessions is None:
            raise ValueError("tokens without a look at revoked sessions would outlive sign-out")
        self._tokens = tokens
        self._sessions = sessions
        self._keys = keys

    async def authenticate(self, metadata: Metadata) -> Principal:
        """The caller. Raises `Unauthenticated` or `Unavailable`; see the module's list."""
        credential = find_credential(metadata)
        if credential is None:
            raise _missing()
        kind = credential.kind
        try:
            principal = await self._by_kind(credential)
        except SigngateError as error:
            CREDENTIALS.labels(kind, error.reason).inc()
            raise
        CREDENTIALS.labels(kind, "OK").inc()
        return principal

    async def _by_kind(self, credential: Credential) -> Principal:
        if credential.kind == "key":
            if self._keys is None:
                raise Unauthenticated("API keys are not taken here.", reason="ACCESS_TOKEN_REQUIRED")
            return await self._keys.validate(credential)
        if self._tokens is None or self._sessions is None:
            raise Unauthenticated("Access tokens are not taken here.", reason="API_KEY_REQUIRED")
        principal = await self._tokens.verify(credential.secret)
        if principal.session_id is not None:
            (state,) = await self._sessions.states((str(principal.session_id),))
            return held_to(principal, state)
        return principal


def held_to(principal: Principal, state: SessionState) -> Principal:
    """The principal as its session is now. Raises `SessionRevoked`."""
    if state.denied:
        raise SessionRevoked
    if principal.assurance_version < state.lowered:
        proved_at = min(principal.proved_at, state.proved_at)
        return replace(principal, aal="aal1", has_factor=state.has_factor, proved_at=proved_at)
    return principal


class SessionRevoked(Unauthenticated):
    """The token's session was signed out or revoked."""

    reason = "SESSION_REVOKED"
    message = "This session has been signed out."


def _missing() -> Unauthenticated:
    return Unauthenticated(
        "Send an access token or an API key: authorization: Bearer <credential>, or x-api-key: <key>.",
        reason="CREDENTIAL_MISSING",
    )


DENIED_PREFIX: Final = "session:denied:"
"""Redis key prefix of a revoked session; the key lives as long as the session's last token."""
LOWERED_PREFIX: Final = "session:lowered:"
"""Redis key prefix of a session whose assurance changed. The value is `<version>:<1 or 0>:<epoch seconds>`:
the version since, whether the account has a second factor, and the newest proof that still counts. The key
lives as long as older tokens.
"""
