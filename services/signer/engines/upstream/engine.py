"""The upstream engine: weighted choice, retries with jitter, a deadline over all of them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import httpx
import tenacity
from purgatory import AsyncCircuitBreakerFactory

from servicekit import log
from servicekit.clock import Clock
from servicekit.errors import SigngateError
from services.signer.domain import EngineInfo, EngineStatus, Signed, SignRequest
from services.signer.engines import signed_url
from services.signer.engines.upstream.answers import Answer
from services.signer.engines.upstream.client import AllowedHosts, UpstreamClient
from services.signer.engines.upstream.config import UpstreamConfig
from services.signer.engines.upstream.errors import Refused, Resting, TryElsewhere
from services.signer.errors import (
    EngineFailure,
    EngineUnavailable,
    SignDeadlineExceeded,
    SignRequestError,
)
from services.signer.room_url import parse

NAME: Final = "upstream"
VERSION: Final = "sign-server"
_CANARY_ROOM: Final = parse(
    "https://webcast.tiktok.com/webcast/room/info/?aid=1988&room_id=7300000000000000000"
)
_CANARY_ID: Final = "00000000-0000-7000-8000-000000000000"
_JITTER: Final = tenacity.wait_random_exponential(multiplier=0.05, max=0.5)
_log = log.get("upstream")


class UpstreamEngine:
    """Satisfies `Engine`. `transport` is httpx's, for tests; `chance` decides between upstreams."""

    name = NAME

    def __init__(
        self,
        config: UpstreamConfig,
        clock: Clock,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        chance: random.Random | None = None,
    ) -> None:
        self._config = config
        self._clock = clock
        self._transport = transport
        self._chance = chance or random.SystemRandom()
        self._info = EngineInfo(NAME, VERSION, clock.now())
        self._clients: list[UpstreamClient] = []
        self._http: httpx.AsyncClient | None = None
        self._slots = asyncio.Semaphore(config.max_concurrent)
        self._not_ready = "The engine has not been started."
        self._canary_at: datetime | None = None
        self._proven = -float("inf")

    async def start(self) -> None:
        """Connects nowhere yet: the canary does."""
        config = self._config
        limits = httpx.Limits(
            max_connections=config.max_concurrent, max_keepalive_connections=config.max_concurrent
        )
        inner = self._transport or httpx.AsyncHTTPTransport(limits=limits, retries=0)
        self._http = httpx.AsyncClient(
            transport=AllowedHosts(inner, config.allowed_hosts),
            follow_redirects=False,
            trust_env=False,  # no proxy of the environment may have a say in where this goes
            timeout=config.timeout,
            headers={"User-Agent": "signgate"},
        )
        breakers = AsyncCircuitBreakerFactory(config.failures, config.open_for)
        self._clients = [
            UpstreamClient(
                upstream,
                config,
                self._http,
                breakers,
                self._clock,
                EngineInfo(NAME, upstream.name, self._info.since),
            )
            for upstream in config.upstreams
        ]
        self._not_ready = "No canary signature has been made yet."

    async def stop(self) -> None:
        """See `Engine.stop`."""
        self._not_ready = "The engine has been stopped."
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()

    def describe(self) -> EngineStatus:
        """See `Engine.describe`."""
        return EngineStatus(self._info, not self._not_ready, self._not_ready, self._canary_at)

    async def canary(self) -> EngineStatus:
        """Sign a fixed URL, unless a caller's signature has proven the same lately: each one costs.

        See `Engine.canary`.
        """
        if self._http is None:
            return self.describe()
        if self._not_ready or self._clock.monotonic() - self._proven > self._config.proof_age:
            deadline = self._clock.monotonic() + self._config.timeout * self._config.attempts
            request = SignRequest(_CANARY_ROOM, _CANARY_ID, deadline=deadline, platform_tokens=True)
            result = await self._sign_one(request)
            self._not_ready = (
                "" if isinstance(result, Signed) else f"The canary could not be signed: {result.message}"
            )
        self._canary_at = self._clock.now()
        return self.describe()

    async def sign(self, requests: Sequence[SignRequest]) -> list[Signed | SigngateError]:
        """See `Engine.sign`."""
        if self._not_ready:
            return [EngineUnavailable(retry_after=1.0) for _ in requests]
        return list(await asyncio.gather(*map(self._sign_one, requests)))

    async def _sign_one(self, request: SignRequest) -> Signed | SigngateError:
        """One signature or its error; never later than its deadline."""
        try:
            async with asyncio.timeout(self._left(request)), self._slots:
                return await self._sign_somewhere(request)
        except TimeoutError:
            return SignDeadlineExceeded()
        except Refused:
            return SignRequestError(
                "The upstream sign server refused this request.", reason="UPSTREAM_REFUSED"
            )
        except TryElsewhere as failure:
            unavailable = EngineUnavailable(
                "No upstream sign server could sign this now. Try again shortly.",
                retry_after=max(failure.rest, 1.0),
            )
            unavailable.__cause__ = failure
            return unavailable
        except Exception as error:  # noqa: BLE001  # one member's failure is that member's alone
            failed = EngineFailure()
            failed.__cause__ = error
            _log.exception("a request to an upstream failed")
            return failed

    def _left(self, request: SignRequest) -> float:
        """Seconds until the request's deadline, and no more than all tries may take."""
        most = self._config.timeout * self._config.attempts
        if request.deadline is None:
            return most
        return min(request.deadline - self._clock.monotonic(), most)

    async def _sign_somewhere(self, request: SignRequest) -> Signed:
        """Try upstreams by weight, each at most once before any twice. Raises what the last try did."""
        tried: set[str] = set()
        async for attempt in tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(self._config.attempts),
            wait=_JITTER,
            retry=tenacity.retry_if_exception(_worth_another),
            reraise=True,
        ):
            with attempt:
                client = self._choose(tried)
                tried.add(client.upstream.name)
                answer = await client.sign(request, self._left(request))
                self._proven = self._clock.monotonic()
                return _signed(answer, request, client.info)
        raise AssertionError("tenacity raises the last failure")

    def _choose(self, tried: set[str]) -> UpstreamClient:
        """Raises `Resting`, with the shortest rest, when every upstream rests."""
        now = self._clock.monotonic()
        awake = [client for client in self._clients if client.rests_until <= now]
        if not awake:
            raise Resting("resting", min(client.rests_until for client in self._clients) - now)
        fresh = [client for client in awake if client.upstream.name not in tried] or awake
        weights = [client.upstream.weight for client in fresh]
        return self._chance.choices(fresh, weights)[0]


def _worth_another(error: BaseException) -> bool:
    """A failure of one upstream is; that all of them rest is not: it would only be waited for."""
    return isinstance(error, TryElsewhere) and not (isinstance(error, Resting) and error.outcome == "resting")


def _signed(answer: Answer, request: SignRequest, info: EngineInfo) -> Signed:
    found, url = answer.tokens, answer.signed_url
    if request.platform_tokens and "msToken" not in url:
        # Our callers' libraries look for it. It is added after the signature, which does not cover it.
        token = signed_url.ms_token(request.request_id)
        url = f"{url}{'&' if '?' in url else '?'}msToken={token}"
        found = {**found, "msToken": token}
    return Signed(
        url,
        info,
        user_agent=answer.user_agent or request.user_agent,
        tokens=found,
        request_headers=answer.headers,
        cookies=answer.cookies,
    )
