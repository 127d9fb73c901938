"""The console through the edge, in a real headless Chromium over a generated gRPC-web client.

Every test also proves that the page asked nobody but the edge, and complained of nothing in its console
(a breach of its content security policy would stand there).
"""

from __future__ import annotations

import asyncio
import csv
import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncpg
import httpx
import pyotp
import pytest
from playwright.sync_api import Browser, Locator, Route, expect, sync_playwright

from signgate.auth.v1 import auth_pb2
from signgate_client import Signgate, SigngateError
from tests.conftest import Running
from tests.e2e.browser import (
    CHROMIUM,
    PASSWORD,
    PATIENCE_MS,
    Visitor,
    confirmed_account,
    mailed_code,
    mailed_link,
    new_address,
    visiting,
)

PLACES = ("Sign", "API keys", "Quota", "Usage", "Verify", "Account")

expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    arguments = ["--no-sandbox"] if os.getuid() == 0 else []  # Chromium's sandbox refuses root
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def visitor(chromium: Browser, running: Running) -> Iterator[Visitor]:
    with visiting(chromium, running) as visitor:
        yield visitor
        assert visitor.complaints == []


@pytest.fixture(scope="module")
def account(running: Running) -> str:
    """The address of an account with a key, for tests that change nothing of it that others see."""
    address = confirmed_account(running)
    with Signgate(running.edge) as anyone:
        token = anyone.sign_in(address, PASSWORD).access_token
    with Signgate(running.edge, access_token=token) as user:
        user.create_key("a key whose name is as long as that of a department in a large company")
    return address


def row(visitor: Visitor, text: str) -> Locator:
    return visitor.page.get_by_role("row").filter(has_text=text)


def limit(card: Locator, kind: str) -> Locator:
    """A limit's bar in a card, by its kind."""
    return card.locator(f'[data-kind="{kind}"]').get_by_role("meter")


def test_a_users_way_from_sign_up_to_usage(visitor: Visitor, running: Running) -> None:
    """Sign up, confirm by the mailed code, sign, verify, make a key, use and revoke it; all of it is seen."""
    page, address = visitor.page, new_address()
    visitor.arrive()
    expect(page.get_by_text("ready")).to_be_visible()
    visitor.shoot("01-sign-in")
    page.get_by_role("link", name="Make an account").click()
    page.get_by_label("E-mail").fill(address)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    visitor.shoot("02-sign-up")
    page.get_by_role("button", name="Sign up").click()

    page.get_by_label("Code").fill(mailed_code(running, address))
    visitor.shoot("03-confirm")
    page.get_by_role("button", name="Confirm and sign in").click()
    expect(visitor.heading("Sign")).to_be_visible()
    visitor.sign_out()
    visitor.sign_in(address)

    sign_and_verify(visitor)
    secret = make_key(visitor, "batch worker")
    with Signgate(running.edge, api_key=secret) as program:
        program.sign("@by.the.key")
        request_id = page_of_usage(visitor, program)
        assert request_id

        visitor.go("Quota")
        free = page.get_by_role("region", name="Without a key")
        keyed = page.get_by_role("region", name="With API keys")
        expect(page.get_by_text("tier “api_key”")).to_be_visible()
        for card in (free, keyed):
            expect(limit(card, "USER_DAY")).to_have_attribute("aria-valuenow", "1")
            expect(card.get_by_text("Starts again in")).to_be_visible()
        visitor.shoot("08-quota")

        visitor.go("API keys")
        row(visitor, "batch worker").get_by_role("button", name="Revoke").click()
        visitor.shoot("09-revoke")
        page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
        expect(page.get_by_text("No keys yet")).to_be_visible()
        page.get_by_label("Show ended ones").check()
        expect(row(visitor, "batch worker")).to_contain_text("revoked")
        answer = httpx.post(
            f"{running.edge_url}/v1/sign", json={"roomUrl": "@by.the.key"}, headers={"x-api-key": secret}
        )
        assert answer.json()["reason"] == "KEY_REVOKED"

    visitor.go("Account")
    expect(page.get_by_role("region", name="Profile")).to_contain_text(address)
    expect(page.get_by_role("region", name="Sessions")).to_contain_text("this one")
    visitor.shoot("10-account")


