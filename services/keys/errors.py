"""The keys service's errors.

    InvalidArgument
    ├── ValidationFailed      VALIDATION_FAILED   `violations` name every wrong member
    └── PageTokenInvalid      PAGE_TOKEN_INVALID
    NotFound
    ├── KeyNotFound           KEY_NOT_FOUND       no such key, or another user's: told apart nowhere
    └── UserNotFound          USER_NOT_FOUND      an operator named an account that is not there
    FailedPrecondition
    ├── KeyIsRevoked          KEY_REVOKED         a revoked key can't be changed or rotated
    ├── KeyIsExpired          KEY_EXPIRED         an expired key can't be rotated or given another end
    ├── KeyIsRotated          KEY_ROTATED         it has a successor already
    └── IdempotencyKeyReused  IDEMPOTENCY_KEY_REUSED  another request was made with this idempotency key
    ResourceExhausted
    └── KeyLimit              KEY_LIMIT           too many active keys
    Unauthenticated
    └── UserUnknown           USER_UNKNOWN        the account behind the credential is gone
    PermissionDenied
    ├── ScopeMissing          SCOPE_MISSING       a credential gives only scopes that it has
    ├── WiderThanCaller       KEY_WIDER_THAN_CALLER  nor a later end, other networks, higher limits …
    └── DerivedToken          DERIVED_TOKEN       a minted token mints no tokens
    Unavailable
    └── KeysUnavailable       KEYS_UNAVAILABLE    records can be neither trusted nor read

Refusals of presented credentials are no errors of the service: they are answers (`domain.Refused`).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Final

from servicekit.errors import (
    FailedPrecondition,
    FieldViolation,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)

MAX_VIOLATIONS: Final = 20
"""As many as `servicekit.rpc.bounds` names: an error travels in headers, which have their own limits."""


class ValidationFailed(InvalidArgument):
    """Some members are wrong; each is named, up to `MAX_VIOLATIONS`."""

    def __init__(self, violations: Iterable[FieldViolation]) -> None:
        found = tuple(islice(violations, MAX_VIOLATIONS))
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in found), violations=found)


class PageTokenInvalid(InvalidArgument):
    """The page token is not one that a list gave."""

    reason = "PAGE_TOKEN_INVALID"
    message = (
        "The page token is not valid. Use the next_page_token of the page before, unchanged,"
        " with the same filters."
    )


class KeyNotFound(NotFound):
    """No such key, or none of the caller's."""

    reason = "KEY_NOT_FOUND"
    message = "There is no such API key."


class UserNotFound(NotFound):
    """An operator named an account that is not there."""

    reason = "USER_NOT_FOUND"
    message = "There is no such user."


class KeyIsRevoked(FailedPrecondition):
    """The key was revoked, which is for good."""

    reason = "KEY_REVOKED"
    message = "This API key has been revoked; that can't be undone. Create a new one."


class KeyIsExpired(FailedPrecondition):
    """The key's time is over."""

    reason = "KEY_EXPIRED"
    message = "This API key has expired; that can't be undone. Create a new one."


class KeyIsRotated(FailedPrecondition):
    """The key has a successor."""

    reason = "KEY_ROTATED"
    message = "This API key has been rotated already. Rotate its successor."


class IdempotencyKeyReused(FailedPrecondition):
    """The same caller made another request with this idempotency key within 24 hours."""

    reason = "IDEMPOTENCY_KEY_REUSED"
    message = (
        "This idempotency key was used for a different request in the last 24 hours."
        " Repeat that request unchanged, or send a new idempotency key."
    )


class KeyLimit(ResourceExhausted):
    """The user has as many active keys as are allowed."""

    reason = "KEY_LIMIT"
    message = "The number of active API keys is at its limit. Revoke one first."


class UserUnknown(Unauthenticated):
    """A good token of an account that has no row (any more)."""

    reason = "USER_UNKNOWN"
    message = "The account of this credential does not exist."


class ScopeMissing(PermissionDenied):
    """A credential can give only scopes that it has itself."""

    reason = "SCOPE_MISSING"
    message = "This credential can't give scopes that it does not have."

    @classmethod
    def of(cls, missing: Iterable[str]) -> ScopeMissing:
        """The error that names the scopes."""
        names = " ".join(sorted(missing))
        return cls(f"This credential lacks the scope: {names}.", metadata={"missing_scopes": names})


class WiderThanCaller(PermissionDenied):
    """A credential can give only what it has itself; `violations` name each attribute that is wider."""

    reason = "KEY_WIDER_THAN_CALLER"
    message = "This credential can't give more than it has itself."

    @classmethod
    def at(cls, violations: Iterable[FieldViolation]) -> WiderThanCaller:
        """The error that names the attributes."""
        found = tuple(violations)
        told = "; ".join(f"{v.field} {v.description}" for v in found)
        fields = " ".join(v.field for v in found)
        return cls(f"{cls.message[:-1]}: {told}.", metadata={"fields": fields}, violations=found)


class DerivedToken(PermissionDenied):
    """A token that a key minted can't mint another: else it could outlive its time for ever."""

    reason = "DERIVED_TOKEN"
    message = "This needs the API key itself, not a token that it minted."


class KeysUnavailable(Unavailable):
    """Records can be neither trusted (too old) nor read."""

    reason = "KEYS_UNAVAILABLE"
    message = "API keys can't be checked right now. Try again shortly."
