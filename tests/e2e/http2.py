"""HTTP/2 by hand: what no well-behaved client sends, such as calls that never end."""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 3, 4, 6, 8
INITIAL_WINDOW_SIZE = 4
END_STREAM, END_HEADERS, ACK = 1, 4, 1


@dataclass
class Connection:
    """One connection. Streams are opened and left open; nothing that comes back is waited for."""

    raw: socket.socket
    streams: int = 0
    refused: set[int] = field(default_factory=set)

    @classmethod
    def to(cls, address: tuple[str, int], source: str = "127.0.0.1", *, window: int = 65535) -> Self:
        """Connect from an address of this machine; each stream is sent `window` bytes and no more."""
        raw = socket.create_connection(address, timeout=10, source_address=(source, 0))
        raw.sendall(PREFACE + frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, window)))
        return cls(raw)

    def open(
        self,
        path: str,
        headers: Mapping[str, str],
        *,
        body: bytes = b"",
        end: bool = False,
        method: str = "POST",
    ) -> int:
        """Send a request's headers and part of its body; the stream's number."""
        fields = {":method": method, ":scheme": "http", ":path": path, ":authority": "edge"} | dict(headers)
        block = b"".join(literal(name, value) for name, value in fields.items())
        number = 2 * self.streams + 1
        self.streams += 1
        last = END_STREAM if end else 0
        sent = frame(HEADERS, END_HEADERS | (0 if body else last), number, block)
        self.raw.sendall(sent + (frame(DATA, last, number, body) if body else b""))
        return number

    def send(self, number: int, body: bytes, *, end: bool = False) -> None:
        """A piece of a request's body."""
        self.raw.sendall(frame(DATA, END_STREAM if end else 0, number, body))

    def received(self, seconds: float) -> list[tuple[int, int, bytes]]:
        """The frames that come within that time, as kind, stream and content; pings are answered."""
        self.raw.settimeout(seconds)
        found: list[tuple[int, int, bytes]] = []
        try:
            while True:
                head = self._exactly(9)
                content = self._exactly(int.from_bytes(head[:3]))
                kind, flags, number = head[3], head[4], int.from_bytes(head[5:])
                if kind in {SETTINGS, PING} and not flags & ACK:
                    self.raw.sendall(frame(kind, ACK, 0, content if kind == PING else b""))
                found.append((kind, number, content))
        except (TimeoutError, EOFError, ConnectionError):
            return found

    def close(self) -> None:
        """Drop it."""
        self.raw.close()

    def _exactly(self, count: int) -> bytes:
        received = b""
        while len(received) < count:
            more = self.raw.recv(count - len(received))
            if not more:
                raise EOFError
            received += more
        return received


def frame(kind: int, flags: int, number: int, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content))[1:] + bytes([kind, flags]) + struct.pack(">I", number) + content


def literal(name: str, value: str) -> bytes:
    """A header that no table knows."""
    return b"\0" + text(name) + text(value)


def text(value: str) -> bytes:
    raw = value.encode()
    if len(raw) < 127:
        return bytes([len(raw)]) + raw
    size, rest = b"\x7f", len(raw) - 127
    while rest > 127:
        size += bytes([rest & 127 | 128])
        rest >>= 7
    return size + bytes([rest]) + raw
