"""Rounds of calm and attack, while the victims go on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from tests.attack.attacks.base import Attack
from tests.attack.processes import Striker, Watch, measured
from tests.attack.stage import Stage
from tests.attack.victim import Sample

Say = Callable[[str], None]


@dataclass(frozen=True)
class Pace:
    """How long each part of a round takes, in seconds.

    `recovery`: how long the victims are given to be served again after an attack; then the services are
    restarted, and the attack has failed.
    """

    calm: float = 4.0
    attack: float = 6.0
    settled: float = 1.5
    recovery: float = 45.0
    rounds: int = 1

    def round(self, attacks: int) -> float:
        """Seconds that a round of so many attacks takes, if all of them fail to do harm."""
        return attacks * (self.calm + self.attack + self.settled)

    @classmethod
    def within(cls, minutes: float, attacks: int) -> Self:
        """As many rounds of eight-second attacks as there is time for; at least one."""
        once = cls(calm=6.0, attack=8.0)
        return cls(calm=6.0, attack=8.0, rounds=max(1, int(minutes * 60 / once.round(attacks))))


@dataclass(frozen=True)
class Told:
    """One round of one attack: what the victims met in the calm before, under it, and until all was well."""

    calm: list[Sample]
    under: list[Sample]
    after: list[Sample]

    @property
    def outage(self) -> float:
        """Seconds from when the first refused request was due to the end of the last one."""
        refused = [sample for sample in (*self.under, *self.after) if sample.refusal]
        if not refused:
            return 0.0
        return max(one.due + one.seconds for one in refused) - min(one.due for one in refused)


@dataclass
class Outcome:
    """One attack over all rounds.

    `spent`: see `wire.Tally`. `died`: processes that ended under it. `grown`: by how many MB each grew.
    `restarted`: victims were not served again otherwise.
    """

    attack: Attack
    rounds: list[Told] = field(default_factory=list)
    spent: list[dict[str, Any]] = field(default_factory=list)
    died: set[str] = field(default_factory=set)
    grown: dict[str, int] = field(default_factory=dict)
    restarted: bool = False


async def campaign(stage: Stage, attacks: Sequence[Attack], pace: Pace, say: Say) -> list[Outcome]:
    """All attacks, each after a time of calm, round after round: what else the machine does falls on all."""
    outcomes = [Outcome(attack) for attack in attacks]
    async with Watch(stage.victims) as watch:
        await watch.settled(3.0, 20.0)  # connections open, caches fill
        for _ in range(pace.rounds):
            for outcome in outcomes:
                await _round(stage, watch, outcome, pace)
                told = outcome.rounds[-1]
                refused = sum(bool(sample.refusal) for sample in (*told.under, *told.after))
                say(f"{outcome.attack.case:7} {outcome.attack.name}: {refused} refused")
    return outcomes


async def _round(stage: Stage, watch: Watch, outcome: Outcome, pace: Pace) -> None:
    attack = outcome.attack
    calm = await _calm(stage, watch, attack, pace)
    pids = await asyncio.to_thread(stage.pids)
    async with Striker(attack) as striker, measured(pids, outcome.grown):
        began = time.monotonic()
        outcome.spent.append(await striker.strike(stage.thief, pace.attack))
        struck = time.monotonic()
    well = await watch.settled(pace.settled, pace.recovery)
    now = await asyncio.to_thread(stage.pids)
    outcome.died |= {name for name, pid in pids.items() if now.get(name) != pid}
    if not well:
        outcome.restarted = True
        await asyncio.to_thread(stage.restart)
        await watch.settled(3.0, pace.recovery)
    end = time.monotonic()
    told = Told(watch.between(*calm), watch.between(began, struck), watch.between(struck, end))
    outcome.rounds.append(told)


async def _calm(stage: Stage, watch: Watch, attack: Attack, pace: Pace) -> tuple[float, float]:
    """When the time that the attack is compared with began and ended.

    One in which a user was refused shows nothing (the machine has something else to do): it is tried again.
    """
    tries = 3
    while True:
        tries -= 1
        if attack.twin is None:
            began = time.monotonic()
            await asyncio.sleep(pace.calm)
        else:
            async with Striker(attack, twin=True) as customer:
                began = time.monotonic()
                await customer.strike(stage.thief, pace.attack)
        end = time.monotonic()
        await watch.settled(min(pace.settled, 1.0), pace.recovery)
        if not tries or not any(sample.refusal for sample in watch.between(began, end)):
            return began, end
