"""Kept logins: what lets the next command go on without a password.

One JSON file in the user's configuration directory (`XDG_CONFIG_HOME` counts), an entry a server. It holds
tokens, so it is readable by its owner only; it is replaced whole, so no reader sees half of it.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import click

from signgate.auth.v1 import user_pb2


@dataclass(frozen=True)
class Login:
    """One account's session at one server. `expires_at` is the access token's, as epoch seconds."""

    email: str
    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_at: int

    @classmethod
    def of(cls, session: user_pb2.Session) -> Self:
        return cls(
            session.user.email, session.access_token, session.refresh_token, session.expires_at.seconds
        )


class Logins:
    """The file. Unreadable content counts as no login."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or Path(click.get_app_dir("signgate")) / "logins.json"

    def get(self, server: str) -> Login | None:
        """The login kept for a server."""
        try:
            return Login(**self._all()[server])
        except (KeyError, TypeError):
            return None

    def keep(self, server: str, login: Login) -> None:
        self._write(self._all() | {server: asdict(login)})

    def forget(self, server: str) -> None:
        """Drop a server's login; none is no error."""
        kept = self._all()
        if kept.pop(server, None) is not None:
            self._write(kept)

    def _all(self) -> dict[str, dict[str, Any]]:
        try:
            found = json.loads(self.path.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _write(self, logins: dict[str, dict[str, Any]]) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # mkstemp's file is its owner's from the beginning.
        number, name = tempfile.mkstemp(dir=self.path.parent, prefix=".logins-")
        with os.fdopen(number, "w", encoding="utf-8") as file:
            json.dump(logins, file, indent=1)
        Path(name).replace(self.path)
