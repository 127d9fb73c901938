"""Writes of usage: `ingest_usage()`, and the functions that look after partitions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from asyncpg import exceptions as pg

from servicekit import tracing
from servicekit.clock import Clock
from servicekit.errors import Unavailable
from servicekit.postgres import Database
from services.logger.domain import Ingested, UsageRow
from services.logger.errors import PoisonEntryError

INGEST = "SELECT inserted, duplicates FROM ingest_usage($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13)"
COLUMNS = len(UsageRow._fields)
_insert = {"db.system.name": "postgresql", "db.collection.name": "usage_logs"}

# Lost a race against a deletion or another writer: the same rows may pass the next time.
_again = (pg.ForeignKeyViolationError, pg.DeadlockDetectedError, pg.SerializationError)
# What rows can do wrong; and what they might, for all we know.
_refused = (pg.IntegrityConstraintViolationError, pg.DataError)
_perhaps = (pg.CardinalityViolationError, pg.ProgramLimitExceededError, pg.PLPGSQLError)


class UsageConflict(Unavailable):
    """Another transaction was in the way."""

    reason = "USAGE_CONFLICT"


class IngestBroken(Unavailable):
    """PostgreSQL can't do it for a reason that no row gave: a missing function or grant, a broken file."""

    reason = "INGEST_BROKEN"


class IngestStore:
    """See `consumer.Sink`. One statement is one transaction: rows, counts and `last_used` together."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ingest(self, rows: Sequence[UsageRow]) -> Ingested:
        """Commit rows once each, whoever else commits them too.

        Raises `Unavailable` (try again), or `PoisonEntryError` when some row fits no table. What may be
        the rows' fault and may not passes as it is.
        """
        arrays = list(zip(*rows, strict=True)) if rows else [()] * COLUMNS
        try:
            with tracing.span("ingest_usage", "CLIENT", _insert):
                done = await self._database.fetchrow(INGEST, *arrays)
        except _again as error:
            raise UsageConflict from error
        except _refused as error:
            raise PoisonEntryError(f"PostgreSQL refuses it ({type(error).__name__})") from error
        except _perhaps:
            raise
        except pg.PostgresError as error:
            raise IngestBroken from error
        except (ValueError, TypeError, OverflowError) as error:
            # asyncpg.DataError is a ValueError: a value that no parameter of that type takes.
            raise PoisonEntryError("a value fits no column") from error
        if done is None:
            raise UsageConflict
        return Ingested(inserted=done["inserted"], duplicates=done["duplicates"])


class PartitionStore:
    """See `housekeeping.Partitions`. Idempotent, and safe beside another replica's."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def ensure(self, months_ahead: int) -> None:
        """Partitions of this month and `months_ahead` more are there afterwards."""
        await self._database.execute("SELECT ensure_usage_partitions($1)", months_ahead)

    async def drop_older_than(self, months: int) -> int:
        """Drop partitions wholly before the month `months` ago; returns how many."""
        today = self._clock.now().date()
        first = today.year * 12 + today.month - 1 - months
        rows = await self._database.fetch(
            "SELECT drop_usage_partitions_before($1)", date(first // 12, first % 12 + 1, 1)
        )
        return len(rows)
