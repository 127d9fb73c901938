"""The format: nothing but the declared error for any text, and no single wrong character gets by."""

from __future__ import annotations

import re
import string
import zlib
from collections.abc import Callable
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from servicekit import apikey
from servicekit.apikey import KeyMalformed
from servicekit.clock import SystemEntropy

BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
GOOD = apikey.mint("live", UUID("0192f0c4-7d21-7cc3-98c4-dc0c0c07398f"), SystemEntropy())

keys = st.builds(
    lambda mode, key_id: apikey.mint(mode, key_id, SystemEntropy()),
    st.sampled_from(["live", "test"]),
    st.uuids(),
)
# Texts near to a key find more than texts from nowhere.
near = st.one_of(
    st.text(),
    st.text(alphabet=BASE62 + "_sgk!é", min_size=55, max_size=70).map(lambda tail: f"sgk_live_{tail}"),
    st.from_regex(apikey.KEY_PATTERN, fullmatch=True),
    st.from_regex(apikey.KEY_PATTERN).filter(lambda text: text != GOOD),
    st.text(alphabet="eyJ.-_=aZ0", max_size=80).map(lambda tail: f"sgt_{tail}"),
)


@given(keys)
def test_a_minted_key_is_well_formed_and_gives_its_id_back(key: str) -> None:
    assert len(key) == apikey.KEY_LENGTH
    assert re.fullmatch(apikey.KEY_PATTERN, key)
    apikey.check(key)
    assert (
        apikey.mint(apikey.mode_of(key), apikey.id_of(apikey.id_text(key)), SystemEntropy())[:31] == key[:31]
    )


@given(st.uuids())
@example(UUID(int=0))
@example(UUID(int=2**128 - 1))
def test_ids_and_their_texts_are_one_to_one(key_id: UUID) -> None:
    assert apikey.id_of(apikey.text_of(key_id)) == key_id
    assert len(apikey.text_of(key_id)) == 22


@settings(max_examples=500)
@given(near)
@example("")
@example("sgk_live_")
@example("sgt_eyJ" + "a" * 2000 + ".b.c")
@example(GOOD + "\n")
@example(GOOD.replace("sgk", "SGK"))
@example("sgk_live_" + "٣" * 55)  # digits, but of another script
@example("\ud800")
def test_any_text_is_a_key_or_malformed_and_nothing_else_is_raised(text: str) -> None:
    for function in (apikey.check, apikey.id_text):
        error, nothing = refusal(function, text), refusal(function, "")
        assert error is None or error.reason == "KEY_MALFORMED"
        # It says the same of every text: nothing of this one.
        assert error is None or (str(error), repr(error)) == (str(nothing), repr(nothing))


def refusal(function: Callable[[str], object], text: str) -> KeyMalformed | None:
    """The declared error, if it is raised; any other passes, and fails the test."""
    try:
        function(text)
    except KeyMalformed as error:
        return error
    return None


def test_every_single_wrong_character_is_caught() -> None:
    """All 63 places a letter can be mistyped in, with all 61 wrong characters, and the prefix."""
    for place in range(4, len(GOOD)):
        for wrong in BASE62 + "_":
            if wrong != GOOD[place]:
                with pytest.raises(KeyMalformed):
                    apikey.id_text(GOOD[:place] + wrong + GOOD[place + 1 :])


@given(keys, st.data())
def test_so_is_every_one_in_any_key(key: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(key) - 1))
    wrong = data.draw(st.characters(exclude_characters=key[place]))
    with pytest.raises(KeyMalformed):
        apikey.id_text(key[:place] + wrong + key[place + 1 :])


@given(keys, st.integers(9, 62))
def test_two_neighbours_swapped_are_caught(key: str, place: int) -> None:
    swapped = key[:place] + key[place + 1] + key[place] + key[place + 2 :]
    if swapped != key:
        with pytest.raises(KeyMalformed):
            apikey.id_text(swapped)


@given(keys, st.integers(0, 63))
def test_a_key_cut_short_or_with_more_is_no_key(key: str, length: int) -> None:
    for text in (key[:length], key + key[:1], " " + key, key + " "):
        with pytest.raises(KeyMalformed):
            apikey.check(text)


def test_an_id_above_128_bits_is_no_id() -> None:
    body = "sgk_live_" + "z" * 22 + GOOD[31:58]
    with pytest.raises(KeyMalformed):
        apikey.check(body + apikey.encode(zlib.crc32(body.encode()), 6))


def test_a_checksum_above_32_bits_is_no_checksum() -> None:
    """Else two texts could stand for one key."""
    too_big = apikey.encode(zlib.crc32(GOOD[:58].encode()) + 2**32, 6)
    with pytest.raises(KeyMalformed):
        apikey.check(GOOD[:58] + too_big)


def test_the_secret_has_160_random_bits() -> None:
    class Ones:
        def token_bytes(self, length: int) -> bytes:
            assert length == 20
            return b"\xff" * length

    key = apikey.mint("test", UUID(int=1), Ones())
    apikey.check(key)
    assert key != apikey.mint("test", UUID(int=1), SystemEntropy())
