"""The world round one logger: what tests look at and act on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

import asyncpg

from servicekit.clock import uuid7
from servicekit.runner import Runtime
from servicekit.runner import running as run_service
from servicekit.testing.identity import shared
from servicekit.testing.postgres import Database
from services.logger.config import LoggerSettings
from services.logger.server import compose
from services.logger.stream import FIELD, name
from signgate.common.v1 import quota_pb2
from signgate.quota.v1 import enforcement_pb2, enforcement_pb2_grpc
from signgate.usage.v1 import event_pb2
from tests.redis_users import login

SHARDS = 2


@dataclass
class FakeQuota(enforcement_pb2_grpc.QuotaEnforcementServiceServicer):
    """Remembers what was settled; refuses while `down`."""

    settled: dict[str, int] = field(default_factory=dict)
    watermarks: list[float] = field(default_factory=list)
    down: bool = False

    async def Settle(
        self, request: enforcement_pb2.SettleRequest, context: Any
    ) -> enforcement_pb2.SettleResponse:
        if self.down:
            raise RuntimeError("down")
        for charge in request.charges:
            self.settled[charge.charge_id] = charge.units
        if request.HasField("watermark"):
            self.watermarks.append(request.watermark.ToDatetime(tzinfo=UTC).timestamp())
        return enforcement_pb2.SettleResponse(settled=len(request.charges))

    async def Consume(self, request: Any, context: Any) -> Any:
        raise NotImplementedError

    async def Refund(self, request: Any, context: Any) -> Any:
        raise NotImplementedError

    async def Inspect(
        self, request: enforcement_pb2.InspectRequest, context: Any
    ) -> enforcement_pb2.InspectResponse:
        """Nothing was charged today: not what this fake is for."""
        return enforcement_pb2.InspectResponse()


@dataclass
class World:
    """Everything round one logger."""

    database: Database
    redis: Any  # redis-py types replies as anything it might ever give
    redis_url: str
    sql: asyncpg.Connection
    quota: FakeQuota
    quota_port: int

    @asynccontextmanager
    async def logger(self, consumer: str = "logger-1", **changes: Any) -> AsyncIterator[Runtime]:
        """A running logger; several may run at once under names of their own."""
        settings = LoggerSettings(
            grpc_listen="127.0.0.1:0",
            postgres_dsn=self.database.dsn("signgate_logger"),
            redis_url=login(self.redis_url, "logger"),
            sessions_redis_url=login(self.redis_url, "logger_sessions"),
            quota_addr=f"127.0.0.1:{self.quota_port}",
            keys_addr="127.0.0.1:1",
            jwks_url="http://127.0.0.1:1/jwks.json",
            jwt_issuer="test",
            usage_shards=SHARDS,
            consumer_name=consumer,
            **shared().settings("logger"),
            **{
                "batch_age": 0.02,
                "batch_age_busy": 0.02,
                "claim_idle": 0.5,
                "housekeeping_interval": 0.1,
                "drain_grace": 2.0,
                **changes,
            },
        )
        async with run_service("logger", settings, partial(compose, settings)) as runtime:
            yield runtime

    async def user(self) -> UUID:
        """A confirmed account."""
        user_id = uuid7()
        await self.sql.execute(
            "INSERT INTO auth.users (id, email, email_confirmed_at) VALUES ($1, $2, now())",
            user_id,
            f"{user_id}@example.com",
        )
        return user_id

    async def publish(self, *events: event_pb2.UsageEvent, shard: int = 0) -> None:
        """Append one entry and count its events, in one step, as a signer does."""
        payload = event_pb2.UsageEvents(events=events).SerializeToString()
        async with self.redis.pipeline(transaction=True) as pipe:
            pipe.xadd(name(shard), {FIELD: payload})
            for one in events:
                day = one.created_at.seconds // 86_400
                pipe.hincrby(f"{name(shard)}:published", str(day), 1 + (one.success << 32))
            await pipe.execute()

    async def rows(self) -> int:
        return int(await self.sql.fetchval("SELECT count(*) FROM usage_logs"))

    async def until(self, rows: int) -> None:
        """Wait until there are exactly so many rows, and nothing is left unacknowledged."""
        async with asyncio.timeout(20):
            while await self.rows() != rows or await self.unacknowledged():
                await asyncio.sleep(0.02)

    async def unacknowledged(self) -> int:
        left = 0
        for shard in range(SHARDS):
            if not await self.redis.exists(name(shard)):
                continue
            info = await self.redis.xinfo_stream(name(shard))
            for group in await self.redis.xinfo_groups(name(shard)):
                left += group["pending"] + (group["last-delivered-id"] != info["last-generated-id"])
        return left


def event(user_id: UUID, *, success: bool = True, **changes: object) -> event_pb2.UsageEvent:
    """One event of now."""
    message = event_pb2.UsageEvent(
        id=str(uuid7()),
        user_id=str(user_id),
        room_url="https://www.tiktok.com/@someone/live",
        success=success,
        response_time_ms=5,
        error_reason="" if success else "QUOTA_EXHAUSTED",
        engine="native" if success else "",
        pool=quota_pb2.POOL_FREE if success else quota_pb2.POOL_UNSPECIFIED,
        charge_id=str(uuid7()) if success else "",
        charged=int(success),
        charged_day=(datetime.now(UTC).date() - datetime(1970, 1, 1, tzinfo=UTC).date()).days
        if success
        else 0,
    )
    message.created_at.GetCurrentTime()
    for key, value in changes.items():
        setattr(message, key, value)
    return message
