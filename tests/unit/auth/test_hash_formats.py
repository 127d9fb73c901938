"""Hashes that other systems made: the right ones are taken, and none can cost more than was agreed."""

from __future__ import annotations

import unicodedata
from typing import NoReturn

import bcrypt
import pytest
from argon2 import PasswordHasher, Type
from hypothesis import given
from hypothesis import strategies as st

from services.auth.errors import ValidationFailed
from services.auth.hash_formats import MAX_LENGTH, ImportLimits, checked, outdated, verified

PASSWORD = "ten green bottles"
OURS = PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1)
LIMITS = ImportLimits()


def by_bcrypt(password: bytes, prefix: str = "2b", cost: int = 4) -> str:
    made = bcrypt.hashpw(password, bcrypt.gensalt(cost)).decode()
    return made.replace("$2b$", f"${prefix}$")


TAKEN = {
    **{f"bcrypt {prefix}": by_bcrypt(PASSWORD.encode(), prefix) for prefix in ("2a", "2b", "2y")},
    "argon2id": PasswordHasher(time_cost=2, memory_cost=1024, parallelism=2).hash(PASSWORD),
    "argon2i": PasswordHasher(time_cost=3, memory_cost=1024, parallelism=1, type=Type.I).hash(PASSWORD),
}
# The published test vector of bcrypt, made by another implementation (OpenBSD's).
VECTOR = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"


@pytest.mark.parametrize("name", TAKEN)
def test_a_hash_from_elsewhere_is_taken_and_lets_its_owner_in(name: str) -> None:
    stored = checked(TAKEN[name], LIMITS)
    assert stored == TAKEN[name]
    assert verified(OURS, stored, PASSWORD)
    assert not verified(OURS, stored, PASSWORD + "!")
    assert outdated(OURS, stored)
    assert not outdated(OURS, OURS.hash(PASSWORD))


def test_another_implementation_s_hash_is_understood() -> None:
    assert verified(OURS, checked(VECTOR, LIMITS), "U*U")
    assert not verified(OURS, VECTOR, "U*V")


def test_every_hash_of_bcrypt_s_own_passes_the_check_of_its_shape() -> None:
    """The last characters of salt and hash have few forms; all that occur must be taken."""
    for n in range(200):
        checked(by_bcrypt(str(n).encode()), LIMITS)


def test_bcrypt_s_72_bytes_are_cut_as_its_makers_cut_them() -> None:
    """And by bytes: the cut may go through a letter."""
    long = "ä" * 50
    stored = by_bcrypt(long.encode()[:72])
    assert verified(OURS, stored, long)
    assert verified(OURS, stored, long[:36] + "other")
    assert not verified(OURS, stored, long[:35])


def test_a_nul_ends_no_password() -> None:
    """In C it would: `abc` NUL and anything would then be `abc`."""
    stored = by_bcrypt(b"abc")
    assert not verified(OURS, stored, "abc\0def")
    assert not verified(OURS, stored, "abc\0")
    assert not verified(OURS, by_bcrypt(b"abc\0def"), "abc")


