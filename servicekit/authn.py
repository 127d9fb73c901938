"""From a request's metadata to a `Principal`.

A credential is looked for in this order, and only the first one found counts:

1. `x-api-key: <API key>`: whoever sends it means it, and a Supabase client's habit of sending a
   bearer token along with every call must not hide it;
2. `authorization: Bearer <token>`: an access token if it has the shape of a JWT, else an API key.

Failures are `Unauthenticated` with the reason CREDENTIAL_MISSING, CREDENTIAL_MALFORMED,
TOKEN_INVALID, TOKEN_EXPIRED, TOKEN_AUDIENCE, SESSION_REVOKED or one of the key service's own
(KEY_MALFORMED, KEY_UNKNOWN, KEY_REVOKED, KEY_EXPIRED, …). What cannot be looked up is refused with
`Unavailable`, never let through.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final, Literal, NamedTuple, Protocol

from servicekit import context
from servicekit.apikey import TOKEN_MAX_LENGTH, KeyMalformed
from servicekit.errors import SigngateError, Unauthenticated
from servicekit.principal import Principal
from servicekit.telemetry import CREDENTIALS

Metadata = Iterable[tuple[str, str | bytes]]


MAX_CREDENTIAL: Final = 16 * 1024
"""Bytes of a credential's header: what the edge takes of all headers. Access tokens carry metadata."""


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
    """

    denied: bool = False
    lowered: int = 0
    has_factor: bool = True


class Sessions(Protocol):
    """Which sessions have been revoked, or lowered, before their tokens ran out."""

    async def states(self, session_ids: Sequence[str]) -> Sequence[SessionState]:
        """The state of each, in one round trip. Raises `Unavailable`."""
        ...


def find_credential(metadata: Metadata) -> Credential | None:
    """The credential a request presents, `None` when there is none. Does no I/O.

    Its address is that of the current call (see `servicekit.edge`). Keys of `metadata` are lower case, as
    gRPC and ASGI give them. Raises `Unauthenticated` (reason CREDENTIAL_MALFORMED) for an `authorization`
    header of another scheme and for a header longer than `MAX_CREDENTIAL`, and (KEY_MALFORMED) for a key
    that is longer than any. Both before they are read.
    """
    key = bearer = ""
    for name, value in metadata:
        if name == "authorization":
            bearer = str(value)
        elif name == "x-api-key":
            key = str(value)
    if len(key) > MAX_CREDENTIAL or len(bearer) > MAX_CREDENTIAL:
        raise Unauthenticated(
            "The credential is longer than any that is valid.", reason="CREDENTIAL_MALFORMED"
        )
    if key:
        return _key(key.strip())
    if not bearer:
        return None
    scheme, _, secret = bearer.partition(" ")
    secret = secret.strip()
    if scheme.lower() != "bearer" or not secret:
        raise Unauthenticated(
            "The authorization header must read: Bearer <credential>.", reason="CREDENTIAL_MALFORMED"
        )
    is_jwt = secret.startswith("eyJ") and secret.count(".") == 2  # noqa: PLR2004  # RFC 7519: 3 parts
    return Credential("jwt", secret, context.client_ip()) if is_jwt else _key(secret)


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
        return replace(principal, aal="aal1", has_factor=state.has_factor)
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
"""Redis key prefix of a session whose assurance changed. The value is `<version>:<1 or 0>`: the version
since, and whether the account has a second factor. The key lives as long as older tokens.
"""
