"""What the signer counts beside servicekit's metrics, and its engines' own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from prometheus_client import Counter, Gauge

from servicekit.telemetry import BUCKETS, LoopHistogram
from services.signer.jobs import Job

RESULTS: Final = Counter(
    "signgate_signer_results", "URLs answered: OK, or the reason why not.", ("engine", "result")
)
UNKNOWN: Final = Counter(
    "signgate_signer_unknown",
    "URLs of callers that nobody could name: of these there is no event.",
    ("reason",),
)
STAGES: Final = LoopHistogram(
    "signgate_signer_stage_seconds", "A list's stages: identify, charge, sign, record.", ("stage",), BUCKETS
)
EVENTS_LOST: Final = Counter(
    "signgate_signer_events_lost",
    "Events of refusals and failures that Redis did not take. A signature's event is never lost: without it"
    " the request is refused.",
)
REFUNDS: Final = Counter(
    "signgate_signer_refunds",
    "Charges taken back: done, retried, or given_up (then the lease takes them back).",
    ("outcome",),
)
STREAMS_OPEN: Final = Gauge("signgate_signer_streams_open", "SignStream calls that are open.")
STREAMS_ENDED: Final = Counter(
    "signgate_signer_streams_ended", "Streams that the signer ended while they did nothing.", ("reason",)
)
ENGINE_READY: Final = Gauge(
    "signgate_signer_engine_ready", "1 when the engine's last canary held.", ("engine",)
)


def count_results(jobs: Iterable[Job]) -> None:
    """Count a list's answers: one update for each kind of answer, not for each member."""
    found: dict[tuple[str, str], int] = {}
    for job in jobs:
        if job.caller is None:
            reason = "UNKNOWN" if job.error is None else job.error.reason
            UNKNOWN.labels(reason).inc(len(job.parts))
            continue
        for part in job.parts:
            error = part.error or job.error
            result = (part.engine, "OK" if error is None else error.reason)
            found[result] = found.get(result, 0) + 1
    for labels, count in found.items():
        RESULTS.labels(*labels).inc(count)
