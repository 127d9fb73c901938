"""`python -m tests.attack.victim`: users who sign and sign in all the while, in a process of their own.

Open loop: requests are due at fixed times, whatever became of those before, and a latency counts from when
the request was due. So a stall shows in every request that fell into it, not in one.

Reads its `Plan` as one line of JSON from standard input, writes one line of JSON for each request to
standard output (`Sample`) and, several times a second, how many requests are `waiting` for longer than a
moment. Ends when standard input does. Times are of `time.monotonic`, which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import grpc
import httpx

from signgate.signer.v1 import signer_pb2
from signgate_client import SigngateError
from signgate_client.aio import AsyncSigngate

DEADLINE: Final = 5.0
"""Seconds that a user waits. What takes longer counts as refused."""
MOMENT: Final = 0.5
RATES: Final = {
    "sign": 8.0,  # REST over connections that stay
    "sign, new connection": 2.0,
    "sign by gRPC": 10.0,
    "sign in": 0.9,  # a hash costs some 50 ms of a core; 300 in 5 minutes are allowed an address
    "refresh": 1.0,
    "usage": 3.0,
    "keys": 1.0,
}
"""Requests a second of each kind."""


@dataclass(frozen=True)
class Plan:
    """Who the victims are.

    `people`: address and password of those who sign in, one after the other. `owner`: of the account that
    `key`, `access_token` and the sessions of `refresh_tokens` belong to.
    """

    edge: str
    key: str = field(repr=False)
    people: list[tuple[str, str]] = field(repr=False)
    owner: tuple[str, str] = field(repr=False)
    refresh_tokens: list[str] = field(repr=False)
    access_token: str = field(repr=False)
    rates: dict[str, float] = field(default_factory=lambda: dict(RATES))


@dataclass(frozen=True)
class Sample:
    """One request. `refusal`: "" for a success, else why not."""

    kind: str
    due: float
    seconds: float
    refusal: str


class Refused(Exception):
    """Anything but success."""


class Victims:
    """All of them. `note` is told of each request."""

    def __init__(self, plan: Plan, note: Callable[[Sample], None]) -> None:
        self._plan = plan
        self._note = note
        self._rooms = itertools.count()
        self._people = itertools.cycle(plan.people)
        self._tokens = list(plan.refresh_tokens)
        self._access_token = plan.access_token
        self._turn = itertools.cycle(range(len(self._tokens)))
        self._tasks: dict[asyncio.Task[None], float] = {}

    async def run(self, until: asyncio.Event) -> None:
        """Until the event is set and the last request has its answer."""
        async with AsyncExitStack() as stack:
            self._http = await stack.enter_async_context(self._client())
            self._grpc = await stack.enter_async_context(
                AsyncSigngate(self._plan.edge, api_key=self._plan.key, timeout=DEADLINE)
            )
            acts: dict[str, Callable[[], Awaitable[None]]] = {
                "sign": self._sign,
                "sign, new connection": self._sign_anew,
                "sign by gRPC": self._sign_grpc,
                "sign in": self._sign_in,
                "refresh": self._refresh,
                "usage": self._usage,
                "keys": self._keys,
            }
            ticking = [
                asyncio.create_task(self._tick(kind, rate, acts[kind]))
                for kind, rate in self._plan.rates.items()
            ]
            await until.wait()
            for task in ticking:
                task.cancel()
            await asyncio.gather(*ticking, *self._tasks, return_exceptions=True)

    def waiting(self) -> int:
        """Requests that have been on their way for longer than `MOMENT`."""
        return sum(due < time.monotonic() - MOMENT for due in self._tasks.values())

    async def _tick(self, kind: str, rate: float, act: Callable[[], Awaitable[None]]) -> None:
        due = time.monotonic()
        while True:
            due += 1 / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            task = asyncio.create_task(self._one(kind, due, act))
            self._tasks[task] = due
            task.add_done_callback(self._tasks.pop)

    async def _one(self, kind: str, due: float, act: Callable[[], Awaitable[None]]) -> None:
        refusal = ""
        try:
            async with asyncio.timeout(DEADLINE):
                await act()
        except (TimeoutError, httpx.TimeoutException):
            refusal = "no answer in time"
        except httpx.HTTPError as error:
            refusal = type(error).__name__
        except SigngateError as error:
            refusal = error.reason
        except (Refused, grpc.RpcError) as error:
            refusal = str(error)
        self._note(Sample(kind, due, time.monotonic() - due, refusal))

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=f"http://{self._plan.edge}",
            timeout=DEADLINE,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
            trust_env=False,
        )

    def _room(self) -> str:
        return f"https://www.tiktok.com/@victim.{next(self._rooms) % 10_000}/live"

    async def _sign(self) -> None:
        await self._ask(self._http, "POST", "/v1/sign", {"room_url": self._room()}, self._by_key())

    async def _sign_anew(self) -> None:
        async with self._client() as client:
            await self._ask(client, "POST", "/v1/sign", {"room_url": self._room()}, self._by_key())

    async def _sign_grpc(self) -> None:
        await self._grpc.call(self._grpc.signer.Sign, signer_pb2.SignRequest(room_url=self._room()))

    async def _sign_in(self) -> None:
        email, password = next(self._people)
        body = {"email": email, "password": password}
        await self._ask(self._http, "POST", "/auth/v1/token?grant_type=password", body)

    async def _refresh(self) -> None:
        number = next(self._turn)
        body = {"refresh_token": self._tokens[number]}
        try:
            found = await self._ask(self._http, "POST", "/auth/v1/token?grant_type=refresh_token", body)
        except Refused:
            # An answer that got lost costs the session: its owner signs in again, and it counts once.
            email, password = self._plan.owner
            again = {"email": email, "password": password}
            found = await self._ask(self._http, "POST", "/auth/v1/token?grant_type=password", again)
            self._hold(number, found)
            raise
        self._hold(number, found)

    def _hold(self, number: int, session: Any) -> None:
        self._tokens[number], self._access_token = session["refresh_token"], session["access_token"]

    async def _usage(self) -> None:
        await self._ask(self._http, "GET", "/v1/usage?page_size=20", None, self._by_login())

    async def _keys(self) -> None:
        await self._ask(self._http, "GET", "/v1/keys", None, self._by_login())

    def _by_key(self) -> dict[str, str]:
        return {"x-api-key": self._plan.key}

    def _by_login(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self._access_token}"}

    async def _ask(
        self,
        client: httpx.AsyncClient,
        method: str,
        path: str,
        body: Any,
        headers: dict[str, str] | None = None,
    ) -> Any:
        answer = await client.request(method, path, json=body, headers=headers)
        if answer.status_code != httpx.codes.OK:
            raise Refused(f"{answer.status_code} {_reason(answer)}".strip())
        return answer.json()


def _reason(answer: httpx.Response) -> str:
    try:
        found = answer.json()
    except ValueError:
        return ""
    return str(found.get("reason") or found.get("error_code") or "") if isinstance(found, dict) else ""


async def main() -> None:
    """See the module."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    plan = Plan(**json.loads(await reader.readline()))
    until = asyncio.Event()

    def note(told: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()

    victims = Victims(plan, lambda sample: note(asdict(sample)))
    running, ended = asyncio.create_task(victims.run(until)), asyncio.create_task(reader.read())
    while not (await asyncio.wait((running, ended), timeout=0.2, return_when=asyncio.FIRST_COMPLETED))[0]:
        note({"waiting": victims.waiting()})
    until.set()
    await running


if __name__ == "__main__":
    asyncio.run(main())
