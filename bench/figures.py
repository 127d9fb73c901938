"""The figures that the benchmark settles, each with its floor, and what was measured of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final


@dataclass(frozen=True)
class Figure:
    """A figure. `floor` is the least that will do, or the most where `at_most`."""

    name: str
    title: str
    floor: float
    at_most: bool = False

    def holds(self, value: float) -> bool:
        """Whether a median is good enough."""
        return value <= self.floor if self.at_most else value >= self.floor


FIGURES: Final = {
    figure.name: figure
    for figure in (
        Figure("sign_over_echo", "Sign, direct, 64 callers ÷ echo", 0.70),
        Figure("sign_over_sql_four", "Sign ÷ sql, four round trips", 3.0),
        Figure("sign_over_sql_one", "Sign ÷ sql, one round trip", 1.5),
        Figure("envoy_over_direct", "Sign through Envoy ÷ direct", 0.85),
        Figure("batch_over_echo", "URLs/s by SignBatch of 100 ÷ echo", 6.0),
        Figure("stream_over_echo", "URLs/s of one SignStream ÷ echo", 1.0),
        Figure("alone_p50_over_echo", "p50 of one caller alone ÷ echo's", 4.0, at_most=True),
        Figure("half_rate_p99_over_p50", "p99 ÷ p50 at half of the highest rate", 5.0, at_most=True),
        Figure("logger_over_copy", "logger's rows/s ÷ COPY", 0.4),
        Figure("logger_rows_per_second", "logger's rows/s", 15_000),
        Figure("quota_over_decide", "quota's decisions/s by lists of 100 ÷ decide", 5.0),
        Figure("year_statistics_ms", "a year's statistics, the slowest way to ask, ms", 50, at_most=True),
        Figure("idle_memory_mb", "resident memory of the largest service, idle, MB", 90, at_most=True),
        Figure("memory_growth_percent", "its growth under load, the worst service, %", 5.0, at_most=True),
        Figure("websdk_over_one_page", "websdk engine, 64 callers ÷ one page and a queue", 8.0),
        Figure("websdk_alone_over_one_page", "websdk engine, one caller ÷ one page and a queue", 0.97),
        Figure("websdk_memory", "Chromium's memory ÷ that of its beginning", 1.15, at_most=True),
        Figure("websdk_again_seconds", "Chromium killed, to the next signature, s", 5.0, at_most=True),
        Figure("websdk_wrong", "wrong answers of it", 0, at_most=True),
        Figure("revocation_p99_ms", "a revoked key is taken for, p99, ms", 250, at_most=True),
        Figure("revocation_lost_message_p99_ms", "the same, its message lost, p99, ms", 250, at_most=True),
        Figure("growth_validation", "validating keys: 10^7 of them ÷ 10^3", 1.5, at_most=True),
        Figure("growth_exponent", "steepest growth of a cost (1: linear)", 1.0, at_most=True),
        Figure("up_seconds", "`make up` to first signature, warm, s", 8.0, at_most=True),
    )
}


@dataclass
class Results:
    """What was measured: the figures' values, one a round; and everything else worth keeping."""

    values: dict[str, list[float]] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, values: Iterable[float]) -> None:
        """The rounds of a figure. Raises `KeyError` for one that nobody knows."""
        self.values[FIGURES[name].name] = list(values)

    def summary(self) -> dict[str, dict[str, float | int]]:
        """Each measured figure as it stands in results.json."""
        return {
            name: {
                "median": round(median(values), 4),
                "min": round(min(values), 4),
                "max": round(max(values), 4),
                "floor": FIGURES[name].floor,
                "rounds": len(values),
            }
            for name, values in self.values.items()
        }

    def missed(self) -> list[str]:
        """Names of the measured figures whose median is not good enough."""
        return [name for name, values in self.values.items() if not FIGURES[name].holds(median(values))]
