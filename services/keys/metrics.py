"""What the keys service counts beside servicekit's metrics."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge

RECORDS: Final = Gauge("signgate_keys_records", "Keys' records in memory.")
RECORD_READS: Final = Counter("signgate_keys_record_reads", "Records read from PostgreSQL.")
UNSEEN_REFUSED: Final = Counter(
    "signgate_keys_unseen_refused", "Ids never seen before that were not read: too many such waited."
)
READ_FAILED: Final = Counter("signgate_keys_record_read_failed", "Reads of a list of records that failed.")
INVALIDATED: Final = Counter(
    "signgate_keys_invalidated", "Records dropped by an invalidation, here or from afar."
)
VALIDATED: Final = Counter(
    "signgate_keys_validated", "Credentials judged: OK, or the refusal's reason.", ("outcome",)
)
PUBLISH_FAILED: Final = Counter(
    "signgate_keys_publish_failed", "Invalidations that Redis did not take: the records' soft age holds."
)
SUBSCRIBED: Final = Gauge("signgate_keys_subscribed", "1 while invalidations of other replicas arrive.")
NOTICES: Final = Counter(
    "signgate_keys_notices",
    "Notices to owners: sent, refused (by auth: too many, or no such account) or lost.",
    ("outcome",),
)
REHASHED: Final = Counter("signgate_keys_rehashed", "Hashes renewed under the newest pepper.")
