"""TLS at the edge and behind it, the edge's proof, and what the edge answers by itself."""

from __future__ import annotations

import datetime as dt
import ipaddress
import re
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import grpc
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from deploy.envoy.render import Edge, Endpoint
from deploy.local.layout import HOST
from deploy.secrets import Folder
from tests.conformance.edge import free_port
from tests.conftest import Running
from tests.e2e.own_edge import OwnEdge, edge_of, own_edge

PROOF = "x-signgate-edge"
NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)


class Authority:
    """A certificate authority of a test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        made = self._builder(self.name, self.key.public_key()).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.file = folder / "ca.crt"
        self.file.write_bytes(made.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, to: Path) -> tuple[Path, Path]:
        """A certificate and its key for a DNS name and this machine's address, moved into a folder."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = x509.SubjectAlternativeName([x509.DNSName(name), x509.IPAddress(ipaddress.ip_address(HOST))])
        made = self._builder(subject, key.public_key()).add_extension(names, critical=False)
        certificate = made.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        to.mkdir(exist_ok=True)
        for file, content in (("tls.key", private), ("tls.crt", certificate)):
            (to / f".{file}").write_bytes(content)
            (to / f".{file}").rename(to / file)
        return to / "tls.crt", to / "tls.key"

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - DAY)
            .not_valid_after(NOW + DAY)
        )


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def secure(
    running: Running, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OwnEdge]:
    folder = tmp_path_factory.mktemp("secure")
    certificate, key = authority.issue("localhost", folder / "tls")
    edge = edge_of(running, folder, certificate=certificate, key=key)
    with own_edge(edge, folder) as found:
        yield found


class TestTlsToCallers:
    def test_rest_and_grpc(self, secure: OwnEdge, authority: Authority) -> None:
        trusted = ssl.create_default_context(cafile=str(authority.file))
        with httpx.Client(verify=trusted, base_url=f"https://{HOST}:{secure.port}") as caller:
            answer = caller.get("/v1/engines")
        assert answer.status_code == 200
        credentials = grpc.ssl_channel_credentials(authority.file.read_bytes())
        with grpc.secure_channel(secure.target, credentials) as channel:
            call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
                "/signgate.signer.v1.SignerService/ListEngines", bytes, bytes
            )
            assert call(b"", timeout=30)

    @pytest.mark.parametrize(
        "path", ["/", "/v1/engines", "/v1/keys", "/nothing", "/auth/v1/health", "/.well-known/security.txt"]
    )
    def test_browsers_are_told_to_stay_with_it(
        self, running: Running, secure: OwnEdge, authority: Authority, path: str
    ) -> None:
        """In every answer, errors included; and never where there is no TLS."""
        trusted = ssl.create_default_context(cafile=str(authority.file))
        answer = httpx.get(f"https://{HOST}:{secure.port}{path}", verify=trusted)
        assert answer.headers.get_list("strict-transport-security") == ["max-age=31536000"]
        assert "strict-transport-security" not in httpx.get(f"{running.edge_url}{path}").headers

    def test_both_protocols_are_offered_and_old_tls_is_not(
        self, secure: OwnEdge, authority: Authority
    ) -> None:
        context = ssl.create_default_context(cafile=str(authority.file))
        for protocol in ("h2", "http/1.1"):
            context.set_alpn_protocols([protocol])
            with handshake(secure, context) as connected:
                assert connected.selected_alpn_protocol() == protocol
                assert connected.version() == "TLSv1.3"
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises(ssl.SSLError), handshake(secure, context):
            pass

    def test_a_renewed_certificate_is_taken_without_a_restart(
        self, secure: OwnEdge, authority: Authority
    ) -> None:
        context = ssl.create_default_context(cafile=str(authority.file))

        def serial() -> object:
            with handshake(secure, context) as connected:
                peer = connected.getpeercert()
                assert peer
                return peer["serialNumber"]

        first = serial()
        authority.issue("localhost", secure.log.parent / "tls")
        Running.eventually(lambda: serial() != first, 30, "the new certificate")


