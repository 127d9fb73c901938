"""TLS for internal listeners and for connections to peers, if certificates are configured.

    SIGNGATE_TLS_CERT, SIGNGATE_TLS_KEY   this service's certificate, with its chain, and its private key
    SIGNGATE_TLS_CA                       the certificates that vouch for the peers' own

All are PEM files. A replaced certificate is used for new connections after a second at most; open connections
stay. A peer's certificate must be for the name of the service (`quota`), and for health checks and HTTP by
address also for `localhost` and the address that is called.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from servicekit.clock import Clock
from servicekit.watched import FileError, WatchedFile


class _Pair(NamedTuple):
    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        return "_Pair()"


@dataclass(frozen=True, slots=True)
class ServerFiles:
    """A listener's certificate chain and private key."""

    certificate: Path
    key: Path


def grpc_credentials(files: ServerFiles, clock: Clock | None = None) -> grpc.ServerCredentials:
    """For a gRPC listener. Raises `FileError` when the files are not usable."""
    pairs = WatchedFile(_pair, files.certificate, files.key, clock=clock)
    first = served = pairs.current()

    def changed() -> Any:
        """Asked at each handshake, from a thread of the runtime's own; `None` for no change."""
        nonlocal served
        now = pairs.current()
        if now is served:
            return None
        served = now
        return _configuration(now)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(first), changed, require_client_authentication=False
    )


def http_context(files: ServerFiles, clock: Clock | None = None) -> ssl.SSLContext:
    """For an HTTP listener. Raises `FileError` when the files are not usable."""
    pairs = WatchedFile(_pair, files.certificate, files.key, clock=clock)
    served = pairs.current()
    outer = fresh = _context(files)

    def changed(connection: Any, _name: str | None, _: ssl.SSLContext) -> None:
        """Asked at each handshake: a replaced certificate is this connection's already."""
        nonlocal served, fresh
        now = pairs.current()
        if now is not served:
            with suppress(OSError):  # replaced again while it is read: the next look sees that
                served, fresh = now, _context(files)
        if fresh is not outer:
            connection.context = fresh

    outer.sni_callback = changed
    return outer


def channel_credentials(ca: Path) -> grpc.ChannelCredentials:
    """For a channel whose peer has a certificate from one of these authorities. Raises `FileError`."""
    try:
        return grpc.ssl_channel_credentials(root_certificates=ca.read_bytes())
    except OSError as error:
        raise FileError(f"{ca}: {error.strerror}") from None


def client_context(ca: Path) -> ssl.SSLContext:
    """For an HTTPS client, likewise. Raises `FileError`."""
    try:
        return ssl.create_default_context(cafile=str(ca))
    except (OSError, ssl.SSLError) as error:
        raise FileError(f"{ca}: {error.strerror or 'not certificates in PEM'}") from None


def _configuration(pair: _Pair) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(pair.key, pair.certificate)])


def _context(files: ServerFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(files.certificate, files.key)
    return context


def _pair(certificate: bytes, key: bytes) -> _Pair:
    """A pair whose key belongs to its certificate: while both are replaced, one may be there first."""
    try:
        ours = x509.load_pem_x509_certificates(certificate)[0].public_key()
        theirs = load_pem_private_key(key, None).public_key()
        belongs = ours == theirs
    except (ValueError, TypeError, UnsupportedAlgorithm, IndexError):
        belongs = False
    if not belongs:
        raise ValueError("not a certificate in PEM and its private key")
    return _Pair(certificate, key)
