"""Pages kept warm: each takes what waits as one list; each is replaced by count, age, heap or loss.

A page that is due goes on signing until its successor has loaded the script and signed a canary. One
that crashed or hung is replaced at once, and so is a browser that is gone, with all of its pages;
what they had begun is put back, once, to be tried alone.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import perf_counter
from typing import Any, Final

from servicekit import log
from services.signer.engines.websdk import metrics
from services.signer.engines.websdk.browser import Chromium
from services.signer.engines.websdk.config import WebSdkConfig
from services.signer.engines.websdk.errors import Misconfigured, PageLost
from services.signer.engines.websdk.page import Page
from services.signer.engines.websdk.script import Script
from services.signer.engines.websdk.tickets import Entry, Waiting
from services.signer.errors import EngineFailure, EngineUnavailable

Settle = Callable[[Entry, Any], None]
Try = Callable[[Page], Any]

_look_around: Final = 0.5
_first_pause: Final = 0.2
_longest_pause: Final = 5.0
_served_for: Final = 0.5
_page_tries: Final = 4
_tries: Final = 2
_log = log.get("websdk")


class Pool:
    """`settle` gets an entry and its member of the page's answer; `canary` proves a page or raises.

    `serving` tells whether some page signs; if not, `why_not` says why.
    """

    def __init__(
        self, config: WebSdkConfig, script: Script, waiting: Waiting, *, settle: Settle, canary: Try
    ) -> None:
        self._config = config
        self._script = script
        self._waiting = waiting
        self._settle = settle
        self._canary = canary
        self._pages: set[Page] = set()
        self._running: asyncio.Task[None] | None = None
        self._signer_time = 0.005
        self._served = False
        self.browser_version = ""
        self.why_not = "Chromium has not been started."

    @property
    def serving(self) -> bool:
        """Some page signs."""
        return bool(self._pages)

    @property
    def busy_for(self) -> float:
        """Seconds, roughly, until what waits now has been signed."""
        lists = len(self._waiting) / self._config.max_list / max(len(self._pages), 1)
        return lists * self._signer_time

    async def start(self) -> None:
        """Return when the first page signs. Raises `Misconfigured`, and then nothing runs.

        What may pass by itself is tried again in the background; until then `serving` is false.
        """
        browser = None
        try:
            browser = await Chromium.launch(self._config)
            first = await self._warm(browser)
        except Misconfigured:
            if browser is not None:
                await browser.close()
            raise
        except PageLost as error:
            if browser is not None:
                await browser.close()
            self.why_not = error.message
            _log.error("Chromium can't be used", cause=_cause(error))
            self._running = asyncio.create_task(self._run(None, None), name="websdk")
            return
        self._pages.add(first)
        self._running = asyncio.create_task(self._run(browser, first), name="websdk")

    async def stop(self) -> None:
        """End pages and browser at once."""
        self.why_not = "The engine has been stopped."
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait((self._running,))
            self._running = None

    async def _run(self, browser: Chromium | None, first: Page | None) -> None:
        """One browser after another: at once after one that served, else after a growing pause."""
        loop, pause = asyncio.get_running_loop(), _first_pause
        driver = None
        closing: set[asyncio.Task[None]] = set()
        try:
            while True:
                began = loop.time()
                try:
                    browser = browser or await Chromium.launch(self._config, driver)
                    self.browser_version = browser.version
                    good = await self._use(browser, first) and loop.time() - began > _served_for
                    # One browser gone is no fault of the driver, which takes a while to start.
                    driver = browser.driver if good else None
                    closing.add(task := asyncio.create_task(browser.close(driver=not good)))
                    task.add_done_callback(closing.discard)
                except (Misconfigured, PageLost) as error:
                    self.why_not = _told(error)
                    _log.error("Chromium can't be used", cause=_cause(error))
                    good, driver = False, None
                browser = first = None
                pause = _first_pause if good else min(pause * 2, _longest_pause)
                if not good:
                    await asyncio.sleep(pause)
        finally:
            if browser is not None:
                await browser.close()
            elif driver is not None:
                await driver.stop()
            if closing:
                await asyncio.wait(closing)

    async def _use(self, browser: Chromium, first: Page | None) -> bool:
        """Keep the pages of one browser at work until it is gone. Whether any page of it signed."""
        self._served = first is not None
        try:
            async with asyncio.TaskGroup() as group:
                slots = [
                    group.create_task(self._slot(browser, first if number == 0 else None))
                    for number in range(self._config.pages)
                ]
                await browser.lost.wait()
                self.why_not = "Chromium ended and is being started again."
                self._waiting.wake_all()
                for slot in slots:
                    slot.cancel()
        except* PageLost:
            pass
        except* Exception:  # noqa: BLE001  # whatever it was, another browser may do
            _log.exception("the pool of pages failed")
        finally:
            self._pages.clear()
            metrics.PAGES.set(0)
        metrics.REPLACED.labels("browser").inc()
        _log.warning("Chromium is gone and is started again")
        return self._served

    async def _slot(self, browser: Chromium, page: Page | None) -> None:
        """One page after another."""
        successor: asyncio.Task[Page] | None = None
        try:
            while not browser.lost.is_set():
                if page is None:
                    page = await self._warm_in_the_end(browser)
                    self._add(page)
                successor = await self._serve(browser, page)
                self._pages.discard(page)
                self.why_not = "No page signs at the moment; one is being opened."
                closing, page = page, None
                if successor is not None:
                    page = successor.result()
                    successor = None
                    self._add(page)
                metrics.PAGES.set(len(self._pages))
                await closing.close()
        finally:
            if page is not None:
                self._pages.discard(page)

    def _add(self, page: Page) -> None:
        self._served = True
        self._pages.add(page)
        metrics.PAGES.set(len(self._pages))

    async def _serve(self, browser: Chromium, page: Page) -> asyncio.Task[Page] | None:
        """Sign with a page until it is lost, or until its successor is ready, which is returned."""
        successor: asyncio.Task[Page] | None = None
        looked = asyncio.get_running_loop().time()
        try:
            while not page.lost.is_set():
                if successor is not None and successor.done():
                    if successor.exception() is None:
                        return successor
                    successor = None  # it could not be opened: this page goes on, and tries again
                if entries := self._waiting.take(self._config.max_list):
                    await self._sign(page, entries)
                else:
                    await self._waiting.more(_look_around)
                now = asyncio.get_running_loop().time()
                if successor is None and now - looked >= _look_around:
                    looked = now
                    if why := await self._due(page, now):
                        metrics.REPLACED.labels(why).inc()
                        successor = asyncio.create_task(self._warm(browser), name="websdk-successor")
        except PageLost:
            pass
        except BaseException:
            if successor is not None:
                successor.cancel()
            raise
        metrics.REPLACED.labels("lost").inc()
        if successor is not None:
            await asyncio.wait((successor,))
            return None if successor.exception() else successor
        return None

    async def _due(self, page: Page, now: float) -> str:
        """Why this page is to be replaced, or ""."""
        if page.signed >= self._config.recycle_count:
            return "count"
        if now - page.opened >= self._config.recycle_age:
            return "age"
        return "heap" if await page.heap() > self._config.recycle_heap else ""

    async def _sign(self, page: Page, entries: Sequence[Entry]) -> None:
        """One call. Every entry is settled or put back. Raises `PageLost`."""
        began = perf_counter()
        metrics.LIST_SIZE.observe(len(entries))
        try:
            answers = members(await page.call(request_list(entries), self._config.call_timeout), len(entries))
        except (PageLost, asyncio.CancelledError):
            self._lost(entries)
            raise
        took = perf_counter() - began
        metrics.CALL.observe(took)
        self._signer_time += (took - self._signer_time) / 16
        page.signed += len(entries)
        for entry, answer in zip(entries, answers, strict=True):
            self._settle(entry, answer)

    def _lost(self, entries: Sequence[Entry]) -> None:
        """Their page is gone. Each is tried once more, by itself: one of them may be the cause."""
        again = []
        for entry in entries:
            entry.tries += 1
            if entry.result is not None:
                continue
            if entry.tries < _tries:
                entry.alone = True
                again.append(entry)
            else:
                entry.settle(EngineFailure())
        metrics.RETRIED.inc(len(again))
        self._waiting.put_back(again)

    async def _warm(self, browser: Chromium) -> Page:
        """A page that has signed a canary. Raises `Misconfigured` or `PageLost`."""
        page = await Page.open(browser, self._config, self._script)
        try:
            await self._canary(page)
        except BaseException:
            await page.close()
            raise
        return page

    async def _warm_in_the_end(self, browser: Chromium) -> Page:
        """As `_warm`, tried again while the browser lives. Raises `PageLost` when it does not.

        A browser in which page after page is lost counts as gone: the driver may be, too.
        """
        pause = _first_pause
        lost = 0
        while not browser.lost.is_set():
            try:
                return await self._warm(browser)
            except EngineUnavailable as error:
                self.why_not = _told(error)
                _log.warning("a page can't be used", cause=repr(error), again_in=pause)
                lost += isinstance(error, PageLost)
            if lost >= _page_tries:
                self._served = False
                browser.lost.set()
            with suppress(TimeoutError):
                await asyncio.wait_for(browser.lost.wait(), pause)
            pause = min(pause * 2, _longest_pause)
        raise PageLost


def _cause(error: EngineUnavailable) -> str:
    """For the log: what the driver says in its first line, where it is the driver that says it."""
    return (str(error.__cause__).partition("\n")[0] if error.__cause__ else "") or repr(error)


def _told(error: EngineUnavailable) -> str:
    return error.told if isinstance(error, Misconfigured) else error.message


def request_list(entries: Sequence[Entry]) -> str:
    """What the harness is given for these."""
    return json.dumps(
        [
            {
                "url": entry.url,
                "query": entry.url.partition("?")[2],
                "method": entry.request.method,
                "payload": entry.request.payload,
                "userAgent": entry.request.user_agent,
            }
            for entry in entries
        ],
        separators=(",", ":"),
    )


def members(text: str, count: int) -> list[Any]:
    """The harness's answers; as many failures when it gave anything else."""
    try:
        answers = json.loads(text)
    except (ValueError, RecursionError):
        answers = None
    if not isinstance(answers, list) or len(answers) != count:
        return [None] * count
    return answers
