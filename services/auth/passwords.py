"""Passwords: argon2id off the event loop, and the rules for new ones.

The list of breached passwords is the one that the package `zxcvbn` ships (30,000 by frequency, from
published breaches): it works offline and is updated with the package.
"""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import re
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Final, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from services.auth.errors import Overloaded, WeakPassword

T = TypeVar("T")
MAX_BYTES: Final = 1024


class Passwords:
    """Hashes and verifies, at most `threads` at once with at most `queue` waiting (else `Overloaded`).

    Each hash costs what the parameters say in memory and time, whoever asks: so the bound is what
    keeps a flood of sign-ins from taking all memory and both cores.
    """

    def __init__(self, hasher: PasswordHasher, *, threads: int, queue: int) -> None:
        self._hasher = hasher
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="argon2")
        self._room = threads + queue
        self._busy = 0
        # Of a password that nobody knows, under the parameters of now: verifying against it takes
        # as long as against a real one.
        self._dummy = hasher.hash(secrets.token_urlsafe(16))

    async def hash(self, password: str) -> str:
        """The hash in PHC form. Raises `Overloaded`."""
        return await self._run(lambda: self._hasher.hash(password))

    async def matches(self, stored: str | None, password: str) -> bool:
        """Whether it is the password. Takes equally long with no stored hash, and is then False."""

        def verify() -> bool:
            try:
                self._hasher.verify(stored or self._dummy, password)
            except (Argon2Error, InvalidHashError):
                return False
            return stored is not None

        # What no account can have need not be hashed, but an answer must take its time all the same.
        return await self._run(verify) and len(password.encode()) <= MAX_BYTES

    def outdated(self, stored: str) -> bool:
        """True when the hash was made with other parameters than those of now."""
        return self._hasher.check_needs_rehash(stored)

    def close(self) -> None:
        """Give the threads back."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def _run(self, work: Callable[[], T]) -> T:
        if self._busy >= self._room:
            raise Overloaded(retry_after=1.0)
        self._busy += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._busy -= 1


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
