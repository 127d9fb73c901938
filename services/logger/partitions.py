"""Partitions, now: those of the months ahead are made, those past their time dropped.

    python -m services.logger.partitions

A running logger does the same each hour. Exit status 1 when PostgreSQL can't be asked.
"""

from __future__ import annotations

import asyncio
import sys

from servicekit.clock import SystemClock
from servicekit.config import load
from servicekit.errors import SigngateError
from servicekit.postgres import open_database
from services.logger.config import PartitionSettings
from services.logger.ingest import PartitionStore


async def _run(settings: PartitionSettings) -> int:
    dsn = settings.postgres_dsn.get_secret_value()
    async with open_database(dsn, name="partitions", max_size=1, statement_timeout=60.0) as database:
        partitions = PartitionStore(database, SystemClock())
        await partitions.ensure(settings.partitions_ahead)
        return await partitions.drop_older_than(settings.retention_months) if settings.retention_months else 0


def main() -> int:
    """See the module."""
    settings = load(PartitionSettings)
    try:
        dropped = asyncio.run(_run(settings))
    except SigngateError as error:
        sys.stderr.write(f"Partitions are as they were: {error.reason}\n")
        return 1
    sys.stdout.write(f"{settings.partitions_ahead} months ahead are there; {dropped} partitions dropped\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
