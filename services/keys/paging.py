"""Page tokens: where the last page ended. They hold no secret and grant nothing."""

from __future__ import annotations

import base64
import binascii
import struct
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from servicekit.errors import FieldViolation
from services.keys.domain import Page
from services.keys.errors import PageTokenInvalid, ValidationFailed

DEFAULT_SIZE: Final = 50
MAX_SIZE: Final = 200
_epoch: Final = datetime(1970, 1, 1, tzinfo=UTC)
_layout: Final = struct.Struct(">q16s")


def page_size(wished: int) -> int:
    """The size to use. Raises `ValidationFailed` for a negative one; a greater one is cut."""
    if wished < 0:
        raise ValidationFailed([FieldViolation("page_size", "must not be negative")])
    return min(wished or DEFAULT_SIZE, MAX_SIZE)


def encode(page: Page, mark: bytes = b"") -> str:
    """The token of a page's end; exact to the microsecond, as PostgreSQL is. `mark` is of the filters."""
    micros = (page.at - _epoch) // timedelta(microseconds=1)
    return base64.urlsafe_b64encode(_layout.pack(micros, page.id.bytes) + mark).decode().rstrip("=")


def decode(token: str, mark: bytes = b"") -> Page | None:
    """The page's end, `None` for the first page. Raises `PageTokenInvalid`, also if the mark is another."""
    if not token:
        return None
    try:
        raw = base64.b64decode(token.encode("ascii") + b"==", altchars=b"-_", validate=False)
        if raw[_layout.size :] != mark:
            raise PageTokenInvalid
        micros, key_id = _layout.unpack(raw[: _layout.size])
        return Page(_epoch + timedelta(microseconds=micros), UUID(bytes=key_id))
    except (binascii.Error, struct.error, ValueError, OverflowError):
        raise PageTokenInvalid from None
