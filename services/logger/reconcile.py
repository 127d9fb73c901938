"""Whether the books agree, at any moment, under load or at rest; and what differs, one by one.

    python -m services.logger.reconcile                  today (UTC); exit status 1 when anything differs
    python -m services.logger.reconcile --day 2026-11-22 another day: without the counters, which are today's

Three identities are held against each other:

1. signatures acknowledged = rows in `usage_logs` + events in the streams (and dead letters);
2. rows = what `usage_hours` and `usage_days` count, and what they charged = `quota_usage`;
3. what was charged today = the counters in Redis, less what is reserved and not final.

It reads only, and may run at any time: how is told in `reconciliation`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import asdict
from datetime import date

from servicekit.clock import SystemClock
from servicekit.config import load
from servicekit.errors import SigngateError
from servicekit.identity import Identity, Peer
from servicekit.postgres import open_database
from servicekit.redis import open_redis
from servicekit.rpc import create_channel
from services.logger.books import DatabaseBooks, StreamBooks
from services.logger.config import LoggerSettings
from services.logger.peers import QuotaClient
from services.logger.reconciliation import Reconciler, Report


async def _run(day: date | None) -> Report:
    settings, clock = load(LoggerSettings), SystemClock()
    peer = Peer("quota", Identity("logger", settings.service_key, clock), settings.tls_ca)
    async with (
        open_database(
            settings.postgres_dsn.get_secret_value(), name="reconcile", max_size=2, statement_timeout=300.0
        ) as database,
        open_redis(settings.redis_address(), timeout=10.0, name="reconcile") as redis,
        create_channel(settings.quota_addr, timeout=5.0, peer=peer) as channel,
    ):
        streams = StreamBooks(redis, settings.usage_shards)
        return await Reconciler(streams, DatabaseBooks(database), QuotaClient(channel), clock).run(day)


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(
        prog="python -m services.logger.reconcile",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--day", type=date.fromisoformat, help="a UTC day, as 2026-11-22")
    parser.add_argument("--json", action="store_true", help="one JSON object, for programs")
    arguments = parser.parse_args()
    try:
        report = asyncio.run(_run(arguments.day))
    except SigngateError as error:
        sys.stderr.write(f"Not compared, because a part can't be read: {error.reason}\n")
        return 2
    if arguments.json:
        sys.stdout.write(json.dumps(asdict(report)) + "\n")
    else:
        sys.stdout.write(
            f"{report.day}  published {report.published:,}; rows {report.rows:,},"
            f" waiting {report.waiting:,}\n            {report.signatures:,} signatures;"
            f" {report.charged:,} charged to {report.users:,} users\n"
        )
        for one in report.differences:
            sys.stdout.write(f"  differs by {one.units:,} ({one.kind}): {one.what}\n")
        sys.stdout.write(f"{len(report.differences)} differences\n")
    return 1 if report.differences else 0


if __name__ == "__main__":
    raise SystemExit(main())
