"""The writing end of the usage streams: one script call a list, which appends all or nothing.

Events of one list and one shard are one entry (field `e`, a serialised `UsageEvents`). The script is
fenced by the lease of the list's charges, bounded by what a stream may take up, and counts what it
appends; see lua/publish.lua.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, Final

from redis.asyncio import Redis, RedisCluster
from redis.exceptions import BusyLoadingError, NoScriptError, RedisError

from servicekit.context import request_id
from servicekit.redis import Redis as AnyRedis
from servicekit.redis import RedisUnavailable, Script, takes_no_writes
from servicekit.tracing import traceparents
from services.signer.jobs import API_KEY, Job, Part
from services.signer.ports import LeaseLost, StreamDown, StreamFull, StreamUnknown
from signgate.common.v1 import quota_pb2
from signgate.usage.v1 import event_pb2

_retry_after: Final = 1.0
_day_seconds: Final = 86_400
_signature: Final = 1 << 32
_script_text: Final = (files("services.signer") / "lua" / "publish.lua").read_text(encoding="utf-8")

Shards = Mapping[int, Sequence[tuple[Job, Part]]]
Failures = dict[int, StreamDown | LeaseLost]


def publisher(redis: AnyRedis, max_bytes: int = 0) -> Publisher:
    """The publisher for this kind of Redis. Its commands time out as the client does.

    `max_bytes`: what a stream may take up in Redis before it is full; 0: no bound.
    """
    if isinstance(redis, RedisCluster):
        return ClusterPublisher(redis, max_bytes)
    return Publisher(redis, max_bytes)


class Publisher:
    """See `ports.Events`: for one Redis server, which takes the entries of all shards in one call.

    It speaks on the pool's connections itself, to know what failed: before the command was sent
    nothing can have been appended; afterwards nobody knows. The driver closes a connection whose
    answer is outstanding, after a timeout or a cancellation, so nobody else reads it.
    """

    def __init__(self, redis: Redis, max_bytes: int = 0) -> None:
        self._pool = redis.connection_pool
        self._script = Script(_script_text)
        self._max_bytes = max_bytes

    async def publish(self, shards: Shards, lease: float | None) -> Failures:
        """See `ports.Events.publish`."""
        keys: list[str] = []
        arguments: list[Any] = [_milliseconds(lease), self._max_bytes]
        for shard, members in shards.items():
            keys += _keys(shard)
            arguments += _entry(members)
        try:
            connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]
        except (TimeoutError, RedisError, OSError) as error:
            return _all(shards, StreamDown(retry_after=_retry_after), error)
        try:
            answer = await self._call(connection, keys, arguments)
        except (TimeoutError, RedisError, OSError) as error:
            return _all(shards, _failed(error), error)
        finally:
            await self._pool.release(connection)
        return {} if answer == _appended else _all(shards, _refused(answer), None)

    async def _call(self, connection: Any, keys: list[str], arguments: list[Any]) -> Any:
        await connection.send_command("EVALSHA", self._script.sha, len(keys), *keys, *arguments)
        try:
            return await connection.read_response()
        except NoScriptError:
            await connection.send_command("EVAL", _script_text, len(keys), *keys, *arguments)
            return await connection.read_response()


class ClusterPublisher(Publisher):
    """For Redis Cluster: one call a shard, at once. What fails there, nobody knows how far it got."""

    def __init__(self, redis: RedisCluster, max_bytes: int = 0) -> None:
        self._cluster = redis
        self._script = Script(_script_text)
        self._max_bytes = max_bytes

    async def publish(self, shards: Shards, lease: float | None) -> Failures:
        """See `ports.Events.publish`."""
        outcomes = await asyncio.gather(
            *(self._one(shard, members, lease) for shard, members in shards.items())
        )
        return {shard: error for shard, error in zip(shards, outcomes, strict=True) if error is not None}

    async def _one(
        self, shard: int, members: Sequence[tuple[Job, Part]], lease: float | None
    ) -> StreamDown | LeaseLost | None:
        arguments = [_milliseconds(lease), self._max_bytes, *_entry(members)]
        try:
            answer = await self._script(self._cluster, _keys(shard), arguments)
        except (RedisUnavailable, RedisError) as error:
            failed = _failed(error.__cause__ or error)
            failed.__cause__ = error
            return failed
        return None if answer == _appended else _refused(answer)


_appended: Final = 1
_full: Final = -1


def _failed(error: BaseException) -> StreamDown:
    """Of a command that was sent: only a server that says so has certainly appended nothing."""
    certain = isinstance(error, BusyLoadingError) or takes_no_writes(error)
    return (StreamDown if certain else StreamUnknown)(retry_after=_retry_after)


def _refused(answer: Any) -> StreamDown | LeaseLost:
    if answer == _full:
        return StreamFull(retry_after=_retry_after)
    return LeaseLost(retry_after=_retry_after)


def _keys(shard: int) -> list[str]:
    return [f"usage:{{{shard}}}", f"usage:{{{shard}}}:published"]


def _milliseconds(lease: float | None) -> int:
    return 0 if lease is None else int(lease * 1000)


def _all(shards: Shards, error: StreamDown | LeaseLost, cause: BaseException | None) -> Failures:
    error.__cause__ = cause
    return dict.fromkeys(shards, error)


def _entry(members: Sequence[tuple[Job, Part]]) -> tuple[bytes, str]:
    """The serialised events of one stream, and how many there are by day, as publish.lua takes them."""
    entry = event_pb2.UsageEvents(request_id=request_id(), traceparents=traceparents())
    days: dict[int, int] = {}
    for job, part in members:
        write_event(entry.events.add(), job, part)
        day = int(job.arrived) // _day_seconds
        days[day] = days.get(day, 0) + (1 if part.signed is None else 1 + _signature)
    return entry.SerializeToString(), " ".join(f"{day}:{count}" for day, count in days.items())


def write_event(message: event_pb2.UsageEvent, job: Job, part: Part) -> None:
    """Write what came of a part into `message`."""
    caller = job.caller
    if caller is None:
        raise ValueError("the event of nobody")
    message.id = part.request_id
    message.user_id = caller.user_id
    message.api_key_id = caller.key_id
    message.room_url = part.url
    message.response_time_ms = job.took_ms
    message.engine = part.engine
    created = message.created_at
    seconds = created.seconds = int(job.arrived)
    created.nanos = int((job.arrived - seconds) * 1e6) * 1000
    if part.signed is None:
        error = part.error or job.error
        message.error_reason = "INTERNAL" if error is None else error.reason
        return
    message.success = True
    message.pool = quota_pb2.POOL_API_KEY if caller.pool == API_KEY else quota_pb2.POOL_FREE
    message.charge_id = job.charge_id
    message.charged = 1
    message.charged_day = job.day
