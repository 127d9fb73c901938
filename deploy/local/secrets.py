"""The stack's secrets: made once, kept in `<run>/secrets` (0700, each file 0600), never printed."""

from __future__ import annotations

from deploy.local.layout import HOST, Layout
from deploy.secrets import SUPERUSER, Folder
from servicekit.identity import Identity, Peer

__all__ = ["SUPERUSER", "dsn", "ensure", "peer", "read", "rotate_service"]


def _folder(layout: Layout) -> Folder:
    postgres, redis, limits = (f"{HOST}:{layout.port(name)}" for name in ("postgres", "redis", "limits"))
    return Folder(layout.secrets, postgres=postgres, redis=redis, limits=limits)


def ensure(layout: Layout) -> None:
    """Make whatever is missing. What exists is never changed, except addresses that moved."""
    _folder(layout).ensure()


def read(layout: Layout, name: str) -> str:
    """One secret."""
    return _folder(layout).read(name)


def rotate_service(layout: Layout, name: str, *, lead: int, overlap: int) -> None:
    """Give a service a new key to prove itself by; see `deploy.secrets`."""
    _folder(layout).rotate_service(name, lead, overlap)


def peer(layout: Layout, caller: str, called: str) -> Peer:
    """The service `called`, for who calls it as the service `caller`: tests and measurements."""
    ca = layout.secrets / "tls_ca.pem" if layout.tls else None
    return Peer(called, Identity(caller, layout.secrets / f"service_key_{caller}"), ca)


def dsn(layout: Layout, role: str, database: str | None = None) -> str:
    """A connection string for a role, password included: never print it."""
    return _folder(layout).dsn(role, database)
