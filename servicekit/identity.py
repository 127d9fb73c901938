"""A service's credential: short-lived JWTs that authenticate it to one other service.

Each service has its own private key set (`SIGNGATE_SERVICE_KEY`, created and rotated as `servicekit.keyset`
describes). For each service that it calls it signs a JWT

    {"typ": "service+jwt", "alg": "EdDSA", "kid": …}  {"iss": "signer", "aud": "quota", "iat": …, "exp": …}

and sends it with every call as the metadata `x-signgate-service`. One token serves all calls to one service
for half of its lifetime, so that a call costs no signature. `servicekit.rpc.callers` verifies them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import jwt

from servicekit.clock import Clock, SystemClock
from servicekit.errors import Unavailable
from servicekit.keyset import Algorithm, KeySet, KeySetError, KeySetFile

HEADER: Final = "x-signgate-service"
"""The metadata key of the credential."""
ALGORITHM: Final[Algorithm] = "EdDSA"
TYPE: Final = "service+jwt"
"""The `typ` of these tokens, which no access token has (RFC 8725, section 3.11)."""
LIFE: Final = 300
"""Seconds from `iat` to `exp`. Half of that is also the age at which a token is replaced."""


class IdentityUnavailable(Unavailable):
    """The calling service has no valid signing key, so it cannot authenticate itself."""

    reason = "SERVICE_IDENTITY_UNAVAILABLE"
    message = "This service can't prove its identity right now. Try again shortly."


class _Made(NamedTuple):
    """A credential in use. `keys`: the key set that signed it; `until`: epoch seconds."""

    keys: KeySet
    until: float
    pair: tuple[str, str]

    def __repr__(self) -> str:
        return f"_Made(until={self.until})"


class Identity:
    """Mints this service's credentials. `name` is the service's, such as `signer`.

    Raises `KeySetError` when the key file is missing or wrong, or none of its keys signs now.
    """

    def __init__(self, name: str, key: Path, clock: Clock | None = None) -> None:
        self.name = name
        self._clock = clock or SystemClock()
        self._keys = KeySetFile(key, self._clock)
        self._made: dict[str, _Made] = {}
        self._keys.active(ALGORITHM)

    def __repr__(self) -> str:
        return f"Identity({self.name!r})"

    def pair(self, audience: str) -> tuple[str, str]:
        """The metadata to send with a call to the service `audience`. Raises `IdentityUnavailable`.

        A changed key file is seen within a second: then a new token is signed at once.
        """
        made = self._made.get(audience)
        keys = self._keys.current()
        if made is None or made.keys is not keys or self._clock.time() >= made.until:
            made = self._made[audience] = self._make(audience, keys)
        return made.pair

    def _make(self, audience: str, keys: KeySet) -> _Made:
        now = self._clock.time()
        try:
            key = keys.active(ALGORITHM, now)
        except KeySetError as error:
            raise IdentityUnavailable(retry_after=1.0) from error
        issued = int(now)
        claims = {"iss": self.name, "aud": audience, "iat": issued, "exp": issued + LIFE}
        private: Any = key.key
        token = jwt.encode(claims, private, ALGORITHM, headers={"kid": key.kid, "typ": TYPE})
        # A key that begins to sign sooner is used from then on.
        begins = [other.nbf for other in keys.keys if other.alg == ALGORITHM and other.nbf > now]
        return _Made(keys, min([now + LIFE / 2, *begins]), (HEADER, token))


def published(services: Mapping[str, KeySet], now: float) -> str:
    """What `SIGNGATE_SERVICE_KEYS` holds: the public halves of every service's keys, but for retired ones."""
    document = {
        name: {
            "keys": [
                key.public_jwk() | ({} if key.exp is None else {"exp": key.exp})
                for key in keys.keys
                if key.alg == ALGORITHM and not key.retired(now)
            ]
        }
        for name, keys in services.items()
    }
    return json.dumps(document, indent=2) + "\n"


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a channel. `name`: the called service, whose certificate must be for this name.

    `identity`: the calling service, whose credential is sent. `ca`: a file with the authority of the peer's
    certificate; without it the connection is in plain text.
    """

    name: str
    identity: Identity = field(repr=False)
    ca: Path | None = None
