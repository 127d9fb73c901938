"""Page tokens are any text of a caller's: each is one that was given, or is refused as such."""

import base64
from datetime import UTC, datetime
from uuid import UUID

import pytest

from services.logger.domain import PageKey
from services.logger.errors import PageTokenInvalid
from services.logger.service import decode_token, encode_token

ROW = UUID(int=7)


def test_what_was_given_is_taken() -> None:
    key = PageKey(datetime(2026, 11, 30, 12, tzinfo=UTC), ROW)
    assert decode_token(encode_token(key)) == key


@pytest.mark.parametrize(
    "moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-11-30", ""]
)
def test_a_moment_that_postgresql_takes_for_none_is_no_token(moment: str) -> None:
    token = base64.urlsafe_b64encode(f"{moment}|{ROW}".encode()).decode().rstrip("=")
    with pytest.raises(PageTokenInvalid):
        decode_token(token)
