"""The containers' health check, run as containers run it."""

from __future__ import annotations

import asyncio
import sys

import pytest

from servicekit.rpc import create_server
from servicekit.testing.network import free_port


async def checked(port: int) -> tuple[int | None, str]:
    """Exit status and stderr."""
    command = [sys.executable, "-m", "servicekit.health", f"0.0.0.0:{port}"]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, told = await process.communicate()
    return process.returncode, told.decode()


@pytest.mark.parametrize(("ready", "outcome"), [(True, (0, "")), (False, (1, "not ready\n"))])
async def test_a_service_is_healthy_while_it_says_that_it_is_ready(
    *, ready: bool, outcome: tuple[int, str]
) -> None:
    server = create_server()
    port = server.listen("127.0.0.1:0")
    await server.start()
    await server.set_ready(ready=ready)
    try:
        assert await checked(port) == outcome
    finally:
        await server.stop(0)


async def test_nobody_there_is_not_healthy() -> None:
    status, told = await checked(free_port())
    assert status == 1
    assert told.startswith("no answer: ")
