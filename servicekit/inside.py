"""What a service needs to talk to other services: its identity, its allowed callers, and the edge's proof.

inside = Inside.of("quota", settings, clock)
keys = create_channel(settings.keys_addr, peer=inside.peer("keys"))
server = create_server(authenticator=…, callers=inside.callers, edge=inside.edge)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from servicekit.clock import Clock
from servicekit.config import ServiceSettings
from servicekit.edge import Edge
from servicekit.identity import Identity, Peer
from servicekit.rpc.callers import Callers


class InsideSettings(ServiceSettings):
    """The files that identify the services and the edge. All may be replaced at any time.

    `service_key`: this service's private keys, as `python -m servicekit.keyset` creates them.
    `service_keys`: every service's public keys, as `python -m deploy.secrets` creates them.
    `edge_secret`: the secrets that the edge may send, one on each line.
    """

    service_key: Path
    service_keys: Path
    edge_secret: Path


@dataclass(frozen=True, slots=True)
class Inside:
    """Made once, by a service's composition root or by a tool that runs as that service."""

    identity: Identity
    callers: Callers
    edge: Edge
    ca: Path | None

    @classmethod
    def of(cls, name: str, settings: InsideSettings, clock: Clock | None = None) -> Self:
        """For the service `name`. Raises `KeySetError` or `FileError` for files that are not usable."""
        return cls(
            identity=Identity(name, settings.service_key, clock),
            callers=Callers(name, settings.service_keys, clock),
            edge=Edge(settings.edge_secret, clock),
            ca=settings.tls_ca,
        )

    def peer(self, name: str) -> Peer:
        """Another service, for `create_channel`."""
        return Peer(name, self.identity, self.ca)
