"""What came of it, held against the floors."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.attack.run import Outcome
from tests.attack.victim import Sample

RATIO: Final = 3.0
"""How much longer than without the attack a victim may wait, at the 99th percentile."""
SHARED: Final = {"sign, new connection": "sign", "sign by gRPC": "sign", "keys": "pages", "usage": "pages"}
"""Kinds of requests that are judged with others; the rest are judged alone."""
UNFELT: Final = 0.15
"""Seconds of waiting that count as none, whatever the ratio. Attacker, victims and stack share two cores
here, and another process's slice of time is longer than a signature takes."""
UNFELT_OF: Final = {"sign in": 0.6}
"""Likewise, for what costs a password's hash: waiting for a few others is no stall."""


@dataclass(frozen=True)
class Finding:
    """One kind of request under one attack. Times in seconds; `refused` counts after the attack too."""

    kind: str
    asked: int
    refused: int
    calm_p50: float
    calm_p99: float
    p50: float
    p99: float

    @property
    def ratio(self) -> float:
        """How much longer it took."""
        return self.p99 / self.calm_p99 if self.calm_p99 else math.inf

    @property
    def held(self) -> bool:
        """Whether both floors held."""
        quick = self.p99 <= UNFELT_OF.get(self.kind, UNFELT) or self.ratio <= RATIO
        return not self.refused and quick


class Report:
    """All outcomes of a run together.

    Where an attack has no twin, the calm it is held against is the whole run's: so a 99th percentile rests
    on enough requests, and a quiet minute of the machine is held against no busy one.
    """

    def __init__(self, outcomes: Sequence[Outcome]) -> None:
        self.outcomes = outcomes
        self._calm = [
            sample
            for outcome in outcomes
            if outcome.attack.twin is None
            for told in outcome.rounds
            for sample in told.calm
        ]

    def findings(self, outcome: Outcome) -> list[Finding]:
        """By kind of request, in the order of their names."""
        if outcome.attack.twin is None:
            calm = _by_kind(self._calm)
        else:
            calm = _by_kind(sample for told in outcome.rounds for sample in told.calm)
        under = _by_kind(sample for told in outcome.rounds for sample in told.under)
        after = _by_kind(sample for told in outcome.rounds for sample in told.after)
        return [
            Finding(
                kind,
                len(under.get(kind, ())),
                sum(bool(sample.refusal) for part in (under, after) for sample in part.get(kind, ())),
                *(
                    quantile([sample.seconds for sample in part.get(kind, ())], share)
                    for part in (calm, under)
                    for share in (0.5, 0.99)
                ),
            )
            for kind in sorted(under.keys() | after.keys())
        ]

    def refusals_in_calm(self, outcome: Outcome) -> int:
        """How many requests were refused before the attack began: then it shows nothing."""
        return sum(bool(sample.refusal) for told in outcome.rounds for sample in told.calm)

    def held(self, outcome: Outcome) -> bool:
        """Whether the floors held for every kind of request, something was asked, and no process died."""
        found = self.findings(outcome)
        return (
            not outcome.restarted
            and not outcome.died
            and not self.refusals_in_calm(outcome)
            and sum(finding.asked for finding in found) > 0
            and all(finding.held for finding in found)
        )

    @property
    def good(self) -> bool:
        """Whether the floors held under every attack, and there was one."""
        return bool(self.outcomes) and all(map(self.held, self.outcomes))

    def line(self) -> str:
        """The closing line, which others read: its beginning is fixed."""
        if self.good:
            return "attack: all floors held"
        failed = [f"{one.attack.case} {one.attack.name}" for one in self.outcomes if not self.held(one)]
        return f"attack: floors not held: {'; '.join(failed) or 'nothing was tried'}"

    def plain(self) -> dict[str, Any]:
        """As JSON takes it. Times in milliseconds: the median and the 99th percentile."""
        return {"line": self.line(), "attacks": [self.plain_of(outcome) for outcome in self.outcomes]}

    def plain_of(self, outcome: Outcome) -> dict[str, Any]:
        """One outcome."""
        return {
            "case": outcome.attack.case,
            "name": outcome.attack.name,
            "held": self.held(outcome),
            "compared_with": "calm"
            if outcome.attack.twin is None
            else "the same rate of a customer's requests",
            "outage_s": [round(told.outage, 2) for told in outcome.rounds],
            "restarted": outcome.restarted,
            "died": sorted(outcome.died),
            "grown_mb": {name: more for name, more in sorted(outcome.grown.items()) if more},
            "refused_before": self.refusals_in_calm(outcome),
            "refusals": dict(refusals(outcome)),
            "spent": outcome.spent,
            "kinds": {
                one.kind: {
                    "asked": one.asked,
                    "refused": one.refused,
                    "without_ms": [round(1000 * one.calm_p50, 1), round(1000 * one.calm_p99, 1)],
                    "with_ms": [round(1000 * one.p50, 1), round(1000 * one.p99, 1)],
                }
                for one in self.findings(outcome)
            },
        }


def quantile(values: Iterable[float], share: float) -> float:
    """Nearest rank, upwards; 0 of nothing."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def refusals(outcome: Outcome) -> Counter[str]:
    """Why victims were refused, and how often."""
    return Counter(
        f"{sample.kind}: {sample.refusal}"
        for told in outcome.rounds
        for sample in (*told.under, *told.after)
        if sample.refusal
    )


def _by_kind(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = {}
    for sample in samples:
        found.setdefault(SHARED.get(sample.kind, sample.kind), []).append(sample)
    return found
