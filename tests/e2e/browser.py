"""The console in a real browser, as its users see it."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Request

from deploy.local.layout import ROOT
from signgate_client import Signgate
from tests.conftest import Running

CHROMIUM = "/usr/bin/chromium"
SCREENSHOTS = ROOT / ".build" / "screenshots"
PASSWORD = "correct horse battery staple"
PATIENCE_MS = 20_000


def new_address() -> str:
    return f"console-{secrets.token_hex(5)}@example.com"


def mailed_code(running: Running, address: str, *, after: int = 0) -> str:
    """The code of the newest mail to an address, once there are more than `after`."""
    return _find(r"^\s*(\d{6})\s*$", running, address, after=after)


def mailed_link(running: Running, address: str) -> str:
    """The link of the newest mail to an address."""
    return _find(r"(https?://\S+/verify\?\S+)", running, address)


def _find(pattern: str, running: Running, address: str, *, after: int = 0) -> str:
    body = running.wait_for_mail(address, after=after).get_body(("plain",))
    found = re.search(pattern, body.get_content() if body else "", re.MULTILINE)
    assert found, "the mail does not say it"
    return found.group(1)


def confirmed_account(running: Running) -> str:
    """A new account, made over gRPC; returns its address."""
    address = new_address()
    with Signgate(running.edge) as anyone:
        anyone.sign_up(address, PASSWORD)
        anyone.confirm(address, mailed_code(running, address))
    return address


@dataclass
class Visitor:
    """One tab of one user, and everything that it asked for or complained of."""

    page: Page
    context: BrowserContext
    home: str
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def watch(self) -> None:
        """Write down requests and complaints from now on."""
        self.context.on("request", self._asked)
        self.page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))
        self.page.on(
            "console",
            lambda said: self.complaints.append(said.text) if said.type in {"error", "warning"} else None,
        )

    def _asked(self, request: Request) -> None:
        self.requests.append(request.url)

    def arrive(self, route: str = "") -> None:
        """Open the console."""
        self.page.goto(f"{self.home}/console/{route}")

    def sign_in(self, address: str, password: str = PASSWORD) -> None:
        """By the form."""
        self.arrive()
        self.page.get_by_label("E-mail").fill(address)
        self.page.get_by_label("Password", exact=True).fill(password)
        self.page.get_by_role("button", name="Sign in").click()
        self.heading("Sign").wait_for()

    def sign_out(self) -> None:
        """By the button; returns when that is done: a page that is left before may come back signed in."""
        button = self.page.get_by_role("button", name="Sign out", exact=True)
        button.click()
        button.wait_for(state="detached")

    def go(self, place: str) -> None:
        """By the navigation; returns when the page is there."""
        self.page.get_by_role("navigation").get_by_role("link", name=place, exact=True).click()
        self.heading(place).wait_for()

    def heading(self, title: str) -> Locator:
        return self.page.get_by_role("heading", name=title, exact=True, level=1)

    def sign(self, room: str) -> None:
        """On the page `Sign`: paste and press."""
        self.page.get_by_label("Room URL").fill(room)
        self.page.get_by_role("button", name="Sign", exact=True).click()

    def shoot(self, name: str) -> None:
        """Keep a picture of the whole page for people to look at."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


@contextmanager
def visiting(browser: Browser, running: Running, *, width: int = 1280, home: str = "") -> Iterator[Visitor]:
    """A tab with no memory. When it closes without a failure before: it has asked the edge alone.

    `home`: another address of the edge, as browsers call it.
    """
    home = home or running.edge_url
    with browser.new_context(viewport={"width": width, "height": 860}) as context:
        context.set_default_timeout(PATIENCE_MS)
        context.grant_permissions(["clipboard-read", "clipboard-write"], origin=home)
        visitor = Visitor(context.new_page(), context, home)
        visitor.watch()
        yield visitor
        strangers = [url for url in visitor.requests if not url.startswith((home + "/", "blob:"))]
        if strangers:
            pytest.fail(f"the console asked somebody else: {strangers}")
