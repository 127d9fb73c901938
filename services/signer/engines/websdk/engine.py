"""The websdk engine: see the package, and docs/engines.md for operators."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from servicekit import log
from servicekit.clock import Clock
from servicekit.errors import SigngateError
from services.signer.domain import EngineInfo, EngineStatus, Signed, SignRequest
from services.signer.engines import signed_url
from services.signer.engines.websdk import metrics
from services.signer.engines.websdk.config import WebSdkConfig
from services.signer.engines.websdk.errors import Misconfigured
from services.signer.engines.websdk.page import Page
from services.signer.engines.websdk.pool import Pool, members, request_list
from services.signer.engines.websdk.script import Script, appended, tokens
from services.signer.engines.websdk.tickets import Entry, Ticket, Waiting
from services.signer.errors import EngineBusy, EngineFailure, EngineUnavailable
from services.signer.room_url import parse

NAME: Final = "websdk"
_log = log.get(NAME)
_VERSION_LENGTH: Final = 12
_shortest_wait: Final = 0.2
_longest_wait: Final = 5.0
_CANARY_ROOM: Final = parse(
    "https://webcast.tiktok.com/webcast/room/info/?aid=1988&room_id=7300000000000000000"
)
_CANARY_ID: Final = "00000000-0000-7000-8000-000000000000"


class WebSdkEngine:
    """Satisfies `Engine`. The user agent of its answers is the profile's: the one that was signed for."""

    name = NAME

    def __init__(self, config: WebSdkConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._info = EngineInfo(NAME, config.sha256[:_VERSION_LENGTH], clock.now(), config.sha256)
        self._waiting = Waiting(config.max_waiting)
        self._pool: Pool | None = None
        self._not_ready = "The engine has not been started."
        self._canary_at: datetime | None = None
        self._begun: set[Ticket] = set()
        metrics.WAITING.set_function(lambda: len(self._waiting))

    async def start(self) -> None:
        """Read the script, start Chromium, sign a canary in a page. Raises `Misconfigured`."""
        if not (self._config.browser_url or self._config.sandbox):
            _log.warning("Chromium runs without a sandbox beside signing keys and Redis' password")
        try:
            script = Script.load(self._config.script, self._config.sha256)
            pool = Pool(self._config, script, self._waiting, settle=self._settle, canary=self._prove)
            await pool.start()
        except Misconfigured:
            self._not_ready = Misconfigured.told
            raise
        self._pool = pool
        self._not_ready = "No canary signature has been made yet."

    async def stop(self) -> None:
        """See `Engine.stop`. What was begun has as long as two calls may take."""
        pool, self._pool = self._pool, None
        self._not_ready = "The engine has been stopped."
        if pool is None:
            return
        give_up = self._clock.monotonic() + 2 * self._config.call_timeout
        while self._begun and pool.serving and self._clock.monotonic() < give_up:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # once in a process's life
        await pool.stop()
        for ticket in self._begun:
            for entry in ticket.entries:
                entry.settle(EngineUnavailable(retry_after=1.0))

    def describe(self) -> EngineStatus:
        """See `Engine.describe`."""
        why_not = self._not_ready
        if self._pool is not None and not self._pool.serving:
            why_not = self._pool.why_not
        return EngineStatus(self._info, not why_not, why_not, self._canary_at)

    async def canary(self) -> EngineStatus:
        """Sign a fixed URL on the same way as every other request. See `Engine.canary`."""
        if self._pool is not None and self._pool.serving:
            deadline = self._clock.monotonic() + 2 * self._config.call_timeout
            ticket = Ticket((request := self._canary_request(deadline),), (_prepared(request),), self._clock)
            self._waiting.put_back(ticket.entries)  # a full queue says nothing about the page
            (result,) = await self._results(ticket)
            self._not_ready = "" if isinstance(result, Signed) else _told(result)
            self._canary_at = self._clock.now()
        return self.describe()

    async def sign(self, requests: Sequence[SignRequest]) -> list[Signed | SigngateError]:
        """See `Engine.sign`."""
        if not self.describe().ready:
            return [EngineUnavailable(retry_after=1.0) for _ in requests]
        return await self._queued(requests)

    async def _queued(self, requests: Sequence[SignRequest]) -> list[Signed | SigngateError]:
        pool = self._pool
        if pool is None or not requests:
            return [EngineUnavailable(retry_after=1.0) for _ in requests]
        ticket = Ticket(requests, [_prepared(request) for request in requests], self._clock)
        for entry in self._waiting.put(ticket.entries):
            wait = min(max(pool.busy_for, _shortest_wait), _longest_wait)
            entry.settle(EngineBusy(retry_after=wait))
        return await self._results(ticket)

    async def _results(self, ticket: Ticket) -> list[Signed | SigngateError]:
        self._begun.add(ticket)
        try:
            return await ticket.results()
        finally:
            self._begun.discard(ticket)

    def _settle(self, entry: Entry, answer: Any) -> None:
        """Turn a page's answer into a signature, or into what is wrong with it."""
        found = tokens(answer, self._config.call, self._config.required)
        if isinstance(found, SigngateError):
            entry.settle(found)
            return
        url = appended(entry.url, found)
        if url is None:
            failure = EngineFailure()
            failure.__cause__ = ValueError("the answer names a parameter that the URL has already")
            entry.settle(failure)
            return
        request = entry.request
        if request.platform_tokens and "msToken" not in found:
            found = {**found, "msToken": signed_url.ms_token(request.request_id)}
        entry.settle(Signed(url, self._described(), self._agent(), found))

    def _described(self) -> EngineInfo:
        """The one description of what signs now: another browser makes another."""
        version = "" if self._pool is None else self._pool.browser_version
        if version and version != self._info.browser_version:
            info = self._info
            self._info = EngineInfo(NAME, info.version, info.since, info.script_hash, version)
        return self._info

    def _agent(self) -> str:
        return self._config.profile.agent(self._info.browser_version)

    async def _prove(self, page: Page) -> None:
        """Sign the canary in this page. Raises `Misconfigured` when its answer is none, or `PageLost`."""
        request = self._canary_request(None)
        entry = Entry(request, _prepared(request), Ticket((), (), self._clock))
        text = await page.call(request_list((entry,)), self._config.call_timeout)
        found = tokens(members(text, 1)[0], self._config.call, self._config.required)
        if isinstance(found, SigngateError):
            raise Misconfigured(f"The script's function does not sign: {found.__cause__}.") from found

    def _canary_request(self, deadline: float | None) -> SignRequest:
        return SignRequest(_CANARY_ROOM, _CANARY_ID, deadline=deadline, platform_tokens=True)


def _prepared(request: SignRequest) -> str:
    """The URL that the script is to sign: with msToken where the caller's library looks for it.

    Added before signing, for the signature covers the whole query.
    """
    url = request.room.url
    if not request.platform_tokens:
        return url
    return f"{url}{'&' if '?' in url else '?'}msToken={signed_url.ms_token(request.request_id)}"


def _told(error: SigngateError) -> str:
    """Why a canary failed, for operators: the cause of a failure is our own words."""
    return f"The canary could not be signed: {error.__cause__ or error.message}"
