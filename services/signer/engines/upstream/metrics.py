"""What the upstream engine counts."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter

REQUESTS: Final = Counter(
    "signgate_upstream_requests",
    "Tries at upstreams: ok, timeout, unreachable, failed, limited, denied (our key or plan there), refused"
    " (the request), bad_answer (not by the contract).",
    ("upstream", "outcome"),
)
