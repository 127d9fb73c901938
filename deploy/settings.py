"""Reads settings.toml: the services, their ports, settings and secrets, whatever they run on."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

SOURCE = Path(__file__).with_name("settings.toml")
INSTANCE_STEP = 10
"""How much higher each further instance of a service listens than the one before, on one machine."""

MAIL_FROM = "Signgate <no-reply@signgate.example>"
"""Who mails are from until an operator says so."""


@dataclass(frozen=True)
class Secret:
    """A setting whose value is a file; the service gets the path, as `<NAME>_FILE`."""

    name: str


Value = str | Secret


@dataclass(frozen=True)
class Service:
    """One service of the table. `ports` has `grpc` and `metrics`, and `http` if it has an HTTP face.

    `public` names the gRPC services that the edge routes to it, `streaming` those of their methods that
    may take long, `http_paths` the paths of its HTTP face (each with all below it).
    """

    name: str
    ports: Mapping[str, int]
    settings: Mapping[str, Value]
    public: tuple[str, ...]
    streaming: tuple[str, ...] = ()
    http_paths: tuple[str, ...] = ()
    database_role: str | None = None

    @property
    def module(self) -> str:
        """What `python -m` runs."""
        return f"services.{self.name}"

    def environment(self, names: Mapping[str, str], secrets: Path) -> dict[str, str]:
        """The service's environment, with {names} filled in and secrets as files in `secrets`.

        Raises `KeyError` for a name that is not given.
        """
        filled = {}
        for name, value in self.settings.items():
            if isinstance(value, Secret):
                filled[f"{name}_FILE"] = str(secrets / value.name)
            else:
                filled[name] = value.format_map(names)
        return filled


def tls_environment(service: str, secrets: Path) -> dict[str, str]:
    """What turns TLS on for a service whose certificates `deploy.secrets` has made in `secrets`."""
    return {
        "SIGNGATE_TLS_CERT": str(secrets / f"tls_{service}.pem"),
        "SIGNGATE_TLS_KEY": str(secrets / f"tls_{service}.key"),
        "SIGNGATE_TLS_CA": str(secrets / "tls_ca.pem"),
    }


@dataclass(frozen=True)
class Tracing:
    """Where spans go, as host:port ("": nowhere), and how many of a hundred requests are traced."""

    endpoint: str
    percent: float


@dataclass(frozen=True)
class EdgeLimits:
    """What callers may hold of the edge at the same time; sizes are in bytes.

    Those by address hold for one IPv4 address, or 64 bits of an IPv6 one, in each worker of Envoy.
    """

    heap: int
    connections: int
    connections_per_address: int
    requests_per_address: int
    files_per_address: int
    accounts_per_address: int
    streams_per_connection: int
    streams_opened_at_once: int
    streams_opened_per_second: int
    request_seconds: int


@dataclass(frozen=True)
class Table:
    """All of settings.toml. `ports` are those of what is not a service: edge, postgres, redis.

    `container_ports` are the same in containers.
    """

    database: str
    ports: Mapping[str, int]
    container_ports: Mapping[str, int]
    services: Mapping[str, Service]
    tracing: Tracing
    edge: EdgeLimits
    security_contact: str

    def secrets(self) -> set[str]:
        """Names of every secret that some service is given."""
        values = (value for service in self.services.values() for value in service.settings.values())
        return {value.name for value in values if isinstance(value, Secret)}

    def database_roles(self) -> dict[str, str]:
        """Login role to the name of the secret that holds its connection string."""
        dsns = {
            s.database_role: s.settings["SIGNGATE_POSTGRES_DSN"]
            for s in self.services.values()
            if s.database_role
        }
        return {role: dsn.name for role, dsn in dsns.items() if isinstance(dsn, Secret)}


@cache
def table() -> Table:
    """The table as committed."""
    raw = tomllib.loads(SOURCE.read_text(encoding="utf-8"))
    common = dict(_values(raw["common"]))
    services = {
        name: Service(
            name=name,
            ports=MappingProxyType(entry["ports"]),
            settings=MappingProxyType(common | dict(_values(entry["settings"]))),
            public=tuple(entry["public"]),
            streaming=tuple(entry.get("streaming", ())),
            http_paths=tuple(entry.get("http_paths", ())),
            database_role=entry.get("database_role"),
        )
        for name, entry in raw["services"].items()
    }
    return Table(
        database=raw["database"]["name"],
        ports=MappingProxyType(raw["ports"]),
        container_ports=MappingProxyType(raw["ports"] | raw["container_ports"]),
        services=MappingProxyType(services),
        tracing=Tracing(**raw["tracing"]),
        security_contact=raw["edge"].pop("security_contact"),
        edge=EdgeLimits(**raw["edge"]),
    )


def _values(entries: Mapping[str, str | dict[str, str]]) -> Iterator[tuple[str, Value]]:
    for name, value in entries.items():
        yield name, value if isinstance(value, str) else Secret(value["secret"])
