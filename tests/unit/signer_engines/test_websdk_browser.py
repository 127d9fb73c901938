"""How a browser is started or reached, over a driver that only notes what it is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.signer.engines.websdk import Call, WebSdkConfig
from services.signer.engines.websdk.browser import FLAGS, Chromium
from services.signer.engines.websdk.errors import Misconfigured


class FakeBrowser:
    version = "150.0.1.2"

    def on(self, event: str, act: Any) -> None:
        """Nothing happens to it."""


class FakeDriver:
    """Playwright, and its `chromium`."""

    def __init__(self) -> None:
        self.chromium = self
        self.launched: dict[str, Any] = {}
        self.connected = ""

    async def launch(self, **told: Any) -> FakeBrowser:
        self.launched = told
        return FakeBrowser()

    async def connect(self, url: str, *, timeout: float) -> FakeBrowser:
        self.connected = url
        return FakeBrowser()

    async def stop(self) -> None:
        """Nothing runs."""


def config(**changes: Any) -> WebSdkConfig:
    return WebSdkConfig(Path("script.js"), "0" * 64, Call("window.sign"), **changes)


async def test_one_that_is_started_here_has_its_sandbox_and_none_of_our_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is a child of a process whose environment may name secrets, or hold them."""
    binary = tmp_path / "chromium"
    binary.touch(mode=0o755)
    monkeypatch.setenv("SIGNGATE_REDIS_URL", "redis://:secret@redis:6379/0")
    monkeypatch.setenv("SIGNGATE_SIGNING_KEYS_FILE", "/run/secrets/signing_keyset")
    monkeypatch.setenv("HOME", "/tmp/home")  # noqa: S108
    driver = FakeDriver()
    await Chromium.launch(config(chromium=binary), driver)  # type: ignore[arg-type]
    assert driver.launched["chromium_sandbox"] is True
    assert driver.launched["args"] == list(FLAGS)
    assert not [flag for flag in FLAGS if "no-sandbox" in flag]
    assert driver.launched["env"]["HOME"] == "/tmp/home"  # noqa: S108
    assert "secret" not in repr(driver.launched["env"])


async def test_one_elsewhere_is_connected_to_and_none_is_started_or_looked_for_here() -> None:
    driver = FakeDriver()
    elsewhere = config(browser_url="ws://browser:7401", chromium=Path("/no/such/chromium"))
    made = await Chromium.launch(elsewhere, driver)  # type: ignore[arg-type]
    assert driver.connected == "ws://browser:7401"
    assert driver.launched == {}
    assert made.version == FakeBrowser.version
    with pytest.raises(Misconfigured):
        await Chromium.launch(config(chromium=Path("/no/such/chromium")), driver)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url",
    ["http://browser:1", "ws://browser", "ws://:1", "ws://a@browser:1", "ws://browser:1/path", "browser:1"],
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="must read ws://host:port"):
        config(browser_url=url)


@pytest.mark.parametrize("url", ["ws://browser:7401", "wss://10.0.0.7:7401/", "ws://[fd00::7]:7401"])
def test_an_address_is_taken(url: str) -> None:
    assert config(browser_url=url).browser_url == url
