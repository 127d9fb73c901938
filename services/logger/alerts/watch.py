"""Raises alerts behind the logger's commits, and delivers them until they are accepted or given up.

Receivers are third parties and may be slow. So deliveries run concurrently and do not wait for each other,
one host has at most `OF_HOST` of them, and raising alerts does not wait for deliveries.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Final, Literal, Protocol
from urllib.parse import urlsplit
from uuid import UUID

import aiosmtplib

from servicekit import log as logging
from servicekit.clock import Clock
from servicekit.errors import SigngateError
from servicekit.mail import Smtp
from servicekit.turns import Turns
from services.logger import metrics
from services.logger.alerts.letter import write
from services.logger.alerts.model import Due, Outcome, State
from services.logger.alerts.webhook import Webhooks
from services.logger.domain import UsageRow

WAITS: Final = tuple(timedelta(seconds=seconds) for seconds in (5, 30, 120, 600, 3600, 21_600, 43_200))
"""Before each further attempt: the last one comes about a day after the first."""
AT_ONCE: Final = 64
"""Deliveries under way in this process."""
OF_HOST: Final = 8
"""Of those, webhooks to one host."""
TURN: Final = 3.0
"""Seconds that an alert waits for its turn while its host has that many under way."""
POSTPONED: Final = timedelta(seconds=5)
"""How long it is put off after that; it is no attempt."""
MAILS: Final = 8
"""Connections to the mail server."""
MAIL_TIME: Final = 30.0
"""Seconds in which a mail is handed over, waiting for such a connection included."""
HOLD: Final = timedelta(seconds=60)
"""Longer than an attempt takes: whoever dies in one leaves it to the others."""
PERMANENT: Final = 500
QUOTA_EXHAUSTED: Final = "QUOTA_EXHAUSTED"
log = logging.get("alerts")


class Alerts(Protocol):
    """See `store.AlertStore`."""

    async def make(self, users: Collection[UUID] | None) -> int: ...

    async def claim(self, count: int, hold: timedelta) -> list[Due]: ...

    async def settle(self, due: Due, outcome: Outcome, wait: timedelta) -> None: ...

    async def postpone(self, due: Due, outcome: Outcome, wait: timedelta) -> None: ...


class AlertWatch:
    """`saw` takes what was committed; `run`, until cancelled, makes alerts of it and delivers them.

    What was seen and not yet looked at dies with the process: so `run` begins with a look at everybody.
    """

    def __init__(
        self,
        alerts: Alerts,
        smtp: Smtp | None,
        webhooks: Webhooks,
        clock: Clock,
        *,
        sender: str,
        product: str,
        interval: float,
        waits: Sequence[timedelta] = WAITS,
    ) -> None:
        self._alerts = alerts
        self._smtp = smtp
        self._webhooks = webhooks
        self._clock = clock
        self._sender = sender
        self._product = product
        self._interval = interval
        self._waits = waits
        self._seen: set[UUID] | None = None
        self._under_way: set[asyncio.Task[None]] = set()
        self._ids: set[UUID] = set()
        self._hosts = Turns(OF_HOST, AT_ONCE)
        self._mails = asyncio.Semaphore(MAILS)

    def saw(self, rows: Sequence[UsageRow]) -> None:
        """These rows are committed: their users' quota may be used up now."""
        if self._seen is not None:
            self._seen.update(
                row.user_id for row in rows if row.charged or row.error_message == QUOTA_EXHAUSTED
            )

    async def run(self) -> None:
        """For ever. What fails is logged, and comes again."""
        try:
            while True:
                full = False
                try:
                    full = await self._begin()
                except (SigngateError, OSError) as error:
                    log.warning("round failed", error=type(error).__name__)
                if full:
                    await asyncio.wait(
                        self._under_way, timeout=self._interval, return_when=asyncio.FIRST_COMPLETED
                    )
                else:
                    await asyncio.sleep(self._interval)
        finally:
            await self._abandon()

    async def round(self) -> None:
        """Raise due alerts, and deliver all waiting ones. Raises `SigngateError`."""
        try:
            while await self._begin() or self._under_way:
                await asyncio.wait(self._under_way)
        finally:
            await self._abandon()

    async def _begin(self) -> bool:
        """Raise due alerts, and start deliveries. True when there was no room for all waiting ones."""
        seen, self._seen = self._seen, set()
        if seen is None or seen:
            try:
                made = await self._alerts.make(seen)
            except BaseException:
                self._seen = None if seen is None else self._seen | seen
                raise
            metrics.alerts_made.inc(made)
        room = AT_ONCE - len(self._under_way)
        due = await self._alerts.claim(room, HOLD) if room else []
        for one in due:
            if one.id in self._ids:  # under way for longer than its hold: its end is noted by that delivery
                continue
            self._ids.add(one.id)
            task = asyncio.get_running_loop().create_task(self._deliver(one))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
        return len(due) == room

    async def _abandon(self) -> None:
        """What is under way comes back to another process once its hold is over."""
        for task in self._under_way:
            task.cancel()
        if self._under_way:
            await asyncio.wait(self._under_way)

    async def _deliver(self, due: Due) -> None:
        try:
            await self._try(due)
        except (SigngateError, OSError) as error:
            # It was not noted down, so it is tried again when its hold is over.
            log.warning("delivery not noted", alert=str(due.id), error=type(error).__name__)
        except Exception:  # one alert's failure is its own
            log.exception("delivery failed", alert=str(due.id))
        finally:
            self._ids.discard(due.id)

    async def _try(self, due: Due) -> None:
        mail, webhook = await asyncio.gather(self._mail(due), self._webhook(due))
        if webhook == "postponed":
            mail = _settled(mail, last=False)
            if mail is not None:
                metrics.alerts_delivered.labels("mail", mail).inc()
            await self._alerts.postpone(due, Outcome(mail), POSTPONED)
            return
        last = due.attempts > len(self._waits)
        wait = timedelta(0) if last else self._waits[due.attempts - 1]
        outcome = Outcome(*(_settled(state, last=last) for state in (mail, webhook)))
        for way, state in zip(("mail", "webhook"), outcome, strict=True):
            if state is not None:
                metrics.alerts_delivered.labels(way, state).inc()
        await self._alerts.settle(due, outcome, wait)

    async def _mail(self, due: Due) -> State | None:
        if due.email is None:
            return None
        if self._smtp is None:
            return "off"
        try:
            message = write(due, self._sender, self._product, self._clock)
            async with asyncio.timeout(MAIL_TIME), self._mails:
                await self._smtp.send(message)
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            # A refusal names the address, so only its kind is logged.
            code = getattr(error, "code", 0)
            log.warning("mail failed", alert=str(due.id), error=type(error).__name__, code=code)
            return "failed" if code >= PERMANENT or isinstance(error, ValueError) else "pending"
        return "sent"

    async def _webhook(self, due: Due) -> State | Literal["postponed"] | None:
        if due.webhook_url is None:
            return None
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(TURN):
                    await stack.enter_async_context(self._hosts.of(_host(due.webhook_url)))
            except TimeoutError:
                return "postponed"
            return await self._webhooks.send(due)


def _host(url: str | None) -> str:
    try:
        return (urlsplit(url or "").hostname or "").removesuffix(".")
    except ValueError:
        return ""


def _settled(state: State | None, *, last: bool) -> State | None:
    """What to write down: `None` while it stays pending."""
    return ("failed" if last else None) if state == "pending" else state
