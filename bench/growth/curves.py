"""Curves: a cost against a size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any


@dataclass
class Curve:
    """Values of several rounds for each size. `cost`: what y is; `size`: what x is."""

    name: str
    size: str
    cost: str
    points: dict[int, list[float]] = field(default_factory=dict)

    def add(self, size: int, values: Sequence[float]) -> None:
        """The rounds' values at a size; sizes come in ascending order."""
        self.points[size] = list(values)

    @property
    def medians(self) -> Mapping[int, float]:
        """A value a size."""
        return {size: median(values) for size, values in self.points.items()}

    @property
    def ratio(self) -> float:
        """How many times the smallest size's cost the largest one's is."""
        found = list(self.medians.values())
        return found[-1] / found[0]

    @property
    def exponent(self) -> float:
        """The power of the size by which the cost grows."""
        sizes = list(self.points)
        return math.log(self.ratio) / math.log(sizes[-1] / sizes[0])

    def summary(self) -> dict[str, Any]:
        """As it stands in results.json."""
        return {
            "size": self.size,
            "cost": self.cost,
            "medians": {str(size): round(value, 4) for size, value in self.medians.items()},
            "values": {str(size): [round(v, 4) for v in values] for size, values in self.points.items()},
            "exponent": round(self.exponent, 3),
        }
