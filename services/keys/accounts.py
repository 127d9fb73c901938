"""What a key's owner is told when the account behind it may not act. Only once the secret is proven."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from services.keys.domain import Record

_why: Final[Mapping[str, str]] = {
    "deactivated": "The account of this API key is deactivated.",
    "unconfirmed": "The account of this API key has not confirmed its e-mail address.",
    "deleted": "The account of this API key has been deleted.",
}
_farthest: Final = datetime(9999, 12, 31, tzinfo=UTC).timestamp()


def inactive(record: Record) -> str:
    """Why the account may not act, as a sentence."""
    if record.user_state == "banned" and record.banned_until is not None:
        if record.banned_until > _farthest:  # `infinity` is a timestamp to PostgreSQL
            return "The account of this API key is banned."
        end = datetime.fromtimestamp(record.banned_until, UTC)
        return f"The account of this API key is banned until {end:%Y-%m-%dT%H:%M:%SZ}."
    return _why.get(record.user_state, "The account of this API key is not active.")
