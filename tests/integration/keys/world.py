"""The keys service in this process, as one or more replicas, on a real PostgreSQL and a real Redis."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import asyncpg
import grpc

from servicekit.clock import uuid7
from servicekit.config import Address
from servicekit.errors import SigngateError
from servicekit.keyset import KeySet
from servicekit.rpc import create_channel
from servicekit.runner import running
from servicekit.testing.identity import shared
from servicekit.testing.postgres import Database
from servicekit.testing.tokens import TokenMint
from services.keys.config import KeysSettings
from services.keys.server import compose
from signgate.keys.v1 import admin_pb2_grpc, keys_pb2_grpc, validation_pb2, validation_pb2_grpc
from signgate.keys.v1 import keys_pb2 as pb
from tests.redis_users import login

PEPPER_1 = base64.b64encode(b"1" * 32).decode()
PEPPER_2 = base64.b64encode(b"2" * 32).decode()


class Cable:
    """A TCP line to a server that a test can cut, leave hanging, and mend."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self.port = 0

    async def mend(self) -> None:
        """Connections are taken and bytes flow."""
        self._flowing.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Connections end, and new ones are refused, as when the server is stopped."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()
        self._flowing.set()
        await asyncio.sleep(0)

    def hang(self) -> None:
        """Connections stand, and nothing comes through."""
        self._flowing.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        try:
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        finally:
            self._writers -= {writer, far_writer}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


@contextmanager
def jwks_server(mint: TokenMint) -> Iterator[str]:
    """Publishes the mint's public key; yields the URL."""
    body = json.dumps(KeySet((mint.key,)).public_jwks(0)).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/jwks"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class Replica:
    """One running keys service and its stubs."""

    address: Address
    owner: keys_pb2_grpc.KeysServiceAsyncStub
    admin: admin_pb2_grpc.KeysAdminServiceAsyncStub
    internal: validation_pb2_grpc.KeyValidationServiceAsyncStub

    async def validate(self, secret: str, client_ip: str = "") -> str:
        """OK, or the reason of the refusal."""
        return (await self.validate_all([secret], client_ip))[0]

    async def validate_all(self, secrets: Sequence[str], client_ip: str = "") -> list[str]:
        """The same for a list."""
        return [result.refusal.reason or "OK" for result in await self.results(secrets, client_ip)]

    async def results(
        self, secrets: Sequence[str], client_ip: str = ""
    ) -> Sequence[validation_pb2.KeyValidation]:
        """The answers as they are."""
        credentials = [validation_pb2.KeyCredential(secret=s, client_ip=client_ip) for s in secrets]
        response = await self.internal.ValidateKeys(
            validation_pb2.ValidateKeysRequest(credentials=credentials)
        )
        return response.results


@dataclass
class User:
    """An account and a good access token of it."""

    id: UUID
    token: str = field(repr=False)

    @property
    def auth(self) -> tuple[tuple[str, str], ...]:
        """Metadata of a logged-in caller."""
        return (("authorization", f"Bearer {self.token}"),)


def with_key(secret: str, *more: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    """Metadata of a caller with an API key."""
    return (("x-api-key", secret), *more)


@dataclass
class World:
    """Where a test lives."""

    database: Database
    sql: asyncpg.Connection[asyncpg.Record]
    redis_url: str
    cable: Cable
    mint: TokenMint
    jwks_url: str

    async def user(self) -> User:
        """A new account."""
        user_id = uuid7()
        await self.sql.execute(
            "INSERT INTO public.users (id, email) VALUES ($1, $2)", user_id, f"{user_id}@x.test"
        )
        return User(user_id, self.mint.token(user_id))

    def operator(self, operator_id: UUID | None = None) -> tuple[tuple[str, str], ...]:
        """Metadata of an operator."""
        token = self.mint.token(operator_id or uuid7(), role="service_role")
        return (("authorization", f"Bearer {token}"),)

    def settings(self, **changes: Any) -> KeysSettings:
        """Those of a replica, whose line to PostgreSQL is the cable."""
        parts = urlsplit(self.database.dsn("signgate_keys"))
        netloc = f"{parts.netloc.rpartition(':')[0]}:{self.cable.port}"
        return KeysSettings(
            **{
                "grpc_listen": "127.0.0.1:0",
                "postgres_dsn": urlunsplit(parts._replace(netloc=netloc)),
                "redis_url": login(self.redis_url, "keys"),
                "jwks_url": self.jwks_url,
                "jwt_issuer": self.mint.issuer.name,
                "key_pepper": PEPPER_1,
                "drain_grace": 0.2,
                **shared().settings("keys"),
                **changes,
            }
        )

    @asynccontextmanager
    async def replica(self, *, told_only: bool = False, **changes: Any) -> AsyncIterator[Replica]:
        """A running keys service. `told_only`: its records grow older than any operator may let them, so
        that what it sees of a change within a minute, a message told it.
        """
        settings = self.settings(**changes)
        if told_only:
            settings = settings.model_copy(update={"soft_age": 60.0, "hard_age": 60.0})
        async with AsyncExitStack() as stack:
            runtime = await stack.enter_async_context(running("keys", settings, compose))
            assert runtime.grpc_address is not None
            channel = await stack.enter_async_context(
                create_channel(str(runtime.grpc_address), peer=shared().peer("signer", "keys"))
            )
            yield Replica(
                runtime.grpc_address,
                keys_pb2_grpc.KeysServiceStub(channel),
                admin_pb2_grpc.KeysAdminServiceStub(channel),
                validation_pb2_grpc.KeyValidationServiceStub(channel),
            )


async def create(replica: Replica, user: User, **members: Any) -> pb.CreateKeyResponse:
    """A new key of a user."""
    request = pb.CreateKeyRequest(**{"name": "test", **members})
    return await replica.owner.CreateKey(request, metadata=user.auth)


async def refused(call: grpc.aio.UnaryUnaryCall[Any, Any] | Any) -> str:
    """The reason for which a call is refused. Fails when it is not."""
    try:
        await call
    except SigngateError as error:
        return error.reason
    raise AssertionError("the call succeeded")