def sign_and_verify(visitor: Visitor) -> None:
    """All that an answer says is shown; what is copied is the signed URL; it verifies."""
    page = visitor.page
    visitor.sign("@signgate.console")
    signed = page.get_by_test_id("signed-url")
    expect(signed).to_contain_text("https://www.tiktok.com/@signgate.console/live?sg_v=1")
    expect(page.get_by_test_id("engine")).to_contain_text("native")
    expect(page.get_by_test_id("request-id")).to_have_text(re.compile(r"^[0-9a-f-]{36}$"))
    expect(page.get_by_text(re.compile(r"holds for (\d+ min )?\d+ s"))).to_be_visible()
    page.get_by_role("button", name="Copy the signed URL").click()
    expect(page.get_by_role("button", name="Copy the signed URL")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == signed.inner_text()
    page.get_by_role("button", name="Verify").click()
    expect(page.get_by_text("It holds, until")).to_be_visible()
    visitor.shoot("04-signed")


def make_key(visitor: Visitor, name: str) -> str:
    """By the form; returns the secret as the dialog shows it."""
    page = visitor.page
    visitor.go("API keys")
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_role("button", name="Make the key").click()
    secret = page.get_by_test_id("secret").inner_text()
    visitor.shoot("05-secret")
    for _ in range(2):  # Escape, even twice, must not lose what is shown once only
        page.keyboard.press("Escape")
        expect(page.get_by_test_id("secret")).to_have_text(secret)
    page.get_by_role("button", name="I have stored it").click()
    expect(row(visitor, name)).to_contain_text("active")
    assert secret not in page.content()
    visitor.shoot("06-keys")
    return secret


def page_of_usage(visitor: Visitor, program: Signgate) -> str:
    """Both signatures are on the page `Usage`, and in its export; returns the id of the key's request."""
    page = visitor.page
    Running.eventually(lambda: program.list_usage().records, 30, "the row")  # the page is read once
    visitor.go("Usage")
    expect(row(visitor, "@by.the.key")).to_contain_text("batch worker")
    expect(row(visitor, "@by.the.key")).to_contain_text("signed")
    expect(row(visitor, "@by.the.key")).to_contain_text(re.compile(r"\d ms"))
    expect(row(visitor, "@signgate.console")).to_contain_text("you")
    expect(page.get_by_test_id("signed")).to_have_text("2")
    expect(page.locator("svg rect.signed[height]:not([height='0'])")).not_to_have_count(0)
    visitor.shoot("07-usage")
    with page.expect_download() as download:
        page.get_by_role("button", name="Export as CSV").click()
    with Path(download.value.path()).open(encoding="utf-8", newline="") as file:
        rooms = [record["room_url"] for record in csv.DictReader(file)]
    assert len(rooms) == 2
    [record] = program.list_usage().records  # a key sees its own only
    assert record.room_url in rooms
    return str(record.id)


@pytest.mark.parametrize(
    ("pasted", "reason"),
    [
        ("https://www.example.com/@someone/live", "ROOM_URL_HOST"),
        ("https://vm.tiktok.com/ZMabcdef/", "ROOM_URL_SHORT_LINK"),
        ("what is this", "ROOM_URL_"),
    ],
)
def test_a_bad_room_url_is_explained(visitor: Visitor, account: str, pasted: str, reason: str) -> None:
    """With the reason, what to do, the request's id, and no result beside it; the next one signs."""
    page = visitor.page
    visitor.sign_in(account)
    visitor.sign(pasted)
    alert = page.get_by_role("alert")
    expect(alert).to_have_attribute("data-reason", re.compile(f"^{reason}"))
    expect(alert).to_contain_text(re.compile("paste|Paste"))
    expect(alert).to_contain_text(re.compile(r"request [0-9a-f-]{36}"))
    expect(page.get_by_label("Room URL")).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_test_id("signed-url")).to_have_count(0)
    visitor.shoot(f"11-bad-url-{reason.lower().strip('_')}")
    visitor.sign("@someone")
    expect(page.get_by_test_id("signed-url")).to_be_visible()
    expect(alert).to_have_count(0)


