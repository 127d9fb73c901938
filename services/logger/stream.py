"""The usage stream's Redis commands: one `UsageStream` a shard. The only Redis of the logger.

Commands are those of Redis 6.2, and each touches one key, so that Redis Cluster serves as well.
Redis hands entries of one stream to the consumers of the group without overlap; what a consumer took
and did not acknowledge stays pending under its name until it comes back or another one claims it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any, Final

from redis.asyncio import Redis, RedisCluster
from redis.exceptions import ResponseError

from servicekit.redis import Script
from services.logger.domain import Position

GROUP = "logger"
FIELD = b"e"
DEAD = "usage:dead"
EPOCH_DAY: Final = date(1970, 1, 1)

type_entries = list[tuple[str, bytes]]

_forget = Script("""
local found = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])
if found.err then return 0 end  -- no such stream yet, or no such group
local gone = 0
for _, facts in ipairs(found) do
    local consumer = {}
    for at = 1, #facts, 2 do consumer[facts[at]] = facts[at + 1] end
    if consumer.pending == 0 and consumer.idle >= tonumber(ARGV[2]) then
        redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], consumer.name)
        gone = gone + 1
    end
end
return gone
""")


def name(shard: int) -> str:
    """The key of a shard; the braces are Redis Cluster's hash tag."""
    return f"usage:{{{shard}}}"


class UsageStream:
    """One shard, as one consumer of the group sees it. Errors are the driver's own."""

    def __init__(self, redis: Redis | RedisCluster, shard: int, consumer: str) -> None:
        self._redis: Any = redis
        self._consumer = consumer
        self._claim_from = "0-0"
        self.key = name(shard)

    async def ensure_group(self) -> None:
        """Make the stream and its group, if they are not there. From the beginning: nothing is skipped."""
        try:
            await self._redis.xgroup_create(self.key, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def read(self, count: int, block_ms: int | None) -> type_entries:
        """Up to `count` entries that no consumer has had; waits up to `block_ms` for the first."""
        return entries(
            await self._redis.xreadgroup(GROUP, self._consumer, {self.key: ">"}, count=count, block=block_ms)
        )

    async def pending(self, after: str, count: int) -> tuple[type_entries, str]:
        """Entries that this consumer took before and did not acknowledge, and where to go on.

        An entry whose payload was trimmed meanwhile has an empty one.
        """
        found = entries(await self._redis.xreadgroup(GROUP, self._consumer, {self.key: after}, count=count))
        return found, found[-1][0] if found else after

    async def claim(self, idle_ms: int, count: int) -> type_entries:
        """Take over entries that another consumer has left unacknowledged for `idle_ms`."""
        reply = await self._redis.xautoclaim(
            self.key, GROUP, self._consumer, min_idle_time=idle_ms, start_id=self._claim_from, count=count
        )
        self._claim_from = text(reply[0])
        return pairs(reply[1])

    async def acknowledge(self, ids: Sequence[str]) -> None:
        """The group is done with these, for good."""
        if ids:
            await self._redis.xack(self.key, GROUP, *ids)

    async def set_aside(self, entry_id: str, payload: bytes, reason: str) -> None:
        """Write a dead letter, then acknowledge: dying in between writes it twice, never loses it."""
        await self._redis.xadd(DEAD, {"stream": self.key, "id": entry_id, "reason": reason, "e": payload})
        await self.acknowledge([entry_id])

    async def trim(self) -> int:
        """Drop what every group has acknowledged; returns how many entries went.

        Bounded to whole nodes of the stream (`~`): a few acknowledged entries may stay.
        """
        return int(await self._redis.xtrim(self.key, minid=await self.floor(), approximate=True))

    async def memory(self) -> int:
        """Bytes that the stream takes up in Redis, about; 0 when there is none."""
        return int(await self._redis.memory_usage(self.key) or 0)

    async def dead_letters(self) -> int:
        """How many entries, of any stream, are set aside."""
        return int(await self._redis.xlen(DEAD))

    async def forget_consumers(self, idle_ms: int) -> int:
        """Drop the names of consumers that asked for nothing in `idle_ms`; returns how many.

        Never one with an entry pending, which would go with it: looking and dropping is one step. One that
        was only asleep is there again when it reads.
        """
        return int(await _forget(self._redis, [self.key], [GROUP, idle_ms]))

    async def forget_published(self, before: date) -> None:
        """Drop the signers' counts of published events of the days before."""
        counts = f"{self.key}:published"
        last = (before - EPOCH_DAY).days
        if old := [day for day in await self._redis.hkeys(counts) if int(day) < last]:
            await self._redis.hdel(counts, *old)

    async def floor(self) -> str:
        """The first id that any group may still be owed: everything before it is acknowledged by all."""
        floors = [await self._first_unacknowledged(g) for g in await self._redis.xinfo_groups(self.key)]
        ms, sequence = min(floors, default=(0, 0))
        return f"{ms}-{sequence}"

    async def position(self) -> Position:
        """Where the group stands. The time is read first, so the answer errs on the safe side."""
        now_ms = await self._now_ms()
        info = await self._redis.xinfo_stream(self.key)
        group = next(g for g in await self._redis.xinfo_groups(self.key) if text(g["name"]) == GROUP)
        pending, length = int(group["pending"]), int(info["length"])
        if pending == 0 and text(group["last-delivered-id"]) == text(info["last-generated-id"]):
            return Position(safe_ms=now_ms, pending=0, length=length, lag_ms=0)
        safe = (await self._first_unacknowledged(group))[0]
        return Position(safe_ms=safe, pending=pending, length=length, lag_ms=max(0, now_ms - safe))

    async def _now_ms(self) -> int:
        """The clock that entry ids are made from: that of the node which holds this stream."""
        if isinstance(self._redis, RedisCluster):
            node = self._redis.get_node_from_key(self.key)
            seconds, micros = await self._redis.execute_command("TIME", target_nodes=node)
        else:
            seconds, micros = await self._redis.time()
        return int(seconds) * 1000 + int(micros) // 1000

    async def _first_unacknowledged(self, group: dict[str, Any]) -> tuple[int, int]:
        """Every entry with a smaller id is acknowledged by the group."""
        if int(group["pending"]):
            summary = await self._redis.xpending(self.key, text(group["name"]))
            if summary["min"] is not None:
                return parts(text(summary["min"]))
        ms, sequence = parts(text(group["last-delivered-id"]))
        return ms, sequence + 1


def entries(reply: Any) -> type_entries:
    """The entries of a reply about one stream."""
    if not reply:
        return []
    _, found = next(iter(reply.items())) if isinstance(reply, dict) else reply[0]
    if found and isinstance(found[0], list) and found[0] and isinstance(found[0][0], (list, tuple)):
        found = found[0]  # RESP3 nests once more
    return pairs(found)


def pairs(found: Any) -> type_entries:
    """(id, payload) of each; a trimmed entry (no fields) has an empty payload."""
    return [(text(entry[0]), (entry[1] or {}).get(FIELD, b"")) for entry in found if entry and entry[0]]


def text(value: bytes | str) -> str:
    """Redis names and ids as text."""
    return value.decode() if isinstance(value, bytes) else value


def parts(entry_id: str) -> tuple[int, int]:
    """`milliseconds-sequence` as two numbers."""
    ms, _, sequence = entry_id.partition("-")
    return int(ms), int(sequence or 0)
