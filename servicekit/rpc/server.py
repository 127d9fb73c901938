"""A grpc.aio server whose every method is wrapped once, at registration.

Round each call, unary or streaming: a `CallContext` (request id, deadline), the contract's bounds of the
request, authentication and the contract's access policy, errors as `google.rpc.Status`, RED metrics.
Wrapping handlers when they are added costs nothing a call; grpc's own interceptor chain would run again for
each.

    server = create_server(authenticator=authenticator)
    server.add(Servicer(service), keys_pb2_grpc.add_KeysServiceServicer_to_server)

What a handler may do: return, raise any `SigngateError`, or fail in any other way, which is logged
whole and leaves as a bare INTERNAL with the request id. A client that goes away cancels the
handler; nothing is logged.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final, Protocol, cast

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from servicekit import log, tracing
from servicekit.clock import Clock, SystemClock
from servicekit.context import current
from servicekit.edge import Edge
from servicekit.headers import GRPC_OPTIONS
from servicekit.principal import Principal
from servicekit.rpc.bounds import MAX_MESSAGE, Parse, Read, readers
from servicekit.rpc.callers import Callers, callers_of
from servicekit.rpc.calls import Behaviour, Calls, Context, Metadata, StreamBehaviour
from servicekit.rpc.policy import OPEN, Guard, guards
from servicekit.rpc.tracing import served, served_stream
from signgate.common.v1.policy_pb2 import ACCESS_INTERNAL

LIVENESS: Final = "liveness"
"""The health service's name for "this process runs its loop"; "" is readiness."""

ACCEPTING: Final = "accepting"
"""The health service's name for "not told to stop"; peers' channels watch it, and leave in time."""


SERVER_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", MAX_MESSAGE),
    *GRPC_OPTIONS,
    ("grpc.max_concurrent_streams", 4096),
    # Above as many as the edge lets in at once: the runtime cancels calls at random, anyone's, from 1,000 on
    # that arrive faster than this process takes them up.
    ("grpc.server.max_pending_requests", 16_384),
    ("grpc.server.max_pending_requests_hard_limit", 32_768),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.so_reuseport", 0),
    # A client looks its peer's name up only when a connection ends: so often it finds new replicas.
    # Calls in flight go on over the old connection for as long as they take.
    ("grpc.max_connection_age_ms", 30_000),
)

_log = log.get("rpc")


class Authenticator(Protocol):
    """Turns a call's metadata into a principal. Raises `Unauthenticated` or `Unavailable`."""

    async def authenticate(self, metadata: Metadata) -> Principal:
        """The caller; never `None`."""
        ...


