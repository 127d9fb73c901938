"""All of growth, in order, with the budget of time that each part may take."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench.figures import Results
from bench.growth import keys, requests, two, usage, users
from bench.growth.curves import Curve
from bench.progress import Say
from bench.scenarios.contenders import contenders
from bench.world import World

LINEAR = ("decide", "log", "year_statistics", "list_usage", "url_length", "batch", "callers")
"""Curves that may rise no more steeply than their size does."""


def measure(world: World, *, short: bool, results: Results, say: Say) -> None:
    """Every curve, on a stack that is populated. Short: 8 minutes when last run; full: 26."""
    rounds, requested = (3, 2_000) if short else (5, 10_000)
    rows = (1_000, 10_000, 100_000) if short else (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
    curves: list[Curve] = []
    with contenders(world) as answering, tempfile.TemporaryDirectory() as folder:
        sign, batch = answering["sign"], answering["batch"]
        sign.run(requested)
        callers = (1, 4, 16, 64, 256) if short else (1, 4, 16, 64, 256, 1024)
        curves += requests.callers(sign, callers, rounds, requested, say)
        curves += [
            requests.url_length(sign, Path(folder), (100, 250, 500, 1000, 2000), rounds, requested, say)
        ]
        curves += requests.batch_size(
            batch, Path(folder), (1, 2, 5, 10, 25, 50, 100), rounds, 5 * requested, say
        )
    curves += users.measure(
        world, (1, 10, 100, 1_000, 10_000) if short else (1, 10, 100, 1_000, 10_000, 100_000), rounds,
        40 if short else 200, say,
    )  # fmt: skip
    curves += keys.measure(world, rows, say)
    curves += usage.measure(world, rows[1:], rounds, 20_000 if short else 60_000, say)
    results.details["growth"] = {curve.name: curve.summary() for curve in curves}
    found = {curve.name: curve for curve in curves}
    results.add("growth_validation", [max(found["validate_warm"].ratio, found["validate_cold"].ratio)])
    results.add("growth_exponent", [max(found[name].exponent for name in LINEAR)])
    results.details["two"] = two.measure(world, rounds, 2.0 if short else 4.0, say)