def test_letters_count_as_they_are_written() -> None:
    """Other systems hash what was typed; normal forms are for the caller to try."""
    composed = unicodedata.normalize("NFC", "café au lait")
    stored = by_bcrypt(composed.encode())
    assert verified(OURS, stored, composed)
    assert not verified(OURS, stored, unicodedata.normalize("NFD", composed))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "bcrypt"),
        ("$2b$04$", "bcrypt"),
        (PASSWORD, "bcrypt"),
        ("5f4dcc3b5aa765d61d8327deb882cf99", "bcrypt"),
        ("$1$salt$qJH7.N4xYta3aEG/dfqo/0", "bcrypt"),
        ("$fbscrypt$v=1,n=14,r=8,p=1,ss=Bw==,sk=ou9t$salt$hash", "Firebase"),
        ("$scrypt$ln=16,r=8,p=1$aM15713r3Xsvxbi31lqr1Q$nFNh2CVHVjNldFVKDHDlm4", "scrypt"),
        (TAKEN["bcrypt 2b"].replace("$2b$", "$2x$"), "$2x$"),
        (TAKEN["bcrypt 2b"].replace("$2b$", "$2$"), "bcrypt"),
        (TAKEN["bcrypt 2b"].replace("$04$", "$13$"), "from 4 to 12"),
        (TAKEN["bcrypt 2b"].replace("$04$", "$31$"), "from 4 to 12"),
        (TAKEN["bcrypt 2b"].replace("$04$", "$03$"), "from 4 to 12"),
        (TAKEN["bcrypt 2b"].replace("$04$", "$4$"), "bcrypt"),
        (TAKEN["bcrypt 2b"] + "\n", "bcrypt"),
        (TAKEN["bcrypt 2b"][:-1] + "/", "bcrypt"),
        (TAKEN["bcrypt 2b"] + "A", "bcrypt"),
        (TAKEN["bcrypt 2b"].replace("$04$", "$0\u0664$"), "bcrypt"),
        (TAKEN["argon2id"].replace("argon2id", "argon2d"), "argon2d"),
        (TAKEN["argon2id"].replace("v=19", "v=16"), "argon2id"),
        (TAKEN["argon2id"].replace("v=19$", ""), "argon2id"),
        (TAKEN["argon2id"].replace("m=1024", "m=65537"), "at most m=65536"),
        (TAKEN["argon2id"].replace("m=1024", "m=4294967296"), "at most m=65536"),
        (TAKEN["argon2id"].replace("m=1024", "m=15"), "8 KiB a lane"),
        (TAKEN["argon2id"].replace("t=2", "t=5"), "at most m=65536"),
        (TAKEN["argon2id"].replace("p=2", "p=5"), "at most m=65536"),
        (TAKEN["argon2id"].replace("t=2", "t=0"), "argon2id"),
        (TAKEN["argon2id"].replace("m=1024,t=2", "t=2,m=1024"), "argon2id"),
        (TAKEN["argon2id"] + "=", "argon2id"),
        (TAKEN["argon2id"] + "$", "argon2id"),
        ("$argon2id$v=19$m=1024,t=2,p=2$" + "A" * 1000 + "$" + "A" * 43, "argon2id"),
        ("$2b$04$" + "A" * 10_000, "bcrypt"),
    ],
)
def test_what_is_another_form_or_costs_too_much_is_refused_and_not_quoted(text: str, why: str) -> None:
    with pytest.raises(ValidationFailed) as refused:
        checked(text, LIMITS)
    assert why in refused.value.message
    assert refused.value.violations[0].field == "password_hash"
    assert text.strip() == "" or text not in refused.value.message


@pytest.mark.parametrize(
    "stored",
    [
        TAKEN["bcrypt 2b"].replace("$04$", "$15$"),
        TAKEN["bcrypt 2b"].replace("$04$", "$31$"),
        TAKEN["argon2id"].replace("m=1024", "m=2097152"),
        TAKEN["argon2id"].replace("t=2", "t=4000000000"),
        TAKEN["argon2id"].replace("p=2", "p=9"),
        TAKEN["argon2id"].replace("argon2id", "argon2d").replace("m=1024", "m=4194304"),
        TAKEN["argon2id"].replace("v=19", "v=16").replace("m=1024", "m=4194304"),
    ],
)
def test_a_hash_that_was_written_by_hand_costs_no_more_either(
    stored: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It never reaches the code that would work for hours, or take gigabytes."""

    class Never(PasswordHasher):
        def verify(self, *_: object) -> NoReturn:
            raise AssertionError

    monkeypatch.setattr(bcrypt, "checkpw", Never().verify)
    assert not verified(Never(), stored, PASSWORD)


@given(
    st.text(max_size=2 * MAX_LENGTH) | st.from_regex(r"\$(2b|argon2id)\$[\x21-\x7e]{0,80}", fullmatch=True)
)
def test_no_text_is_more_than_refused(text: str) -> None:
    try:
        checked(text, LIMITS)
    except ValidationFailed:
        return
    verified(OURS, text, PASSWORD)


@given(st.binary(max_size=120).map(lambda raw: raw.decode("latin-1")))
def test_no_stored_text_is_more_than_wrong(text: str) -> None:
    for stored in (text, f"$2b$04${text}", f"$argon2id$v=19$m=8,t=1,p=1${text}"):
        assert not verified(OURS, stored, PASSWORD)
