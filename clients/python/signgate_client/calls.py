"""What the two clients share: requests from plain arguments, channel options, stubs.

A method of a client is one line: which stub, which request. So the two can't drift apart.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from signgate.auth.v1 import admin_pb2, admin_pb2_grpc, auth_pb2, auth_pb2_grpc
from signgate.keys.v1 import admin_pb2 as keys_admin_pb2
from signgate.keys.v1 import admin_pb2_grpc as keys_admin_pb2_grpc
from signgate.keys.v1 import keys_pb2, keys_pb2_grpc
from signgate.quota.v1 import admin_pb2 as quota_admin_pb2
from signgate.quota.v1 import admin_pb2_grpc as quota_admin_pb2_grpc
from signgate.quota.v1 import quota_pb2, quota_pb2_grpc
from signgate.signer.v1 import signer_pb2, signer_pb2_grpc
from signgate.usage.v1 import alerts_pb2, alerts_pb2_grpc, usage_pb2, usage_pb2_grpc


def _reads() -> list[dict[str, str]]:
    """The methods that change nothing, as gRPC's service config names them."""
    files = (
        *(auth_pb2, admin_pb2, keys_pb2, keys_admin_pb2, quota_pb2, quota_admin_pb2),
        *(signer_pb2, usage_pb2, alerts_pb2),
    )
    return [
        {"service": service.full_name, "method": method.name}
        for file in files
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
        if method.name.startswith(("Get", "List", "Lookup")) or method.name == "VerifySignature"
    ]


# What changes something is never sent twice: only its caller knows whether it may have been done.
_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": _reads(),
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 3,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}
OPTIONS = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.primary_user_agent", "signgate-python"),
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
)


class Stubs:
    """The generated stubs of every public service, over one channel."""

    def __init__(self, channel: grpc.Channel | grpc.aio.Channel) -> None:
        self.auth: Any = auth_pb2_grpc.AuthServiceStub(channel)
        self.admin: Any = admin_pb2_grpc.AuthAdminServiceStub(channel)
        self.keys: Any = keys_pb2_grpc.KeysServiceStub(channel)
        self.keys_admin: Any = keys_admin_pb2_grpc.KeysAdminServiceStub(channel)
        self.quotas: Any = quota_pb2_grpc.QuotaServiceStub(channel)
        self.quota_admin: Any = quota_admin_pb2_grpc.QuotaAdminServiceStub(channel)
        self.signer: Any = signer_pb2_grpc.SignerServiceStub(channel)
        self.usage: Any = usage_pb2_grpc.UsageServiceStub(channel)
        self.alerts: Any = alerts_pb2_grpc.AlertServiceStub(channel)


def credential(api_key: str | None, access_token: str | None) -> tuple[tuple[str, str], ...]:
    """The metadata of a credential. Raises `ValueError` when both are given."""
    if api_key and access_token:
        raise ValueError("give an API key or an access token, not both")
    if api_key:
        return (("x-api-key", api_key),)
    return (("authorization", f"Bearer {access_token}"),) if access_token else ()


def sign(room_url: str, engine: str, ttl: timedelta | None, user_agent: str) -> signer_pb2.SignRequest:
    return signer_pb2.SignRequest(room_url=room_url, engine=engine, ttl=duration(ttl), user_agent=user_agent)


def batch(room_urls: Iterable[str], engine: str, ttl: timedelta | None) -> signer_pb2.SignBatchRequest:
    return signer_pb2.SignBatchRequest(requests=[sign(url, engine, ttl, "") for url in room_urls])


def verify(signed_url: str) -> signer_pb2.VerifySignatureRequest:
    return signer_pb2.VerifySignatureRequest(signed_url=signed_url)


def create_key(
    name: str, scopes: Iterable[str], expires_at: datetime | None, **more: Any
) -> keys_pb2.CreateKeyRequest:
    return keys_pb2.CreateKeyRequest(name=name, scopes=list(scopes), expires_at=timestamp(expires_at), **more)


def list_usage(page_size: int, page_token: str) -> usage_pb2.ListUsageRequest:
    return usage_pb2.ListUsageRequest(page_size=page_size, page_token=page_token)


def confirm(email: str, code: str) -> auth_pb2.VerifyRequest:
    return auth_pb2.VerifyRequest(type=auth_pb2.OTP_TYPE_SIGNUP, email=email, token=code)


def quota() -> quota_pb2.GetQuotaRequest:
    return quota_pb2.GetQuotaRequest()


def duration(value: timedelta | None) -> Duration | None:
    if value is None:
        return None
    message = Duration()
    message.FromTimedelta(value)
    return message


def timestamp(value: datetime | None) -> Timestamp | None:
    if value is None:
        return None
    message = Timestamp()
    message.FromDatetime(value)
    return message
