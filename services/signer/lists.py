"""A list is a call of its own: it belongs to none of its members, and must be found from each of them.

Its request id is its first member's. Keys and quota log under that id what they do for the list, and its
usage entries carry it to the logger; with nobody else waiting it is the very id that the edge gave. At
level `debug` each list says whose requests it has. In traces it is a span that all of them share.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from servicekit import log, tracing
from servicekit.context import CallContext, enter
from services.signer.jobs import Job

Run = Callable[[list[Job]], Awaitable[Sequence[Job | Exception]]]

_log = log.get("lists")


def as_call(run: Run) -> Run:
    """`run`, in a call of the list's own. What a `Batcher` wants is what it gives."""
    told = log.debugging()

    async def call(jobs: list[Job]) -> Sequence[Job | Exception]:
        first = jobs[0].call
        enter(CallContext(None if first is None else first.request_id))
        size = {"signgate.list.size": len(jobs)}
        with tracing.shared("sign a list", [job.trace for job in jobs], "INTERNAL", size):
            if told:
                _log.debug("a list", request_ids=request_ids(jobs), usage_ids=[job.charge_id for job in jobs])
            return await run(jobs)

    return call


def request_ids(jobs: Sequence[Job]) -> list[str]:
    """Of the calls that jobs came with, each once, in order."""
    return list(dict.fromkeys(job.call.request_id for job in jobs if job.call is not None))
