"""Asks a service whether it is ready, as a container's health check: `python -m servicekit.health :7101`.

Exit status 0 when the service on this machine that listens there says SERVING within two seconds, else 1
with the reason on stderr. Where the service has a certificate (`SIGNGATE_TLS_CERT`) it is asked by TLS: the
certificate must name 127.0.0.1, and `SIGNGATE_TLS_CA` must vouch for it. It loads nothing but gRPC, for it
runs every few seconds beside each service.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import grpc

TIMEOUT = 2.0
SERVING = b"\x08\x01"
"""A HealthCheckResponse with status SERVING."""


def check(address: str) -> None:
    """Return when it is ready. Raises `grpc.RpcError`, or `ValueError` with what it answered instead."""
    with _channel(f"127.0.0.1:{address.rpartition(':')[2]}") as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/grpc.health.v1.Health/Check")
        answer = call(b"", timeout=TIMEOUT, wait_for_ready=True)
    if answer != SERVING:
        raise ValueError("not ready")


def _channel(target: str) -> grpc.Channel:
    certificate, ca = (
        os.environ.get(f"SIGNGATE_{name}_FILE") or os.environ.get(f"SIGNGATE_{name}")
        for name in ("TLS_CERT", "TLS_CA")
    )
    if not certificate:
        return grpc.insecure_channel(target)
    roots = Path(ca).read_bytes() if ca else None  # `None`: the system's
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(roots))


def main() -> int:
    """See the module."""
    if len(sys.argv) != 2:  # noqa: PLR2004  # the program and its one argument
        sys.stderr.write(f"{__doc__}\n")
        return 2
    try:
        check(sys.argv[1])
    except grpc.RpcError as error:
        sys.stderr.write(f"no answer: {error}\n")
        return 1
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
