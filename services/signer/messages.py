"""Between protobuf and the signer's own types."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from servicekit.errors import InvalidArgument, SigngateError
from servicekit.rpc.status import CODES
from services.signer.domain import Algorithm, EngineInfo, PublishedKey, Room, RoomKind, Signed, Verdict
from services.signer.engines.signing_keys import jwk_set
from services.signer.jobs import Limit, Part, Wish
from services.signer.service import EngineListing
from signgate.common.v1 import quota_pb2
from signgate.signer.v1 import signer_pb2 as pb

_algorithms: Final[dict[Any, Algorithm | None]] = {
    pb.ALGORITHM_UNSPECIFIED: None,
    pb.ALGORITHM_ED25519: Algorithm.ED25519,
    pb.ALGORITHM_HMAC_SHA256: Algorithm.HMAC_SHA256,
}
_algorithm_numbers: Final[dict[Algorithm | None, Any]] = {known: n for n, known in _algorithms.items()}
_room_kinds: Final[dict[RoomKind, Any]] = {
    RoomKind.USERNAME: pb.ROOM_KIND_USERNAME,
    RoomKind.ROOM_ID: pb.ROOM_KIND_ROOM_ID,
    RoomKind.WEBCAST: pb.ROOM_KIND_WEBCAST,
}
_limit_kinds: Final[dict[str, Any]] = {
    "": quota_pb2.LIMIT_KIND_UNSPECIFIED,
    "user_day": quota_pb2.LIMIT_KIND_USER_DAY,
    "user_minute": quota_pb2.LIMIT_KIND_USER_MINUTE,
    "key_day": quota_pb2.LIMIT_KIND_KEY_DAY,
    "key_minute": quota_pb2.LIMIT_KIND_KEY_MINUTE,
}
_code_numbers: Final = {name: int(code.value[0]) for name, code in CODES.items()}


def wish(request: pb.SignRequest) -> Wish:
    """What a request asks."""
    ttl = None
    if request.HasField("ttl"):
        ttl = request.ttl.seconds + request.ttl.nanos / 1e9
    algorithm = request.algorithm
    if algorithm not in _algorithms:  # proto3's enums are open
        wrong = InvalidArgument.field("algorithm", "not a known algorithm")
        return Wish(request.room_url, wrong=wrong)
    return Wish(request.room_url, request.engine, ttl, _algorithms[algorithm], request.user_agent)


class Writer:
    """Writes answers. Keeps the message of each engine version, which all of its signatures share.

    Most signatures of a list differ in their URLs and tokens alone: the rest is copied from the one
    before, at half of the cost of writing it anew.
    """

    def __init__(self) -> None:
        self._engines: dict[int, tuple[EngineInfo, pb.EngineInfo]] = {}
        self._common = pb.Signature()
        self._common_of: tuple[object, ...] = ()

    def engine(self, info: EngineInfo) -> pb.EngineInfo:
        """An engine's description; the message is shared: don't change it."""
        kept = self._engines.get(id(info))
        if kept is not None and kept[0] is info:
            return kept[1]
        message = pb.EngineInfo(
            name=info.name,
            version=info.version,
            since=timestamp(info.since),
            browser_version=info.browser_version,
        )
        if len(self._engines) > 64:  # noqa: PLR2004  # versions come and go
            self._engines.clear()
        self._engines[id(info)] = (info, message)
        return message

    def signature(self, part: Part, message: pb.Signature) -> None:
        """Write the signature of a part that has one into `message`, which is empty.

        In place, as everything below: a message given to another's constructor is made, then copied.
        """
        signed, room = part.signed, part.room
        if signed is None or room is None:
            raise ValueError("not signed")
        common_of = (
            signed.engine, signed.key_id, signed.algorithm, signed.user_agent, signed.expires_at, room.kind
        )  # fmt: skip
        if common_of != self._common_of:
            self._common = self._shared(signed, room)
            self._common_of = common_of
        message.CopyFrom(self._common)
        message.signed_url = signed.signed_url
        message.canonical_url = room.url
        message.username = room.username
        message.room_id = room.room_id
        # One by one: a map's own `update` goes by way of the abstract base class, at twice the cost.
        tokens = message.tokens
        for name, value in signed.tokens.items():
            tokens[name] = value
        if signed.request_headers:
            message.request_headers.update(signed.request_headers)

    def _shared(self, signed: Signed, room: Room) -> pb.Signature:
        common = pb.Signature(
            room_kind=_room_kinds[room.kind],
            signing_key_id=signed.key_id,
            algorithm=_algorithm_numbers[signed.algorithm],
            engine=self.engine(signed.engine),
            user_agent=signed.user_agent,
        )
        if signed.expires_at is not None:
            common.expires_at.seconds = int(signed.expires_at.timestamp())
        return common

    def result(self, part: Part, message: pb.SignResult, whole: SigngateError | None = None) -> None:
        """Write one of several results into `message`; `whole` is what failed all of the job."""
        message.request_id = part.request_id
        error = whole or part.error
        if error is None:
            self.signature(part, message.signature)
        else:
            message.error.CopyFrom(sign_error(error))

    def listing(self, listing: EngineListing) -> pb.Engine:
        """An engine's account of itself."""
        status = listing.status
        return pb.Engine(
            info=self.engine(status.info),
            ready=status.ready,
            not_ready_reason=status.not_ready_reason,
            canary_at=None if status.canary_at is None else timestamp(status.canary_at),
            default=listing.default,
        )


