"""GetQuota, by token and by key, on the real tables as the service's own role."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from servicekit.authn import CredentialAuthenticator
from servicekit.clock import SystemClock, uuid7
from servicekit.errors import PermissionDenied
from servicekit.postgres import open_database
from servicekit.principal import Principal
from servicekit.redis import Redis
from servicekit.testing.network import serving
from servicekit.testing.tokens import FakeKeys, FakeSessions
from services.quota.counters import Counters, CounterSettings
from services.quota.epochs import Epochs
from services.quota.plans import Plans
from services.quota.rebuild import Rebuilder
from services.quota.service import QuotaService
from services.quota.servicer import QuotaServicer
from services.quota.store import QuotaStore
from signgate.common.v1 import quota_pb2 as common
from signgate.quota.v1 import quota_pb2 as pb
from signgate.quota.v1 import quota_pb2_grpc
from tests.integration.quota.world import World, bearer

if TYPE_CHECKING:
    Stub = quota_pb2_grpc.QuotaServiceAsyncStub  # in the stubs only


@pytest.fixture
async def keys() -> FakeKeys:
    return FakeKeys()


@pytest.fixture
async def stub(world: World, client: Redis, keys: FakeKeys) -> AsyncIterator[Stub]:
    clock = SystemClock()
    async with open_database(world.database.dsn("signgate_quota"), name="quota") as database:
        store = QuotaStore(database)
        plans = Plans(store, clock)
        await plans.refresh()
        epochs = Epochs(client, 5)
        counters = Counters(client, epochs, CounterSettings(timeout=5))
        rebuilder = Rebuilder(counters, epochs, store, timeout=5)
        await rebuilder.look()
        servicer = QuotaServicer(QuotaService(counters, plans, rebuilder, clock), store)
        authenticator = CredentialAuthenticator(world.mint.verifier(), FakeSessions(), keys)
        add = quota_pb2_grpc.add_QuotaServiceServicer_to_server
        async with serving((servicer, add), authenticator=authenticator) as channel:
            yield quota_pb2_grpc.QuotaServiceStub(channel)


async def test_a_user_sees_both_pools(world: World, stub: Stub, ann: UUID) -> None:
    await world.commit(ann, free=2, keys={uuid7(): 3})
    found = await stub.GetQuota(pb.GetQuotaRequest(), metadata=bearer(world.mint.token(ann)))
    assert [(p.pool, p.plan, p.used_today) for p in found.pools] == [
        (common.POOL_FREE, "free", 2),
        (common.POOL_API_KEY, "api_key", 3),
    ]
    day, minute = found.pools[0].limits
    assert (day.kind, day.limit, day.remaining) == (common.LIMIT_KIND_USER_DAY, 100, 98)
    assert (minute.kind, minute.limit, minute.remaining) == (common.LIMIT_KIND_USER_MINUTE, 10, 10)
    assert found.as_of.seconds > 0


async def test_a_key_sees_its_pool_and_its_own_limits(
    world: World, stub: Stub, keys: FakeKeys, ann: UUID
) -> None:
    key, sibling = uuid7(), uuid7()
    await world.sql.execute(
        "INSERT INTO api_keys (id, user_id, key_hash, name, daily_limit) VALUES ($1, $2, 'h', 'k', 5)",
        key,
        ann,
    )
    await world.commit(ann, keys={key: 3, sibling: 4})
    keys.known["secret-key"] = Principal(user_id=ann, api_key_id=key, tier="api_key")
    found = await stub.GetQuota(pb.GetQuotaRequest(), metadata=bearer("secret-key"))
    (pool,) = found.pools
    assert (found.tier, pool.pool, pool.used_today) == ("api_key", common.POOL_API_KEY, 7)
    own = {limit.kind: (limit.limit, limit.remaining) for limit in pool.limits}
    assert own[common.LIMIT_KIND_KEY_DAY] == (5, 2)
    assert own[common.LIMIT_KIND_USER_DAY] == (10_000, 9_993)


async def test_a_key_without_the_scope_sees_nothing(stub: Stub, keys: FakeKeys, ann: UUID) -> None:
    keys.known["secret-key"] = Principal(user_id=ann, api_key_id=uuid7(), scopes=frozenset({"sign"}))
    with pytest.raises(PermissionDenied):
        await stub.GetQuota(pb.GetQuotaRequest(), metadata=bearer("secret-key"))
