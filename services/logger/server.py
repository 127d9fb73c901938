"""The composition root: pools → stores → consumers and service → servicer."""

from __future__ import annotations

import asyncio
from functools import partial

from servicekit.authn import CredentialAuthenticator
from servicekit.clock import SystemClock
from servicekit.inside import Inside
from servicekit.mail import Smtp
from servicekit.outbound import Resolver
from servicekit.peers import KeyServiceClient
from servicekit.postgres import Database, open_database
from servicekit.redis import open_redis, open_sessions
from servicekit.rpc import create_channel, create_server
from servicekit.runner import Runtime
from servicekit.tokens import JwtVerifier
from servicekit.turns import SharedDatabase, Turns
from services.logger import codec
from services.logger.alerts.service import AlertService
from services.logger.alerts.servicer import AlertServicer
from services.logger.alerts.store import AlertStore
from services.logger.alerts.watch import AlertWatch
from services.logger.alerts.webhook import Webhooks
from services.logger.books import DatabaseBooks, StreamBooks
from services.logger.config import LoggerSettings
from services.logger.consumer import BatchPolicy, Consumer
from services.logger.housekeeping import Housekeeping, Upkeep
from services.logger.ingest import IngestStore, PartitionStore
from services.logger.peers import QuotaClient
from services.logger.reconciliation import Reconciler
from services.logger.service import UsageService
from services.logger.servicer import UsageServicer
from services.logger.store import UsageStore
from services.logger.stores import StoreWatch
from services.logger.stream import UsageStream
from signgate.usage.v1 import alerts_pb2_grpc, usage_pb2_grpc

BLOCKING_TIMEOUT = 2.0
"""Seconds: well above the time that a read of the stream may block."""


async def compose(settings: LoggerSettings, run: Runtime) -> None:
    """Start order; the runtime stops in the reverse order."""
    clock = SystemClock()
    inside = Inside.of("logger", settings, clock)
    dsn, redis_url = settings.postgres_dsn.get_secret_value(), settings.redis_address()

    async def pool(kind: str, size: int) -> Database:
        return await run.connect("postgres", partial(open_database, dsn, name=f"logger{kind}", max_size=size))

    # Ingestion and each kind of call have separate connections: none waits for another kind.
    database = await pool("", settings.ingest_pool)
    upkeep = await pool("-upkeep", settings.upkeep_pool)
    pages = await pool("-pages", settings.pages_pool)
    statistics = await pool("-statistics", settings.statistics_pool)
    exports = await pool("-exports", settings.exports_pool)
    shared_pages = SharedDatabase(pages, Turns(settings.reads_per_user, settings.reads_waiting))
    redis = await run.connect("redis", partial(open_redis, redis_url, name="logger"))
    stream_redis = await run.connect(
        "redis", partial(open_redis, redis_url, timeout=BLOCKING_TIMEOUT, name="logger-streams")
    )
    sessions = await run.connect(
        "redis",
        partial(open_sessions, settings.other_redis_address("sessions_redis_url"), redis, name="logger"),
    )
    quota_channel = await run.enter(
        create_channel(settings.quota_addr, timeout=5.0, peer=inside.peer("quota"))
    )
    keys_channel = await run.enter(create_channel(settings.keys_addr, peer=inside.peer("keys")))

    quota = QuotaClient(quota_channel)
    streams = [
        UsageStream(stream_redis, shard, settings.consumer_name) for shard in range(settings.usage_shards)
    ]
    housekeeping = Housekeeping(
        streams,
        PartitionStore(upkeep, clock),
        quota,
        clock,
        Upkeep(
            interval=settings.housekeeping_interval,
            months_ahead=settings.partitions_ahead,
            retention_months=settings.retention_months,
            backlog_bytes=settings.usage_backlog_bytes,
            backlog_alarm=settings.backlog_alarm,
        ),
    )
    await housekeeping.partitions()
    policy = BatchPolicy(
        entries=settings.batch_entries,
        rows=settings.batch_rows,
        age=settings.batch_age,
        age_busy=settings.batch_age_busy,
        claim_idle_ms=int(settings.claim_idle * 1000),
        max_attempts=settings.max_attempts,
        max_unsettled=settings.max_unsettled,
    )
    alerts = AlertStore(upkeep, shared_pages)
    webhooks = await run.enter(Webhooks(clock, allow_private=settings.webhook_allow_private))
    # Apart from the senders' own: new URLs can't use up what deliveries need.
    resolver = Resolver(threads=16)
    run.stack.callback(resolver.close)
    watch = AlertWatch(
        alerts,
        Smtp(settings) if settings.smtp_host else None,
        webhooks,
        clock,
        sender=settings.mail_from,
        product=settings.mail_product,
        interval=settings.alerts_interval,
    )
    consumers = [
        Consumer(stream, IngestStore(database), quota, codec.decode, clock, policy, watch.saw)
        for stream in streams
    ]
    for consumer in consumers:
        run.background(f"consumer {consumer.stream.key}", consumer.run())
    run.background("housekeeping", housekeeping.run())
    run.background("alerts", watch.run())
    run.background("stores", StoreWatch(redis, upkeep).run())
    if settings.reconcile_interval:
        # It reads whole days, which takes its time, and holds up nobody.
        days = await run.connect(
            "postgres",
            partial(open_database, dsn, name="logger-books", max_size=2, statement_timeout=300.0),
        )
        books = StreamBooks(redis, settings.usage_shards), DatabaseBooks(days)
        reconciler = Reconciler(*books, quota, clock)
        run.background(
            "reconciliation", reconciler.watch(settings.reconcile_interval, settings.reconcile_users)
        )

    async def finish_batches() -> None:
        """What is in hand is committed and acknowledged; what is not comes back to the next start."""
        for consumer in consumers:
            consumer.stop()
        await asyncio.wait(
            [asyncio.ensure_future(c.stopped.wait()) for c in consumers], timeout=settings.drain_grace
        )

    run.stack.push_async_callback(finish_batches)
    run.readiness("postgres", database.ping)

    authenticator = CredentialAuthenticator(
        JwtVerifier(settings.issuers(), clock=clock),
        sessions,
        KeyServiceClient(keys_channel),
    )
    server = create_server(authenticator=authenticator, callers=inside.callers, edge=inside.edge, clock=clock)
    reader = UsageStore(
        shared_pages,
        statistics=SharedDatabase(statistics, Turns(settings.reads_per_user, settings.reads_waiting)),
        exports=SharedDatabase(exports, Turns(1, settings.exports_per_user)),
        system=statistics,
    )
    servicer = UsageServicer(UsageService(reader, clock), settings.export_bounds(), authenticator)
    server.add(servicer, usage_pb2_grpc.add_UsageServiceServicer_to_server)
    server.add(
        AlertServicer(AlertService(alerts, allow_private=settings.webhook_allow_private, resolver=resolver)),
        alerts_pb2_grpc.add_AlertServiceServicer_to_server,
    )
    await run.serve(server, settings.grpc_listen)