def test_wrong_passwords_and_codes_are_explained(visitor: Visitor, running: Running) -> None:
    page, address = visitor.page, new_address()
    visitor.arrive()
    page.get_by_label("E-mail").fill(address)
    page.get_by_label("Password", exact=True).fill("not the password")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_have_attribute("data-reason", "INVALID_CREDENTIALS")

    with Signgate(running.edge) as anyone:
        anyone.sign_up(address, PASSWORD)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_have_attribute("data-reason", "EMAIL_NOT_CONFIRMED")
    page.get_by_role("link", name="Enter the code").click()
    code = mailed_code(running, address)
    page.get_by_label("Code").fill(f"{(int(code) + 1) % 1_000_000:06}")
    page.get_by_role("button", name="Confirm and sign in").click()
    expect(page.get_by_role("alert")).to_have_attribute("data-reason", "OTP_EXPIRED")
    visitor.shoot("12-wrong-code")
    page.get_by_label("Code").fill(code)
    page.get_by_role("button", name="Confirm and sign in").click()
    expect(visitor.heading("Sign")).to_be_visible()


def test_a_second_factor_from_setting_up_to_removing(visitor: Visitor, running: Running) -> None:
    """Set up by the app's code; asked for at the next sign-in, where a recovery code stands in; removed."""
    page, address = visitor.page, confirmed_account(running)
    visitor.sign_in(address)
    visitor.go("Account")
    page.get_by_role("button", name="Set up an app").click()
    expect(page.get_by_role("img", name="QR code of the secret")).to_be_visible()
    page.get_by_text("Enter it by hand").click()
    app = pyotp.TOTP(page.get_by_test_id("totp-secret").inner_text())
    visitor.shoot("15-second-factor")
    page.get_by_label("Code", exact=True).fill("000000" if app.now() != "000000" else "000001")
    page.get_by_role("button", name="Turn it on").click()
    expect(page.get_by_role("alert")).to_have_attribute("data-reason", "MFA_VERIFICATION_FAILED")
    page.get_by_label("Code", exact=True).fill(app.now())
    page.get_by_role("button", name="Turn it on").click()
    recovery = page.get_by_test_id("recovery-codes").inner_text().split()
    assert len(recovery) == 10
    page.get_by_role("button", name="I have stored them").click()
    expect(page.get_by_role("region", name="Second factor")).to_contain_text("Authenticator app")

    visitor.sign_out()
    page.get_by_label("E-mail").fill(address)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Second factor")).to_be_visible()
    visitor.shoot("16-asked-for-the-second-factor")
    page.get_by_role("button", name="Use a recovery code").click()
    page.get_by_label("Recovery code").fill(recovery[0])
    page.get_by_role("button", name="Sign in").click()
    visitor.heading("Account").wait_for()

    page.get_by_label("New password", exact=True).fill("a wholly different phrase")
    page.get_by_role("button", name="Set the password").click()
    expect(page.get_by_text("The new password counts")).to_be_visible()
    page.get_by_role("region", name="Second factor").get_by_role("button", name="Remove").click()
    expect(page.get_by_role("button", name="Set up an app")).to_be_visible()
    visitor.sign_out()
    visitor.sign_in(address, "a wholly different phrase")


def sql(running: Running, statement: str, *values: object) -> None:
    async def run() -> None:
        connection = await asyncpg.connect(running.dsn())
        await connection.execute(statement, *values)
        await connection.close()

    with ThreadPoolExecutor(1) as thread:  # this one has Playwright's loop
        thread.submit(lambda: asyncio.run(run())).result()


