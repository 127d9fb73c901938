"""Second factors as this service keeps them. Nothing here shows a secret in its `repr`."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Passkey:
    """A WebAuthn credential: what an authenticator's signatures are verified with."""

    credential_id: bytes
    public_key: bytes = field(repr=False)
    sign_count: int
    transports: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PasskeyAnswer:
    """What a browser's `navigator.credentials` gave, decoded and not verified; empty where it has nothing."""

    ceremony: str
    credential_id: bytes
    client_data: bytes = field(repr=False)
    attestation: bytes = field(default=b"", repr=False)
    authenticator_data: bytes = field(default=b"", repr=False)
    signature: bytes = field(default=b"", repr=False)
    user_handle: bytes = field(default=b"", repr=False)
    transports: tuple[str, ...] = ()
    rp_id: str = ""
    origins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SecretFactor:
    """A factor with what proves it: a TOTP's encrypted secret, or a passkey (once it is verified)."""

    id: UUID
    user_id: UUID
    kind: str
    status: str
    sealed: bytes = field(default=b"", repr=False)
    last_used_step: int | None = None
    passkey: Passkey | None = None


@dataclass(frozen=True, slots=True)
class Challenge:
    """A challenge to prove a factor. `webauthn`: the bytes that a passkey signs."""

    id: UUID
    factor_id: UUID
    expires_at: datetime
    verified_at: datetime | None
    attempts: int
    webauthn: bytes | None = field(default=None, repr=False)
