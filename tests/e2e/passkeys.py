"""Chromium's own virtual authenticator, and the edge by the name to which browsers bind passkeys."""

from __future__ import annotations

from playwright.sync_api import Page

from tests.conftest import Running


def by_name(running: Running) -> str:
    """The edge's address as `localhost`: an IP address is no relying party."""
    return running.edge_url.replace("127.0.0.1", "localhost")


def plug_in(page: Page) -> None:
    """A security key that is always touched."""
    cdp = page.context.new_cdp_session(page)
    cdp.send("WebAuthn.enable")
    options = {
        "protocol": "ctap2",
        "transport": "usb",
        "hasResidentKey": True,
        "hasUserVerification": True,
        "isUserVerified": True,
        "automaticPresenceSimulation": True,
    }
    cdp.send("WebAuthn.addVirtualAuthenticator", {"options": options})
