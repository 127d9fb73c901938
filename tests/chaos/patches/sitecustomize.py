"""Faults that only the chaos run has: Python imports this before a service when this folder is on its path.

The product has no switch for any of it. What is patched stands in CHAOS_PATCHES:

- `fault-point`: the logger kills itself between commit and acknowledgement when the file that
  CHAOS_TRIGGER names is there (and takes it away first);
- `ack-first`: a broken build, which acknowledges before it commits (the fault point is between the two);
- `no-idempotency`: a broken build, in which a redelivered event is another row.
"""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def _fault_point() -> None:
    trigger = Path(os.environ["CHAOS_TRIGGER"])
    try:
        trigger.unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def _patch_fault_point() -> None:
    from services.logger.consumer import Consumer

    commit: Any = Consumer._commit

    async def commit_then_fault(self: Any, batch: Any, attempt: int = 1) -> None:
        await commit(self, batch, attempt)
        _fault_point()

    Consumer._commit = commit_then_fault  # type: ignore[method-assign]


def _patch_ack_first() -> None:
    from services.logger.consumer import Consumer

    commit: Any = Consumer._commit

    async def ack_then_commit(self: Any, batch: Any, attempt: int = 1) -> None:
        await self.stream.acknowledge([entry.id for entry in batch])
        _fault_point()
        await commit(self, batch, attempt)

    Consumer._commit = ack_then_commit  # type: ignore[method-assign]


def _patch_no_idempotency() -> None:
    from services.logger import codec

    row: Any = codec.row

    def row_of_now(event: Any) -> Any:
        return row(event)._replace(created_at=datetime.now(UTC))

    codec.row = row_of_now


_patches = {
    "fault-point": _patch_fault_point,
    "ack-first": _patch_ack_first,
    "no-idempotency": _patch_no_idempotency,
}
for _name in filter(None, os.environ.get("CHAOS_PATCHES", "").split(",")):
    _patches[_name]()