def test_an_old_session_confirms_its_user_and_goes_on(visitor: Visitor, running: Running) -> None:
    """By the password, or by a mailed code; what was asked for is done then."""
    page, address = visitor.page, confirmed_account(running)
    visitor.sign_in(address)
    sql(
        running,
        "UPDATE auth.sessions s SET amr = '[]' FROM auth.users u WHERE u.id = s.user_id AND u.email = $1",
        address,
    )
    page.reload()  # which renews the tokens
    visitor.go("Account")
    page.get_by_role("button", name="Set up").click()
    dialog = page.get_by_role("dialog", name="Confirm that it is you")
    dialog.get_by_label("Password", exact=True).fill("not the password")
    dialog.get_by_role("button", name="Go on").click()
    expect(dialog.get_by_role("alert")).to_have_attribute("data-reason", "INVALID_CREDENTIALS")
    dialog.get_by_role("button", name="Mail me a code").click()
    expect(dialog.get_by_text("A mail with a code is on its way")).to_be_visible()
    dialog.get_by_label("Code", exact=True).fill(mailed_code(running, address, after=1))
    dialog.get_by_role("button", name="Go on").click()
    expect(page.get_by_role("img", name="QR code of the secret")).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("button", name="Set up")).to_be_visible()


def test_a_lowered_session_proves_its_second_factor_and_goes_on(visitor: Visitor, running: Running) -> None:
    page, address = visitor.page, confirmed_account(running)
    visitor.sign_in(address)
    visitor.go("Account")
    page.get_by_role("button", name="Set up").click()
    page.get_by_text("Enter it by hand").click()
    app = pyotp.TOTP(page.get_by_test_id("totp-secret").inner_text())
    page.get_by_label("Code", exact=True).fill(app.now())
    page.get_by_role("button", name="Turn it on").click()
    page.get_by_role("button", name="I have stored them").click()
    sql(
        running,
        "UPDATE auth.sessions s SET aal = 'aal1' FROM auth.users u WHERE u.id = s.user_id AND u.email = $1",
        address,
    )
    page.reload()
    visitor.heading("Account").wait_for()
    page.get_by_label("New password", exact=True).fill("a wholly different phrase")
    page.get_by_role("button", name="Set the password").click()
    dialog = page.get_by_role("dialog", name="Your second factor, please")
    dialog.get_by_label("Code", exact=True).fill(app.at(int(time.time()) + 30))
    dialog.get_by_role("button", name="Go on").click()
    expect(page.get_by_text("The new password counts")).to_be_visible()


def test_a_key_is_replaced_and_both_work_for_a_while(visitor: Visitor, running: Running) -> None:
    page = visitor.page
    visitor.sign_in(confirmed_account(running))
    old = make_key(visitor, "worker")
    row(visitor, "worker").get_by_role("button", name="Replace").click()
    page.get_by_label("The old key works on for").select_option("An hour")
    visitor.shoot("17-replace")
    page.get_by_role("dialog").get_by_role("button", name="Replace").click()
    new = page.get_by_test_id("secret").inner_text()
    page.get_by_role("button", name="I have stored it").click()
    expect(row(visitor, "being replaced")).to_have_count(1)
    expect(row(visitor, "worker")).to_have_count(2)
    for secret in (old, new):
        with Signgate(running.edge, api_key=secret) as program:
            assert program.sign("@someone").signed_url


