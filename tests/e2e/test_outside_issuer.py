"""A team keeps its accounts elsewhere: tokens of that issuer open keys, quota, signing and usage here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest

from servicekit.clock import uuid7
from servicekit.keyset import KeySet
from servicekit.testing.tokens import TokenMint
from signgate_client import Signgate, SigngateError
from tests.conftest import OUTSIDE_ISSUER, Running

ROOM = "https://www.tiktok.com/@outside/live"


@pytest.fixture(scope="module")
def mint(running: Running) -> Iterator[TokenMint]:
    """The issuer, its keys published where services were told to look."""
    issuer = TokenMint(OUTSIDE_ISSUER)
    published = json.dumps(KeySet((issuer.key,)).public_jwks(0)).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(published)

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(running.outside_jwks, Handler) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield issuer
        server.shutdown()
        thread.join()


@pytest.fixture
async def user(running: Running) -> UUID:
    """An account of the other issuer's, as its database's triggers make it known here."""
    user_id = uuid7()
    database: Any = await asyncpg.connect(running.dsn())
    await database.execute(
        "INSERT INTO public.users (id, email) VALUES ($1, $2)", user_id, f"{user_id}@outside.test"
    )
    await database.close()
    return user_id


def test_keys_quota_signing_and_usage(running: Running, mint: TokenMint, user: UUID) -> None:
    with Signgate(running.edge, access_token=mint.token(user)) as them:
        assert them.sign(ROOM).signed_url, "on the free tier"
        key = them.create_key("of an account that is kept elsewhere")
        with Signgate(running.edge, api_key=key.secret) as program:
            assert program.sign(ROOM).signed_url
        rows = running.eventually(
            lambda: len(them.list_usage().records) == 2 and them.list_usage(), 30, "rows"
        )
        assert rows
        assert [pool.used_today for pool in them.quota().pools] == [1, 1]


def test_accounts_here_are_not_theirs(running: Running, mint: TokenMint, user: UUID) -> None:
    """The auth service keeps its own accounts, and takes no other issuer's word on them."""
    headers = {"authorization": f"Bearer {mint.token(user)}"}
    assert httpx.get(f"{running.edge_url}/auth/v1/user", headers=headers).status_code == 403
    assert httpx.post(f"{running.edge_url}/auth/v1/logout", headers=headers).status_code == 403


def test_they_make_no_administrators(running: Running, mint: TokenMint) -> None:
    with (
        Signgate(running.edge, access_token=mint.token(role="service_role")) as they,
        pytest.raises(SigngateError, match="TOKEN_INVALID"),
    ):
        they.sign(ROOM)


def test_a_stranger_to_the_database_is_told_so(running: Running, mint: TokenMint) -> None:
    with (
        Signgate(running.edge, access_token=mint.token(uuid7())) as nobody,
        pytest.raises(SigngateError, match="USER_UNKNOWN"),
    ):
        nobody.create_key("whose?")
