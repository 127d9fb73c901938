"""Redis, or Redis Cluster: short timeouts, no hidden retries, errors of the tree.

One URL says which: `redis://` and `rediss://` for one server, `redis+cluster://` and
`rediss+cluster://` for a cluster, whose multi-key commands must touch one hash tag. Replies are
bytes. Failure policy is the caller's to choose; here every trouble with the connection becomes
`Unavailable` (reason REDIS_UNAVAILABLE) within `timeout` seconds at most.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

from servicekit import keepalive
from servicekit.authn import DENIED_PREFIX, LOWERED_PREFIX, SessionState
from servicekit.errors import Unavailable
from servicekit.lean import absent
from servicekit.telemetry import REDIS_CONNECTIONS, REDIS_FAILURES, REDIS_MAX

# redis-py loads it wherever it is, four megabytes, and counts nothing unless it is told to.
with absent("opentelemetry.sdk.metrics"):
    import redis.asyncio as aioredis
    from redis.asyncio.cluster import RedisCluster
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import (
        BusyLoadingError,
        ClusterDownError,
        MasterDownError,
        NoScriptError,
        OutOfMemoryError,
        ReadOnlyError,
        RedisClusterException,
        ResponseError,
    )
    from redis.exceptions import (
        ConnectionError as RedisConnectionError,
    )
    from redis.exceptions import (
        TimeoutError as RedisTimeoutError,
    )
    from redis.maint_notifications import MaintNotificationsConfig

    from servicekit import redis_tls

Redis = aioredis.Redis | RedisCluster

CONNECTIONS: Final[Mapping[str, Any]] = {
    "socket_keepalive": True,
    "socket_keepalive_options": keepalive.OPTIONS,
    # Only Redis Enterprise tells of its maintenance; and a driver that might be told of it no longer looks
    # whether an idle connection was closed meanwhile: after a restart each of them would fail a request.
    "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    # The driver's name and version, which Redis 6.2 does not know how to take and no service's user may say.
    "driver_info": None,
}
"""For every client of Redis': idle connections that are dead are found out (see `servicekit.keepalive`)."""
_trouble: Final = (
    RedisConnectionError,  # includes too many connections in the pool
    RedisTimeoutError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    RedisClusterException,
    OSError,
)
_no_writes: Final = ("OOM ", "MISCONF ", "READONLY ", "NOREPLICAS ")
"""How a server says that it takes no writes: its memory or its disk is full, or it is no master now."""


class RedisUnavailable(Unavailable):
    """Redis can't be reached, or can't take writes."""

    reason = "REDIS_UNAVAILABLE"
    message = "A counter store is not reachable right now. Try again shortly."


@contextmanager
def translated() -> Iterator[None]:
    """Turn trouble with Redis inside the block into `RedisUnavailable`; other errors pass."""
    try:
        yield
    except _trouble as error:
        REDIS_FAILURES.inc()
        raise RedisUnavailable(retry_after=1.0) from error
    except ResponseError as error:
        if not takes_no_writes(error):
            raise
        raise RedisUnavailable(retry_after=1.0) from error


def takes_no_writes(error: BaseException | None) -> bool:
    """Whether the server refused to write at all. Of a script too: its first write is refused, or none.

    The driver has a class for some of these, but a script's come wrapped in text ("Error running script
    … -OOM command not allowed …"), before Redis 7.
    """
    if isinstance(error, OutOfMemoryError | ReadOnlyError):
        return True
    return isinstance(error, ResponseError) and any(code in str(error) for code in _no_writes)


@asynccontextmanager
async def open_redis(
    url: str,
    *,
    timeout: float = 0.5,
    max_connections: int = 64,
    name: str = "signgate",
    must_answer: bool = True,
) -> AsyncIterator[Redis]:
    """A client that has answered one PING. Raises `RedisUnavailable` when nobody does.

    With `must_answer=False` it comes without: for a service that works on while Redis is down.

    `name` is the connections' in Redis' own list of clients, and the pool's in the metrics.
    `timeout` bounds both connecting and each command's answer, in seconds; give blocking readers
    (XREADGROUP … BLOCK) a client of their own whose timeout is longer than the block.
    """
    no_retry = Retry(NoBackoff(), 0)
    options: dict[str, Any] = {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        **CONNECTIONS,
        "health_check_interval": 0,
        "max_connections": max_connections,
        "client_name": name,
        "retry": no_retry,
    }
    client: Redis
    if "+cluster://" in url:
        client = RedisCluster.from_url(url.replace("+cluster", "", 1), **options)
    else:
        client = aioredis.Redis.from_url(url, **options)
    redis_tls.share(client)
    try:
        if must_answer:
            await ping(client)
        with _observed(client, name, max_connections):
            yield client
    finally:
        await client.aclose()


