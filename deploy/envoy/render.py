"""Fills in the edge's template, envoy.yaml.j2. All that differs between deployments is in `Edge`."""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import jinja2

from deploy.settings import Service, Tracing, table

HERE = Path(__file__).parent
NAMED_BY_CONTENT = re.compile(r"-[A-Z0-9]{8}\.\w+$")
"""Files whose name changes with what is in them."""
FOR_EVER = "public, max-age=31536000, immutable"


class Endpoint(NamedTuple):
    """A host, by name or address, and a port."""

    host: str
    port: int


@dataclass(frozen=True)
class Edge:
    """One deployment's edge. `grpc` and `http`: where each service is reached, by the service's name.

    `admin` is for nobody but Envoy's own machine; `metrics` shows of it what Prometheus reads.
    `discovery` is Envoy's cluster type: STATIC for addresses, STRICT_DNS for names whose every
    address is an instance. `descriptors`: the descriptor set's path where Envoy runs.
    `console`: the built console, served under /console/; `console_at`: where Envoy finds it, if it is not
    there. `trusted_hops`: how many load balancers stand in front and write x-forwarded-for. `tracing`:
    where its spans go, and of how many requests.
    """

    listen: Endpoint
    admin: Endpoint
    metrics: Endpoint
    discovery: Literal["STATIC", "STRICT_DNS"]
    grpc: Mapping[str, Sequence[Endpoint]]
    http: Mapping[str, Sequence[Endpoint]]
    descriptors: Path
    tracing: Tracing
    trusted_hops: int = 0
    console: Path | None = None
    console_at: Path | None = None


@dataclass(frozen=True)
class Reply:
    """How an error that Envoy itself answers is told.

    `code` is gRPC's number, for REST callers; callers of the sign-server face are told HTTP's.
    """

    http: int
    code: int
    status: str
    reason: str
    message: str = "%LOCAL_REPLY_BODY%"


REPLIES = (
    Reply(400, 3, "INVALID_ARGUMENT", "MALFORMED_REQUEST"),
    Reply(404, 5, "NOT_FOUND", "NO_SUCH_PATH", "There is nothing at this path for this method."),
    Reply(408, 4, "DEADLINE_EXCEEDED", "REQUEST_TIMEOUT", "The request did not arrive in time."),
    Reply(413, 3, "INVALID_ARGUMENT", "BODY_TOO_LARGE", "The request's body is larger than is allowed."),
    Reply(415, 3, "INVALID_ARGUMENT", "UNSUPPORTED_MEDIA_TYPE"),
    Reply(
        431, 3, "INVALID_ARGUMENT", "HEADERS_TOO_LARGE", "The request's headers are larger than is allowed."
    ),
    Reply(500, 13, "INTERNAL", "INTERNAL", "The request could not be answered."),
    Reply(502, 14, "UNAVAILABLE", "SERVICE_UNAVAILABLE", "The service is not available; try again shortly."),
    Reply(503, 14, "UNAVAILABLE", "SERVICE_UNAVAILABLE", "The service is not available; try again shortly."),
    Reply(504, 4, "DEADLINE_EXCEEDED", "SERVICE_TIMEOUT", "The service did not answer in time."),
)


def render(edge: Edge) -> str:
    """The configuration, as YAML."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 -- YAML, from values of our own
        trim_blocks=True,
        lstrip_blocks=True,
    )
    services: list[Service] = list(table().services.values())
    return environment.get_template("envoy.yaml.j2").render(
        edge=edge,
        collector=_endpoint(edge.tracing.endpoint) if edge.tracing.endpoint else None,
        services=services,
        transcoded=[name for service in services for name in service.public],
        replies=[asdict(reply) for reply in REPLIES],
        sign_paths=table().services["signer"].http_paths,
        pages=pages(edge.console, edge.console_at) if edge.console else [],
        errors_lua=(HERE / "errors.lua").read_text(encoding="utf-8"),
        trailers_lua=(HERE / "trailers.lua").read_text(encoding="utf-8"),
    )


def _endpoint(address: str) -> Endpoint:
    host, _, port = address.rpartition(":")
    return Endpoint(host, int(port))


def pages(folder: Path, at: Path | None = None) -> list[dict[str, str]]:
    """What is served of a folder of files: path, file, type and caching of each; index.html is the folder.

    `at`: where the folder is when it is served. Of a folder that is not there, nothing is.
    """
    found = []
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = file.relative_to(folder).as_posix()
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        text = kind.startswith("text/") or kind.endswith(("javascript", "json", "xml"))
        found.append(
            {
                "path": "/console/" + ("" if name == "index.html" else name),
                "file": str((at or folder) / name),
                "type": f"{kind}; charset=utf-8" if text else kind,
                "cache": FOR_EVER if NAMED_BY_CONTENT.search(name) else "no-cache",
            }
        )
    return found


def write(edge: Edge, path: Path) -> None:
    """Render to a file."""
    path.write_text(render(edge), encoding="utf-8")
