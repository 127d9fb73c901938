"""How the well-known open-source signer works: one page, a queue, one call a URL.

The same Chromium, with the same flags and walls, the same script in the same blank document. Only the way
of asking differs: `page.evaluate` with one URL at a time, in order of arrival.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote

from services.signer.engines.websdk import WebSdkConfig
from services.signer.engines.websdk.browser import Chromium
from services.signer.engines.websdk.script import Script


class OnePage:
    """`sign` queues a URL and returns it signed."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[tuple[str, asyncio.Future[str]]] = asyncio.Queue()

    async def sign(self, url: str) -> str:
        """The URL with the script's parameters."""
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((url, future))
        return await future

    async def work(self, page: object, function: str) -> None:
        """One URL after another, for ever."""
        call = f"query => {function}(query)"
        while True:
            url, future = await self._queue.get()
            found = await page.evaluate(call, url.partition("?")[2])  # type: ignore[attr-defined]
            more = "&".join(f"{name}={quote(value, safe='')}" for name, value in found.items())
            future.set_result(f"{url}&{more}")


@asynccontextmanager
async def one_page(config: WebSdkConfig) -> AsyncIterator[OnePage]:
    """The signer, with its browser."""
    browser = await Chromium.launch(config)
    try:
        script = Script.load(config.script, config.sha256)
        context = await browser.context(script.content, lambda _: None)
        page = await context.new_page()
        await page.goto(f"{config.origin}/", wait_until="load")
        signer = OnePage()
        work = asyncio.create_task(signer.work(page, config.call.function))
        yield signer
        work.cancel()
    finally:
        await browser.close()
