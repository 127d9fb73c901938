"""What each append-only policy of Redis costs: `python -m bench.append_only [--rounds 5]`.

One Redis, the stack's own. Its `appendfsync` is set between the turns of a round: no, everysec, always.
Each turn: appends of one entry at a time and by pipelines of 32; `Sign` by 64 callers, and by one alone.
Writes bench/out/append_only.json. Which one is chosen, and why, stands in docs/adr/0005.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path
from statistics import median

from bench import load
from bench.progress import saying
from bench.scenarios.contenders import contenders, prepare
from bench.world import World, world

POLICIES = ("no", "everysec", "always")
OUT = Path(__file__).with_name("out") / "append_only.json"
STREAM = "bench:append"
ENTRY = b"x" * 350
"""About what one signature's event takes."""


def appends(stack: World, batch: int, seconds: float) -> float:
    """Entries a second by one connection, so many to a pipeline."""
    stack.redis.delete(STREAM)
    done, began = 0, time.monotonic()
    while time.monotonic() - began < seconds:
        pipe = stack.redis.pipeline(transaction=False)
        for _ in range(batch):
            pipe.xadd(STREAM, {"e": ENTRY}, maxlen=10_000, approximate=True)
        pipe.execute()
        done += batch
    return done / (time.monotonic() - began)


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.append_only",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    arguments = parser.parse_args()
    load.check_tool()
    say = saying()
    found: dict[str, dict[str, list[float]]] = {
        policy: {"one_by_one": [], "pipelines_of_32": [], "sign": [], "alone_ms": []} for policy in POLICIES
    }
    with world("bench-append", 6200) as stack:
        asyncio.run(stack.populate())
        asyncio.run(prepare(stack))
        with contenders(stack) as answering:
            guess = answering["sign"].urls_per_second(1.0, 1500)
            for number in range(arguments.rounds):
                for policy in POLICIES if number % 2 == 0 else reversed(POLICIES):
                    stack.redis.config_set("appendfsync", policy)
                    turn = {
                        "one_by_one": appends(stack, 1, arguments.seconds / 3),
                        "pipelines_of_32": appends(stack, 32, arguments.seconds / 3),
                        "sign": answering["sign"].urls_per_second(arguments.seconds, guess),
                    }
                    turn["alone_ms"] = 1000 * answering["sign"].alone(200).percentile(0.5)
                    for name, value in turn.items():
                        found[policy][name].append(value)
                    text = ", ".join(f"{name} {value:,.1f}" for name, value in turn.items())
                    say(f"round {number + 1} of {arguments.rounds}: appendfsync {policy}: {text}")
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    for policy, rates in found.items():
        text = ", ".join(f"{name} {median(values):,.1f}" for name, values in rates.items())
        sys.stdout.write(f"{policy:9} {text}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
