"""What the signer speaks of: rooms, requests for a signature, signatures, engines, verdicts.

Pure values, equal when their fields are. Those that are made for every signature are named tuples, which
are made at a third of a frozen dataclass's cost. Times are aware UTC datetimes, spans are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


class RoomKind(StrEnum):
    """The form that a room was named in."""

    USERNAME = "username"
    ROOM_ID = "room_id"
    WEBCAST = "webcast"


class Room(NamedTuple):
    """A room in its one canonical form. Only `room_url.parse` makes one.

    `username` (lower case, without the @) and `room_id` (19 digits) are "" when not known: a
    username room has no room id, and a webcast endpoint has one only if its query says it.
    """

    kind: RoomKind
    url: str
    username: str = ""
    room_id: str = ""


class Algorithm(StrEnum):
    """How a native signature is made. The value stands in the message that is signed."""

    ED25519 = "ed25519"
    HMAC_SHA256 = "hmac-sha256"


class SignRequest(NamedTuple):
    """One signature that is asked of an engine.

    `request_id` is a UUID as text, in lower case: also the usage row's id. `ttl` of None and
    `algorithm` of None leave the choice to the engine; an engine whose signatures have no lifetime or
    algorithm of ours ignores them. `deadline` is on the clock's monotonic scale; an engine answers
    `SignDeadlineExceeded` for what it could not begin by then. `platform_tokens` asks for the
    parameters that the sign-server contract's clients look for. `method` and `payload` describe the
    request that the signed URL is for; an engine may ignore them.
    """

    room: Room
    request_id: str
    user_agent: str = ""
    ttl: float | None = None
    algorithm: Algorithm | None = None
    deadline: float | None = None
    platform_tokens: bool = False
    method: str = "GET"
    payload: str = ""

    def __repr__(self) -> str:
        return f"SignRequest({self.request_id!r}, {self.room!r})"


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What made a signature. One object is shared by all the signatures of one engine version.

    `version` changes whenever signatures may come out differently; `since` is when this version
    began to sign in this process, so the version's age is the time since. `script_hash` is the
    whole SHA-256 in hex, "" for an engine with no script; `browser_version` is "" for one with no
    browser.
    """

    name: str
    version: str
    since: datetime
    script_hash: str = ""
    browser_version: str = ""


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """An engine's own account of itself, made without I/O.

    `ready` is true exactly when the engine is started and its last canary held; else
    `not_ready_reason` is a sentence for people. `canary_at` is None before the first canary.
    """

    info: EngineInfo
    ready: bool
    not_ready_reason: str = ""
    canary_at: datetime | None = None
    algorithms: tuple[Algorithm, ...] = ()


@dataclass(frozen=True, slots=True)
class Cookie:
    """A cookie that goes with a signed URL."""

    name: str
    value: str = field(repr=False)
    domain: str = ""
    path: str = "/"


class Signed(NamedTuple):
    """A signature and all that goes with it.

    `tokens` are the query parameters that the engine added, by name. `expires_at` is None, `key_id`
    "" and `algorithm` None when the engine does not say. `request_headers` and `cookies` are to be
    sent along with the URL.
    """

    signed_url: str
    engine: EngineInfo
    user_agent: str = ""
    tokens: Mapping[str, str] = _NOTHING
    expires_at: datetime | None = None
    key_id: str = ""
    algorithm: Algorithm | None = None
    request_headers: Mapping[str, str] = _NOTHING
    cookies: tuple[Cookie, ...] = ()

    def __repr__(self) -> str:
        return f"Signed({self.engine.name!r}, expires_at={self.expires_at!r}, key_id={self.key_id!r})"


class VerdictReason(StrEnum):
    """Why a signed URL does not hold, in the order in which it is looked at."""

    MALFORMED = "MALFORMED"
    NOT_CANONICAL = "NOT_CANONICAL"
    UNKNOWN_KEY = "UNKNOWN_KEY"
    BAD_SIGNATURE = "BAD_SIGNATURE"
    EXPIRED = "EXPIRED"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a signed URL holds at the moment that was asked about.

    `reason` is None exactly when `valid`. `key_id` is what the URL claims, set once the URL has the
    right form. `room`, `expires_at`, `request_id` and `algorithm` are set only when the signature
    was made with a key that is known here, so that nothing unproven is passed on: for a valid URL
    and for an EXPIRED one.
    """

    valid: bool
    reason: VerdictReason | None = None
    message: str = ""
    room: Room | None = None
    expires_at: datetime | None = None
    key_id: str = ""
    algorithm: Algorithm | None = None
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class PublishedKey:
    """A public key by which anyone verifies: `public_key` is Ed25519's 32 raw bytes.

    It signs from `not_before`; after `not_after` no signature of it holds (None: no end is set).
    """

    key_id: str
    algorithm: Algorithm
    public_key: bytes
    not_before: datetime
    not_after: datetime | None
