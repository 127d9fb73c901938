"""Requests to third-party servers: only to public addresses, and to the address that was checked.

A name is resolved once, all its addresses must be public, and the connection goes to one of them. So a name
that resolves to an internal address, or changes to one after the check, reaches nothing. Redirects are not
followed, proxies from the environment are not used, and answers are limited in bytes and in time.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore, Timer
from time import monotonic
from typing import Final
from urllib.parse import urlsplit

from servicekit.addresses import is_public, literal

_ok: Final = 200
_part: Final = 16 * 1024


class NoPublicAddressError(OSError):
    """The host has no address, or one that is special: private, this host's, a tunnel's."""


class FetchError(OSError):
    """The answer is not 200, too long, or took too long."""


def addresses(host: str, port: int, *, internal: bool = False) -> list[str]:
    """The addresses of a host, in the order to try them. Waits for name servers.

    Raises `NoPublicAddressError` unless all are public or `internal` ones are meant, `OSError` when there are
    none.
    """
    found = [str(one[4][0]) for one in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if not found or not (internal or all(map(is_public, found))):
        raise NoPublicAddressError("not a public address")
    return found


def refused_literal(host: str) -> bool:
    """True for a host that is an address, in any form, and not public. Does not resolve names."""
    try:
        address = literal(host)
    except ValueError:
        return True
    return address is not None and not is_public(address)


class Resolver:
    """Resolves third-party names in separate threads, so that slow name servers delay no other lookup.

    A lookup cannot be cancelled: an abandoned one occupies its thread until the system gives up. While all
    `threads` are busy, further lookups are refused at once.
    """

    def __init__(self, threads: int = 64) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="lookup")
        self._room = BoundedSemaphore(threads)

    async def addresses(self, host: str, port: int, *, internal: bool = False) -> list[str]:
        """As the function `addresses`. Raises `OSError` too when too many lookups are under way."""
        if not self._room.acquire(blocking=False):
            raise OSError("too many lookups are under way")

        def look() -> list[str]:
            try:
                return addresses(host, port, internal=internal)
            finally:
                self._room.release()

        try:
            future = self._threads.submit(look)
        except RuntimeError:
            self._room.release()
            raise OSError("the resolver is closed") from None
        wrapped = asyncio.wrap_future(future)
        # Of a lookup that was given up, no one asks for the outcome.
        wrapped.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(wrapped)

    def close(self) -> None:
        """Refuse new lookups; running ones end by themselves."""
        self._threads.shutdown(wait=False)


def fetch(
    url: str, *, internal: bool, seconds: float, most: int, context: ssl.SSLContext | None = None
) -> bytes:
    """The body of a GET. Blocks: call it in a thread. `context`: checks the server's certificate.

    Without `internal` the URL must be https, and its host's addresses public. Raises `OSError` (also for an
    answer that is not 200, is longer than `most` bytes or takes more than `seconds`), `HTTPException` of
    `http.client`, `ValueError` for an invalid URL.
    """
    parts = urlsplit(url)
    host, secure = parts.hostname or "", parts.scheme == "https"
    if not host or not (secure or (internal and parts.scheme == "http")):
        raise ValueError("not an allowed URL for a key set")
    port = parts.port or (443 if secure else 80)
    ends = monotonic() + seconds
    trust = (context or ssl.create_default_context()) if secure else None
    connection = _Pinned(host, port, internal=internal, trust=trust, seconds=seconds)
    # Time-outs of a socket bound each wait, not their sum: at the end this one ends whatever is under way.
    alarm = Timer(seconds, connection.cut)
    alarm.daemon = True
    alarm.start()
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", path, headers={"accept": "application/json", "user-agent": "signgate"})
        answer = connection.getresponse()
        if answer.status != _ok:
            raise FetchError(f"answered {answer.status}")
        body = _body(answer, most)
        if monotonic() >= ends:  # what was cut off may look like an end
            raise FetchError("the answer took too long")
        return body
    finally:
        alarm.cancel()
        connection.close()


def _body(answer: http.client.HTTPResponse, most: int) -> bytes:
    body = bytearray()
    while part := answer.read1(_part):
        body += part
        if len(body) > most:
            raise FetchError("the answer is too long")
    if answer.length:
        raise FetchError("the answer broke off")
    return bytes(body)


class _Pinned(http.client.HTTPConnection):
    """A connection to a checked address of the host; the certificate must be the host's."""

    def __init__(
        self, host: str, port: int, *, internal: bool, trust: ssl.SSLContext | None, seconds: float
    ) -> None:
        super().__init__(host, port, timeout=seconds)
        self._internal, self._trust = internal, trust

    def connect(self) -> None:
        """See `http.client.HTTPConnection.connect`."""
        failure: OSError | None = None
        for address in addresses(self.host, self.port, internal=self._internal):
            try:
                self.sock = socket.create_connection((address, self.port), self.timeout)
                break
            except OSError as error:
                failure = error
        else:
            raise failure or OSError("no address")
        if self._trust is not None:
            self.sock = self._trust.wrap_socket(self.sock, server_hostname=self.host)

    def cut(self) -> None:
        """Abort the running request, from another thread."""
        if self.sock is not None:
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)
