"""What the logger counts beside servicekit's metrics."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

committed: Final = Counter("signgate_usage_rows_committed", "Rows newly in usage_logs.")
duplicates: Final = Counter(
    "signgate_usage_rows_duplicate", "Rows that a redelivery brought again, and that changed nothing."
)
batch_rows: Final = Histogram(
    "signgate_usage_batch_rows", "Rows a transaction.", buckets=(1, 10, 50, 100, 500, 1000, 2000, 5000, 10000)
)
claimed: Final = Counter(
    "signgate_usage_entries_claimed", "Entries taken over from a consumer that went silent."
)
dead_letters: Final = Counter("signgate_usage_dead_letters", "Entries set aside as poison.")
dead_letters_held: Final = Gauge(
    "signgate_usage_dead_letters_held", "Entries set aside that were neither replayed nor dropped yet."
)
retries: Final = Counter("signgate_usage_retries", "Waits for PostgreSQL or Redis.")
settle_failures: Final = Counter(
    "signgate_usage_settle_failures", "Batches whose charges could not be settled at once."
)
stream_length: Final = Gauge("signgate_usage_stream_length", "Entries that a stream holds.", ("stream",))
stream_pending: Final = Gauge(
    "signgate_usage_stream_pending", "Entries delivered and not acknowledged.", ("stream",)
)
stream_lag: Final = Gauge(
    "signgate_usage_stream_lag_seconds", "Age of the oldest entry that is not acknowledged.", ("stream",)
)
stream_fill: Final = Gauge(
    "signgate_usage_stream_fill_ratio",
    "Memory that a stream takes up, as part of what it may; at 1 requests are refused (USAGE_BACKLOG).",
    ("stream",),
)
streams_seen: Final = Gauge(
    "signgate_usage_streams_seen_timestamp_seconds", "When the streams were last looked at, and trimmed."
)
partitions_ensured: Final = Gauge(
    "signgate_usage_partitions_ensured_timestamp_seconds",
    "When the partitions of the months ahead were last seen to be there.",
)
difference: Final = Gauge(
    "signgate_usage_difference", "Units by which books differ, at the last comparison.", ("kind",)
)
reconciled: Final = Gauge("signgate_usage_reconciled_timestamp_seconds", "When the books were last compared.")
alerts_made: Final = Counter("signgate_usage_alerts_made", "Alerts made for users near their quota.")
alerts_delivered: Final = Counter(
    "signgate_usage_alert_deliveries",
    "What became of users' alerts, by way (mail, webhook) and outcome.",
    ("way", "outcome"),
)
exports: Final = Gauge("signgate_usage_exports", "Exports under way.")
exports_refused: Final = Counter(
    "signgate_usage_exports_refused", "Exports refused, by whose limit: key, user or service.", ("scope",)
)
redis_memory: Final = Gauge("signgate_redis_memory_used_bytes", "Memory that Redis uses.", ("node",))
redis_memory_max: Final = Gauge(
    "signgate_redis_memory_max_bytes", "Memory that Redis may use; 0: no bound.", ("node",)
)
redis_persisting: Final = Gauge(
    "signgate_redis_persisting",
    "1 while Redis' append-only file is on and takes its writes: 0 for a full disk.",
    ("node",),
)
postgres_bytes: Final = Gauge("signgate_postgres_database_bytes", "What the database takes up on disk.")
postgres_connections: Final = Gauge(
    "signgate_postgres_server_connections", "Connections to the PostgreSQL server, of everybody."
)
postgres_connections_max: Final = Gauge(
    "signgate_postgres_server_connections_max", "Connections that the PostgreSQL server takes."
)
