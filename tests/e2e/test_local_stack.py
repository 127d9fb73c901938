"""The stack looks after itself: what goes wrong on a developer's machine is healed, or told clearly."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
import redis

from deploy.local.errors import StackError
from deploy.local.layout import HOST, ROOT, Layout
from deploy.local.ports import MARK
from deploy.local.stack import Stack
from tests.conftest import Running


def test_a_taken_port_is_named_with_who_has_it(tmp_path: Path) -> None:
    """And nothing is started beside it."""
    layout = Layout(run=tmp_path, shift=12_345)
    with socket.create_server((HOST, layout.port("edge"))):
        with pytest.raises(StackError) as told:
            Stack(layout).up()
        assert str(layout.port("edge")) in str(told.value)
        assert f"process {os.getpid()}" in str(told.value)
    assert not layout.supervisor_config.exists()


def test_only_one_command_at_a_time(running: Running) -> None:
    """A second `make up` beside a first is told so, and does not take it apart."""
    with (
        running.stack._alone(),
        pytest.raises(StackError, match="Another command"),
    ):
        Stack(running.layout).up()


def test_up_on_a_running_stack_leaves_it_alone(running: Running) -> None:
    before = {name: process.pid for name, process in running.stack.processes().items()}
    running.stack.up()
    assert {name: process.pid for name, process in running.stack.processes().items()} == before


def test_up_starts_what_was_stopped(running: Running) -> None:
    running.stack.stop("keys")
    running.stack.up()
    # supervisord calls a process RUNNING once it has lasted a moment; it serves before that.
    running.eventually(lambda: running.stack.processes()["keys"].state == "RUNNING", 30, "keys to run")


def test_a_killed_service_is_back_by_itself(running: Running) -> None:
    before = running.stack.processes()["logger"].pid
    running.stack.signal("logger", "KILL")
    running.eventually(
        lambda: running.stack.processes()["logger"].pid not in {0, before}, 30, "another logger process"
    )
    running.stack.wait("logger")


async def test_a_killed_supervisor_leaves_nothing_that_up_cannot_heal(running: Running) -> None:
    """Every process is an orphan then, and holds its port; what was written is there afterwards."""
    connection = await asyncpg.connect(running.dsn())
    await connection.execute(
        "create table if not exists public.kept (word text); insert into kept values ('x')"
    )
    await connection.close()
    with redis.Redis.from_url(running.redis_url) as store:
        store.set("kept", "y")
    orphan = running.stack.processes()["redis"].pid
    os.kill(int((running.layout.run / "supervisord.pid").read_text()), signal.SIGKILL)
    running.eventually(lambda: not Stack(running.layout)._supervisor.running(), 30, "supervisord to be gone")
    assert Path(f"/proc/{orphan}").exists(), "the test kills the supervisor alone"

    running.stack.up()

    assert all(process.state == "RUNNING" for process in running.stack.processes().values())
    connection = await asyncpg.connect(running.dsn())
    assert await connection.fetchval("select word from kept limit 1") == "x"
    await connection.execute("drop table kept")
    await connection.close()
    with redis.Redis.from_url(running.redis_url) as store:
        assert store.get("kept") == b"y"


def test_a_service_that_cannot_start_is_named_with_its_log(running: Running) -> None:
    """By the command line, as a developer sees it: which part, the end of its log, and exit status 1."""
    process = subprocess.run(
        [sys.executable, "-m", "deploy.local", "restart", "nonsense"],
        env=os.environ
        | {"SIGNGATE_RUN_DIR": str(running.layout.run), "SIGNGATE_PORT_SHIFT": str(running.layout.shift)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1
    assert "There is no part named nonsense" in process.stderr


def test_processes_are_marked_as_this_stacks(running: Running) -> None:
    """It is how orphans are found, and how nothing else ever is."""
    pid = running.stack.processes()["keys"].pid
    environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    assert f"{MARK}={running.layout.run}".encode() in environment


def test_no_secret_is_in_a_log_or_a_command_line(running: Running) -> None:
    secrets = {word for path in running.layout.secrets.iterdir() for word in secret_words(path.read_text())}
    assert len(secrets) > 10
    seen = "".join(path.read_text(errors="replace") for path in running.layout.logs.iterdir())
    for process in running.stack.processes().values():
        seen += Path(f"/proc/{process.pid}/cmdline").read_text()
    assert [secret[:4] for secret in secrets if secret in seen] == []


def secret_words(text: str) -> Iterator[str]:
    """What of a file below `secrets` is secret: of a key set the keys alone, for their ids are public."""
    try:
        found = json.loads(text)
        if "auth" in found:  # the public keys of all services
            return
        keys = found["keys"]
    except (ValueError, TypeError, KeyError):
        yield from (word for word in text.split() if len(word) >= 20 and not word.startswith(str(ROOT)))
    else:
        yield from (key["d" if "d" in key else "k"] for key in keys)
