"""Sessions that ended in the table, and that the deny-set was not told of.

A use case that ends sessions denies them itself. This denies what no use case did: a statement by hand or a
trigger ended them, or the use case's own write failed. So what the table says soon holds everywhere.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

from servicekit import log
from servicekit.errors import Unavailable
from services.auth.service.kit import Kit

EVERY: Final = 0.25
"""Seconds between two looks."""
_rest: Final = 2.0
_batch: Final = 500
_log = log.get("revocation")


async def deny_ended(kit: Kit) -> int:
    """Deny sessions that ended and were not denied yet; returns how many. Safe to run in several replicas.

    Raises `Unavailable`; then they are found again.
    """
    oldest = kit.clock.now() - timedelta(seconds=kit.tokens.ttl + 60)  # older ones have no live token
    async with kit.store.unit() as unit:
        found = await unit.sessions.undenied(oldest, _batch)
        await kit.deny(found)
        await unit.sessions.denied(found)
    return len(found)


async def keep_denying(kit: Kit) -> None:
    """`deny_ended`, for ever."""
    while True:
        await asyncio.sleep(EVERY)
        try:
            while await deny_ended(kit) == _batch:
                pass
        except Unavailable as error:
            _log.warning("sessions that ended are denied later", cause=error.__cause__)
            await asyncio.sleep(_rest)
        except Exception:  # noqa: BLE001  # whatever it is, sessions that end later must be denied
            _log.exception("denying sessions failed")
            await asyncio.sleep(_rest)
