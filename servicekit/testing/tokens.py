"""Access tokens that tests mint, and the keys that prove them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import jwt

from servicekit.authn import Credential, SessionState
from servicekit.clock import Clock, SystemClock, uuid7
from servicekit.errors import Unauthenticated
from servicekit.keyset import KeySet, SigningKey, generate
from servicekit.principal import Principal
from servicekit.tokens import Issuer, JwtVerifier, TokenInvalid


class StaticKeys:
    """Published keys without a server to publish them: stands in for `tokens.KeyCache`."""

    def __init__(self, *keys: SigningKey) -> None:
        self._keys = {jwk["kid"]: jwt.PyJWK(jwk) for jwk in KeySet(keys).public_jwks(0)["keys"]}

    async def get(self, kid: str) -> jwt.PyJWK:
        """See `KeyCache.get`."""
        if kid not in self._keys:
            raise TokenInvalid
        return self._keys[kid]


class TokenMint:
    """An issuer of access tokens for tests, and the verifier that trusts it."""

    def __init__(self, issuer: str = "http://issuer.test/auth/v1", clock: Clock | None = None) -> None:
        self.clock = clock or SystemClock()
        self.issuer = Issuer(issuer, "http://issuer.test/jwks")
        self.key = generate("ES256", int(self.clock.time()))

    def verifier(self) -> JwtVerifier:
        """A verifier that trusts this issuer alone and needs no network."""
        return JwtVerifier([self.issuer], clock=self.clock, keys={self.issuer.name: StaticKeys(self.key)})

    def claims(self, user_id: UUID | None = None, **changes: Any) -> dict[str, Any]:
        """The claims of a good token of a user; `changes` replace or (as `None`) remove some."""
        now = int(self.clock.time())
        claims = {
            "iss": self.issuer.name,
            "aud": self.issuer.audience,
            "sub": str(user_id or uuid7()),
            "role": "authenticated",
            "session_id": str(uuid7()),
            "aal": "aal1",
            "mfa": False,
            "amr": [{"method": "password", "timestamp": now}],
            "assurance_version": 0,
            "iat": now,
            "exp": now + 3600,
            **changes,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, user_id: UUID | None = None, **changes: Any) -> str:
        """A signed token of these claims."""
        key: Any = self.key.key
        return jwt.encode(
            self.claims(user_id, **changes), key, algorithm="ES256", headers={"kid": self.key.kid}
        )


class FakeSessions:
    """Sessions' states in memory: see `servicekit.authn.Sessions`."""

    def __init__(self) -> None:
        self.revoked: set[str] = set()
        self.lowered: dict[str, int] = {}
        self.unprotected: set[str] = set()

    async def states(self, session_ids: Any) -> list[SessionState]:
        """See `Sessions.states`."""
        return [
            SessionState(one in self.revoked, self.lowered.get(one, 0), one not in self.unprotected)
            for one in session_ids
        ]


class FakeKeys:
    """Good API keys and their principals: see `servicekit.authn.KeyValidator`."""

    def __init__(self, known: dict[str, Principal] | None = None) -> None:
        self.known = known or {}

    async def validate(self, credential: Credential) -> Principal:
        """See `KeyValidator.validate`."""
        found = self.known.get(credential.secret)
        if found is None:
            raise Unauthenticated("No such key.", reason="KEY_UNKNOWN")
        return found
