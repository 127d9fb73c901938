"""One upstream: one request at a time of asking, its circuit breaker, its rests."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any, Final

import httpx
from purgatory import AsyncCircuitBreakerFactory
from purgatory.domain.model import OpenedState

from servicekit import log
from servicekit.clock import Clock
from services.signer.domain import EngineInfo, SignRequest
from services.signer.engines.upstream import answers
from services.signer.engines.upstream.answers import Answer, BadAnswer
from services.signer.engines.upstream.config import Upstream, UpstreamConfig
from services.signer.engines.upstream.errors import Denied, Refused, Resting, TryElsewhere
from services.signer.engines.upstream.metrics import REQUESTS

_log = log.get("upstream")

_MAX_BODY: Final = 256 * 1024
_OK: Final = 200
_DENIED: Final = frozenset({401, 402, 403})
_REFUSED: Final = frozenset({400, 404, 413, 422})
_TOO_MANY: Final = 429
_DENIED_REST: Final = 30.0
_LONGEST_REST: Final = 3600.0


class AllowedHosts(httpx.AsyncBaseTransport):
    """The last wall: connects to the hosts that the configuration names and to no other."""

    def __init__(self, inner: httpx.AsyncBaseTransport, hosts: frozenset[str]) -> None:
        self._inner = inner
        self._hosts = hosts

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """As the transport inside. Raises `httpx.UnsupportedProtocol` for any other host."""
        if request.url.host not in self._hosts:
            raise httpx.UnsupportedProtocol("not an allowed host", request=request)
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self._inner.aclose()


class UpstreamClient:
    """`info` is shared by all signatures of this upstream. `rests_until` is monotonic."""

    def __init__(
        self,
        upstream: Upstream,
        config: UpstreamConfig,
        http: httpx.AsyncClient,
        breakers: AsyncCircuitBreakerFactory,
        clock: Clock,
        info: EngineInfo,
    ) -> None:
        self.upstream = upstream
        self.info = info
        self.rests_until = 0.0
        self._config = config
        self._http = http
        self._breakers = breakers
        self._clock = clock
        self._url = f"{upstream.url.rstrip('/')}/webcast/sign_url"
        self._headers = {"X-Api-Key": upstream.api_key} if upstream.api_key else {}

    async def sign(self, request: SignRequest, seconds: float) -> Answer:
        """One try, within so many seconds. Raises `TryElsewhere` or `Refused`."""
        name = self.upstream.name
        left = self.rests_until - self._clock.monotonic()
        if left > 0:
            raise Resting("resting", left)
        # What is no failure of the upstream must not open its circuit.
        breaker = await self._breakers.get_breaker(name, exclude=[Refused, asyncio.CancelledError])
        try:
            async with breaker:
                answer = await self._ask(request, seconds)
        except OpenedState:
            raise Resting("open", self._config.open_for) from None
        except TryElsewhere as failure:
            REQUESTS.labels(name, failure.outcome).inc()
            if isinstance(failure, Denied):
                _log.error("an upstream refuses our credential or plan", upstream=name)
            if failure.rest:
                rest = min(failure.rest, _LONGEST_REST)
                self.rests_until = self._clock.monotonic() + rest
            raise
        except Refused:
            REQUESTS.labels(name, "refused").inc()
            raise
        REQUESTS.labels(name, "ok").inc()
        return answer

    async def _ask(self, request: SignRequest, seconds: float) -> Answer:
        body = {"url": request.room.url, "method": request.method, "type": "fetch"}
        if request.user_agent:
            body["userAgent"] = request.user_agent
        if request.payload:
            body["payload"] = request.payload
        try:
            async with asyncio.timeout(min(seconds, self._config.timeout)):
                status, headers, content = await self._post(body)
        except TimeoutError:
            raise TryElsewhere("timeout") from None
        except httpx.HTTPError as error:
            raise TryElsewhere("unreachable") from error
        found = _decoded(content)
        if status == _OK and isinstance(found, dict) and isinstance(found.get("code"), int):
            status = found["code"]  # some servers answer 200 and mean it here
        if status != _OK:
            raise _failure(status, headers)
        try:
            return answers.read(found, request.room.url)
        except BadAnswer as error:
            raise TryElsewhere("bad_answer") from error

    async def _post(self, body: dict[str, str]) -> tuple[int, httpx.Headers, bytes]:
        """Status, headers and the beginning of the body, which is all of it in a sound answer."""
        content = b""
        async with self._http.stream(
            "POST", self._url, json=body, headers=self._headers, params={"client": "signgate"}
        ) as response:
            async for part in response.aiter_bytes():
                content += part
                if len(content) > _MAX_BODY:
                    raise TryElsewhere("bad_answer")
        return response.status_code, response.headers, content


def _failure(status: int, headers: httpx.Headers) -> Exception:
    if status in _DENIED:
        return Denied("denied", _DENIED_REST)
    if status in _REFUSED:
        return Refused()
    if status == _TOO_MANY:
        return TryElsewhere("limited", _seconds(headers.get("retry-after")))
    return TryElsewhere("failed")


def _seconds(text: str | None) -> float:
    """A Retry-After in seconds; a second where it says nothing that can be used."""
    with suppress(TypeError, ValueError):
        return max(float(text or ""), 0.1)
    return 1.0


def _decoded(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None
