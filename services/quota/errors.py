"""What the quota service refuses with. Going over a limit is a decision, not an error."""

from __future__ import annotations

from servicekit.errors import NotFound, Unavailable


class CountersUnavailable(Unavailable):
    """Redis did not answer in time, or the circuit breaker is open. Whether a call counted is unknown."""

    reason = "QUOTA_UNAVAILABLE"
    message = "Quotas can't be checked right now. Try again shortly."


class CountersRebuilding(Unavailable):
    """A user's counters are gone or in doubt, and not yet rebuilt from what is committed."""

    reason = "QUOTA_REBUILDING"
    message = "Quota counters are being rebuilt. Try again shortly."


class PlansUnknown(Unavailable):
    """No plan was ever read: PostgreSQL has been away since the start."""

    reason = "PLANS_UNKNOWN"
    message = "Plans can't be read right now. Try again shortly."


class UserUnknown(NotFound):
    """There is no account of this id."""

    reason = "USER_NOT_FOUND"
    message = "There is no such user."
