"""The unmodified `@supabase/auth-js` in Chromium, with its virtual authenticator: `mfa.webauthn` end to end.

The page comes from this test and is shown at the edge's own address, so its calls are of the same origin.
Only the bundle is made here, by the console's bundler; the client in it is the published one.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, sync_playwright

from deploy.local.layout import ROOT
from tests.conformance.test_auth_js import environment
from tests.conftest import Running
from tests.e2e.browser import CHROMIUM, PASSWORD, confirmed_account
from tests.e2e.passkeys import by_name, plug_in

ENTRY = 'export { GoTrueClient } from "@supabase/auth-js";'
PAGE = '<!doctype html><script type="module">import * as js from "/bundle.js"; window.js = js;</script>'
CLIENT = """
  const client = new window.js.GoTrueClient({
    url: `${location.origin}/auth/v1`, autoRefreshToken: false, detectSessionInUrl: false,
    persistSession: true, experimental: { recoveryCodes: true },
  });
  const good = async (call) => {
    const { data, error } = await call;
    if (error) throw new Error(`${error.code ?? error.name}: ${error.message}`);
    return data;
  };
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder, out = environment(), tmp_path_factory.mktemp("auth-js") / "bundle.js"
    entry = folder / "entry.mjs"
    entry.write_text(ENTRY, encoding="utf-8")
    tool = ROOT / "console" / "node_modules" / ".bin" / "esbuild"
    command = [str(tool), str(entry), "--bundle", "--format=esm", f"--outfile={out}", "--log-level=error"]
    subprocess.run(command, cwd=folder, check=True)
    return out.read_text(encoding="utf-8")


@pytest.fixture
def page(running: Running, bundle: str) -> Iterator[Page]:
    arguments = ["--no-sandbox"] if os.getuid() == 0 else []  # Chromium's sandbox refuses root
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        page = browser.new_page()
        home = by_name(running)
        page.route(f"{home}/", lambda route: route.fulfill(content_type="text/html", body=PAGE))
        page.route(
            f"{home}/bundle.js", lambda route: route.fulfill(content_type="text/javascript", body=bundle)
        )
        page.goto(f"{home}/")
        page.wait_for_function("window.js !== undefined")
        plug_in(page)
        yield page
        browser.close()


def run(page: Page, script: str, **given: Any) -> Any:
    return page.evaluate(f"async (given) => {{ {CLIENT} {script} }}", given)


@pytest.mark.timeout(600)
def test_register_and_authenticate(page: Page, running: Running) -> None:
    """`mfa.webauthn.register` creates the passkey; at the next sign-in `authenticate` raises to aal2."""
    address = confirmed_account(running)
    script = """
      await good(client.signInWithPassword(given));
      const made = await good(client.mfa.webauthn.register({ friendlyName: "Blue key" }));
      const listed = await good(client.mfa.listFactors());
      await good(client.signOut());
      await good(client.signInWithPassword(given));
      const before = await good(client.mfa.getAuthenticatorAssuranceLevel());
      const raised = await good(client.mfa.webauthn.authenticate({ factorId: listed.webauthn[0].id }));
      const after = await good(client.mfa.getAuthenticatorAssuranceLevel());
      const again = await client.mfa.webauthn.register({ friendlyName: "Blue key again" });
      const codes = await good(client.mfa.recoveryCodes.getStatus());
      const remade = await good(client.mfa.recoveryCodes.regenerate());
      await good(client.mfa.recoveryCodes.verify({ code: remade.codes[0] }));
      const left = await good(client.mfa.recoveryCodes.getStatus());
      const removed = await good(client.mfa.unenroll({ factorId: listed.webauthn[0].id }));
      return { made, listed, before, raised, after, again: again.error.name, codes, left, removed };
    """
    found = run(page, script, email=address, password=PASSWORD)
    assert len(found["made"]["recovery_codes"]) == 10
    (factor,) = found["listed"]["webauthn"]
    assert (factor["friendly_name"], factor["status"]) == ("Blue key", "verified")
    assert (found["before"]["currentLevel"], found["before"]["nextLevel"]) == ("aal1", "aal2")
    assert found["raised"]["user"]["email"] == address
    assert found["after"]["currentLevel"] == "aal2"
    assert "webauthn" in str(found["after"]["currentAuthenticationMethods"])
    assert found["again"] == "InvalidStateError", "one authenticator has one passkey of an account"
    assert (found["codes"]["total"], found["codes"]["remaining"], found["left"]["remaining"]) == (10, 10, 9)
    assert found["removed"]["id"] == factor["id"]


@pytest.mark.timeout(600)
def test_enroll_challenge_and_verify_one_by_one(page: Page, running: Running) -> None:
    """As `register` does it inside; another relying party is refused by the server."""
    script = """
      await good(client.signInWithPassword(given));
      const factor = await good(client.mfa.enroll({ factorType: "webauthn", friendlyName: "key" }));
      const elsewhere = await client.mfa.challenge({ factorId: factor.id, webauthn: { rpId: "evil.test" } });
      const webauthn = { rpId: location.hostname, rpOrigins: [location.origin] };
      const asked = await good(client.mfa.challenge({ factorId: factor.id, webauthn }));
      const { publicKey } = asked.webauthn.credential_options;
      const credential_response = await navigator.credentials.create({ publicKey });
      const answer = { ...webauthn, type: asked.webauthn.type, credential_response };
      const proved = await good(client.mfa.verify(
        { factorId: factor.id, challengeId: asked.id, webauthn: answer },
      ));
      const used = await client.mfa.verify({ factorId: factor.id, challengeId: asked.id, webauthn: answer });
      return {
        type: factor.type, elsewhere: elsewhere.error.code, asked: asked.type, ends: asked.expires_at,
        proved: proved.access_token, used: used.error.code,
      };
    """
    found = run(page, script, email=confirmed_account(running), password=PASSWORD)
    assert (found["type"], found["asked"]) == ("webauthn", "webauthn")
    assert found["elsewhere"] == "validation_failed"
    assert isinstance(found["ends"], int)
    assert found["proved"].count(".") == 2
    assert found["used"] == "mfa_challenge_expired"
