"""Deletes answers to requests that can't be repeated any more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from servicekit import log
from servicekit.errors import Unavailable

EVERY: Final = 300.0
AT_MOST: Final = 1000

_log = log.get("sweep")


async def sweep(drop_old: Callable[[int], Awaitable[int]], every: float = EVERY) -> None:
    """Until cancelled, in short statements. Any number of replicas may run it at once."""
    while True:
        dropped = 0
        try:
            dropped = await drop_old(AT_MOST)
        except Unavailable as error:
            _log.warning("old answers stay for now", cause=error.__cause__ or error)
        if dropped < AT_MOST:
            await asyncio.sleep(every)
