"""The logger's own errors."""

from __future__ import annotations

from servicekit.errors import InvalidArgument, SigngateError


class PoisonEntryError(Exception):
    """A stream entry that no repetition will make a row: it is set aside with `reason`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class PageTokenInvalid(InvalidArgument):
    """The page token is not one that a list gave."""

    reason = "PAGE_TOKEN_INVALID"
    message = "The page token is not valid. Use the next_page_token of the page before, unchanged."


__all__ = ["PageTokenInvalid", "PoisonEntryError", "SigngateError"]
