"""What a caller may still sign: one look at its limits, which charges nothing.

The sign-server contract's clients ask this with the credential they sign with. A key that may sign
may see it: every signature's headers tell it the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from servicekit.errors import PermissionDenied
from servicekit.principal import QUOTA_READ, SIGN
from services.signer.door import Door
from services.signer.jobs import Caller, Identity, Limit


class Inspector(Protocol):
    """The part of the quota service that looks and does not count."""

    async def inspect(self, caller: Caller) -> Sequence[Limit]:
        """Every limit that applies. Raises a `SigngateError`."""
        ...


class Allowance(NamedTuple):
    """A caller's limits; and how many requests wait here, and from how many on they are refused."""

    limits: Sequence[Limit]
    waiting: int
    shed_at: int


class LimitReader:
    """Answers one caller at a time; `waiting` is asked at each answer."""

    def __init__(
        self,
        door: Door,
        quota: Inspector,
        *,
        waiting: Callable[[], int],
        shed_at: int,
    ) -> None:
        self._door = door
        self._quota = quota
        self._waiting = waiting
        self._shed_at = shed_at

    async def read(self, identity: Identity) -> Allowance:
        """The caller's limits. Raises what `SignerService.identify` and `Door.admit` do."""
        caller = await self._door.admit(identity)
        if not caller.scopes & {SIGN, QUOTA_READ}:
            raise PermissionDenied(
                f"This credential lacks the scope: {QUOTA_READ}.",
                reason="SCOPE_MISSING",
                metadata={"missing_scopes": QUOTA_READ},
            )
        return Allowance(await self._quota.inspect(caller), self._waiting(), self._shed_at)
