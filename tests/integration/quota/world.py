"""The quota service in this process, on a real PostgreSQL and a real Redis or Redis Cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, cast
from uuid import UUID

import asyncpg
import grpc
from pydantic import SecretStr

from servicekit.clock import uuid7
from servicekit.config import Address
from servicekit.rpc import create_channel
from servicekit.runner import running
from servicekit.testing.identity import shared
from servicekit.testing.postgres import Database
from servicekit.testing.tokens import TokenMint
from services.quota.config import QuotaSettings
from services.quota.server import compose
from signgate.common.v1 import quota_pb2 as common
from signgate.quota.v1 import enforcement_pb2 as pb
from signgate.quota.v1 import enforcement_pb2_grpc, quota_pb2_grpc
from tests.redis_users import login


@dataclass
class Replica:
    """One running quota service and its stubs."""

    address: Address
    stub: enforcement_pb2_grpc.QuotaEnforcementServiceAsyncStub
    public: quota_pb2_grpc.QuotaServiceAsyncStub

    async def consume(self, *charges: pb.Charge) -> list[pb.Decision]:
        """The decisions on these."""
        return list((await self.stub.Consume(pb.ConsumeRequest(charges=charges))).decisions)

    async def used(
        self, user: UUID, pool: common.Pool.ValueType = common.POOL_FREE, key: UUID | None = None
    ) -> int:
        """What a pool's counter says of today."""
        request = pb.InspectRequest(user_id=str(user), pool=pool, key_id=str(key or uuid7()))
        return int((await self.stub.Inspect(request)).used_today)

    async def sees(self, daily: int, user: UUID, *, at_once: int | None = None) -> None:
        """Wait until this replica holds a user to such a day's limit and burst in the free pool."""
        request = pb.InspectRequest(user_id=str(user), pool=common.POOL_FREE)
        async with asyncio.timeout(30):
            while True:
                limits = {one.kind: one.limit for one in (await self.stub.Inspect(request)).limits}
                burst = limits[common.LIMIT_KIND_USER_MINUTE]
                if limits[common.LIMIT_KIND_USER_DAY] == daily and at_once in {None, burst}:
                    return
                await asyncio.sleep(0.02)


def enforcement(
    signers: grpc.aio.Channel, loggers: grpc.aio.Channel
) -> enforcement_pb2_grpc.QuotaEnforcementServiceAsyncStub:
    """One stub that calls each method as a service that may: the logger settles, the signer does the rest."""
    stub: Any = enforcement_pb2_grpc.QuotaEnforcementServiceStub(signers)
    stub.Settle = enforcement_pb2_grpc.QuotaEnforcementServiceStub(loggers).Settle
    return cast("enforcement_pb2_grpc.QuotaEnforcementServiceAsyncStub", stub)


@dataclass
class World:
    """The servers that a service stands on."""

    database: Database
    sql: asyncpg.Connection[Any]
    redis_url: str
    mint: TokenMint
    jwks_url: str
    keys_addr: str = "127.0.0.1:9"
    settings: dict[str, Any] = field(default_factory=dict)

    @asynccontextmanager
    async def replica(self, **settings: Any) -> AsyncIterator[Replica]:
        """A quota service, ready."""
        config = QuotaSettings(
            grpc_listen=Address("127.0.0.1", 0),
            postgres_dsn=SecretStr(self.database.dsn("signgate_quota")),
            redis_url=SecretStr(login(self.redis_url, "quota")),
            sessions_redis_url=SecretStr(login(self.redis_url, "quota_sessions")),
            keys_addr=self.keys_addr,
            jwks_url=self.jwks_url,
            jwt_issuer=self.mint.issuer.name,
            **shared().settings("quota") | self.settings | settings,
        )
        async with running("quota", config, compose) as runtime:
            assert runtime.grpc_address is not None
            address, identities = str(runtime.grpc_address), shared()
            async with (
                create_channel(address, peer=identities.peer("signer", "quota")) as channel,
                create_channel(address, peer=identities.peer("logger", "quota")) as loggers,
            ):
                yield Replica(
                    runtime.grpc_address,
                    enforcement(channel, loggers),
                    quota_pb2_grpc.QuotaServiceStub(channel),
                )

    async def user(self) -> UUID:
        """A new account."""
        user_id = uuid7()
        await self.sql.execute(
            "INSERT INTO users (id, email) VALUES ($1, $2)", user_id, f"{user_id.hex}@example.org"
        )
        return user_id

    async def plan(self, tier: str, daily: int, per_minute: int = 6000, burst: int = 6000) -> None:
        """Change a plan."""
        await self.sql.execute(
            "UPDATE plans SET daily_limit = $2, per_minute = $3, burst = $4 WHERE tier = $1",
            tier, daily, per_minute, burst,
        )  # fmt: skip

    async def commit(self, user: UUID, free: int = 0, keys: dict[UUID, int] | None = None) -> None:
        """Set what is committed for today, as the logger does."""
        keys = keys or {}
        today = utc_today()
        await self.sql.execute(
            "INSERT INTO quota_usage (user_id, date, request_count) VALUES ($1, $2, $3)"
            " ON CONFLICT (user_id, date) DO UPDATE SET request_count = excluded.request_count",
            user, today, free + sum(keys.values()),
        )  # fmt: skip
        for key, count in keys.items():
            await self.sql.execute(
                "INSERT INTO api_key_quota_usage (api_key_id, user_id, date, request_count)"
                " VALUES ($1, $2, $3, $4)"
                " ON CONFLICT (api_key_id, date) DO UPDATE SET request_count = excluded.request_count",
                key, user, today, count,
            )  # fmt: skip


def utc_today() -> date:
    """The day that quotas count now."""
    return datetime.now(UTC).date()


def free(user: UUID, cost: int = 1, *, id_: UUID | None = None, partial: bool = False) -> pb.Charge:
    """A charge of a logged-in user."""
    return pb.Charge(
        charge_id=str(id_ or uuid7()),
        user_id=str(user),
        pool=common.POOL_FREE,
        cost=cost,
        allow_partial=partial,
    )


def keyed(
    user: UUID, key: UUID, cost: int = 1, *, daily: int = 0, per_minute: int = 0, partial: bool = False
) -> pb.Charge:
    """A charge of a key."""
    return pb.Charge(
        charge_id=str(uuid7()),
        user_id=str(user),
        pool=common.POOL_API_KEY,
        key_id=str(key),
        cost=cost,
        allow_partial=partial,
        key_daily_limit=daily,
        key_per_minute=per_minute,
    )


def ref(charge: pb.Charge, units: int = 0) -> pb.ChargeRef:
    """Names a charge again."""
    return pb.ChargeRef(charge_id=charge.charge_id, user_id=charge.user_id, units=units)


def bearer(token: str) -> grpc.aio.Metadata:
    """The metadata that presents a credential."""
    return grpc.aio.Metadata(("authorization", f"Bearer {token}"))
