"""A TCP proxy whose connections can be cut, refused, held and slowed while they are used.

It runs in a thread with an event loop of its own; its methods may be called from any other thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Self, TypeVar

T = TypeVar("T")
CHUNK = 65_536


class Proxy:
    """Listens on 127.0.0.1:`port` and passes everything on to 127.0.0.1:`upstream`."""

    def __init__(self, port: int, upstream: int) -> None:
        self.port = port
        self.upstream = upstream
        self.delay = 0.0
        """Seconds that each piece is held, in either direction."""
        self._open = asyncio.Event()
        self._open.set()
        self._refusing = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen. Raises `OSError` when the port is taken."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)

    async def cut(self) -> None:
        """Break every connection, and each new one, until `heal`."""
        self._refusing = True
        for writer in list(self._writers):
            writer.transport.abort()

    async def hold(self) -> None:
        """Let nothing through, and break nothing, until `heal`: a network that swallows."""
        self._open.clear()

    async def slow(self, seconds: float) -> None:
        """Hold each piece for so long, until `heal`."""
        self.delay = seconds

    async def heal(self) -> None:
        """As if nothing had been."""
        self._refusing = False
        self.delay = 0.0
        self._open.set()

    async def stop(self) -> None:
        """Break every connection and listen no more."""
        await self.cut()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if self._refusing:
                writer.transport.abort()
                return
            await self._open.wait()
            onward, outward = await asyncio.open_connection("127.0.0.1", self.upstream)
            self._writers.add(outward)
            try:
                await asyncio.gather(self._pass(reader, outward), self._pass(onward, writer))
            finally:
                self._writers.discard(outward)
                outward.transport.abort()
        except OSError:
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await reader.read(CHUNK):
                if not self._open.is_set():
                    await self._open.wait()
                if self.delay:
                    await asyncio.sleep(self.delay)
                if writer.is_closing():
                    break
                writer.write(piece)
                await writer.drain()
        # Half a connection is of no use to any protocol that runs here.
        writer.transport.abort()


async def _settle() -> None:
    """Let whatever still runs in this loop end, and transports that were aborted close."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.sleep(0)


class Network:
    """Proxies by name of the link, each link one or more of them. A context manager: they run inside it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="network", daemon=True)
        self.links: dict[str, list[Proxy]] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for name in self.links:
            self._each(name, Proxy.stop)
        self._run(_settle())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def link(self, name: str, port: int, upstream: int) -> Proxy:
        """One more proxy of a link, listening. Raises `OSError` when the port is taken."""
        proxy = Proxy(port, upstream)
        self._run(proxy.start())
        self.links.setdefault(name, []).append(proxy)
        return proxy

    def cut(self, name: str) -> None:
        """See `Proxy.cut`."""
        self._each(name, Proxy.cut)

    def hold(self, name: str) -> None:
        """See `Proxy.hold`."""
        self._each(name, Proxy.hold)

    def slow(self, name: str, seconds: float) -> None:
        """See `Proxy.slow`."""
        for proxy in self.links[name]:
            self._run(proxy.slow(seconds))

    def heal(self, name: str) -> None:
        """See `Proxy.heal`."""
        self._each(name, Proxy.heal)

    def _each(self, name: str, act: Any) -> None:
        for proxy in self.links[name]:
            self._run(act(proxy))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)
