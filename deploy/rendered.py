"""What containers read, made from settings.toml: `python -m deploy.rendered`, which `make gen` runs.

    compose/settings/<service>.env   the service's environment; what an operator chooses, as ${SIGNGATE_…}
    compose/envoy.yaml               the edge, with services_ca.yaml: where it finds the authority of services
    compose/scrape.yaml              Prometheus' scrape_configs: every instance of every part
    docker/browser/browser.json      how the browser's container starts Chromium
    k8s/base/settings/<service>.env  the service's environment, without what an operator chooses
    k8s/base/envoy.yaml              the edge
    k8s/components/monitoring/rules.yaml   observability/rules, as the Prometheus operator takes them
    compose/redis.conf, k8s/overlays/single-node/redis.conf   redis/redis.conf, where each can read it; and
                                     likewise redis/tls.conf and postgres/pg_hba.conf
    compose/limits.conf, k8s/base/limits.conf                 redis/limits.conf, likewise
    docker/Dockerfile, compose/compose.yaml, k8s/…: the images that they name, of images.toml
    observability/grafana/dashboards/signgate.json   the dashboard, of observability/dashboard.yaml

These files are committed; nothing in them is edited by hand, but for those that only name images. With
`--check` it compares, names every file that differs, and exits 1 if there is one.

In containers a part's host name is its name in the table, and every address behind that name is an
instance of it. Secrets are files in /run/secrets.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import yaml

from deploy import images
from deploy.envoy import render
from deploy.envoy.render import Edge, Endpoint
from deploy.observability import dashboard
from deploy.settings import MAIL_FROM, Service, table, tls_environment
from services.signer.engines.websdk.browser import FLAGS

HERE: Final = Path(__file__).parent
SECRETS: Final = Path("/run/secrets")
ASSETS: Final = Path("/usr/share/signgate")
"""Where the edge's image has the descriptor set and the console."""
EDGE_TLS: Final = SECRETS / "edge-tls"
"""A folder with the edge's certificate and key, as Kubernetes writes a Secret of the kind TLS."""
SERVICES_CA: Final = SECRETS / "services-ca" / "ca.crt"
EVERYWHERE: Final = "0.0.0.0"  # noqa: S104  # a container's own network; who reaches it is the network's to say
LAME_DUCK: Final = 5
"""Seconds: the edge asks each instance every two whether it is ready, and looks up names as often."""
OPERATORS: Final = {
    "edge_url": f"http://127.0.0.1:{table().ports['edge']}",
    "smtp_host": "mail",
    "smtp_port": str(table().container_ports["smtp"]),
    "smtp_security": "none",
    "smtp_username": "",
    "mail_from": MAIL_FROM,
    "plaintext_stores": "",
}
"""The {names} of the table that only whoever runs it can fill in; in compose these are the defaults."""
HEADER: Final = "# Written by `make gen` from deploy/settings.toml; changes are overwritten.\n"


def operators_settings(service: Service) -> set[str]:
    """Names of the settings that an operator's choice stands in."""
    return {
        name
        for name, value in service.settings.items()
        if isinstance(value, str) and any(f"{{{choice}}}" in value for choice in OPERATORS)
    }


def compose_environment(service: Service) -> dict[str, str]:
    """A service's environment; compose fills in each ${SIGNGATE_…} from the operator's own."""
    choices = {name: f"${{SIGNGATE_{name.upper()}:-{default}}}" for name, default in OPERATORS.items()}
    return _environment(service, choices)


def kubernetes_environment(service: Service) -> dict[str, str]:
    """A service's environment, but for `operators_settings`: those stand in each overlay's site.env."""
    chosen = operators_settings(service)
    environment = _environment(service, dict.fromkeys(OPERATORS, ""))
    return {name: value for name, value in environment.items() if name not in chosen}


def _environment(service: Service, operators: Mapping[str, str]) -> dict[str, str]:
    services = table().services
    names = {
        **{kind: f"{EVERYWHERE}:{port}" for kind, port in service.ports.items()},
        **{f"peer_{name}": f"dns:///{name}:{peer.ports['grpc']}" for name, peer in services.items()},
        **operators,
        "auth_http": f"auth:{services['auth'].ports['http']}",
        "lame_duck": str(LAME_DUCK),
        "inside_http": "https",
        "otlp_endpoint": table().tracing.endpoint,
    }
    # The instance's name is the container's host name, which services take when they are told none.
    told = {name: value for name, value in service.settings.items() if value != "{instance}"}
    return replace(service, settings=told).environment(names, SECRETS) | tls(service)


def tls(service: Service) -> dict[str, str]:
    """What turns TLS on in containers: at a service's listeners, towards its peers and towards Redis.

    Towards PostgreSQL it is the connection string that does (`deploy.secrets`).
    """
    return tls_environment(service.name, SECRETS) | {"SIGNGATE_REDIS_CA": str(SECRETS / "tls_ca.pem")}


def tls_files(service: Service) -> set[str]:
    """The secrets that `tls` names."""
    return {Path(value).name for value in tls(service).values()}


