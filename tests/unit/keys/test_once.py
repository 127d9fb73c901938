"""Answers that are kept for a repeat: found and read by the same caller with the same request only."""

from __future__ import annotations

from typing import Any

import pytest

from servicekit.clock import SystemEntropy, uuid7
from servicekit.principal import Principal
from services.keys.errors import IdempotencyKeyReused, ValidationFailed
from services.keys.once import Answer, Repeatable, Slot
from services.keys.peppers import Keyring

OLD, NEW = Keyring({1: b"1" * 32}), Keyring({1: b"1" * 32, 2: b"2" * 32})
ANN = Principal(user_id=uuid7(), session_id=uuid7())
ANSWER = Answer(uuid7(), "sgk_live_the-secret")


def request(key: str = "once", method: str = "CreateKey", body: bytes = b"body") -> Repeatable:
    made = Repeatable.of([key], method, body)
    assert made is not None
    return made


def slot(keyring: Keyring = OLD, principal: Principal = ANN, **changes: Any) -> Slot:
    return Slot(keyring, SystemEntropy(), principal, request(**changes))


def test_the_same_request_reads_the_answer() -> None:
    lookup, sealed = slot().seal(ANSWER)
    again = slot(principal=Principal(user_id=ANN.user_id, session_id=uuid7()))
    assert again.lookups == [lookup]
    assert again.open(lookup, sealed) == ANSWER
    assert slot().seal(ANSWER)[1] != sealed  # a nonce of its own each time


@pytest.mark.parametrize("changes", [{"method": "RotateKey"}, {"body": b"another"}])
def test_another_request_does_not(changes: dict[str, Any]) -> None:
    lookup, sealed = slot().seal(ANSWER)
    other = slot(**changes)
    assert other.lookups == [lookup]
    with pytest.raises(IdempotencyKeyReused):
        other.open(lookup, sealed)


@pytest.mark.parametrize(
    "other",
    [
        slot(key="twice"),
        slot(principal=Principal(user_id=uuid7())),
        slot(principal=Principal(user_id=ANN.user_id, api_key_id=uuid7())),
        slot(Keyring({1: b"3" * 32})),
    ],
)
def test_another_caller_finds_and_reads_nothing(other: Slot) -> None:
    lookup, sealed = slot().seal(ANSWER)
    assert lookup not in other.lookups
    with pytest.raises(IdempotencyKeyReused):
        other.open(other.lookups[0], sealed)


def test_answers_under_an_older_pepper_are_found_and_new_ones_are_kept_under_the_newest() -> None:
    lookup, sealed = slot(OLD).seal(ANSWER)
    newer = slot(NEW)
    assert newer.lookups[1:] == [lookup]
    assert newer.open(lookup, sealed) == ANSWER
    assert newer.seal(ANSWER)[0] == newer.lookups[0] != lookup


def test_a_damaged_answer_is_not_given() -> None:
    lookup, sealed = slot().seal(ANSWER)
    with pytest.raises(IdempotencyKeyReused):
        slot().open(lookup, sealed[:-1] + bytes([sealed[-1] ^ 1]))


def test_no_secret_stands_in_a_repr() -> None:
    assert "once" not in repr(request())
    assert "secret" not in repr(ANSWER)


def test_a_key_is_optional_and_both_places_must_agree() -> None:
    assert Repeatable.of([""], "CreateKey", b"") is None
    assert Repeatable.of(["a", "a"], "CreateKey", b"") == Repeatable.of(["a"], "CreateKey", b"")
    for wrong in (["a", "b"], ["a b"], ["ü"], ["x" * 129], ["\n"]):
        with pytest.raises(ValidationFailed):
            Repeatable.of(wrong, "CreateKey", b"")
