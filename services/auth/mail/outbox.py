"""Mail leaves behind the answer, not before it.

A call that mails answers once the letter is in this queue. So an answer takes no longer for an address
that gets mail than for one that gets none, and a slow mail server slows nobody's sign-up. The price: a
letter that is still in the queue when the process dies is lost; its owner asks for another.

Unauthenticated callers choose the addresses: a domain may make the mail server wait or refuse temporarily (a
greylist, a mail exchanger that does not answer). So a mail that waits for a retry holds no sender, and one
domain has at most half of the senders and half of the queue.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
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
    """The queue of letters and the task that empties it. `room`: the most letters that it holds."""

    def __init__(self, smtp: Smtp, writer: LetterWriter, *, room: int, senders: int = 8) -> None:
        self._smtp, self._writer = smtp, writer
        self._room, self._senders = room, senders
        self._queue: asyncio.Queue[tuple[Letter, int]] = asyncio.Queue()
        # Letters of domains that have as many senders as they may.
        self._behind: defaultdict[str, deque[tuple[Letter, int]]] = defaultdict(deque)
        self._held: Counter[str] = Counter()
        self._sending: Counter[str] = Counter()
        self._empty = asyncio.Event()
        self._empty.set()
        MAILS_WAITING.set_function(self._held.total)

    def post(self, letter: Letter) -> None:
        """Queue a letter.

        Raises `EmailRateLimit` when the queue is full, or half of it is for the address' domain: the mail
        server is far behind.
        """
        domain = _domain(letter)
        if self._held.total() >= self._room or self._held[domain] >= max(self._room // 2, 1):
            raise EmailRateLimit("Mail is delayed. Try again in a minute.", retry_after=60.0)
        self._held[domain] += 1
        self._empty.clear()
        self._queue.put_nowait((letter, 0))

    async def run(self) -> None:
        """Send for ever."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._senders):
                group.create_task(self._send_all())

    async def drain(self, seconds: float) -> None:
        """Wait until all is sent, but no longer than that. For the end of the process."""
        try:
            await asyncio.wait_for(self._empty.wait(), seconds)
        except TimeoutError:
            _log.error("mails were not sent before shutdown", left=self._held.total())

    async def _send_all(self) -> None:
        while True:
            letter, tries = await self._queue.get()
            domain = _domain(letter)
            if self._sending[domain] >= max(self._senders // 2, 1):
                self._behind[domain].append((letter, tries))
                continue
            self._sending[domain] += 1
            again: float | None = None
            try:
                again = await self._send(letter, tries)
            except Exception:  # noqa: BLE001  # one bad letter must not stop the others
                MAILS.labels("given_up").inc()
                _log.exception("a letter could not be written", kind=letter.kind)
            finally:
                self._sending -= Counter((domain,))
                self._next_of(domain)
                if again is None:
                    self._held -= Counter((domain,))
                    if not self._held:
                        self._empty.set()
                else:
                    later = asyncio.get_running_loop().call_later
                    later(again, self._queue.put_nowait, (letter, tries + 1))

    def _next_of(self, domain: str) -> None:
        behind = self._behind.get(domain)
        if behind:
            self._queue.put_nowait(behind.popleft())
        if not behind:
            self._behind.pop(domain, None)

    async def _send(self, letter: Letter, tries: int) -> float | None:
        """Try once. Returns the seconds until the next try, `None` when there is none."""
        wait = WAITS[tries] if tries < len(WAITS) else None
        try:
            await self._smtp.send(self._writer.write(letter))
        except aiosmtplib.SMTPResponseException as error:
            # The server's text may quote the address: only its code is logged.
            if error.code >= _temporary or wait is None:
                MAILS.labels("refused").inc()
                _log.warning("the mail server refused a letter", kind=letter.kind, code=error.code)
                return None
        except aiosmtplib.SMTPRecipientsRefused as error:
            codes = sorted({refusal.code for refusal in error.recipients})
            MAILS.labels("refused").inc()
            _log.warning("the mail server refused a recipient", kind=letter.kind, codes=codes)
            return None
        except (aiosmtplib.SMTPException, OSError) as error:
            if wait is None:
                MAILS.labels("given_up").inc()
                _log.error("a mail was given up", kind=letter.kind, cause=type(error).__name__)
                return None
            _log.warning("the mail server is not reachable", cause=type(error).__name__, again_in=wait)
        else:
            MAILS.labels("sent").inc()
            return None
        return wait


def _domain(letter: Letter) -> str:
    return letter.to.rpartition("@")[2].lower()
