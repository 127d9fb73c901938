"""The keys of native signatures: `servicekit.keyset` says which signs when, these sign and verify."""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from nacl.bindings import crypto_sign, crypto_sign_BYTES, crypto_sign_seed_keypair

from servicekit import keyset
from servicekit.keyset import KeySet, KeySetError
from services.signer.domain import Algorithm, PublishedKey
from services.signer.engines.signed_url import KEY_ID

_JOSE_NAMES: Final[dict[Algorithm, keyset.Algorithm]] = {
    Algorithm.ED25519: "EdDSA",
    Algorithm.HMAC_SHA256: "HS256",
}


class Ed25519Key:
    """An Ed25519 key pair (RFC 8032). `retires` is in epoch seconds: no signature shall outlive it.

    libsodium signs, in two thirds of OpenSSL's time; OpenSSL verifies, so that each canary holds one
    against the other.
    """

    algorithm = Algorithm.ED25519
    __slots__ = ("_public", "_secret", "key_id", "retires")

    def __init__(self, key_id: str, private: Ed25519PrivateKey, retires: int | None = None) -> None:
        self.key_id = key_id
        self.retires = retires
        _, self._secret = crypto_sign_seed_keypair(private.private_bytes_raw())
        self._public = private.public_key()

    def sign(self, message: bytes) -> bytes:
        """64 bytes; the same for the same message."""
        return crypto_sign(message, self._secret)[:crypto_sign_BYTES]

    def verify(self, signature: bytes, message: bytes) -> bool:
        """True for this key's signature of `message`."""
        try:
            self._public.verify(signature, message)
        except InvalidSignature:
            return False
        return True

    def public_bytes(self) -> bytes:
        """The 32 raw bytes."""
        return self._public.public_bytes(Encoding.Raw, PublicFormat.Raw)


class HmacSha256Key:
    """A shared secret (RFC 2104) of 32 bytes or more, which `keyset` sees to. `retires` as above."""

    algorithm = Algorithm.HMAC_SHA256
    __slots__ = ("_secret", "key_id", "retires")

    def __init__(self, key_id: str, secret: bytes, retires: int | None = None) -> None:
        self.key_id = key_id
        self.retires = retires
        self._secret = secret

    def sign(self, message: bytes) -> bytes:
        """32 bytes; the same for the same message."""
        return hmac.digest(self._secret, message, "sha256")

    def verify(self, signature: bytes, message: bytes) -> bool:
        """True for this key's signature of `message`; compares in constant time."""
        return hmac.compare_digest(self.sign(message), signature)


SigningKey = Ed25519Key | HmacSha256Key


class SigningKeys:
    """The deployment's keys, always those that `source` gives now (`KeySetFile.current`).

    Keys of other algorithms in the same file are left alone. Raises ValueError at construction for a
    key id that cannot stand in a signed URL; a key with such an id that is rotated in later is
    never used.
    """

    def __init__(self, source: Callable[[], KeySet]) -> None:
        self._source = source
        self._seen = source()
        self._by_id = _usable(self._seen)
        for key in self._seen.keys:
            if KEY_ID.fullmatch(key.kid) is None:
                raise ValueError("a signing key's id may hold 1 to 64 letters, digits, - and _")

    def active(self, algorithm: Algorithm, now: datetime) -> SigningKey | None:
        """The key that signs at `now`, or None when there is none."""
        by_id = self._current()
        try:
            key = self._seen.active(_JOSE_NAMES[algorithm], now.timestamp())
        except KeySetError:
            return None
        return by_id.get(key.kid)

    def find(self, key_id: str, now: datetime) -> SigningKey | None:
        """The key whose signatures are to be believed at `now`: active, coming, or not yet retired."""
        key = self._current().get(key_id)
        if key is None or (key.retires is not None and key.retires <= now.timestamp()):
            return None
        return key

    def published(self, now: datetime) -> list[PublishedKey]:
        """The public keys by which others verify at `now`, newest first; never shared secrets."""
        by_id = self._current()
        lives = sorted(self._seen.keys, key=lambda key: (key.nbf, key.iat, key.kid), reverse=True)
        return [
            PublishedKey(
                life.kid,
                key.algorithm,
                key.public_bytes(),
                datetime.fromtimestamp(life.nbf, UTC),
                None if life.exp is None else datetime.fromtimestamp(life.exp, UTC),
            )
            for life in lives
            if isinstance(key := by_id.get(life.kid), Ed25519Key) and not life.retired(now.timestamp())
        ]

    def _current(self) -> dict[str, SigningKey]:
        current = self._source()
        if current is not self._seen:
            self._by_id = _usable(current)
            self._seen = current
        return self._by_id


def jwk_set(keys: Sequence[PublishedKey]) -> dict[str, Any]:
    """The same keys as a JWK Set (RFC 7517, RFC 8037)."""
    return {
        "keys": [
            {
                "kty": "OKP",
                "crv": "Ed25519",
                "x": urlsafe_b64encode(key.public_key).rstrip(b"=").decode("ascii"),
                "kid": key.key_id,
                "alg": "EdDSA",
                "use": "sig",
            }
            for key in keys
        ]
    }


def _usable(keys: KeySet) -> dict[str, SigningKey]:
    usable: dict[str, SigningKey] = {}
    for key in keys.keys:
        if KEY_ID.fullmatch(key.kid) is None:
            continue
        if key.alg == "EdDSA" and isinstance(key.key, Ed25519PrivateKey):
            usable[key.kid] = Ed25519Key(key.kid, key.key, key.exp)
        elif key.alg == "HS256" and isinstance(key.key, bytes):
            usable[key.kid] = HmacSha256Key(key.kid, key.key, key.exp)
    return usable
