"""A process from start to stop.

Start: what `compose` opens, in its order. Stop, on SIGTERM or SIGINT, is that order reversed:

    readiness off → lame duck → servers stop taking calls and drain → background tasks end →
    whatever was put on the stack is flushed and closed, the pools last

A second signal ends the process at once. Exit status: 0 after a signal, 1 when a dependency could
not be reached in time, when composing failed, or when a background task died: a process that has
lost a part of itself must be started again, not linger half alive.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

from servicekit import log, telemetry, tracing
from servicekit.config import EX_CONFIG, Address, ServiceSettings
from servicekit.foreign import told
from servicekit.tls import ServerFiles, grpc_credentials, http_context

if TYPE_CHECKING:
    from servicekit.http import HttpServer
    from servicekit.rpc.server import RpcServer

T = TypeVar("T")
Check = Callable[[], Awaitable[None]]

_first_wait: Final = 0.1
_longest_wait: Final = 2.0
_check_every: Final = 2.0
_ask_again: Final = 0.5
_check_timeout: Final = 2.0
_probe_timeout: Final = 2.0
_loop_look: Final = 0.5

_log = log.get("runner")


class StartupError(Exception):
    """A dependency did not come within the settings' `startup_timeout`."""


class Runtime:
    """What a service's `compose` builds itself on. See the module for the order of stopping."""

    def __init__(self, name: str, settings: ServiceSettings, stack: AsyncExitStack) -> None:
        self.name = name
        self.settings = settings
        self.stack = stack
        self.stopping = asyncio.Event()
        self.failed: BaseException | None = None
        self.grpc_address: Address | None = None
        self.http_address: Address | None = None
        self.ready = False
        self._checks: dict[str, Check] = {}
        self._servers: list[RpcServer] = []
        self._http: HttpServer | None = None
        self._stops: list[Callable[[], Awaitable[None]]] = []

    async def enter(self, manager: AbstractAsyncContextManager[T]) -> T:
        """Open something now and close it at its place in the order of stopping."""
        return await self.stack.enter_async_context(manager)

    async def connect(self, what: str, opener: Callable[[], AbstractAsyncContextManager[T]]) -> T:
        """As `enter`, for a dependency that may not be up yet: tries again until it is.

        `opener` makes a fresh context manager for each try. Raises `StartupError` when
        `startup_timeout` has passed, with a line in the log for each try until then.
        """
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self.settings.startup_timeout
        wait = _first_wait
        while True:
            try:
                return await self.enter(opener())
            except Exception as error:  # whatever it is, it may pass
                cause = told(error.__cause__ or error)
                if loop.time() + wait > give_up:
                    raise StartupError(f"{what} did not come up: {cause}") from error
                _log.warning("waiting for a dependency", what=what, cause=cause, again_in=round(wait, 2))
            await asyncio.sleep(wait)
            wait = min(wait * 2, _longest_wait)

    def background(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run a loop until the service stops, and cancel it at its place in the order of stopping.

        A loop that ends by an exception ends the process with status 1. One that returns is done.
        """
        task = asyncio.get_running_loop().create_task(work, name=name)

        def ended(done: asyncio.Task[None]) -> None:
            if not done.cancelled() and (error := done.exception()) is not None:
                _log.error("a background task died", task=name, exc_info=error)
                self.fail(error)

        async def end() -> None:
            # A library now and then swallows a cancellation that meets its own timeout: ask again.
            while not task.done():
                task.cancel()
                await asyncio.wait((task,), timeout=_ask_again)

        task.add_done_callback(ended)
        self.stack.push_async_callback(end)

    def fail(self, error: BaseException) -> None:
        """Begin to stop, and exit with status 1."""
        self.failed = self.failed or error
        self.stopping.set()

    def readiness(self, name: str, check: Check) -> None:
        """Add a condition of being ready: it must return within two seconds, every two seconds.

        Only what this process can't do any of its work without. A dependency whose loss it
        survives, or answers for with a clear error, is no such condition.
        """
        self._checks[name] = check

    async def serve(self, server: RpcServer, address: Address) -> None:
        """Start a gRPC server; at its place in the order of stopping it drains."""
        files = self._tls()
        port = server.listen(str(address), grpc_credentials(files) if files else None)
        self.grpc_address = Address(address.host, port)
        await server.start()
        self._servers.append(server)
        self._on_stop(partial(server.stop, self.settings.drain_grace))
        _log.info("serving gRPC", address=str(self.grpc_address))

    async def serve_http(self, app: Any, address: Address) -> None:
        """Start an ASGI app in this loop; at its place in the order of stopping it drains."""
        from servicekit.http import HttpServer  # noqa: PLC0415  # only some services have a web server

        files = self._tls()
        server = HttpServer(
            app, address, grace=self.settings.drain_grace, tls=http_context(files) if files else None
        )
        self.http_address = await server.start()
        self._http = server
        self._on_stop(server.stop)
        _log.info("serving HTTP", address=str(self.http_address))

    def _tls(self) -> ServerFiles | None:
        certificate, key = self.settings.tls_cert, self.settings.tls_key
        return None if certificate is None or key is None else ServerFiles(certificate, key)

    def _on_stop(self, stop: Callable[[], Awaitable[None]]) -> None:
        """All servers stop taking calls at one moment, at the first one's place in the order."""
        if not self._stops:
            self.stack.push_async_callback(self._stop_servers)
        self._stops.append(stop)

    async def _stop_servers(self) -> None:
        results = await asyncio.gather(*(stop() for stop in self._stops), return_exceptions=True)
        for failure in (result for result in results if isinstance(result, BaseException)):
            raise failure

    async def check(self) -> bool:
        """Run the conditions of readiness once and report the outcome by gRPC health."""
        ready = not self.stopping.is_set()
        for name, condition in self._checks.items():
            try:
                await asyncio.wait_for(condition(), _check_timeout)
            except Exception as error:  # noqa: BLE001  # any failure means not ready
                telemetry.READY.labels(name).set(0)
                _log.warning("not ready", check=name, cause=error.__cause__ or error)
                ready = False
            else:
                telemetry.READY.labels(name).set(1)
        self.ready = ready = ready and not self.stopping.is_set()
        for server in self._servers:
            await server.set_ready(ready=ready)
        if self._http is not None:
            self._http.set_ready(ready=ready)
        return ready

    async def watch_readiness(self) -> None:
        """Check for ever; `running` starts it when all is composed."""
        while True:
            await self.check()
            await asyncio.sleep(_check_every)

    async def watch_loop(self) -> None:
        """Observe for ever how late the event loop is; `running` starts it as well."""
        loop, series = asyncio.get_running_loop(), telemetry.LOOP_DELAY.series()
        while True:
            due = loop.time() + _loop_look
            await asyncio.sleep(_loop_look)
            series.observe(max(loop.time() - due, 0.0))

    async def withdraw(self) -> None:
        """Report not ready, and wait `lame_duck` seconds for that to be seen."""
        self.stopping.set()
        self.ready = False
        for server in self._servers:
            await server.withdraw()
        if self._http is not None:
            self._http.withdraw()
        if self.settings.lame_duck > 0:
            await asyncio.sleep(self.settings.lame_duck)


Compose = Callable[[Runtime], Awaitable[None]]


@asynccontextmanager
async def running(name: str, settings: ServiceSettings, compose: Compose) -> AsyncIterator[Runtime]:
    """A composed service, serving and ready inside the block, stopped in order at its end.

    The part of `run` that tests use as well: it touches no signals, no logging, no exit status.
    """
    async with AsyncExitStack() as stack:
        runtime = Runtime(name, settings, stack)
        await compose(runtime)
        runtime.background("readiness", runtime.watch_readiness())
        runtime.background("event loop", runtime.watch_loop())
        stack.push_async_callback(runtime.withdraw)
        await runtime.check()
        yield runtime


def run(name: str, settings: ServiceSettings, compose: Compose) -> NoReturn:
    """Run a service until a signal or a failure, then exit. For `__main__`."""
    log.configure(name, settings.log_level)
    log.catch_all()
    version = telemetry.package_version()
    telemetry.BUILD.labels(name, version).set(1)
    end_traces = _trace(name, version, settings.otlp_endpoint)
    with asyncio.Runner(loop_factory=loop_factory()) as loop:
        status = loop.run(_main(name, settings, compose))
    end_traces()
    sys.stdout.flush()
    raise SystemExit(status)


def _trace(name: str, version: str, endpoint: str) -> Callable[[], None]:
    """Begin to record spans, if there is somewhere to send them; returns what ends it."""
    if not endpoint:
        return lambda: None
    try:
        return tracing.configure(name, version, endpoint)
    except ImportError:
        _log.error("SIGNGATE_OTLP_ENDPOINT is set, but what it takes is not installed: signgate[trace]")
        raise SystemExit(EX_CONFIG) from None


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, unless `SIGNGATE_EVENT_LOOP=asyncio` in the environment says otherwise."""
    if os.environ.get("SIGNGATE_EVENT_LOOP") == "asyncio":
        return None
    import uvloop  # noqa: PLC0415  # not loaded where it is not wanted

    return uvloop.new_event_loop


def _spare_the_collector() -> None:
    """Have the cyclic collector run less often, and never again over what stays for the process' life.

    By default it looks after every 700 new containers, which is several times a request under load:
    a tenth of the signer's time. What requests leave behind is freed by reference counts anyway.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _runs(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the loop gets to what is due within two seconds; for other threads."""
    ran = threading.Event()
    try:
        loop.call_soon_threadsafe(ran.set)
    except RuntimeError:  # it is closed
        return False
    return ran.wait(_probe_timeout)


async def _main(name: str, settings: ServiceSettings, compose: Compose) -> int:
    main = asyncio.current_task()
    assert main is not None  # noqa: S101  # a coroutine always runs in a task
    stopped_by: list[str] = []
    runtime: Runtime | None = None

    def on_signal(number: signal.Signals) -> None:
        if stopped_by:
            _log.warning("second signal: ending at once", signal=number.name)
            sys.stdout.flush()
            os._exit(1)
        stopped_by.append(number.name)
        _log.info("stopping", signal=number.name)
        if runtime is None:
            main.cancel()  # still starting: give up where we are
        else:
            runtime.stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    metrics = None
    try:
        if settings.metrics_listen is not None:
            metrics = telemetry.MetricsServer(
                settings.metrics_listen,
                alive=partial(_runs, loop),
                ready=lambda: runtime is not None and runtime.ready,
            )
        async with running(name, settings, compose) as runtime:
            _spare_the_collector()
            _log.info("ready")
            await runtime.stopping.wait()
            _log.info("draining")
    except asyncio.CancelledError:
        if not stopped_by:
            raise
    except StartupError as error:
        _log.error("giving up", cause=str(error))  # the cause says all
        return 1
    except Exception:  # noqa: BLE001  # the last place where it can be logged
        _log.exception("the service failed")
        return 1
    finally:
        if metrics is not None:
            metrics.close()
    failed = runtime is not None and runtime.failed is not None
    _log.info("stopped", status=int(failed))
    return int(failed)
