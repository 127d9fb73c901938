"""Between containers nothing is told in plain text, and a certificate is good for one part's name only."""

from __future__ import annotations

import re
import ssl
import time

import asyncpg
import grpc
import httpx
import pytest
import redis

from deploy.secrets import SUPERUSER, Folder
from deploy.settings import table
from tests.containers.stack import SERVICES, Stack

pytestmark = pytest.mark.timeout(900)

HEALTH = "/grpc.health.v1.Health/Check"


def authority(stack: Stack) -> bytes:
    return (stack.secrets / "tls_ca.pem").read_bytes()


def health(channel: grpc.Channel) -> bytes:
    with channel:
        ask: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(HEALTH)
        return ask(b"", timeout=10)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_answers_by_tls_for_its_own_name_alone(stack: Stack, service: str) -> None:
    (container,) = stack.containers(service)
    target = f"{stack.address(container)}:{table().services[service].ports['grpc']}"
    credentials = grpc.ssl_channel_credentials(authority(stack))

    def called(name: str) -> grpc.Channel:
        options = [("grpc.ssl_target_name_override", name)]
        return grpc.secure_channel(target, credentials, options)

    assert health(called(service)) == b"\x08\x01"
    other = next(name for name in SERVICES if name != service)
    for channel in (
        called(other),
        grpc.insecure_channel(target),
        grpc.secure_channel(target, grpc.ssl_channel_credentials()),
    ):
        with pytest.raises(grpc.RpcError):
            health(channel)


def test_the_edge_finds_every_service_ready(stack: Stack) -> None:
    """Else it would send calls to services that start or stop, and count on luck."""
    (edge,) = stack.containers("envoy")
    faces = {*SERVICES, "auth_http", "signer_http", "signer_streams", "logger_streams"}
    gauge = re.compile(r'envoy_cluster_membership_(healthy|total)\{envoy_cluster_name="(\w+)"\} (\d+)')
    ready: set[str] = set()
    end = time.monotonic() + 30
    while ready != faces and time.monotonic() < end:
        time.sleep(0.5)
        told = httpx.get(f"http://{stack.address(edge)}:9902/metrics", timeout=10).text
        found = {(cluster, kind): int(count) for kind, cluster, count in gauge.findall(told)}
        ready = {face for face in faces if found[face, "healthy"] == found[face, "total"] > 0}
    assert ready == faces


async def test_postgresql_takes_no_password_in_plain_text(stack: Stack) -> None:
    (container,) = stack.containers("postgres")
    dsn = Folder(stack.secrets, stack.address(container), "", "").dsn(SUPERUSER)
    with pytest.raises((asyncpg.PostgresError, OSError, asyncpg.InterfaceError)):
        await asyncpg.connect(dsn, ssl="disable", timeout=10)
    context = ssl.create_default_context(cadata=authority(stack).decode())
    context.check_hostname = False  # it names what containers call it
    connection = await asyncpg.connect(dsn, ssl=context, timeout=30)
    assert await connection.fetchval("SELECT 1") == 1
    await connection.close()


def test_redis_has_no_port_in_plain_text(stack: Stack) -> None:
    (container,) = stack.containers("redis")
    with (
        redis.Redis(host=stack.address(container), socket_timeout=10) as plain,
        pytest.raises(redis.RedisError),
    ):
        plain.ping()
    with stack.redis() as server:
        assert server.ping()


def test_the_authoritys_own_key_is_in_no_container(stack: Stack) -> None:
    for part in (*SERVICES, "envoy", "postgres", "redis"):
        (container,) = stack.containers(part)
        mounts = [mount["Destination"] for mount in stack.inspect(container)["Mounts"]]
        assert not [path for path in mounts if path.endswith("tls_ca.key")]
        keys = {path.rpartition("/")[2] for path in mounts if path.endswith(".key")}
        assert keys <= {f"tls_{part}.key"}
