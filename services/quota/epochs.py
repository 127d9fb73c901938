"""When each Redis's data began, its generation, and the watermark: what rebuilding counters rests on.

`q:epoch…` is a sentinel: gone exactly when its Redis lost everything, and changed when that Redis was
started anew or another took over (lua/epoch.lua). A cluster has one for each master. `q:watermark` is
shared by all replicas of this service; each reads it every second. Both have no expiry.
Raises `CountersUnavailable`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from redis.asyncio.cluster import RedisCluster
from redis.crc import key_slot

from servicekit.redis import Redis, RedisUnavailable, Script, translated
from services.quota.errors import CountersUnavailable

WATERMARK: Final = "q:watermark"
SINGLE: Final = "redis"
"""The name of the only node there is."""


class Epoch(NamedTuple):
    """`began`: when the data began, 0 in a new installation. Counters of other generations are in doubt."""

    began: int
    generation: int


@cache
def lua(name: str) -> str:
    """A script of lua/, with what all of them share before it."""
    here = Path(__file__).with_name("lua")
    return (here / "state.lua").read_text("utf-8") + (here / f"{name}.lua").read_text("utf-8")


def base(user_id: str) -> str:
    """The beginning of a user's keys. The braces are Redis Cluster's hash tag."""
    return "q:{" + user_id + "}"


class Epochs:
    """The sentinels and the watermark of one Redis or cluster. Moments are epoch microseconds."""

    def __init__(self, client: Redis, timeout: float, now: Callable[[], int] | None = None) -> None:
        self._client: Any = client
        self._cluster = isinstance(client, RedisCluster)
        self._timeout = timeout
        self._now = now or (lambda: 0)
        self._generations: dict[str, int] = {}
        self._epoch = Script(lua("epoch"))
        self._raise = Script(lua("watermark"))

    def nodes(self) -> list[str]:
        """Every master."""
        return list(self._lowest_slots()) if self._cluster else [SINGLE]

    def node_of(self, user_id: str) -> str:
        """The master that holds a user's counters."""
        if not self._cluster:
            return SINGLE
        node = self._client.get_node_from_key(base(user_id))
        if node is None:
            raise CountersUnavailable(retry_after=1.0)
        return str(node.name)

    async def generation(self, node: str) -> int:
        """A node's generation as it was last learnt; 0 while there is none."""
        known = self._generations.get(node)
        if known is None:
            epoch = await self.learn(node)
            known = 0 if epoch is None else epoch.generation
        return known

    async def learn(self, node: str) -> Epoch | None:
        """Look at a node's sentinel; None when it lost everything, or never had anything."""
        return await self._look(node, "")

    async def begin(self, node: str, *, new_installation: bool) -> Epoch:
        """Make a sentinel, if there is none."""
        epoch = await self._look(node, "1" if new_installation else "0")
        if epoch is None:
            raise CountersUnavailable(retry_after=1.0)
        return epoch

    async def raise_watermark(self, moment: int = 0) -> int:
        """Raise the watermark all replicas share, and return it; without a moment, only read it."""
        async with self._bounded():
            return int(await self._raise(self._client, [WATERMARK], [moment]))

    async def _look(self, node: str, missing: str) -> Epoch | None:
        async with self._bounded():
            found = await self._epoch(self._client, [self._key(node)], [self._now(), missing])
        epoch = None if found is None else Epoch(int(found[0]), int(found[1]))
        self._generations[node] = 0 if epoch is None else epoch.generation
        return epoch

    def _key(self, node: str) -> str:
        if not self._cluster:
            return "q:epoch"
        slot = self._lowest_slots().get(node)
        if slot is None:
            raise CountersUnavailable(retry_after=1.0)
        return _key_in(slot)

    def _lowest_slots(self) -> dict[str, int]:
        """A slot of each master by its name. Where slots move, a sentinel is missing and made anew:
        users without counters on that master wait for the watermark, as after a loss.
        """
        lowest: dict[str, int] = {}
        for slot, nodes in self._client.nodes_manager.slots_cache.items():
            name = str(nodes[0].name)
            lowest[name] = min(slot, lowest.get(name, slot))
        return lowest

    @asynccontextmanager
    async def _bounded(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout):
                with translated():
                    yield
        except (TimeoutError, RedisUnavailable) as error:
            raise CountersUnavailable(retry_after=1.0) from error


@cache
def _key_in(slot: int) -> str:
    """A sentinel's name with a hash tag that falls into the slot."""
    tag = 0
    while key_slot(str(tag).encode()) != slot:
        tag += 1
    return f"q:epoch:{{{tag}}}"
