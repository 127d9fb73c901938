"""An engine that is enabled and can't be: it is listed, says that it is not ready, and signs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from servicekit.clock import Clock
from servicekit.errors import SigngateError
from services.signer.domain import EngineInfo, EngineStatus, Signed, SignRequest
from services.signer.errors import EngineUnavailable

_WHY: Final = "The engine is not configured rightly; the signer's log says how."


class AbsentEngine:
    """Satisfies `Engine`; stands in for one whose configuration could not even be read."""

    def __init__(self, name: str, why: str, clock: Clock) -> None:
        self.name = name
        self._why = why
        self._status = EngineStatus(EngineInfo(name, "", clock.now()), ready=False, not_ready_reason=_WHY)

    async def start(self) -> None:
        """Raise what is wrong, for the log."""
        raise EngineUnavailable(self._why)

    async def stop(self) -> None:
        """Nothing was started."""

    async def canary(self) -> EngineStatus:
        """Not ready."""
        return self._status

    def describe(self) -> EngineStatus:
        """Not ready."""
        return self._status

    async def sign(self, requests: Sequence[SignRequest]) -> list[Signed | SigngateError]:
        """Refuse."""
        return [EngineUnavailable(retry_after=1.0) for _ in requests]
