"""One Chromium, from which nothing leaves its machine: started here, or running elsewhere.

A browser that is started here is a child of the signer, which holds signing keys, so it runs in Chromium's
own sandbox and gets none of the signer's environment. A browser elsewhere (`browser_url`) is a Playwright
server in a container without secrets: deploy/docker/browser. It serves several signers, each with its own
contexts.

Four walls, each enough by itself for what it covers:

1. every request of a page is answered here: the blank document and the script from memory, all
   others with a refusal; so are WebSockets;
2. the document's Content-Security-Policy forbids every kind of connection, WebRTC included;
3. each context is offline;
4. the browser as a whole resolves no name, and has a proxy for everything, loopback included, where
   nobody listens: port 1 of its machine; what is not proxied (UDP) is disabled. These are `FLAGS`, which
   deploy/docker/browser/browser.json repeats.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from services.signer.engines.websdk.config import WebSdkConfig
from services.signer.engines.websdk.errors import Misconfigured, PageLost

if TYPE_CHECKING:
    from playwright.async_api import Browser, BrowserContext, Playwright, Route, WebSocketRoute

_SCRIPT_PATH: Final = "/signgate/script.js"
_DOCUMENT: Final = (
    f'<!doctype html><meta charset="utf-8"><title></title><script src="{_SCRIPT_PATH}"></script>'
)
_POLICY: Final = (
    "default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline';"
    " webrtc 'block'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
FLAGS: Final = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-domain-reliability",
    "--dns-prefetch-disable",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--proxy-server=http://127.0.0.1:1",
    "--proxy-bypass-list=<-loopback>",
    "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
    # Pages in the background must not be slowed down: every page here is one.
    "--disable-background-timer-throttling",
    "--disable-renderer-backgrounding",
)
_ENVIRONMENT: Final = ("PATH", "HOME", "TMPDIR", "LANG", "XDG_RUNTIME_DIR")
"""What Chromium is told of the signer's environment, in which secrets may stand."""
_CLOSE_TIMEOUT: Final = 5.0


class Chromium:
    """One running browser. `lost` is set when it is gone, for whatever reason."""

    def __init__(self, playwright: Playwright, browser: Browser, config: WebSdkConfig) -> None:
        self.driver = playwright
        self._browser = browser
        self._config = config
        self.version: str = browser.version
        self.lost = asyncio.Event()
        browser.on("disconnected", lambda _: self.lost.set())

    @classmethod
    async def launch(cls, config: WebSdkConfig, driver: Playwright | None = None) -> Chromium:
        """Start a browser or connect to one, by a driver that runs already or by a new one.

        Raises `Misconfigured`; or `PageLost` for what may pass, and then the driver is stopped.
        """
        if not config.browser_url:
            check_binary(config.chromium)
        try:
            # Only deployments with this engine have it.
            from playwright.async_api import Error, async_playwright  # noqa: PLC0415
        except ImportError as error:
            raise Misconfigured("Playwright is not installed: install signgate[websdk].") from error
        playwright = driver or await async_playwright().start()
        try:
            browser = await asyncio.wait_for(_browser(playwright, config), config.load_timeout)
        except BaseException as error:
            await _ended(playwright.stop)
            if isinstance(error, (Error, TimeoutError)):
                what = "The browser can't be reached." if config.browser_url else "Chromium does not start."
                raise PageLost(what) from error
            raise
        return cls(playwright, browser, config)

    async def context(self, script: bytes, on_refused: Callable[[str], None]) -> BrowserContext:
        """A fresh context with the profile's device and the walls. `on_refused` is told each URL."""
        config, profile = self._config, self._config.profile
        made = await self._browser.new_context(
            user_agent=profile.agent(self.version),
            locale=profile.locale,
            timezone_id=profile.time_zone,
            viewport={"width": profile.width, "height": profile.height},
            screen={"width": profile.width, "height": profile.height},
            device_scale_factor=profile.scale,
            is_mobile=profile.mobile,
            has_touch=profile.mobile,
            service_workers="block",
            accept_downloads=False,
        )
        document, source = f"{config.origin}/", f"{config.origin}{_SCRIPT_PATH}"
        served: set[str] = set()

        async def answer(route: Route) -> None:
            url = route.request.url
            if url in served or url not in {document, source}:
                on_refused(url)
                await route.abort("blockedbyclient")
                return
            served.add(url)
            if url == source:
                await route.fulfill(body=script, content_type="text/javascript; charset=utf-8")
            else:
                headers = {"content-security-policy": _POLICY, "referrer-policy": "no-referrer"}
                await route.fulfill(body=_DOCUMENT, content_type="text/html", headers=headers)

        async def refuse(socket: WebSocketRoute) -> None:
            on_refused(socket.url)
            await socket.close()

        await made.route("**/*", _quietly(answer))
        await made.route_web_socket("**/*", _quietly(refuse))
        return made

    async def close(self, *, driver: bool = True) -> None:
        """End the browser, and the driver too unless another browser is to be started by it."""
        self.lost.set()
        await _ended(self._browser.close)
        if driver:
            await _ended(self.driver.stop)


async def _browser(playwright: Playwright, config: WebSdkConfig) -> Browser:
    if config.browser_url:
        return await playwright.chromium.connect(config.browser_url, timeout=config.load_timeout * 1000)
    return await playwright.chromium.launch(
        executable_path=config.chromium,
        args=list(FLAGS),
        env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
        chromium_sandbox=config.sandbox,
        handle_sigint=False,
        handle_sigterm=False,
        handle_sighup=False,
    )


async def _ended(close: Callable[[], Awaitable[None]]) -> None:
    """Whatever was still going on there."""
    with suppress(Exception):
        await asyncio.wait_for(close(), _CLOSE_TIMEOUT)


def check_binary(path: Path) -> None:
    """Raise `Misconfigured` unless there is a program at this path."""
    if not path.is_file():
        raise Misconfigured(f"There is no Chromium at {path}.")
    if not path.stat().st_mode & 0o111:
        raise Misconfigured(f"{path} can't be executed.")


def _quietly(act: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A handler whose page may close while it runs: then nobody needs its answer."""

    async def handle(subject: Any) -> None:
        with suppress(Exception):
            await act(subject)

    return handle
