"""Waiting until a part really serves: each is asked in its own language."""

from __future__ import annotations

import asyncio
import smtplib
import time
import urllib.request
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

import asyncpg
import grpc
import redis
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deploy.local import secrets
from deploy.local.errors import StackError
from deploy.local.layout import HOST, Instance, Layout
from deploy.local.programs import EDGE
from deploy.local.supervisor import Supervisor

PATIENCE = 120.0
"""Seconds that a part may take."""
_PAUSE = 0.1
_DEAD = {"BACKOFF", "FATAL", "EXITED", "STOPPED", "UNKNOWN"}
_FAST = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 200)]
Probe = Callable[[], bool]
T = TypeVar("T")


def probes(layout: Layout) -> dict[str, Probe]:
    """For each program, what says whether it is ready."""
    own: dict[str, Probe] = {
        "postgres": lambda: apart(_postgres(layout)),
        "redis": lambda: _redis(layout, "redis"),
        "limits": lambda: _redis(layout, "limits"),
        "mail": lambda: _smtp(layout),
        EDGE: lambda: _envoy(layout),
    }
    return own | {instance.name: _service(layout, instance) for instance in layout.instances()}


def wait(layout: Layout, name: str) -> float:
    """Return after how many seconds `name` was ready.

    Raises `StackError` if it is not in time, or dies: a service waits for what it needs, and one that
    can't start won't do so at the next try.
    """
    probe, supervisor, begun = probes(layout)[name], Supervisor(layout), time.monotonic()
    lives = set()
    while True:
        with suppress(OSError, asyncpg.PostgresError, redis.RedisError, smtplib.SMTPException, TimeoutError):
            if probe():
                return time.monotonic() - begun
        process = supervisor.processes()[name]
        lives.add(process.pid)
        if process.state in _DEAD or len(lives) > 1:
            raise StackError(f"{name} does not start ({process.description})", name)
        if time.monotonic() - begun > PATIENCE:
            raise StackError(f"{name} was not ready within {PATIENCE:.0f} s", name)
        time.sleep(_PAUSE)


def apart(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in a thread of its own: the caller may have a running loop, as tests do."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


async def _postgres(layout: Layout) -> bool:
    try:
        connection = await asyncpg.connect(secrets.dsn(layout, secrets.SUPERUSER, "postgres"), timeout=5)
    except asyncpg.InvalidPasswordError:
        raise StackError(
            f"The database was made with other secrets than those in {layout.secrets}. Put those back, or"
            " start from nothing: make clean"
        ) from None
    await connection.close()
    return True


def _redis(layout: Layout, name: str) -> bool:
    with redis.Redis(
        host=HOST, port=layout.port(name), password=secrets.read(layout, name), socket_timeout=2
    ) as client:
        return bool(client.ping())  # an error while it still reads its file


def _smtp(layout: Layout) -> bool:
    with smtplib.SMTP(HOST, layout.port("smtp"), timeout=2):
        return True


def _envoy(layout: Layout) -> bool:
    with urllib.request.urlopen(f"http://{HOST}:{layout.port('envoy_admin')}/ready", timeout=2) as answer:
        return bool(answer.read().strip() == b"LIVE")


def _service(layout: Layout, instance: Instance) -> Probe:
    if layout.tls:
        ca = grpc.ssl_channel_credentials((layout.secrets / "tls_ca.pem").read_bytes())
        channel = grpc.secure_channel(instance.address("grpc"), ca, options=_FAST)
    else:
        channel = grpc.insecure_channel(instance.address("grpc"), options=_FAST)
    check = health_pb2_grpc.HealthStub(channel).Check  # type: ignore[attr-defined]

    def probe() -> bool:
        try:
            answer = check(health_pb2.HealthCheckRequest(), timeout=2)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    return probe
