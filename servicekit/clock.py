"""Time, ids and randomness, passed in so that domain code can be tested to the second.

Rules: domain and service code never calls `time.time()`, `datetime.now()`, `uuid4()` or
`secrets` itself; it is given a `Clock`, an `Ids` or an `Entropy`. All times are UTC.
"""

from __future__ import annotations

import secrets
import time
from datetime import UTC, date, datetime, timedelta
from typing import Protocol
from uuid import UUID

import uuid_utils


class Clock(Protocol):
    """Where time comes from. `time` and `now` may step with the machine; `monotonic` never does."""

    def now(self) -> datetime:
        """The present, aware, in UTC."""
        ...

    def time(self) -> float:
        """The present in epoch seconds; the same instant as `now`."""
        ...

    def monotonic(self) -> float:
        """Seconds since some fixed point; only differences mean anything."""
        ...


class Ids(Protocol):
    """Where new ids come from."""

    def uuid7(self) -> UUID:
        """A new UUIDv7: unique, and ordered by the time it was minted."""
        ...


class Entropy(Protocol):
    """Where secrets come from."""

    def token_bytes(self, length: int) -> bytes:
        """`length` unpredictable bytes."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """See `Clock.now`."""
        return datetime.now(UTC)

    def time(self) -> float:
        """See `Clock.time`."""
        return time.time()

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return time.monotonic()


class SystemIds:
    """UUIDv7 from the machine's clock and its random source (RFC 9562, section 5.7)."""

    def uuid7(self) -> UUID:
        """See `Ids.uuid7`."""
        return uuid7()


class SystemEntropy:
    """The operating system's cryptographic random source."""

    def token_bytes(self, length: int) -> bytes:
        """See `Entropy.token_bytes`."""
        return secrets.token_bytes(length)


def uuid7() -> UUID:
    """A new UUIDv7 as the standard library's type, ordered within one process."""
    return UUID(int=uuid_utils.uuid7().int)


def utc_day(moment: datetime) -> date:
    """The UTC day that a moment falls in: the day of every quota."""
    return moment.astimezone(UTC).date()


def next_utc_midnight(moment: datetime) -> datetime:
    """The end of that day, when daily quotas open again."""
    day = utc_day(moment) + timedelta(days=1)
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
