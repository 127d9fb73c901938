"""Asks again whether a caller's credential holds, while an answer to it is under way."""

from __future__ import annotations

import asyncio
from typing import Final

from servicekit import context
from servicekit.principal import require_scopes
from servicekit.rpc.server import Authenticator

EVERY: Final = 2.0
"""Seconds that an answer goes on for, at most, after its credential is revoked and that has become known."""


class Recheck:
    """Of the call that it is made in. Without an authenticator it never asks.

    An answer of an hour would otherwise go on after the key was revoked, or the session signed out.
    """

    def __init__(
        self, authenticator: Authenticator | None, scopes: tuple[str, ...], every: float = EVERY
    ) -> None:
        here = context.current()
        self._metadata = () if here is None else here.metadata
        self._authenticator = authenticator
        self._scopes = scopes
        self._every = every
        self._asked = asyncio.get_running_loop().time()

    async def holds(self) -> None:
        """Return if it held within the last `every` seconds, or holds now.

        Raises what authentication raises, and `PermissionDenied` for a key that has lost a scope.
        """
        now = asyncio.get_running_loop().time()
        if self._authenticator is None or now - self._asked < self._every:
            return
        require_scopes(await self._authenticator.authenticate(self._metadata), self._scopes)
        self._asked = now
