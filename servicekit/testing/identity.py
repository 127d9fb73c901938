"""Identities to throw away: keys of every service, the public ones of all, and an edge's secret.

identities = shared()
settings = QuotaSettings(…, **identities.settings("quota"))
channel = create_channel(address, peer=identities.peer("signer", "quota"))
"""

from __future__ import annotations

import secrets
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any, Final

from servicekit import edge, keyset
from servicekit.clock import Clock
from servicekit.identity import ALGORITHM, Identity, Peer, published
from servicekit.keyset import KeySet
from servicekit.rpc.callers import Callers

SERVICES: Final = ("auth", "keys", "quota", "signer", "logger")


class Identities:
    """Files of all services' identities, made in `folder`."""

    def __init__(self, folder: Path, clock: Clock | None = None) -> None:
        self._folder = folder
        self._clock = clock
        self.secret = secrets.token_urlsafe(32)
        now = time.time() if clock is None else clock.time()
        for name in SERVICES:
            keyset.save(self.key(name), KeySet(()).rotated(ALGORITHM, now).keys)
        self.publish()
        (folder / "edge_secret").write_text(f"{self.secret}\n", encoding="utf-8")

    @property
    def public(self) -> Path:
        """The file of everybody's public keys."""
        return self._folder / "service_keys.json"

    def key(self, name: str) -> Path:
        """The file of a service's private keys."""
        return self._folder / f"service_key_{name}"

    def publish(self) -> None:
        """Write the public keys of now, whole."""
        now = time.time() if self._clock is None else self._clock.time()
        partial = self.public.with_suffix(".partial")
        partial.write_text(published({name: keyset.load(self.key(name)) for name in SERVICES}, now), "utf-8")
        partial.replace(self.public)

    def settings(self, name: str) -> dict[str, Any]:
        """The settings of a service of this name; see `servicekit.inside`."""
        return {
            "service_key": self.key(name),
            "service_keys": self.public,
            "edge_secret": self._folder / "edge_secret",
        }

    def identity(self, name: str) -> Identity:
        """What that service calls as."""
        return Identity(name, self.key(name), self._clock)

    def peer(self, caller: str, called: str) -> Peer:
        """The service `called`, for channels of the service `caller`."""
        return Peer(called, self.identity(caller))

    def callers(self, name: str) -> Callers:
        """What the service `name` knows others by."""
        return Callers(name, self.public, self._clock)

    def edge(self) -> edge.Edge:
        """What services know the edge by."""
        return edge.Edge(self._folder / "edge_secret", self._clock)

    def from_edge(self, address: str) -> tuple[tuple[str, str], ...]:
        """The metadata of a call that came through the edge from this address."""
        return ((edge.HEADER, self.secret), ("x-forwarded-for", address))


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="signgate-identities-")  # ends with the process


@cache
def shared() -> Identities:
    """One set for all tests of a process, which do not change it."""
    return Identities(Path(_folder().name))
