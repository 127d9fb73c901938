"""Connections to Redis by TLS share one context, which trusts the authority that is named and no other."""

from __future__ import annotations

import os
import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis.asyncio as aioredis
from redis.asyncio.cluster import RedisCluster

from deploy import certificates
from servicekit import redis_tls
from servicekit.redis_tls import SharedTls


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    made: dict[str, bytes] = {}
    certificates.ensure(["redis"], made.get, made.__setitem__, datetime.now(UTC))
    path = tmp_path / "tls_ca.pem"
    path.write_bytes(made["tls_ca.pem"])
    return path


def test_all_connections_share_a_context_that_trusts_this_authority_alone(ca: Path) -> None:
    one, other = SharedTls(host="redis", ssl_ca_certs=str(ca)), SharedTls(host="redis", ssl_ca_certs=str(ca))
    context = one.ssl_context.get()
    assert context is other.ssl_context.get()
    assert context.check_hostname
    (trusted,) = context.get_ca_certs()
    assert trusted["subject"] == ((("commonName", "Signgate, inside"),),)


def test_a_replaced_file_counts_from_the_next_connection_on(ca: Path) -> None:
    before = SharedTls(ssl_ca_certs=str(ca)).ssl_context.get()
    changed = ca.stat().st_mtime_ns + 1_000_000_000
    os.utime(ca, ns=(changed, changed))
    assert SharedTls(ssl_ca_certs=str(ca)).ssl_context.get() is not before


def test_what_the_url_wishes_besides_is_redis_pys_own_business(ca: Path) -> None:
    loose = SharedTls(ssl_ca_certs=str(ca), ssl_check_hostname=False)
    assert not loose.ssl_context.get().check_hostname
    picky = SharedTls(ssl_ca_certs=str(ca), ssl_min_version=ssl.TLSVersion.TLSv1_3)
    assert picky.ssl_context.get().minimum_version == ssl.TLSVersion.TLSv1_3


async def test_a_client_by_tls_gets_it_and_one_without_stays_as_it_is(ca: Path) -> None:
    tls = aioredis.Redis.from_url(f"rediss://redis:1/0?ssl_ca_certs={ca}")
    plain = aioredis.Redis.from_url("redis://redis:1/0")
    cluster = RedisCluster.from_url(f"rediss://redis:1?ssl_ca_certs={ca}")
    for client in (tls, plain, cluster):
        redis_tls.share(client)
    assert tls.connection_pool.connection_class is SharedTls
    assert plain.connection_pool.connection_class is not SharedTls
    (node,) = cluster.nodes_manager.startup_nodes.values()
    assert node.connection_class is SharedTls
    assert cluster.connection_kwargs["connection_class"] is SharedTls
    # It names options that are left to the default, which is no wish of an operator's.
    one, other = (node.connection_class(**node.connection_kwargs) for _ in range(2))
    assert one.ssl_context.get() is other.ssl_context.get()
    assert len(one.ssl_context.get().get_ca_certs()) == 1
    for client in (tls, plain):
        await client.aclose()
