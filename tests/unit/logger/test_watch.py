"""Delivering alerts: a receiver that takes its time holds up no other one."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from servicekit.clock import SystemClock
from servicekit.errors import Unavailable
from services.logger.alerts import watch as module
from services.logger.alerts.model import Due, Outcome, State
from services.logger.alerts.watch import AT_ONCE, OF_HOST, AlertWatch

SLOW, QUICK = "https://slow.example/hook", "https://quick.example/hook"


def due(url: str) -> Due:
    return Due(
        id=uuid4(), user_id=uuid4(), pool="free", date=date(2026, 11, 30), threshold=80, used=8,
        daily_limit=10, created_at=datetime.now(UTC), attempts=1, email=None, webhook_url=url,
        webhook_secret="whsec_x",
    )  # fmt: skip


class Alerts:
    """Alerts in memory. What is claimed comes back only when it is postponed."""

    def __init__(self, *waiting: Due) -> None:
        self.waiting = list(waiting)
        self.settled: dict[UUID, Outcome] = {}
        self.postponed: list[UUID] = []
        self.made = 0
        self.broken = False

    async def make(self, users: Collection[UUID] | None) -> int:
        self.made += 1
        return 0

    async def claim(self, count: int, hold: timedelta) -> list[Due]:
        taken, self.waiting = self.waiting[:count], self.waiting[count:]
        return taken

    async def settle(self, due: Due, outcome: Outcome, wait: timedelta) -> None:
        if self.broken:
            raise Unavailable
        self.settled[due.id] = outcome

    async def postpone(self, due: Due, outcome: Outcome, wait: timedelta) -> None:
        self.postponed.append(due.id)


class Receivers:
    """Takes webhooks at once, and those of the slow host when `answer` is set."""

    def __init__(self) -> None:
        self.answer = asyncio.Event()
        self.now = self.most = 0

    async def send(self, due: Due) -> State:
        if due.webhook_url == SLOW:
            self.now += 1
            self.most = max(self.most, self.now)
            try:
                await self.answer.wait()
            finally:
                self.now -= 1
        return "sent"


@asynccontextmanager
async def watching(alerts: Alerts, receivers: Any) -> Any:
    watch = AlertWatch(
        alerts, None, receivers, SystemClock(), sender="a@b.c", product="x", interval=0.01,
    )  # fmt: skip
    task = asyncio.create_task(watch.run())
    yield watch
    task.cancel()
    await asyncio.wait((task,))


async def until(settled: Alerts, *those: Due) -> None:
    async with asyncio.timeout(10):
        while not all(one.id in settled.settled for one in those):
            await asyncio.sleep(0.01)


async def test_a_slow_receiver_holds_up_no_other_ones_webhook() -> None:
    slow, quick = [due(SLOW) for _ in range(3)], [due(QUICK) for _ in range(200)]
    alerts, receivers = Alerts(*slow, *quick), Receivers()
    async with watching(alerts, receivers):
        await until(alerts, *quick)
        assert receivers.now == len(slow)
        assert not {one.id for one in slow} & set(alerts.settled)
        receivers.answer.set()
        await until(alerts, *slow)


async def test_making_alerts_waits_for_no_receiver() -> None:
    alerts, receivers = Alerts(*[due(SLOW) for _ in range(3)]), Receivers()
    async with watching(alerts, receivers) as watch:
        async with asyncio.timeout(10):
            while not receivers.now:
                await asyncio.sleep(0.01)
        made = alerts.made
        watch._seen = {uuid4()}
        async with asyncio.timeout(10):
            while alerts.made == made:
                await asyncio.sleep(0.01)
        assert receivers.now


async def test_one_host_has_so_many_at_a_time_and_others_pass_its_queue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those beyond are put off without counting as tried, so that a busy host loses none of its attempts."""
    monkeypatch.setattr(module, "TURN", 0.05)
    slow, quick = [due(SLOW) for _ in range(AT_ONCE * 2)], due(QUICK)
    alerts, receivers = Alerts(*slow, quick), Receivers()
    async with watching(alerts, receivers):
        await until(alerts, quick)
        async with asyncio.timeout(10):
            while len(alerts.postponed) < len(slow) - OF_HOST:
                await asyncio.sleep(0.01)
        assert receivers.most == OF_HOST
        assert not set(alerts.postponed) & set(alerts.settled)


async def test_what_can_not_be_noted_or_breaks_stops_no_other_delivery() -> None:
    first, second = due(QUICK), due(QUICK)
    alerts = Alerts(first)
    alerts.broken = True

    class Breaking(Receivers):
        async def send(self, due: Due) -> State:
            if due is second:
                raise RuntimeError("a bug")
            return "sent"

    async with watching(alerts, Breaking()):
        while alerts.waiting:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        alerts.broken = False
        third = due(QUICK)
        alerts.waiting += [second, third]
        await until(alerts, third)
    assert set(alerts.settled) == {third.id}


async def test_a_mail_server_that_never_answers_is_given_up_for_now(monkeypatch: pytest.MonkeyPatch) -> None:
    class Never:
        async def send(self, message: object) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr(module, "MAIL_TIME", 0.05)
    smtp: Any = Never()
    one = due(QUICK)
    mailed = Due(**{name: getattr(one, name) for name in one.__slots__} | {"email": "ann@example.com"})
    alerts, receivers = Alerts(mailed), Receivers()
    receiving: Any = receivers
    watch = AlertWatch(
        alerts, smtp, receiving, SystemClock(), sender="a@b.c", product="x", interval=1,
        waits=[timedelta(0)] * 3,
    )  # fmt: skip
    async with asyncio.timeout(10):
        await watch.round()
    assert alerts.settled[mailed.id] == Outcome(None, "sent")


async def test_what_is_under_way_is_not_begun_a_second_time() -> None:
    """Its hold is over, so it can be claimed again; here it is known."""
    one = due(SLOW)
    alerts, receivers = Alerts(one, one), Receivers()
    async with watching(alerts, receivers):
        async with asyncio.timeout(10):
            while not receivers.now:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert receivers.most == 1
        receivers.answer.set()
        await until(alerts, one)
