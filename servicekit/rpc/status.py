"""The error tree as `google.rpc.Status`, and back, losing nothing that is public.

| part of the error        | detail on the wire                                       |
|--------------------------|----------------------------------------------------------|
| reason, metadata         | `ErrorInfo`, domain `signgate`                           |
| violations               | `BadRequest`                                             |
| retry_after              | `RetryInfo`                                              |
| quota                    | `QuotaFailure`, and its numbers in ErrorInfo's metadata  |
| the request id           | `RequestInfo`                                            |
"""

from __future__ import annotations

from typing import Final

import grpc
from google.protobuf import any_pb2, duration_pb2, message
from google.rpc import error_details_pb2 as details
from google.rpc import status_pb2

from servicekit.errors import BY_STATUS, DOMAIN, FieldViolation, Internal, QuotaFacts, SigngateError

DETAILS_KEY: Final = "grpc-status-details-bin"

CODES: Final = {code.name: code for code in grpc.StatusCode}
_numbers: Final = {code.name: int(code.value[0]) for code in grpc.StatusCode}
_names: Final = {number: name for name, number in _numbers.items()}

# A gRPC runtime reports these itself, with no details: what a caller of a peer should make of them.
_bare_reasons: Final = {
    "UNAVAILABLE": "PEER_UNAVAILABLE",
    "DEADLINE_EXCEEDED": "DEADLINE_EXCEEDED",
    "UNIMPLEMENTED": "UNIMPLEMENTED",
}


def to_status(error: SigngateError, request_id: str = "") -> status_pb2.Status:
    """The error as it goes to the caller. Only public parts are written."""
    status = status_pb2.Status(code=_numbers[error.status], message=error.message)
    metadata = dict(error.metadata)
    if error.quota is not None:
        quota = error.quota
        metadata |= {
            "quota_name": quota.name,
            "quota_limit": str(quota.limit),
            "quota_remaining": str(quota.remaining),
            "quota_reset_after": f"{quota.reset_after:.3f}",
            "quota_reset_at": f"{quota.reset_at:.3f}",
        }
    _pack(status, details.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata))
    if error.violations:
        bad = details.BadRequest()
        for violation in error.violations:
            bad.field_violations.add(
                field=violation.field,
                description=violation.description,
                reason=violation.reason or error.reason,
            )
        _pack(status, bad)
    if error.retry_after is not None:
        wait = duration_pb2.Duration()
        wait.FromNanoseconds(int(max(error.retry_after, 0.0) * 1e9))
        _pack(status, details.RetryInfo(retry_delay=wait))
    if error.quota is not None:
        failure = details.QuotaFailure()
        failure.violations.add(subject=error.quota.name, description=error.message)
        _pack(status, failure)
    if request_id:
        _pack(status, details.RequestInfo(request_id=request_id))
    return status


def from_status(status: status_pb2.Status) -> SigngateError:
    """The error that a status stands for. Details that are not understood are passed over.

    Raises `ValueError` for a status that is OK.
    """
    if status.code == 0:
        raise ValueError("an OK status is no error")
    kind = BY_STATUS.get(_names.get(status.code, ""), Internal)
    error = kind(status.message or None)
    error.reason = _bare_reasons.get(kind.status, kind.reason)
    for packed in status.details:
        _unpack(packed, error)
    return error


def from_rpc_error(failure: grpc.aio.AioRpcError) -> SigngateError:
    """What a failed call to a peer means, by the peer's own reason where it gave one.

    A runtime's own text ("failed to connect to all addresses …") names hosts, so it stays in the
    cause, for the log; the message is the tree's own.
    """
    trailing = failure.trailing_metadata()
    packed = trailing.get(DETAILS_KEY) if trailing else None
    if isinstance(packed, bytes):
        try:
            status = status_pb2.Status.FromString(packed)
            if status.code == failure.code().value[0] and status.code:
                return from_status(status)
        except message.DecodeError:
            pass  # a proxy mangled it: the bare status still counts
    kind = BY_STATUS.get(failure.code().name, Internal)
    error = kind(reason=_bare_reasons.get(kind.status, kind.reason))
    error.__cause__ = failure
    return error


def _pack(status: status_pb2.Status, detail: message.Message) -> None:
    status.details.add().Pack(detail)


def _unpack(packed: any_pb2.Any, error: SigngateError) -> None:
    try:
        if packed.Is(details.ErrorInfo.DESCRIPTOR):
            info = details.ErrorInfo.FromString(packed.value)
            if info.domain != DOMAIN:
                return
            error.reason = info.reason
            error.metadata = dict(info.metadata)
            error.quota = _quota(error.metadata)
        elif packed.Is(details.BadRequest.DESCRIPTOR):
            bad = details.BadRequest.FromString(packed.value)
            error.violations = tuple(
                FieldViolation(v.field, v.description, v.reason) for v in bad.field_violations
            )
        elif packed.Is(details.RetryInfo.DESCRIPTOR):
            wait = details.RetryInfo.FromString(packed.value).retry_delay
            error.retry_after = wait.seconds + wait.nanos / 1e9
    except message.DecodeError:
        return


def _quota(metadata: dict[str, str]) -> QuotaFacts | None:
    if "quota_name" not in metadata:
        return None
    try:
        return QuotaFacts(
            name=metadata.pop("quota_name"),
            limit=int(metadata.pop("quota_limit", "0")),
            remaining=int(metadata.pop("quota_remaining", "0")),
            reset_after=float(metadata.pop("quota_reset_after", "0")),
            reset_at=float(metadata.pop("quota_reset_at", "0")),
        )
    except ValueError:
        return None
