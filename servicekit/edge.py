"""The caller's address: taken from the edge if it authenticates itself, otherwise from the connection.

The edge sends `x-signgate-edge` with every request, and removes the header from callers' requests. Its value
is a secret that the edge and the services share (`SIGNGATE_EDGE_SECRET`: a file with one secret on each line;
several are valid during a rotation, and a change takes effect within a second).

With a valid proof the address is the one that the edge reports. Without it, `x-envoy-external-address` and
`x-forwarded-for` are ignored, and the address is the peer address of the connection: a client that calls a
service directly is limited, and admitted by `allowed_cidrs`, by its own address.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from servicekit.clock import Clock
from servicekit.watched import WatchedFile

HEADER: Final = "x-signgate-edge"
SHORTEST: Final = 32
"""Characters of a secret."""

Metadata = Iterable[tuple[str, str | bytes]]


def secrets(content: bytes) -> tuple[bytes, ...]:
    """The secrets in a file, one a line. Raises `ValueError` when there is none, or a short one."""
    lines = tuple(line.strip() for line in content.splitlines() if line.strip())
    if not lines or any(len(line) < SHORTEST for line in lines):
        raise ValueError(f"must have one secret on each line, each of {SHORTEST} characters or more")
    return lines


_longest = 64
"""Characters of an address, its zone included."""


class Edge:
    """Determines callers' addresses. Without a file no edge is trusted. Raises `FileError` for a bad file."""

    def __init__(self, file: Path | None = None, clock: Clock | None = None) -> None:
        self._secrets: Callable[[], tuple[bytes, ...]] = tuple
        if file is not None:
            self._secrets = WatchedFile(secrets, file, clock=clock).current

    def address(self, metadata: Metadata, peer: Callable[[], str]) -> str:
        """The caller's address, "" when the connection has none (a Unix socket).

        `metadata`: the call's, names in lower case. `peer`: returns the connection's peer address, as gRPC
        writes it or as a bare address.
        """
        proof: str | bytes | None = None
        proofs = 0
        external = forwarded = ""
        for name, value in metadata:
            if name == HEADER:
                proof, proofs = value, proofs + 1
            elif name == "x-envoy-external-address":
                external = str(value)
            elif name == "x-forwarded-for":
                # The edge appends the address that it saw: entries before it come from the caller.
                forwarded = str(value).rpartition(",")[2].strip()
        if proofs == 1 and proof is not None and (external or forwarded) and self.proves(proof):
            return plain(external or forwarded)
        return plain(_host(peer()))

    def proves(self, value: str | bytes) -> bool:
        """Whether this is one of the secrets. Takes the same time wherever it differs."""
        given = value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")
        # All of them are compared, so that the time does not tell which one it was.
        return sum(hmac.compare_digest(given, secret) for secret in self._secrets()) > 0


def plain(address: str) -> str:
    """An address in its usual form, an IPv4-mapped one as IPv4; "" if it is not an address."""
    return _plain(address) if len(address) <= _longest else ""


@lru_cache(maxsize=4096)
def _plain(address: str) -> str:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return ""
    mapped = getattr(found, "ipv4_mapped", None)
    return str(mapped or found)


def _host(peer: str) -> str:
    """The host of `ipv4:127.0.0.1:80` or `ipv6:%5B::1%5D:80`; a bare address as it is."""
    kind, colon, rest = peer.partition(":")
    if not colon or kind not in ("ipv4", "ipv6"):
        return peer
    return unquote(rest).rpartition(":")[0].strip("[]")
