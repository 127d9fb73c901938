"""How the signer is put together, and in which order it starts; it stops in the reverse."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import grpc
import uuid_utils

from servicekit.batching import Batcher
from servicekit.clock import SystemClock
from servicekit.inside import Inside
from servicekit.redis import open_redis, open_sessions
from servicekit.rpc import create_channel, create_server
from servicekit.rpc.client import PeerChannel
from servicekit.runner import Check, Runtime
from servicekit.tokens import JwtVerifier
from services.signer.access import DEFERRED
from services.signer.assembly import make_engines, start_engines, stop_engines, watch_engines
from services.signer.config import SignerSettings
from services.signer.door import Door
from services.signer.engines.native import NativeEngine
from services.signer.errors import EngineUnavailable
from services.signer.http import create_app
from services.signer.jobs import Job
from services.signer.lanes import Lanes
from services.signer.limits import LimitReader
from services.signer.line import Line
from services.signer.lists import as_call
from services.signer.peers import KeysClient, QuotaClient, RefundQueue
from services.signer.publisher import publisher
from services.signer.registry import Engines
from services.signer.service import SignerService
from services.signer.servicer import SignerServicer
from services.signer.streams import Streams
from signgate.signer.v1.signer_pb2_grpc import add_SignerServiceServicer_to_server


async def compose(runtime: Runtime) -> None:
    """Redis → peers → engines → line → faces."""
    settings = runtime.settings
    if not isinstance(settings, SignerSettings):
        raise TypeError("the signer's settings")
    clock = SystemClock()
    inside = Inside.of("signer", settings, clock)
    redis = await runtime.connect(
        "Redis",
        lambda: open_redis(settings.redis_address(), timeout=settings.redis_timeout, name="signer"),
    )
    keys_channel = await runtime.enter(
        create_channel(settings.keys_addr, timeout=settings.peer_timeout, peer=inside.peer("keys"))
    )
    quota_channel = await runtime.enter(
        create_channel(settings.quota_addr, timeout=settings.peer_timeout, peer=inside.peer("quota"))
    )
    sessions = await runtime.connect(
        "Redis",
        lambda: open_sessions(
            settings.other_redis_address("sessions_redis_url"),
            redis,
            timeout=settings.redis_timeout,
            name="signer",
        ),
    )
    keys = KeysClient(keys_channel, timeout=settings.peer_timeout)
    quota = QuotaClient(quota_channel, timeout=settings.peer_timeout)

    engines = make_engines(settings, clock)
    runtime.stack.push_async_callback(stop_engines, engines)
    await start_engines(engines)
    runtime.background("canaries", watch_engines(engines, settings.canary_interval))
    refunds = RefundQueue(quota)
    runtime.stack.push_async_callback(refunds.flush)
    runtime.background("refunds", refunds.run())
    line = Line(
        keys,
        sessions,
        quota,
        engines,
        publisher(redis, settings.usage_backlog_bytes),
        refunds,
        clock=clock,
        shards=settings.usage_shards,
    )
    singles = _lanes("sign", line, settings, settings.max_list, settings.max_waiting)
    runtime.stack.push_async_callback(singles.close)
    streams = _lanes("sign_stream", line, settings, settings.max_streamed, settings.max_streamed_waiting)
    runtime.stack.push_async_callback(streams.close)
    batches = _lanes("sign_batch", line, settings, settings.max_batches, settings.max_batches_waiting)
    runtime.stack.push_async_callback(batches.close)

    door = Door(keys, sessions, waiting=settings.max_unproven)
    runtime.stack.push_async_callback(door.close)
    service = SignerService(
        tokens=JwtVerifier(settings.issuers(), clock=clock),
        door=door,
        singles=singles,
        streams=streams,
        batches=batches,
        engines=engines,
        clock=clock,
        request_ids=lambda: str(uuid_utils.uuid7()),
        max_wait=settings.max_wait,
    )
    open_streams = Streams(door, keys, sessions, settings.stream_limits(), clock)
    servicer = SignerServicer(service, open_streams, clock)
    server = create_server(deferred=DEFERRED, callers=inside.callers, edge=inside.edge)
    server.add(servicer, add_SignerServiceServicer_to_server)
    runtime.background("streams", open_streams.watch())
    runtime.background("stopping streams", _when_stopping(runtime, open_streams.stop))
    runtime.readiness("engine", _engine_check(engines))
    runtime.readiness("keys", _channel_check(keys_channel))
    runtime.readiness("quota", _channel_check(quota_channel))
    await runtime.serve(server, settings.grpc_listen)
    if settings.http_listen is not None:
        limits = LimitReader(door, quota, waiting=lambda: singles.waiting, shed_at=settings.max_waiting)
        await runtime.serve_http(create_app(service, limits, clock, inside.edge), settings.http_listen)


def _lanes(name: str, line: Line, settings: SignerSettings, most: int, waiting: int) -> Lanes:
    """A batcher for the default engine, and one more for each other engine that may be slow."""

    def lane(name: str, in_flight: int) -> Batcher[Job, Job]:
        return Batcher(
            as_call(line.run),
            name=name,
            max_batch=most,
            max_waiting=waiting,
            in_flight=in_flight,
            settle=settings.settle,
        )

    slow = [engine for engine in settings.engines if engine != NativeEngine.name]
    default = lane(name, settings.lists_in_flight if slow else 1)
    by_engine = {engine: lane(f"{name}_{engine}", settings.lists_in_flight) for engine in slow}
    return Lanes(by_engine | {settings.default_engine: default}, settings.default_engine)


def _engine_check(engines: Engines) -> Check:
    async def check() -> None:
        status = engines[engines.default].describe()
        if not status.ready:
            raise EngineUnavailable(status.not_ready_reason)

    return check


def _channel_check(channel: grpc.aio.Channel) -> Check:
    """Ready while connected: without this peer every signature would be refused."""

    async def check() -> None:
        # Tries to connect, where nothing has yet.
        await cast("PeerChannel", channel).ready()

    return check


async def _when_stopping(runtime: Runtime, act: Callable[[], None]) -> None:
    await runtime.stopping.wait()
    act()
