"""What the line needs of the world, as protocols: `peers` and `publisher` provide them, tests fake them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from servicekit.authn import Credential
from servicekit.errors import Unavailable
from services.signer.jobs import Caller, Charge, Decision, Job, Part, Refund, Refusal


class Keys(Protocol):
    """The keys service."""

    async def validate(self, credentials: Sequence[Credential]) -> Sequence[Caller | Refusal]:
        """Answers in order. Raises a `SigngateError` when nothing is known of any of them."""
        ...


class Quota(Protocol):
    """The quota service. Every call is idempotent by charge id."""

    async def consume(self, charges: Sequence[Charge]) -> tuple[Sequence[Decision], float]:
        """Decisions in order, and the lease's end in epoch seconds of Redis.

        Raises a `SigngateError` when nothing was decided, or nobody knows whether it was.
        """
        ...

    async def refund(self, refunds: Sequence[Refund]) -> None:
        """Take charges back. Raises a `SigngateError`."""
        ...


class Events(Protocol):
    """The usage stream."""

    async def publish(
        self, shards: Mapping[int, Sequence[tuple[Job, Part]]], lease: float | None
    ) -> Mapping[int, Unavailable]:
        """Append one entry of events a shard; the answer holds the shards that failed.

        With a `lease` (epoch seconds of Redis) nothing is appended once it has ended: that shard's
        error is `LeaseLost`, and certain. `StreamDown` and `StreamFull` are certain too: nothing was
        appended.
        `StreamUnknown`: nobody knows.
        """
        ...


class Refunds(Protocol):
    """Where refunds go that nobody waits for."""

    def later(self, refunds: Sequence[Refund]) -> None:
        """Take these back soon, with bounded tries."""
        ...


class LeaseLost(Unavailable):
    """Signing took longer than the lease, so the charges may have been taken back. Nothing was published."""

    reason = "LEASE_LOST"
    message = "Signing took too long and was not charged. Try again."


class StreamDown(Unavailable):
    """The usage stream takes no events; nothing was published."""

    reason = "USAGE_STREAM_UNAVAILABLE"
    message = "Usage can't be recorded right now, so nothing is signed. Try again shortly."


class StreamFull(StreamDown):
    """The loggers are so far behind that the stream would fill Redis. Nothing was published."""

    reason = "USAGE_BACKLOG"
    message = "Too much usage waits to be recorded, so nothing more is signed for now. Try again later."


class StreamUnknown(StreamDown):
    """The usage stream did not answer in time: events may or may not be in it."""
