"""The composition root of quota: PostgreSQL and Redis → store and counters → service → servicers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from servicekit.authn import CredentialAuthenticator
from servicekit.clock import SystemClock, uuid7
from servicekit.inside import Inside
from servicekit.peers import KeyServiceClient
from servicekit.postgres import open_database
from servicekit.redis import open_redis, open_sessions
from servicekit.rpc import create_channel, create_server
from servicekit.runner import Runtime
from servicekit.tokens import JwtVerifier
from servicekit.turns import SharedDatabase, Turns
from services.quota.config import QuotaSettings
from services.quota.counters import Counters, CounterSettings
from services.quota.epochs import Epochs
from services.quota.limits.service import LimitService
from services.quota.limits.servicer import LimitServicer
from services.quota.limits.store import LimitStore
from services.quota.plans import Plans
from services.quota.rebuild import Rebuilder
from services.quota.service import QuotaService
from services.quota.servicer import EnforcementServicer, QuotaServicer
from services.quota.store import QuotaStore
from signgate.quota.v1 import admin_pb2_grpc, enforcement_pb2_grpc, quota_pb2_grpc


async def compose(runtime: Runtime) -> None:
    """Build and start it all. Ready while Redis answers; PostgreSQL may go away after the start."""
    settings = cast("QuotaSettings", runtime.settings)
    clock = SystemClock()
    inside = Inside.of("quota", settings, clock)
    database = await runtime.connect(
        "postgres",
        lambda: open_database(
            settings.postgres_dsn.get_secret_value(),
            name="quota",
            min_size=2,
            max_size=4,
            acquire_timeout=1.0,
            statement_timeout=2.0,
        ),
    )
    # Callers' reads have separate connections, because charges wait while counters are loaded.
    callers = await runtime.connect(
        "postgres",
        lambda: open_database(
            settings.postgres_dsn.get_secret_value(),
            name="quota-callers",
            max_size=2,
            acquire_timeout=1.0,
            statement_timeout=2.0,
        ),
    )
    redis = await runtime.connect(
        "redis",
        lambda: open_redis(settings.redis_address(), timeout=settings.redis_timeout, name="quota"),
    )
    sessions = await runtime.connect(
        "redis",
        lambda: open_sessions(settings.other_redis_address("sessions_redis_url"), redis, name="quota"),
    )
    channel = await runtime.enter(create_channel(settings.keys_addr, timeout=2.0, peer=inside.peer("keys")))

    store = QuotaStore(database, SharedDatabase(callers, Turns(at_once=1, waiting=16)))
    plans = Plans(store, clock, interval=settings.plans_interval, shadow=settings.shadow)
    await runtime.connect("plans", lambda: _read(plans))
    epochs = Epochs(redis, settings.redis_timeout)
    counters = Counters(
        redis,
        epochs,
        CounterSettings(
            lease=settings.lease,
            timeout=settings.redis_timeout,
            failures=settings.breaker_failures,
            reset=settings.breaker_reset,
            replica=uuid7().hex,
        ),
    )
    rebuilder = Rebuilder(counters, epochs, store, timeout=settings.load_timeout)
    # Before the first charge: a new installation is known by nothing having been counted yet.
    await rebuilder.look()
    service = QuotaService(counters, plans, rebuilder, clock)
    runtime.background("plans", plans.watch())
    runtime.background("epochs", rebuilder.watch())

    server = create_server(
        authenticator=CredentialAuthenticator(
            JwtVerifier(settings.issuers(), clock=clock), sessions, KeyServiceClient(channel)
        ),
        callers=inside.callers,
        edge=inside.edge,
    )
    server.add(
        EnforcementServicer(service),
        enforcement_pb2_grpc.add_QuotaEnforcementServiceServicer_to_server,
    )
    server.add(QuotaServicer(service, store), quota_pb2_grpc.add_QuotaServiceServicer_to_server)
    server.add(
        LimitServicer(LimitService(LimitStore(database), plans, clock)),
        admin_pb2_grpc.add_QuotaAdminServiceServicer_to_server,
    )
    await runtime.serve(server, settings.grpc_listen)


@asynccontextmanager
async def _read(plans: Plans) -> AsyncIterator[Plans]:
    """Plans that were read once; the migrations may still be running."""
    await plans.refresh()
    yield plans
