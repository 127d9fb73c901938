"""One run: load, faults, peace, checks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic

from tests.chaos import checks
from tests.chaos.faults import Fault, S, schedule
from tests.chaos.load import Load, Record
from tests.chaos.stage import Stage, stage
from tests.chaos.system import User

Say = Callable[[str], None]
DRAINED = 90.0
"""Seconds within which the loggers must have caught up with everything."""
RECOVERED = 60.0
"""Seconds that the next fault waits at most for signing to be back, so that each has a gap of its own."""

USERS = (
    *(User(f"steady-{number}") for number in range(1, 5)),
    User("full-1", daily=150),
    User("full-2", daily=400),
    User("brisk", per_minute=300, burst=40),
)
"""Some without limits, some whose day is used up on the way, one that is too quick for its rate."""


@dataclass(frozen=True)
class Plan(Generic[S]):
    """What a run is. `minutes`: how long faults go on; 0: until each came once."""

    seed: int
    faults: tuple[Fault[S], ...]
    minutes: float = 0.0
    signatures: int = 20_000
    broken: str = ""
    settled: float = 40.0
    """Seconds within which every reservation that nobody will publish must have been taken back."""
    users: tuple[User, ...] = USERS
    run: str = ".run-chaos"
    shift: int = 7000


@dataclass
class Outcome:
    """What came of it. `timeline`: each fault with the longest gap after it, in seconds."""

    verdict: checks.Verdict
    record: Record
    timeline: list[tuple[str, float]] = field(default_factory=list)
    seconds: float = 0.0


def run(plan: Plan[Stage], say: Say) -> Outcome:
    """Do it all. Raises what can't be called a finding: a stack that does not start, a drain that hangs."""
    with stage(list(plan.users), run=plan.run, shift=plan.shift, broken=plan.broken) as ready:
        say(f"the stack serves; {len(ready.users)} users have keys; seed {plan.seed}")
        return asyncio.run(endure(ready, plan, say))


async def endure(ready: S, plan: Plan[S], say: Say) -> Outcome:
    """The part of `run` after the stack serves: for one that somebody else has started."""
    load = Load(ready.edge, ready.users, plan.seed)
    began = time.monotonic()
    task = asyncio.create_task(load.run())
    marks, names = await _storm(ready, load, plan, say, task)
    while load.record.signed < plan.signatures:
        say(f"{load.record.signed:7,} signed   no more faults; on to {plan.signatures:,}")
        for _ in range(10):
            await asyncio.sleep(1.0)
            _alive(task)
    load.stop()
    await task
    end = time.monotonic()
    say(f"{load.record.signed:,} signatures acknowledged; letting the limited users use up their days")
    await checks.use_up(ready, load.record, plan.settled)
    say("waiting for the loggers")
    await asyncio.to_thread(ready.drain, DRAINED)
    verdict = await checks.examine(ready, load.record, plan.settled)
    found = checks.gaps(load.record.steady, marks, end)
    verdict.longest_gap = max(found, default=0.0)
    return Outcome(verdict, load.record, list(zip(names, found, strict=True)), end - began)


async def _storm(
    ready: S, load: Load, plan: Plan[S], say: Say, task: asyncio.Task[None]
) -> tuple[list[float], list[str]]:
    """Every fault of the plan, while the load goes on; when each began, and its name."""
    marks: list[float] = []
    names: list[str] = []
    end = time.monotonic() + plan.minutes * 60
    await asyncio.sleep(3.0)  # some peace first
    for fault, chance, peace in schedule(plan.faults, plan.seed, forever=plan.minutes > 0):
        if plan.minutes and time.monotonic() >= end and len(names) >= len(plan.faults):
            break
        marks.append(time.monotonic())
        names.append(fault.name)
        say(f"{load.record.signed:7,} signed   {fault.name}")
        await asyncio.to_thread(fault.act, ready, chance)
        await _recovered(load.record, peace)
        _alive(task)
    return marks, names


async def _recovered(record: Record, peace: float) -> None:
    """So much peace, and then until somebody gets a signature."""
    await asyncio.sleep(peace)
    since = time.monotonic()
    while time.monotonic() < since + RECOVERED and not (record.steady and record.steady[-1] > since):
        await asyncio.sleep(0.05)


def _alive(task: asyncio.Task[None]) -> None:
    if task.done():
        task.result()
        raise RuntimeError("the load has ended by itself")
