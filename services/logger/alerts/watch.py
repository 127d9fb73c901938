"""Raising alerts behind the logger's commits, and delivering them until they are taken or given up."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Final, Protocol
from uuid import UUID

import aiosmtplib

from servicekit import log as logging
from servicekit.clock import Clock
from servicekit.errors import SigngateError
from servicekit.mail import Smtp
from services.logger import metrics
from services.logger.alerts.letter import write
from services.logger.alerts.model import Due, Outcome, State
from services.logger.alerts.webhook import Webhooks
from services.logger.domain import UsageRow

WAITS: Final = tuple(timedelta(seconds=seconds) for seconds in (5, 30, 120, 600, 3600, 21_600, 43_200))
"""Before each further attempt: the last one comes about a day after the first."""
AT_ONCE: Final = 20
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

    def saw(self, rows: Sequence[UsageRow]) -> None:
        """These rows are committed: their users' quota may be used up now."""
        if self._seen is not None:
            self._seen.update(
                row.user_id for row in rows if row.charged or row.error_message == QUOTA_EXHAUSTED
            )

    async def run(self) -> None:
        """For ever. What fails is logged, and comes again."""
        while True:
            try:
                await self.round()
            except (SigngateError, OSError) as error:
                log.warning("round failed", error=type(error).__name__)
            await asyncio.sleep(self._interval)

    async def round(self) -> None:
        """Make what is due, and deliver what waits. Raises `SigngateError`."""
        seen, self._seen = self._seen, set()
        if seen is None or seen:
            try:
                made = await self._alerts.make(seen)
            except BaseException:
                self._seen = None if seen is None else self._seen | seen
                raise
            metrics.alerts_made.inc(made)
        while due := await self._alerts.claim(AT_ONCE, HOLD):
            await asyncio.gather(*map(self._deliver, due))

    async def _deliver(self, due: Due) -> None:
        mail, webhook = await asyncio.gather(self._mail(due), self._webhook(due))
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
            await self._smtp.send(write(due, self._sender, self._product, self._clock))
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            # A refusal names the address, so only its kind is logged.
            code = getattr(error, "code", 0)
            log.warning("mail failed", alert=str(due.id), error=type(error).__name__, code=code)
            return "failed" if code >= PERMANENT or isinstance(error, ValueError) else "pending"
        return "sent"

    async def _webhook(self, due: Due) -> State | None:
        return None if due.webhook_url is None else await self._webhooks.send(due)


def _settled(state: State | None, *, last: bool) -> State | None:
    """What to write down: `None` while it stays pending."""
    return ("failed" if last else None) if state == "pending" else state
