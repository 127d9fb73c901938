"""How large a request's headers may be: one number for the edge, the services and what travels in them.

The edge's template is rendered with these, so a caller's headers that the edge lets in fit every service
behind it, and an access token takes a quarter of them. A service takes more than the edge: the edge adds
headers of its own, and HTTP/2 counts 32 bytes more for each header than the edge does (RFC 9113, 6.5.2).
"""

from __future__ import annotations

from typing import Final

EDGE_KB: Final = 16
"""KiB of a caller's headers, path and query included, that the edge takes."""
EDGE: Final = EDGE_KB * 1024
COUNT: Final = 100
"""Headers of one request that the edge takes."""
OVERHEAD: Final = 32
ADDED: Final = 4 * 1024
"""Bytes that the edge may add: its proof, addresses, ids, the path before it was transcoded."""
SERVICE: Final = EDGE + ADDED + OVERHEAD * (COUNT + 20)
"""Bytes of headers that a service takes. All its servers have this, HTTP and gRPC."""
TOKEN: Final = EDGE // 4
"""Bytes of an access token of ours, at most."""

GRPC_OPTIONS: Final = (
    # The runtime refuses at random, more often the longer they are, what is between the two.
    ("grpc.max_metadata_size", SERVICE),
    ("grpc.absolute_max_metadata_size", SERVICE),
)
