"""The stack's PostgreSQL: made on the first start; `deploy.migrate` makes the database in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile

from deploy.local import secrets
from deploy.local.errors import StackError
from deploy.local.layout import HOST, Layout
from deploy.local.unprivileged import OUTSIDE, PostgresHome


def create(layout: Layout) -> bool:
    """Make the database cluster unless it is there; True if it was made. Nothing half-made stays."""
    home = PostgresHome(layout)
    home.install()
    if home.data != layout.postgres and not layout.postgres.is_symlink():
        shutil.rmtree(home.data, ignore_errors=True)  # of a run directory that was removed by hand
    if (home.data / "PG_VERSION").exists():
        return False
    partial = home.data.with_name(f"{home.data.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True, mode=0o700)
    if home.user:
        os.chown(partial, home.user.pw_uid, home.user.pw_gid)
    with tempfile.NamedTemporaryFile("w", dir="/tmp") as password:
        password.write(secrets.read(layout, "postgres_superuser"))
        password.flush()
        if home.user:
            os.fchown(password.fileno(), home.user.pw_uid, -1)
        result = subprocess.run(
            [
                str(home.programs / "initdb"),
                f"--pgdata={partial}",
                f"--username={secrets.SUPERUSER}",
                f"--pwfile={password.name}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale-provider=builtin",
                "--locale=C.UTF-8",
                "--no-sync",  # nothing is in it yet
            ],
            cwd="/",
            user=home.user.pw_uid if home.user else None,
            group=home.user.pw_gid if home.user else None,
            extra_groups=[] if home.user else None,
            capture_output=True,
            text=True,
            check=False,
        )
    if result.returncode:
        raise StackError(f"initdb failed:\n{result.stdout}{result.stderr}")
    partial.rename(home.data)
    if home.data != layout.postgres:
        layout.postgres.unlink(missing_ok=True)
        layout.postgres.symlink_to(home.data)
    return True


def command(layout: Layout) -> list[str]:
    """How to run the server in the foreground. TCP only: a socket's path could be too long."""
    home = PostgresHome(layout)
    options = {
        "listen_addresses": HOST,
        "port": str(layout.port("postgres")),
        "unix_socket_directories": "",
        "max_connections": "200",
        "log_line_prefix": "%m [%p] %q%u ",
        "timezone": "UTC",
    }
    return [
        str(home.programs / "postgres"),
        "-D",
        str(home.data),
        *(f"--{name}={value}" for name, value in options.items()),
    ]


def destroy(layout: Layout) -> None:
    """Remove the data for good."""
    data = PostgresHome(layout).data
    if data.is_relative_to(OUTSIDE) or data.is_relative_to(layout.run):
        shutil.rmtree(data, ignore_errors=True)
    if OUTSIDE.is_dir() and not any((OUTSIDE / "data").glob("*")):
        shutil.rmtree(OUTSIDE)  # this was the last stack that needed it
