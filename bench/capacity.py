"""What so many signatures a second need: docs/capacity.md's tables, from bench/out/results.json.

    make bench && python -m bench.capacity

Writes the tables between the marks of docs/capacity.md, and the plots they stand beside to docs/img/. Every
number is the measured CPU time of a process, times the rate, over the share of a core that may be used.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final

from bench.report import OUT
from deploy.local.layout import ROOT

RATES: Final = (1_000, 10_000, 100_000)
BUSY: Final = 0.6
"""The share of a core that is used on average, so that a peak of half as much again finds room."""
WAYS: Final = {"envoy": "`Sign`, through Envoy", "batch": "`SignBatch` of 100, direct"}
PROCESSES: Final = ("signer", "keys", "quota", "redis", "logger", "postgres", "envoy")
DOCUMENT: Final = ROOT / "docs" / "capacity.md"
IMAGES: Final = ROOT / "docs" / "img"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def tables(document: Mapping[str, Any]) -> str:
    """The measured part of docs/capacity.md. Raises `KeyError` for a run that did not measure signing."""
    machine, costs = document["machine"], document["details"]["cpu_ms_a_url"]
    where = (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB,"
        f" {machine['system'].split('-with')[0]}, Python {machine['python']}"
    )
    lines = [
        f"Measured {machine['at'][:10]}, {document['form']} run, on {where}.",
        "",
        *_figures(document["figures"]),
        *_costs(costs),
    ]
    for way, title in WAYS.items():
        lines += _needs(title, costs[way])
    return "\n".join(lines)


def _figures(figures: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    yield from ("| figure | median | min to max | rounds | floor |", "|---|---|---|---|---|")
    for name, found in figures.items():
        yield (
            f"| `{name}` | {found['median']:,.2f} | {found['min']:,.2f} to {found['max']:,.2f}"
            f" | {found['rounds']} | {found['floor']:,g} |"
        )
    yield ""


def _costs(costs: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    yield from ("CPU microseconds a URL:", "")
    yield f"| | {' | '.join(PROCESSES)} |"
    yield "|---" * (len(PROCESSES) + 1) + "|"
    for way, cost in costs.items():
        if "signer" in cost:
            yield f"| `{way}` | {' | '.join(f'{cost.get(name, 0) * 1000:.0f}' for name in PROCESSES)} |"
    yield ""


def _needs(title: str, cost: Mapping[str, float]) -> Iterator[str]:
    """Whole cores for each kind of process; what has one thread needs as many processes."""
    yield f"{title}, cores (at {BUSY:.0%} of each):"
    yield ""
    yield f"| signatures/s | {' | '.join(PROCESSES)} | all |"
    yield "|---" * (len(PROCESSES) + 2) + "|"
    for rate in RATES:
        cores = [rate * cost.get(name, 0.0) / 1000 / BUSY for name in PROCESSES]
        shown = " | ".join(_cores(value) for value in cores)
        yield f"| {rate:,} | {shown} | {_cores(sum(cores))} |"
    yield ""


def _cores(value: float) -> str:
    return f"{value:.1f}" if value < 2 else f"{math.ceil(value):,}"  # noqa: PLR2004  # below it tenths matter


def main() -> int:
    """See the module."""
    document = json.loads((OUT / "results.json").read_text(encoding="utf-8"))
    text = DOCUMENT.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    DOCUMENT.write_text(f"{before}{BEGIN}\n{tables(document)}\n{END}{after}", encoding="utf-8")
    IMAGES.mkdir(exist_ok=True)
    for plot in sorted(OUT.glob("*.svg")):
        shutil.copy(plot, IMAGES / plot.name)
    sys.stdout.write(f"{DOCUMENT.relative_to(ROOT)} and {IMAGES.relative_to(ROOT)}/ are written\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