class Registrar(Protocol):
    """What generated code wants of a server."""

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: dict[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """Take a service's handlers by method name."""
        ...

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Called too, with the same handlers in another shape."""
        ...


class RpcServer:
    """Servicers in, one listening server out. Use `create_server`."""

    def __init__(
        self,
        authenticator: Authenticator | None,
        deferred: frozenset[str],
        callers: Callers | None,
        edge: Edge,
        clock: Clock,
    ) -> None:
        self._authenticator = authenticator
        self._clock = clock
        self._callers = callers
        self._edge = edge
        self._deferred = deferred
        self._server = grpc.aio.server(options=SERVER_OPTIONS)
        self._names: list[str] = []
        self._unknown_deferred = set(deferred)
        self._withdrawn = False
        self.health = health.aio.HealthServicer()

    def add(self, servicer: object, register: Callable[[Any, Any], None]) -> None:
        """Serve a servicer; `register` is the generated `add_…Servicer_to_server`.

        Raises `PolicyMissingError` for a method without access policy, `UnboundedFieldError` for one whose
        request has a field without a bound, `TypeError` for a handler that is not asynchronous, `ValueError`
        if a method needs authentication, or an authenticated service, and nothing here can provide it.
        """
        register(servicer, self)

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: dict[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """See `Registrar`: wraps each handler and hands it to the real server."""
        guard, reader = guards(service_name), readers(service_name)
        wrapped = {
            name: self._wrap(f"{service_name}/{name}", handler, guard[name], reader[name])
            for name, handler in method_handlers.items()
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service_name, wrapped),))
        self._names.append(service_name)

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """See `Registrar`: nothing to do, the registered methods are the same ones."""

    def listen(self, address: str, credentials: grpc.ServerCredentials | None = None) -> int:
        """Bind `host:port`, for TLS if there are `credentials`; returns the port.

        Raises `RuntimeError` when it is taken.
        """
        if credentials is None:
            return self._server.add_insecure_port(address)
        return self._server.add_secure_port(address, credentials)

    async def start(self) -> None:
        """Begin to serve: alive at once, ready only when `set_ready(True)` says so."""
        if self._unknown_deferred:
            raise ValueError(f"deferred, but not served: {sorted(self._unknown_deferred)}")
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        reflection.enable_server_reflection(
            [*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME], self._server
        )
        for name in (LIVENESS, ACCEPTING):
            await self.health.set(name, health_pb2.HealthCheckResponse.SERVING)
        await self.set_ready(ready=False)
        await self._server.start()

    async def set_ready(self, *, ready: bool) -> None:
        """Report readiness, overall and by service. Once withdrawn it is never ready again."""
        ready = ready and not self._withdrawn
        state = (
            health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        for name in ("", *self._names):
            await self.health.set(name, state)

    async def withdraw(self) -> None:
        """Report not ready, and have peers send their calls elsewhere; those that come are still taken."""
        self._withdrawn = True
        await self.health.set(ACCEPTING, health_pb2.HealthCheckResponse.NOT_SERVING)
        await self.set_ready(ready=False)

    async def stop(self, grace: float) -> None:
        """Take no new call; let those in flight end for up to `grace` seconds, then cancel them.

        The runtime cancels calls that are on their way at this moment too: `withdraw` first, and wait.
        """
        await self._server.stop(grace)

    def _wrap(
        self,
        name: str,
        handler: grpc.RpcMethodHandler[Any, Any],
        guard: Guard,
        reader: Callable[[Parse], Read],
    ) -> grpc.RpcMethodHandler[Any, Any]:
        self._unknown_deferred.discard(name)
        policy, authorise = guard.policy, None
        if policy.access not in OPEN and name not in self._deferred:
            if self._authenticator is None:
                raise ValueError(f"{name} asks for a credential, but the server has no authenticator")
            authorise = partial(_authorise, self._authenticator, guard, self._clock)
        read = reader(cast("Parse", handler.request_deserializer))
        prove = None
        if policy.access == ACCESS_INTERNAL:
            if self._callers is None:
                raise ValueError(f"{name} is internal, but the server cannot identify the calling service")
            prove = partial(self._callers.require, allowed=callers_of(policy))
        # One request is read inside the call, so that an error leaves as any other; a stream's are read
        # where its handler asks for the next.
        calls = Calls(name, self._edge, prove, None if handler.request_streaming else read)
        shape = (bool(handler.request_streaming), bool(handler.response_streaming))
        make = _makers[shape]
        behaviour = (
            handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        )
        if inspect.isasyncgenfunction(behaviour):
            stream: StreamBehaviour = behaviour
            if authorise is not None:
                stream = _authorised_stream(stream, authorise)
            outer: Any = calls.generator(served_stream(name, stream) if tracing.enabled() else stream)
        elif inspect.iscoroutinefunction(behaviour):
            inner: Behaviour = behaviour
            if authorise is not None:
                inner = _authorised(inner, authorise)
            outer = calls.coroutine(served(name, inner) if tracing.enabled() else inner)
        else:
            raise TypeError(f"{name}: a handler is `async def`, with or without `yield`")
        if log.debugging():
            outer = _told(name, outer)
        return cast(
            "grpc.RpcMethodHandler[Any, Any]",
            make(
                outer,
                request_deserializer=read if handler.request_streaming else None,
                response_serializer=handler.response_serializer,
            ),
        )


_makers: Final[dict[tuple[bool, bool], Callable[..., object]]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


Authorise = Callable[[Any], Awaitable[None]]


def _authorised(behaviour: Behaviour, authorise: Authorise) -> Behaviour:
    async def call(request: Any, context: Context) -> Any:
        await authorise(request)
        return await behaviour(request, context)

    return call


def _authorised_stream(behaviour: StreamBehaviour, authorise: Authorise) -> StreamBehaviour:
    async def call(request: Any, context: Context) -> AsyncIterator[Any]:
        await authorise(request)
        async for response in behaviour(request, context):
            yield response

    return call


async def _authorise(authenticator: Authenticator, guard: Guard, clock: Clock, request: Any) -> None:
    here = current()
    assert here is not None  # noqa: S101  # `_begin` has made it
    here.principal = await authenticator.authenticate(here.metadata)
    guard.enforce(here.principal, request, clock.time())


def _told(name: str, outer: Any) -> Any:
    """`outer`, with a line for each call of it that ended, if it is one that returns."""
    if inspect.isasyncgenfunction(outer):
        return outer

    async def call(request: Any, context: Context) -> Any:
        try:
            return await outer(request, context)
        finally:
            _log.debug("served", rpc=name)

    return call


def create_server(
    *,
    authenticator: Authenticator | None = None,
    deferred: Iterable[str] = (),
    callers: Callers | None = None,
    edge: Edge | None = None,
    clock: Clock | None = None,
) -> RpcServer:
    """A server without servicers yet.

    `authenticator` may be missing only where every method is public or internal, `callers` only where
    none is internal. `deferred` names methods (`signgate.signer.v1.SignerService/Sign`) whose handler
    authenticates and enforces the policy by itself; naming one that is not served fails at start.
    `edge` tells callers' addresses; without it they are the connections' own. `clock` tells the age of a
    sign-in.
    """
    return RpcServer(authenticator, frozenset(deferred), callers, edge or Edge(), clock or SystemClock())
