"""A backup, taken while everybody signs, is put into an empty stack: nothing of before it is missing."""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from signgate_client import Signgate
from tests.chaos import system
from tests.chaos.load import Load, Record
from tests.chaos.system import User
from tests.containers.stack import Stack

pytestmark = pytest.mark.timeout(900)

_tables = """
SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
WHERE schemaname NOT IN ('pg_catalog', 'information_schema')
  AND tablename !~ '^(usage_|quota_usage|api_key_quota_usage)'
"""
"""All but those that signing fills, which `missing` and reconciliation look at."""


async def contents(sql: asyncpg.Connection[Any]) -> dict[str, str]:
    """A digest of every row of each table, less when a key was last used, which moves on while one looks."""
    found = {}
    for (table,) in await sql.fetch(_tables):
        row = "(to_jsonb(r) - 'last_used')::text"
        found[table] = await sql.fetchval(f"SELECT md5(string_agg({row}, ',' ORDER BY {row})) FROM {table} r")
    return found


async def missing(sql: asyncpg.Connection[Any], record: Record, before: float) -> list[str]:
    """Signatures acknowledged before a moment that have no row."""
    ids = {
        one
        for account in record.accounts.values()
        for one, when in account.acknowledged.items()
        if when < before
    }
    assert len(ids) > 50
    rows = await sql.fetch(
        "SELECT id::text FROM usage_logs WHERE success AND id = ANY($1::uuid[])", list(ids)
    )
    return sorted(ids - {row["id"] for row in rows})


async def test_a_backup_of_a_busy_stack_restored_into_an_empty_one_lacks_nothing(
    stack: Stack, tmp_path: Path
) -> None:
    name = f"kept-{uuid.uuid4().hex[:8]}"
    users = [stack.sign_up(User(f"{name}-{number}")) for number in range(3)]
    await system.grant(replace(stack, users=users))
    with Signgate(stack.edge, api_key=users[0].key) as caller:
        signed = caller.sign("@kept").signed_url
    sql = await stack.sql()
    load = Load(stack.edge, users, seed=1)
    signing = asyncio.create_task(load.run())
    await asyncio.sleep(5)
    kept = await contents(sql)
    await sql.close()
    # Loggers are stopped short: some of it is in the streams alone.
    await asyncio.to_thread(stack.compose, "pause", "logger")
    await asyncio.sleep(2)
    began = time.monotonic()
    await asyncio.to_thread(stack.script, "backup.sh", str(tmp_path / "backup"))
    await asyncio.to_thread(stack.compose, "unpause", "logger")
    assert max(load.record.steady) > began, "nobody signed meanwhile"
    load.stop()
    await signing

    stack.down()
    stack.script("restore.sh", str(tmp_path / "backup"))
    stack.up()
    await asyncio.to_thread(stack.drain, 60)
    sql = await stack.sql()
    try:
        assert await contents(sql) == kept
        assert await missing(sql, load.record, began) == []
    finally:
        await sql.close()
    assert stack.dead_letters() == 0
    assert stack.reconcile() == []
    with Signgate(stack.edge, api_key=users[0].key) as caller:
        assert caller.verify(signed).valid
        assert caller.sign("@after").signed_url


def test_a_backup_does_not_go_over_data(stack: Stack, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    stack.script("backup.sh", str(backup))
    with pytest.raises(RuntimeError, match="Redis has data"):
        stack.script("restore.sh", str(backup))
