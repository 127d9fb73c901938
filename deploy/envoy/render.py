"""Fills in the edge's template, envoy.yaml.j2. All that differs between deployments is in `Edge`."""

from __future__ import annotations

import base64
import mimetypes
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import jinja2
import yaml
from google.protobuf import descriptor_pb2
from google.rpc import error_details_pb2, status_pb2

from deploy.settings import EdgeLimits, Service, Tracing, table
from servicekit import headers

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
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

    `plugins`: the folder with the plug-ins. `proof`: what proves to services that a request comes from the
    edge, as `deploy.secrets` writes it. With `certificate` and `key` the edge speaks TLS. With `services_ca`
    services do, and have certificates for their names from that authority. Envoy watches the folder of each,
    and reads again what is moved there. `sds`: the folder with `secret_files`. All are paths where Envoy is.
    """

    listen: Endpoint
    admin: Endpoint
    metrics: Endpoint
    discovery: Literal["STATIC", "STRICT_DNS"]
    grpc: Mapping[str, Sequence[Endpoint]]
    http: Mapping[str, Sequence[Endpoint]]
    descriptors: Path
    tracing: Tracing
    plugins: Path
    proof: Path
    sds: Path
    limits: EdgeLimits = field(default_factory=lambda: table().edge)
    certificate: Path | None = None
    key: Path | None = None
    services_ca: Path | None = None
    trusted_hops: int = 0
    console: Path | None = None
    console_at: Path | None = None


@dataclass(frozen=True)
class Reply:
    """How an error that Envoy itself answers is told.

    `code` is gRPC's number, for REST callers; callers of the sign-server face are told HTTP's. `grpc` is the
    number for gRPC callers, where Envoy would tell another.
    """

    http: int
    code: int
    status: str
    reason: str
    message: str = "%LOCAL_REPLY_BODY%"
    grpc: int | None = None

    @property
    def details(self) -> str:
        """What gRPC callers get as grpc-status-details-bin: the same as from a service."""
        status = status_pb2.Status(code=self.grpc or self.code, message=self.message)
        status.details.add().Pack(error_details_pb2.ErrorInfo(reason=self.reason, domain="signgate"))
        return base64.b64encode(status.SerializeToString(deterministic=True)).decode().rstrip("=")


REPLIES = (
    Reply(400, 3, "INVALID_ARGUMENT", "MALFORMED_REQUEST"),
    Reply(404, 5, "NOT_FOUND", "NO_SUCH_PATH", "There is nothing at this path for this method."),
    Reply(408, 4, "DEADLINE_EXCEEDED", "REQUEST_TIMEOUT", "The request did not arrive in time.", grpc=4),
    Reply(
        413, 3, "INVALID_ARGUMENT", "BODY_TOO_LARGE", "The request's body is larger than is allowed.", grpc=8
    ),
    Reply(415, 3, "INVALID_ARGUMENT", "UNSUPPORTED_MEDIA_TYPE"),
    Reply(
        431, 3, "INVALID_ARGUMENT", "HEADERS_TOO_LARGE", "The request's headers are larger than is allowed."
    ),
    Reply(
        429,
        8,
        "RESOURCE_EXHAUSTED",
        "TOO_MANY_IN_FLIGHT",
        "Too many requests from this address are in flight; wait for some to end.",
        grpc=8,
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
        headers=headers,
        collector=_endpoint(edge.tracing.endpoint) if edge.tracing.endpoint else None,
        services=services,
        client_streaming=_client_streaming(),
        transcoded=[name for service in services for name in service.public],
        replies=REPLIES,
        sign_paths=table().services["signer"].http_paths,
        pages=pages(edge.console, edge.console_at) if edge.console else [],
        errors_lua=(HERE / "errors.lua").read_text(encoding="utf-8"),
        trailers_lua=(HERE / "trailers.lua").read_text(encoding="utf-8"),
        direct_lua=(HERE / "direct.lua")
        .read_text(encoding="utf-8")
        .replace("{{ security_contact }}", table().security_contact)
        .replace("{{ security_txt }}", (HERE / "security.txt").read_text(encoding="utf-8")),
    )


def _client_streaming() -> set[str]:
    """Paths of the methods whose requests are streams."""
    files = descriptor_pb2.FileDescriptorSet.FromString((ROOT / "gen/signgate.binpb").read_bytes())
    return {
        f"/{file.package}.{service.name}/{method.name}"
        for file in files.file
        for service in file.service
        for method in service.method
        if method.client_streaming
    }


def secret_files(edge: Edge) -> dict[str, str]:
    """By name, the files of `Edge.sds`: where Envoy finds certificates. Nothing in them is secret."""

    def written(name: str, kind: str, watched: Path, sources: dict[str, Path]) -> str:
        files: dict[str, object] = {part: {"filename": str(path)} for part, path in sources.items()}
        secret = {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            "name": name,
            kind: files | {"watched_directory": {"path": str(watched)}},
        }
        return yaml.safe_dump({"resources": [secret]}, sort_keys=False)

    found = {}
    if edge.certificate and edge.key:
        sources = {"certificate_chain": edge.certificate, "private_key": edge.key}
        found["certificate.yaml"] = written(
            "certificate", "tls_certificate", edge.certificate.parent, sources
        )
    if edge.services_ca:
        found["services_ca.yaml"] = written(
            "services_ca", "validation_context", edge.services_ca.parent, {"trusted_ca": edge.services_ca}
        )
    return found


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
    """Render to a file, with `secret_files` beside it."""
    path.write_text(render(edge), encoding="utf-8")
    for name, text in secret_files(edge).items():
        path.with_name(name).write_text(text, encoding="utf-8")
