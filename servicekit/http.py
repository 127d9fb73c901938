"""An ASGI app served by uvicorn inside a service's own event loop, and what its handlers share.

`runner` starts and drains it. Beside the app it answers `/healthz` with 200 while the service is ready, and
503 while it is not, for whoever balances load; no edge leads there.

uvicorn's own handling of signals, logging and lifespan is left out: the process has one order of
starting and stopping, and it is the runner's.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from time import perf_counter
from typing import Any, Final, TypeVar

import uvicorn
from starlette.requests import ClientDisconnect

from servicekit import tracing
from servicekit.config import Address
from servicekit.context import REQUEST_ID_HEADER, CallContext, enter
from servicekit.edge import Edge
from servicekit.headers import SERVICE
from servicekit.telemetry import IN_FLIGHT, RPC_DURATION

T = TypeVar("T")
Handler = Callable[[Any], Awaitable[Any]]
"""From a Starlette request to a response."""
HEALTH: Final = "/healthz"


def entered(request: Any, edge: Edge) -> CallContext:
    """The context of a request, made the current one: its request id and its caller's address."""
    peer = request.client
    here = CallContext(
        request.headers.get(REQUEST_ID_HEADER),
        None,
        request.headers.items(),
        edge.address,
        lambda: "" if peer is None else peer.host,
    )
    enter(here)
    return here


def observed(name: str, handler: Handler) -> Handler:
    """`handler` with its requests counted and timed as calls of `name`, by the answers' status."""
    if tracing.enabled():
        handler = _traced(name, handler)

    async def observe(request: Any) -> Any:
        began = perf_counter()
        IN_FLIGHT.value += 1
        status = 500
        try:
            response = await handler(request)
            status = response.status_code
            return response
        finally:
            IN_FLIGHT.value -= 1
            RPC_DURATION.series(name, str(status)).observe(perf_counter() - began)

    return observe


def _traced(name: str, handler: Handler) -> Handler:
    """`handler`, going on with its callers' traces."""

    async def traced(request: Any) -> Any:
        header = request.headers.get(tracing.HEADER, "")
        with tracing.child_of(header, name, "SERVER", {"http.request.method": request.method}) as here:
            response = await handler(request)
            if here is not None:
                here.span.set_attribute("http.response.status_code", response.status_code)
            return response

    return traced


async def unless_gone(request: Any, work: Awaitable[T]) -> T:
    """The result of `work`, unless the client goes away first: then it is cancelled.

    The request's body must have been read. Raises `ClientDisconnect`.
    """
    doing = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(request.receive())  # after the whole body: only a disconnect comes
    try:
        await asyncio.wait((doing, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise ClientDisconnect
        return await doing
    finally:
        for task in (doing, leaving):
            task.cancel()


class _Door:
    """What stands before the app: tells of readiness and, in a lame duck, ends connections politely.

    A connection that is merely closed may meet a request on its way, which then has no answer. One whose
    last answer says so is used no more.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self.ready = False
        self.withdrawn = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == HEALTH:
            status = 200 if self.ready and not self.withdrawn else 503
            headers = [(b"content-length", b"0")]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body"})
            return
        await self._app(scope, receive, self._last(send) if self.withdrawn else send)

    @staticmethod
    def _last(send: Any) -> Any:
        async def send_last(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = message | {"headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)

        return send_last


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServer:
    """One listening HTTP server. `grace` bounds, in seconds, how long `stop` waits for requests.

    With `tls` it speaks HTTPS alone.
    """

    def __init__(
        self, app: Any, address: Address, *, grace: float, tls: ssl.SSLContext | None = None
    ) -> None:
        self._address = address
        self._door = _Door(app)
        config = uvicorn.Config(
            self._door,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=max(int(grace), 1),
            http="h11",  # the other one that it knows has no limit for headers
            h11_max_incomplete_event_size=SERVICE,
            ws="none",
            # Which addresses to believe is `servicekit.edge`'s to say.
            proxy_headers=False,
        )
        config.load()
        config.ssl = tls
        self._server = _Server(config)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> Address:
        """Listen and serve; returns the address with its real port. Raises `OSError` if it is taken."""
        family = socket.AF_INET6 if ":" in self._address.host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(self._address)
        except OSError:
            listener.close()
            raise
        port = int(listener.getsockname()[1])
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]), name="http")
        while not self._server.started:
            if self._task.done():
                await self._task
                raise RuntimeError("the HTTP server ended while starting")
            await asyncio.sleep(0.01)
        return Address(self._address.host, port)

    def set_ready(self, *, ready: bool) -> None:
        """What `/healthz` says."""
        self._door.ready = ready

    def withdraw(self) -> None:
        """Report not ready, and let each connection's next answer be its last."""
        self._door.withdrawn = True

    async def stop(self) -> None:
        """Take no new request, wait for those in flight, then close."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task
