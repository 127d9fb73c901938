"""The operator's script: the file that the configuration names by its hash, and what it may answer."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from servicekit.errors import SigngateError
from services.signer.engines.websdk.config import Call
from services.signer.engines.websdk.errors import Misconfigured
from services.signer.errors import EngineFailure

MAX_SIZE: Final = 16 * 1024 * 1024
"""Bytes of a script."""
_MAX_TOKENS: Final = 16
_MAX_VALUE: Final = 4096
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_\-]{0,63}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Script:
    """The script's bytes, just as they were hashed."""

    content: bytes = field(repr=False)
    sha256: str

    @classmethod
    def load(cls, path: Path, sha256: str) -> Script:
        """Read the file. Raises `Misconfigured` when it can't be read or is another than was named."""
        try:
            content = path.read_bytes()
        except OSError as error:
            raise Misconfigured(f"The script can't be read: {error.strerror}.") from error
        found = hashlib.sha256(content).hexdigest()
        if found != sha256:
            raise Misconfigured(
                f"The script is not the one that the configuration names: its SHA-256 is {found}."
            )
        if len(content) > MAX_SIZE:
            raise Misconfigured(f"The script is larger than {MAX_SIZE} bytes.")
        return cls(content, found)


def tokens(answer: Any, call: Call, required: tuple[str, ...]) -> dict[str, str] | SigngateError:
    """The parameters in one member of a page's answer; or what is wrong with it.

    Answers of a script are taken for what they are, text from outside: names must be names, values
    non-empty printable ASCII texts, and there must be neither none nor too many.
    """
    if not isinstance(answer, dict):
        return _failure("no answer")
    if "e" in answer:
        return _failure(f"the script failed: {answer['e']}")
    value = answer.get("v")
    found = {call.result: value} if call.result else value
    if not isinstance(found, dict) or not 1 <= len(found) <= _MAX_TOKENS:
        return _failure("the answer is no object with 1 to 16 members")
    for name, text in found.items():
        if _NAME.fullmatch(name) is None:
            return _failure("the answer has a member whose name is none for a parameter")
        if not isinstance(text, str) or not 1 <= len(text) <= _MAX_VALUE:
            return _failure("a parameter is no text of 1 to 4096 characters")
        if not (text.isascii() and text.isprintable()):
            return _failure("a parameter is no printable ASCII")
    if any(name not in found for name in required):
        return _failure("a required parameter is missing")
    return found


def appended(url: str, found: dict[str, str]) -> str | None:
    """The URL with the parameters after its query, in their order; None if it names one already."""
    base, mark, query = url.partition("?")
    taken = {parameter.partition("=")[0] for parameter in query.split("&")}
    if not taken.isdisjoint(found):
        return None
    more = "&".join(f"{name}={quote(value, safe='')}" for name, value in found.items())
    return f"{base}{mark}{query}&{more}" if query else f"{base}?{more}"


def _failure(why: str) -> EngineFailure:
    failure = EngineFailure()
    failure.__cause__ = ValueError(why)
    return failure
