"""The PostgreSQL helpers against a real server: as whom a statement runs, and what trouble looks like."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from uuid import UUID, uuid4

import asyncpg
import pytest
from prometheus_client import REGISTRY

from servicekit.keepalive import OPTIONS
from servicekit.postgres import Database, DatabaseUnavailable, open_database
from servicekit.principal import Principal
from servicekit.testing.network import free_port
from servicekit.testing.postgres import Cluster, postgres_cluster

ALICE, BOB = UUID(int=0xA11CE), UUID(int=0xB0B)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Without the product's schema: what is tested here must hold for any."""
    with postgres_cluster(migrated=False) as server:
        server.database().execute("""
            CREATE ROLE signgate_keys LOGIN NOINHERIT;
            CREATE TABLE notes (id int PRIMARY KEY, owner uuid NOT NULL);
            ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
            CREATE POLICY own ON notes TO signgate_keys
                USING (owner::text = nullif(current_setting('request.jwt.claims', true), '')::json ->> 'sub');
            GRANT SELECT, INSERT ON notes TO signgate_keys;
            CREATE POLICY write ON notes FOR INSERT TO signgate_keys WITH CHECK (true);
        """)
        server.create_login("signgate_keys")
        server.database().execute(
            "INSERT INTO notes VALUES (1, '00000000-0000-0000-0000-0000000a11ce'),"
            " (2, '00000000-0000-0000-0000-000000000b0b')"
        )
        yield server


@pytest.fixture
async def database(cluster: Cluster) -> AsyncIterator[Database]:
    dsn = cluster.database().dsn("signgate_keys")
    async with open_database(
        dsn, name="keys", max_size=2, acquire_timeout=1.5, statement_timeout=1.5
    ) as opened:
        yield opened


async def test_idle_connections_are_probed(database: Database) -> None:
    """Else a server that went without a word is found out by somebody's request."""
    async with database.connection() as connection:
        where = connection._transport.get_extra_info("socket")  # type: ignore[attr-defined]  # told by nobody else
        assert where.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert OPTIONS
        for option, seconds in OPTIONS.items():
            assert where.getsockopt(socket.IPPROTO_TCP, option) == seconds


async def test_who_loses_a_deadlock_may_try_again(cluster: Cluster, database: Database) -> None:
    """The server rolls one of the two back: nothing is wrong with the request."""
    together = asyncio.Barrier(2)

    async def lock(first: int, second: int) -> None:
        async with database.transaction() as connection:
            await connection.execute("SELECT pg_advisory_xact_lock($1)", first)
            await together.wait()
            await connection.execute("SELECT pg_advisory_xact_lock($1)", second)

    found = await asyncio.gather(lock(1, 2), lock(2, 1), return_exceptions=True)
    (lost,) = [error for error in found if error is not None]
    assert isinstance(lost, DatabaseUnavailable)
    assert isinstance(lost.__cause__, asyncpg.DeadlockDetectedError)
    assert lost.retry_after


async def test_as_a_user_only_that_users_rows_are_there(database: Database) -> None:
    """Even when the statement forgets to ask for them."""
    async with database.as_user(Principal(ALICE)) as connection:
        assert [row["id"] for row in await connection.fetch("SELECT id FROM notes")] == [1]
    async with database.as_user(Principal(BOB)) as connection:
        assert [row["id"] for row in await connection.fetch("SELECT id FROM notes")] == [2]


async def test_claims_reach_the_database_whole(database: Database) -> None:
    session = uuid4()
    async with database.as_user(Principal(ALICE, session_id=session, aal="o'clock")) as connection:
        claims = await connection.fetchval("SELECT current_setting('request.jwt.claims')::jsonb ->> 'aal'")
        assert claims == "o'clock"
        sid = await connection.fetchval(
            "SELECT current_setting('request.jwt.claims')::jsonb ->> 'session_id'"
        )
        assert UUID(sid) == session


async def test_role_and_claims_end_with_the_transaction(database: Database) -> None:
    """A pooled connection must not carry one user's identity to the next."""
    async with database.as_user(Principal(ALICE)):
        pass
    for _ in range(4):
        row = await database.fetchrow(
            "SELECT current_user AS who, current_setting('request.jwt.claims', true) AS claims"
        )
        assert row is not None
        assert row["who"] == "signgate_keys"
        assert not row["claims"]


