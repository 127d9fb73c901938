"""PostgreSQL by asyncpg: a pool with bounded waits, transactions, and reads for a user.

Every trouble with the server or the pool becomes `Unavailable` (reason DATABASE_UNAVAILABLE): the
driver's own text names hosts and roles and stays in the cause. Constraint violations and errors
that SQL functions raise on purpose pass as asyncpg's, for a store to catch by their class.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import asyncpg
from asyncpg import exceptions as pg

from servicekit.context import request_id
from servicekit.errors import Unavailable
from servicekit.keepalive import keep_alive
from servicekit.principal import Principal
from servicekit.telemetry import (
    POSTGRES_CONNECTIONS,
    POSTGRES_FAILURES,
    POSTGRES_MAX,
    POSTGRES_WAIT,
    Series,
)

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection = PoolConnectionProxy[asyncpg.Record]

_trouble: Final = (
    pg.PostgresConnectionError,
    pg.InterfaceError,  # a closed pool or connection
    pg.OperatorInterventionError,  # shutdown, cancelled by the administrator or a timeout
    pg.InsufficientResourcesError,  # too many connections, disk full
    pg.CannotConnectNowError,
    pg.ReadOnlySQLTransactionError,  # a standby that used to be the primary
    pg.LockNotAvailableError,
    pg.DeadlockDetectedError,  # rolled back whole: the other transaction went first
    pg.SerializationError,
    pg.InvalidCatalogNameError,  # not created yet
    pg.InvalidAuthorizationSpecificationError,
    pg.IdleInTransactionSessionTimeoutError,
    TimeoutError,
    OSError,
)


class DatabaseUnavailable(Unavailable):
    """The database can't be reached, or did not answer in time."""

    reason = "DATABASE_UNAVAILABLE"
    message = "The database is not reachable right now. Try again shortly."


@contextmanager
def translated() -> Iterator[None]:
    """Turn trouble with the database inside the block into `DatabaseUnavailable`."""
    try:
        yield
    except _trouble as error:
        POSTGRES_FAILURES.inc()
        raise DatabaseUnavailable(retry_after=1.0) from error


class Database:
    """A pool. Statements run on their own in a connection each, or together in `transaction`.

    Waits for a free connection are bounded (`DatabaseUnavailable` after `acquire_timeout`), and so
    is every statement, by the server's `statement_timeout`.
    """

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], acquire_timeout: float, waits: Series) -> None:
        self.pool = pool
        self._acquire_timeout = acquire_timeout
        self._waits = waits

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection of the pool, given back at the end; no transaction of its own."""
        began = perf_counter()
        with translated():
            async with self.pool.acquire(timeout=self._acquire_timeout) as connection:
                self._waits.observe(perf_counter() - began)
                yield connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection in a transaction: committed at the end, rolled back on any exception."""
        async with self.connection() as connection, connection.transaction():
            yield connection

    @asynccontextmanager
    async def as_user(self, principal: Principal) -> AsyncIterator[Connection]:
        """A transaction in which row level security sees this user and nobody else.

        The role is still the service's, with its own policies and privileges: with claims a service sees
        one user's rows of its own tables, and of no other service's. So a forgotten WHERE cannot leak a
        row. The audit triggers read the request's id from `signgate.request_id`. All settings end with the
        transaction. Raises `ValueError` for an administrator, who is not one user.
        """
        if principal.role != "authenticated":
            raise ValueError("not the role of one user")
        async with self.transaction() as connection:
            await connection.execute(
                "SELECT set_config('request.jwt.claims', $1, true),"
                " set_config('signgate.request_id', $2, true)",
                claims(principal),
                request_id(),
            )
            yield connection

    async def fetch(self, sql: str, *args: object) -> list[asyncpg.Record]:
        """All rows."""
        async with self.connection() as connection:
            return await connection.fetch(sql, *args)

    async def fetchrow(self, sql: str, *args: object) -> asyncpg.Record | None:
        """The first row, or `None`."""
        async with self.connection() as connection:
            return await connection.fetchrow(sql, *args)

    async def fetchval(self, sql: str, *args: object) -> Any:
        """The first row's first value, or `None`."""
        async with self.connection() as connection:
            return await connection.fetchval(sql, *args)

    async def execute(self, sql: str, *args: object) -> str:
        """Run it; returns the server's command tag (`UPDATE 1`)."""
        async with self.connection() as connection:
            return await connection.execute(sql, *args)

    async def executemany(self, sql: str, rows: Sequence[Sequence[object]]) -> None:
        """Run it for every row, in one transaction."""
        async with self.connection() as connection:
            await connection.executemany(sql, rows)

    async def ping(self) -> None:
        """Readiness: one round trip. Raises `DatabaseUnavailable`."""
        await self.fetchval("SELECT 1")


@asynccontextmanager
async def open_database(
    dsn: str,
    *,
    name: str,
    min_size: int = 1,
    max_size: int = 8,
    acquire_timeout: float = 3.0,
    statement_timeout: float = 5.0,
) -> AsyncIterator[Database]:
    """A pool that has connected once. Raises `DatabaseUnavailable`. Times are seconds.

    `name` shows in `pg_stat_activity`, and in the metrics as the pool's. Statements are prepared once a
    connection and kept.
    """
    with translated():
        pool = await asyncpg.create_pool(
            dsn,
            min_size=min_size,
            max_size=max_size,
            max_inactive_connection_lifetime=300.0,
            timeout=acquire_timeout,
            # Behind the server's own limit: only for a server that no longer answers at all.
            command_timeout=statement_timeout + 1.0,
            init=_keep_alive,
            server_settings={
                "application_name": f"signgate-{name}",
                "statement_timeout": str(int(statement_timeout * 1000)),
                "idle_in_transaction_session_timeout": "30000",
                "timezone": "UTC",
            },
        )
    try:
        with _observed(pool, name):
            yield Database(pool, acquire_timeout, POSTGRES_WAIT.series(name))
    finally:
        try:
            await asyncio.wait_for(pool.close(), 5.0)
        except (TimeoutError, OSError, pg.PostgresError):
            # Still busy at the end of a drain, or the server is gone: cut what is left.
            pool.terminate()


async def _keep_alive(connection: Any) -> None:
    # The driver has no option for it, and tells nobody its socket.
    transport: asyncio.Transport = connection._transport  # noqa: SLF001
    keep_alive(transport.get_extra_info("socket"))


@contextmanager
def _observed(pool: asyncpg.Pool[asyncpg.Record], name: str) -> Iterator[None]:
    """The pool's connections are in the metrics while the block runs."""
    in_use, idle = (POSTGRES_CONNECTIONS.labels(name, state) for state in ("in_use", "idle"))
    in_use.set_function(lambda: pool.get_size() - pool.get_idle_size())
    idle.set_function(pool.get_idle_size)
    POSTGRES_MAX.labels(name).set(pool.get_max_size())
    try:
        yield
    finally:
        for state in ("in_use", "idle"):
            POSTGRES_CONNECTIONS.remove(name, state)
        POSTGRES_MAX.remove(name)


def claims(principal: Principal) -> str:
    """The JSON that `auth.uid()`, `auth.role()` and `auth.jwt()` read."""
    facts: dict[str, object] = {"role": principal.role, "sub": str(principal.user_id), "aal": principal.aal}
    if principal.session_id is not None:
        facts["session_id"] = str(principal.session_id)
    if principal.api_key_id is not None:
        facts["api_key_id"] = str(principal.api_key_id)
    return json.dumps(facts)
