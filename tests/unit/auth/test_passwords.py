from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError

from services.auth.errors import Overloaded, WeakPassword
from services.auth.hashing import REMEMBERED
from services.auth.passwords import Passwords, Verdict, check_new_password, context_words


class SlowHasher(PasswordHasher):
    """Verifies nothing until it is let go, and counts."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8192, parallelism=1)
        self.verified: list[str] = []
        self.running = self.most = 0
        self.go = threading.Event()
        self._lock = threading.Lock()

    def verify(self, stored: str | bytes, password: str | bytes) -> bool:  # type: ignore[override]  # never True here
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
            self.verified.append(str(stored))
        self.go.wait(5)
        with self._lock:
            self.running -= 1
        raise VerifyMismatchError


@pytest.fixture
def hasher() -> SlowHasher:
    return SlowHasher()


@pytest.fixture
def passwords(hasher: SlowHasher) -> Iterator[Passwords]:
    found = Passwords(hasher, threads=2, queue=3)
    yield found
    hasher.go.set()
    found.close()


async def test_an_unknown_account_costs_a_hash_all_the_same(hasher: SlowHasher, passwords: Passwords) -> None:
    hasher.go.set()
    assert not await passwords.matches(None, "anything")
    (dummy,) = hasher.verified
    assert dummy.startswith("$argon2id$v=19$m=8192,t=1,p=1$")


async def test_hashing_is_bounded_in_threads_and_in_waiting(hasher: SlowHasher, passwords: Passwords) -> None:
    """Each hash takes megabytes: a flood must be refused, not queued without end."""
    waiting = [asyncio.create_task(passwords.matches(None, "x")) for _ in range(5)]
    await asyncio.sleep(0.05)
    with pytest.raises(Overloaded):
        await passwords.matches(None, "x")
    hasher.go.set()
    assert await asyncio.gather(*waiting) == [False] * 5
    assert hasher.most == 2
    assert not await passwords.matches(None, "x")


async def test_a_password_matches_its_own_hash_only() -> None:
    passwords = Passwords(PasswordHasher(time_cost=1, memory_cost=8192), threads=1, queue=9)
    stored = await passwords.hash("ten green bottles")
    assert await passwords.matches(stored, "ten green bottles")
    assert not await passwords.matches(stored, "ten green bottlez")
    assert not await passwords.matches("not a hash", "ten green bottles")
    assert not passwords.outdated(stored)
    stronger = Passwords(PasswordHasher(time_cost=2, memory_cost=8192), threads=1, queue=9)
    assert stronger.outdated(stored)
    assert await passwords.verify(stored, "ten green bottles") == Verdict(right=True)
    assert await stronger.verify(stored, "ten green bottles") == Verdict(right=True, outdated=True)
    passwords.close()
    stronger.close()


COMPOSED, DECOMPOSED = "caf\u00e9 au lait", "cafe\u0301 au lait"


async def test_a_password_has_one_form_however_it_is_typed() -> None:
    """S29."""
    passwords = Passwords(PasswordHasher(time_cost=1, memory_cost=8192), threads=1, queue=9)
    for written, typed in ((COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)):
        stored = await passwords.hash(written)
        assert await passwords.verify(stored, typed) == Verdict(right=True)
        assert not await passwords.matches(stored, "cafe au lait")
    passwords.close()


async def test_a_hash_of_what_was_typed_still_counts_and_is_renewed() -> None:
    """S29: hashes from before the passwords had one form."""
    hasher = PasswordHasher(time_cost=1, memory_cost=8192)
    passwords = Passwords(hasher, threads=1, queue=9)
    old = hasher.hash(DECOMPOSED)
    for typed in (COMPOSED, DECOMPOSED):
        assert await passwords.verify(old, typed) == Verdict(right=True, outdated=True)
    mixed = "e\u0301 \u00e9 mixed"  # neither NFC nor NFD
    assert await passwords.verify(hasher.hash(mixed), mixed) == Verdict(right=True, outdated=True)
    passwords.close()


@pytest.mark.parametrize(("password", "hashes"), [("plain ascii", 1), (COMPOSED, 2), (DECOMPOSED, 2)])
async def test_known_and_unknown_accounts_cost_the_same_hashes(
    hasher: SlowHasher, passwords: Passwords, password: str, hashes: int
) -> None:
    hasher.go.set()
    assert not await passwords.matches(None, password)
    stored = PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1).hash("another password")
    assert not await passwords.matches(stored, password)
    assert len(hasher.verified) == 2 * hashes


@pytest.mark.parametrize(
    "password", ["password", "PASSWORD1", "Password123!", "!!qwertyuiop99", "iloveyou", "12345678"]
)
def test_breached_passwords_and_their_trimmings_are_refused(password: str) -> None:
    with pytest.raises(WeakPassword) as refused:
        check_new_password(password, 8)
    assert "pwned" in refused.value.metadata["reasons"].split(",")


@pytest.mark.parametrize(
    "password",
    [
        "ten green bottles",
        "8fJ2-kqpL!x",
        "пароль-не-из-списка",
        "🦉🐢🐙🦀🐝🐞🦋🐌",
        "annabel's 4 signs",
        "aab!ccd?eef",
    ],
)
def test_good_passwords_pass(password: str) -> None:
    check_new_password(password, 8, context_words("ann@example.com", "Signgate"))


@pytest.mark.parametrize(
    "password",
    ["zzzzzzzz", "🦉" * 8, "qzqzqzqzqz", "kfjkfjkfjk", "qumbaqumba", "defghijk", "zyxwvuts", "mmmm3456"],
)
def test_repetitions_and_sequences_are_refused(password: str) -> None:
    """NIST SP 800-63B, section 5.1.1.2."""
    with pytest.raises(WeakPassword) as refused:
        check_new_password(password, 8)
    assert "characters" in refused.value.metadata["reasons"].split(",")


@pytest.mark.parametrize(
    "password",
    [
        "ann.brown@example.com",
        "Ann.Brown2026",
        "brown-example",
        "SIGNGATE!signgate",
        "signgate-1!",
        "anna.brown",
        "2026example!",
    ],
)
def test_a_password_is_not_made_of_the_address_or_the_services_name(password: str) -> None:
    """NIST SP 800-63B, section 5.1.1.2."""
    with pytest.raises(WeakPassword) as refused:
        check_new_password(password, 8, context_words("ann.brown@example.com", "Signgate"))
    assert "context" in refused.value.metadata["reasons"].split(",")


@pytest.mark.parametrize("length", [8, 1024])
def test_the_rules_take_no_time_worth_counting(length: int) -> None:
    """One pass or two: none of the rules is a pattern that backtracks."""
    for password in ("ab" * (length // 2), "a" * (length - 1) + "b", ("a" * 31 + "b") * (length // 32 or 1)):
        with pytest.raises(WeakPassword):
            check_new_password(password, 8, ["a" * 20])


@pytest.mark.parametrize("password", ["", "x" * 7, "x" * 1025, "é" * 513])
def test_length_counts_characters_below_and_bytes_above(password: str) -> None:
    with pytest.raises(WeakPassword) as refused:
        check_new_password(password, 8)
    assert refused.value.metadata["reasons"] == "length"


def test_what_is_too_long_is_not_brought_into_a_normal_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """S1: sorting 30,000 marks takes seconds, in which the service answers no other caller."""
    monkeypatch.setattr("services.auth.passwords.unicodedata", None)
    with pytest.raises(WeakPassword) as refused:
        check_new_password("a" + "\u0301\u0316" * 15_000, 8)
    assert refused.value.metadata["reasons"] == "length"


async def test_one_address_leaves_places_for_others(hasher: SlowHasher) -> None:
    """A stranger who signs in all the time must not keep owners out."""
    passwords = Passwords(hasher, threads=1, queue=15, max_wait=1000.0, jitter=lambda: 0.5)
    strangers = [asyncio.create_task(passwords.matches(None, "x", f"2001:db8::{n:x}")) for n in range(40)]
    await asyncio.sleep(0.05)
    refused = [task for task in strangers if task.done()]
    assert len(refused) == 40 - 8
    assert {type(task.exception()) for task in refused} == {Overloaded}
    error = refused[0].exception()
    assert isinstance(error, Overloaded)
    assert error.retry_after is not None
    assert error.retry_after >= 1.5
    owner = asyncio.create_task(passwords.matches(None, "x", "192.0.2.1"))
    await asyncio.sleep(0.02)
    assert not owner.done()
    hasher.go.set()
    assert await owner is False
    await asyncio.wait(strangers)
    assert (passwords.line._held, passwords.line._held_first, passwords.line._shares._held) == (0, 0, {})
    passwords.close()


async def test_none_waits_longer_than_the_bound_says(hasher: SlowHasher) -> None:
    """Told by what hashes cost lately: a slow machine has a shorter line."""
    costs = iter([0.0, 1.0])  # begin and end of the first hash: one second
    passwords = Passwords(hasher, threads=2, queue=64, max_wait=2.5, timer=lambda: next(costs, 2.0))
    waiting = [asyncio.create_task(passwords.matches(None, "x")) for _ in range(20)]
    await asyncio.sleep(0.05)
    refused = [task for task in waiting if task.done()]
    assert len(waiting) - len(refused) == 2 + 5
    error = refused[0].exception()
    assert isinstance(error, Overloaded)
    assert error.retry_after is not None
    assert 3.0 <= error.retry_after <= 6.0
    hasher.go.set()
    await asyncio.wait(waiting)
    passwords.close()


async def test_who_went_away_is_not_hashed_and_frees_the_place(hasher: SlowHasher) -> None:
    passwords = Passwords(hasher, threads=1, queue=4, max_wait=1000.0)
    first = asyncio.create_task(passwords.matches("first", "x"))
    await asyncio.sleep(0.02)
    for _ in range(10):
        gone = [asyncio.create_task(passwords.matches("gone", "x")) for _ in range(4)]
        await asyncio.sleep(0)
        for task in gone:
            task.cancel()
        await asyncio.wait(gone)
    running = asyncio.create_task(passwords.matches("cancelled while hashed", "x"))
    await asyncio.sleep(0.02)
    first.cancel()
    await asyncio.sleep(0.02)
    assert hasher.verified == ["first"]  # its thread still works, so the next one waits for it
    hasher.go.set()
    assert await running is False
    assert hasher.verified == ["first", "cancelled while hashed"]
    assert (hasher.most, passwords.line._held) == (1, 0)
    passwords.close()


async def test_who_was_right_comes_first_and_has_places_of_their_own(hasher: SlowHasher) -> None:
    """Strangers from however many addresses fill the line: those who sign in every day still do."""
    passwords = Passwords(hasher, threads=1, queue=15, max_wait=1000.0)
    passwords.line.was_right("192.0.2.1", right=True)
    strangers = [asyncio.create_task(passwords.matches(f"{n}", "x", f"198.51.100.{n}")) for n in range(1, 41)]
    await asyncio.sleep(0.05)
    assert sum(task.done() for task in strangers) == 40 - 12
    owner = asyncio.create_task(passwords.matches("owner", "x", "192.0.2.1"))
    await asyncio.sleep(0.02)
    hasher.go.set()
    await asyncio.wait([owner, *strangers])
    assert hasher.verified[:2] == ["1", "owner"]
    passwords.close()


async def test_strangers_leave_one_thread_to_who_was_right(hasher: SlowHasher) -> None:
    passwords = Passwords(hasher, threads=2, queue=14, max_wait=1000.0)
    passwords.line.was_right("192.0.2.1", right=True)
    waiting = [asyncio.create_task(passwords.matches("stranger", "x", f"198.51.100.{n}")) for n in range(5)]
    await asyncio.sleep(0.05)
    assert hasher.verified == ["stranger"]
    waiting.append(asyncio.create_task(passwords.matches("owner", "x", "192.0.2.1")))
    await asyncio.sleep(0.05)
    assert hasher.verified == ["stranger", "owner"]
    hasher.go.set()
    await asyncio.wait(waiting)
    assert len(hasher.verified) == 6
    passwords.close()


async def test_a_wrong_password_ends_the_precedence(hasher: SlowHasher) -> None:
    passwords = Passwords(hasher, threads=1, queue=15, max_wait=1000.0)
    passwords.line.was_right("192.0.2.1", right=True)
    hasher.go.set()
    assert not await passwords.matches("wrong", "x", "192.0.2.1")
    hasher.go.clear()
    waiting = [asyncio.create_task(passwords.matches("first", "x", "198.51.100.1"))]
    for name, address in (("stranger", "198.51.100.2"), ("owner", "192.0.2.1")):
        waiting.append(asyncio.create_task(passwords.matches(name, "x", address)))
        await asyncio.sleep(0.02)
    hasher.go.set()
    await asyncio.wait(waiting)
    assert hasher.verified == ["wrong", "first", "stranger", "owner"]
    passwords.close()


@pytest.mark.parametrize("right", [True, False])
async def test_a_look_that_is_no_sign_in_gives_and_takes_no_precedence(
    monkeypatch: pytest.MonkeyPatch,
    right: bool,  # noqa: FBT001
) -> None:
    """A sign-up compares passwords too: signing up twice must not make an address known."""
    passwords = Passwords(PasswordHasher(time_cost=1, memory_cost=8192), threads=1, queue=15)
    heard: list[bool] = []
    monkeypatch.setattr(passwords.line, "was_right", lambda _, *, right: heard.append(right))
    stored = await passwords.hash("ten green bottles")
    typed = "ten green bottles" if right else "nine green bottles"
    assert await passwords.matches(stored, typed, "192.0.2.1", remember=False) is right
    assert heard == []
    assert await passwords.matches(stored, typed, "192.0.2.1") is right
    assert heard == [right]
    passwords.close()


async def test_an_address_that_waits_for_nothing_else_comes_next(hasher: SlowHasher) -> None:
    passwords = Passwords(hasher, threads=1, queue=31, max_wait=1000.0)
    waiting = []
    for name, address in (("1", "a"), ("2", "a"), ("3", "a"), ("4", "b")):
        number = "198.51.100.1" if address == "a" else "198.51.100.2"
        waiting.append(asyncio.create_task(passwords.matches(name, "x", number)))
        await asyncio.sleep(0.02)
    hasher.go.set()
    await asyncio.wait(waiting)
    assert hasher.verified == ["1", "4", "2", "3"]
    passwords.close()


async def test_who_is_overtaken_for_too_long_is_told(hasher: SlowHasher) -> None:
    passwords = Passwords(hasher, threads=1, queue=15, max_wait=0.05)
    first = asyncio.create_task(passwords.matches("first", "x", "198.51.100.1"))
    await asyncio.sleep(0.01)
    with pytest.raises(Overloaded):
        await passwords.matches("second", "x", "198.51.100.2")
    hasher.go.set()
    assert not await first
    assert hasher.verified == ["first"]
    assert passwords.line._held == 0
    passwords.close()


async def test_the_addresses_that_are_remembered_are_bounded(hasher: SlowHasher) -> None:
    passwords = Passwords(hasher, threads=1, queue=15)
    for number in range(REMEMBERED + 5):
        passwords.line.was_right(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", right=True)
    assert len(passwords.line._right) == REMEMBERED
    passwords.close()
