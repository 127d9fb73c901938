"""TLS between services: who is believed, and that certificates are replaced under a running service."""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from deploy import certificates
from servicekit.config import Address, ServiceSettings
from servicekit.errors import SigngateError
from servicekit.identity import Peer
from servicekit.keyset import KeySet
from servicekit.redis import open_redis
from servicekit.rpc import create_channel, create_server
from servicekit.runner import Runtime, running
from servicekit.stores import with_ca
from servicekit.testing.identity import shared
from servicekit.testing.network import redis_server
from servicekit.testing.tokens import TokenMint
from servicekit.tls import ServerFiles, grpc_credentials
from servicekit.tokens import Issuer, JwtVerifier
from servicekit.watched import FileError
from signgate.keys.v1 import validation_pb2 as pb
from signgate.keys.v1 import validation_pb2_grpc

NAMES = ["keys", "quota", "redis"]


def make(folder: Path, *, at: datetime | None = None) -> list[str]:
    """Certificates in `folder`, as `deploy.secrets` makes them; returns whose are new."""
    folder.mkdir(exist_ok=True)

    def read(name: str) -> bytes | None:
        path = folder / name
        return path.read_bytes() if path.exists() else None

    def write(name: str, content: bytes) -> None:
        (folder / name).write_bytes(content)

    return certificates.ensure(NAMES, read, write, at or datetime.now(UTC))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make(tmp_path / "tls")
    return tmp_path / "tls"


class Keys(validation_pb2_grpc.KeyValidationServiceServicer):
    async def ValidateKeys(self, request: Any, context: Any) -> pb.ValidateKeysResponse:
        return pb.ValidateKeysResponse()


@asynccontextmanager
async def service(folder: Path, name: str, jwks: dict[str, Any] | None = None) -> AsyncIterator[Runtime]:
    """A service with both faces, whose certificate is `name`'s."""
    settings = ServiceSettings(
        grpc_listen=Address("127.0.0.1", 0),
        tls_cert=folder / f"tls_{name}.pem",
        tls_key=folder / f"tls_{name}.key",
        drain_grace=0.2,
    )

    async def answer(_: Any) -> JSONResponse:
        return JSONResponse(jwks)

    async def compose(runtime: Runtime) -> None:
        server = create_server(callers=shared().callers("keys"))
        server.add(Keys(), validation_pb2_grpc.add_KeyValidationServiceServicer_to_server)
        await runtime.serve(server, settings.grpc_listen)
        await runtime.serve_http(Starlette(routes=[Route("/jwks", answer)]), Address("127.0.0.1", 0))

    async with running("keys", settings, compose) as runtime:
        yield runtime


async def called(runtime: Runtime, ca: Path | None, name: str = "keys") -> str:
    """OK, or the reason why a service at this address is not believed to be `name`."""
    peer = Peer(name, shared().identity("signer"), ca)
    async with create_channel(str(runtime.grpc_address), peer=peer) as channel:
        stub = validation_pb2_grpc.KeyValidationServiceStub(channel)
        try:
            await stub.ValidateKeys(pb.ValidateKeysRequest(), timeout=10)
        except SigngateError as error:
            return error.reason
        return "OK"


async def test_a_service_is_reached_by_who_has_the_ca_and_nobody_else(folder: Path, tmp_path: Path) -> None:
    make(tmp_path / "others")
    async with service(folder, "keys") as runtime:
        assert await called(runtime, folder / "tls_ca.pem") == "OK"
        assert await called(runtime, None) == "PEER_UNAVAILABLE"
        assert await called(runtime, tmp_path / "others" / "tls_ca.pem") == "PEER_UNAVAILABLE"


async def test_a_peer_with_anothers_certificate_is_refused(folder: Path) -> None:
    """The holder of quota's key can't stand in for keys, though the same authority vouches for both."""
    async with service(folder, "quota") as runtime:
        assert await called(runtime, folder / "tls_ca.pem") == "PEER_UNAVAILABLE"


@pytest.mark.parametrize(("ca", "status"), [("tls_ca.pem", 0), ("tls_quota.pem", 1), ("none.pem", 1)])
async def test_a_containers_health_check_asks_by_tls(folder: Path, ca: str, status: int) -> None:
    async with service(folder, "keys") as runtime:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "servicekit.health", str(runtime.grpc_address),
            stderr=asyncio.subprocess.DEVNULL,
            env={
                **os.environ,
                "SIGNGATE_TLS_CERT_FILE": str(folder / "tls_keys.pem"),
                "SIGNGATE_TLS_CA": str(folder / ca),
            },
        )  # fmt: skip
        assert await process.wait() == status


