"""Counters that Redis does not have are loaded from what PostgreSQL has committed, user by user.

Four cases, all seen as "to be loaded" by the scripts:

* a user's first charge in this Redis (or the first in a month): loaded at once;
* Redis was started anew or failed over, and may lack the last moments: every user is loaded again at
  their next charge;
* Redis lost everything: what was published before the loss may not be committed yet, and what was
  reserved before it may still be published until its lease ends. So nobody is loaded before the
  watermark has passed the loss by a lease; until then they are refused with UNAVAILABLE;
* a settlement named a charge that nobody knows: the user's counters are in doubt, and loaded anew.

Fails closed: without PostgreSQL such users stay undecided. Everybody else is served from Redis.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from purgatory import AsyncCircuitBreakerFactory

from servicekit import log
from services.quota import metrics
from services.quota.domain import Committed, Missing

_log = log.get("rebuild")


class CommittedSource(Protocol):
    """What is committed: see `store.QuotaStore`."""

    async def committed(self, day: int, users: Collection[str]) -> Mapping[str, Committed]:
        """By user. Raises `Unavailable`."""
        ...

    async def ever_used(self) -> bool:
        """False only for a new installation. Raises `Unavailable`."""
        ...


class CounterSink(Protocol):
    """Where counters are set: see `counters.Counters`."""

    watermark: int

    @property
    def lease(self) -> int:
        """Microseconds that a reservation is held."""
        ...

    async def load(self, users: Sequence[Missing], committed: Mapping[str, Committed]) -> list[str]:
        """Returns whose something was settled meanwhile."""
        ...


class Sentinel(Protocol):
    """See `epochs.Epoch`."""

    @property
    def began(self) -> int:
        """When a Redis's data began; 0 in a new installation."""
        ...


class EpochSource(Protocol):
    """The sentinels: see `epochs.Epochs`."""

    def nodes(self) -> list[str]:
        """Every Redis."""
        ...

    def node_of(self, user_id: str) -> str:
        """The user's Redis."""
        ...

    async def learn(self, node: str) -> Sentinel | None:
        """Its sentinel."""
        ...

    async def begin(self, node: str, *, new_installation: bool) -> Sentinel:
        """Made when there is none."""
        ...

    async def raise_watermark(self, moment: int = 0) -> int:
        """The watermark all replicas share."""
        ...


class Rebuilder:
    """Loads users' counters when that is exact. One for each process."""

    def __init__(
        self, counters: CounterSink, epochs: EpochSource, source: CommittedSource, *, timeout: float
    ) -> None:
        self._counters = counters
        self._epochs = epochs
        self._source = source
        self._timeout = timeout
        self._loading: dict[str, asyncio.Future[None]] = {}
        self._breakers = AsyncCircuitBreakerFactory(default_threshold=3, default_ttl=1.0)

    @property
    def watermark(self) -> int:
        """The latest known moment before which every published event is settled."""
        return self._counters.watermark

    async def load(self, users: Sequence[Missing]) -> None:
        """Load those who can be; whoever could not is still to be loaded afterwards. Raises nothing.

        Lists that come at once for the same user share one read. `timeout` bounds it: the list waits.
        """
        others = {self._loading[user.user_id] for user in users if user.user_id in self._loading}
        mine = [user for user in users if user.user_id not in self._loading]
        if mine:
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._loading.update(dict.fromkeys((user.user_id for user in mine), done))
            try:
                await self._load(mine)
            except Exception as error:  # noqa: BLE001  # whatever it is: closed for these users, open for others
                metrics.LOADS.labels("failed").inc(len(mine))
                _log.warning("counters not loaded", users=len(mine), cause=error.__cause__ or error)
            finally:
                for user in mine:
                    del self._loading[user.user_id]
                done.set_result(None)
        if others:
            await asyncio.wait(others)

    async def raise_watermark(self, moment: int = 0) -> None:
        """Share a watermark, and take over what others share. Raises `CountersUnavailable`."""
        shared = await self._epochs.raise_watermark(moment)
        self._counters.watermark = max(self._counters.watermark, shared)

    async def look(self) -> None:
        """Take over the watermark, and notice a Redis that lost its data. Raises nothing."""
        try:
            await self.raise_watermark()
            for node in self._epochs.nodes():
                await self._began(node)
        except Exception as error:  # noqa: BLE001  # it is tried again, and needed only to be sooner
            _log.warning("epoch and watermark not read", cause=error.__cause__ or error)

    async def watch(self) -> None:
        """Look for ever."""
        while True:
            await self.look()
            await asyncio.sleep(1.0)

    async def _load(self, users: Sequence[Missing]) -> None:
        began: dict[str, int] = {}
        days: dict[int, list[Missing]] = defaultdict(list)
        for user in users:
            node = self._epochs.node_of(user.user_id)
            if node not in began:
                began[node] = await self._began(node)
            if began[node] and self._counters.watermark < began[node] + self._counters.lease:
                metrics.LOADS.labels("waiting").inc()
                continue
            days[user.day].append(user)
        for day, ready in days.items():
            async with await self._breakers.get_breaker("postgres", exclude=[asyncio.CancelledError]):
                async with asyncio.timeout(self._timeout):
                    committed = await self._source.committed(day, [user.user_id for user in ready])
            again = await self._counters.load(ready, committed)
            metrics.LOADS.labels("loaded").inc(len(ready) - len(again))

    async def _began(self, node: str) -> int:
        sentinel = await self._epochs.learn(node)
        if sentinel is None:
            async with asyncio.timeout(self._timeout):
                used = await self._source.ever_used()
            sentinel = await self._epochs.begin(node, new_installation=not used)
            if sentinel.began:
                _log.error("Redis had lost its data; counters are rebuilt once all events are committed")
        return sentinel.began
