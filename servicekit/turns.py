"""A fair share of a pool: the calls of one caller take turns, so that no caller holds the whole pool."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from servicekit.errors import ResourceExhausted
from servicekit.postgres import Database
from servicekit.principal import Principal

if TYPE_CHECKING:
    from servicekit.postgres import Connection


class CallerBusy(ResourceExhausted):
    """A caller has as many calls of this kind under way and waiting as one caller may."""

    reason = "CALLER_BUSY"
    message = "Too many of your calls of this kind are running at once. Wait for their answers."


@dataclass(slots=True)
class _Line:
    turns: asyncio.Semaphore
    members: int = 0


class Turns:
    """For each caller at most `at_once` calls run and `waiting` more wait; further calls are refused.

    Memory is used only for callers with running or waiting calls.
    """

    def __init__(self, at_once: int, waiting: int) -> None:
        self._at_once, self._waiting = at_once, waiting
        self._lines: dict[Hashable, _Line] = {}

    @asynccontextmanager
    async def of(self, caller: Hashable) -> AsyncIterator[None]:
        """A turn of this caller, for the block. Raises `CallerBusy`."""
        line = self._lines.setdefault(caller, _Line(asyncio.Semaphore(self._at_once)))
        if line.members >= self._at_once + self._waiting:
            raise CallerBusy(retry_after=1.0)
        line.members += 1
        try:
            async with line.turns:
                yield
        finally:
            line.members -= 1
            if not line.members:
                del self._lines[caller]

    def __len__(self) -> int:
        """Callers that have calls under way."""
        return len(self._lines)


class SharedDatabase:
    """A pool of which one user has a limited number of connections; other users never wait behind them."""

    def __init__(self, database: Database, turns: Turns) -> None:
        self.database = database
        self._turns = turns

    @asynccontextmanager
    async def as_user(self, principal: Principal) -> AsyncIterator[Connection]:
        """As `Database.as_user`, in the user's turn, by whatever key or login. Raises `CallerBusy`."""
        async with self._turns.of(principal.user_id), self.database.as_user(principal) as connection:
            yield connection
