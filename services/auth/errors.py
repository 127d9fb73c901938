"""The auth service's errors. Reasons are Supabase Auth's codes in capitals; clients switch on them.

InvalidArgument
├── ValidationFailed          VALIDATION_FAILED
├── WeakPassword              WEAK_PASSWORD          metadata `reasons`: length, pwned
├── SamePassword              SAME_PASSWORD
├── MfaVerificationFailed     MFA_VERIFICATION_FAILED
└── MfaChallengeExpired       MFA_CHALLENGE_EXPIRED
Unauthenticated
├── InvalidCredentials        INVALID_CREDENTIALS    address unknown or password wrong: told apart nowhere
├── RefreshTokenNotFound      REFRESH_TOKEN_NOT_FOUND
├── RefreshTokenAlreadyUsed   REFRESH_TOKEN_ALREADY_USED
├── SessionExpired            SESSION_EXPIRED
└── InsufficientAal           INSUFFICIENT_AAL
PermissionDenied
├── OtpExpired                OTP_EXPIRED            wrong, used, too old, tried too often, never sent
├── UserBanned                USER_BANNED            banned (metadata `banned_until`), or deactivated
├── BadCodeVerifier           BAD_CODE_VERIFIER
├── FlowStateNotFound         FLOW_STATE_NOT_FOUND
└── FlowStateExpired          FLOW_STATE_EXPIRED
FailedPrecondition
├── EmailNotConfirmed         EMAIL_NOT_CONFIRMED
├── SignupDisabled            SIGNUP_DISABLED
├── UserDeleted               USER_DELETED           by soft deletion: only hard deletion is left
├── ReauthenticationNeeded    REAUTHENTICATION_NEEDED
└── TooManyFactors            TOO_MANY_ENROLLED_MFA_FACTORS
AlreadyExists
├── EmailExists               EMAIL_EXISTS
└── FactorNameConflict        MFA_FACTOR_NAME_CONFLICT
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


class ValidationFailed(InvalidArgument):
    """A member of the request is wrong."""

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field}: {description}", violations=(FieldViolation(field, description),))


_WHY_WEAK = {
    "length": "it must have at least {minimum} characters and at most 1024 bytes",
    "pwned": "it is on the list of breached passwords, or nearly",
}


class WeakPassword(InvalidArgument):
    """The password breaks a rule; `reasons` say which, in Supabase's words."""

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


class InsufficientAal(Unauthenticated):
    """The account has a second factor, and this session has not proved it."""

    reason = "INSUFFICIENT_AAL"
    message = "Prove your second factor first: this needs a session of aal2."


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


class ReauthenticationNeeded(FailedPrecondition):
    """The sign-in is too old for what is asked."""

    reason = "REAUTHENTICATION_NEEDED"
    message = (
        "Your sign-in is too old for this. Give the mailed nonce or the current password, or sign in again."
    )


class TooManyFactors(FailedPrecondition):
    """The account has as many second factors as it may have."""

    reason = "TOO_MANY_ENROLLED_MFA_FACTORS"
    message = "This account has as many second factors as it may have."


class EmailExists(AlreadyExists):
    """Another account has the address."""

    reason = "EMAIL_EXISTS"
    message = "An account with this e-mail address exists."


class FactorNameConflict(AlreadyExists):
    """Another factor of the account has that name."""

    reason = "MFA_FACTOR_NAME_CONFLICT"
    message = "Another of your second factors has this name."


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
