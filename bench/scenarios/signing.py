"""How many URLs are signed in a second, by each way and each baseline; and how long one waits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from bench.figures import Results
from bench.progress import Say
from bench.scenarios.contenders import Contender

ORDER = ("sign", "echo", "sql_four", "envoy", "sql_one", "batch", "stream")
RATIOS = {
    "sign_over_echo": ("sign", "echo"),
    "sign_over_sql_four": ("sign", "sql_four"),
    "sign_over_sql_one": ("sign", "sql_one"),
    "envoy_over_direct": ("envoy", "sign"),
    "batch_over_echo": ("batch", "echo"),
    "stream_over_echo": ("stream", "echo"),
}
SHARES = (1, 10, 25, 50, 75, 90, 95, 99, 99.9)
ALONE = 400
"""Requests of one caller alone, a round."""


def needed(wanted: Sequence[str]) -> list[str]:
    """The contenders that these figures compare, in the order in which they run."""
    names = {name for figure in wanted for name in RATIOS.get(figure, ())}
    return [name for name in ORDER if name in names]


def rates(
    contenders: Mapping[str, Contender],
    wanted: Sequence[str],
    rounds: int,
    seconds: float,
    results: Results,
    say: Say,
) -> None:
    """The ratios, a value a round: within one, everybody runs once, one after the other."""
    names = needed(wanted)
    guesses = {name: contenders[name].urls_per_second(1.0, 1500) for name in names}
    for name in names:
        contenders[name].costs.clear()
    found: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        # Every second round backwards: nobody always comes after the same.
        for name in names if number % 2 == 0 else reversed(names):
            rate = contenders[name].urls_per_second(seconds, guesses[name])
            found[name].append(rate)
            guesses[name] = rate
            say(f"round {number + 1} of {rounds}: {name} {rate:,.0f} URLs/s")
    for figure in wanted:
        if figure in RATIOS:
            above, below = (found[name] for name in RATIOS[figure])
            results.add(figure, [a / b for a, b in zip(above, below, strict=True)])
    results.details["urls_per_second"] = {
        name: [round(rate, 1) for rate in rates] for name, rates in found.items()
    }
    results.details["cpu_ms_a_url"] = {
        name: {
            process: round(
                median(cost.seconds.get(process, 0.0) for cost in contenders[name].costs) * 1000, 4
            )
            for process in contenders[name].costs[0].seconds
        }
        for name in names
    }


def alone(contenders: Mapping[str, Contender], rounds: int, results: Results, say: Say) -> None:
    """One caller alone: the median's ratio, a round."""
    found: dict[str, list[float]] = {"sign": [], "echo": []}
    for number in range(rounds):
        for name in ("sign", "echo"):
            done = contenders[name].alone(ALONE)
            found[name].append(done.percentile(0.5))
            say(f"round {number + 1} of {rounds}: {name} alone, p50 {found[name][-1] * 1000:.2f} ms")
    results.add("alone_p50_over_echo", [s / e for s, e in zip(found["sign"], found["echo"], strict=True)])
    results.details["alone_p50_ms"] = {
        name: [round(v * 1000, 3) for v in values] for name, values in found.items()
    }


def half_rate(contender: Contender, rounds: int, seconds: float, results: Results, say: Say) -> None:
    """At half of the highest rate: how the slowest hundredth stands to the median."""
    highest = contender.urls_per_second(2.0, 1500)
    ratios, p50s, p99s, samples = [], [], [], []
    for number in range(rounds):
        done = contender.run(round(highest / 2 * seconds), per_second=highest / 2, log=True)
        p50, p99 = done.percentile(0.5), done.percentile(0.99)
        ratios.append(p99 / p50)
        p50s.append(round(p50 * 1000, 3))
        p99s.append(round(p99 * 1000, 3))
        samples += [round(value * 1000, 3) for value in done.latencies]
        say(
            f"round {number + 1} of {rounds}: at {highest / 2:,.0f}/s"
            f" p50 {p50 * 1000:.2f} ms, p99 {p99 * 1000:.2f} ms"
        )
    results.add("half_rate_p99_over_p50", ratios)
    results.details["half_rate"] = {
        "per_second": round(highest / 2, 1), "p50_ms": p50s, "p99_ms": p99s,
        "percentiles_ms": {str(share): _percentile(samples, share / 100) for share in SHARES},
    }  # fmt: skip


def _percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
