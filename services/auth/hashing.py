"""The line for password hashes: threads for the few that run, and an order for those that wait.

Every hash costs the same memory and time, for any caller, so bounds keep a flood of sign-ins from taking all
memory and all cores. Addresses from which the last password was right come first, and have a quarter of the
places to themselves; then come addresses that wait for nothing else. So those who flood wait behind those
who sign in, and behind each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from servicekit.addresses import bucket
from servicekit.slots import Shares
from services.auth.errors import Overloaded
from services.auth.metrics import HASHES_REFUSED, HASHES_WAITING

T = TypeVar("T")
REMEMBERED: Final = 10_000
"""Addresses whose last password was right; the one that showed it first leaves first."""
_lately: Final = 8
"""Of how many hashes the mean cost is, about."""
_niceness: Final = 5
_patience: Final = 2.0
"""Of `max_wait`: who was overtaken for longer is refused."""


_Waiting = tuple[int, int, int, asyncio.Future[None]]
"""Whether its address comes first (0), how much the address has waiting, a number, and what it waits for."""


class HashLine:
    """Runs at most `threads` hashes at once; at most `queue` more wait, or are `Overloaded`.

    A call is refused if its estimated wait, from the recent cost of hashes, exceeds `max_wait` seconds. The
    client addresses share the places: each holds at most as many as are still free, so one address cannot
    keep the others out. A caller that disconnects leaves the line, and its password is not hashed.

    `address` is the client's, "" if unknown: such calls did not come through the edge, have no share, and
    come first. Tests pass `timer` and `jitter` (0 to 1).
    """

    def __init__(
        self,
        *,
        threads: int,
        queue: int,
        max_wait: float,
        timer: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="argon2", initializer=_yield_to_the_loop)
        self._threads = threads
        self._turn = asyncio.Semaphore(threads)
        self._waiting: asyncio.PriorityQueue[_Waiting] = asyncio.PriorityQueue()
        self._number = itertools.count()
        self._usher: asyncio.Task[None] | None = None
        self._places = threads + queue
        self._reserved = self._places // 4
        self._held = self._held_first = 0
        self._shares = Shares(self._places)
        self._right: dict[str, None] = {}
        self._max_wait = max_wait
        self._timer = timer
        self._jitter = jitter
        self.cost = 0.0
        """Seconds that a hash takes lately."""
        HASHES_WAITING.set_function(lambda: max(0, self._held - threads))

    async def run(self, work: Callable[[], T], address: str) -> T:
        """The result of `work` in a thread. Raises `Overloaded`."""
        owner = bucket(address)
        first = not owner or owner in self._right
        self._admit(owner, first=first)
        with self._place(owner, first=first):
            await self._my_turn(0 if first else 1, self._shares.held_by(owner))
            return await self._hashed(work)

    def was_right(self, address: str, *, right: bool) -> None:
        """Remember whether the last password from an address was."""
        if not (owner := bucket(address)):
            return
        self._right.pop(owner, None)
        if right:
            self._right[owner] = None
            if len(self._right) > REMEMBERED:
                del self._right[next(iter(self._right))]

    def close(self) -> None:
        """Give the threads back."""
        if self._usher is not None:
            self._usher.cancel()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _admit(self, owner: str, *, first: bool) -> None:
        ahead = self._held_first if first else self._held
        places = self._places if first else self._places - self._reserved
        wait = max(0, ahead - self._threads + 1) * self.cost / self._threads
        full = self._held >= places or wait > self._max_wait
        if full or (owner and not self._shares.has_room(owner)):
            HASHES_REFUSED.labels("full" if full else "share").inc()
            raise self._overloaded(wait)

    def _overloaded(self, wait: float) -> Overloaded:
        return Overloaded(retry_after=max(1.0, wait) * (1 + self._jitter()))

    @contextlib.contextmanager
    def _place(self, owner: str, *, first: bool) -> Iterator[None]:
        self._held += 1
        self._held_first += first
        if owner:
            self._shares.take(owner)
        try:
            yield
        finally:
            self._held -= 1
            self._held_first -= first
            if owner:
                self._shares.give_back(owner)

    async def _my_turn(self, rank: int, held: int) -> None:
        """Return with a turn, which `_hashed` gives back. One that is cancelled while it waits has none."""
        if self._usher is None:
            self._usher = asyncio.create_task(self._usher_in(), name="hash-line")
        called = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((rank, held, next(self._number), called))
        try:
            async with asyncio.timeout(_patience * self._max_wait):
                await called
        except BaseException as error:
            if called.done() and not called.cancelled():
                self._turn.release()
            if isinstance(error, TimeoutError):
                HASHES_REFUSED.labels("overtaken").inc()
                raise self._overloaded(self._max_wait) from None
            raise

    async def _usher_in(self) -> None:
        while True:
            await self._turn.acquire()
            *_, called = await self._waiting.get()
            if called.done():  # gone
                self._turn.release()
            else:
                called.set_result(None)

    async def _hashed(self, work: Callable[[], T]) -> T:
        """The result of work in a thread. The turn ends with the thread, also when the caller is gone."""

        def timed() -> tuple[T, float]:
            began = self._timer()
            return work(), self._timer() - began

        running = asyncio.get_running_loop().run_in_executor(self._pool, timed)
        running.add_done_callback(self._done)
        result, cost = await asyncio.shield(running)
        self.cost += (cost - self.cost) / _lately
        return result

    def _done(self, running: asyncio.Future[tuple[T, float]]) -> None:
        self._turn.release()
        if not running.cancelled():
            running.exception()  # seen here, where the caller is gone


def _yield_to_the_loop() -> None:
    """Hashes take no time from what else the service answers. On Linux a thread has a priority of its own."""
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _niceness)
