"""The signer's errors.

    InvalidArgument
    ├── RoomUrlError          what was pasted is no room URL; `reason` tells which of the causes below
    └── SignRequestError      the rest of the request asks for what no engine gives
    Unavailable
    ├── EngineUnavailable     the engine does not sign now (not started, or its canary failed)
    └── EngineBusy            its queue is full; comes with `retry_after`
    DeadlineExceeded
    └── SignDeadlineExceeded  the request's deadline passed before it was signed
    Aborted                   refusals, not failures: the client may open a new stream
    ├── FirstMessageTimeout   a stream was opened and sent nothing
    ├── StreamIdle            a stream has had nothing to do for too long
    └── StreamStalled         a stream's answers are not read
    Internal
    └── EngineFailure         the engine failed on this member of the list; the others stand

The reasons are stable: clients switch on them, dashboards count them. No message repeats the
input, which may carry a session token in its query.
"""

from __future__ import annotations

from enum import StrEnum

from servicekit.errors import (
    Aborted,
    DeadlineExceeded,
    FieldViolation,
    Internal,
    InvalidArgument,
    Unavailable,
)


class RoomUrlReason(StrEnum):
    """Every cause for which a room URL is refused; docs/room-urls.md explains each."""

    EMPTY = "ROOM_URL_EMPTY"
    TOO_LONG = "ROOM_URL_TOO_LONG"
    CONTROL_CHARACTER = "ROOM_URL_CONTROL_CHARACTER"
    CHARACTER = "ROOM_URL_CHARACTER"
    UNRECOGNISED = "ROOM_URL_UNRECOGNISED"
    SCHEME = "ROOM_URL_SCHEME"
    BACKSLASH = "ROOM_URL_BACKSLASH"
    USERINFO = "ROOM_URL_USERINFO"
    PORT = "ROOM_URL_PORT"
    IP_LITERAL = "ROOM_URL_IP_LITERAL"
    HOST = "ROOM_URL_HOST"
    SHORT_LINK = "ROOM_URL_SHORT_LINK"
    PATH = "ROOM_URL_PATH"
    NOT_LIVE = "ROOM_URL_NOT_LIVE"
    USERNAME = "ROOM_URL_USERNAME"
    ROOM_ID = "ROOM_URL_ROOM_ID"
    PERCENT_ENCODING = "ROOM_URL_PERCENT_ENCODING"
    DUPLICATE_PARAMETER = "ROOM_URL_DUPLICATE_PARAMETER"


class RoomUrlError(InvalidArgument):
    """What was pasted names no LIVE room. The message says what is wrong and what to do."""

    def __init__(self, reason: RoomUrlReason, message: str) -> None:
        super().__init__(
            message,
            reason=reason.value,
            violations=(FieldViolation("room_url", message, reason.value),),
        )


class SignRequestError(InvalidArgument):
    """A wish that the chosen engine does not grant: a lifetime, an algorithm, an engine's name."""

    reason = "SIGN_REQUEST_INVALID"
    message = "The engine cannot sign as asked."


class EngineUnavailable(Unavailable):
    """The engine does not sign now."""

    reason = "ENGINE_UNAVAILABLE"
    message = "The signing engine is not ready. Try again shortly."


class EngineBusy(Unavailable):
    """The engine's queue is full. Raise with `retry_after`."""

    reason = "ENGINE_BUSY"
    message = "The signing engine has more work than it can take. Try again shortly."


class SignDeadlineExceeded(DeadlineExceeded):
    """The request's deadline passed before its turn came."""

    reason = "SIGN_DEADLINE_EXCEEDED"
    message = "The deadline passed before the URL was signed."


class EngineFailure(Internal):
    """The engine failed on this request; what it said is in `__cause__`, for the log."""

    reason = "ENGINE_FAILURE"
    message = "The signing engine failed on this request. Nothing was charged."


class FirstMessageTimeout(Aborted):
    """A stream sent no request in time after it was opened."""

    reason = "FIRST_MESSAGE_TIMEOUT"
    message = "The stream sent no request in time. Open it when there is something to sign."


class StreamIdle(Aborted):
    """A stream sent nothing, and had nothing to answer, for too long."""

    reason = "STREAM_IDLE"
    message = "The stream was idle for too long. Open it again when there is something to sign."


class StreamStalled(Aborted):
    """A stream's client does not read its answers."""

    reason = "STREAM_STALLED"
    message = "The client did not read the stream's answers in time."
