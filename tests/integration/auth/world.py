"""An auth service in this process, on a real PostgreSQL, a real Redis and a real SMTP server."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import httpx
import jwt
from aiosmtpd.smtp import SMTP, Envelope, Session
from google.protobuf.struct_pb2 import Struct
from redis.asyncio import Redis

from servicekit.clock import SystemClock, SystemIds
from servicekit.config import Address
from servicekit.keyset import KeySetFile
from servicekit.rpc import create_channel
from servicekit.runner import running
from servicekit.testing.identity import shared
from servicekit.testing.postgres import Database
from services.auth.config import AuthSettings
from services.auth.server import compose
from services.auth.tokens import AccessTokens
from signgate.auth.v1 import admin_pb2_grpc, auth_pb2, auth_pb2_grpc, user_pb2
from tests.redis_users import login

PASSWORD = "ten green bottles"
PEPPER = "p" * 44
_numbers = count(1)


class Mailbox:
    """An SMTP server's messages, by recipient."""

    def __init__(self) -> None:
        self.port = 0
        self.refuse = ""
        self._messages: list[tuple[str, EmailMessage]] = []
        self._arrived = asyncio.Condition()

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.refuse:
            return self.refuse
        content = envelope.original_content or b""
        message = message_from_bytes(content, _class=EmailMessage, policy=policy.default)
        async with self._arrived:
            self._messages += [(recipient, message) for recipient in envelope.rcpt_tos]
            self._arrived.notify_all()
        return "250 OK"

    def to(self, address: str) -> list[EmailMessage]:
        """All that came for an address, oldest first."""
        return [message for recipient, message in self._messages if recipient == address]

    async def wait(self, address: str, n: int = 1) -> EmailMessage:
        """The n-th message to an address. Fails after five seconds."""
        async with asyncio.timeout(5), self._arrived:
            await self._arrived.wait_for(lambda: len(self.to(address)) >= n)
        return self.to(address)[n - 1]

    def about(self, address: str, words: str) -> list[EmailMessage]:
        """All for an address whose subject has these words, oldest first."""
        return [message for message in self.to(address) if words in str(message["subject"])]

    async def wait_about(self, address: str, words: str, n: int = 1) -> EmailMessage:
        """The n-th of them. Fails after five seconds."""
        async with asyncio.timeout(5), self._arrived:
            await self._arrived.wait_for(lambda: len(self.about(address, words)) >= n)
        return self.about(address, words)[n - 1]

    async def code(self, address: str, n: int = 1) -> str:
        """The code of the n-th message."""
        found = re.search(r"^\s+(\d{6})\s*$", text_of(await self.wait(address, n)), re.MULTILINE)
        assert found is not None
        return found[1]

    async def link(self, address: str, n: int = 1) -> dict[str, str]:
        """The query of the n-th message's link, and the link itself as `link`."""
        found = re.search(r"https?://\S+/verify\?\S+", text_of(await self.wait(address, n)))
        assert found is not None
        query = {name: values[0] for name, values in parse_qs(urlsplit(found[0]).query).items()}
        return {**query, "link": found[0]}


def text_of(message: EmailMessage) -> str:
    body = message.get_body(("plain",))
    assert body is not None
    return str(body.get_content())


@asynccontextmanager
async def mail_server() -> AsyncIterator[Mailbox]:
    mailbox = Mailbox()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(mailbox, enable_SMTPUTF8=True, loop=loop), "127.0.0.1", 0)
    mailbox.port = server.sockets[0].getsockname()[1]
    async with server:
        yield mailbox


@dataclass
class Auth:
    """One running replica and its faces. `headers` are what the edge adds to a call."""

    settings: AuthSettings
    accounts: auth_pb2_grpc.AuthServiceAsyncStub
    admin: admin_pb2_grpc.AuthAdminServiceAsyncStub
    http: httpx.AsyncClient
    grpc: Address | None = None


