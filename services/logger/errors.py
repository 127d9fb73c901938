"""The logger's own errors."""

from __future__ import annotations

from servicekit.errors import DeadlineExceeded, InvalidArgument, ResourceExhausted, SigngateError


class PoisonEntryError(Exception):
    """A stream entry that no repetition will make a row: it is set aside with `reason`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class PageTokenInvalid(InvalidArgument):
    """The page token is not one that a list gave."""

    reason = "PAGE_TOKEN_INVALID"
    message = "The page token is not valid. Use the next_page_token of the page before, unchanged."


class ExportLimit(ResourceExhausted):
    """The key, the user or the process has reached its limit of concurrent exports."""

    reason = "EXPORT_LIMIT"
    message = "Too many exports are running. Wait until one ends, then try again."


class ExportStalled(DeadlineExceeded):
    """The receiver took nothing for longer than an export waits."""

    reason = "EXPORT_STALLED"
    message = "The export was ended because the client read no data for too long."


class ExportTimeout(DeadlineExceeded):
    """The export took longer than one may."""

    reason = "EXPORT_TIMEOUT"
    message = "The export exceeded its time limit. Export a shorter period, or read faster."


class StatisticsTooLarge(InvalidArgument):
    """The answer would have more buckets than one answer may."""

    reason = "STATISTICS_TOO_LARGE"


__all__ = [
    "ExportLimit",
    "ExportStalled",
    "ExportTimeout",
    "PageTokenInvalid",
    "PoisonEntryError",
    "SigngateError",
    "StatisticsTooLarge",
]
