"""Requests that wait for a page: bounded, in order, each answered by its deadline.

A `Ticket` is one caller's list. Its members may be signed in different calls and pages; it is done
when the last of them has a result, and what has none at its deadline gets `SignDeadlineExceeded`
then, wherever it is.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from servicekit.clock import Clock
from servicekit.errors import SigngateError
from services.signer.domain import Signed, SignRequest
from services.signer.errors import SignDeadlineExceeded

Result = Signed | SigngateError


class Entry:
    """One member. `alone`: it was in a list that was lost, so it is tried again by itself."""

    __slots__ = ("alone", "request", "result", "ticket", "tries", "url")

    def __init__(self, request: SignRequest, url: str, ticket: Ticket) -> None:
        self.request = request
        self.url = url
        self.ticket = ticket
        self.tries = 0
        self.alone = False
        self.result: Result | None = None

    def settle(self, result: Result) -> None:
        """Give the result; a second one is dropped."""
        if self.result is None:
            self.result = result
            self.ticket.settled()


class Ticket:
    """One caller's list."""

    def __init__(self, requests: Sequence[SignRequest], urls: Sequence[str], clock: Clock) -> None:
        self.entries = [Entry(request, url, self) for request, url in zip(requests, urls, strict=True)]
        self._left = len(self.entries)
        self._clock = clock
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def settled(self) -> None:
        """One more has its result."""
        self._left -= 1
        if not self._left and not self._done.done():
            self._done.set_result(None)

    async def results(self) -> list[Result]:
        """All results, once there are; no member's later than its deadline."""
        while True:
            wait = self._expire()
            if not self._left:
                break
            try:
                async with asyncio.timeout(wait):
                    await asyncio.shield(self._done)
            except TimeoutError:
                continue
            except asyncio.CancelledError:
                self.abandon()
                raise
        return [entry.result or SignDeadlineExceeded() for entry in self.entries]

    def abandon(self) -> None:
        """Nobody waits any more: what has not been begun is not begun."""
        for entry in self.entries:
            entry.settle(SignDeadlineExceeded())

    def _expire(self) -> float | None:
        """Settle what is late; the seconds until the next one is, None for never."""
        now, nearest = self._clock.monotonic(), None
        for entry in self.entries:
            deadline = entry.request.deadline
            if entry.result is not None or deadline is None:
                continue
            if deadline <= now:
                entry.settle(SignDeadlineExceeded())
            elif nearest is None or deadline < nearest:
                nearest = deadline
        return None if nearest is None else nearest - now


class Waiting:
    """The queue. At most `bound` entries wait in it, apart from those that are put back.

    Of the pages that have nothing to do, the one that signed last is given the next list: its process
    is the one that is still awake.
    """

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._queue: deque[Entry] = deque()
        self._idle: list[asyncio.Future[None]] = []

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Take what there is room for, from the front; the rest comes back."""
        if len(self._queue) + len(entries) > self._bound:
            self._queue = deque(entry for entry in self._queue if entry.result is None)
        room = max(self._bound - len(self._queue), 0)
        self._queue.extend(entries[:room])
        self._wake()
        return entries[room:]

    def put_back(self, entries: Sequence[Entry]) -> None:
        """To the front: these have waited before. Always taken."""
        self._queue.extendleft(reversed(entries))
        self._wake()

    def take(self, most: int) -> list[Entry]:
        """What waits, in order; one that is to be alone comes alone."""
        taken: list[Entry] = []
        while self._queue and len(taken) < most:
            entry = self._queue[0]
            if entry.result is None and entry.alone and taken:
                break
            self._queue.popleft()
            if entry.result is not None:
                continue
            taken.append(entry)
            if entry.alone:
                break
        if self._queue:
            self._wake()  # there is work for another page
        return taken

    def wake_all(self) -> None:
        """Let everybody who waits look around."""
        while self._idle:
            self._wake()

    def _wake(self) -> None:
        while self._idle:
            idle = self._idle.pop()
            if not idle.done():
                idle.set_result(None)
                return

    async def more(self, seconds: float) -> None:
        """Return when there may be something to take, or after `seconds`."""
        if self._queue:
            return
        idle: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._idle.append(idle)
        try:
            async with asyncio.timeout(seconds):
                await idle
        except TimeoutError:
            return
        finally:
            if idle in self._idle:
                self._idle.remove(idle)
            elif idle.cancelled() or not idle.done():
                self._wake()  # woken and cancelled at once: somebody else must look
