"""Where a compose file disagrees with settings.toml."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from deploy import migrate, rendered
from deploy.settings import Secret, Service, table

AUTHORITY = "tls_ca.pem"
Part = Mapping[str, Any]


def secrets_of(service: Service) -> set[str]:
    """What its settings name, and its certificate, its key and the authority of all certificates."""
    named = {value.name for value in service.settings.values() if isinstance(value, Secret)}
    return named | rendered.tls_files(service)


def migrations() -> set[str]:
    """Of the migration, whose connection strings name the authority."""
    return migrate.needed() | {AUTHORITY}


def every_secret() -> set[str]:
    """Of all services and of the migration."""
    return migrations().union(*(secrets_of(service) for service in table().services.values()))


def disagreements(document: Mapping[str, Any]) -> list[str]:
    """One line for each, beginning with the part that it is about."""
    parts: Mapping[str, Part] = document["services"]
    wanted = {*table().services, "envoy", "migrate", "postgres", "redis", "limits", "mail"}
    missing = [f"{name}: is not there" for name in sorted(wanted - set(parts))]
    found = [line for name, part in parts.items() for line in _of(name, part)]
    undeclared = every_secret() - set(document.get("secrets", ()))
    return missing + found + [f"{name}: is not among the secrets" for name in sorted(undeclared)]


def _of(name: str, part: Part) -> Iterator[str]:
    if name in table().services:
        yield from _service(table().services[name], part)
    elif name == "envoy":
        yield from _ports(name, part, {table().ports["edge"], table().ports["envoy_metrics"]})
        if not any(
            "envoy.yaml" in str(entry) for entry in [*part.get("volumes", ()), *part.get("configs", ())]
        ):
            yield "envoy: does not read envoy.yaml"
    elif name == "migrate":
        yield from _secrets(name, part, migrations())


def _service(service: Service, part: Part) -> Iterator[str]:
    files = part.get("env_file", ())
    paths = [
        file["path"] if isinstance(file, dict) else file
        for file in ([files] if isinstance(files, str) else files)
    ]
    if [path.removeprefix("./") for path in paths] != [f"settings/{service.name}.env"]:
        yield f"{service.name}: reads other settings than settings/{service.name}.env"
    environment = part.get("environment", ())
    for name in (entry.split("=")[0] for entry in environment):
        if name.startswith("SIGNGATE_"):
            yield f"{service.name}: {name} is set here and not in settings.toml"
    if part.get("ports"):
        yield f"{service.name}: publishes a port beside the edge"
    yield from _ports(service.name, part, set(service.ports.values()))
    yield from _secrets(service.name, part, secrets_of(service))


def _ports(name: str, part: Part, known: set[int]) -> Iterator[str]:
    entries = [*part.get("expose", ()), *part.get("ports", ())]
    for entry in entries:
        inside = entry["target"] if isinstance(entry, dict) else str(entry).split("/")[0].rpartition(":")[2]
        if int(inside) not in known:
            yield f"{name}: port {inside} is not in settings.toml"


def _secrets(name: str, part: Part, wanted: set[str]) -> Iterator[str]:
    given = {entry["source"] if isinstance(entry, dict) else entry for entry in part.get("secrets", ())}
    if wanted - given:
        yield f"{name}: is not given the secrets {sorted(wanted - given)}"
    if given - wanted:
        yield f"{name}: is given the secrets {sorted(given - wanted)} without need"
