"""Load on every face of every service at once, in which no request may fail."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

import httpx

from signgate_client import SigngateError
from signgate_client.aio import AsyncSigngate

PAUSE = 0.03
"""Seconds between two requests of one caller."""
Ask = Callable[[], Awaitable[None]]


@dataclass
class Traffic:
    """Callers of one user, by a key and by a session. `answered` and `failed` are by face."""

    edge: str
    key: str
    token: str
    answered: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def stop(self) -> None:
        """Let every caller end what it has on its way."""
        self._stopping.set()

    async def run(self) -> None:
        """Until `stop`. No caller tries again what has failed."""
        session = {"authorization": f"Bearer {self.token}"}
        async with (
            AsyncSigngate(self.edge, api_key=self.key) as grpc,
            httpx.AsyncClient(base_url=f"http://{self.edge}", timeout=15) as http,
            asyncio.TaskGroup() as callers,
        ):
            for _ in range(3):
                callers.create_task(self._call("Sign", partial(_sign, grpc)))
            gets = {
                "/v1/quota": {"x-api-key": self.key},
                "/v1/usage": {"x-api-key": self.key},
                "/webcast/rate_limits": {"x-api-key": self.key},
                "/v1/keys": session,
                "/auth/v1/user": session,
            }
            for path, headers in gets.items():
                callers.create_task(self._call(path, partial(_get, http, path, headers)))

    async def _call(self, face: str, ask: Ask) -> None:
        while not self._stopping.is_set():
            try:
                await ask()
            except (SigngateError, httpx.HTTPError) as error:
                told = error.response.text if isinstance(error, httpx.HTTPStatusError) else ""
                self.failed.append(f"{face}: {error!r} {told}")
            else:
                self.answered[face] += 1
            await asyncio.sleep(PAUSE)


async def _sign(client: AsyncSigngate) -> None:
    await client.sign("@rolling")


async def _get(client: httpx.AsyncClient, path: str, headers: dict[str, str]) -> None:
    (await client.get(path, headers=headers)).raise_for_status()
