"""The limits' own connections to Redis are encrypted, and check the server, where the URL says so."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from redis.asyncio.connection import SSLConnection

from deploy import certificates
from servicekit.clock import SystemClock
from services.auth.limits import RateLimits


def client(url: str) -> Any:
    limits = RateLimits(url, {"rate_sign_in_ip": "1 per hour"}, "p" * 32, SystemClock())
    return limits._storage.bridge.get_connection()  # what the library makes of the URL


@pytest.mark.parametrize(
    ("url", "ca"),
    [("redis://localhost:1/0", None), ("rediss://localhost:1/0?ssl_ca_certs=%2Fca.pem", "/ca.pem")],
)
def test_one_server(url: str, ca: str | None) -> None:
    pool = client(url).connection_pool
    assert issubclass(pool.connection_class, SSLConnection) == (ca is not None)
    assert pool.connection_kwargs.get("ssl_ca_certs") == ca


async def test_a_cluster() -> None:
    """The library has no scheme for it; left alone it would talk in plain text."""
    cluster = client("rediss+cluster://u:p@localhost:1?ssl_ca_certs=%2Fca.pem")
    told = cluster.connection_kwargs
    assert (told["username"], told["password"], told["ssl_ca_certs"]) == ("u", "p", "/ca.pem")
    assert told["ssl_cert_reqs"] == "required"
    assert issubclass(cluster.nodes_manager.startup_nodes["127.0.0.1:1"].connection_class, SSLConnection)


@pytest.mark.parametrize("scheme", ["rediss", "rediss+cluster"])
async def test_they_trust_the_named_authority_alone_by_one_context(scheme: str, tmp_path: Path) -> None:
    made: dict[str, bytes] = {}
    certificates.ensure(["limits"], made.get, made.__setitem__, datetime.now(UTC))
    ca = tmp_path / "tls_ca.pem"
    ca.write_bytes(made["tls_ca.pem"])
    found = client(f"{scheme}://localhost:1?ssl_ca_certs={quote(str(ca), safe='')}")
    if scheme == "rediss":
        one, other = (found.connection_pool.make_connection() for _ in range(2))
    else:
        (node,) = found.nodes_manager.startup_nodes.values()
        one, other = (node.connection_class(**node.connection_kwargs) for _ in range(2))
    assert one.ssl_context.get() is other.ssl_context.get()
    assert len(one.ssl_context.get().get_ca_certs()) == 1
