"""Fixtures: a real server, and a fresh database a test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import asyncpg
import pytest
import pytest_asyncio

from db.tests.support import User, make_user
from servicekit.testing.postgres import Cluster, Database, postgres_cluster

if TYPE_CHECKING:
    from db.tests.support import Connect, Connection


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    with postgres_cluster() as running:
        # As Supabase has it: who logs in for an interface over SQL, and becomes what a token says.
        running.database().execute(
            "CREATE ROLE authenticator LOGIN NOINHERIT;"
            " GRANT anon, authenticated, service_role TO authenticator"
        )
        running.create_login("authenticator")
        yield running


@pytest.fixture
def database(cluster: Cluster) -> Database:
    return cluster.create_database()


@pytest_asyncio.fixture
async def connect(database: Database) -> AsyncIterator[Connect]:
    """Opens connections as a role; all are closed after the test."""
    async with AsyncExitStack() as stack:

        async def open_as(role: str) -> Connection:
            connection: Connection = await asyncpg.connect(database.dsn(role))
            stack.push_async_callback(connection.close)
            return connection

        yield open_as


@pytest_asyncio.fixture
async def admin(connect: Connect) -> Connection:
    """The superuser, to prepare and to look."""
    return await connect("postgres")


@pytest_asyncio.fixture
async def alice(admin: Connection) -> User:
    return await make_user(admin, "alice")


@pytest_asyncio.fixture
async def bob(admin: Connection) -> User:
    return await make_user(admin, "bob")
