"""The real signer, keys and quota services in this process, on a real PostgreSQL and a real Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from servicekit import keyset
from servicekit.rpc import create_channel
from servicekit.runner import Runtime, running
from servicekit.testing.identity import shared
from services.signer.config import SignerSettings
from services.signer.server import compose
from signgate.common.v1 import quota_pb2
from signgate.keys.v1 import keys_pb2
from signgate.signer.v1 import signer_pb2 as pb
from signgate.signer.v1 import signer_pb2_grpc
from signgate.usage.v1.event_pb2 import UsageEvent, UsageEvents
from tests.integration.keys.world import Cable, User, create
from tests.integration.keys.world import Replica as KeysReplica
from tests.integration.keys.world import World as KeysWorld
from tests.integration.quota.world import Replica as QuotaReplica
from tests.integration.quota.world import World as QuotaWorld
from tests.redis_users import login

ROOM = "https://www.tiktok.com/@someone/live"


@dataclass
class Key:
    """An API key and whose it is."""

    secret: str
    id: str
    user: User

    @property
    def auth(self) -> tuple[tuple[str, str], ...]:
        return (("x-api-key", self.secret),)


@dataclass
class Signer:
    """One running signer. `stub` raises the tree's errors; `raw` gives gRPC's own calls."""

    runtime: Runtime
    stub: Any  # generated stubs are typed for a blocking channel too, which every call would have to deny
    raw: Any
    channel: grpc.aio.Channel

    async def sign(self, who: Key | User, url: str = ROOM, **members: Any) -> pb.SignResponse:
        answer: pb.SignResponse = await self.stub.Sign(
            pb.SignRequest(room_url=url, **members), metadata=who.auth
        )
        return answer

    async def batch(self, who: Key | User, *urls: str) -> pb.SignBatchResponse:
        requests = [pb.SignRequest(room_url=url) for url in urls]
        answer: pb.SignBatchResponse = await self.stub.SignBatch(
            pb.SignBatchRequest(requests=requests), metadata=who.auth
        )
        return answer


@dataclass
class World:
    """Where a test lives. `redis_cable` is the signer's line to Redis; the other services have their own."""

    keys_world: KeysWorld
    keys: KeysReplica
    quota_world: QuotaWorld
    quota: QuotaReplica
    redis: Any  # its replies are typed for every protocol and decoding there is
    redis_cable: Cable
    keys_cable: Cable
    quota_cable: Cable
    keyset: Path

    def settings(self, **changes: Any) -> SignerSettings:
        return SignerSettings(
            **{
                "grpc_listen": "127.0.0.1:0",
                "redis_url": login(f"redis://127.0.0.1:{self.redis_cable.port}/0", "signer"),
                "sessions_redis_url": login(
                    f"redis://127.0.0.1:{self.redis_cable.port}/0", "signer_sessions"
                ),
                "keys_addr": f"127.0.0.1:{self.keys_cable.port}",
                "quota_addr": f"127.0.0.1:{self.quota_cable.port}",
                "jwks_url": self.keys_world.jwks_url,
                "jwt_issuer": self.keys_world.mint.issuer.name,
                "signing_keys_file": self.keyset,
                "drain_grace": 0.5,
                **shared().settings("signer"),
                **changes,
            }
        )

    @asynccontextmanager
    async def signer(self, **changes: Any) -> AsyncIterator[Signer]:
        """A running signer."""
        async with AsyncExitStack() as stack:
            runtime = await stack.enter_async_context(running("signer", self.settings(**changes), compose))
            address = str(runtime.grpc_address)
            channel = await stack.enter_async_context(create_channel(address))
            raw = await stack.enter_async_context(grpc.aio.insecure_channel(address))
            yield Signer(
                runtime,
                signer_pb2_grpc.SignerServiceStub(channel),
                signer_pb2_grpc.SignerServiceStub(raw),
                raw,
            )

    async def key(self, user: User | None = None, **members: Any) -> Key:
        owner = user or await self.keys_world.user()
        made = await create(self.keys, owner, **members)
        return Key(made.secret, made.key.id, owner)

    async def free_user(self, daily: int) -> User:
        """A new user, and the free plan at so many a day, which quota has seen."""
        await self.quota_world.plan("free", daily)
        user = await self.keys_world.user()
        await self.quota.sees(daily, user.id)
        return user

    async def revoked(self, key: Key) -> None:
        """Revoke a key; the keys service refuses it when this returns."""
        await self.keys.owner.RevokeKey(keys_pb2.RevokeKeyRequest(key_id=key.id), metadata=key.user.auth)
        assert await self.keys.validate(key.secret) == "KEY_REVOKED"

    async def used(self, who: Key | User) -> int:
        """What quota counts of today, in the pool that pays for this caller."""
        if isinstance(who, Key):
            return await self.quota.used(who.user.id, quota_pb2.POOL_API_KEY)
        return await self.quota.used(who.id)

    async def events(self) -> list[UsageEvent]:
        """All that was published, in order of shard and time."""
        found: list[UsageEvent] = []
        for shard in range(4):
            for _, entry in await self.redis.xrange(f"usage:{{{shard}}}"):
                found += UsageEvents.FromString(entry[b"e"]).events
        return found

    async def outcomes(self) -> list[str]:
        """The reasons of all events, "" for a signature."""
        return [event.error_reason for event in await self.events()]


def make_keyset(path: Path) -> None:
    """One key of each algorithm."""
    keyset.main(["new", "--alg", "EdDSA", "--out", str(path)])
    keyset.main(["rotate", "--alg", "HS256", "--out", str(path)])
