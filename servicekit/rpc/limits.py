"""Quota state as trailing metadata, by the names that HTTP clients know.

`ratelimit-limit`, `ratelimit-remaining`, `ratelimit-reset` (whole seconds left, rounded up),
`x-ratelimit-reset` (epoch seconds), and `retry-after` (whole seconds, rounded up) on a refusal.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from servicekit.errors import QuotaFacts, SigngateError

if TYPE_CHECKING:
    import grpc

Pairs = tuple[tuple[str, str], ...]


def rate_limit_metadata(quota: QuotaFacts) -> Pairs:
    """The four pairs that describe a quota."""
    return (
        ("ratelimit-limit", str(quota.limit)),
        ("ratelimit-remaining", str(quota.remaining)),
        ("ratelimit-reset", str(max(math.ceil(quota.reset_after), 0))),
        ("x-ratelimit-reset", str(math.ceil(quota.reset_at))),
    )


def error_metadata(error: SigngateError) -> Pairs:
    """What an error adds to the trailer: its quota, and `retry-after` when waiting helps."""
    pairs = () if error.quota is None else rate_limit_metadata(error.quota)
    if error.retry_after is not None:
        pairs += (("retry-after", str(max(math.ceil(error.retry_after), 0))),)
    return pairs


def set_rate_limit(context: grpc.aio.ServicerContext[Any, Any], quota: QuotaFacts) -> None:
    """Send the quota's state with this call's answer. Replaces trailing metadata set before."""
    context.set_trailing_metadata(rate_limit_metadata(quota))
