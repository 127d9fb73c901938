"""The secrets that an installation makes for itself, each a file in one folder.

    python -m deploy.secrets deploy/compose/secrets

makes those of a stack in containers, where PostgreSQL and Redis are called by their names. What exists is
never changed, except connection strings when an address has moved, and certificates that end soon. The
folder is its owner's alone; the files in it anybody's to read, for each is mounted into containers whose
users are not this machine's.

    python -m deploy.secrets rotate-service signer deploy/compose/secrets

gives a service a new key to prove itself by, under running services: its public half is published at once,
it signs from `--lead` seconds on, and the old one counts for `--overlap` seconds after that.
"""

from __future__ import annotations

import argparse
import base64
import json
import secrets
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from deploy import acl, certificates
from deploy.migrate import ADMIN_DSN
from deploy.settings import table
from servicekit import keyset
from servicekit.identity import ALGORITHM, published

SUPERUSER: Final = "postgres"
SERVICE_KEYS: Final = "service_keys.json"
SHORTEST_LEAD: Final = 5
"""Seconds from publishing a service's key to signing with it, at the least."""
STORES: Final = ("postgres", "redis", "limits")
"""Who gets certificates beside the services, of those that there are."""


@dataclass(frozen=True)
class Folder:
    """Where they are. `postgres`, `redis`, `limits`: `host:port` of each; `mode`: the files' permissions.

    `passwords`: names of those that are nothing but a password. `mounted`: containers have them mounted, one
    by one. `authority`: where those who connect to stores find tls_ca.pem; then they do by TLS.
    """

    path: Path
    postgres: str
    redis: str
    limits: str
    mode: int = 0o600
    passwords: tuple[str, ...] = ("postgres_superuser", "redis", "limits")
    mounted: bool = False
    authority: Path | None = None

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
        self._make("edge_secret", lambda: secrets.token_urlsafe(32))
        self._edge_proof()
        for name in table().services:
            self._keyset(f"service_key_{name}", ALGORITHM)
        self._publish()
        self._certificates()
        self._redis()
        # The migration tool asks for TLS unless it is told that there is none.
        self._write(ADMIN_DSN, f"{self.dsn(SUPERUSER)}{'' if self.authority else '?sslmode=disable'}")
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
        tls = f"?sslmode=verify-full&sslrootcert={self.authority}" if self.authority else ""
        return f"postgresql://{role}:{password}@{self.postgres}/{database or table().database}{tls}"

    def rotate_service(self, name: str, lead: int, overlap: int, *, stolen: bool = False) -> None:
        """Give a service a new key. Raises `KeySetError`, or `LookupError` for a name that is none.

        The new one signs from `lead` seconds on, the old ones count for `overlap` seconds after that. Of a
        `stolen` key nothing is left: the new one signs at once, and until all have seen it, which takes about
        two seconds, the service's calls are refused.
        """
        if name not in table().services:
            raise LookupError(f"there is no service {name}")
        file = f"service_key_{name}"
        now = datetime.now(UTC).timestamp()
        partial = self._partial(file)
        keys = keyset.KeySet(()) if stolen else keyset.load(self.path / file)
        keyset.save(partial, keys.rotated(ALGORITHM, now, lead=lead, overlap=overlap).keys)
        self._replace(partial, file)
        self._publish()

    def _published(self) -> str | None:
        """The public keys as they should be now; `None` if that is what the file has."""
        private = {name: keyset.load(self.path / f"service_key_{name}") for name in table().services}
        text = published(private, datetime.now(UTC).timestamp())
        file = self.path / SERVICE_KEYS
        return None if file.exists() and file.read_text(encoding="utf-8") == text else text

    def _publish(self) -> None:
        if (text := self._published()) is not None:
            partial = self._partial(SERVICE_KEYS)
            partial.write_text(text, encoding="utf-8")
            self._replace(partial, SERVICE_KEYS)

    def _certificates(self) -> None:
        """Of every service and store, for those who turn TLS on."""

        def read(name: str) -> bytes | None:
            path = self.path / name
            return path.read_bytes() if path.exists() else None

        def write(name: str, content: bytes) -> None:
            partial = self._partial(name)
            partial.touch(mode=0o600)
            partial.write_bytes(content)
            self._replace(partial, name)

        names = [*table().services, *(name for name in table().container_ports if name in STORES)]
        certificates.ensure(names, read, write, datetime.now(UTC))

    def _redis(self) -> None:
        """Each service's user; and `redis_url`, by which operators and tests reach what no service may."""
        stores: dict[acl.Store, str] = {"redis": self.redis, "limits": self.limits}
        scheme = "rediss" if self.authority else "redis"
        for user in acl.USERS:
            self._password(user.password)
            self._write(
                user.url, f"{scheme}://{user.login}:{self.read(user.password)}@{stores[user.store]}/0"
            )
        self._write("redis_url", f"{scheme}://:{self.read('redis')}@{self.redis}/0")
        for store in stores:
            # Lines of Redis' configuration, which includes the file.
            lines = [f"requirepass {self.read(store)}", *acl.lines(store, self.path)]
            self._write(f"{store}_auth", "\n".join(lines))

    def _edge_proof(self) -> None:
        """What the edge sends: the first line of edge_secret, in the form that Envoy reads and watches."""
        resource = {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            "name": "edge_proof",
            "generic_secret": {"secret": {"inline_string": self.read("edge_secret").split()[0]}},
        }
        self._write("edge_proof", json.dumps({"resources": [resource]}))

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

    def _replace(self, partial: Path, name: str) -> None:
        """As `_finish`, for a file that running services look at.

        A file that is mounted into a container by itself stays the one that it was when the container
        started: there it is written over, and a reader that sees half of it reads it again.
        """
        path = self.path / name
        if not self.mounted or not path.exists():
            self._finish(partial, name)
            return
        with path.open("r+b") as file:
            file.write(partial.read_bytes())
            file.truncate()
        partial.unlink()

    def _finish(self, partial: Path, name: str) -> None:
        partial.chmod(self.mode)
        partial.rename(self.path / name)


