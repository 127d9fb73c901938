"""From an error to a status, a body and headers that crash none of the libraries.

| error                                   | status |
|-----------------------------------------|--------|
| a malformed request                     | 400    |
| no credential, or one that does not hold| 401    |
| a plan whose day has no signatures      | 402    |
| a credential that may not sign          | 403    |
| a body that is too large                | 413    |
| a limit that is used up                 | 429    |
| a failure of the engine or of ours      | 500    |
| overload, or a part that is down        | 503    |
| a deadline that passed                  | 504    |

Some libraries crash on a message shorter than the frame they draw around it, on an empty body, on a
`code` that is no number, or on a missing header of a 429. So the body always has `code`, `message`
and `reason`, the message has at least `MIN_MESSAGE` characters, and a 429 has every header.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

from servicekit.errors import ResourceExhausted, SigngateError
from servicekit.route_limits import BodyTooLarge

MIN_MESSAGE: Final = 19
_STATUS: Final = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "CANCELLED": 503,
    "DEADLINE_EXCEEDED": 504,
}
_PAYMENT: Final = 402
_TOO_LARGE: Final = 413
_TOO_MANY: Final = 429
_INTERNAL: Final = 500
_NO_SIGNATURES: Final = "The plan of this account allows no signatures."
_LABELS: Final = {
    "user_day": "rate_limit_account_day",
    "user_minute": "rate_limit_account_minute",
    "key_day": "rate_limit_key_day",
    "key_minute": "rate_limit_key_minute",
}
_SOON: Final = 1
"""Seconds to wait when nobody knows better."""


class Refusal(NamedTuple):
    """What is answered instead of a signature."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str]


def refusal(error: SigngateError, now: float) -> Refusal:
    """The answer to an error; `now` is in epoch seconds."""
    if isinstance(error, BodyTooLarge):
        return plain(_TOO_LARGE, error.message, error.reason)
    if isinstance(error, ResourceExhausted):
        return _limited(error, now)
    status = _STATUS.get(error.status, _INTERNAL)
    found = plain(status, error.message, error.reason)
    if error.retry_after is not None:
        found.headers["Retry-After"] = str(max(math.ceil(error.retry_after), 1))
    return found


def plain(status: int, message: str, reason: str) -> Refusal:
    """A refusal with a body of the form that all clients take."""
    if len(message) < MIN_MESSAGE:
        message = f"{message} (HTTP status {status})"
    headers = {"WWW-Authenticate": "Bearer"} if status == _STATUS["UNAUTHENTICATED"] else {}
    if status == _STATUS["UNAVAILABLE"]:
        headers["Retry-After"] = str(_SOON)
    return Refusal(status, {"code": status, "message": message, "reason": reason}, headers)


def _limited(error: ResourceExhausted, now: float) -> Refusal:
    quota = error.quota
    if quota is not None and not quota.limit:
        # No waiting helps, and a client that is told to wait would wait for ever.
        return plain(_PAYMENT, _NO_SIGNATURES, error.reason)
    found = plain(_TOO_MANY, error.message, error.reason)
    wait = _SOON if error.retry_after is None else max(math.ceil(error.retry_after), 1)
    reset = math.ceil(now + wait) if quota is None else math.ceil(quota.reset_at)
    found.body["limit_label"] = _LABELS.get(error.metadata.get("limit", ""), "rate_limit_account")
    found.headers.update(
        {
            "Retry-After": str(wait),
            "RateLimit-Limit": str(0 if quota is None else quota.limit),
            "RateLimit-Remaining": "0",
            "RateLimit-Reset": str(max(reset - int(now), 1)),
            "X-RateLimit-Reset": str(reset),
        }
    )
    return found