async def test_http_is_https_alone(folder: Path) -> None:
    async with service(folder, "keys", {}) as runtime:
        context = ssl.create_default_context(cafile=str(folder / "tls_ca.pem"))
        async with httpx.AsyncClient(verify=context) as client:
            assert (await client.get(f"https://{runtime.http_address}/healthz")).status_code == 200
        async with httpx.AsyncClient() as stranger:
            with pytest.raises(httpx.ConnectError):
                await stranger.get(f"https://{runtime.http_address}/healthz")
            with pytest.raises(httpx.TransportError):
                await stranger.get(f"http://{runtime.http_address}/healthz")


async def test_published_keys_are_fetched_by_tls_from_who_the_ca_vouches_for(
    folder: Path, tmp_path: Path
) -> None:
    mint = TokenMint()
    make(tmp_path / "others")
    async with service(folder, "keys", KeySet((mint.key,)).public_jwks(0)) as runtime:
        url = f"https://{runtime.http_address}/jwks"
        good = JwtVerifier([Issuer(mint.issuer.name, url, ca=folder / "tls_ca.pem")])
        assert (await good.verify(mint.token())).role == "authenticated"
        for ca in (tmp_path / "others" / "tls_ca.pem", tmp_path / "none.pem", None):
            with pytest.raises(SigngateError) as refused:
                await JwtVerifier([Issuer(mint.issuer.name, url, ca=ca)]).verify(mint.token())
            assert refused.value.reason == "JWKS_UNAVAILABLE"


async def test_a_certificate_is_replaced_without_a_restart(folder: Path, tmp_path: Path) -> None:
    """By one of another authority: those who trust that one alone get in, without a refused call before."""
    make(tmp_path / "new")
    both = tmp_path / "both.pem"
    both.write_bytes(b"".join((where / "tls_ca.pem").read_bytes() for where in (folder, tmp_path / "new")))
    async with service(folder, "keys", {}) as runtime:
        assert await called(runtime, both) == "OK"
        for kind in ("key", "pem"):
            (folder / f"tls_keys.{kind}").write_bytes((tmp_path / "new" / f"tls_keys.{kind}").read_bytes())
            assert await called(runtime, both) == "OK"  # half of a pair changes nothing
        context = ssl.create_default_context(cafile=str(tmp_path / "new" / "tls_ca.pem"))
        async with asyncio.timeout(30):
            while await called(runtime, tmp_path / "new" / "tls_ca.pem") != "OK":
                await asyncio.sleep(0.1)
            while True:
                try:
                    async with httpx.AsyncClient(verify=context) as client:
                        await client.get(f"https://{runtime.http_address}/healthz")
                    break
                except httpx.ConnectError:
                    await asyncio.sleep(0.1)
        assert await called(runtime, both) == "OK"


async def test_what_is_no_certificate_stops_the_start(folder: Path) -> None:
    (folder / "tls_keys.key").write_bytes((folder / "tls_quota.key").read_bytes())
    with pytest.raises(FileError, match="not a certificate in PEM and its private key"):
        grpc_credentials(ServerFiles(folder / "tls_keys.pem", folder / "tls_keys.key"))
    with pytest.raises(FileError):
        create_channel("127.0.0.1:1", peer=Peer("keys", shared().identity("signer"), folder / "none"))


async def test_redis_by_tls_must_be_who_the_ca_vouches_for(folder: Path, tmp_path: Path) -> None:
    make(tmp_path / "others")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls_redis.pem", folder / "tls_redis.key")
    with redis_server() as redis:

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", redis.port)

            async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()
                sink.close()

            await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))

        server = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=context)
        url = f"rediss://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
        async with open_redis(with_ca(url, folder / "tls_ca.pem"), timeout=5) as client:
            assert await client.ping()
        for ca in (tmp_path / "others" / "tls_ca.pem", None):
            with pytest.raises(SigngateError) as refused:
                async with open_redis(with_ca(url, ca), timeout=5):
                    pytest.fail("it answered to who has no reason to believe it")
            assert refused.value.reason == "REDIS_UNAVAILABLE"
        server.close()


def test_certificates_are_made_again_before_they_end_and_of_the_same_authority(folder: Path) -> None:
    authority = (folder / "tls_ca.pem").read_bytes()
    assert make(folder) == []
    now = datetime.now(UTC)
    assert make(folder, at=now + certificates.LIFE - certificates.RENEW - timedelta(days=1)) == []
    assert make(folder, at=now + certificates.LIFE - certificates.RENEW + timedelta(days=1)) == NAMES
    assert (folder / "tls_ca.pem").read_bytes() == authority
    (folder / "tls_ca.pem").unlink()
    assert make(folder) == NAMES
