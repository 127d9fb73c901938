"""What comes off the wire becomes rows and charges, or a poison entry with a reason."""

from datetime import UTC, date, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.logger.codec import decode
from services.logger.domain import Charge
from services.logger.errors import PoisonEntryError
from signgate.common.v1 import quota_pb2
from signgate.usage.v1 import event_pb2

USER = "0190f3a1-0000-7000-8000-000000000001"
CHARGE = "0190f3a1-0000-7000-8000-0000000000aa"


def event(number: int = 1, **changes: object) -> event_pb2.UsageEvent:
    message = event_pb2.UsageEvent(
        id=f"0190f3a1-0000-7000-8000-{number:012d}",
        user_id=USER,
        room_url="https://www.tiktok.com/@someone/live",
        success=True,
        response_time_ms=7,
        engine="native",
        pool=quota_pb2.POOL_API_KEY,
        charge_id=CHARGE,
        charged=1,
        charged_day=20_000,
    )
    message.created_at.seconds, message.created_at.nanos = 1_700_000_000, 123_456_789
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def packed(*events: event_pb2.UsageEvent) -> bytes:
    return event_pb2.UsageEvents(events=events).SerializeToString()


def test_an_event_becomes_a_row_with_every_column() -> None:
    (row,) = decode("1-0", packed(event())).rows
    assert row.id == UUID("0190f3a1-0000-7000-8000-000000000001")
    assert row.user_id == UUID(USER)
    assert row.api_key_id is None
    assert row.created_at == datetime(2023, 11, 14, 22, 13, 20, 123456, tzinfo=UTC)
    assert (row.pool, row.charged, row.charged_day) == ("api_key", 1, date(2024, 10, 4))
    assert row.error_message is None


def test_events_of_one_charge_are_settled_together() -> None:
    entry = decode("1-0", packed(event(1), event(2), event(3, success=False, charged=0, error_reason="X")))
    assert entry.charges == [Charge(CHARGE, USER, 2)]
    assert [row.error_message for row in entry.rows] == [None, None, "X"]


def test_a_refusal_without_a_charge_settles_nothing() -> None:
    entry = decode(
        "1-0", packed(event(success=False, charged=0, charge_id="", error_reason="QUOTA_EXHAUSTED"))
    )
    assert entry.charges == []
    assert entry.rows[0].charged_day is None


def test_a_nul_in_a_room_url_does_not_poison_the_entry() -> None:
    assert decode("1-0", packed(event(room_url="a\0b"))).rows[0].room_url == "ab"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff\xff\xff",
        packed(event(id="not a uuid")),
        packed(event(user_id="")),
        packed(event(charged=-1)),
        packed(event(success=False)),
        packed(event_pb2.UsageEvent(id=USER, user_id=USER)),
        packed(event(charged_day=2_000_000_000)),
    ],
    ids=["empty", "garbage", "id", "user", "negative", "charged failure", "no time", "no such day"],
)
def test_what_is_no_event_is_poison(payload: bytes) -> None:
    with pytest.raises(PoisonEntryError):
        decode("1-0", payload)


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(payload: bytes) -> None:
    try:
        entry = decode("1-0", payload)
    except PoisonEntryError:
        return
    assert entry.rows