async def test_it_stays_the_services_own_role(database: Database) -> None:
    """There is none to become: that claims are set opens nothing that the role has no policy for."""
    async with database.as_user(Principal(ALICE)) as connection:
        assert await connection.fetchval("SELECT current_user") == "signgate_keys"
        assert await connection.fetchval("SELECT current_setting('role')") == "none"
    assert await database.fetch("SELECT id FROM notes") == []


async def test_an_administrator_is_no_one_user(database: Database) -> None:
    """What administrators ask for has functions of its own."""
    with pytest.raises(ValueError, match="role"):
        async with database.as_user(Principal(UUID(int=0), role="service_role")):
            pytest.fail("it can't have begun")


async def test_a_role_that_nobody_knows_is_not_put_into_sql(database: Database) -> None:
    wrong = Principal(ALICE, role="postgres; DROP TABLE notes")  # type: ignore[arg-type]  # what must fail
    with pytest.raises(ValueError, match="role"):
        async with database.as_user(wrong):
            pytest.fail("it can't have begun")


async def test_a_transaction_is_undone_by_any_exception(database: Database, cluster: Cluster) -> None:
    async def half() -> None:
        async with database.transaction() as connection:
            await connection.execute("INSERT INTO notes VALUES (3, $1)", ALICE)
            raise KeyError

    with pytest.raises(KeyError):
        await half()
    assert cluster.database().execute("SELECT count(*) FROM notes") == "2"


async def test_a_constraint_violation_is_left_to_the_store(database: Database) -> None:
    with pytest.raises(asyncpg.UniqueViolationError):
        await database.execute("INSERT INTO notes VALUES (1, $1)", ALICE)


async def test_a_statement_that_takes_too_long_is_stopped_by_the_server(database: Database) -> None:
    started = time.monotonic()
    with pytest.raises(DatabaseUnavailable):
        await database.execute("SELECT pg_sleep(20)")
    assert time.monotonic() - started < 15
    await database.ping()


async def test_waiting_for_a_connection_is_bounded(database: Database) -> None:
    async with database.connection(), database.connection():
        with pytest.raises(DatabaseUnavailable):
            await database.ping()
    await database.ping()


async def test_a_connection_that_was_cut_is_told_and_replaced(database: Database, cluster: Cluster) -> None:
    await database.ping()

    async def cut() -> None:
        async with database.connection() as connection:
            running = asyncio.create_task(connection.execute("SELECT pg_sleep(1.2)"))
            await asyncio.sleep(0.05)
            await asyncio.to_thread(
                cluster.database().execute,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'signgate_keys'",
            )
            await running

    with pytest.raises(DatabaseUnavailable) as caught:
        await cut()
    assert "signgate_keys" not in str(caught.value)
    for _ in range(3):
        try:
            await database.ping()
            break
        except DatabaseUnavailable:
            continue
    await database.ping()


async def test_nobody_there_or_a_wrong_password_is_told_at_start(cluster: Cluster) -> None:
    here = cluster.database().dsn("signgate_keys")
    for dsn in (
        here.replace(str(cluster.port), str(free_port())),
        here.replace(cluster.passwords["signgate_keys"], "hunter2"),
        here.replace("/postgres?", "/nowhere?"),
    ):
        with pytest.raises(DatabaseUnavailable) as caught:
            async with open_database(dsn, name="t"):
                pytest.fail("it can't have opened")
        assert "hunter2" not in str(caught.value)


async def test_a_pools_use_is_in_the_metrics_while_it_is_open(cluster: Cluster) -> None:
    def use() -> list[float | None]:
        name, pool = "signgate_postgres_pool_connections", {"pool": "observed"}
        return [
            REGISTRY.get_sample_value(name, pool | {"state": "in_use"}),
            REGISTRY.get_sample_value(name, pool | {"state": "idle"}),
            REGISTRY.get_sample_value(f"{name}_max", pool),
            REGISTRY.get_sample_value("signgate_postgres_pool_wait_seconds_count", pool),
        ]

    async with open_database(cluster.database().dsn("signgate_keys"), name="observed", max_size=3) as one:
        assert use() == [0, 1, 3, 0]
        async with one.connection(), one.connection():
            assert use() == [2, 0, 3, 2]
        assert use() == [0, 2, 3, 2]
    assert use() == [None, None, None, 2]
