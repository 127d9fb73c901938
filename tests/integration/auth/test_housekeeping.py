"""What is swept, what is kept, and what reaches the log."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from datetime import timedelta
from uuid import UUID

import pytest
import structlog

from servicekit import log
from servicekit.errors import PermissionDenied, Unauthenticated
from servicekit.postgres import open_database
from servicekit.testing.postgres import Database
from services.auth.store import Store
from signgate.auth.v1 import auth_pb2
from tests.integration.auth.world import PASSWORD, World, bearer


async def test_the_sweep_takes_what_has_ended_and_leaves_what_lives(world: World, database: Database) -> None:
    """A refresh token's parents stay while its session lives: they are what tells of a theft."""
    alive, ended = await world.user(), await world.user()
    second = await world.refresh(alive.refresh_token)
    await world.rpc.Recover(auth_pb2.RecoverRequest(email=alive.user.email))
    code = await world.mailbox.code(alive.user.email, 2)
    for sql, session in [
        ("UPDATE auth.refresh_tokens SET created_at = created_at - $2::interval WHERE user_id = $1", alive),
        ("UPDATE auth.sessions SET revoked_at = now() - $2::interval WHERE user_id = $1", ended),
        ("UPDATE auth.one_time_tokens SET expires_at = now() - $2::interval WHERE user_id = $1", ended),
    ]:
        await world.sql.execute(sql, UUID(session.user.id), timedelta(days=40))

    async with open_database(database.dsn("signgate_auth"), name="test") as pool:
        await Store(pool).sweep()

    for table in ("sessions", "refresh_tokens", "one_time_tokens"):
        query = f"SELECT count(*) FROM auth.{table} WHERE user_id = $1"
        assert await world.sql.fetchval(query, UUID(ended.user.id)) == 0
    third = await world.refresh(second.refresh_token)
    with pytest.raises(Unauthenticated) as reused:
        await world.refresh(alive.refresh_token)
    assert reused.value.reason == "REFRESH_TOKEN_ALREADY_USED"
    with pytest.raises(Unauthenticated):
        await world.refresh(third.refresh_token)
    assert (await world.verify(alive.user.email, code, auth_pb2.OTP_TYPE_RECOVERY)).user.id == alive.user.id


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """What the service logs. Not at debug: the test's own mail server logs every line it reads there."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    log.configure("auth", "info", stream)
    yield stream
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


async def test_no_address_code_password_or_token_reaches_the_log(world: World, written: io.StringIO) -> None:
    session = await world.user()
    email = session.user.email
    world.mailbox.refuse = f"550 <{email}> is not known here"
    await world.rpc.Recover(auth_pb2.RecoverRequest(email=email))
    with pytest.raises(Unauthenticated):
        await world.sign_in(email, "a wrong password")
    with pytest.raises(PermissionDenied):
        await world.verify(email, "000000", auth_pb2.OTP_TYPE_RECOVERY)
    await world.auth.http.post("/token?grant_type=password", json={"email": email, "password": "x"})
    await world.rpc.SignOut(auth_pb2.SignOutRequest(), metadata=bearer(session))
    world.mailbox.refuse = ""
    other = await world.user()  # its mail is behind the refused one
    text = written.getvalue()
    assert "the mail server refused a letter" in text
    code = await world.mailbox.code(other.user.email)
    for secret in (email, other.user.email, code, PASSWORD, session.access_token, session.refresh_token):
        assert secret not in text
