"""Time and ids that a test decides."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID


class ManualClock:
    """A `Clock` that stands still until it is told to go on."""

    def __init__(self, start: datetime | None = None) -> None:
        self._time = (start or datetime(2026, 1, 15, 12, 0, tzinfo=UTC)).timestamp()
        self._monotonic = 1000.0

    def now(self) -> datetime:
        """See `Clock.now`."""
        return datetime.fromtimestamp(self._time, UTC)

    def time(self) -> float:
        """See `Clock.time`."""
        return self._time

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._time += seconds
        self._monotonic += seconds

    def set(self, moment: datetime) -> None:
        """Step the wall clock, as NTP may; the monotonic one does not move."""
        self._time = moment.timestamp()


class SequentialIds:
    """`Ids` that count up from 1, in the form of UUIDv7."""

    def __init__(self) -> None:
        self._last = 0

    def uuid7(self) -> UUID:
        """The next one."""
        self._last += 1
        return UUID(int=(0x7 << 76) | (0x2 << 62) | self._last)


class CountingEntropy:
    """`Entropy` that never repeats and surprises nobody."""

    def __init__(self) -> None:
        self._last = 0

    def token_bytes(self, length: int) -> bytes:
        """`length` bytes that differ from all before."""
        self._last += 1
        return self._last.to_bytes(8, "big").rjust(length, b"\x00")[-length:]
