"""Who is calling, and what they may do: the one result of authentication.

A scope is a verb on a kind of thing. A logged-in user holds every scope over their own things; an
API key holds those it was given. Role is Supabase's: `authenticated`, or `service_role` for an
administrator's token.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Literal
from uuid import UUID

from servicekit.errors import PermissionDenied, Unauthenticated

SIGN: Final = "sign"
USAGE_READ: Final = "usage:read"
KEYS_READ: Final = "keys:read"
KEYS_MANAGE: Final = "keys:manage"
QUOTA_READ: Final = "quota:read"
PROFILE_READ: Final = "profile:read"
PROFILE_WRITE: Final = "profile:write"

ALL_SCOPES: Final = frozenset(
    {SIGN, USAGE_READ, KEYS_READ, KEYS_MANAGE, QUOTA_READ, PROFILE_READ, PROFILE_WRITE}
)
DEFAULT_KEY_SCOPES: Final = frozenset({SIGN, USAGE_READ, QUOTA_READ})
"""What a new API key may do when its maker names no scopes."""

Role = Literal["authenticated", "service_role"]


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller. Holds no credential and no e-mail, so it may be logged whole.

    Exactly one of `api_key_id` and `session_id` is set, save for a service-role token, which has
    neither. `aal` is the authenticator assurance level of the session (`aal1`, `aal2`), `assurance_version`
    counts its changes. `has_factor`: the account has a verified second factor. `proved_at`: when the user
    last proved their identity, in epoch seconds; 0 if the token does not say.
    """

    user_id: UUID
    role: Role = "authenticated"
    scopes: frozenset[str] = ALL_SCOPES
    tier: str = "free"
    api_key_id: UUID | None = None
    session_id: UUID | None = None
    aal: str = "aal1"
    has_factor: bool = False
    proved_at: int = 0
    assurance_version: int = 0

    @property
    def is_api_key(self) -> bool:
        """True when the caller showed an API key rather than a login's access token."""
        return self.api_key_id is not None

    @property
    def is_service_role(self) -> bool:
        """True for an administrator's token."""
        return self.role == "service_role"


class InsufficientAal(Unauthenticated):
    """The account has a second factor, and this session has not proved it."""

    reason = "INSUFFICIENT_AAL"
    message = "Prove your second factor first: this needs a session of aal2."


class ReauthenticationNeeded(Unauthenticated):
    """The sign-in is too old for what is asked."""

    reason = "REAUTHENTICATION_NEEDED"
    message = (
        "Your sign-in is too old for this. Confirm your identity by a mailed nonce or your password, or sign"
        " in again."
    )


def require_assurance(principal: Principal) -> None:
    """Raise `InsufficientAal` unless both factors of an account that has two are proved.

    An API key is not asked: its scopes decide.
    """
    if principal.has_factor and principal.aal != "aal2" and not principal.is_api_key:
        raise InsufficientAal(metadata={"required_aal": "aal2"})


def require_fresh(principal: Principal, max_age: int, now: float) -> None:
    """Raise `ReauthenticationNeeded` if the user's last proof of identity is older than so many seconds.

    An API key is not asked: its scopes decide.
    """
    if now - principal.proved_at > max_age and not principal.is_api_key:
        raise ReauthenticationNeeded(metadata={"max_age_seconds": str(max_age)})


def require_scopes(principal: Principal, scopes: Collection[str]) -> None:
    """Raise `PermissionDenied` (reason `SCOPE_MISSING`) unless the principal holds all of `scopes`."""
    missing = [scope for scope in scopes if scope not in principal.scopes]
    if missing:
        names = " ".join(sorted(missing))
        raise PermissionDenied(
            f"This credential lacks the scope: {names}.",
            reason="SCOPE_MISSING",
            metadata={"missing_scopes": names},
        )
