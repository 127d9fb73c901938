"""What a call can fail with: one class, told apart by `reason`."""

from __future__ import annotations

from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

DETAILS = "grpc-status-details-bin"


class SigngateError(Exception):
    """A call that failed.

    `code` is the gRPC status, `reason` the stable name of the cause (such as QUOTA_EXHAUSTED; the
    status' own name where the server gave none), `retry_after` the seconds to wait before another try
    (`None`: waiting gains nothing), `metadata` facts about the cause, `request_id` what to quote when
    asking for help.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        reason: str,
        message: str,
        *,
        retry_after: float | None = None,
        metadata: dict[str, str] | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(f"{reason}: {message}")
        self.code = code
        self.reason = reason
        self.message = message
        self.retry_after = retry_after
        self.metadata = metadata or {}
        self.request_id = request_id

    @classmethod
    def of(cls, failure: Any) -> SigngateError:
        """From a failed call, synchronous or not."""
        reason, metadata, request_id, retry_after = failure.code().name, {}, "", None
        for key, value in failure.trailing_metadata() or ():
            if key != DETAILS:
                continue
            for detail in status_pb2.Status.FromString(value).details:
                info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
                request = error_details_pb2.RequestInfo()
                if detail.Unpack(info):
                    reason, metadata = info.reason, dict(info.metadata)
                elif detail.Unpack(retry):
                    retry_after = retry.retry_delay.ToNanoseconds() / 1e9
                elif detail.Unpack(request):
                    request_id = request.request_id
        return cls(
            failure.code(),
            reason,
            failure.details() or "",
            retry_after=retry_after,
            metadata=metadata,
            request_id=request_id,
        )
