"""The protocol between the signer and whatever signs for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from servicekit.errors import SigngateError
from services.signer.domain import EngineStatus, Signed, SignRequest


class Engine(Protocol):
    """Signs lists of requests. One instance serves all of a process's requests, concurrently.

    The life of an engine: `start` once, then `canary` before the first request and from time to
    time (the signer's server calls it), `sign` and `describe` as often as they are wanted, `stop`
    once. An engine that fails to start leaves nothing running; the others serve on without it.
    """

    @property
    def name(self) -> str:
        """How requests and keys choose this engine: `native`, `websdk`, or a deployment's name for one."""
        ...

    async def start(self) -> None:
        """Make ready to sign. Raises an error that says what is wrong with the configuration."""
        ...

    async def canary(self) -> EngineStatus:
        """Sign a fixed URL, check the result, and remember whether it held.

        Never raises but for cancellation: a canary that fails is a status that is not ready.
        """
        ...

    async def sign(self, requests: Sequence[SignRequest]) -> list[Signed | SigngateError]:
        """Sign all, each on its own: as many results as requests, in their order.

        A member that fails yields its error and leaves the others alone. Never raises but for
        cancellation. An engine that is not ready yields `EngineUnavailable` for every member, one
        that is full `EngineBusy` with `retry_after`, and one that cannot begin a member before its
        deadline `SignDeadlineExceeded`; it never holds a member past its deadline.
        """
        ...

    def describe(self) -> EngineStatus:
        """What this engine is and whether it signs, from memory."""
        ...

    async def stop(self) -> None:
        """Finish what was begun, refuse what comes, let go of everything. Safe to call twice."""
        ...
