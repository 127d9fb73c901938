"""The format of API keys and of the tokens they mint. Pure: no I/O, no secret of this system.

    sgk_live_ | key id, 22 | secret, 27 | checksum, 6       64 characters in all
    sgk_test_ |            |            |
    sgt_ | a JWT in compact form                            a short-lived token that a key minted

All parts of a key are base62 (`0-9A-Za-z`) of fixed width, most significant digit first. The key id
is a UUID (128 bits), the secret 160 random bits, the checksum the CRC-32 of all that stands before
it. CRC-32 finds every error within 32 adjacent bits, so every single wrong character and every
wrong prefix; it keeps typing errors and scanners' false finds from doing any I/O, and proves
nothing: anyone can compute it.
"""

from __future__ import annotations

import re
from typing import Final, Literal
from uuid import UUID
from zlib import crc32

from servicekit.clock import Entropy
from servicekit.errors import Unauthenticated

Mode = Literal["live", "test"]

KEY_LENGTH: Final = 64
KEY_PATTERN: Final = r"sgk_(?:live|test)_[0-9A-Za-z]{55}"
"""For secret scanners; docs/api-keys.md shows it with word boundaries."""
TOKEN_PREFIX: Final = "sgt_"  # noqa: S105  # a public prefix
TOKEN_MAX_LENGTH: Final = 1024
SECRET_BYTES: Final = 20
PUBLIC_LENGTH: Final = 31
"""Prefix and key id, which are no secret."""

_alphabet: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_values: Final = {digit: value for value, digit in enumerate(_alphabet)}
# Two digits at a look-up: the checksum is checked for every signature.
_pairs: Final = {a + b: _values[a] * 62 + _values[b] for a in _alphabet for b in _alphabet}

_id_at, _id_end, _secret_end = 9, PUBLIC_LENGTH, 58
_id_width, _secret_width, _crc_width = 22, 27, 6
_key = re.compile(KEY_PATTERN, re.ASCII).fullmatch
_token = re.compile(r"sgt_eyJ[\w-]+\.[\w-]+\.[\w-]+", re.ASCII).fullmatch


class KeyMalformed(Unauthenticated):
    """Not an API key, whoever presents it: wrong shape or wrong checksum."""

    reason = "KEY_MALFORMED"
    message = "That is not an API key. Check that it was copied whole."


def mint(mode: Mode, key_id: UUID, entropy: Entropy) -> str:
    """A new key. It is the only copy: store its keyed hash and show it once."""
    secret = int.from_bytes(entropy.token_bytes(SECRET_BYTES), "big")
    body = f"sgk_{mode}_{encode(key_id.int, _id_width)}{encode(secret, _secret_width)}"
    return body + encode(crc32(body.encode()), _crc_width)


def id_text(presented: str) -> str:
    """The 22 characters that stand for a well-formed key's id; one to one with the UUID.

    Raises `KeyMalformed` for whatever is no key (another shape, a wrong checksum, an id above 128
    bits), and nothing else, whatever the text.
    """
    if _key(presented) is None:
        raise KeyMalformed
    pairs = _pairs
    stated = (pairs[presented[58:60]] * 3844 + pairs[presented[60:62]]) * 3844 + pairs[presented[62:]]
    found = presented[_id_at:_id_end]
    # Equal widths over an alphabet in ASCII order compare like their numbers.
    if crc32(presented[:_secret_end].encode()) != stated or found > _highest_id:
        raise KeyMalformed
    return found


def is_token(presented: str) -> bool:
    """Whether it claims to be a token that a key minted. Nothing is proven."""
    return presented.startswith(TOKEN_PREFIX)


def check(presented: str) -> None:
    """Refuse what can be no credential, before any I/O. Raises `KeyMalformed`, nothing else."""
    if is_token(presented):
        if len(presented) > TOKEN_MAX_LENGTH or _token(presented) is None:
            raise KeyMalformed
    else:
        id_text(presented)


def id_of(text: str) -> UUID:
    """The UUID of 22 characters from `id_text`."""
    number = 0
    for digit in text:
        number = number * 62 + _values[digit]
    return UUID(int=number)


def text_of(key_id: UUID) -> str:
    """The 22 characters of a key's id: the inverse of `id_of`."""
    return encode(key_id.int, _id_width)


def mode_of(presented: str) -> Mode:
    """Live or test, of a well-formed key."""
    return "live" if presented.startswith("sgk_live_") else "test"


def ends(presented: str) -> tuple[str, str]:
    """A well-formed key's first 12 and last 4 characters: what may be stored and shown of it."""
    return presented[:12], presented[-4:]


def encode(number: int, width: int) -> str:
    """A number of at most `width` base62 digits. Raises `ValueError` when it has more."""
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(_alphabet[digit])
    if number:
        raise ValueError("the number does not fit")
    return "".join(reversed(digits))


_highest_id: Final = encode((1 << 128) - 1, _id_width)
