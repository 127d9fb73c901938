"""Containers die and freeze under load; chaos' load and checks say what must be true then."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from functools import partial

import pytest

from tests.chaos import system
from tests.chaos.checks import used_up
from tests.chaos.faults import Fault
from tests.chaos.run import Plan, endure
from tests.chaos.system import User
from tests.containers.stack import Stack

pytestmark = pytest.mark.timeout(900)

SEED = 20261126
USERS = (
    *(User(f"steady-{number}") for number in range(1, 4)),
    User("full", daily=150),
    User("brisk", per_minute=300, burst=40),
)


def _kill(part: str, stack: Stack, chance: random.Random) -> None:
    stack.kill(chance.choice(stack.containers(part)))


def _freeze(stack: Stack, container: str, tries: int = 5) -> None:
    """Some kernels now and then do not get all of a container's tasks to stand still, and say so."""
    while True:
        try:
            stack.engine.run("pause", container)
            return
        except RuntimeError as error:
            tries -= 1
            if not tries or "unable to freeze" not in str(error):
                raise
            time.sleep(0.5)


def _pause(part: str, stack: Stack, chance: random.Random) -> None:
    container = chance.choice(stack.containers(part))
    _freeze(stack, container)
    try:
        time.sleep(2.0)
    finally:
        stack.engine.run("unpause", container)


KILLED = ("signer", "quota", "keys", "logger", "envoy", "redis", "postgres")
PAUSED = ("signer", "quota", "logger", "redis")
FAULTS = (
    *(Fault(f"kill -9 {part}", partial(_kill, part)) for part in KILLED),
    *(Fault(f"pause {part} for 2 s", partial(_pause, part)) for part in PAUSED),
)


async def test_whatever_dies_nothing_is_lost_doubled_or_over_admitted(stack: Stack) -> None:
    ready = replace(stack, users=[stack.sign_up(user) for user in USERS])
    await system.grant(ready)
    outcome = await endure(ready, Plan(SEED, FAULTS, signatures=0), lambda _: None)
    assert outcome.verdict.good, outcome.verdict
    assert outcome.record.signed > 300
    assert used_up(outcome.record), "nobody came to a limit: nothing was shown of limits"
    assert len(outcome.timeline) == len(FAULTS)
