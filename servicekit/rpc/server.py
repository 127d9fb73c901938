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

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from functools import partial
from time import monotonic, perf_counter
from typing import Any, Final, Protocol, cast

import grpc
from grpc.aio import AbortError, ServicerContext
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from servicekit import log, tracing
from servicekit.context import REQUEST_ID_HEADER, CallContext, Locate, current, enter
from servicekit.edge import Edge
from servicekit.errors import Internal, SigngateError
from servicekit.principal import Principal
from servicekit.rpc.bounds import MAX_MESSAGE, Parse, Read, readers
from servicekit.rpc.callers import Callers, callers_of
from servicekit.rpc.limits import error_metadata
from servicekit.rpc.policy import OPEN, enforce, policies
from servicekit.rpc.status import CODES, DETAILS_KEY, to_status
from servicekit.rpc.tracing import served, served_stream
from servicekit.telemetry import IN_FLIGHT, RPC_DURATION, Series
from signgate.common.v1.policy_pb2 import ACCESS_INTERNAL, Policy

LIVENESS: Final = "liveness"
"""The health service's name for "this process runs its loop"; "" is readiness."""

ACCEPTING: Final = "accepting"
"""The health service's name for "not told to stop"; peers' channels watch it, and leave in time."""

# Details travel in a trailer, and HTTP/2 peers commonly take 8 KiB of those.
_max_details: Final = 5_500
_abort_timeout: Final = 5.0
"""How long a call may wait, in seconds, for a client that does not read to take its error."""

SERVER_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", MAX_MESSAGE),
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

Metadata = Iterable[tuple[str, str | bytes]]
Context = ServicerContext[Any, Any]
Behaviour = Callable[[Any, Context], Awaitable[Any]]
StreamBehaviour = Callable[[Any, Context], AsyncIterator[Any]]
Prove = Callable[[Metadata], object]
"""Raises unless the calling service may call."""

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
    ) -> None:
        self._authenticator = authenticator
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
        policy, reader = policies(service_name), readers(service_name)
        wrapped = {
            name: self._wrap(f"{service_name}/{name}", handler, policy[name], reader[name])
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
        policy: Policy,
        reader: Callable[[Parse], Read],
    ) -> grpc.RpcMethodHandler[Any, Any]:
        self._unknown_deferred.discard(name)
        authenticator = None
        if policy.access not in OPEN and name not in self._deferred:
            authenticator = self._authenticator
            if authenticator is None:
                raise ValueError(f"{name} asks for a credential, but the server has no authenticator")
        read = reader(cast("Parse", handler.request_deserializer))
        prove = None
        if policy.access == ACCESS_INTERNAL:
            if self._callers is None:
                raise ValueError(f"{name} is internal, but the server cannot identify the calling service")
            prove = partial(self._callers.require, allowed=callers_of(policy))
        # One request is read inside the call, so that an error leaves as any other; a stream's are read
        # where its handler asks for the next.
        calls = _Calls(name, self._edge, prove, None if handler.request_streaming else read)
        shape = (bool(handler.request_streaming), bool(handler.response_streaming))
        make = _makers[shape]
        behaviour = (
            handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        )
        if inspect.isasyncgenfunction(behaviour):
            stream: StreamBehaviour = behaviour
            if authenticator is not None:
                stream = _authorised_stream(stream, authenticator, policy)
            outer: Any = calls.generator(served_stream(name, stream) if tracing.enabled() else stream)
        elif inspect.iscoroutinefunction(behaviour):
            inner: Behaviour = behaviour
            if authenticator is not None:
                inner = _authorised(inner, authenticator, policy)
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


