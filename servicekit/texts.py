"""Names that people give to things, such as an API key or a phone: readable wherever they are shown.

Every service checks such a name by `checked_name`: no two names differ in invisible characters alone, and no
name moves a cursor or reverses the text after it.
"""

from __future__ import annotations

import unicodedata
from typing import Final

# Printable by category, yet drawn as nothing: blank letters and symbols, and characters that Unicode calls
# "default ignorable". Those of the categories C and Z are not printable anyway, save for the space.
_blank: Final = frozenset(
    "\u034f"  # combining grapheme joiner
    "\u115f\u1160\u3164\uffa0"  # Hangul fillers
    "\u17b4\u17b5"  # Khmer inherent vowels
    "\u180b\u180c\u180d\u180f"  # Mongolian variation selectors
    "\u2800"  # braille pattern blank
    "\U0001107f"  # Brahmi number joiner
    "\U00016fe4"  # Khitan small script filler
    "\U0001d159"  # musical symbol null notehead
    + "".join(map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))  # variation selectors
)
_AS_EMOJI: Final = "\ufe0f"
_KEYCAP: Final = "\u20e3"


def checked_name(text: str, longest: int) -> str:
    """The name in Unicode's form NFC, without spaces around it: 1 to `longest` characters, none invisible.

    Raises `ValueError`, whose text says what is wrong; it holds no part of the name. Invisible are control
    and format characters, separators other than U+0020, unassigned and private characters, fillers and
    variation selectors. One variation selector is allowed, because keyboards send it: U+FE0F right after a
    symbol, or between a character and its keycap. U+200D, which joins emoji, is not.
    """
    name = text.strip(" ")
    if len(name) <= longest:
        name = unicodedata.normalize("NFC", name)
    if not 1 <= len(name) <= longest:
        raise ValueError(f"must have 1 to {longest} characters")
    for index, char in enumerate(name):
        if (not char.isprintable() or char in _blank) and not _draws_emoji(name, index):
            raise ValueError("must have no invisible characters, such as control characters or U+200B")
    if not any(unicodedata.category(char)[0] in "LNPS" for char in name):
        raise ValueError("must have a visible character")
    return name


def _draws_emoji(name: str, index: int) -> bool:
    """Whether this is the variation selector that has the character before it drawn as an emoji."""
    if name[index] != _AS_EMOJI or index == 0 or name[index - 1] in _blank:
        return False
    return unicodedata.category(name[index - 1]) == "So" or name[index + 1 : index + 2] == _KEYCAP
