"""`python -m deploy.migrate` on a real server: from nothing to roles that can log in, as often as wanted."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from deploy import migrate
from deploy.local.layout import ROOT
from deploy.settings import table
from servicekit.testing.postgres import Cluster, postgres_cluster

DATABASE = "signgate_fresh"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with postgres_cluster() as found:
        yield found


@pytest.fixture
def secrets(cluster: Cluster, tmp_path: Path) -> Path:
    """A folder as a Job has it, for a database that does not exist yet."""
    admin = cluster.create_database()
    dsn = admin.dsn().replace(f"/{admin.name}", f"/{DATABASE}")
    (tmp_path / migrate.ADMIN_DSN).write_text(f"{dsn}\n")
    for role, name in table().database_roles().items():
        text = f"postgresql://{role}:first%2Fpassword@127.0.0.1:{admin.port}/{DATABASE}"
        (tmp_path / name).write_text(text + "\n")
    return tmp_path


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "deploy.migrate", str(folder)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def change(folder: Path, name: str, old: str, new: str) -> str:
    path = folder / name
    path.write_text(path.read_text().replace(old, new))
    return path.read_text().strip()


async def log_in(dsn: str) -> None:
    await (await asyncpg.connect(dsn)).close()


async def test_from_nothing_and_again_with_other_passwords(secrets: Path) -> None:
    names = table().database_roles().values()
    made = run(secrets)
    assert made.returncode == 0, made.stderr
    before = [(secrets / name).read_text().strip() for name in names]
    for dsn in before:
        await log_in(dsn)

    after = [change(secrets, name, "first%2Fpassword", "second") for name in names]
    again = run(secrets)
    assert again.returncode == 0, again.stderr
    for old, new in zip(before, after, strict=True):
        await log_in(new)
        with pytest.raises(asyncpg.InvalidPasswordError):
            await log_in(old)


def test_a_connection_string_of_another_role_is_refused(secrets: Path) -> None:
    name = table().database_roles()["signgate_keys"]
    change(secrets, name, "signgate_keys", "signgate_quota")
    failed = run(secrets)
    assert failed.returncode == 1
    assert f"{name} must name the role signgate_keys" in failed.stderr


def test_a_secret_that_is_not_there_is_named(secrets: Path) -> None:
    (secrets / migrate.ADMIN_DSN).unlink()
    failed = run(secrets)
    assert failed.returncode == 1
    assert migrate.ADMIN_DSN in failed.stderr


def test_no_password_is_told_when_the_connection_string_makes_no_sense(secrets: Path) -> None:
    (secrets / migrate.ADMIN_DSN).write_text("postgresql://postgres:hunter2@127.0.0.1:no-port/x\n")
    failed = run(secrets)
    assert failed.returncode == 1
    assert "hunter2" not in failed.stdout + failed.stderr
