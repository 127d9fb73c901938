"""What the benchmark leaves: a table on the screen, plots (SVG) and results.json in bench/out/."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib as mpl
import psutil
from rich.console import Console
from rich.table import Table

from bench.figures import FIGURES, Results
from bench.processes import LEAST

mpl.use("svg")
from matplotlib import pyplot as plt  # after the choice of its canvas

OUT = Path(__file__).with_name("out")
GOOD, BAD = "#2a7f4f", "#b3402e"
MOST = 4
"""Times the floor: what is better still would leave no room for the others in the plot."""


def machine() -> dict[str, Any]:
    """What it ran on."""
    return {
        "cpu": next(
            (line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")),
            platform.processor(),
        ),
        "cores": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "grpcio": version("grpcio"),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def write(results: Results, form: str) -> Path:
    """results.json and a plot of each kind of measurement there is. Returns the file."""
    OUT.mkdir(exist_ok=True)
    path = OUT / "results.json"
    document = {
        "figures": results.summary(),
        "machine": machine(),
        "form": form,
        "details": results.details,
    }
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    _floors(results)
    if "urls_per_second" in results.details:
        _rates(results.details["urls_per_second"])
    if "cpu_ms_a_url" in results.details:
        _costs(results.details["cpu_ms_a_url"])
    if "growth" in results.details:
        _growth(results.details["growth"])
    return path


def show(results: Results) -> None:
    """Each figure against its floor."""
    table = Table(title="Medians, and the range of the rounds")
    table.add_column("figure")
    for column in ("median", "min to max", "rounds", "floor"):
        table.add_column(column, justify="right")
    table.add_column("")
    missed = set(results.missed())
    for name, found in results.summary().items():
        figure = FIGURES[name]
        table.add_row(
            figure.title,
            f"{found['median']:,.2f}",
            f"{found['min']:,.2f} to {found['max']:,.2f}",
            str(found["rounds"]),
            f"{'≤' if figure.at_most else '≥'} {figure.floor:,g}",
            "[red]missed[/red]" if name in missed else "[green]reached[/green]",
        )
    console = Console(width=120)
    console.print(table)
    costs: Mapping[str, Mapping[str, float]] = results.details.get("cpu_ms_a_url", {})
    if costs:
        processes = sorted({name for cost in costs.values() for name, ms in cost.items() if ms >= LEAST})
        table = Table(title="CPU milliseconds a URL, by process (medians)")
        table.add_column("")
        for process in (*processes, "all"):
            table.add_column(process, justify="right")
        for name, cost in costs.items():
            row = [cost.get(process, 0.0) for process in processes]
            table.add_row(name, *(f"{ms:.3f}" if ms >= LEAST else "·" for ms in row), f"{sum(row):.3f}")
        console.print(table)


def _floors(results: Results) -> None:
    """How far each figure stands from its floor: 1 is the floor, more is better."""
    names = list(results.values)
    if not names:
        return
    figure, axes = plt.subplots(figsize=(9, 0.45 * len(names) + 1.2))
    for place, name in enumerate(reversed(names)):
        wanted = FIGURES[name]
        scale = [
            min(wanted.floor / value if wanted.at_most else value / wanted.floor, MOST)
            for value in results.values[name]
            if value
        ]
        if not scale:
            continue
        middle = sorted(scale)[len(scale) // 2]
        axes.barh(place, middle, color=GOOD if middle >= 1 else BAD, alpha=0.85)
        axes.plot([min(scale), max(scale)], [place, place], color="black", linewidth=1.2)
    axes.axvline(1.0, color="black", linewidth=0.8, linestyle="--")
    axes.set_yticks(range(len(names)), [FIGURES[name].title for name in reversed(names)], fontsize=8)
    axes.set_xlabel(f"times the floor (median; the line: all rounds; {MOST} and more as {MOST})")
    axes.set_xlim(left=0)
    _save(figure, "floors")


def _rates(rates: Mapping[str, list[float]]) -> None:
    figure, axes = plt.subplots(figsize=(8, 3.6))
    names = list(rates)
    axes.boxplot([rates[name] for name in names], tick_labels=names, showfliers=True)
    axes.set_ylabel("URLs signed a second")
    axes.set_ylim(bottom=0)
    _save(figure, "rates")


def _costs(costs: Mapping[str, Mapping[str, float]]) -> None:
    figure, axes = plt.subplots(figsize=(8, 4))
    names = list(costs)
    processes = sorted({process for cost in costs.values() for process, ms in cost.items() if ms >= LEAST})
    bottom = [0.0] * len(names)
    axes.set_prop_cycle(color=mpl.colormaps["tab20"].colors)  # type: ignore[attr-defined]  # a listed map
    for process in processes:
        heights = [costs[name].get(process, 0.0) for name in names]
        axes.bar(names, heights, bottom=bottom, label=process)
        bottom = [below + height for below, height in zip(bottom, heights, strict=True)]
    axes.set_ylabel("CPU milliseconds a URL")
    axes.legend(fontsize=7)
    _save(figure, "cpu")


def _growth(curves: Mapping[str, Mapping[str, Any]]) -> None:
    """A plot a curve, both axes by logarithms: a straight line at 45 degrees is linear growth."""
    for name, curve in curves.items():
        figure, axes = plt.subplots(figsize=(5.2, 3.6))
        sizes = [int(size) for size in curve["values"]]
        for size, values in zip(sizes, curve["values"].values(), strict=True):
            axes.plot([size, size], [min(values), max(values)], color="#999999", linewidth=1)
        middles = list(curve["medians"].values())
        axes.plot(
            sizes, middles, marker="o", color=GOOD, label=f"measured (exponent {curve['exponent']:.2f})"
        )
        axes.plot(
            [sizes[0], sizes[-1]],
            [middles[0], middles[0] * sizes[-1] / sizes[0]],
            color="black", linewidth=0.8, linestyle="--", label="linear",
        )  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("log")
        highest = max(max(values) for values in curve["values"].values())
        lowest = min(min(values) for values in curve["values"].values())
        axes.set_ylim(lowest / 2, highest * 4)
        axes.set_xlabel(curve["size"])
        axes.set_ylabel(curve["cost"], fontsize=8)
        axes.legend(fontsize=7)
        _save(figure, f"growth-{name}")


def _save(figure: Any, name: str) -> None:
    figure.tight_layout()
    figure.savefig(OUT / f"{name}.svg")
    plt.close(figure)


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
