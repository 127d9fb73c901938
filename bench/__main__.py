"""`make bench`: every claim of speed, settled in one run, against baselines of the same run.

    make bench                     all but statistics and growth, at least five rounds: under 20 minutes
    make bench SHORT=1             fewer and shorter rounds, and no browsers: under 3 minutes
    make bench ONLY=signing        one part: signing, alone, half, quota, logger, memory, up, websdk,
                                   revocation; statistics (6 minutes), growth (26)
    make bench ONLY=sign_over_echo or one figure

Starts a stack of its own (.run-bench, ports 6000 higher) and takes it away again. A run in which any
request was not answered as it should is an error and no result. Exits 1 when a floor was missed.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence

from bench import elsewhere, load, report
from bench.figures import FIGURES, Results
from bench.growth import run as growth
from bench.progress import Say, saying
from bench.scenarios import deciding, footprint, logging, signing, statistics
from bench.scenarios.contenders import contenders, prepare
from bench.world import World, world
from deploy.local.layout import ROOT

PARTS = {
    "memory": ("idle_memory_mb", "memory_growth_percent"),
    "signing": tuple(signing.RATIOS),
    "alone": ("alone_p50_over_echo",),
    "half": ("half_rate_p99_over_p50",),
    "quota": ("quota_over_decide",),
    "logger": ("logger_over_copy", "logger_rows_per_second"),
    "statistics": ("year_statistics_ms",),
    "growth": ("growth_validation", "growth_exponent"),
    "up": ("up_seconds",),
}
LONG = ("statistics", "growth")
"""Parts that run only when they are named: it takes five minutes to write ten million rows."""


def chosen(only: Sequence[str], *, short: bool) -> tuple[list[str], list[str]]:
    """Figures and parts elsewhere that are asked for. Raises `SystemExit` for a name that is neither."""
    usual = (*(part for part in PARTS if part not in LONG), *(() if short else elsewhere.NAMES))
    figures: list[str] = []
    programs: list[str] = []
    for name in only or usual:
        if name in PARTS:
            figures += PARTS[name]
        elif name in FIGURES:
            figures.append(name)
        elif name in elsewhere.NAMES:
            programs.append(name)
        else:
            names = ", ".join((*PARTS, *elsewhere.NAMES, *FIGURES))
            raise SystemExit(f"no part and no figure is called {name}; there are: {names}")
    return list(dict.fromkeys(figures)), programs


def measure(stack: World, figures: Sequence[str], *, short: bool, results: Results, say: Say) -> None:
    """All figures that this stack can show."""
    rounds, seconds = (3, 1.5) if short else (7, 4.0)
    if "idle_memory_mb" in figures:
        footprint.idle(stack, results, say)
    asyncio.run(stack.populate())
    asyncio.run(prepare(stack))
    with contenders(stack) as answering:
        if wanted := [name for name in figures if name in signing.RATIOS]:
            signing.rates(answering, wanted, rounds, seconds, results, say)
        if "alone_p50_over_echo" in figures:
            signing.alone(answering, rounds, results, say)
        if "half_rate_p99_over_p50" in figures:
            signing.half_rate(answering["sign"], rounds, seconds, results, say)
        if "memory_growth_percent" in figures:
            footprint.growth(stack, answering["sign"], 10_000 if short else 200_000, results, say)
    if "quota_over_decide" in figures:
        deciding.decisions(stack, rounds, seconds, results, say)
    if any(name in figures for name in PARTS["logger"]):
        logging.rows(stack, rounds, 40_000 if short else 150_000, results, say)
    if "year_statistics_ms" in figures:
        statistics.measure(stack, rounds, 200_000 if short else 10_000_000, results, say)
    if any(name in figures for name in PARTS["growth"]):
        growth.measure(stack, short=short, results=results, say=say)
    if "up_seconds" in figures:
        footprint.up(stack, 1 if short else 5, results, say)


def main(given: Sequence[str] | None = None) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(
        prog="make bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("only", nargs="*", help="parts or figures; all when none is named")
    parser.add_argument("--short", action="store_true", help="fewer and shorter rounds")
    arguments = parser.parse_args(given)
    figures, programs = chosen(arguments.only, short=arguments.short)
    load.check_tool()
    say, results, form = saying(), Results(), "short" if arguments.short else "full"
    try:
        if figures:
            say("starting a stack of the benchmark's own")
            with world() as stack:
                measure(stack, figures, short=arguments.short, results=results, say=say)
        for name in programs:
            elsewhere.run(name, short=arguments.short, results=results, say=say)
    except BaseException:
        if results.values:  # what was measured before something failed is not lost
            report.write(results, form)
        raise
    path = report.write(results, form)
    report.show(results)
    sys.stdout.write(
        f"{path.relative_to(ROOT)} has the details, {path.parent.relative_to(ROOT)}/*.svg the plots\n"
    )
    missed = results.missed()
    if missed:
        sys.stdout.write(f"missed: {', '.join(missed)}\n")
    return int(bool(missed))


if __name__ == "__main__":
    raise SystemExit(main())