def test_keys_are_found_by_notes_and_revoked_together(visitor: Visitor, running: Running) -> None:
    """Notes stand by the key; the list is searched by each kind; all keys end by one button."""
    page, address = visitor.page, confirmed_account(running)
    visitor.sign_in(address)
    visitor.go("API keys")
    page.get_by_text("Scopes, a limit of its own, notes").click()
    page.get_by_label("External id").fill("customer-42")
    page.get_by_label("Metadata").fill("team=search\nno pair")
    page.get_by_label("Name", exact=True).fill("worker")
    page.get_by_role("button", name="Make the key").click()
    expect(page.get_by_role("alert")).to_contain_text("“no pair” is not a pair")
    page.get_by_label("Metadata").fill("team=search\nexpr=x=1")
    visitor.shoot("18-new-key-with-notes")
    page.get_by_role("button", name="Make the key").click()
    secret = page.get_by_test_id("secret").inner_text()
    page.get_by_role("button", name="I have stored it").click()
    page.get_by_label("Metadata").fill("")
    make_key(visitor, "batch")
    for text in ("customer-42", "team=search", "expr=x=1"):
        expect(row(visitor, "worker")).to_contain_text(text)
    for by, what, found in (
        ("name", "WORK", "worker"),
        ("external id", "customer-42", "worker"),
        ("metadata", "expr=x=1", "worker"),
        ("name", "bat", "batch"),
    ):
        page.get_by_label("Find by").select_option(by)
        page.get_by_label("What to find").fill(what)
        page.get_by_role("button", name="Find", exact=True).click()
        expect(page.locator("tbody tr")).to_have_count(1)
        expect(page.locator("tbody tr")).to_contain_text(found)
    page.get_by_label("What to find").fill("nothing like it")
    page.get_by_role("button", name="Find", exact=True).click()
    expect(page.get_by_text("No key matches.")).to_be_visible()
    page.get_by_label("What to find").fill("")
    expect(page.locator("tbody tr")).to_have_count(2)
    visitor.shoot("19-keys-with-notes")

    page.get_by_role("button", name="Revoke all API keys").click()
    visitor.shoot("20-revoke-all")
    page.get_by_role("dialog").get_by_role("button", name="Keep them").click()
    expect(page.locator("tbody tr")).to_have_count(2)
    page.get_by_role("button", name="Revoke all API keys").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke all").click()
    expect(page.get_by_text("Revoked keys: 2.")).to_be_visible()
    expect(page.get_by_text("No keys yet")).to_be_visible()
    with Signgate(running.edge, api_key=secret) as program, pytest.raises(SigngateError) as refused:
        program.sign("@someone")
    assert refused.value.reason == "KEY_REVOKED"


def test_a_lost_answer_is_got_by_sending_the_form_again(visitor: Visitor, running: Running) -> None:
    """The first request reaches the service, and its answer is lost: there is one key, and it is shown."""
    page = visitor.page
    visitor.sign_in(confirmed_account(running))
    visitor.go("API keys")
    lost: list[int] = []

    def lose(route: Route) -> None:
        lost.append(route.fetch().status)
        route.abort()

    def sent_twice(button: Locator, method: str) -> str:
        """The secret that the second answer has."""
        page.route(f"**/signgate.keys.v1.KeysService/{method}", lose, times=1)
        button.click()
        expect(page.get_by_role("alert")).to_have_attribute("data-reason", "OFFLINE")
        button.click()
        secret = page.get_by_test_id("secret").inner_text()
        page.get_by_role("button", name="I have stored it").click()
        return secret

    page.get_by_label("Name", exact=True).fill("worker")
    secrets = [sent_twice(page.get_by_role("button", name="Make the key"), "CreateKey")]
    expect(page.locator("tbody tr")).to_have_count(1)
    row(visitor, "worker").get_by_role("button", name="Replace").click()
    replace = page.get_by_role("dialog").get_by_role("button", name="Replace")
    secrets.append(sent_twice(replace, "RotateKey"))
    expect(page.locator("tbody tr")).to_have_count(2)
    for secret in secrets:
        with Signgate(running.edge, api_key=secret) as program:
            assert program.sign("@someone").signed_url
    assert lost == [200, 200]
    assert all("ERR_FAILED" in said for said in visitor.complaints)
    visitor.complaints.clear()


def test_a_new_password_offers_to_revoke_all_keys(visitor: Visitor, running: Running) -> None:
    """On the page, and by the letter's link."""
    page, address = visitor.page, confirmed_account(running)
    visitor.sign_in(address)
    make_key(visitor, "worker")
    visitor.go("Account")
    page.get_by_label("New password", exact=True).fill("a wholly different phrase")
    page.get_by_role("button", name="Set the password").click()
    page.get_by_role("button", name="Revoke all API keys").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke all").click()
    expect(page.get_by_text("Revoked keys: 1.")).to_be_visible()
    visitor.shoot("21-new-password")
    letter = running.wait_for_mail(address, after=1).get_body(("plain",))
    assert letter is not None
    link = re.search(r"https?://\S+#/keys", letter.get_content())
    assert link
    page.goto(link[0])
    expect(visitor.heading("API keys")).to_be_visible()


