"""A software authenticator (WebAuthn Level 2), for tests: what a browser and a security key do together."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from secrets import token_bytes
from typing import Any, Literal

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

Algorithm = Literal["ES256", "EdDSA", "RS256"]
PRESENT, VERIFIED, ATTESTED = 0x01, 0x04, 0x40


def url64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_url64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "==")


@dataclass
class Authenticator:
    """One key pair. Its answers are the JSON of WebAuthn Level 3, as a browser's `toJSON()` gives it."""

    origin: str
    algorithm: Algorithm = "ES256"
    counts: bool = True
    count: int = 0
    flags: int = PRESENT
    id: bytes = field(default_factory=lambda: token_bytes(32))
    user: bytes = b""
    client_data: dict[str, Any] = field(default_factory=dict)
    """Members laid over the client data, for tests of what is refused."""
    key: Any = None

    def __post_init__(self) -> None:
        if self.key is None:
            self.key = _new_key(self.algorithm)

    def create(self, options: Mapping[str, Any], *, fmt: str = "none") -> dict[str, Any]:
        """As `navigator.credentials.create({publicKey: options})`."""
        self.user = from_url64(options["user"]["id"])
        client_data = self._client_data("webauthn.create", options["challenge"])
        public = cbor2.dumps(self.public_key())
        attested = bytes(16) + struct.pack(">H", len(self.id)) + self.id + public
        data = self._data(options["rp"]["id"], ATTESTED) + attested
        statement: dict[str, Any] = {}
        if fmt == "packed":
            statement = {"alg": -7, "sig": self._sign(data + hashlib.sha256(client_data).digest())}
        attestation = cbor2.dumps({"fmt": fmt, "attStmt": statement, "authData": data})
        return self._credential(
            {
                "clientDataJSON": url64(client_data),
                "attestationObject": url64(attestation),
                "transports": ["usb", "internal", "of-the-future"],
                "authenticatorData": url64(data),
            }
        )

    def get(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """As `navigator.credentials.get({publicKey: options})`."""
        client_data = self._client_data("webauthn.get", options["challenge"])
        data = self._data(options["rpId"], 0)
        return self._credential(
            {
                "clientDataJSON": url64(client_data),
                "authenticatorData": url64(data),
                "signature": url64(self._sign(data + hashlib.sha256(client_data).digest())),
                "userHandle": url64(self.user),
            }
        )

    def public_key(self) -> dict[int, Any]:
        """In COSE (RFC 9053)."""
        numbers = self.key.public_key()
        if self.algorithm == "EdDSA":
            return {1: 1, 3: -8, -1: 6, -2: numbers.public_bytes_raw()}
        numbers = numbers.public_numbers()
        if self.algorithm == "RS256":
            size = (numbers.n.bit_length() + 7) // 8
            return {1: 3, 3: -257, -1: numbers.n.to_bytes(size, "big"), -2: b"\1\0\1"}
        return {1: 2, 3: -7, -1: 1, -2: numbers.x.to_bytes(32, "big"), -3: numbers.y.to_bytes(32, "big")}

    def _client_data(self, kind: str, challenge: str) -> bytes:
        told = {"type": kind, "challenge": challenge, "origin": self.origin, "crossOrigin": False}
        return json.dumps(told | self.client_data).encode()

    def _data(self, rp_id: str, flags: int) -> bytes:
        if self.counts:
            self.count += 1
        return hashlib.sha256(rp_id.encode()).digest() + struct.pack(">BI", self.flags | flags, self.count)

    def _sign(self, data: bytes) -> bytes:
        if self.algorithm == "EdDSA":
            return bytes(self.key.sign(data))
        if self.algorithm == "RS256":
            return bytes(self.key.sign(data, padding.PKCS1v15(), SHA256()))
        return bytes(self.key.sign(data, ec.ECDSA(SHA256())))

    def _credential(self, response: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": url64(self.id),
            "rawId": url64(self.id),
            "type": "public-key",
            "authenticatorAttachment": "cross-platform",
            "clientExtensionResults": {},
            "response": response,
        }


def _new_key(algorithm: Algorithm) -> Any:
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm == "RS256":
        return rsa.generate_private_key(65537, 2048)
    return ec.generate_private_key(ec.SECP256R1())
