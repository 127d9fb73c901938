"""Passwords: argon2id off the event loop, and the rules for new ones.

The list of breached passwords is the one that the package `zxcvbn` ships (30,000 by frequency, from
published breaches): it works offline and is updated with the package.
"""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import random
import re
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Final, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from servicekit.addresses import bucket
from servicekit.slots import Shares
from services.auth.errors import Overloaded, WeakPassword
from services.auth.metrics import HASHES_REFUSED, HASHES_WAITING

T = TypeVar("T")
MAX_BYTES: Final = 1024
_lately: Final = 8
"""Of how many hashes the mean cost is, about."""


class Passwords:
    """Hashes and verifies, at most `threads` at once; the others wait in order, or are `Overloaded`.

    Every hash costs the same memory and time, for any caller, so these bounds keep a flood of sign-ins from
    taking all memory and all cores. At most `queue` calls wait; a call is refused if its estimated wait, from
    the recent cost of hashes, exceeds `max_wait` seconds. The client addresses share the places: each holds
    at most as many as are still free, so one address cannot keep the others out. A caller that disconnects
    leaves the queue, and its password is not hashed.

    `address` is the client's, "" if unknown: such calls did not come through the edge, and have no share.
    Tests pass `timer` and `jitter` (0 to 1).
    """

    def __init__(
        self,
        hasher: PasswordHasher,
        *,
        threads: int,
        queue: int,
        max_wait: float = 2.5,
        timer: Callable[[], float] = perf_counter,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._hasher = hasher
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="argon2")
        self._threads = threads
        self._turn = asyncio.Semaphore(threads)
        self._places = threads + queue
        self._held = 0
        self._shares = Shares(self._places)
        self._max_wait = max_wait
        self._timer = timer
        self._jitter = jitter
        # Of a password that nobody knows, under the parameters of now: verifying against it takes
        # as long as against a real one.
        began = timer()
        self._dummy = hasher.hash(secrets.token_urlsafe(16))
        self._cost = timer() - began
        HASHES_WAITING.set_function(lambda: max(0, self._held - threads))

    async def hash(self, password: str, address: str = "") -> str:
        """The hash in PHC form. Raises `Overloaded`."""
        return await self._run(lambda: self._hasher.hash(password), address)

    async def matches(self, stored: str | None, password: str, address: str = "") -> bool:
        """Whether it is the password. Takes equally long with no stored hash, and is then False."""

        def verify() -> bool:
            try:
                self._hasher.verify(stored or self._dummy, password)
            except (Argon2Error, InvalidHashError):
                return False
            return stored is not None

        # What no account can have need not be hashed, but an answer must take its time all the same.
        return await self._run(verify, address) and len(password.encode()) <= MAX_BYTES

    def outdated(self, stored: str) -> bool:
        """True when the hash was made with other parameters than those of now."""
        return self._hasher.check_needs_rehash(stored)

    def close(self) -> None:
        """Give the threads back."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def _run(self, work: Callable[[], T], address: str) -> T:
        owner = bucket(address)
        self._admit(owner)
        self._held += 1
        if owner:
            self._shares.take(owner)
        try:
            # In order of arrival; one that is cancelled while it waits leaves without its hash.
            await self._turn.acquire()
            return await self._hashed(work)
        finally:
            self._held -= 1
            if owner:
                self._shares.give_back(owner)

    def _admit(self, owner: str) -> None:
        wait = max(0, self._held - self._threads + 1) * self._cost / self._threads
        full = self._held >= self._places or wait > self._max_wait
        if full or (owner and not self._shares.has_room(owner)):
            HASHES_REFUSED.labels("full" if full else "share").inc()
            raise Overloaded(retry_after=max(1.0, wait) * (1 + self._jitter()))

    async def _hashed(self, work: Callable[[], T]) -> T:
        """The result of work in a thread. The turn ends with the thread, also when the caller is gone."""

        def timed() -> tuple[T, float]:
            began = self._timer()
            return work(), self._timer() - began

        running = asyncio.get_running_loop().run_in_executor(self._pool, timed)
        running.add_done_callback(self._done)
        result, cost = await asyncio.shield(running)
        self._cost += (cost - self._cost) / _lately
        return result

    def _done(self, running: asyncio.Future[tuple[T, float]]) -> None:
        self._turn.release()
        if not running.cancelled():
            running.exception()  # seen here, where the caller is gone


class Breached:
    """Breached passwords of 4 characters or more, in lower case.

    One text rather than a set of 30,000 objects, which takes ten times the memory. A look takes some tenths
    of a millisecond, which is little beside the password's hash.
    """

    def __init__(self, words: str) -> None:
        """`words` have commas between them."""
        self._text = f",{words},"

    def __contains__(self, password: str) -> bool:
        """Whether it is one of them."""
        return len(password) > 3 and "," not in password and f",{password}," in self._text  # noqa: PLR2004


@cache
def breached() -> Breached:
    """The list, read once. Raises `ModuleNotFoundError` when the package has none of this form.

    The module of the lists is read and not run: a dozen megabytes of other lists would come with it.
    """
    package = importlib.util.find_spec("zxcvbn")
    for folder in (package and package.submodule_search_locations) or ():
        lists = Path(folder, "frequency_lists.py").read_text(encoding="utf-8")
        if found := re.search(r'"passwords": ("(?:[^"\\]|\\.)*")\.split\(","\)', lists):
            return Breached(ast.literal_eval(found[1]))
    raise ModuleNotFoundError("zxcvbn's list of passwords")


_trimmings = re.compile(r"^[\W\d_]{0,3}(.*?)[\W\d_]{0,4}$", re.DOTALL)


def check_new_password(password: str, minimum: int) -> None:
    """Raise `WeakPassword` when it is too short, too long, breached, or breached but for some trimmings.

    Trimmings are up to three digits or signs before and four behind (`Password123!`): what people add
    when a form asks for them, and what guessers try first.
    """
    reasons = []
    if len(password) < minimum or len(password.encode()) > MAX_BYTES:
        reasons.append("length")
    else:
        plain = password.casefold()
        core = _trimmings.match(plain)
        if plain in breached() or (core is not None and core[1] in breached()):
            reasons.append("pwned")
    if reasons:
        raise WeakPassword(reasons, minimum)
