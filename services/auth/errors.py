"""The auth service's errors. Reasons are Supabase Auth's codes in capitals; clients switch on them.

InvalidArgument
├── ValidationFailed          VALIDATION_FAILED
├── WeakPassword              WEAK_PASSWORD          metadata `reasons`: length, pwned, characters, context
├── SamePassword              SAME_PASSWORD
├── MfaVerificationFailed     MFA_VERIFICATION_FAILED
└── MfaChallengeExpired       MFA_CHALLENGE_EXPIRED
Unauthenticated
├── InvalidCredentials        INVALID_CREDENTIALS    address unknown or password wrong: told apart nowhere
├── RefreshTokenNotFound      REFRESH_TOKEN_NOT_FOUND
├── RefreshTokenAlreadyUsed   REFRESH_TOKEN_ALREADY_USED
├── SessionExpired            SESSION_EXPIRED
├── InsufficientAal           INSUFFICIENT_AAL         these two are servicekit's: policies ask for them
└── ReauthenticationNeeded    REAUTHENTICATION_NEEDED
PermissionDenied
├── OtpExpired                OTP_EXPIRED            wrong, used, too old, tried too often, never sent
├── UserBanned                USER_BANNED            banned (metadata `banned_until`), or deactivated
├── BadCodeVerifier           BAD_CODE_VERIFIER
├── FlowStateNotFound         FLOW_STATE_NOT_FOUND
└── FlowStateExpired          FLOW_STATE_EXPIRED
FailedPrecondition
├── EmailNotConfirmed         EMAIL_NOT_CONFIRMED
├── SignupDisabled            SIGNUP_DISABLED
├── WebAuthnDisabled          MFA_WEBAUTHN_ENROLL_NOT_ENABLED
├── UserDeleted               USER_DELETED           by soft deletion: only hard deletion is left
└── TooManyFactors            TOO_MANY_ENROLLED_MFA_FACTORS
AlreadyExists
├── EmailExists               EMAIL_EXISTS
├── FactorNameConflict        MFA_FACTOR_NAME_CONFLICT
└── PasskeyExists             MFA_WEBAUTHN_CREDENTIAL_EXISTS
NotFound
├── UserNotFound              USER_NOT_FOUND
├── SessionNotFound           SESSION_NOT_FOUND
└── FactorNotFound            MFA_FACTOR_NOT_FOUND
ResourceExhausted
├── RequestRateLimit          OVER_REQUEST_RATE_LIMIT
└── EmailRateLimit            OVER_EMAIL_SEND_RATE_LIMIT
Unavailable
└── Overloaded                OVERLOADED             too many passwords wait to be hashed
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from servicekit.errors import (
    AlreadyExists,
    FailedPrecondition,
    FieldViolation,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)
from servicekit.principal import InsufficientAal as InsufficientAal  # noqa: PLC0414  # part of the tree
from servicekit.principal import ReauthenticationNeeded as ReauthenticationNeeded  # noqa: PLC0414  # likewise


class ValidationFailed(InvalidArgument):
    """A member of the request is wrong."""

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field}: {description}", violations=(FieldViolation(field, description),))


_WHY_WEAK = {
    "length": "it must have at least {minimum} characters and at most 1024 bytes",
    "pwned": "it is on the list of breached passwords, or nearly",
    "characters": "it must not be a few characters repeated or counted up",
    "context": "it must not be made of your address or this service's name",
}


class WeakPassword(InvalidArgument):
    """The password breaks a rule; `reasons` say which. All but `context` are Supabase's words."""

    reason = "WEAK_PASSWORD"

    def __init__(self, reasons: Sequence[str], minimum: int) -> None:
        why = " and ".join(_WHY_WEAK[reason] for reason in reasons).format(minimum=minimum)
        super().__init__(
            f"Choose another password: {why}.",
            metadata={"reasons": ",".join(reasons)},
            violations=(FieldViolation("password", why),),
        )


class SamePassword(InvalidArgument):
    """The new password is the old one."""

    reason = "SAME_PASSWORD"
    message = "The new password must differ from the old one."


class MfaVerificationFailed(InvalidArgument):
    """The code of the second factor does not hold."""

    reason = "MFA_VERIFICATION_FAILED"
    message = "The code is wrong, or has been used."


class MfaChallengeExpired(InvalidArgument):
    """The challenge is over."""

    reason = "MFA_CHALLENGE_EXPIRED"
    message = "This challenge has ended. Ask for a new one."


