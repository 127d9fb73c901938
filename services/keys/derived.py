"""Short-lived tokens that a key mints: `sgt_` and a JWT that only this service signs and reads.

A token holds when its signature is good, its time is not over, and its key holds: it goes through
the same record as its key, so it is refused as soon as its key is, and it can do no more than the
key may do at that moment. No database row stands for a token.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import jwt

from servicekit import apikey
from servicekit.apikey import TOKEN_PREFIX, KeyMalformed
from servicekit.clock import Clock
from services.keys.peppers import Keyring, hmac_sha256

ISSUER: Final = "signgate-keys"
_algorithm: Final = "HS256"


@dataclass(frozen=True, slots=True, eq=False)
class Token:
    """What a good token says; one object a token, as long as it is kept.

    `key` is the 22 characters of its key's id, `expires_at` epoch seconds.
    """

    key: str
    scopes: frozenset[str]
    expires_at: float


def token_keyring(peppers: Keyring) -> Keyring:
    """The secrets that sign tokens: one of each pepper, by a keyed hash, so that there is no further
    secret to keep. A token is as short-lived as the overlap of two peppers is long.
    """
    label = b"signgate derived tokens, 1"
    return Keyring({version: hmac_sha256(secret)(label) for version, secret in peppers.secrets.items()})


class DerivedTokens:
    """Mints and verifies. The last `size` verified tokens are kept, by their SHA-256 alone."""

    def __init__(self, keyring: Keyring, clock: Clock, *, size: int = 20_000) -> None:
        self._secrets = {str(version): secret for version, secret in keyring.secrets.items()}
        self._current = str(keyring.current)
        self._clock = clock
        self._size = size
        self._good: OrderedDict[bytes, Token] = OrderedDict()

    def mint(self, key_id: UUID, scopes: tuple[str, ...], expires_at: float, token_id: UUID) -> str:
        """A token of a key that holds until `expires_at` (epoch seconds)."""
        claims = {
            "iss": ISSUER,
            "sub": str(key_id),
            "scope": " ".join(scopes),
            "iat": int(self._clock.time()),
            "exp": expires_at,
            "jti": str(token_id),
        }
        headers = {"kid": self._current, "typ": "sgt+jwt"}
        return TOKEN_PREFIX + jwt.encode(claims, self._secrets[self._current], _algorithm, headers)

    def verify(self, presented: str) -> Token:
        """What the token says, its end not yet looked at. Raises `KeyMalformed`: not one of ours."""
        if len(presented) > apikey.TOKEN_MAX_LENGTH:
            raise KeyMalformed
        digest = hashlib.sha256(presented.encode("utf-8", "replace")).digest()
        known = self._good.get(digest)
        if known is not None:
            self._good.move_to_end(digest)
            return known
        apikey.check(presented)
        token = self._read(presented.removeprefix(TOKEN_PREFIX))
        self._good[digest] = token
        if len(self._good) > self._size:
            self._good.popitem(last=False)
        return token

    def _read(self, text: str) -> Token:
        try:
            version = jwt.get_unverified_header(text).get("kid")
            secret = self._secrets.get(version) if isinstance(version, str) else None
            if secret is None:
                raise KeyMalformed
            claims: dict[str, Any] = jwt.decode(
                text,
                secret,
                algorithms=[_algorithm],
                issuer=ISSUER,
                # The end is checked at every use, against our clock.
                options={"require": ["exp", "sub", "iss"], "verify_exp": False, "verify_iat": False},
            )
            key = apikey.text_of(UUID(claims["sub"]))
            return Token(key, frozenset(str(claims["scope"]).split()), float(claims["exp"]))
        except (jwt.PyJWTError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            # Signed by us these can't happen; unsigned they are anyone's text.
            raise KeyMalformed from None
