"""Signing keys are rotated while everything runs: what the old ones signed holds, and the new ones sign."""

from __future__ import annotations

import time
from typing import Any

import httpx
import jwt

from servicekit import keyset
from signgate_client import Signgate
from tests.conftest import Running
from tests.e2e.conftest import Account

ROOM = "https://www.tiktok.com/@rotation/live"
LEAD = 10
"""Seconds here, longer than verifiers wait before they ask again for the published keys; ten minutes by
default. The overlap is the default: other tests hold tokens too."""


def rotate(running: Running, name: str, algorithm: str) -> None:
    file = running.layout.secrets / name
    arguments = ["rotate", "--alg", algorithm, "--out", str(file), "--lead", str(LEAD)]
    assert keyset.main(arguments) == 0


def published(running: Running) -> dict[str, Any]:
    found = httpx.get(f"{running.edge_url}/auth/v1/.well-known/jwks.json").json()["keys"]
    assert not any("d" in key for key in found), "a private half is published"
    return {key["kid"]: key for key in found}


def kid(token: str | None) -> str:
    assert token
    return str(jwt.get_unverified_header(token)["kid"])


def everybody_takes(running: Running, token: str) -> None:
    """All five services, each of which has the public keys by itself."""
    with Signgate(running.edge, access_token=token) as user:
        assert user.sign(ROOM).signed_url
        user.quota()
        user.create_key("by another key")
        user.list_usage()
    headers = {"authorization": f"Bearer {token}"}
    assert httpx.get(f"{running.edge_url}/auth/v1/user", headers=headers).status_code == 200


def test_access_tokens_of_both_keys_are_good_everywhere(running: Running, account: Account) -> None:
    old = account.session.access_token
    before = published(running)
    rotate(running, "jwt_keyset", "ES256")
    fresh = running.eventually(lambda: published(running).keys() - before.keys(), 30, "the new key")
    assert before.keys() <= published(running).keys()

    def signed_in() -> str:
        with Signgate(running.edge) as anyone:
            return str(anyone.sign_in(account.email, account.password).access_token)

    assert kid(signed_in()) == kid(old), "a key signs before those who verify can know it"
    time.sleep(LEAD + 1)
    new = signed_in()
    assert {kid(new)} == fresh
    everybody_takes(running, new)
    everybody_takes(running, old)
    refreshed = httpx.post(
        f"{running.edge_url}/auth/v1/token?grant_type=refresh_token",
        json={"refresh_token": account.session.refresh_token},
    ).json()
    assert {kid(refreshed["access_token"])} == fresh


def test_a_url_signed_before_is_verified_after(running: Running, account: Account) -> None:
    with Signgate(running.edge, api_key=account.key) as caller:
        old = caller.sign(ROOM).signed_url
        elder = _signing_key(old)
        rotate(running, "signing_keyset", "EdDSA")
        time.sleep(LEAD)
        new = running.eventually(
            lambda: next((url for url in [caller.sign(ROOM).signed_url] if _signing_key(url) != elder), ""),
            20,
            "the first signature of the new key",
        )
        assert caller.verify(old).valid
        assert caller.verify(new).valid


def _signing_key(url: str) -> str:
    return httpx.URL(url).params["sg_kid"]