class InvalidCredentials(Unauthenticated):
    """Address or password is wrong."""

    reason = "INVALID_CREDENTIALS"
    message = "The e-mail address or the password is wrong."


class RefreshTokenNotFound(Unauthenticated):
    """No session has this refresh token."""

    reason = "REFRESH_TOKEN_NOT_FOUND"
    message = "The refresh token is not valid. Sign in again."


class RefreshTokenAlreadyUsed(Unauthenticated):
    """An old refresh token came back: the whole session has been ended."""

    reason = "REFRESH_TOKEN_ALREADY_USED"
    message = "This refresh token was used long ago, so its session has been ended. Sign in again."


class SessionExpired(Unauthenticated):
    """The session is over."""

    reason = "SESSION_EXPIRED"
    message = "This session has ended. Sign in again."


class OtpExpired(PermissionDenied):
    """A code or a link that does not hold; why is not told."""

    reason = "OTP_EXPIRED"
    message = "The code or link is wrong, was used, or has expired. Ask for a new one."


class UserBanned(PermissionDenied):
    """The account may not act: it is banned until a time, or it is deactivated."""

    reason = "USER_BANNED"
    message = "This account is deactivated."

    def __init__(self, until: datetime | None = None) -> None:
        if until is None:
            super().__init__()
            return
        moment = until.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        super().__init__(f"This account is banned until {moment}.", metadata={"banned_until": moment})


class BadCodeVerifier(PermissionDenied):
    """The PKCE verifier is not what the challenge was made from."""

    reason = "BAD_CODE_VERIFIER"
    message = "The code verifier does not match the code challenge."


class FlowStateNotFound(PermissionDenied):
    """No PKCE flow has this code, or it was used."""

    reason = "FLOW_STATE_NOT_FOUND"
    message = "The code is not valid, or was used. Start again."


class FlowStateExpired(PermissionDenied):
    """The PKCE flow took too long."""

    reason = "FLOW_STATE_EXPIRED"
    message = "The code has expired. Start again."


class EmailNotConfirmed(FailedPrecondition):
    """Right password, unconfirmed address."""

    reason = "EMAIL_NOT_CONFIRMED"
    message = "Confirm your e-mail address first."


class SignupDisabled(FailedPrecondition):
    """No new accounts are taken."""

    reason = "SIGNUP_DISABLED"
    message = "New accounts are not taken here."


class UserDeleted(FailedPrecondition):
    """The account was deleted softly, which can't be undone."""

    reason = "USER_DELETED"
    message = "This account has been deleted. It can't be changed or restored."


class TooManyFactors(FailedPrecondition):
    """The account has as many second factors as it may have."""

    reason = "TOO_MANY_ENROLLED_MFA_FACTORS"
    message = "This account has as many second factors as it may have."


class WebAuthnDisabled(FailedPrecondition):
    """The deployment has no domain name to which browsers could bind a passkey."""

    reason = "MFA_WEBAUTHN_ENROLL_NOT_ENABLED"
    message = "Passkeys are not available here: the deployment's address has no domain name with https."


class EmailExists(AlreadyExists):
    """Another account has the address."""

    reason = "EMAIL_EXISTS"
    message = "An account with this e-mail address exists."


class FactorNameConflict(AlreadyExists):
    """Another factor of the account has that name."""

    reason = "MFA_FACTOR_NAME_CONFLICT"
    message = "Another of your second factors has this name."


class PasskeyExists(AlreadyExists):
    """The credential belongs to a factor already, of this or of another account."""

    reason = "MFA_WEBAUTHN_CREDENTIAL_EXISTS"
    message = "This passkey is in use already. Create a new one."


class UserNotFound(NotFound):
    """No such account."""

    reason = "USER_NOT_FOUND"
    message = "There is no such account."


class SessionNotFound(NotFound):
    """No such session, or another user's."""

    reason = "SESSION_NOT_FOUND"
    message = "There is no such session."


class FactorNotFound(NotFound):
    """No such factor, or another user's."""

    reason = "MFA_FACTOR_NOT_FOUND"
    message = "There is no such second factor."


class RequestRateLimit(ResourceExhausted):
    """Too many requests by one address or for one account."""

    reason = "OVER_REQUEST_RATE_LIMIT"


class EmailRateLimit(ResourceExhausted):
    """Too many mails to one address or by one caller."""

    reason = "OVER_EMAIL_SEND_RATE_LIMIT"


class Overloaded(Unavailable):
    """More sign-ins at once than this server hashes passwords for."""

    reason = "OVERLOADED"
    message = "Too many sign-ins at once. Try again shortly."
