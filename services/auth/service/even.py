"""Answers that must not tell by their time whether an address is known.

Work for a known address (a row, a letter) takes some milliseconds more than for an unknown one. So such
an answer leaves at the next multiple of a fixed quantum after the call began: which multiple that is does
not depend on those milliseconds, save by chance and alike for both.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from servicekit.clock import Clock


class EvenAnswers:
    """Holds answers back until the next multiple of `quantum` seconds; 0 holds none back."""

    def __init__(
        self, clock: Clock, quantum: float, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._clock, self._quantum, self._sleep = clock, quantum, sleep

    @asynccontextmanager
    async def always(self) -> AsyncIterator[None]:
        """However the block ends, it ends at a multiple."""
        started = self._clock.monotonic()
        try:
            yield
        finally:
            await self._wait(started)

    @asynccontextmanager
    async def on_failure(self) -> AsyncIterator[None]:
        """As `always`, but a block that succeeds ends at once: its answer tells everything anyway."""
        started = self._clock.monotonic()
        try:
            yield
        except Exception:
            await self._wait(started)
            raise

    async def _wait(self, started: float) -> None:
        if self._quantum > 0:
            passed = self._clock.monotonic() - started
            await self._sleep(math.ceil(passed / self._quantum) * self._quantum - passed)
