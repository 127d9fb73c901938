"""How a try at an upstream ends when it does not sign.

TryElsewhere     a failure of this upstream: another may do, or the same one a little later
├── Resting      it asked to be left alone, or its circuit is open; it was not tried
└── Denied       it refuses our own credential or plan: no matter of the caller's
Refused          it says that the request itself is wrong: no other try will help
"""

from __future__ import annotations


class TryElsewhere(Exception):
    """`rest` is how long, in seconds, this upstream is better left alone."""

    def __init__(self, outcome: str, rest: float = 0.0) -> None:
        super().__init__(outcome)
        self.outcome = outcome
        self.rest = rest


class Resting(TryElsewhere):
    """Not tried at all."""


class Denied(TryElsewhere):
    """401, 402 or 403, as a status or inside a body."""


class Refused(Exception):
    """400, 404, 413 or 422."""
