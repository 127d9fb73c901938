"""The processes of a run: victims, attackers, and those of the stack as they are looked at."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from typing import Any, Self

import psutil

from deploy.local.layout import ROOT
from tests.attack.attacks.base import Attack
from tests.attack.stage import Thief
from tests.attack.victim import DEADLINE, Plan, Sample


class Watch:
    """The victims' process, and what it has told so far."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.samples: list[Sample] = []
        self.waiting = 0
        """Requests that have been on their way for longer than a moment."""

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tests.attack.victim"),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert self._process.stdin is not None
        self._process.stdin.write((json.dumps(asdict(self._plan)) + "\n").encode())
        await self._process.stdin.drain()
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(4 * DEADLINE):
                await self._reader
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            told = json.loads(line)
            if "waiting" in told:
                self.waiting = told["waiting"]
            else:
                self.samples.append(Sample(**told))

    def between(self, start: float, end: float) -> list[Sample]:
        """Requests that were due then, as far as they have been answered."""
        return [sample for sample in self.samples if start <= sample.due < end]

    async def settled(self, seconds: float, limit: float) -> bool:
        """Wait for so many seconds in a row in which no request was refused or kept waiting; else False."""
        end = (well := time.monotonic()) + limit
        while (now := time.monotonic()) < end:
            recent = [one for one in self.samples if one.due + one.seconds > max(well, now - seconds)]
            if self.waiting or any(sample.refusal for sample in recent):
                well = now
            elif now - well >= seconds and len(recent) > seconds:
                return True
            await asyncio.sleep(0.1)
            if self._reader.done():
                raise RuntimeError("the victims' process has ended by itself")
        return False


@asynccontextmanager
async def measured(pids: Mapping[str, int], grown: dict[str, int]) -> AsyncIterator[None]:
    """Note by how much the processes grow inside the block; what was noted before stays if it is more."""
    watched = {name: psutil.Process(pid) for name, pid in pids.items() if psutil.pid_exists(pid)}
    at_first = {name: process.memory_info().rss for name, process in watched.items()}

    async def measure() -> None:
        while True:
            for name, process in watched.items():
                with suppress(psutil.Error):
                    more = (process.memory_info().rss - at_first[name]) >> 20
                    grown[name] = max(grown.get(name, 0), more)
            await asyncio.sleep(0.5)

    task = asyncio.create_task(measure())
    try:
        yield
    finally:
        task.cancel()


class Striker:
    """The process of one attack, or of its twin: loaded, and waiting for the word."""

    def __init__(self, attack: Attack, *, twin: bool = False) -> None:
        self._name = attack.name
        self._part = ["twin"] if twin else []

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tests.attack.attacker", self._name, *self._part),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert self._process.stdout is not None
        if await self._process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"the attacker did not start: {self._name}")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def strike(self, thief: Thief, seconds: float) -> dict[str, Any]:
        """Attack for so long; what was spent. Raises `TimeoutError` if it does not end by itself."""
        order = json.dumps({"seconds": seconds, "thief": asdict(thief)})
        async with asyncio.timeout(2 * seconds + 60):
            told, _ = await self._process.communicate(f"{order}\n".encode())
        if self._process.returncode or not told:
            raise RuntimeError(f"the attacker failed: {self._name}")
        spent: dict[str, Any] = json.loads(told)
        return spent
