"""Access tokens: ES256 JWTs by the key set's present key, in the shape that Supabase's clients know."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import jwt

from servicekit import headers
from servicekit.clock import Clock, Ids
from servicekit.keyset import KeySetFile
from servicekit.tokens import TokenInvalid
from services.auth.domain import Json, Session, User

MAX_AMR: Final = 10
"""Proofs of identity that a token tells of, the newest first."""
_MAX_CONTENT: Final = (headers.TOKEN - 512) * 3 // 4  # in base64, beside the token's header and signature
_PLATFORM: Final = ("provider", "providers", "tier")


class AccessTokens:
    """Mints tokens that live for `ttl` seconds, and knows the public keys that prove them.

    A token has at most `headers.TOKEN` bytes, for it goes along with every request. Metadata that does not
    fit is left out; the claim `metadata_omitted` then names which, and the account's own page has it all.
    """

    def __init__(
        self, keys: KeySetFile, clock: Clock, ids: Ids, *, issuer: str, audience: str, ttl: int
    ) -> None:
        self._keys, self._clock, self._ids = keys, clock, ids
        self._issuer, self._audience = issuer, audience
        self.ttl = ttl

    def for_session(self, user: User, session: Session) -> tuple[str, int]:
        """A user's token and when it ends, in epoch seconds."""
        now = int(self._clock.time())
        claims = {
            "sub": str(user.id),
            "email": user.email,
            "phone": "",
            "role": user.role,
            "aal": session.aal,
            "mfa": user.has_factor,
            "assurance_version": session.assurance_version,
            "amr": [{"method": method, "timestamp": at} for method, at in session.amr[:MAX_AMR]],
            "session_id": str(session.id),
            "is_anonymous": False,
        }
        claims |= self._standard(now, now + self.ttl)
        content = b""
        for metadata in _metadata(user):
            content = _json({**claims, **metadata})
            if len(content) <= _MAX_CONTENT:
                break
        return self._signed(content), now + self.ttl

    def for_service_role(self, ttl: int) -> str:
        """An operator's token: nobody's login, in no session, so it ends by time alone."""
        now = int(self._clock.time())
        return self._signed(_json({"role": "service_role", **self._standard(now, now + ttl)}))

    def jwks(self) -> dict[str, Any]:
        """The public keys as a JWK Set."""
        return self._keys.public_jwks()

    def _standard(self, now: int, ends: int) -> Json:
        return {
            "iss": self._issuer,
            "aud": self._audience,
            "iat": now,
            "exp": ends,
            "jti": str(self._ids.uuid7()),
        }

    def _signed(self, content: bytes) -> str:
        signing = self._keys.active("ES256")
        key: Any = signing.key
        return jwt.PyJWS().encode(content, key, algorithm="ES256", headers={"kid": signing.kid})


def _json(claims: Json) -> bytes:
    # Letters as they are: escaped, one of most languages would take six characters or twelve.
    return json.dumps(claims, ensure_ascii=False, separators=(",", ":")).encode()


class OwnKeys:
    """The service's own published keys, read in place: see `servicekit.tokens.KeyCache`."""

    def __init__(self, keys: KeySetFile) -> None:
        self._keys = keys

    async def get(self, kid: str) -> jwt.PyJWK:
        """The key of this id. Raises `TokenInvalid`."""
        found = self._keys.find(kid)
        if found is None or found.alg != "ES256":
            raise TokenInvalid
        return jwt.PyJWK(found.public_jwk())


def app_metadata(user: User) -> Json:
    """What administrators wrote of a user, and what the platform knows: provider and tier."""
    providers = sorted({identity.provider for identity in user.identities}) or ["email"]
    return {**user.app_metadata, "provider": providers[0], "providers": providers, "tier": user.tier}


def _metadata(user: User) -> Iterator[Json]:
    """The claims that users and administrators write, whole at first, then less and less of them.

    What administrators wrote goes only when it alone is too long: it is not for the user to push out.
    """
    platform = {name: value for name, value in app_metadata(user).items() if name in _PLATFORM}
    for app, own in ((True, True), (True, False), (False, True), (False, False)):
        omitted = [name for name, kept in (("app_metadata", app), ("user_metadata", own)) if not kept]
        yield {
            "app_metadata": app_metadata(user) if app else platform,
            "user_metadata": user.user_metadata if own else {},
            **({"metadata_omitted": omitted} if omitted else {}),
        }
