"""Passwords: argon2id off the event loop, and the rules for new ones.

The list of breached passwords is the one that the package `zxcvbn` ships (30,000 by frequency, from
published breaches): it works offline and is updated with the package.
"""

from __future__ import annotations

import ast
import importlib.util
import random
import re
import secrets
from collections.abc import Callable
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Final

from argon2 import PasswordHasher

from services.auth import hash_formats
from services.auth.errors import WeakPassword
from services.auth.hashing import HashLine

MAX_BYTES: Final = 1024


class Passwords:
    """Hashes and verifies, by the rules and the bounds of `HashLine`.

    `address` is the client's, "" if it did not come through the edge.
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
        self.line = HashLine(threads=threads, queue=queue, max_wait=max_wait, timer=timer, jitter=jitter)
        # Of a password that nobody knows, under the parameters of now: verifying against it takes
        # as long as against a real one.
        began = timer()
        self._dummy = hasher.hash(secrets.token_urlsafe(16))
        self.line.cost = timer() - began

    async def hash(self, password: str, address: str = "") -> str:
        """The hash in PHC form. Raises `Overloaded`."""
        return await self.line.run(lambda: self._hasher.hash(password), address)

    async def matches(self, stored: str | None, password: str, address: str = "") -> bool:
        """Whether it is the password. Takes equally long with no stored hash, and is then False.

        An imported hash takes as long as its maker chose, until it is renewed.
        """

        def verify() -> bool:
            return hash_formats.verified(self._hasher, stored or self._dummy, password) and stored is not None

        # What no account can have need not be hashed, but an answer must take its time all the same.
        right = await self.line.run(verify, address) and len(password.encode()) <= MAX_BYTES
        self.line.was_right(address, right=right)
        return right

    def outdated(self, stored: str) -> bool:
        """True when the hash was made in another form, or with other parameters, than those of now."""
        return hash_formats.outdated(self._hasher, stored)

    def close(self) -> None:
        """Give the threads back."""
        self.line.close()


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
