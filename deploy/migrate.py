"""Bring a database to where services can use it: itself, its migrations, its login roles' passwords.

    python -m deploy.migrate /run/secrets            before the services of a new version start
    python -m deploy.migrate /run/secrets --finish   once no instance of the previous version is left

The first argument is a folder with a file for each secret:

    postgres_dsn_admin          who migrates: a superuser, or what db/README.md says
    postgres_dsn_auth, …_keys   as the services get them: each role's password becomes what stands there

Plain text to a database that is not on this host is refused unless `SIGNGATE_PLAINTEXT_STORES` names it: say
`?sslmode=verify-full` (or `require`) in the connection string. It may run at every start and beside the
running version: what is done already is not done again. Exit status 1 when it failed.

What takes away something that the version before still uses is in db/contract and runs with `--finish`, and
in a new installation at once.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import hmac
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import asyncpg

from deploy.settings import table
from servicekit import stores

ADMIN_DSN: Final = "postgres_dsn_admin"
MIGRATIONS: Final = Path(__file__).resolve().parents[1] / "db" / "migrations"
CONTRACT: Final = MIGRATIONS.with_name("contract")
UNFINISHED: Final = "Once no instance of the previous version is left, run this again with --finish."
_ITERATIONS: Final = 4096  # PostgreSQL's own default for SCRAM


class MigrationError(Exception):
    """What stands in the way. `str` has no secret in it."""


def needed() -> set[str]:
    """Names of the secrets that it reads."""
    return {ADMIN_DSN, *table().database_roles().values()}


def migrate(folder: Path, *, finish: bool = False) -> bool:
    """Make the database unless it is there, and run what is pending. Raises `MigrationError`.

    `finish`: no instance of the version before runs. Returns whether nothing is left to do.
    """
    dsn = _admin_dsn(folder)
    done = _dbmate(dsn, MIGRATIONS, "up")
    new = min(MIGRATIONS.glob("*.sql")).name in done
    if finish or new:
        _dbmate(dsn, CONTRACT, "up")
    return "[ ]" not in _dbmate(dsn, CONTRACT, "status")


def _dbmate(dsn: str, folder: Path, command: str) -> str:
    result = subprocess.run(
        [
            str(Path(sys.executable).with_name("dbmate")),
            "--no-dump-schema",
            "--wait",
            f"--migrations-dir={folder}",
            command,
        ],
        # The password goes by the environment: an argument would be seen in the list of processes.
        env=os.environ | {"DATABASE_URL": dsn},
        capture_output=True,
        text=True,
        check=False,
    )
    told = f"{result.stdout}{result.stderr}".replace(dsn, ADMIN_DSN)  # it quotes one that it can't read
    if result.returncode:
        raise MigrationError(f"The migrations failed:\n{told}")
    return told


async def set_passwords(folder: Path) -> None:
    """Give each login role the password of its connection string. Raises `MigrationError`.

    As a SCRAM verifier, so that no statement, and so no log, ever holds the password itself.
    """
    passwords = {role: _password(folder, role, name) for role, name in table().database_roles().items()}
    server = await asyncpg.connect(_admin_dsn(folder))
    try:
        for role, password in passwords.items():
            verifier = scram_verifier(password, secrets.token_bytes(16))
            await server.execute(f"alter role {role} password '{verifier}'")
    finally:
        await server.close()


def scram_verifier(password: str, salt: bytes) -> str:
    """What PostgreSQL stores of an ASCII password under scram-sha-256 (RFC 5802, RFC 7677)."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, _ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    salt64, stored64, server64 = (base64.b64encode(part).decode() for part in (salt, stored, server))
    return f"SCRAM-SHA-256${_ITERATIONS}:{salt64}${stored64}:{server64}"


def _admin_dsn(folder: Path) -> str:
    dsn = _read(folder, ADMIN_DSN)
    allowed = [part.strip() for part in os.environ.get("SIGNGATE_PLAINTEXT_STORES", "").split(",")]
    try:
        stores.refuse(f"The secret {ADMIN_DSN}", stores.postgres_in_clear(dsn, os.environ), allowed)
    except ValueError as error:
        raise MigrationError(str(error)) from None
    return dsn


def _read(folder: Path, name: str) -> str:
    try:
        return (folder / name).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise MigrationError(f"The secret {name} can't be read: {error.strerror}") from None


def _password(folder: Path, role: str, name: str) -> str:
    dsn = urlsplit(_read(folder, name))
    password = unquote(dsn.password or "")
    if dsn.username != role or not password or not password.isascii():
        raise MigrationError(f"The secret {name} must name the role {role} and an ASCII password")
    return password


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--finish", action="store_true", help="no instance of the previous version is left")
    given = parser.parse_args()
    try:
        finished = migrate(given.folder, finish=given.finish)
        asyncio.run(set_passwords(given.folder))
    except MigrationError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except (asyncpg.PostgresError, OSError) as error:
        sys.stderr.write(f"The roles' passwords could not be set: {error}\n")
        return 1
    print("The database is migrated, and its roles have their passwords.")
    if not finished:
        print(UNFINISHED)
    return 0


if __name__ == "__main__":
    sys.exit(main())