@dataclass
class World:
    """What a test has: the replica, its stores, its mail."""

    auth: Auth
    mailbox: Mailbox
    sql: asyncpg.Connection
    redis: Redis
    replica: Callable[..., AbstractAsyncContextManager[Auth]] = field(repr=False)

    @property
    def rpc(self) -> auth_pb2_grpc.AuthServiceAsyncStub:
        return self.auth.accounts

    def address(self) -> str:
        return f"user{next(_numbers)}@example.com"

    def operator(self) -> str:
        """A service-role token, as the operators' tool mints it."""
        settings = self.auth.settings
        tokens = AccessTokens(
            KeySetFile(settings.jwt_keyset_file),
            SystemClock(),
            SystemIds(),
            issuer=settings.jwt_issuer,
            audience=settings.jwt_audience,
            ttl=600,
        )
        return tokens.for_service_role(600)

    async def sign_up(self, email: str, password: str = PASSWORD, **more: Any) -> auth_pb2.SignUpResponse:
        return await self.rpc.SignUp(auth_pb2.SignUpRequest(email=email, password=password, **more))

    async def user(self, email: str | None = None, password: str = PASSWORD) -> user_pb2.Session:
        """A confirmed user's first session."""
        email = email or self.address()
        before = len(self.mailbox.to(email))
        await self.sign_up(email, password)
        code = await self.mailbox.code(email, before + 1)
        return await self.verify(email, code)

    async def verify(
        self, email: str, code: str, kind: auth_pb2.OtpType.ValueType = auth_pb2.OTP_TYPE_SIGNUP
    ) -> user_pb2.Session:
        request = auth_pb2.VerifyRequest(type=kind, email=email, token=code)
        return (await self.rpc.Verify(request)).session

    async def sign_in(self, email: str, password: str = PASSWORD) -> user_pb2.Session:
        request = auth_pb2.SignInRequest(email=email, password=password)
        return (await self.rpc.SignIn(request)).session

    async def refresh(self, token: str) -> user_pb2.Session:
        request = auth_pb2.RefreshSessionRequest(refresh_token=token)
        return (await self.rpc.RefreshSession(request)).session

    async def aged(self, session: user_pb2.Session, seconds: int) -> user_pb2.Session:
        """The session with its proofs of identity so much older, and tokens that say so."""
        await self.sql.execute(
            "UPDATE auth.sessions SET amr = (SELECT jsonb_agg(jsonb_set(proof, '{timestamp}',"
            " to_jsonb((proof ->> 'timestamp')::bigint - $2))) FROM jsonb_array_elements(amr) proof)"
            " WHERE id = $1::uuid",
            claims(session)["session_id"],
            seconds,
        )
        return await self.refresh(session.refresh_token)


def struct(**members: Any) -> Struct:
    found = Struct()
    found.update(members)
    return found


def bearer(session: user_pb2.Session | str) -> tuple[tuple[str, str], ...]:
    token = session if isinstance(session, str) else session.access_token
    return (("authorization", f"Bearer {token}"),)


def claims(session: user_pb2.Session) -> dict[str, Any]:
    found: dict[str, Any] = jwt.decode(session.access_token, options={"verify_signature": False})
    return found


@asynccontextmanager
async def replica(
    database: Database, redis_url: str, smtp_port: int, keyset: Path, **changes: Any
) -> AsyncIterator[Auth]:
    settings = AuthSettings(
        **{
            "grpc_listen": Address("127.0.0.1", 0),
            "http_listen": Address("127.0.0.1", 0),
            "postgres_dsn": database.dsn("signgate_auth"),
            "redis_url": login(redis_url, "auth"),
            "limits_redis_url": login(redis_url, "limits"),
            "keys_addr": "127.0.0.1:1",
            "jwt_keyset_file": keyset,
            "jwt_issuer": "http://signgate.test/auth/v1",
            "token_pepper": PEPPER,
            "site_url": "http://signgate.test",
            "redirect_urls": "http://app.test/*",
            "webauthn_rp_id": "signgate.test",
            "webauthn_origins": "https://signgate.test",
            "smtp_host": "127.0.0.1",
            "smtp_port": smtp_port,
            "even_answer": 0.05,
            "argon2_time_cost": 1,
            "argon2_memory_kib": 8192,
            "drain_grace": 1.0,
            **shared().settings("auth"),
            **changes,
        }
    )
    async with running("auth", settings, compose) as runtime:
        channel = create_channel(str(runtime.grpc_address), timeout=15.0)
        base = f"http://{runtime.http_address}/auth/v1"
        async with channel, httpx.AsyncClient(base_url=base, timeout=15.0) as http:
            yield Auth(
                settings,
                auth_pb2_grpc.AuthServiceStub(channel),
                admin_pb2_grpc.AuthAdminServiceStub(channel),
                http,
                runtime.grpc_address,
            )
