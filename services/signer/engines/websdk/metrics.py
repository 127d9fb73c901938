"""What the websdk engine counts."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge

from servicekit.telemetry import BUCKETS, SIZES, LoopHistogram

PAGES: Final = Gauge("signgate_websdk_pages", "Pages that sign now.")
REPLACED: Final = Counter(
    "signgate_websdk_replaced", "Pages replaced: count, age, heap, lost; browser: the whole of it.", ("why",)
)
LIST_SIZE: Final = LoopHistogram(
    "signgate_websdk_list_size", "Requests of one call of a page.", (), SIZES
).series()
CALL: Final = LoopHistogram(
    "signgate_websdk_call_seconds", "Calls that a page answered.", (), BUCKETS
).series()
WAITING: Final = Gauge("signgate_websdk_waiting", "Requests that wait for a page.")
RETRIED: Final = Counter("signgate_websdk_retried", "Requests that were tried once more.")
REFUSED: Final = Counter(
    "signgate_websdk_requests_refused", "Requests of the script to anywhere: all are refused."
)
