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


def encode(page: Page) -> str:
    """The token of a page's end; exact to the microsecond, as PostgreSQL is."""
    micros = (page.at - _epoch) // timedelta(microseconds=1)
    return base64.urlsafe_b64encode(_layout.pack(micros, page.id.bytes)).decode().rstrip("=")


def decode(token: str) -> Page | None:
    """The page's end, `None` for the first page. Raises `PageTokenInvalid`."""
    if not token:
        return None
    try:
        raw = base64.b64decode(token.encode("ascii") + b"==", altchars=b"-_", validate=False)
        micros, key_id = _layout.unpack(raw)
        return Page(_epoch + timedelta(microseconds=micros), UUID(bytes=key_id))
    except (binascii.Error, struct.error, ValueError, OverflowError):
        raise PageTokenInvalid from None
