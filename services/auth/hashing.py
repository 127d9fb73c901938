"""The line for password hashes: threads for the few that run, and an order for those that wait.

Every hash costs the same memory and time, for any caller, so bounds keep a flood of sign-ins from taking all
memory and all cores. Addresses from which the last password was right come first, and have one thread and a
quarter of the places to themselves; then come addresses that wait for nothing else. So those who flood wait
behind those who sign in, and behind each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar

from servicekit.addresses import bucket
from servicekit.slots import Shares
from services.auth.errors import Overloaded
from services.auth.metrics import HASHES_REFUSED, HASHES_WAITING

T = TypeVar("T")
REMEMBERED: Final = 10_000
"""Addresses whose last password was right; the one that showed it first leaves first."""
_lately: Final = 8
"""Of how many hashes the mean cost is, about."""
_niceness: Final = 10
_patience: Final = 2.0
"""Of `max_wait`: who was overtaken for longer is refused."""


class _Turns:
    """So many turns at once, given by rank and then by arrival. Each must be given back by `release`."""

    def __init__(self, count: int) -> None:
        self._free = asyncio.Semaphore(count)
        self._waiting: asyncio.PriorityQueue[tuple[int, int, asyncio.Future[None]]] = asyncio.PriorityQueue()
        self._number = itertools.count()
        self._usher: asyncio.Task[None] | None = None

    async def take(self, rank: int) -> None:
        """Return with a turn; one that is cancelled while it waits has none."""
        if self._usher is None:
            self._usher = asyncio.create_task(self._call(), name="hash-line")
        called = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((rank, next(self._number), called))
        try:
            await called
        except BaseException:
            if called.done() and not called.cancelled():
                self.release()
            raise

    def release(self) -> None:
        self._free.release()

    def close(self) -> None:
        if self._usher is not None:
            self._usher.cancel()

    async def _call(self) -> None:
        while True:
            await self._free.acquire()
            *_, called = await self._waiting.get()
            if called.done():  # gone
                self.release()
            else:
                called.set_result(None)


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
        self._turns, self._strangers = _Turns(threads), _Turns(max(1, threads - 1))
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
            return await self._hashed(work, await self._my_turn(owner, first=first))

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
        self._turns.close()
        self._strangers.close()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _admit(self, owner: str, *, first: bool) -> None:
        # Strangers have one thread less; those who come first may have all.
        ahead, threads = (
            (self._held_first, self._threads) if first else (self._held, max(1, self._threads - 1))
        )
        places = self._places if first else self._places - self._reserved
        wait = max(0, ahead - threads + 1) * self.cost / threads
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

    async def _my_turn(self, owner: str, *, first: bool) -> list[_Turns]:
        """What was taken, for `_hashed` to give back. Raises `Overloaded` for who is overtaken too long."""
        taken: list[_Turns] = []
        try:
            async with asyncio.timeout(_patience * self._max_wait):
                if not first:
                    await self._strangers.take(self._shares.held_by(owner))
                    taken.append(self._strangers)
                await self._turns.take(not first)
                taken.append(self._turns)
        except BaseException as error:
            _release(taken)
            if isinstance(error, TimeoutError):
                HASHES_REFUSED.labels("overtaken").inc()
                raise self._overloaded(self._max_wait) from None
            raise
        return taken

    async def _hashed(self, work: Callable[[], T], taken: list[_Turns]) -> T:
        """The result of work in a thread. Turns end with the thread, also when the caller is gone."""

        def timed() -> tuple[T, float]:
            began = self._timer()
            return work(), self._timer() - began

        running = asyncio.get_running_loop().run_in_executor(self._pool, timed)
        running.add_done_callback(partial(_done, taken))
        result, cost = await asyncio.shield(running)
        self.cost += (cost - self.cost) / _lately
        return result


def _done(taken: list[_Turns], running: asyncio.Future[Any]) -> None:
    _release(taken)
    if not running.cancelled():
        running.exception()  # seen here, where the caller is gone


def _release(taken: list[_Turns]) -> None:
    for turns in taken:
        turns.release()


def _yield_to_the_loop() -> None:
    """Hashes take no time from what else the service answers. On Linux a thread has a priority of its own."""
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _niceness)
