"""Password hashes that other systems made: which are taken in, and how any kept hash is verified.

An imported hash is replaced at its owner's next sign-in (`Passwords.outdated`). Its cost is its maker's
choice, so it is bounded twice: by the deployment's `ImportLimits` before it is kept, and by the `_MOST` of
any deployment before it is verified, for a hash can also be written by a statement. No function quotes one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import bcrypt
from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from services.auth.errors import ValidationFailed

MAX_LENGTH: Final = 512
"""Characters of a hash; the longest that is taken has 245."""
BCRYPT_BYTES: Final = 72
"""Of a longer password bcrypt looks at the beginning only, until the hash is renewed."""

# 22 characters of salt and 31 of hash, whose last ones have bits to spare. These must be zero, or the
# comparison of whole texts, which every library makes, would fail for the right password.
_bcrypt = re.compile(
    r"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{30}[.CGKOSWaeimquy26]"
).fullmatch
_argon2 = re.compile(
    r"\$argon2id?\$v=19\$m=([1-9][0-9]{0,9}),t=([1-9][0-9]{0,9}),p=([1-9][0-9]{0,9})"
    r"\$([A-Za-z0-9+/]{11,86})\$([A-Za-z0-9+/]{22,86})"
).fullmatch
_lanes_memory: Final = 8  # KiB a lane, at least (RFC 9106, section 3.1)


@dataclass(frozen=True, slots=True)
class ImportLimits:
    """The highest costs of a hash that is taken in."""

    bcrypt_cost: int = 12
    argon2_memory_kib: int = 65536
    argon2_time_cost: int = 4
    argon2_parallelism: int = 4


_MOST: Final = ImportLimits(
    bcrypt_cost=14, argon2_memory_kib=1048576, argon2_time_cost=20, argon2_parallelism=8
)
_KNOWN: Final = (
    "give a bcrypt hash ($2a$, $2b$ or $2y$), or an argon2id or argon2i hash in PHC form with v=19"
)
_REFUSED: Final = {
    "$fbscrypt": "scrypt hashes of Firebase are not supported: have these users set a password by /recover",
    "$scrypt$": "scrypt hashes are not supported: have these users set a password by /recover",
    "$2x$": "$2x$ marks hashes of a faulty bcrypt: have these users set a password by /recover",
    "$argon2d$": "argon2d is not made for passwords: have these users set a password by /recover",
}


def checked(text: str, limits: ImportLimits, name: str = "password_hash") -> str:
    """The hash, if it may be kept. Raises `ValidationFailed` for another form, and for too high a cost."""
    for prefix, why in _REFUSED.items():
        if text.startswith(prefix):
            raise ValidationFailed(name, why)
    if len(text) > MAX_LENGTH:
        raise ValidationFailed(name, _KNOWN)
    if found := _bcrypt(text):
        if not 4 <= int(found[1]) <= limits.bcrypt_cost:  # noqa: PLR2004  # the lowest that there is
            raise ValidationFailed(name, f"the cost of bcrypt must be from 4 to {limits.bcrypt_cost}")
        return text
    found = _argon2(text)
    if found is None or not (_is_base64(found[4]) and _is_base64(found[5])):
        raise ValidationFailed(name, _KNOWN)
    if not _within(found, limits):
        raise ValidationFailed(
            name,
            f"argon2 may use at most m={limits.argon2_memory_kib}, t={limits.argon2_time_cost} and"
            f" p={limits.argon2_parallelism}, and at least 8 KiB a lane",
        )
    return text


def verified(hasher: PasswordHasher, stored: str, password: str) -> bool:
    """Whether it is the password. False for what is no hash, or costs more than any deployment accepts."""
    if found := _bcrypt(stored):
        if int(found[1]) > _MOST.bcrypt_cost:
            return False
        try:
            # By our own hand: the package refuses longer ones, as others cut them off.
            return bcrypt.checkpw(password.encode()[:BCRYPT_BYTES], stored.encode())
        except ValueError:  # a cost below 4
            return False
    found = _argon2(stored)  # ours are among them
    if stored.startswith("$argon2") and (found is None or not _within(found, _MOST)):
        return False
    try:
        return hasher.verify(stored, password)
    except (Argon2Error, InvalidHashError, UnicodeEncodeError):
        return False


def outdated(hasher: PasswordHasher, stored: str) -> bool:
    """True unless the hash is one of ours with the parameters of now."""
    return not stored.startswith("$argon2id$") or hasher.check_needs_rehash(stored)


def _within(argon2: re.Match[str], most: ImportLimits) -> bool:
    memory, time, lanes = (int(argon2[n]) for n in (1, 2, 3))
    return (
        _lanes_memory * lanes <= memory <= most.argon2_memory_kib
        and time <= most.argon2_time_cost
        and lanes <= most.argon2_parallelism
    )


def _is_base64(text: str) -> bool:
    """Without padding, its spare bits zero: argon2 takes no other."""
    spare = {0: "", 2: "AQgw", 3: "AEIMQUYcgkosw048"}.get(len(text) % 4)
    return spare is not None and (not spare or text[-1] in spare)
