from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from servicekit.errors import Unavailable
from services.keys.sweep import AT_MOST, sweep


async def test_it_goes_on_while_there_is_more_and_after_trouble() -> None:
    outcomes: Iterator[int | Unavailable] = iter([AT_MOST, AT_MOST, 3, Unavailable(), 0])
    asked: list[int] = []

    async def drop_old(at_most: int) -> int:
        asked.append(at_most)
        outcome = next(outcomes, None)
        if outcome is None:
            raise asyncio.CancelledError
        if isinstance(outcome, Unavailable):
            raise outcome
        return outcome

    with pytest.raises(asyncio.CancelledError):
        await sweep(drop_old, every=0)
    assert asked == [AT_MOST] * 6