def edge(trusted_hops: int = 0, *, tls: bool = False) -> Edge:
    """The edge in a container, in front of every address behind each service's name.

    With `tls` it ends TLS itself (`EDGE_TLS`). Services speak it in any case (`SERVICES_CA`).
    """
    services, ports = table().services.values(), table().ports
    return Edge(
        listen=Endpoint(EVERYWHERE, ports["edge"]),
        admin=Endpoint("127.0.0.1", ports["envoy_admin"]),
        metrics=Endpoint(EVERYWHERE, ports["envoy_metrics"]),
        discovery="STRICT_DNS",
        grpc={service.name: [Endpoint(service.name, service.ports["grpc"])] for service in services},
        http={
            service.name: [Endpoint(service.name, service.ports["http"])]
            for service in services
            if "http" in service.ports
        },
        descriptors=ASSETS / "signgate.binpb",
        plugins=ASSETS / "plugins",
        proof=SECRETS / "edge_proof",
        sds=Path("/etc/envoy"),
        certificate=EDGE_TLS / "tls.crt" if tls else None,
        key=EDGE_TLS / "tls.key" if tls else None,
        services_ca=SERVICES_CA,
        trusted_hops=trusted_hops,
        console=HERE.parent / "console" / "dist",
        console_at=ASSETS / "console",
        tracing=table().tracing,
    )


def scrape_configs() -> list[dict[str, object]]:
    """Of every service and the edge, looked up by name so that each instance is found."""
    ports = {name: service.ports["metrics"] for name, service in table().services.items()}
    return [
        {
            "job_name": name,
            "dns_sd_configs": [{"names": [name], "type": "A", "port": port, "refresh_interval": "5s"}],
        }
        for name, port in {**ports, "envoy": table().ports["envoy_metrics"]}.items()
    ]


def browser() -> dict[str, object]:
    """What Playwright's `launchServer` is told in the browser's container.

    Chromium's own sandbox is made of user namespaces, which a container's seccomp profile denies: the
    container, which has no secrets and no way out, takes its place.
    """
    return {
        "executablePath": "/usr/bin/chromium",
        "chromiumSandbox": False,
        "host": EVERYWHERE,
        "port": table().container_ports["browser"],
        "wsPath": "/",
        "args": list(FLAGS),
    }


def prometheus_rule() -> dict[str, object]:
    """Every group of observability/rules in one object of the Prometheus operator's."""
    written = sorted((HERE / "observability/rules").glob("*.yaml"))
    groups = [group for path in written for group in yaml.safe_load(path.read_text("utf-8"))["groups"]]
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "signgate"},
        "spec": {"groups": groups},
    }


def files() -> Iterator[tuple[Path, str]]:
    """Every file, and what stands in it."""
    for service in table().services.values():
        yield HERE / f"compose/settings/{service.name}.env", _lines(compose_environment(service))
        yield HERE / f"k8s/base/settings/{service.name}.env", _lines(kubernetes_environment(service))
    for folder in ("compose", "k8s/base"):
        yield HERE / folder / "envoy.yaml", HEADER + render.render(edge())
        for name, text in render.secret_files(edge()).items():
            yield HERE / folder / name, HEADER + text
    for folder in ("compose", "k8s/overlays/single-node"):
        yield HERE / folder / "redis.conf", (HERE / "redis/redis.conf").read_text(encoding="utf-8")
        yield HERE / folder / "pg_hba.conf", (HERE / "postgres/pg_hba.conf").read_text(encoding="utf-8")
    for folder in ("compose", "k8s/base"):
        yield HERE / folder / "limits.conf", (HERE / "redis/limits.conf").read_text(encoding="utf-8")
    for folder in ("compose", "k8s/base", "k8s/overlays/single-node"):
        yield HERE / folder / "redis-tls.conf", (HERE / "redis/tls.conf").read_text(encoding="utf-8")
    yield HERE / "docker/browser/browser.json", json.dumps(browser(), indent=2) + "\n"
    scrape = yaml.safe_dump({"scrape_configs": scrape_configs()}, sort_keys=False)
    yield HERE / "compose/scrape.yaml", HEADER + scrape
    header = HEADER.replace("settings.toml", "observability/rules")
    rule = yaml.safe_dump(prometheus_rule(), sort_keys=False, width=120)
    yield HERE / "k8s/components/monitoring/rules.yaml", header + rule
    yield HERE / "observability/grafana/dashboards/signgate.json", dashboard.written()
    yield from images.files()


def _lines(environment: Mapping[str, str]) -> str:
    return HEADER + "".join(f"{name}={value}\n" for name, value in environment.items())


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="compare with what is committed instead of writing"
    )
    if not parser.parse_args().check:
        for path, text in files():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return 0
    differing = [path for path, text in files() if not path.is_file() or path.read_text("utf-8") != text]
    for path in differing:
        print(f"{path.relative_to(HERE.parent)} is not what it is made from: run `make gen`", file=sys.stderr)
    return int(bool(differing))


if __name__ == "__main__":
    sys.exit(main())