def test_a_lost_password_is_replaced(visitor: Visitor, running: Running) -> None:
    """By a mailed code, then under Account; the new one signs in."""
    page, address = visitor.page, confirmed_account(running)
    visitor.arrive()
    page.get_by_role("link", name="Sign in by a mailed code").click()
    page.get_by_label("E-mail").fill(address)
    page.get_by_role("button", name="Send the code").click()
    page.get_by_label("Code").wait_for()
    running.wait_for_mail(address, after=1)
    page.get_by_label("Code").fill(mailed_code(running, address))
    page.get_by_role("button", name="Sign in").click()
    visitor.heading("Sign").wait_for()
    visitor.go("Account")
    page.get_by_label("New password", exact=True).fill("a wholly different phrase")
    page.get_by_role("button", name="Set the password").click()
    expect(page.get_by_text("The new password counts")).to_be_visible()
    visitor.sign_out()
    visitor.sign_in(address, "a wholly different phrase")


def test_the_mailed_link_leads_back_signed_in(visitor: Visitor, running: Running) -> None:
    """And leaves no token in the address or the history."""
    page, address = visitor.page, new_address()
    visitor.arrive("#/sign-up")
    page.get_by_label("E-mail").fill(address)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Sign up").click()
    page.get_by_label("Code").wait_for()
    page.goto(mailed_link(running, address))
    page.get_by_role("button").click()
    expect(page.get_by_text(f"The link signed you in as {address}")).to_be_visible()
    assert page.url == f"{running.edge_url}/console/"


def test_a_mailed_link_that_names_no_page_leads_here_too(visitor: Visitor, running: Running) -> None:
    """As of an account that was made by curl: the button leads to the edge's bare address."""
    page, address = visitor.page, new_address()
    with Signgate(running.edge) as anyone:
        anyone.sign_up(address, PASSWORD)
    page.goto(mailed_link(running, address))
    page.get_by_role("button").click()
    expect(page.get_by_text(f"The link signed you in as {address}")).to_be_visible()
    assert page.url == f"{running.edge_url}/console/"


def test_a_session_survives_a_reload_and_no_more(
    visitor: Visitor, chromium: Browser, running: Running, account: str
) -> None:
    """The access token is in no storage; signing out leaves nothing; another tab knows nothing."""
    page = visitor.page
    visitor.sign_in(account)
    page.reload()
    expect(visitor.heading("Sign")).to_be_visible()
    stored = "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])"
    kept = page.evaluate(stored)
    assert "signgate.refresh" in kept
    assert "eyJ" not in kept  # how every JWT begins
    with visiting(chromium, running) as other:
        other.arrive()
        expect(other.page.get_by_role("button", name="Sign in")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    assert "signgate.refresh" not in page.evaluate(stored)


def test_a_session_ended_elsewhere_says_so(visitor: Visitor, running: Running) -> None:
    """The next call finds it out; the user is asked to sign in again."""
    address = confirmed_account(running)
    visitor.sign_in(address)
    with Signgate(running.edge) as anyone:
        token = anyone.sign_in(address, PASSWORD).access_token
    with Signgate(running.edge, access_token=token) as elsewhere:
        elsewhere.call(elsewhere.auth.SignOut, auth_pb2.SignOutRequest(scope=auth_pb2.SIGN_OUT_SCOPE_GLOBAL))
    visitor.sign("@someone")
    expect(visitor.page.get_by_text("Your session is over")).to_be_visible()
    expect(visitor.page.get_by_role("button", name="Sign in")).to_be_visible()


def test_a_lost_connection_is_told_and_got_over(chromium: Browser, running: Running, account: str) -> None:
    with visiting(chromium, running) as visitor:
        visitor.sign_in(account)
        visitor.go("Quota")
        visitor.page.get_by_role("region", name="Without a key").wait_for()
        visitor.context.set_offline(offline=True)
        visitor.page.get_by_role("button", name="Refresh").click()
        alert = visitor.page.get_by_role("alert")
        expect(alert).to_have_attribute("data-reason", "OFFLINE")
        visitor.shoot("13-offline")
        visitor.context.set_offline(offline=False)
        alert.get_by_role("button", name="Try again").click()
        expect(alert).to_have_count(0)
        assert all("ERR_INTERNET_DISCONNECTED" in said for said in visitor.complaints)


def test_anyone_verifies(visitor: Visitor, running: Running, account: str) -> None:
    """Without an account; a changed URL is refused with the reason."""
    with Signgate(running.edge) as anyone:
        token = anyone.sign_in(account, PASSWORD).access_token
    with Signgate(running.edge, access_token=token) as user:
        signed = user.sign("@someone").signed_url
    page = visitor.page
    visitor.arrive("#/verify")
    page.get_by_role("textbox", name="URL").fill(signed)
    page.get_by_role("button", name="Verify").click()
    expect(page.get_by_text("It holds, until")).to_be_visible()
    page.get_by_role("textbox", name="URL").fill(signed.replace("@someone", "@somebody"))
    page.get_by_role("button", name="Verify").click()
    expect(page.get_by_text("BAD_SIGNATURE")).to_be_visible()
    visitor.shoot("14-verify")


def test_it_works_by_keyboard_alone(visitor: Visitor, account: str) -> None:
    page = visitor.page
    visitor.arrive()
    page.get_by_label("E-mail").focus()
    page.keyboard.type(account)
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    visitor.heading("Sign").wait_for()
    expect(visitor.heading("Sign")).to_be_focused()
    page.get_by_role("link", name="Skip to the content").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Room URL")).to_be_focused()
    page.keyboard.type("@someone")
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("signed-url")).to_be_visible()


