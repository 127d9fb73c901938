"""`make chaos`: the whole schedule of faults under load, and the proof that nothing was lost by it.

    make chaos                     every kind of fault at least once, 20,000 signatures or more
    make chaos SEED=7              in another order; a seed's order is always the same
    make chaos MINUTES=60          again and again for an hour
    make chaos BROKEN=ack-first    a broken build, on which the same checks must fail (or: no-idempotency)

Runs a stack of its own (.run-chaos, ports 7000 higher) and takes it away again; logs and the record stay in
.build/chaos. Exits 0 only if nothing was lost, duplicated, over-admitted or wrongly refused, and the
system's own books (`make reconcile`) agree. Its last line is the verdict, always in this form:

    lost 0, duplicate 0, over-admitted 0, wrongly refused 0, longest gap 3.2 s
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from bench.progress import saying
from deploy.local.layout import ROOT
from tests.chaos.faults import LONG, QUICK
from tests.chaos.run import Outcome, Plan, run
from tests.chaos.stage import Stage

OUT = ROOT / ".build" / "chaos"


def show(outcome: Outcome) -> None:
    """Tables of the faults and of what the clients were told; then whatever is wrong, line by line."""
    console = Console(width=110)
    table = Table(title="Longest time without a signature after each fault")
    table.add_column("fault")
    table.add_column("seconds", justify="right")
    for name, gap in outcome.timeline:
        table.add_row(name, f"{gap:.1f}")
    console.print(table)
    table = Table(title="What clients were told")
    table.add_column("answer")
    table.add_column("times", justify="right")
    for reason, times in outcome.record.reasons.most_common():
        table.add_row(reason, f"{times:,}")
    console.print(table)
    verdict = outcome.verdict
    console.print(
        f"{outcome.record.signed:,} signatures acknowledged in {outcome.seconds:.0f} s, "
        f"{verdict.rows:,} rows, {verdict.unanswered} recorded and charged without an answer that arrived"
    )
    for kind in ("lost", "duplicate", "over_admitted", "wrongly_refused", "books"):
        for text in getattr(verdict, kind)[:20]:
            console.print(f"[red]{kind.replace('_', ' ')}[/red]: {text}")
    console.print(f"books differing {len(verdict.books)}")


def write(plan: Plan[Stage], outcome: Outcome) -> None:
    """Everything, for reading after."""
    OUT.mkdir(parents=True, exist_ok=True)
    document = {
        "seed": plan.seed,
        "broken": plan.broken,
        "verdict": asdict(outcome.verdict),
        "line": outcome.verdict.line(),
        "timeline": outcome.timeline,
        "reasons": dict(outcome.record.reasons),
        "acknowledged": {
            name: len(account.acknowledged) for name, account in outcome.record.accounts.items()
        },
    }
    (OUT / "outcome.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def main(given: Sequence[str] | None = None) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(
        prog="make chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=0.0, help="go on for so long")
    parser.add_argument("--short", action="store_true", help="a few faults only, as in `make test`")
    parser.add_argument("--broken", default="", choices=("", "ack-first", "no-idempotency"))
    arguments = parser.parse_args(given)
    plan = Plan(
        arguments.seed,
        QUICK if arguments.short else LONG,
        arguments.minutes,
        0 if arguments.short else 20_000,
        arguments.broken,
    )
    outcome = run(plan, saying())
    write(plan, outcome)
    show(outcome)
    sys.stdout.write(outcome.verdict.line() + "\n")
    return 0 if outcome.verdict.good else 1


if __name__ == "__main__":
    raise SystemExit(main())
