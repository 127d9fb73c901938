"""gRPC's part of tracing: a span for each served call that is traced, and for each call to a peer.

Handlers and calls are wrapped when they are put together, and only where this process traces at all.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any

from servicekit import tracing
from servicekit.context import current

Handler = Callable[[Any, Any], Awaitable[Any]]
StreamHandler = Callable[[Any, Any], AsyncIterator[Any]]


def served(name: str, handler: Handler) -> Handler:
    """A handler whose calls go on with their callers' traces."""

    async def call(request: Any, context: Any) -> Any:
        with _server_span(name):
            return await handler(request, context)

    return call


def served_stream(name: str, handler: StreamHandler) -> StreamHandler:
    """The same for one that yields its responses."""

    async def call(request: Any, context: Any) -> AsyncIterator[Any]:
        with _server_span(name):
            async for response in handler(request, context):
                yield response

    return call


def called(name: str, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """A unary call to a peer that takes the trace along."""

    async def traced(request: Any, *, timeout: float | None = None, metadata: Any = None) -> Any:
        with tracing.span(name, "CLIENT", _of(name)) as here:
            if here is not None:
                metadata = (*(metadata or ()), (tracing.HEADER, tracing.traceparent()))
            return await call(request, timeout=timeout, metadata=metadata)

    return traced


def _server_span(name: str) -> AbstractContextManager[object]:
    here = current()
    if here is None:
        return tracing.NOTHING
    for key, value in here.metadata:
        if key == tracing.HEADER:
            told = _of(name) | {"signgate.request_id": here.request_id}
            return tracing.child_of(str(value), name, "SERVER", told)
    return tracing.NOTHING


def _of(name: str) -> dict[str, str | int]:
    """By OpenTelemetry's conventions for RPC."""
    return {"rpc.system.name": "grpc", "rpc.method": name}
