"""`make attack`: strangers attack a stack with default settings while users sign and sign in all the while.

    make attack                    every attack, two rounds
    make attack MINUTES=60         as many rounds as an hour has room for
    make attack ONLY="S2;S3"       attacks whose case or name has one of these in it
    make attack QUICK=1            what every `make test` runs

Runs a stack of its own (.run-attack, ports 5000 higher) and takes it away again; logs and figures stay in
.build/attack. Everything is bounded in time and comes from loopback. Each attack is held against the calm
between attacks or, where it is a load by itself, against the same rate of a customer's requests. Floors: no
user is refused, and the 99th percentile of what they wait is at most three times that without the attack
(waits that are not felt count as none: `report.UNFELT`). Its last line is the verdict:

    attack: all floors held
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from bench.progress import saying
from deploy.local.layout import ROOT
from tests.attack.attacks import ATTACKS
from tests.attack.report import Report, refusals
from tests.attack.run import Pace, campaign
from tests.attack.stage import RUN, SHIFT, stage

OUT = ROOT / ".build" / "attack"
LARGE = 20
"""MB of growth that are worth a word."""


def show(report: Report) -> None:
    """A table of what users met; then for each attack why they were refused, and what the attacker spent."""
    console = Console(width=140, highlight=False)
    table = Table(title="What users met: without the attack, and under it (milliseconds)")
    for name in ("case", "attack", "compared with", "request"):
        table.add_column(name)
    for name in ("asked", "refused", "p50", "p50 under", "p99", "p99 under", "ratio"):
        table.add_column(name, justify="right")
    for outcome in report.outcomes:
        first = (outcome.attack.case, outcome.attack.name, "customers" if outcome.attack.twin else "calm")
        for one in report.findings(outcome):
            times = (one.calm_p50, one.p50, one.calm_p99, one.p99)
            table.add_row(
                *first,
                one.kind,
                f"{one.asked:,}",
                f"{one.refused:,}",
                *(f"{1000 * seconds:.0f}" for seconds in times),
                f"{one.ratio:.1f}",
                style="" if one.held else "red",
            )
            first = ("", "", "")
        table.add_section()
    console.print(table)
    for outcome in report.outcomes:
        longest = max((told.outage for told in outcome.rounds), default=0.0)
        spent = outcome.spent[-1] if outcome.spent else {}
        line = (
            f"{outcome.attack.name}: {spent.get('connections', 0):,} connections, "
            f"{spent.get('sent', 0):,} bytes, told {spent.get('answers', {})}"
        )
        if found := dict(refusals(outcome).most_common(5)):
            line += f"\n  [red]refused for {longest:.1f} s:[/red] {found}"
        if found := {name: more for name, more in outcome.grown.items() if more >= LARGE}:
            line += f"\n  grew by MB: {found}"
        if outcome.died:
            line += f"\n  [red]died: {', '.join(sorted(outcome.died))}[/red]"
        if outcome.restarted:
            line += "\n  [red]services had to be restarted[/red]"
        if report.refusals_in_calm(outcome):
            line += "\n  [red]users were refused before it began[/red]"
        console.print(line)


def main(given: Sequence[str] | None = None) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(
        prog="make attack", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=0.0, help="rounds for so long; 0: two rounds")
    parser.add_argument("--only", default="", help="see above")
    parser.add_argument("--quick", action="store_true", help="what `make test` runs")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--shift", type=int, default=SHIFT, help="how much higher the ports are")
    arguments = parser.parse_args(given)
    chosen = [
        one
        for one in ATTACKS
        if any(part in f"{one.case} {one.name}" for part in arguments.only.split(";"))
        and (one.quick or not arguments.quick)
    ]
    pace = Pace(rounds=arguments.rounds)
    if arguments.minutes:
        pace = Pace.within(arguments.minutes, len(chosen))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ending it ends the stack too
    with stage(RUN, arguments.shift) as ready:
        report = Report(asyncio.run(campaign(ready, chosen, pace, saying())))
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "results.json").write_text(json.dumps(report.plain(), indent=2) + "\n", encoding="utf-8")
    show(report)
    sys.stdout.write(report.line() + "\n")
    return 0 if report.good else 1


if __name__ == "__main__":
    raise SystemExit(main())
