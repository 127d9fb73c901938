"""`python -m tests.attack.attacker NAME [twin]`: one attack, in a process of its own.

It runs at the lowest priority: a real attacker computes on another machine and takes nothing of this one.
What it sent is printed, so it shows if an attack did not get to run.

Writes "ready" once everything is loaded; then reads one line of JSON, which says for how many `seconds` and
what it knows (`thief`); attacks; and writes what it spent as one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

from tests.attack.attacks import named
from tests.attack.attacks.base import Act, Attacker
from tests.attack.stage import Thief
from tests.attack.wire import Tally


async def attack(act: Act, thief: Thief, seconds: float) -> Tally:
    """Do it for so long at most."""
    tally = Tally()
    try:
        async with asyncio.timeout(seconds):
            await act(Attacker(thief, tally))
    except TimeoutError:
        pass
    return tally


def main(name: str, part: str = "") -> None:
    """See the module. Raises `LookupError` for a twin that there is none of."""
    chosen = named(name)
    act = chosen.twin if part else chosen.act
    if act is None:
        raise LookupError(f"{name} has no twin")
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    order = json.loads(sys.stdin.readline())
    os.nice(19)
    tally = asyncio.run(attack(act, Thief(**order["thief"]), order["seconds"]))
    sys.stdout.write(json.dumps(tally.plain()) + "\n")
    sys.stdout.flush()
    os._exit(0)  # every socket that is left ends with it


if __name__ == "__main__":
    main(*sys.argv[1:])