class _Calls:
    """What is the same for all calls of one method."""

    def __init__(self, name: str, edge: Edge, prove: Prove | None, read: Read | None) -> None:
        self._name = name
        self._locate = edge.address
        self._prove = prove
        self._read = read
        self._ok = RPC_DURATION.series(name, "OK")
        self._logged: dict[str, float] = {}

    def coroutine(self, behaviour: Behaviour) -> Behaviour:
        """Wrap a handler that returns one response (or writes its stream to the context)."""
        ok, locate, prove, read = self._ok, self._locate, self._prove, self._read

        async def call(request: Any, context: Context) -> Any:
            started = perf_counter()
            IN_FLIGHT.value += 1
            here = _begin(context, locate)
            series = ok
            try:
                if prove is not None:
                    prove(here.metadata)
                if read is not None:
                    request = read(request)
                return await behaviour(request, context)
            except BaseException as error:
                series = self._series(error, context)
                await self._fail(error, here, context)
                raise
            finally:
                IN_FLIGHT.value -= 1
                series.observe(perf_counter() - started)

        return call

    def generator(self, behaviour: StreamBehaviour) -> StreamBehaviour:
        """Wrap a handler that yields its responses. Closing the stream closes the handler."""
        ok, locate, prove, read = self._ok, self._locate, self._prove, self._read

        async def call(request: Any, context: Context) -> AsyncIterator[Any]:
            started = perf_counter()
            IN_FLIGHT.value += 1
            here = _begin(context, locate)
            series = ok
            responses: Any = None
            try:
                if prove is not None:
                    prove(here.metadata)
                responses = behaviour(request if read is None else read(request), context)
                async for response in responses:
                    yield response
            except BaseException as error:
                series = self._series(error, context)
                await self._fail(error, here, context)
                raise
            finally:
                IN_FLIGHT.value -= 1
                series.observe(perf_counter() - started)
                if responses is not None:
                    await responses.aclose()

        return call

    def _series(self, error: BaseException, context: Context) -> Series:
        if isinstance(error, SigngateError):
            code = error.status
        elif isinstance(error, AbortError):
            code = _code_name(context)
        elif isinstance(error, (asyncio.CancelledError, GeneratorExit)):
            code = "CANCELLED"
        else:
            code = "INTERNAL"
        return RPC_DURATION.series(self._name, code)

    async def _fail(self, error: BaseException, here: CallContext, context: Context) -> None:
        """End the call with the error's status (by raising), or return when it ends itself."""
        if isinstance(error, SigngateError):
            known = error
            if error.__cause__ is not None and self._may_log(known.reason):
                _log.warning("call failed", rpc=self._name, reason=known.reason, cause=repr(error.__cause__))
        elif isinstance(error, Exception) and not isinstance(error, AbortError):
            known = Internal()
            _log.error("unexpected failure", rpc=self._name, exc_info=error)
        else:
            return
        status = to_status(known, here.request_id)
        while len(packed := status.SerializeToString()) > _max_details and status.details:
            # Reason first, everything else as far as it fits.
            del status.details[-1]
        trailing = (*_trailing(context), *error_metadata(known), (DETAILS_KEY, packed))
        try:
            async with asyncio.timeout(_abort_timeout):
                await context.abort(CODES[known.status], known.message, trailing)
        except TimeoutError:
            # The status waits behind messages that the client does not read; it is sent when it does.
            raise AbortError(known.reason) from None

    def _may_log(self, reason: str) -> bool:
        """Once a second for each reason: an outage must not turn into a flood of equal lines."""
        now = monotonic()
        if now - self._logged.get(reason, -1.0) < 1.0:
            return False
        self._logged[reason] = now
        return True


def _authorised(behaviour: Behaviour, authenticator: Authenticator, policy: Policy) -> Behaviour:
    async def call(request: Any, context: Context) -> Any:
        await _authorise(authenticator, policy)
        return await behaviour(request, context)

    return call


def _authorised_stream(
    behaviour: StreamBehaviour, authenticator: Authenticator, policy: Policy
) -> StreamBehaviour:
    async def call(request: Any, context: Context) -> AsyncIterator[Any]:
        await _authorise(authenticator, policy)
        async for response in behaviour(request, context):
            yield response

    return call


async def _authorise(authenticator: Authenticator, policy: Policy) -> None:
    here = current()
    assert here is not None  # noqa: S101  # `_begin` has made it
    here.principal = await authenticator.authenticate(here.metadata)
    enforce(policy, here.principal)


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


def _begin(context: Context, locate: Locate) -> CallContext:
    metadata = cast("Metadata", context.invocation_metadata())
    request_id = None
    for key, value in metadata:
        if key == REQUEST_ID_HEADER:
            request_id = value
            break
    left = cast("float | None", context.time_remaining())
    deadline = None if left is None else monotonic() + left
    here = CallContext(cast("str | None", request_id), deadline, metadata, locate, context.peer)
    enter(here)
    return here


def _trailing(context: Context) -> tuple[tuple[str, str | bytes], ...]:
    """Trailing metadata set so far, less what an error states itself."""
    given = cast("Any", context.trailing_metadata()) or ()
    stated = ("ratelimit-", "x-ratelimit-", "retry-after", DETAILS_KEY)
    return tuple((key, value) for key, value in given if not key.startswith(stated))


def _code_name(context: Context) -> str:
    code: Any = context.code()
    names = {member.value[0]: member.name for member in grpc.StatusCode}
    return names.get(getattr(code, "value", (code,))[0], "UNKNOWN")


def create_server(
    *,
    authenticator: Authenticator | None = None,
    deferred: Iterable[str] = (),
    callers: Callers | None = None,
    edge: Edge | None = None,
) -> RpcServer:
    """A server without servicers yet.

    `authenticator` may be missing only where every method is public or internal, `callers` only where
    none is internal. `deferred` names methods (`signgate.signer.v1.SignerService/Sign`) whose handler
    authenticates and enforces the policy by itself; naming one that is not served fails at start.
    `edge` tells callers' addresses; without it they are the connections' own.
    """
    return RpcServer(authenticator, frozenset(deferred), callers, edge or Edge())
