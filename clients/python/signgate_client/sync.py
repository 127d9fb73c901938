"""The client for threads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Self

import grpc

from signgate.auth.v1 import auth_pb2, user_pb2
from signgate.keys.v1 import keys_pb2
from signgate.quota.v1 import quota_pb2
from signgate.signer.v1 import signer_pb2
from signgate.usage.v1 import usage_pb2
from signgate_client import calls
from signgate_client.errors import SigngateError


class Signgate(calls.Stubs):
    """One connection to the edge, for one caller; safe to share among threads.

    `timeout` is each call's, in seconds. `tls` for an edge that speaks it.
    """

    def __init__(
        self,
        target: str = "127.0.0.1:8080",
        *,
        api_key: str | None = None,
        access_token: str | None = None,
        timeout: float = 10.0,
        tls: bool = False,
    ) -> None:
        self._metadata = calls.credential(api_key, access_token)
        self._timeout = timeout
        options = list(calls.OPTIONS)
        self._channel = (
            grpc.secure_channel(target, grpc.ssl_channel_credentials(), options=options)
            if tls
            else grpc.insecure_channel(target, options=options)
        )
        super().__init__(self._channel)

    def sign(
        self, room_url: str, *, engine: str = "", ttl: timedelta | None = None, user_agent: str = ""
    ) -> signer_pb2.Signature:
        """Sign one room URL."""
        response: signer_pb2.SignResponse = self.call(
            self.signer.Sign, calls.sign(room_url, engine, ttl, user_agent)
        )
        return response.signature

    def sign_batch(
        self, room_urls: Iterable[str], *, engine: str = "", ttl: timedelta | None = None
    ) -> signer_pb2.SignBatchResponse:
        """Sign up to 100 room URLs; results are in their order, each a signature or an error."""
        response: signer_pb2.SignBatchResponse = self.call(
            self.signer.SignBatch, calls.batch(room_urls, engine, ttl)
        )
        return response

    def sign_stream(self, room_urls: Iterable[str]) -> Iterator[signer_pb2.SignStreamResponse]:
        """Sign room URLs as they come; an answer's `tag` is the index of its URL."""
        requests = (
            signer_pb2.SignStreamRequest(tag=tag, request=calls.sign(url, "", None, ""))
            for tag, url in enumerate(room_urls)
        )
        try:
            yield from self.signer.SignStream(requests, metadata=self._metadata)
        except grpc.RpcError as failure:
            raise SigngateError.of(failure) from failure

    def verify(self, signed_url: str) -> signer_pb2.VerifySignatureResponse:
        """Whether a native signature holds now."""
        response: signer_pb2.VerifySignatureResponse = self.call(
            self.signer.VerifySignature, calls.verify(signed_url)
        )
        return response

    def quota(self) -> quota_pb2.GetQuotaResponse:
        """The caller's limits, and what is left of them."""
        response: quota_pb2.GetQuotaResponse = self.call(self.quotas.GetQuota, calls.quota())
        return response

    def list_usage(self, page_size: int = 100, page_token: str = "") -> usage_pb2.ListUsageResponse:
        """The caller's requests, newest first."""
        response: usage_pb2.ListUsageResponse = self.call(
            self.usage.ListUsage, calls.list_usage(page_size, page_token)
        )
        return response

    def export_usage(self, request: usage_pb2.ExportUsageRequest) -> Iterator[bytes]:
        """The caller's requests as a file, piece by piece, oldest first."""
        try:
            for part in self.usage.ExportUsage(request, metadata=self._metadata):
                yield part.data
        except grpc.RpcError as failure:
            raise SigngateError.of(failure) from failure

    def create_key(
        self,
        name: str,
        *,
        scopes: Iterable[str] = (),
        expires_at: datetime | None = None,
        metadata: Mapping[str, str] | None = None,
        external_id: str = "",
        idempotency_key: str = "",
    ) -> keys_pb2.CreateKeyResponse:
        """Make an API key. Its `secret` is in this answer only, and in those to repeats of the same call with
        the same `idempotency_key` within 24 hours.
        """
        more = {"metadata": metadata, "external_id": external_id, "idempotency_key": idempotency_key}
        response: keys_pb2.CreateKeyResponse = self.call(
            self.keys.CreateKey, calls.create_key(name, scopes, expires_at, **more)
        )
        return response

    def revoke_key(self, key_id: str) -> keys_pb2.Key:
        """End a key, for good."""
        response: keys_pb2.RevokeKeyResponse = self.call(
            self.keys.RevokeKey, keys_pb2.RevokeKeyRequest(key_id=key_id)
        )
        return response.key

    def revoke_all_keys(self, *, except_key_id: str = "") -> keys_pb2.RevokeAllKeysResponse:
        """End all working keys, for good, but one if one is named."""
        response: keys_pb2.RevokeAllKeysResponse = self.call(
            self.keys.RevokeAllKeys, keys_pb2.RevokeAllKeysRequest(except_key_id=except_key_id)
        )
        return response

    def sign_up(self, email: str, password: str) -> user_pb2.User:
        """Make an account; a code to confirm the address is mailed."""
        response: auth_pb2.SignUpResponse = self.call(
            self.auth.SignUp, auth_pb2.SignUpRequest(email=email, password=password)
        )
        return response.user

    def confirm(self, email: str, code: str) -> user_pb2.Session:
        """Confirm the address with the mailed code, and sign in."""
        response: auth_pb2.VerifyResponse = self.call(self.auth.Verify, calls.confirm(email, code))
        return response.session

    def sign_in(self, email: str, password: str) -> user_pb2.Session:
        """Sign in with a password. Use the session's access token in another `Signgate`."""
        response: auth_pb2.SignInResponse = self.call(
            self.auth.SignIn, auth_pb2.SignInRequest(email=email, password=password)
        )
        return response.session

    def call(self, method: Any, request: Any) -> Any:
        """Call a stub's method with this caller's credential. Raises `SigngateError`."""
        try:
            return method(request, timeout=self._timeout, metadata=self._metadata)
        except grpc.RpcError as failure:
            raise SigngateError.of(failure) from failure

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
