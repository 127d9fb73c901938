"""Protobuf to domain and back, without rules."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from servicekit.errors import FieldViolation
from services.keys.domain import Changes, Draft, Event, Key, Mode, Refused, Status, Validated
from services.keys.errors import ValidationFailed
from services.keys.metadata import pairs_of
from services.keys.search import Search, checked_search
from signgate.keys.v1 import admin_pb2, keys_pb2, validation_pb2

_modes: Final[dict[Mode, keys_pb2.KeyMode.ValueType]] = {
    "live": keys_pb2.KEY_MODE_LIVE,
    "test": keys_pb2.KEY_MODE_TEST,
}
_statuses: Final = {
    Status.ACTIVE: keys_pb2.KEY_STATUS_ACTIVE,
    Status.REVOKED: keys_pb2.KEY_STATUS_REVOKED,
    Status.EXPIRED: keys_pb2.KEY_STATUS_EXPIRED,
    Status.ROTATING: keys_pb2.KEY_STATUS_ROTATING,
}


def key_id(text: str) -> UUID:
    """A key's id. Raises `ValidationFailed`."""
    return uuid("key_id", text)


def uuid(field: str, text: str) -> UUID:
    """A UUID. Raises `ValidationFailed`."""
    try:
        return UUID(text)
    except ValueError:
        raise ValidationFailed([FieldViolation(field, "must be a UUID")]) from None


def search(request: keys_pb2.ListKeysRequest | admin_pb2.ListUserKeysRequest) -> Search:
    """Which keys to list. Raises `ValidationFailed`."""
    return checked_search(
        request.external_id,
        request.metadata_filter,
        request.name_contains,
        include_inactive=request.include_inactive,
    )


def moment(field: str, stamp: Timestamp) -> datetime:
    """A time. Raises `ValidationFailed` for one outside the years 1 to 9999."""
    try:
        return stamp.ToDatetime(UTC)
    except (ValueError, OverflowError):
        raise ValidationFailed([FieldViolation(field, "is no time that a calendar knows")]) from None


def span(field: str, duration: Duration) -> timedelta:
    """A length of time. Raises `ValidationFailed`."""
    try:
        return duration.ToTimedelta()
    except (ValueError, OverflowError):
        raise ValidationFailed([FieldViolation(field, "is too long")]) from None


def draft(request: keys_pb2.CreateKeyRequest) -> Draft:
    """The members of a new key. Raises `ValidationFailed`."""
    if request.mode not in (keys_pb2.KEY_MODE_UNSPECIFIED, *_modes.values()):
        raise ValidationFailed([FieldViolation("mode", "must be live or test")])
    return Draft(
        name=request.name,
        scopes=tuple(request.scopes),
        mode=next((mode for mode, value in _modes.items() if value == request.mode), None),
        expires_at=moment("expires_at", request.expires_at) if request.HasField("expires_at") else None,
        allowed_cidrs=tuple(request.allowed_cidrs),
        daily_limit=request.daily_limit if request.HasField("daily_limit") else None,
        per_minute=request.per_minute if request.HasField("per_minute") else None,
        engine=request.engine,
        metadata=pairs_of(request.metadata),
        external_id=request.external_id,
    )


def changes(request: keys_pb2.UpdateKeyRequest) -> Changes:
    """The members to change. Raises `ValidationFailed`."""
    return Changes(
        name=request.name if request.HasField("name") else None,
        scopes=tuple(request.scopes.scopes) if request.HasField("scopes") else None,
        expires_at=moment("expires_at", request.expires_at) if request.HasField("expires_at") else None,
        clear_expires_at=request.clear_expires_at,
        allowed_cidrs=tuple(request.allowed_cidrs.cidrs) if request.HasField("allowed_cidrs") else None,
        daily_limit=request.daily_limit if request.HasField("daily_limit") else None,
        per_minute=request.per_minute if request.HasField("per_minute") else None,
        engine=request.engine if request.HasField("engine") else None,
        metadata=pairs_of(request.metadata),
        external_id=request.external_id if request.HasField("external_id") else None,
    )


def key(found: Key, now: datetime) -> keys_pb2.Key:
    """A key as its owner sees it at that moment."""
    message = keys_pb2.Key(
        id=str(found.id),
        name=found.name,
        masked=found.masked,
        mode=_modes[found.mode],
        scopes=found.scopes,
        status=_statuses[found.status(now)],
        allowed_cidrs=found.allowed_cidrs,
        daily_limit=found.daily_limit,
        per_minute=found.per_minute,
        rotated_from=str(found.rotated_from or ""),
        engine=found.engine,
        metadata=dict(found.metadata),
        external_id=found.external_id,
    )
    message.created_at.FromDatetime(found.created_at)
    message.updated_at.FromDatetime(found.updated_at)
    if found.last_used is not None:
        message.last_used.FromDatetime(found.last_used)
    if found.ends_at is not None:
        message.expires_at.FromDatetime(found.ends_at)
    if found.revoked_at is not None:
        message.revoked_at.FromDatetime(found.revoked_at)
    return message


def found_key(found: Key, now: datetime) -> keys_pb2.Key:
    """A key as a finder sees it: which key, and that it has ended; nothing that its owner wrote."""
    whole = key(found, now)
    message = keys_pb2.Key(id=whole.id, masked=whole.masked, status=whole.status)
    for name in ("created_at", "expires_at", "revoked_at"):
        if whole.HasField(name):
            getattr(message, name).CopyFrom(getattr(whole, name))
    return message


def event(found: Event) -> keys_pb2.KeyEvent:
    """An entry of the audit trail."""
    message = keys_pb2.KeyEvent(
        id=str(found.id),
        action=found.action,
        actor_kind=found.actor_kind,
        actor_id=str(found.actor_id or ""),
        changes_json=found.changes,
        request_id=found.request_id,
        reason=found.reason,
    )
    message.created_at.FromDatetime(found.created_at)
    return message


def validation(answer: Validated | Refused) -> validation_pb2.KeyValidation:
    """The answer for one credential."""
    if isinstance(answer, Refused):
        return validation_pb2.KeyValidation(
            refusal=validation_pb2.KeyRefusal(
                reason=answer.reason, message=answer.message, user_id=answer.user_id, key_id=answer.key_id
            )
        )
    message = validation_pb2.KeyValidation(
        key=validation_pb2.ValidatedKey(
            key_id=answer.key_id,
            user_id=answer.user_id,
            tier=answer.tier,
            scopes=answer.scopes,
            daily_limit=answer.daily_limit,
            per_minute=answer.per_minute,
            engine=answer.engine,
            derived=answer.derived,
        )
    )
    if answer.expires_at is not None:
        message.key.expires_at.FromMicroseconds(round(answer.expires_at * 1e6))
    return message


class ValidationMessages:
    """Answers as messages, each made once as long as its record does not change."""

    def __init__(self, size: int = 50_000) -> None:
        self._size = size
        self._kept: dict[Validated, validation_pb2.KeyValidation] = {}

    def response(self, answers: Sequence[Validated | Refused]) -> validation_pb2.ValidateKeysResponse:
        """The whole answer, in order."""
        kept = self._kept
        results = []
        for answer in answers:
            if type(answer) is not Validated:
                results.append(validation(answer))
                continue
            message = kept.get(answer)
            if message is None:
                if len(kept) >= self._size:
                    kept.clear()  # rare, and cheaper than keeping an order on the hot path
                message = kept[answer] = validation(answer)
            results.append(message)
        return validation_pb2.ValidateKeysResponse(results=results)
