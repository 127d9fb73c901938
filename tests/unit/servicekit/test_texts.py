"""Names that people give: readable, and in one form."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.texts import checked_name

INVISIBLE = [
    *"\u0000\u0009\u000a\u001f\u007f\u0085\u00a0\u00ad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5",
    *(chr(code) for code in range(0x180B, 0x1810)),
    *(chr(code) for code in range(0x2000, 0x2010)),
    *(chr(code) for code in range(0x2028, 0x2030)),
    *(chr(code) for code in range(0x205F, 0x2070)),
    *"\u2800\u3000\u3164\ufeff\uffa0",
    *(chr(code) for code in range(0xFE00, 0xFE10)),
    *(chr(code) for code in range(0xFFF0, 0xFFFC)),
    *"\U0001107f\U00016fe4\U0001bca0\U0001d159\U0001d173",
    *(chr(code) for code in range(0xE0000, 0xE1000)),
]


@pytest.mark.parametrize(
    "name", ["ci", "a b", "Ключ", "鍵", "مفتاح", "clé №1", "🚀 prod", "❤️", "1️⃣", "a-b_c/d"]
)
def test_a_readable_name_stays_as_it_is(name: str) -> None:
    assert checked_name(name, 100) == name
    assert checked_name(f"  {name} ", 100) == name


def test_no_name_holds_an_invisible_character() -> None:
    """S26: alone, within, in front and behind."""
    accepted = []
    for char in INVISIBLE:
        for name in (char, f"a{char}b", f"{char}ab", f"ab{char}", f"🚀{char}{char}"):
            try:
                checked_name(name, 100)
            except ValueError:
                continue
            accepted.append((f"U+{ord(char):04X}", name))
    assert accepted == []


@pytest.mark.parametrize(
    "name", ["", " ", "   ", "\u0301", " \u0301 \u0308", "\ufe0f", "\u2800\ufe0f", "x" * 101]
)
def test_a_name_has_something_to_see_and_a_length(name: str) -> None:
    with pytest.raises(ValueError, match="must have"):
        checked_name(name, 100)


def test_names_that_look_alike_by_composition_are_one() -> None:
    assert checked_name("cle\u0301", 100) == checked_name("cl\u00e9", 100) == "cl\u00e9"
    # NFC can make a text longer; what is stored is within the limit.
    grows = "\u0958" * 60
    assert len(unicodedata.normalize("NFC", grows)) == 120
    with pytest.raises(ValueError, match="1 to 100"):
        checked_name(grows, 100)


@given(st.text(max_size=40))
def test_what_is_accepted_is_a_fixed_point(text: str) -> None:
    try:
        name = checked_name(text, 30)
    except ValueError:
        return
    assert checked_name(name, 30) == name
    assert unicodedata.is_normalized("NFC", name)
    assert 1 <= len(name) <= 30
    assert name.replace("\ufe0f", "").isprintable()


def test_every_character_is_judged_alike_wherever_it_stands() -> None:
    """No category that moves a cursor or is not drawn."""
    for code in (*range(0x20000), *range(0xE0000, 0xE1000)):
        char = chr(code)
        if char != " " and unicodedata.category(char) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"}:
            # NFC maps a few separators to others of the same kind, never to a letter.
            with pytest.raises(ValueError, match="invisible"):
                checked_name(f"a{char}b", 100)