def in_containers(path: Path) -> Folder:
    """Those of a stack in containers."""
    ports = table().container_ports
    stores = {name: f"{name}:{ports[name]}" for name in ("postgres", "redis", "limits")}
    passwords = ("postgres_superuser", "redis", "limits", "grafana_admin")
    authority = Path("/run/secrets") / "tls_ca.pem"
    return Folder(path, **stores, mode=0o644, passwords=passwords, mounted=True, authority=authority)


def _versioned() -> str:
    """The first version of a pepper, as a service reads its keyring: `<version>:<base64>`."""
    return f"1:{base64.b64encode(secrets.token_bytes(32)).decode()}"


def main() -> int:
    """See the module."""
    if sys.argv[1:2] == ["rotate-service"]:
        return _rotate_service(sys.argv[2:])
    if len(sys.argv) != 2:  # noqa: PLR2004  # the program and its one argument
        sys.stderr.write(f"{__doc__}\n")
        return 2
    folder = in_containers(Path(sys.argv[1]))
    folder.ensure()
    print("The secrets are made. Keep a copy where the backups are not: neither is of use without the other.")
    return 0


def _rotate_service(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.secrets rotate-service")
    parser.add_argument("name", choices=sorted(table().services))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lead", type=int, default=keyset.LEAD, help="seconds until the new key signs")
    parser.add_argument("--stolen", action="store_true", help="reject the old key at once")
    parser.add_argument(
        "--overlap",
        type=int,
        default=keyset.OVERLAP,
        help="seconds for which the old key stays valid after that",
    )
    given = parser.parse_args(arguments)
    if given.lead < SHORTEST_LEAD and not given.stolen:
        parser.error(f"--lead must be {SHORTEST_LEAD} or more: services check their files once a second")
    try:
        folder = in_containers(given.folder)
        folder.rotate_service(given.name, given.lead, given.overlap, stolen=given.stolen)
    except (keyset.KeySetError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    when = "now" if given.stolen else f"in {given.lead} s"
    print(f"The new key of {given.name} signs {when}; every service must have service_keys.json by then.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