@contextmanager
def handshake(edge: OwnEdge, context: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
    with (
        socket.create_connection(edge.address, timeout=30) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as connected,
    ):
        yield connected


@contextmanager
def witness(certificate: tuple[Path, Path] | None = None) -> Iterator[tuple[int, list[dict[str, str]]]]:
    """An HTTP service that remembers each request's headers; its port."""
    seen: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path != "/healthz":
                seen.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: object) -> None: ...

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None: ...

    with Server((HOST, 0), Handler) as server:
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_port, seen
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def grpc_witness() -> Iterator[tuple[int, list[dict[str, str]]]]:
    """A gRPC service that remembers each call's metadata and answers with an empty message; its port."""
    seen: list[dict[str, str]] = []

    class Everything(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
            if "Health" in details.method:
                return grpc.unary_unary_rpc_method_handler(lambda _, __: b"\x08\x01")  # SERVING
            seen.append({str(key): str(value) for key, value in details.invocation_metadata})
            return grpc.unary_unary_rpc_method_handler(lambda _, __: b"")

    server = grpc.server(ThreadPoolExecutor(4), handlers=[Everything()])
    port = server.add_insecure_port(f"{HOST}:0")
    server.start()
    try:
        yield port, seen
    finally:
        server.stop(None)


class TestProof:
    def test_every_upstream_request_has_the_proof_and_only_that(
        self, running: Running, tmp_path: Path
    ) -> None:
        """By every face; a caller's own value is dropped; a new one is sent without a restart."""
        secrets = Folder(tmp_path / "secrets", "", "", "")

        def become(text: str) -> None:
            secrets.path.mkdir(exist_ok=True)
            (secrets.path / "edge_secret").write_text(text)
            secrets.ensure()

        become("the-first-secret")
        with grpc_witness() as (grpc_port, calls), witness() as (http_port, requests):
            edge = edge_of(running, tmp_path, proof=secrets.path / "edge_proof")
            edge = replaced(edge, grpc_port, http_port)
            with own_edge(edge, tmp_path) as own:
                answers = self.ask(own)
                sent = calls + requests
                assert len(sent) == 5
                assert [one[PROOF] for one in sent] == ["the-first-secret"] * 5
                become("the-second-secret\nthe-first-secret\n")

                def rotated() -> bool:
                    self.ask(own)
                    return calls[-1][PROOF] == requests[-1][PROOF] == "the-second-secret"

                Running.eventually(rotated, 30, "the new secret")
                log = own.log.read_text()
        assert "the-first-secret" not in answers
        assert not re.search("the-(first|second)-secret|forged", log)

    @staticmethod
    def ask(edge: OwnEdge) -> str:
        """Once by each face; all that came back."""
        told = {PROOF: "forged"}
        method = "/signgate.signer.v1.SignerService/ListEngines"
        with grpc.insecure_channel(edge.target) as channel:
            call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method, bytes, bytes)
            answer, state = call.with_call(b"", timeout=30, metadata=tuple(told.items()))
            stream: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
                method.replace("ListEngines", "SignStream"), bytes, bytes
            )
            opened = stream(iter([b""]), timeout=30, metadata=tuple(told.items()))
            found: list[object] = [answer, list(opened), state.initial_metadata(), state.trailing_metadata()]
        with httpx.Client(base_url=edge.url, headers=told) as caller:
            for answered in (
                caller.get("/v1/engines"),
                caller.post(
                    method, content=b"\0\0\0\0\0", headers={"content-type": "application/grpc-web+proto"}
                ),
                caller.get("/webcast/rate_limits"),
            ):
                found += [answered.content, answered.headers]
        return repr(found)


def replaced(edge: Edge, grpc_port: int, http_port: int) -> Edge:
    """With a signer of the test's own."""
    return replace(
        edge,
        grpc=dict(edge.grpc) | {"signer": [Endpoint(HOST, grpc_port)]},
        http=dict(edge.http) | {"signer": [Endpoint(HOST, http_port)]},
    )


