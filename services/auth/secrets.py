"""Codes, links and tokens: made here, kept as keyed hashes only.

One pepper, outside the database, gives each use a key of its own (HKDF, RFC 5869). A code of six digits
has so few values that a bare hash of it is no secret; keyed, and bound to its user and purpose, a stolen
table tells nothing.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Final
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from servicekit.clock import Entropy

CODE_DIGITS: Final = 6
_alphabet: Final = "abcdefghjkmnpqrstuvwxyz23456789"  # nothing that is read two ways
_nonce: Final = 12
_uses: Final = ("code", "link", "refresh", "flow", "recovery", "id", "known")


class Secrets:
    """Makes secrets and their hashes. Hashes are hexadecimal HMAC-SHA-256."""

    def __init__(self, pepper: str, entropy: Entropy) -> None:
        self._entropy = entropy
        self._keys = {use: _derived(pepper, use) for use in _uses}
        self._cipher = AESGCM(_derived(pepper, "totp"))

    def code(self) -> str:
        """Six digits, each value equally likely (to one in 10^13)."""
        return str(int.from_bytes(self._entropy.token_bytes(8), "big") % 10**CODE_DIGITS).zfill(CODE_DIGITS)

    def token(self) -> str:
        """43 characters of base64url: 256 bits."""
        return base64.urlsafe_b64encode(self._entropy.token_bytes(32)).rstrip(b"=").decode()

    def recovery_code(self) -> str:
        """Ten letters and digits in two groups: 49 bits."""
        drawn = self._entropy.token_bytes(40)
        # Four bytes a character: the bias of the modulus is one in 10^8.
        chars = [_alphabet[int.from_bytes(drawn[i : i + 4], "big") % len(_alphabet)] for i in range(0, 40, 4)]
        return "".join(chars[:5]) + "-" + "".join(chars[5:])

    def code_hash(self, user_id: UUID, purpose: str, code: str) -> str:
        """Of a code, good for this user and purpose only."""
        return self._hash("code", f"{user_id}|{purpose}|{code}")

    def link_hash(self, token: str) -> str:
        """Of a link's token."""
        return self._hash("link", token)

    def refresh_hash(self, token: str) -> str:
        """Of a refresh token."""
        return self._hash("refresh", token)

    def flow_hash(self, code: str) -> str:
        """Of a PKCE flow's code."""
        return self._hash("flow", code)

    def recovery_hash(self, user_id: UUID, code: str) -> str:
        """Of a recovery code, however its owner typed it."""
        plain = "".join(code.split()).replace("-", "").lower()
        return self._hash("recovery", f"{user_id}|{plain}")

    def stable_id(self, kind: str, address: str) -> UUID:
        """An id that is always the same for an address, and tells nothing of it (a UUID of version 8)."""
        drawn = bytearray.fromhex(self._hash("id", f"{kind}|{address}"))[:16]
        drawn[6], drawn[8] = 0x80 | drawn[6] & 0x0F, 0x80 | drawn[8] & 0x3F
        return UUID(bytes=bytes(drawn))

    def known_hash(self, kind: str, text: str) -> str:
        """Of an address, a device's proof or a program that an account signed in from."""
        return self._hash("known", f"{kind}|{text}")

    def seal(self, factor_id: UUID, secret: str) -> bytes:
        """A factor's secret, encrypted (AES-256-GCM) for this factor only."""
        nonce = self._entropy.token_bytes(_nonce)
        return nonce + self._cipher.encrypt(nonce, secret.encode(), factor_id.bytes)

    def unseal(self, factor_id: UUID, sealed: bytes) -> str | None:
        """The secret, `None` when it was sealed under another pepper or for another factor."""
        try:
            return self._cipher.decrypt(sealed[:_nonce], sealed[_nonce:], factor_id.bytes).decode()
        except InvalidTag:
            return None

    def challenge(self) -> bytes:
        """What a passkey is asked to sign: 256 bits."""
        return self._entropy.token_bytes(32)

    def totp_secret(self) -> str:
        """160 bits in base32, as RFC 4226 recommends."""
        return base64.b32encode(self._entropy.token_bytes(20)).decode()

    def _hash(self, use: str, text: str) -> str:
        return hmac.new(self._keys[use], text.encode(), hashlib.sha256).hexdigest()


def same(one: str, other: str) -> bool:
    """Equality in constant time."""
    return hmac.compare_digest(one.encode(), other.encode())


def s256(verifier: str) -> str:
    """The S256 challenge of a PKCE verifier (RFC 7636, section 4.2)."""
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _derived(pepper: str, use: str) -> bytes:
    kdf = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=f"signgate.auth.{use}".encode())
    return kdf.derive(pepper.encode())
