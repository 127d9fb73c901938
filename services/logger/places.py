"""Places for exports: so many at once for a key, for a user and in this process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

from servicekit.principal import Principal
from services.logger import metrics
from services.logger.errors import ExportLimit

COME_BACK = 30.0
"""Seconds that a caller is told to wait."""


@dataclass(frozen=True, slots=True)
class ExportBounds:
    """How many exports at once, and how long one may take (seconds). See `LoggerSettings`."""

    of_key: int = 2
    of_user: int = 4
    of_all: int = 32
    seconds: float = 3600.0
    stall: float = 180.0


class Places:
    """Counts exports that are under way. Memory is held for callers that have one, and for no others."""

    def __init__(self, bounds: ExportBounds) -> None:
        self._bounds = bounds
        self._held: Counter[UUID | None] = Counter()

    @contextmanager
    def taken(self, caller: Principal) -> Iterator[None]:
        """A place for as long as the block runs, however it ends. Raises `ExportLimit`."""
        bounds = self._bounds
        wanted: dict[UUID | None, tuple[str, int]] = {
            None: ("service", bounds.of_all),
            caller.user_id: ("user", bounds.of_user),
        }
        if caller.api_key_id is not None:
            wanted[caller.api_key_id] = ("key", bounds.of_key)
        for holder, (scope, most) in wanted.items():
            if self._held[holder] >= most:
                metrics.exports_refused.labels(scope).inc()
                raise ExportLimit(metadata={"scope": scope, "limit": str(most)}, retry_after=COME_BACK)
        self._held.update(wanted.keys())
        metrics.exports.inc()
        try:
            yield
        finally:
            metrics.exports.dec()
            self._held -= Counter(wanted.keys())

    @property
    def held(self) -> int:
        """Exports under way."""
        return self._held[None]
