"""The engines that a deployment enables, made from its settings and started.

An engine that can't be configured or started is said so in the log, once and clearly, is listed as
not ready, and leaves the others to serve. Requests that go to it are refused before they are charged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from servicekit import log
from servicekit.clock import Clock
from servicekit.errors import SigngateError
from servicekit.keyset import KeySetFile
from services.signer.config import SignerSettings
from services.signer.engines.absent import AbsentEngine
from services.signer.engines.base import Engine
from services.signer.engines.native import NativeEngine, NativePolicy
from services.signer.engines.signing_keys import SigningKeys
from services.signer.engines.websdk import WebSdkEngine
from services.signer.metrics import ENGINE_READY
from services.signer.registry import Engines

_log = log.get("engines")


def make_engines(settings: SignerSettings, clock: Clock) -> Engines:
    """The enabled engines, not started. Raises `ValueError` for a name that no engine has."""
    native = NativeEngine(
        SigningKeys(KeySetFile(settings.signing_keys_file, clock).current),
        clock,
        NativePolicy(default_ttl=settings.native_ttl),
    )
    makers: dict[str, Callable[[], Engine]] = {
        native.name: lambda: native,
        WebSdkEngine.name: lambda: WebSdkEngine(settings.websdk(), clock),
        "upstream": lambda: _upstream(settings, clock),
    }
    if unknown := [name for name in settings.engines if name not in makers]:
        raise ValueError(f"no such engine: {', '.join(unknown)}; there are: {', '.join(makers)}")
    enabled = [_made(name, makers[name], clock) for name in settings.engines]
    return Engines(enabled, default=settings.default_engine, native=native)


async def start_engines(engines: Engines) -> None:
    """Start all side by side, and try each one's canary."""
    await asyncio.gather(*(_start(engine) for engine in engines))


async def stop_engines(engines: Engines) -> None:
    """Stop all side by side."""
    await asyncio.gather(*(engine.stop() for engine in engines))


async def watch_engines(engines: Engines, interval: float) -> None:
    """Try every engine's canary, for ever. A slow one doesn't keep the others from theirs."""
    while True:
        await asyncio.sleep(interval)
        await asyncio.gather(*(_canary(engine) for engine in engines))


def _upstream(settings: SignerSettings, clock: Clock) -> Engine:
    from services.signer.engines.upstream.engine import UpstreamEngine  # noqa: PLC0415  # see its package

    return UpstreamEngine(settings.upstream(), clock)


def _made(name: str, make: Callable[[], Engine], clock: Clock) -> Engine:
    try:
        return make()
    except ValueError as error:
        return AbsentEngine(name, str(error), clock)


async def _start(engine: Engine) -> None:
    try:
        await engine.start()
    except SigngateError as error:
        _log.error("an engine does not start; the others serve on", engine=engine.name, cause=error.message)
    await _canary(engine)


async def _canary(engine: Engine) -> None:
    status = await engine.canary()
    ENGINE_READY.labels(engine.name).set(int(status.ready))
    if not status.ready:
        _log.warning("an engine is not ready", engine=engine.name, cause=status.not_ready_reason)