class TestTlsToServices:
    @pytest.mark.parametrize(("name", "expected"), [("signer", 200), ("keys", 503)])
    def test_a_service_is_believed_for_its_own_name_alone(
        self, running: Running, tmp_path: Path, name: str, expected: int
    ) -> None:
        authority = Authority(tmp_path)
        with witness(authority.issue(name, tmp_path / "tls")) as (port, _):
            edge = edge_of(running, tmp_path, services_ca=authority.file)
            edge = replaced(edge, free_port(), port)
            with own_edge(edge, tmp_path, ready=()) as own:
                assert status_within(own, expected)

    def test_a_certificate_of_another_authority_is_refused(self, running: Running, tmp_path: Path) -> None:
        (tmp_path / "other").mkdir()
        authority, other = Authority(tmp_path), Authority(tmp_path / "other")
        with witness(other.issue("signer", tmp_path / "tls")) as (port, _):
            edge = replaced(edge_of(running, tmp_path, services_ca=authority.file), free_port(), port)
            with own_edge(edge, tmp_path, ready=()) as own:
                assert status_within(own, 503)


def status_within(edge: OwnEdge, expected: int) -> bool:
    """After the first health checks."""
    Running.eventually(
        lambda: (
            edge.stat("cluster.signer_http.health_check.attempt") >= 2
            and edge.stat("cluster.signer_http.health_check.(success|failure)") >= 2
        ),
        30,
        "health checks",
    )
    return httpx.get(f"{edge.url}/webcast/rate_limits", timeout=30).status_code == expected


class TestOwnAnswers:
    @pytest.mark.parametrize(
        ("path", "location"),
        [
            ("/", "/console/"),
            ("/?code=1&x=%2F", "/console/?code=1&x=%2F"),
            ("/console", "/console/"),
            ("/console?a=b", "/console/?a=b"),
        ],
    )
    def test_a_redirect_names_no_host(self, running: Running, path: str, location: str) -> None:
        for host in ("evil.example", "edge"):
            named = {"host": host, "x-forwarded-host": host, "x-forwarded-proto": "ftp"}
            answer = httpx.get(f"{running.edge_url}{path}", headers=named)
            assert answer.status_code in {301, 302}
            assert answer.headers["location"] == location

    @pytest.mark.parametrize(
        "path",
        [
            "/",
            "/console",
            "/auth/v1",
            "/auth/v1/",
            "/auth/v1/health/",
            "/auth/v1/user/",
            "/auth/v1/settings/",
            "/auth/v1/.well-known/jwks.json/",
            "/auth/v1/verify",
            "/auth/v1/authorize",
            "/webcast/sign_url/",
            "/webcast",
            "/tiktok/",
            "/accounts/me/rate_limits/",
            "/v1/engines/",
            "/nothing/",
            "/.well-known/security.txt/",
        ],
    )
    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_no_answer_repeats_the_host_that_a_caller_names(
        self, running: Running, method: str, path: str
    ) -> None:
        answer = httpx.request(method, f"{running.edge_url}{path}", headers={"host": "evil.example"})
        assert "evil.example" not in repr(answer.headers) + answer.text
        assert "://" not in answer.headers.get("location", "")

    def test_security_txt(self, running: Running) -> None:
        """RFC 9116: a contact, and an end in the future, at most a year away."""
        answer = httpx.get(f"{running.edge_url}/.well-known/security.txt")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        fields = fields_of(answer.text)
        assert fields["Contact"].startswith("mailto:")
        expires = dt.datetime.fromisoformat(fields["Expires"])
        now = dt.datetime.now(dt.UTC)
        assert now < expires < now + 366 * DAY

    def test_the_operator_names_the_contact(self, running: Running, tmp_path: Path) -> None:
        told = {"SIGNGATE_SECURITY_CONTACT": "https://operator.example/security%2Dcontact"}
        with own_edge(edge_of(running, tmp_path), tmp_path, environment=told) as own:
            fields = fields_of(httpx.get(f"{own.url}/.well-known/security.txt").text)
        assert fields["Contact"] == told["SIGNGATE_SECURITY_CONTACT"]


def fields_of(text: str) -> dict[str, str]:
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return dict(line.split(": ", 1) for line in lines)
