"""What the quota service counts beside servicekit's metrics."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge

DECISIONS: Final = Counter(
    "signgate_quota_decisions",
    "Charges decided, repeated ones among them: granted, partial, undecided, or the limit that denied.",
    ("result",),
)
SHADOW: Final = Counter(
    "signgate_quota_shadow_denials", "Charges granted in shadow mode that the limit would deny.", ("limit",)
)
REFUNDED: Final = Counter("signgate_quota_refunded", "Units taken back by refund.")
SETTLED: Final = Counter("signgate_quota_settled", "Charges that became final.")
RELEASED: Final = Counter("signgate_quota_released", "Units taken back from abandoned reservations.")
LOADS: Final = Counter(
    "signgate_quota_loads", "Users' counters loaded from PostgreSQL: loaded or failed.", ("result",)
)
REDIS_FAILURES: Final = Counter(
    "signgate_quota_redis_failures",
    "Calls without Redis' answer: slow, failed, or open (not asked).",
    ("why",),
)
BREAKER_OPEN: Final = Gauge(
    "signgate_quota_breaker_open", "1 while the circuit breaker of a Redis node is not closed.", ("node",)
)
PLANS_READ: Final = Gauge(
    "signgate_quota_plans_read_timestamp_seconds", "When plans and overrides were last read."
)
WATERMARK: Final = Gauge(
    "signgate_quota_watermark_timestamp_seconds",
    "The moment before which all events are committed and settled, as the logger told last.",
)
