"""Changed keys, told to every replica by Redis pub/sub on `keys:invalidate` (payload: the key id).

A message makes a revocation count at once; nothing rests on it. When Redis is down, the change
succeeds all the same, validation works on, and the records' soft age bounds the delay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

from servicekit import log
from servicekit.redis import Redis, open_redis, translated
from services.keys.metrics import PUBLISH_FAILED, SUBSCRIBED

CHANNEL: Final = "keys:invalidate"
_first_wait: Final = 0.05
_longest_wait: Final = 1.0
_silence: Final = 1.0

_log = log.get("invalidation")


class Invalidation:
    """Drops the record here, and publishes. `client` may be down at any time."""

    def __init__(self, client: Redis, forget: Callable[[UUID], None]) -> None:
        self._client = client
        self._forget = forget

    async def invalidate(self, *key_ids: UUID) -> None:
        """See `ports.Invalidator`. Waits for Redis at most one timeout, for any number of keys."""
        for key_id in key_ids:
            self._forget(key_id)
        for place, key_id in enumerate(key_ids):
            try:
                with translated():
                    await self._client.publish(CHANNEL, str(key_id))
            except Exception as error:  # noqa: BLE001  # the change is committed: failing now would be a lie
                # The rest would wait as long as this one did.
                PUBLISH_FAILED.inc(len(key_ids) - place)
                cause = error.__cause__ or error
                _log.warning("an invalidation was not published", key_id=str(key_id), cause=cause)
                return


class Subscription:
    """Takes what other replicas publish, for ever, over a connection of its own.

    Whenever it has to connect again, messages may have been missed: then `distrust` is called.
    """

    def __init__(self, url: str, forget: Callable[[UUID], None], distrust: Callable[[], None]) -> None:
        self._url = url
        self._forget = forget
        self._distrust = distrust
        self.subscribed = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled. Never ends by trouble with Redis."""
        wait = _first_wait
        while True:
            try:
                async with (
                    open_redis(self._url, name="keys-invalidations", max_connections=2) as client,
                    client.pubsub(ignore_subscribe_messages=True) as channel,
                ):
                    with translated():
                        await channel.subscribe(CHANNEL)
                    self._distrust()
                    self._mark(subscribed=True)
                    wait = _first_wait
                    await self._listen(channel)
            except Exception as error:  # noqa: BLE001  # also a refusal of Redis, which may be lifted
                _log.warning("invalidations don't arrive", cause=error.__cause__ or error)
            finally:
                self._mark(subscribed=False)
            await asyncio.sleep(wait)
            wait = min(wait * 2, _longest_wait)

    async def _listen(self, channel: Any) -> None:
        while True:
            with translated():
                message = await channel.get_message(ignore_subscribe_messages=True, timeout=_silence)
                if message is None:
                    # A connection that died without a word looks just like a quiet one.
                    await channel.ping()
                    continue
            if message["type"] != "message":
                continue
            try:
                self._forget(UUID(message["data"].decode()))
            except (ValueError, UnicodeDecodeError):
                _log.warning("not a key id was published")

    def _mark(self, *, subscribed: bool) -> None:
        SUBSCRIBED.set(int(subscribed))
        if subscribed:
            self.subscribed.set()
        else:
            self.subscribed.clear()
