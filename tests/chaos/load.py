"""Steady load through the edge, and the clients' own record of what came of it.

The record is all that the checks believe: which request was acknowledged, when, to whom; and which got no
answer, so that nobody but the system knows what became of it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from signgate.signer.v1 import signer_pb2
from signgate_client import SigngateError
from signgate_client.aio import AsyncSigngate
from tests.chaos.system import User

OVER_DAY, OVER_RATE = "QUOTA_EXHAUSTED", "RATE_LIMITED"
DEADLINE = 4.0
"""Seconds that a client waits."""


@dataclass
class Account:
    """What one user's clients know. `possible`: when units may have been charged at the latest."""

    user: User
    acknowledged: dict[str, float] = field(default_factory=dict)
    unknown: int = 0
    in_flight: int = 0
    refused: int = 0
    wrongly_refused: list[str] = field(default_factory=list)
    tat: float = 0.0
    """The latest that a rate counter can stand at: see `_arrived`."""

    def possible(self) -> int:
        """The most that can be charged: answered, unanswered and on its way."""
        return len(self.acknowledged) + self.unknown + self.in_flight


@dataclass
class Record:
    """Everything of one run. Times are of `time.monotonic`."""

    accounts: dict[str, Account]
    reasons: Counter[str] = field(default_factory=Counter)
    steady: list[float] = field(default_factory=list)
    """When a user without limits got a signature: what gaps are measured by."""
    twice: list[str] = field(default_factory=list)
    """Request ids that were given to two requests."""

    @property
    def signed(self) -> int:
        """Signatures acknowledged."""
        return sum(len(account.acknowledged) for account in self.accounts.values())

    @property
    def wrongly_refused(self) -> list[str]:
        """Every refusal as over a quota that was not used up."""
        return [text for account in self.accounts.values() for text in account.wrongly_refused]


class Load:
    """So many workers a user, each with one request on its way at a time."""

    def __init__(
        self, edge: str, users: list[User], seed: int, *, workers: int = 2, pause: float = 0.03
    ) -> None:
        self.record = Record({user.name: Account(user) for user in users})
        self._edge = edge
        self._users = users
        self._seed = seed
        self._workers = workers
        self._pause = pause
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Until `stop`."""
        async with asyncio.TaskGroup() as group:
            for user in self._users:
                for number in range(self._workers):
                    group.create_task(self._work(user, random.Random(f"{self._seed}/{user.name}/{number}")))

    def stop(self) -> None:
        """Let every worker end what it has on its way."""
        self._stopping.set()

    async def _work(self, user: User, chance: random.Random) -> None:
        account = self.record.accounts[user.name]
        async with AsyncSigngate(self._edge, api_key=user.key, timeout=DEADLINE) as client:
            while not self._stopping.is_set():
                many = 1 if chance.random() < 0.7 else chance.randint(2, 12)
                good = await sign(client, account, self.record, many, chance.randrange(10_000))
                await asyncio.sleep(self._pause if good else 5 * self._pause)


async def sign(client: AsyncSigngate, account: Account, record: Record, many: int, room: int) -> bool:
    """One request for one URL or several; everything that came of it goes on record."""
    rooms = [f"https://www.tiktok.com/@chaos.{room + place}/live" for place in range(many)]
    began = time.monotonic()
    account.in_flight += many
    try:
        if many == 1:
            one: Any = await client.call(client.signer.Sign, signer_pb2.SignRequest(room_url=rooms[0]))
            signed, reasons = [one.request_id], []
        else:
            batch = await client.sign_batch(rooms)
            signed = [result.request_id for result in batch.results if result.HasField("signature")]
            reasons = [result.error.reason for result in batch.results if result.HasField("error")]
    except SigngateError as error:
        signed, reasons = [], [error.reason] * many
    finally:
        account.in_flight -= many
    _acknowledged(account, record, signed)
    for reason in reasons:
        if reason not in (OVER_DAY, OVER_RATE):
            # Whether it was charged, and signed for nobody, only the system knows.
            account.unknown += 1
            _arrived(account, 1)
    for reason in reasons:
        _refused(account, record, reason, began)
    return bool(signed)


def _acknowledged(account: Account, record: Record, ids: list[str]) -> None:
    now = time.monotonic()
    for request_id in ids:
        if request_id in account.acknowledged:
            record.twice.append(request_id)
        account.acknowledged[request_id] = now
    _arrived(account, len(ids))
    record.reasons["OK"] += len(ids)
    if ids and account.user.steady:
        record.steady.append(now)


def _arrived(account: Account, units: int) -> None:
    """Move the rate's counter as GCRA does, as if all had come at the latest moment possible."""
    account.tat = max(account.tat, time.monotonic()) + units * account.user.interval


def _refused(account: Account, record: Record, reason: str, began: float) -> None:
    """Note it, and whether what the clients know leaves room for it to be right.

    What may be charged counts as charged, and the decision as made as early as it can have been: a refusal
    is called wrong only when it can't be right.
    """
    record.reasons[reason] += 1
    user = account.user
    if reason == OVER_DAY:
        account.refused += 1
        if account.possible() < user.daily:
            account.wrongly_refused.append(
                f"{user.name}: at most {account.possible()} of {user.daily} are charged"
            )
    elif reason == OVER_RATE:
        account.refused += 1
        latest = max(account.tat, began) + account.in_flight * user.interval
        if (latest - began) + user.interval <= user.burst * user.interval:
            account.wrongly_refused.append(f"{user.name}: the burst of {user.burst} is not used up")
