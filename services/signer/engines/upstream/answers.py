"""What an upstream may answer. Whatever it says is text from outside, and is taken for no more.

An answer counts only if its URL is the one that was asked for: the same scheme, host and path, every
parameter still there, others added. So an upstream that is broken or hostile can't make a caller of
ours send its request anywhere else.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from services.signer.domain import Cookie

MAX_URL: Final = 8192
_MAX_MEMBERS: Final = 32
_MAX_TEXT: Final = 4096
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_`|~]{1,128}")
_URL: Final = re.compile(r"[!-~]+")


class BadAnswer(Exception):
    """The upstream answered, and not by the contract. The text says what is wrong, without quoting it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An upstream's signature."""

    signed_url: str = field(repr=False)
    user_agent: str
    tokens: dict[str, str] = field(repr=False)
    headers: dict[str, str] = field(repr=False)
    cookies: tuple[Cookie, ...] = ()


def read(body: Any, asked_url: str) -> Answer:
    """The answer in a decoded body. Raises `BadAnswer`."""
    response = body.get("response") if isinstance(body, dict) else None
    if not isinstance(response, dict):
        raise BadAnswer("no response object")
    url = response.get("signedUrl")
    if not isinstance(url, str) or len(url) > MAX_URL or _URL.fullmatch(url) is None:
        raise BadAnswer("no signedUrl")
    if not _adds_to(url, asked_url):
        raise BadAnswer("signedUrl is another URL than was asked for")
    agent = response.get("userAgent") or ""
    if not _is_text(agent):
        raise BadAnswer("userAgent is no text")
    return Answer(
        url,
        agent,
        _texts(response.get("tokens"), "tokens"),
        _texts(response.get("requestHeaders"), "requestHeaders"),
        _cookies(response.get("cookies")),
    )


def _adds_to(url: str, asked: str) -> bool:
    base, _, query = url.partition("?")
    asked_base, _, asked_query = asked.partition("?")
    if base != asked_base or "#" in url:
        return False
    missing = Counter(asked_query.split("&")) - Counter(query.split("&"))
    missing.pop("", None)
    return not missing


def _texts(value: Any, what: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > _MAX_MEMBERS:
        raise BadAnswer(f"{what} is no object of at most {_MAX_MEMBERS} members")
    if not all(_TOKEN.fullmatch(name) and _is_text(text) for name, text in value.items()):
        raise BadAnswer(f"{what} has a member that is no name with a text")
    return value


def _cookies(value: Any) -> tuple[Cookie, ...]:
    if not value:
        return ()
    if not isinstance(value, list) or len(value) > _MAX_MEMBERS:
        raise BadAnswer(f"cookies is no list of at most {_MAX_MEMBERS}")
    found = []
    for one in value:
        members = _texts(one, "a cookie")
        if "name" not in members or "value" not in members:
            raise BadAnswer("a cookie without name or value")
        found.append(
            Cookie(members["name"], members["value"], members.get("domain", ""), members.get("path", "/"))
        )
    return tuple(found)


def _is_text(value: Any) -> bool:
    return (
        isinstance(value, str) and len(value) <= _MAX_TEXT and value.isascii() and value.isprintable()
    ) or value == ""
