"""Requests that may be repeated: the answer is kept for 24 hours, so that it can be given again.

An answer holds the secret of a key, which is stored nowhere else. It is encrypted (AES-256-GCM) under a key
that comes (HKDF, RFC 5869) from the pepper, which stands outside the database, and from the caller's
idempotency key, which is stored nowhere. So a stolen table gives no secret, and neither do table and pepper
together, as long as the idempotency key can't be guessed.

An idempotency key belongs to the account and to the API key that presents it; logins of one account share
theirs. So a key that may manage keys gets no secret that a login, or a key with more powers, asked for.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from servicekit.clock import Entropy
from servicekit.errors import FieldViolation
from servicekit.principal import Principal
from services.keys.errors import IdempotencyKeyReused, ValidationFailed
from services.keys.peppers import Keyring

_visible: Final = re.compile(r"[\x21-\x7e]{1,128}").fullmatch
_label: Final = b"signgate repeated requests, 1"
_nonce: Final = 12
_digest: Final = 32
_uuid: Final = 16


@dataclass(frozen=True, slots=True)
class Repeatable:
    """The idempotency key of a request, and a digest of all that the request asks for."""

    key: str = field(repr=False)
    digest: bytes = field(repr=False)

    @classmethod
    def of(cls, keys: Sequence[str], method: str, request: bytes) -> Repeatable | None:
        """`keys`: each that the caller sent, by the member and by the header; none: not repeatable.

        Raises `ValidationFailed` for one that is not well formed, and for two that differ.
        """
        found = sorted({key for key in keys if key})
        if not found:
            return None
        if len(found) > 1:
            raise ValidationFailed(
                [FieldViolation("idempotency_key", "the field and the header differ; send one of them")]
            )
        if not _visible(found[0]):
            wrong = "must have at most 128 visible ASCII characters, without blanks"
            raise ValidationFailed([FieldViolation("idempotency_key", wrong)])
        return cls(found[0], hashlib.sha256(method.encode() + b"\0" + request).digest())


@dataclass(frozen=True, slots=True)
class Answer:
    """What is given again: which key was made, and its secret."""

    key_id: UUID
    secret: str = field(repr=False)


class Slot:
    """The place of one caller's answer under one idempotency key.

    `lookups`: the names it can have in the table, one for each pepper at hand, the newest first.
    """

    def __init__(self, peppers: Keyring, entropy: Entropy, principal: Principal, request: Repeatable) -> None:
        actor = principal.api_key_id.bytes if principal.api_key_id is not None else bytes(_uuid)
        info = _label + principal.user_id.bytes + actor + request.key.encode()
        derived = {version: _derived(peppers.secrets[version], info) for version in peppers.secrets}
        self._entropy = entropy
        self._digest = request.digest
        self._keys = {
            derived[version][:32]: derived[version][32:] for version in sorted(derived, reverse=True)
        }
        self.lookups = list(self._keys)

    def seal(self, answer: Answer) -> tuple[bytes, bytes]:
        """The look-up to keep an answer under, and the answer, encrypted for this request alone."""
        lookup, nonce = self.lookups[0], self._entropy.token_bytes(_nonce)
        plain = self._digest + answer.key_id.bytes + answer.secret.encode()
        return lookup, nonce + AESGCM(self._keys[lookup]).encrypt(nonce, plain, lookup)

    def open(self, lookup: bytes, sealed: bytes) -> Answer:
        """The answer that was kept. Raises `IdempotencyKeyReused` if it is not this request's."""
        try:
            plain = AESGCM(self._keys[lookup]).decrypt(sealed[:_nonce], sealed[_nonce:], lookup)
        except InvalidTag:
            # Damaged: nothing is known of it but that the caller needs another idempotency key.
            raise IdempotencyKeyReused from None
        if plain[:_digest] != self._digest:
            raise IdempotencyKeyReused
        key_id, secret = plain[_digest : _digest + _uuid], plain[_digest + _uuid :]
        return Answer(UUID(bytes=key_id), secret.decode())


def _derived(pepper: bytes, info: bytes) -> bytes:
    """32 bytes to look up by and 32 to encrypt with."""
    return HKDF(algorithm=hashes.SHA256(), length=64, salt=None, info=info).derive(pepper)
