"""Texts that parsers take long over, of any length."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

Make = Callable[[int], str]
"""A text of about so many characters."""


def _letters() -> Iterator[str]:
    """Letters of which no two are alike, for as long as there are some."""
    while True:
        yield from map(chr, range(0x4E00, 0x9FA0))
        yield from map(chr, range(0xAC00, 0xD7A0))


def _distinct(length: int) -> str:
    return "".join(islice(_letters(), length))


def _many(unit: str, before: str = "", after: str = "") -> Make:
    def make(length: int) -> str:
        room = max(length - len(before) - len(after), 1)
        return before + (unit * (room // len(unit) + 1))[:room] + after

    return make


TEXTS: Final[dict[str, Make]] = {
    "distinct letters": _distinct,
    "a domain of distinct letters": lambda length: f"a@{_distinct(max(length - 5, 1))}.de",
    "a domain of many labels": _many("\u4e00.", "a@", "de"),
    "letters that stand for many": _many("\ufdfa", "a@", ".de"),
    "combining characters": _many("\u0301\u0323", "a"),
    "letters": _many("a"),
    "dots": _many("."),
    "ats": _many("@"),
    "dashes": _many("-"),
    "spaces": _many(" "),
    "backslashes": _many("\\"),
    "percent signs": _many("%"),
    "percent escapes": _many("%41"),
    "brackets": _many("["),
    "braces": _many('{"a":'),
    "digits": _many("9"),
    "NULs": _many("\0"),
    "a JWT's beginnings": _many("eyJ"),
    "a JWT's parts": _many("eyJ."),
    "minted token": _many("a", "sgt_eyJ"),
    "users in URLs": _many("://a:"),
    "addresses": _many("1:"),
    "network masks": _many("1/"),
    "durations": _many("1h"),
    "a room's query": _many("a=%41&", "https://webcast.tiktok.com/webcast/im/fetch/?"),
    "a room's host": _many("a.", "https://", "/@a/live"),
    "a signed URL": _many("&sg_v=1", "https://www.tiktok.com/@a/live?"),
}
