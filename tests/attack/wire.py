"""What attackers speak with: HTTP/2 frame by frame, and plain bytes for HTTP/1.1.

No well-behaved client library sends half a request and waits. Frames and header compression are those of
the library `h2`; what is sent, and when, is the attack's.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes

Headers = Sequence[tuple[str, str]]


@dataclass
class Tally:
    """What an attacker spent, and what it was told. `answers` counts by status or by how it ended."""

    connections: int = 0
    refused_connections: int = 0
    sent: int = 0
    requests: int = 0
    answers: Counter[str] = field(default_factory=Counter)

    def plain(self) -> dict[str, object]:
        """As JSON takes it."""
        return {
            "connections": self.connections,
            "refused_connections": self.refused_connections,
            "sent": self.sent,
            "requests": self.requests,
            "answers": dict(self.answers.most_common(12)),
        }


@dataclass(frozen=True)
class Door:
    """The edge, as an attacker sees it."""

    host: str
    port: int
    tally: Tally

    async def dial(
        self, source: str, seconds: float = 5.0
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection from that loopback address. Raises `OSError` or `TimeoutError`."""
        try:
            async with asyncio.timeout(seconds):
                pair = await asyncio.open_connection(self.host, self.port, local_addr=(source, 0))
        except (OSError, TimeoutError):
            self.tally.refused_connections += 1
            raise
        self.tally.connections += 1
        return pair


class Http2:
    """One connection. `window`: what the peer may send on a stream before it must wait."""

    def __init__(
        self, door: Door, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, window: int
    ) -> None:
        self._door = door
        self._reader = reader
        self._writer = writer
        self._window = window
        self.h2 = H2Connection(
            H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False)
        )
        self.open = True
        self.ended = asyncio.Event()
        self._met = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def dial(cls, door: Door, source: str, *, window: int = 65_535) -> Self:
        """A connection whose peer has said what it allows. Raises `OSError` or `TimeoutError`."""
        self = cls(door, *await door.dial(source), window=window)
        self.h2.local_settings = type(self.h2.local_settings)(
            client=True,
            initial_values={SettingCodes.INITIAL_WINDOW_SIZE: window, SettingCodes.ENABLE_PUSH: 0},
        )
        self.h2.initiate_connection()
        await self.flush()
        self._task = asyncio.create_task(self._read())
        try:
            async with asyncio.timeout(5.0):
                await self._met.wait()
        except TimeoutError:
            await self.close()
            raise
        return self

    @property
    def free(self) -> int:
        """How many more streams the peer allows at once."""
        return int(self.h2.remote_settings.max_concurrent_streams) - self.h2.open_outbound_streams

    def start(self, headers: Headers, *, end: bool = False) -> int:
        """HEADERS of a new stream; leaves with the next `flush`."""
        number = self.h2.get_next_available_stream_id()
        self.h2.send_headers(number, list(headers), end_stream=end)
        self._door.tally.requests += 1
        return number

    def data(self, stream: int, body: bytes, *, end: bool = False) -> bool:
        """DATA, as far as flow control has room for it; False where it has none, or the stream is over."""
        try:
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            if len(body) > room:
                return False
            self.h2.send_data(stream, body, end_stream=end)
        except ProtocolError:
            return False
        return True

    def reset(self, stream: int) -> None:
        """RST_STREAM, if the stream is still open."""
        with suppress(ProtocolError):
            self.h2.reset_stream(stream)

    async def flush(self) -> None:
        """Send what waits. Raises `ConnectionError` once the peer has closed."""
        await self.raw(self.h2.data_to_send())

    async def raw(self, data: bytes) -> None:
        """Bytes as they are."""
        if not self.open:
            raise ConnectionError("closed by the peer")
        self._writer.write(data)
        self._door.tally.sent += len(data)
        await self._writer.drain()

    async def close(self) -> None:
        """Give it up at once."""
        if self._task is not None:
            self._task.cancel()
        self._writer.transport.abort()

    async def _read(self) -> None:
        answers = self._door.tally.answers
        try:
            while data := await self._reader.read(65_536):
                for event in self.h2.receive_data(data):
                    self._count(event, answers)
                if out := self.h2.data_to_send():
                    await self.raw(out)
            answers["connection closed"] += 1
        except (OSError, ProtocolError):
            answers["connection lost"] += 1
        finally:
            self.open = False
            self.ended.set()
            self._met.set()

    def _count(self, event: object, answers: Counter[str]) -> None:
        if isinstance(event, RemoteSettingsChanged):
            self._met.set()
        elif isinstance(event, (ResponseReceived, TrailersReceived)):
            answers[_status(event.headers)] += 1
        elif isinstance(event, StreamReset):
            answers["stream reset"] += 1
        elif isinstance(event, ConnectionTerminated):
            answers["goaway"] += 1
        elif isinstance(event, DataReceived) and self._window and event.flow_controlled_length:
            with suppress(ProtocolError):
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)


def _status(headers: Iterable[tuple[bytes, bytes]]) -> str:
    found = {bytes(name): bytes(value) for name, value in headers}
    if b"grpc-status" in found:
        return f"grpc {found[b'grpc-status'].decode()}"
    return f"http {found.get(b':status', b'?').decode()}"


class Http1:
    """One HTTP/1.1 connection, of which the attack writes the bytes."""

    def __init__(self, door: Door, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._door = door
        self.reader = reader
        self._writer = writer
        self.open = True

    @classmethod
    async def dial(cls, door: Door, source: str) -> Self:
        """Raises `OSError` or `TimeoutError`."""
        return cls(door, *await door.dial(source))

    async def send(self, data: bytes) -> None:
        """Raises `ConnectionError` once the peer has closed."""
        if self.reader.at_eof():
            self.open = False
            raise ConnectionError("closed by the peer")
        self._writer.write(data)
        self._door.tally.sent += len(data)
        await self._writer.drain()

    async def status(self) -> str:
        """Wait for an answer's status line; "closed" where there is none."""
        try:
            line = await self.reader.readline()
        except OSError:
            line = b""
        parts = line.split()
        found = f"http {parts[1].decode()}" if len(parts) > 1 else "closed"
        self._door.tally.answers[found] += 1
        return found

    async def close(self) -> None:
        """Give it up at once."""
        self._writer.transport.abort()
