"""Moves keys to the newest pepper, each when it is next presented: only then is the key itself known."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final
from uuid import UUID

from servicekit import log
from servicekit.errors import Unavailable
from services.keys.metrics import REHASHED
from services.keys.peppers import Peppers

Write = Callable[[UUID, bytes, bytes, int], Awaitable[bool]]
"""Key id, hash as it was read, new hash, its pepper's version: whether it was still as read."""

_pause: Final = 0.05

_log = log.get("rehash")


class Rehasher:
    """A short queue behind the hot path: a key that finds it full is moved another time."""

    def __init__(self, write: Write, peppers: Peppers, *, size: int = 1000) -> None:
        self._write = write
        self._peppers = peppers
        self._queue: asyncio.Queue[tuple[UUID, bytes, bytes]] = asyncio.Queue(size)
        self._waiting: set[UUID] = set()

    def add(self, key_id: UUID, secret: str, old: bytes) -> None:
        """Note a key that has just proven itself under an older pepper. Keeps its new hash, not the key."""
        if key_id not in self._waiting and not self._queue.full():
            self._waiting.add(key_id)
            self._queue.put_nowait((key_id, old, self._peppers.digest(secret)))

    async def run(self) -> None:
        """Until cancelled: one short statement at a time."""
        while True:
            key_id, old, new = await self._queue.get()
            try:
                if await self._write(key_id, old, new, self._peppers.current):
                    REHASHED.inc()
            except Unavailable as error:
                _log.warning("a hash was not renewed", key_id=str(key_id), cause=error.__cause__ or error)
            finally:
                self._waiting.discard(key_id)
            await asyncio.sleep(_pause)
