"""Access tokens: ES256 JWTs by the key set's present key, in the shape that Supabase's clients know."""

from __future__ import annotations

from typing import Any

import jwt

from servicekit.clock import Clock, Ids
from servicekit.keyset import KeySetFile
from servicekit.tokens import TokenInvalid
from services.auth.domain import Json, Session, User


class AccessTokens:
    """Mints tokens that live for `ttl` seconds, and knows the public keys that prove them."""

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
            "app_metadata": app_metadata(user),
            "user_metadata": user.user_metadata,
            "role": user.role,
            "aal": session.aal,
            "mfa": user.has_factor,
            "assurance_version": session.assurance_version,
            "amr": [{"method": method, "timestamp": at} for method, at in session.amr],
            "session_id": str(session.id),
            "is_anonymous": False,
        }
        return self._signed(claims, now, now + self.ttl), now + self.ttl

    def for_service_role(self, ttl: int) -> str:
        """An operator's token: nobody's login, in no session, so it ends by time alone."""
        now = int(self._clock.time())
        return self._signed({"role": "service_role"}, now, now + ttl)

    def jwks(self) -> dict[str, Any]:
        """The public keys as a JWK Set."""
        return self._keys.public_jwks()

    def _signed(self, claims: Json, now: int, ends: int) -> str:
        signing = self._keys.active("ES256")
        key: Any = signing.key
        standard = {
            "iss": self._issuer,
            "aud": self._audience,
            "iat": now,
            "exp": ends,
            "jti": str(self._ids.uuid7()),
        }
        return jwt.encode({**claims, **standard}, key, algorithm="ES256", headers={"kid": signing.kid})


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
