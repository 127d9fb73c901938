"""Mail leaves behind the answer, not before it.

A call that mails answers once the letter is in this queue. So an answer takes no longer for an address
that gets mail than for one that gets none, and a slow mail server slows nobody's sign-up. The price: a
letter that is still in the queue when the process dies is lost; its owner asks for another.
"""

from __future__ import annotations

import asyncio
from typing import Final

import aiosmtplib

from servicekit import log
from servicekit.mail import Smtp
from services.auth.errors import EmailRateLimit
from services.auth.mail.letters import Letter, LetterWriter
from services.auth.metrics import MAILS, MAILS_WAITING

WAITS: Final = (1.0, 5.0, 20.0, 60.0)
"""Seconds before each further try of a letter that the mail server could not take."""

_log = log.get("mail")
_temporary: Final = 500


class Outbox:
    """The queue of letters and the task that empties it."""

    def __init__(self, smtp: Smtp, writer: LetterWriter, *, room: int, senders: int = 4) -> None:
        self._smtp, self._writer = smtp, writer
        self._queue: asyncio.Queue[Letter] = asyncio.Queue(room)
        self._senders = senders
        MAILS_WAITING.set_function(self._queue.qsize)

    def post(self, letter: Letter) -> None:
        """Queue a letter. Raises `EmailRateLimit` when the queue is full: the mail server is far behind."""
        try:
            self._queue.put_nowait(letter)
        except asyncio.QueueFull:
            raise EmailRateLimit("Mail is delayed. Try again in a minute.", retry_after=60.0) from None

    async def run(self) -> None:
        """Send for ever."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._senders):
                group.create_task(self._send_all())

    async def drain(self, seconds: float) -> None:
        """Wait until all is sent, but no longer than that. For the end of the process."""
        try:
            await asyncio.wait_for(self._queue.join(), seconds)
        except TimeoutError:
            _log.error("letters were not sent before the end", left=self._queue.qsize())

    async def _send_all(self) -> None:
        while True:
            letter = await self._queue.get()
            try:
                await self._send(letter)
            except Exception:  # noqa: BLE001  # one bad letter must not stop the others
                MAILS.labels("given_up").inc()
                _log.exception("a letter could not be written", kind=letter.kind)
            finally:
                self._queue.task_done()

    async def _send(self, letter: Letter) -> None:
        for wait in (*WAITS, None):
            try:
                await self._smtp.send(self._writer.write(letter))
            except aiosmtplib.SMTPResponseException as error:
                # The server's text may quote the address: only its code is logged.
                if error.code >= _temporary or wait is None:
                    MAILS.labels("refused").inc()
                    _log.warning("the mail server refused a letter", kind=letter.kind, code=error.code)
                    return
            except aiosmtplib.SMTPRecipientsRefused as error:
                codes = sorted({refusal.code for refusal in error.recipients})
                MAILS.labels("refused").inc()
                _log.warning("the mail server refused a recipient", kind=letter.kind, codes=codes)
                return
            except (aiosmtplib.SMTPException, OSError) as error:
                if wait is None:
                    MAILS.labels("given_up").inc()
                    _log.error("a letter was given up", kind=letter.kind, cause=type(error).__name__)
                    return
                _log.warning("the mail server is not reachable", cause=type(error).__name__, again_in=wait)
            else:
                MAILS.labels("sent").inc()
                return
            await asyncio.sleep(wait)
