"""TLS to Redis: one context for all connections, which trusts only the configured authority.

redis-py creates a context for each connection, and first reads every authority of the system: this blocks the
event loop for 29 ms, and even with `ssl_ca_certs` the context trusts all of them.
"""

from __future__ import annotations

import ssl
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from redis.asyncio.cluster import RedisCluster
from redis.asyncio.connection import SSLConnection

_usual: Final[dict[str, object]] = {"ssl_check_hostname": True, "ssl_cert_reqs": "required"}
"""The defaults of redis-py's options of TLS that are not `None`."""


class SharedTls(SSLConnection):
    """A connection whose context others have made already, unless the file has changed since."""

    def __init__(self, *, ssl_ca_certs: str | None = None, **options: Any) -> None:
        super().__init__(ssl_ca_certs=ssl_ca_certs, **options)
        # A cluster's client spells out what is left to the default.
        if any(value != _usual.get(name) for name, value in options.items() if name.startswith("ssl_")):
            return  # an operator's own wishes in the URL: as redis-py does it
        changed = Path(ssl_ca_certs).stat().st_mtime_ns if ssl_ca_certs else 0
        self.ssl_context.context = _context(ssl_ca_certs, changed)


@lru_cache(maxsize=8)
def _context(ca: str | None, changed: int) -> ssl.SSLContext:  # noqa: ARG001  # a part of the cache's key
    context = ssl.create_default_context(cafile=ca)  # the system's authorities where none is named
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def share(client: Any) -> None:
    """Share one context among a client's TLS connections; a plain-text client stays unchanged."""
    if isinstance(client, RedisCluster):
        if client.connection_kwargs.get("connection_class") is SSLConnection:
            client.connection_kwargs["connection_class"] = SharedTls
            for node in client.nodes_manager.startup_nodes.values():
                node.connection_class = SharedTls
    elif client.connection_pool.connection_class is SSLConnection:
        client.connection_pool.connection_class = SharedTls
