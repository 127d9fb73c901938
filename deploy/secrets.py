"""The secrets that an installation makes for itself, each a file in one folder.

    python -m deploy.secrets deploy/compose/secrets

makes those of a stack in containers, where PostgreSQL and Redis are called by their names. What exists is
never changed, except connection strings when an address has moved. The folder is its owner's alone; the
files in it anybody's to read, for each is mounted into containers whose users are not this machine's.
"""

from __future__ import annotations

import base64
import secrets
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.migrate import ADMIN_DSN
from deploy.settings import table

SUPERUSER: Final = "postgres"


@dataclass(frozen=True)
class Folder:
    """Where they are. `postgres` and `redis`: `host:port` of each; `mode`: the files' permissions.

    `passwords`: names of those that are nothing but a password.
    """

    path: Path
    postgres: str
    redis: str
    mode: int = 0o600
    passwords: tuple[str, ...] = ("postgres_superuser", "redis")

    def ensure(self) -> None:
        """Make whatever is missing."""
        self.path.mkdir(parents=True, exist_ok=True)
        self.path.chmod(0o700)
        for name in self.passwords:
            self._password(name)
        for name in ("key_pepper", "token_pepper"):
            self._make(name, _versioned)
        self._make("smtp_password", lambda: "")  # the mail catcher asks for none
        self._keyset("jwt_keyset", "ES256")
        self._keyset("signing_keyset", "EdDSA", "HS256")
        # A line of Redis' configuration, which includes the file.
        self._write("redis_auth", f"requirepass {self.read('redis')}")
        self._write("redis_url", f"redis://:{self.read('redis')}@{self.redis}/0")
        # The migration tool asks for TLS unless it is told that there is none.
        self._write(ADMIN_DSN, f"{self.dsn(SUPERUSER)}?sslmode=disable")
        for role, name in table().database_roles().items():
            self._password(f"postgres_{role}")
            self._write(name, self.dsn(role))
        missing = {name for name in table().secrets() if not (self.path / name).exists()}
        if missing:
            raise LookupError(f"nothing makes the secrets {sorted(missing)} of settings.toml")

    def read(self, name: str) -> str:
        """One secret."""
        return (self.path / name).read_text(encoding="utf-8").strip()

    def dsn(self, role: str, database: str | None = None) -> str:
        """A connection string for a role, password included: never print it."""
        password = self.read("postgres_superuser" if role == SUPERUSER else f"postgres_{role}")
        return f"postgresql://{role}:{password}@{self.postgres}/{database or table().database}"

    def _password(self, name: str) -> None:
        self._make(name, lambda: secrets.token_urlsafe(24))

    def _make(self, name: str, value: Callable[[], str]) -> None:
        if not (self.path / name).exists():
            self._write(name, value())

    def _write(self, name: str, text: str) -> None:
        """Whole or not at all, and never readable by more than it shall be, not even for a moment."""
        partial = self._partial(name)
        partial.touch(mode=0o600)
        partial.write_text(text + "\n", encoding="utf-8")
        self._finish(partial, name)

    def _keyset(self, name: str, *algorithms: str) -> None:
        """A JWK Set with one fresh key for each algorithm."""
        if (self.path / name).exists():
            return
        partial = self._partial(name)
        for algorithm in algorithms:
            command = "rotate" if partial.exists() else "new"
            subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "servicekit.keyset",
                    command,
                    "--alg",
                    algorithm,
                    "--out",
                    str(partial),
                ],
                check=True,
                stdout=subprocess.DEVNULL,
            )
        self._finish(partial, name)

    def _partial(self, name: str) -> Path:
        partial = self.path / f".{name}.partial"
        partial.unlink(missing_ok=True)
        return partial

    def _finish(self, partial: Path, name: str) -> None:
        partial.chmod(self.mode)
        partial.rename(self.path / name)


def in_containers(path: Path) -> Folder:
    """Those of a stack in containers."""
    ports = table().container_ports
    stores = {name: f"{name}:{ports[name]}" for name in ("postgres", "redis")}
    return Folder(path, **stores, mode=0o644, passwords=("postgres_superuser", "redis", "grafana_admin"))


def _versioned() -> str:
    """The first version of a pepper, as a service reads its keyring: `<version>:<base64>`."""
    return f"1:{base64.b64encode(secrets.token_bytes(32)).decode()}"


def main() -> int:
    """See the module."""
    if len(sys.argv) != 2:  # noqa: PLR2004  # the program and its one argument
        sys.stderr.write(f"{__doc__}\n")
        return 2
    folder = in_containers(Path(sys.argv[1]))
    folder.ensure()
    print("The secrets are made. Keep a copy where the backups are not: neither is of use without the other.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
