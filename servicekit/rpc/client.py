"""Channels to peers. A peer's error comes out as the tree's own, by its reason.

`create_channel` gives a channel for any generated stub. Each call through it passes on the request
id and what is left of the caller's deadline (or the channel's default timeout, if shorter), and
raises `SigngateError` rather than `AioRpcError`. It wraps stubs' methods instead of using grpc's
client interceptors, which start a task more for every call.
"""

from __future__ import annotations

import ipaddress
import json
import time
from collections.abc import AsyncIterator, Callable
from time import perf_counter
from typing import Any, Final, Self, cast

import grpc
from grpc.aio import AioRpcError

from servicekit import tracing
from servicekit.context import REQUEST_ID_HEADER, current
from servicekit.errors import DeadlineExceeded
from servicekit.headers import GRPC_OPTIONS
from servicekit.identity import Peer
from servicekit.rpc.bounds import MAX_MESSAGE
from servicekit.rpc.server import ACCEPTING
from servicekit.rpc.status import from_rpc_error
from servicekit.rpc.tracing import called
from servicekit.telemetry import PEER_DURATION
from servicekit.tls import channel_credentials

# No retry policy: a peer's UNAVAILABLE may mean that the work was done. The runtime itself repeats a
# call that never left this process, which is all that is safe to repeat blindly.
# A server that stops cancels what reaches it before its word of that reaches us: so each connection
# watches whether its peer still accepts calls, and carries none from when it says no.
_service_config: Final = json.dumps(
    {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ACCEPTING}}
)

CHANNEL_OPTIONS: Final = (
    ("grpc.service_config", _service_config),
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", MAX_MESSAGE),
    *GRPC_OPTIONS,
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # A peer that restarts is found again within a second, not after the default's two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
)


def target(address: str) -> str:
    """A gRPC target from a setting.

    One `host:port`, several IPv4 ones with commas between them (load is spread over all), or a
    target with its own scheme (`dns:///keys:7102`, `unix:…`), which stays as it is.
    """
    if ":///" in address or address.startswith(("unix:", "ipv4:", "ipv6:", "dns:")):
        return address
    parts = [part.strip() for part in address.split(",")]
    if len(parts) > 1 or _is_ipv4(parts[0].rpartition(":")[0]):
        return "ipv4:" + ",".join(parts)
    return f"dns:///{address}"


def _is_ipv4(host: str) -> bool:
    try:
        return bool(ipaddress.IPv4Address(host))
    except ValueError:
        return False


class PeerChannel:
    """A channel as generated stubs want it. Use `create_channel`; close it when done."""

    def __init__(self, channel: grpc.aio.Channel, timeout: float, peer: Peer | None = None) -> None:
        self._channel = channel
        self._timeout = timeout
        self._peer = peer

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        """See `grpc.aio.Channel.unary_unary`: a call is awaited for its response."""
        return self._one(method, self._channel.unary_unary(method, *args, **kwargs))

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        """See `grpc.aio.Channel.stream_unary`."""
        return self._one(method, self._channel.stream_unary(method, *args, **kwargs))

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        """See `grpc.aio.Channel.unary_stream`: a call is an asynchronous iterator."""
        return self._many(method, self._channel.unary_stream(method, *args, **kwargs))

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        """See `grpc.aio.Channel.stream_stream`: requests are given as an iterator."""
        return self._many(method, self._channel.stream_stream(method, *args, **kwargs))

    async def ready(self) -> None:
        """Return once connected. Wrap it in a timeout."""
        await self._channel.channel_ready()

    async def close(self, grace: float | None = None) -> None:
        """Close; calls in flight may end within `grace` seconds."""
        await self._channel.close(grace)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _one(self, method: str, inner: Any) -> Callable[..., Any]:
        name = method.lstrip("/")
        ok = PEER_DURATION.series(name, "OK")
        default, peer = self._timeout, self._peer

        async def call(request: Any, *, timeout: float | None = None, metadata: Any = None) -> Any:
            limit, pairs = _outgoing(default if timeout is None else timeout, metadata, peer)
            started = perf_counter()
            series = ok
            try:
                return await inner(request, timeout=limit, metadata=pairs)
            except AioRpcError as failure:
                series = PEER_DURATION.series(name, failure.code().name)
                raise from_rpc_error(failure) from failure
            finally:
                series.observe(perf_counter() - started)

        return called(name, call) if tracing.enabled() else call

    def _many(self, method: str, inner: Any) -> Callable[..., AsyncIterator[Any]]:
        name = method.lstrip("/")
        peer = self._peer

        async def call(
            request: Any, *, timeout: float | None = None, metadata: Any = None
        ) -> AsyncIterator[Any]:
            # A stream may rightly last: only the caller's own deadline bounds it, if anything does.
            limit, pairs = _outgoing(timeout, metadata, peer)
            started = perf_counter()
            code = "OK"
            stream = inner(request, timeout=limit, metadata=pairs)
            try:
                async for response in stream:
                    yield response
            except AioRpcError as failure:
                code = failure.code().name
                raise from_rpc_error(failure) from failure
            finally:
                stream.cancel()
                PEER_DURATION.series(name, code).observe(perf_counter() - started)

        return call


def _outgoing(timeout: float | None, metadata: Any, peer: Peer | None) -> tuple[float | None, Any]:
    pairs = tuple(metadata) if metadata else ()
    if peer is not None:
        pairs += (peer.identity.pair(peer.name),)
    here = current()
    if here is None:
        return timeout, pairs or None
    if here.deadline is not None:
        left = here.deadline - time.monotonic()
        if left <= 0:
            raise DeadlineExceeded
        timeout = left if timeout is None else min(timeout, left)
    return timeout, (*pairs, (REQUEST_ID_HEADER, here.request_id))


def create_channel(address: str, *, timeout: float = 5.0, peer: Peer | None = None) -> grpc.aio.Channel:
    """A channel to a peer; connects at the first call. `timeout` is each unary call's, in seconds.

    `peer` names the called service and the caller's identity: its credential is sent with each call. If it
    has a CA, the connection is TLS to a server whose certificate is for that service. Without a `peer` only
    methods that need no service credential can be called. Raises `FileError` when the CA cannot be read.

    While no connection stands, calls fail at once with `Unavailable` (reason `PEER_UNAVAILABLE`);
    it is tried again every half to one second.
    """
    if peer is None or peer.ca is None:
        inner = grpc.aio.insecure_channel(target(address), options=CHANNEL_OPTIONS)
    else:
        options = (*CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", peer.name))
        inner = grpc.aio.secure_channel(target(address), channel_credentials(peer.ca), options=options)
    return cast("grpc.aio.Channel", PeerChannel(inner, timeout, peer))
