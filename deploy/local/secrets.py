"""The stack's secrets: made once, kept in `<run>/secrets` (0700, each file 0600), never printed."""

from __future__ import annotations

from deploy.local.layout import HOST, Layout
from deploy.secrets import SUPERUSER, Folder

__all__ = ["SUPERUSER", "dsn", "ensure", "read"]


def _folder(layout: Layout) -> Folder:
    return Folder(layout.secrets, f"{HOST}:{layout.port('postgres')}", f"{HOST}:{layout.port('redis')}")


def ensure(layout: Layout) -> None:
    """Make whatever is missing. What exists is never changed, except addresses that moved."""
    _folder(layout).ensure()


def read(layout: Layout, name: str) -> str:
    """One secret."""
    return _folder(layout).read(name)


def dsn(layout: Layout, role: str, database: str | None = None) -> str:
    """A connection string for a role, password included: never print it."""
    return _folder(layout).dsn(role, database)