@pytest.mark.parametrize(("width", "theme"), [(360, "light"), (360, "dark"), (820, "dark"), (1280, "dark")])
def test_every_page_fits_its_window(
    chromium: Browser, running: Running, account: str, width: int, theme: str
) -> None:
    """Nothing sticks out to the side, in light and in dark, on a telephone as on a desk."""
    with visiting(chromium, running, width=width) as visitor:
        page = visitor.page
        page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
        visitor.sign_in(account)
        visitor.sign("https://webcast.tiktok.com/webcast/im/fetch/?aid=1988&room_id=7312345678901234567")
        page.get_by_test_id("signed-url").wait_for()
        for place in PLACES:
            if place != "Sign":
                visitor.go(place)
            expect(page.get_by_text("Loading")).to_have_count(0)
            assert page.evaluate("document.documentElement.scrollWidth") == width, place
            expect(visitor.heading(place)).to_be_in_viewport()
            for other in PLACES:
                link = page.get_by_role("navigation").get_by_role("link", name=other, exact=True)
                expect(link).to_be_in_viewport(ratio=1)
            visitor.shoot(f"20-{width}-{theme}-{place.lower().replace(' ', '-')}")
        assert visitor.complaints == []


class TestServing:
    """What the edge says of the console's files."""

    def test_the_page_may_run_only_its_own_script(self, running: Running) -> None:
        headers = httpx.get(f"{running.edge_url}/console/").headers
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-type"] == "text/html; charset=utf-8"
        assert headers["cache-control"] == "no-cache"

    def test_named_by_content_cached_for_ever(self, running: Running) -> None:
        page = httpx.get(f"{running.edge_url}/console/").text
        files = re.findall(r'(?:src|href)="([\w-]+-[A-Z0-9]{8}\.(?:js|css))"', page)
        assert len(files) == 2
        for file in files:
            headers = httpx.get(f"{running.edge_url}/console/{file}").headers
            assert "immutable" in headers["cache-control"]
            assert headers["content-type"].startswith(
                ("text/javascript", "application/javascript", "text/css")
            )

    @pytest.mark.parametrize("path", ["/console", "/"])
    def test_it_is_found_from_nearby(self, running: Running, path: str) -> None:
        answer = httpx.get(running.edge_url + path)
        assert answer.is_redirect
        assert answer.headers["location"].endswith("/console/")

    def test_nothing_else_is_there(self, running: Running) -> None:
        for path in ("/console/package.json", "/console/src/main.tsx", "/console/..%2fgen/signgate.binpb"):
            assert httpx.get(running.edge_url + path).status_code in {400, 404}, path