def sign_error(error: SigngateError) -> pb.SignError:
    """Why one of several was not signed."""
    message = pb.SignError(
        code=_code_numbers[error.status],
        reason=error.reason,
        message=error.message,
        denied_by=_limit_kinds.get(error.metadata.get("limit", ""), quota_pb2.LIMIT_KIND_UNSPECIFIED),
    )
    if error.retry_after is not None:
        message.retry_after.CopyFrom(duration(error.retry_after))
    return message


def write_limit(limit: Limit, state: quota_pb2.LimitState) -> None:
    """Write a limit into `state`, as callers see it."""
    state.kind = _limit_kinds[limit.kind]
    state.limit = limit.limit
    state.remaining = limit.remaining
    moment = state.reset_at
    seconds = moment.seconds = int(limit.reset_at)
    if limit.reset_at > seconds:
        moment.nanos = int((limit.reset_at - seconds) * 1e9)


def verdict(found: Verdict) -> pb.VerifySignatureResponse:
    """Whether a signature holds."""
    return pb.VerifySignatureResponse(
        valid=found.valid,
        reason="" if found.reason is None else found.reason.value,
        message=found.message,
        canonical_url="" if found.room is None else found.room.url,
        expires_at=None if found.expires_at is None else timestamp(found.expires_at),
        signing_key_id=found.key_id,
        algorithm=_algorithm_numbers[found.algorithm],
    )


def published(keys: Sequence[PublishedKey]) -> pb.ListSigningKeysResponse:
    """Public keys, and the same as a JWK Set (RFC 8037 for Ed25519)."""
    return pb.ListSigningKeysResponse(
        keys=[
            pb.SigningKey(
                id=key.key_id,
                algorithm=_algorithm_numbers[key.algorithm],
                public_key=key.public_key,
                not_before=timestamp(key.not_before),
                not_after=None if key.not_after is None else timestamp(key.not_after),
            )
            for key in keys
        ],
        jwks_json=json.dumps(jwk_set(keys), separators=(",", ":")),
    )


def timestamp(moment: datetime) -> Timestamp:
    """A moment on the wire."""
    whole = int(moment.timestamp())
    return Timestamp(seconds=whole, nanos=moment.microsecond * 1000)


def duration(seconds: float) -> Duration:
    """A span on the wire; never negative."""
    span = Duration()
    span.FromNanoseconds(int(max(seconds, 0.0) * 1e9))
    return span
