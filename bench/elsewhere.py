"""The parts of the benchmark that are programs of their own, with stacks and browsers of their own.

Each leaves a file in bench/out/; what they found stands in results.json as well, as figures like the others.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench.figures import Results
from bench.progress import Say
from bench.report import OUT
from deploy.local.layout import ROOT

Found = Mapping[str, Any]


def _websdk(found: Found) -> Mapping[str, Sequence[float]]:
    def ratios(rates: Found) -> list[float]:
        return [one / other for one, other in zip(rates["engine"], rates["baseline"], strict=True)]

    return {
        "websdk_over_one_page": ratios(found["speed"]["64 callers"]),
        "websdk_alone_over_one_page": ratios(found["speed"]["1 caller"]),
        "websdk_memory": [found["memory"]["ratio"]],
        "websdk_again_seconds": found["kill"]["again_after_s"],
        "websdk_wrong": [found["kill"]["wrong"]],
    }


def _revocation(found: Found) -> Mapping[str, Sequence[float]]:
    return {
        "revocation_p99_ms": [found["message"]["p99_ms"]],
        "revocation_lost_message_p99_ms": [found["lost message"]["p99_ms"]],
    }


_figures: Mapping[str, Callable[[Found], Mapping[str, Sequence[float]]]] = {
    "websdk": _websdk,
    "revocation": _revocation,
}
_full: Mapping[str, Sequence[str]] = {"websdk": (), "revocation": ("--rounds", "60")}
_short: Mapping[str, Sequence[str]] = {
    "websdk": ("--rounds", "3", "--seconds", "0.5", "--signatures", "5000"),
    "revocation": ("--rounds", "10"),
}
NAMES = tuple(_figures)


def run(name: str, *, short: bool, results: Results, say: Say) -> None:
    """One of `NAMES`, and its figures. Raises `CalledProcessError` for one that broke."""
    arguments = (_short if short else _full)[name]
    say(f"python -m bench.{name} {' '.join(arguments)}")
    file = OUT / f"{name}.json"
    file.unlink(missing_ok=True)
    # It ends with 1 below a floor, which the figures tell as well.
    done = subprocess.run(
        [sys.executable, "-m", f"bench.{name}", *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, check=False
    )
    if not file.exists():
        raise subprocess.CalledProcessError(done.returncode, done.args)
    found = json.loads(file.read_text(encoding="utf-8"))
    results.details[name] = found
    for figure, values in _figures[name](found).items():
        results.add(figure, values)