@contextmanager
def _observed(client: Redis, name: str, most: int) -> Iterator[None]:
    """The client's connections are in the metrics while the block runs."""
    in_use, idle = (REDIS_CONNECTIONS.labels(name, state) for state in ("in_use", "idle"))
    in_use.set_function(lambda: _connections(client)[0])
    idle.set_function(lambda: _connections(client)[1])
    REDIS_MAX.labels(name).set(most)
    try:
        yield
    finally:
        for state in ("in_use", "idle"):
            REDIS_CONNECTIONS.remove(name, state)
        REDIS_MAX.remove(name)


def _connections(client: Redis) -> tuple[int, int]:
    """How many are in use, and how many idle."""
    if isinstance(client, RedisCluster):
        # The cluster's client tells of its nodes, but not how many connections each has.
        nodes = client.get_nodes()
        idle = sum(len(node._free) for node in nodes)  # noqa: SLF001  # see above
        return sum(len(node._connections) for node in nodes) - idle, idle  # noqa: SLF001  # see above
    (idle, _), (in_use, _) = client.connection_pool.get_connection_count()
    return in_use, idle


async def ping(client: Redis) -> None:
    """Readiness: one PING. Raises `RedisUnavailable`."""
    with translated():
        # Typed for both the synchronous and the asynchronous client.
        await client.ping()


class Script:
    """A Lua script called by its SHA-1; sent whole only to a server that does not know it yet.

    Atomic on its server. In a cluster all its keys must share one hash tag.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        # Redis names scripts by SHA-1; nothing here rests on its strength.
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, client: Redis, keys: Sequence[str | bytes], args: Sequence[Any] = ()) -> Any:
        """Run it and return its reply. Raises `RedisUnavailable`, or the script's own error.

        After a timeout it is not known whether the script ran: scripts that write are idempotent.
        """
        with translated():
            try:
                return await client.evalsha(self.sha, len(keys), *keys, *args)
            except NoScriptError:
                return await client.eval(self._text, len(keys), *keys, *args)


@asynccontextmanager
async def open_sessions(
    url: str | None, own: Redis, *, timeout: float = 0.5, name: str
) -> AsyncIterator[DeniedSessions]:
    """The deny-set, read by a user who may do nothing else; without a `url`, by the service's own user.

    Before Redis 7, a user who may write may write every key that matches its patterns. So a service that
    writes reads sessions as another user; otherwise it could restore signed-out sessions.
    """
    if url is None:
        yield DeniedSessions(own)
        return
    async with open_redis(url, timeout=timeout, name=f"{name}-sessions") as client:
        yield DeniedSessions(client)


class DeniedSessions:
    """The revoked sessions and the lowered ones; see `servicekit.authn.Sessions`.

    Fails closed: without Redis nobody can say that a session still holds, so all are refused with
    `RedisUnavailable`.
    """

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def states(self, session_ids: Sequence[str]) -> Sequence[SessionState]:
        """The state of each session, in one round trip."""
        if not session_ids:
            return ()
        keys = [
            prefix + session_id for session_id in session_ids for prefix in (DENIED_PREFIX, LOWERED_PREFIX)
        ]
        with translated():
            found = await self._read(keys)
        pairs = zip(found[::2], found[1::2], strict=True)
        return [_state(denied, lowered) for denied, lowered in pairs]

    async def _read(self, keys: Sequence[str]) -> list[Any]:
        if isinstance(self._client, RedisCluster):
            # Its keys are on several nodes: no MGET.
            pipe: Any = self._client.pipeline()
            for key in keys:
                pipe.get(key)
            return list(await pipe.execute())
        return list(await self._client.mget(keys))

    async def deny(self, session_id: str, ttl: int) -> None:
        """Refuse a session for `ttl` seconds: no less than its last token has to live."""
        with translated():
            await self._client.set(DENIED_PREFIX + session_id, b"1", ex=max(ttl, 1))

    async def lower(
        self, session_id: str, version: int, ttl: int, *, has_factor: bool = True, proved_at: int = 0
    ) -> None:
        """Have tokens of older assurance versions count as `aal1` for `ttl` seconds, until all expire.

        `has_factor`: whether the account has a second factor. They are no fresher than `proved_at`.
        """
        value = f"{version}:{has_factor:d}:{proved_at}"
        with translated():
            await self._client.set(LOWERED_PREFIX + session_id, value, ex=max(ttl, 1))


def _state(denied: bytes | None, lowered: bytes | None) -> SessionState:
    if lowered is None:
        return SessionState(denied is not None)
    version, factor, proved_at = lowered.split(b":")
    return SessionState(denied is not None, int(version), factor != b"0", int(proved_at))
