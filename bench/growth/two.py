"""What it costs to be two: two signers and two quota services on one Redis, against one of each.

Both stacks run all the time, and the rounds alternate. Callers of the two are shared out evenly. On a machine
of two cores this shows the cost of being two, and not what a second machine would bring.
"""

from __future__ import annotations

import asyncio
from statistics import median
from typing import Any

from bench.progress import Say
from bench.scenarios.contenders import Contender, contenders, prepare
from bench.world import World, world

REPLICAS = {"signer": 2, "quota": 2}
WAYS = ("sign", "batch")


def measure(one: World, rounds: int, seconds: float, say: Say) -> dict[str, Any]:
    """URLs a second and CPU a URL of both, by way of asking."""
    found: dict[str, Any] = {}
    with world("bench-two", 6300, REPLICAS) as two:
        asyncio.run(two.populate())
        asyncio.run(prepare(two))
        with contenders(one) as by_one, contenders(two) as by_two:
            for way in WAYS:
                ways: dict[str, Contender] = {"one": by_one[way], "two": by_two[way]}
                rates: dict[str, list[float]] = {name: [] for name in ways}
                guesses = {name: asking.urls_per_second(1.0, 1500) for name, asking in ways.items()}
                for asking in ways.values():
                    asking.costs.clear()
                for number in range(rounds):
                    for name in ways if number % 2 == 0 else reversed(ways):
                        rates[name].append(ways[name].urls_per_second(seconds, guesses[name]))
                        say(f"{way}, round {number + 1}: {name} {rates[name][-1]:,.0f} URLs/s")
                found[way] = {
                    name: {
                        "urls_per_second": [round(rate) for rate in rates[name]],
                        "cpu_us_a_url": round(_microseconds(asking), 1),
                    }
                    for name, asking in ways.items()
                }
    return found


def _microseconds(asking: Contender) -> float:
    return (
        median(sum(spent for name, spent in cost.seconds.items() if name != "load") for cost in asking.costs)
        * 1e6
    )
