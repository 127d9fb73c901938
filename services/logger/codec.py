"""From the bytes of a stream entry to rows and charges.

The stream is an inside wire, but what it holds may be old, cut off or not ours: whatever does not
decode to sensible rows is a poison entry, told with a reason that names no content.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from uuid import UUID

from google.protobuf.message import DecodeError

from services.logger.domain import Charge, Entry, UsageRow
from services.logger.errors import PoisonEntryError
from signgate.common.v1 import quota_pb2
from signgate.usage.v1 import event_pb2

POOLS = {quota_pb2.POOL_FREE: "free", quota_pb2.POOL_API_KEY: "api_key"}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EPOCH_DAY = date(1970, 1, 1)
MAX_URL = 2048


def decode(entry_id: str, payload: bytes) -> Entry:
    """The entry with its rows and charges. Raises `PoisonEntryError`."""
    entry = Entry(entry_id, payload)
    try:
        message = event_pb2.UsageEvents.FromString(payload)
        events = message.events
        entry.request_id, entry.traceparents = message.request_id, tuple(message.traceparents)
        entry.rows = [row(event) for event in events]
    except DecodeError as error:
        raise PoisonEntryError("not a UsageEvents message") from error
    except (ValueError, OverflowError) as error:
        raise PoisonEntryError("an event has an id, a time or a day that is none") from error
    if not entry.rows:
        raise PoisonEntryError("no events")
    units: dict[tuple[str, str], int] = {}
    for event in events:
        if event.charge_id:
            charge = (event.charge_id, event.user_id)
            units[charge] = units.get(charge, 0) + event.charged
    entry.charges = [Charge(charge_id, user_id, n) for (charge_id, user_id), n in units.items()]
    return entry


def row(event: event_pb2.UsageEvent) -> UsageRow:
    """One row. Raises `ValueError` or `OverflowError` for values that no column takes."""
    if not event.HasField("created_at"):
        raise ValueError("created_at is absent")
    if event.charged < 0 or (event.charged > 0 and not event.success):
        raise ValueError("charged does not fit")
    at = event.created_at
    return UsageRow(
        id=UUID(event.id),
        user_id=UUID(event.user_id),
        api_key_id=UUID(event.api_key_id) if event.api_key_id else None,
        # PostgreSQL's text takes no NUL.
        room_url=event.room_url[:MAX_URL].replace("\0", ""),
        success=event.success,
        response_time_ms=max(0, event.response_time_ms),
        error_message=event.error_reason or None,
        created_at=EPOCH + timedelta(seconds=at.seconds, microseconds=at.nanos // 1000),
        engine=event.engine or None,
        pool=POOLS.get(event.pool),
        charge_id=UUID(event.charge_id) if event.charge_id else None,
        charged=event.charged,
        charged_day=EPOCH_DAY + timedelta(days=event.charged_day) if event.charged else None,
    )
