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
import unicodedata
from collections.abc import Callable, Iterable
from functools import cache
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Final, NamedTuple

from argon2 import PasswordHasher

from services.auth import hash_formats
from services.auth.errors import WeakPassword
from services.auth.hashing import HashLine

MAX_BYTES: Final = 1024


class Verdict(NamedTuple):
    """What a look at a password found. `outdated`: the hash has other parameters than those of now, or is of
    another Unicode form than NFC.
    """

    right: bool
    outdated: bool = False


def forms(password: str) -> tuple[str, ...]:
    """What hashes of a password may have been made of, NFC first: what new ones are made of.

    Keyboards differ in how they write `é` (one code point or two). Hashes from before 2026-12 are of what
    was typed. Most passwords have one form; none has more than three.
    """
    nfc = unicodedata.normalize("NFC", password)
    return tuple(dict.fromkeys((nfc, unicodedata.normalize("NFD", password), password)))


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
        """The hash of the password's NFC form, in PHC form. Raises `Overloaded`."""
        return await self.line.run(lambda: self._hasher.hash(forms(password)[0]), address)

    async def verify(
        self, stored: str | None, password: str, address: str = "", *, remember: bool = True
    ) -> Verdict:
        """Whether it is the password, and whether its hash is to be renewed.

        Takes equally long with no stored hash, and is then wrong. An imported hash takes as long as its maker
        chose, until it is renewed. `remember`: the caller signs in, and the result counts for its address.
        Raises `Overloaded`.
        """
        candidates = forms(password)

        def verdict() -> Verdict:
            for form in candidates:
                if hash_formats.verified(self._hasher, stored or self._dummy, form) and stored is not None:
                    outdated = form != candidates[0] or self.outdated(stored)
                    return Verdict(right=True, outdated=outdated)
            return Verdict(right=False)

        found = await self.line.run(verdict, address)
        # What no account can have need not be hashed, but an answer must take its time all the same.
        if len(password.encode("utf-8", "surrogatepass")) > MAX_BYTES:
            found = Verdict(right=False)
        if remember:
            self.line.was_right(address, right=found.right)
        return found

    async def matches(
        self, stored: str | None, password: str, address: str = "", *, remember: bool = True
    ) -> bool:
        """As `verify`, for a caller that renews no hash."""
        return (await self.verify(stored, password, address, remember=remember)).right

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
_shortest_word: Final = 3
_least: Final = 4
"""Characters that a password must have beyond what can be guessed of it."""
_year: Final = 4
"""Digits that people add to a word."""


def check_new_password(password: str, minimum: int, words: Iterable[str] = ()) -> None:
    """Raise `WeakPassword` for a password that guessers try first (NIST SP 800-63B, 5.1.1.2).

    `length`: fewer than `minimum` characters, or more than `MAX_BYTES`. `pwned`: breached, save up to three
    digits or signs before and four behind (`Password123!`). `characters`: a few characters repeated or in
    sequence. `context`: little more than some of `words`, such as the account's address.
    """
    # Before the normal form, which takes the square of the length in time: marks have an order (UAX 15).
    if len(password) > MAX_BYTES:
        raise WeakPassword(["length"], minimum)
    plain = unicodedata.normalize("NFC", password)
    if len(plain) < minimum or any(
        len(form.encode("utf-8", "surrogatepass")) > MAX_BYTES for form in (plain, password)
    ):
        raise WeakPassword(["length"], minimum)
    plain = plain.casefold()
    core = _trimmings.match(plain)
    reasons = []
    if plain in breached() or (core is not None and core[1] in breached()):
        reasons.append("pwned")
    if _repeats(plain, minimum) or _counts(plain):
        reasons.append("characters")
    if _is_about(plain, words):
        reasons.append("context")
    if reasons:
        raise WeakPassword(reasons, minimum)


def context_words(email: str, *names: str) -> list[str]:
    """The words that must not make up an account's password: its address and parts of it, and `names`."""
    local, _, domain = email.partition("@")
    return [email, local, *re.split(r"[^a-z0-9]+", local), domain, *domain.split(".")[:-1], *names]


def _repeats(plain: str, minimum: int) -> bool:
    """Whether it is a few characters over and over: `abcabcab`."""
    period = (plain + plain).find(plain, 1)
    if period == len(plain):  # the last repetition may be cut off
        period = next((n for n in range(1, len(plain) // 2 + 1) if plain.startswith(plain[n:])), period)
    return period < min(minimum, len(plain))


def _counts(plain: str) -> bool:
    """Whether all but three characters repeat the one before or count it up or down: `aaaa1234`."""
    steps = (abs(ord(after) - ord(before)) for before, after in pairwise(plain))
    return 1 + sum(step > 1 for step in steps) < _least


def _is_about(plain: str, words: Iterable[str]) -> bool:
    """Whether no more than three letters and a year are left once the words are taken out."""
    left = plain
    for word in sorted({word.casefold() for word in words}, key=len, reverse=True):
        if len(word) >= _shortest_word:
            left = left.replace(word, " ")
    letters, digits = (sum(map(kind, left)) for kind in (str.isalpha, str.isdigit))
    return left != plain and letters < _least and digits <= _year
