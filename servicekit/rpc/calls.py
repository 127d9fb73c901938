"""What surrounds every call of a method, and what `server` wraps each handler in at registration.

Its context, the proof of the calling service, the contract's bounds, errors as `google.rpc.Status`, RED
metrics.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from time import monotonic, perf_counter
from typing import Any, Final, cast

import grpc
from grpc.aio import AbortError, ServicerContext

from servicekit import log
from servicekit.context import REQUEST_ID_HEADER, CallContext, Locate, enter
from servicekit.edge import Edge
from servicekit.errors import Internal, SigngateError
from servicekit.rpc.bounds import Read
from servicekit.rpc.limits import error_metadata
from servicekit.rpc.status import CODES, DETAILS_KEY, to_status
from servicekit.telemetry import IN_FLIGHT, RPC_DURATION, Series

Metadata = Iterable[tuple[str, str | bytes]]
Context = ServicerContext[Any, Any]
Behaviour = Callable[[Any, Context], Awaitable[Any]]
StreamBehaviour = Callable[[Any, Context], AsyncIterator[Any]]
Prove = Callable[[Metadata], object]
"""Raises unless the calling service may call."""

# Details travel in a trailer, and HTTP/2 peers commonly take 8 KiB of those.
_max_details: Final = 5_500
_abort_timeout: Final = 5.0
"""How long a call may wait, in seconds, for a client that does not read to take its error."""

_log = log.get("rpc")


class Calls:
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
                _log.warning("call failed", rpc=self._name, reason=known.reason, cause=error.__cause__)
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
