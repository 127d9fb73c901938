"""Work that an answer does not wait for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, Final

from servicekit import log
from servicekit.errors import SigngateError
from services.auth.errors import Overloaded

ROOM: Final = 1000
_log = log.get("later")


class Later:
    """Runs coroutines behind the answers of the calls that hand them in; at most `ROOM` at once."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._hurry = asyncio.Event()

    def do(self, work: Callable[[], Coroutine[Any, Any, None]], after: float) -> None:
        """Begin after so many seconds. Raises `Overloaded` when too much waits; failures are only logged."""
        if len(self._tasks) >= ROOM:
            raise Overloaded(retry_after=1.0)
        task = asyncio.get_running_loop().create_task(self._guarded(work, after))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self, seconds: float) -> None:
        """Wait until all is done, but no longer than that; what is left is cancelled."""
        self._hurry.set()
        if self._tasks:
            _, left = await asyncio.wait(self._tasks, timeout=seconds)
            for task in left:
                task.cancel()

    async def _guarded(self, work: Callable[[], Coroutine[Any, Any, None]], after: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), after)
        try:
            await work()
        except SigngateError as error:
            _log.warning("put off for good", reason=error.reason, cause=error.__cause__)
        except Exception:  # noqa: BLE001  # logged; its caller has long been answered
            _log.exception("unexpected failure")
