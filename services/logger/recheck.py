"""Asks again whether a caller's credential holds, while an answer to it is under way."""

from __future__ import annotations

import asyncio
from typing import Final

from servicekit import context
from servicekit.rpc.policy import enforce
from servicekit.rpc.server import Authenticator
from signgate.common.v1.policy_pb2 import Policy

EVERY: Final = 2.0
"""Seconds that an answer goes on for, at most, after its credential is revoked and that has become known."""


class Recheck:
    """Of the call that it is made in. Without an authenticator it never asks.

    An answer of an hour would otherwise go on after the key was revoked, or the session signed out.
    """

    def __init__(self, authenticator: Authenticator | None, policy: Policy, every: float = EVERY) -> None:
        here = context.current()
        self._metadata = () if here is None else here.metadata
        self._authenticator = authenticator
        self._policy = policy
        self._every = every
        self._asked = asyncio.get_running_loop().time()

    async def holds(self) -> None:
        """Return if it held within the last `every` seconds, or holds now.

        Raises what authentication raises, and what the method's policy does: a key may have lost a scope.
        """
        now = asyncio.get_running_loop().time()
        if self._authenticator is None or now - self._asked < self._every:
            return
        enforce(self._policy, await self._authenticator.authenticate(self._metadata))
        self._asked = now
