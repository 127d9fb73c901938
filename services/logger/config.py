"""The logger's settings."""

from __future__ import annotations

import socket
from typing import Annotated

from pydantic import Field, SecretStr

from servicekit.config import StoreSettings
from servicekit.mail import SmtpSettings
from servicekit.trust import TokenSettings
from services.logger.places import ExportBounds


class PartitionSettings(StoreSettings):
    """The settings for creating partitions, and the only ones that its job needs.

    `partitions_ahead`: how many months ahead partitions exist. `retention_months`: older partitions are
    dropped; 0 keeps all.
    """

    postgres_dsn: SecretStr
    partitions_ahead: Annotated[int, Field(ge=1, le=36)] = 3
    retention_months: Annotated[int, Field(ge=0)] = 0


class LoggerSettings(PartitionSettings, TokenSettings, SmtpSettings):
    """What the logger is told. Times are seconds unless their name says otherwise.

    `consumer_name`: this replica's name in the group; stable over restarts, so that it finds its own
    unacknowledged entries at once. Another replica's are claimed after `claim_idle`.
    `max_attempts`: how often an entry that fails, nobody knows why, is tried before it is set aside.
    `batch_age`: how long a batch waits for company; `batch_age_busy`: as long as the one before it had
    `BUSY` rows or more (see `consumer`): large batches cost less.
    `sessions_redis_url`: a Redis user that may only look up signed-out sessions; without it, the service's
    own user is used.
    `usage_backlog_bytes`: as the signer's: what one stream may take up in Redis before requests are
    refused. From `backlog_alarm` of it on, each round of housekeeping says so in the log.
    `reconcile_interval`: how often the books are compared, with the counters of `reconcile_users`
    users picked by chance; 0: never.
    `smtp_host`: where alerts are mailed; "" for nowhere. `alerts_interval`: how soon an alert follows
    the commit. `webhook_allow_private`: webhooks may be http and lead into this network. For
    development only: their URLs are users'.
    `ingest_pool`, `upkeep_pool`, `pages_pool`, `statistics_pool`, `exports_pool`: the most connections to
    PostgreSQL for ingestion, for alerts and housekeeping, and for callers' pages, statistics and exports.
    `reads_per_user`: how many connections of each of the last three pools one user may hold (of exports
    always one); `reads_waiting`: how many further calls of that user may wait.
    `exports_per_key`, `exports_per_user`, `exports_at_once`: concurrent exports, in this replica.
    `export_time`: how long an export may take; `export_stall`: how long its receiver may take nothing. The
    edge buffers some megabytes, so to the logger a slow receiver takes nothing for a while.
    """

    redis_url: SecretStr
    sessions_redis_url: SecretStr | None = None
    quota_addr: str
    keys_addr: str
    usage_shards: Annotated[int, Field(ge=1, le=1024)] = 4
    consumer_name: str = Field(default_factory=socket.gethostname, min_length=1)
    batch_entries: Annotated[int, Field(ge=1, le=10_000)] = 500
    batch_rows: Annotated[int, Field(ge=1, le=50_000)] = 5_000
    batch_age: Annotated[float, Field(ge=0, le=5)] = 0.2
    batch_age_busy: Annotated[float, Field(ge=0, le=5)] = 1.0
    claim_idle: Annotated[float, Field(gt=0)] = 10.0
    housekeeping_interval: Annotated[float, Field(gt=0)] = 1.0
    max_attempts: Annotated[int, Field(ge=1, le=50)] = 5
    max_unsettled: Annotated[int, Field(ge=1)] = 100_000
    usage_backlog_bytes: Annotated[int, Field(ge=1_000_000)] = 67_108_864
    backlog_alarm: Annotated[float, Field(gt=0, le=1)] = 0.25
    reconcile_interval: Annotated[float, Field(ge=0)] = 300.0
    reconcile_users: Annotated[int, Field(ge=0)] = 1000
    smtp_host: str = ""
    alerts_interval: Annotated[float, Field(gt=0)] = 1.0
    webhook_allow_private: bool = False
    ingest_pool: Annotated[int, Field(ge=2, le=100)] = 6
    upkeep_pool: Annotated[int, Field(ge=2, le=100)] = 3
    pages_pool: Annotated[int, Field(ge=2, le=100)] = 4
    statistics_pool: Annotated[int, Field(ge=2, le=100)] = 3
    exports_pool: Annotated[int, Field(ge=2, le=100)] = 3
    reads_per_user: Annotated[int, Field(ge=1)] = 2
    reads_waiting: Annotated[int, Field(ge=0)] = 16
    exports_per_key: Annotated[int, Field(ge=1)] = 2
    exports_per_user: Annotated[int, Field(ge=1)] = 4
    exports_at_once: Annotated[int, Field(ge=1)] = 32
    export_time: Annotated[float, Field(gt=0)] = 3600.0
    export_stall: Annotated[float, Field(gt=0)] = 180.0

    def export_bounds(self) -> ExportBounds:
        """How many exports at once, and how long one may take."""
        return ExportBounds(
            of_key=self.exports_per_key,
            of_user=self.exports_per_user,
            of_all=self.exports_at_once,
            seconds=self.export_time,
            stall=self.export_stall,
        )
