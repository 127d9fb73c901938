"""What an owner notes about a key: metadata, pairs of strings, and the key's id in the owner's own system.

Neither means anything to Signgate. Bounds keep a list of 200 keys far below the size of one message.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from servicekit.errors import FieldViolation

Pairs = tuple[tuple[str, str], ...]
"""Metadata by name, sorted; each name stands once."""

MAX_PAIRS: Final = 32
MAX_VALUE: Final = 512
MAX_TOTAL: Final = 4096
EXTERNAL_ID_LENGTH: Final = 128

_name: Final = re.compile(r"[A-Za-z0-9_.:/-]{1,64}").fullmatch
_visible: Final = re.compile(r"[\x21-\x7e]{1,128}").fullmatch


def pairs_of(metadata: Mapping[str, str]) -> Pairs:
    """The pairs in canonical form."""
    return tuple(sorted(metadata.items()))


def checked_metadata(pairs: Iterable[tuple[str, str]], problems: list[FieldViolation]) -> Pairs:
    """The pairs in canonical form."""
    found = dict(pairs)
    for name, value in found.items():
        check_pair("metadata", name, value, problems)
    _check_size(found, problems)
    return pairs_of(found)


def merged_metadata(old: Pairs, changes: Iterable[tuple[str, str]], problems: list[FieldViolation]) -> Pairs:
    """The old pairs with others set; an empty value takes its pair away."""
    found = dict(old)
    for name, value in changes:
        if value:
            check_pair("metadata", name, value, problems)
            found[name] = value
        else:
            found.pop(name, None)
    _check_size(found, problems)
    return pairs_of(found)


def check_pair(field: str, name: str, value: str, problems: list[FieldViolation]) -> None:
    """One pair of metadata. A wrong name is not repeated in the error."""
    if not _name(name):
        wrong = "a name has 1 to 64 letters, digits and _ . : / -"
    elif not value or len(value.encode()) > MAX_VALUE:
        wrong = f"the value of {name} must have 1 to {MAX_VALUE} bytes"
    elif not value.isprintable():
        wrong = f"the value of {name} must hold no control characters"
    else:
        return
    problems.append(FieldViolation(field, wrong))


def check_external_id(external_id: str, problems: list[FieldViolation]) -> None:
    """An id in the owner's system; empty is none."""
    if external_id and not _visible(external_id):
        wrong = f"must have at most {EXTERNAL_ID_LENGTH} visible ASCII characters, without blanks"
        problems.append(FieldViolation("external_id", wrong))


def _check_size(metadata: Mapping[str, str], problems: list[FieldViolation]) -> None:
    if len(metadata) > MAX_PAIRS:
        problems.append(FieldViolation("metadata", f"at most {MAX_PAIRS} pairs"))
    elif sum(len(name) + len(value.encode()) for name, value in metadata.items()) > MAX_TOTAL:
        problems.append(FieldViolation("metadata", f"at most {MAX_TOTAL} bytes in all"))
