"""Passkeys and recovery codes in the console, in Chromium with its virtual authenticator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.conftest import Running
from tests.e2e.browser import PASSWORD, PATIENCE_MS, Visitor, confirmed_account, visiting
from tests.e2e.passkeys import by_name, plug_in
from tests.e2e.test_console import chromium

__all__ = ["chromium"]

expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture
def visitor(chromium: Browser, running: Running) -> Iterator[Visitor]:
    with visiting(chromium, running, home=by_name(running)) as visitor:
        plug_in(visitor.page)
        yield visitor
        assert visitor.complaints == []


def halfway(visitor: Visitor, address: str) -> None:
    """Sign in up to the second factor."""
    visitor.arrive()
    visitor.page.get_by_label("E-mail").fill(address)
    visitor.page.get_by_label("Password", exact=True).fill(PASSWORD)
    visitor.page.get_by_role("button", name="Sign in").click()
    expect(visitor.page.get_by_role("heading", name="Second factor")).to_be_visible()


def add_passkey(visitor: Visitor, name: str) -> None:
    visitor.page.get_by_role("button", name="Add a passkey").click()
    visitor.page.get_by_label("Name").fill(name)
    visitor.page.get_by_role("button", name="Create the passkey").click()


def test_a_passkey_from_setting_up_to_removing(visitor: Visitor, running: Running, tmp_path: Path) -> None:
    """Created, used to sign in, refused twice on one key; recovery codes counted, made again, used."""
    page, address = visitor.page, confirmed_account(running)
    visitor.sign_in(address)
    visitor.go("Account")
    card = page.get_by_role("region", name="Second factor")
    add_passkey(visitor, "Blue key")
    first = page.get_by_test_id("recovery-codes").inner_text().split()
    assert len(first) == 10
    visitor.shoot("18-passkey-recovery-codes")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    saved = tmp_path / "codes.txt"
    download.value.save_as(saved)
    assert saved.read_text(encoding="utf-8").split() == first
    page.get_by_role("button", name="I have stored them").click()
    expect(card).to_contain_text("Blue key")
    expect(page.get_by_test_id("recovery-left")).to_contain_text("10 of 10 recovery codes left")

    add_passkey(visitor, "Blue key again")
    expect(page.get_by_role("alert")).to_contain_text("has a passkey of this account already")
    page.get_by_role("button", name="Cancel").click()
    expect(card).not_to_contain_text("Blue key again")

    visitor.sign_out()
    halfway(visitor, address)
    visitor.shoot("19-asked-for-the-passkey")
    page.get_by_role("button", name="Use Blue key").click()
    visitor.heading("Sign").wait_for()
    visitor.go("Account")

    page.get_by_role("button", name="Make new ones").click()
    second = page.get_by_test_id("recovery-codes").inner_text().split()
    assert len(set(second) - set(first)) == 10
    page.get_by_role("button", name="I have stored them").click()

    visitor.sign_out()
    halfway(visitor, address)
    page.get_by_role("button", name="Use a recovery code").click()
    page.get_by_label("Recovery code").fill(first[0])
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_have_attribute("data-reason", "MFA_VERIFICATION_FAILED")
    page.get_by_label("Recovery code").fill(second[0])
    page.get_by_role("button", name="Sign in").click()
    visitor.heading("Sign").wait_for()
    visitor.go("Account")
    expect(page.get_by_test_id("recovery-left")).to_contain_text("9 of 10 recovery codes left")

    card.get_by_role("button", name="Remove Blue key").click()
    expect(card).to_contain_text("None.")
    visitor.sign_out()
    visitor.sign_in(address)


def test_by_an_ip_address_the_console_says_why_not(chromium: Browser, running: Running) -> None:
    """And leaves no half of a factor behind."""
    with visiting(chromium, running) as visitor:
        plug_in(visitor.page)
        visitor.sign_in(confirmed_account(running))
        visitor.go("Account")
        add_passkey(visitor, "Blue key")
        expect(visitor.page.get_by_role("alert")).to_contain_text(by_name(running))
        visitor.page.get_by_role("button", name="Cancel").click()
        expect(visitor.page.get_by_role("region", name="Second factor")).to_contain_text("None.")
