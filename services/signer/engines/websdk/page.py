"""One loaded page: the script in the blank document, and one call for a whole list.

A call goes through a DevTools session of our own rather than `page.evaluate`: one message there, one
back, and both are plain text, so the cost of a list is nearly that of a single request.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, cast

from servicekit import log
from services.signer.engines.websdk.browser import Chromium
from services.signer.engines.websdk.config import WebSdkConfig
from services.signer.engines.websdk.errors import Misconfigured, PageLost
from services.signer.engines.websdk.metrics import REFUSED
from services.signer.engines.websdk.script import Script

if TYPE_CHECKING:
    from playwright.async_api import BrowserContext, CDPSession

T = TypeVar("T")

_CALL: Final = "function(list) { return this(list) }"
_CLOSE_TIMEOUT: Final = 5.0
_HEAP: Final = ("usedSize", "embedderHeapUsedSize", "backingStorageSize")
_log = log.get("websdk")


class Page:
    """Ready to sign once `open` has returned. `opened` is on the loop's (monotonic) scale."""

    def __init__(self, context: BrowserContext, browser: Chromium) -> None:
        self._context = context
        self._browser = browser
        self._session: CDPSession = cast("CDPSession", None)
        self._signer = ""
        self.opened = asyncio.get_running_loop().time()
        self.signed = 0
        self.lost = asyncio.Event()
        self._dying = asyncio.ensure_future(self.lost.wait())

    @classmethod
    async def open(cls, browser: Chromium, config: WebSdkConfig, script: Script) -> Page:
        """A page with the script loaded and its function found.

        Raises `Misconfigured` for a script that does not load or has no such function, `PageLost`
        for anything else.
        """
        context = await _answered(browser.context(script.content, _note_refusal), config.load_timeout)
        page = cls(context, browser)
        try:
            await _answered(page._load(config), config.load_timeout)
        except BaseException:
            await page.close()
            raise
        return page

    async def call(self, requests: str, timeout: float) -> str:
        """The script's answers to a list, both as JSON. Raises `PageLost`, and then is lost."""
        sending = asyncio.ensure_future(self._send(requests))
        try:
            await asyncio.wait((sending, self._dying), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                return sending.result()
        except Exception as error:
            self.lost.set()
            raise PageLost from error
        finally:
            if not sending.done():
                self.lost.set()
                sending.cancel()
        raise PageLost

    async def heap(self) -> int:
        """Bytes of memory that the page's script holds. Raises `PageLost`."""
        use = await _answered(self._session.send("Runtime.getHeapUsage"), _CLOSE_TIMEOUT)
        return int(
            sum(use.get(name, 0) for name in ("usedSize", "embedderHeapUsedSize", "backingStorageSize"))
        )

    async def close(self) -> None:
        """Let go of the page; one that hangs is killed with its process."""
        self.lost.set()
        with suppress(Exception):
            await asyncio.wait_for(self._context.close(), _CLOSE_TIMEOUT)

    async def _load(self, config: WebSdkConfig) -> None:
        page = await self._context.new_page()
        page.on("crash", lambda _: self.lost.set())
        page.on("close", lambda _: self.lost.set())
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(f"{error.name}: {error.message}"))
        self._session = await self._context.new_cdp_session(page)
        await self._session.send(
            "Emulation.setUserAgentOverride", config.profile.override(self._browser.version)
        )
        await page.goto(f"{config.origin}/", wait_until="load", timeout=config.load_timeout * 1000)
        await self._context.set_offline(True)
        call = config.call
        arguments = [call.function, call.argument, int(config.member_timeout * 1000)]
        found = await self._session.send(
            "Runtime.evaluate", {"expression": f"({_harness()})(...{json.dumps(arguments)})"}
        )
        result = found["result"]
        if result["type"] == "function":
            self._signer = result["objectId"]
            return
        # A script may throw on its way and still have defined its function; then it may go on.
        if errors:
            raise Misconfigured(f"The script fails as it loads: {errors[0][:200]}")
        raise Misconfigured(f"The script defines no function {call.function}: that is {result.get('value')}.")

    async def _send(self, requests: str) -> str:
        answer = await self._session.send(
            "Runtime.callFunctionOn",
            {
                "functionDeclaration": _CALL,
                "objectId": self._signer,
                "arguments": [{"value": requests}],
                "returnByValue": True,
                "awaitPromise": True,
            },
        )
        return str(answer["result"].get("value", ""))


async def _answered(work: Awaitable[T], timeout: float) -> T:
    """The result in time. Raises `Misconfigured` and `PageLost` as they are, all else as `PageLost`."""
    try:
        return await asyncio.wait_for(work, timeout)
    except (Misconfigured, PageLost):
        raise
    except Exception as error:
        raise PageLost("A page of the browser can't be used.") from error


@cache
def _harness() -> str:
    return Path(__file__).with_name("harness.js").read_text(encoding="utf-8")


def _note_refusal(url: str) -> None:
    """Log the host alone: what the script put into path and query may be anybody's."""
    REFUSED.inc()
    _log.info("the script's request was refused", host=url.partition("://")[2].partition("/")[0][:80])
