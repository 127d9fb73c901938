"""How many of a shared resource one owner may hold at once: open streams, exports, waiting places.

    exports = Slots(limit_total=16, limit_by_owner=2, reason="EXPORT_LIMIT")

    with exports.taken(user_id):
        ...

    waiting = Shares(2048)
    if not waiting.has_room(account):
        raise AccountBusy(retry_after=0.2)
    waiting.take(account)

`Slots` have fixed limits. `Shares` have no fixed limit for an owner: the share of one owner shrinks as the
whole fills, so that there is room for one more owner however greedy the others are.

Both are plain counters of one event loop, not of several threads or processes. They cost less than a
microsecond, and the table of owners holds only those that hold something now.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from servicekit.errors import ResourceExhausted

_retry_after: Final = 1.0


class Slots:
    """At most `limit_total` slots, at most `limit_by_owner` of them for one owner.

    The refusal is `ResourceExhausted` with `reason`, `message`, `retry_after` in seconds, and
    metadata `limit`: `by` when the owner has its share, "process" when there is no slot at all.
    """

    def __init__(
        self,
        limit_total: int,
        limit_by_owner: int,
        *,
        reason: str = "TOO_MANY_AT_ONCE",
        message: str = "Too many of these are open at once. Close one, or try again later.",
        by: str = "owner",
        retry_after: float = _retry_after,
    ) -> None:
        if not (limit_total > 0 and limit_by_owner > 0):
            raise ValueError("a limit must be at least 1")
        self._limit_total = limit_total
        self._limit_by_owner = limit_by_owner
        self._reason = reason
        self._message = message
        self._by = by
        self._retry_after = retry_after
        self._held: dict[str, int] = {}
        self._total = 0

    @property
    def total(self) -> int:
        """Slots that are taken."""
        return self._total

    def held_by(self, owner: str) -> int:
        """Slots that this owner has taken."""
        return self._held.get(owner, 0)

    @contextmanager
    def taken(self, owner: str) -> Iterator[None]:
        """One slot for the block, given back however it ends. Raises `ResourceExhausted`."""
        self.take(owner)
        try:
            yield
        finally:
            self.give_back(owner)

    def take(self, owner: str) -> None:
        """Take one slot; `give_back` must follow. Raises `ResourceExhausted`."""
        held = self._held.get(owner, 0)
        if held >= self._limit_by_owner:
            raise self._refusal(self._by, self._limit_by_owner)
        if self._total >= self._limit_total:
            raise self._refusal("process", self._limit_total)
        self._held[owner] = held + 1
        self._total += 1

    def give_back(self, owner: str) -> None:
        """Give back a slot that was taken."""
        _less(self._held, owner, 1)
        self._total -= 1

    def _refusal(self, by: str, limit: int) -> ResourceExhausted:
        return ResourceExhausted(
            self._message,
            reason=self._reason,
            metadata={"limit": by, "limit_value": str(limit)},
            retry_after=self._retry_after,
        )


class Shares:
    """Places that owners share: each may hold at most as many as are still free, and at least one.

    One greedy owner gets half of the places, n of them get n/(n+1) together, so a further owner finds
    room while fewer owners than places are active. This is the dynamic threshold of Choudhury and
    Hahne ("Dynamic queue length thresholds for shared-memory packet switches", 1998) with alpha 1.
    """

    def __init__(self, places: int) -> None:
        if places <= 0:
            raise ValueError("at least one place is needed")
        self._free = places
        self._held: dict[str, int] = {}

    @property
    def free(self) -> int:
        """Places that none holds."""
        return self._free

    def held_by(self, owner: str) -> int:
        """Places that this owner holds."""
        return self._held.get(owner, 0)

    def has_room(self, owner: str, count: int = 1) -> bool:
        """Whether this owner may take so many more places now."""
        if count > self._free:
            return False
        held = self._held.get(owner, 0)
        return held + count <= max(self._free, count if not held else 0)

    def take(self, owner: str, count: int = 1) -> None:
        """Take places; ask `has_room` first. `give_back` must follow."""
        self._held[owner] = self._held.get(owner, 0) + count
        self._free -= count

    def give_back(self, owner: str, count: int = 1) -> None:
        """Give back places that were taken."""
        _less(self._held, owner, count)
        self._free += count


def _less(held: dict[str, int], owner: str, count: int) -> None:
    left = held[owner] - count
    if left > 0:
        held[owner] = left
    else:
        del held[owner]
