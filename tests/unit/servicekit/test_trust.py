"""Tokens of issuers outside: trusted for who a user is, never for who administrates."""

from __future__ import annotations

import json

import pytest

from servicekit.config import SettingsError, parse
from servicekit.testing.tokens import StaticKeys, TokenMint
from servicekit.tokens import JwtVerifier, TokenInvalid
from servicekit.trust import TokenSettings

OUTSIDE = "https://project.example/auth/v1"


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> TokenSettings:
    monkeypatch.setenv("SIGNGATE_GRPC_LISTEN", "127.0.0.1:0")
    monkeypatch.setenv("SIGNGATE_JWKS_URL", "http://auth/jwks.json")
    monkeypatch.setenv("SIGNGATE_JWT_ISSUER", "http://issuer.test/auth/v1")
    for name in ("SERVICE_KEY", "SERVICE_KEYS", "EDGE_SECRET"):
        monkeypatch.setenv(f"SIGNGATE_{name}", "/run/secrets/file")
    outside = [{"name": OUTSIDE, "jwks_url": f"{OUTSIDE}/.well-known/jwks.json"}]
    monkeypatch.setenv("SIGNGATE_OUTSIDE_ISSUERS", json.dumps(outside))
    return parse(TokenSettings)


async def test_a_user_of_an_outside_issuer_is_let_in(settings: TokenSettings) -> None:
    mint = TokenMint(OUTSIDE)
    verifier = JwtVerifier(settings.issuers(), keys={OUTSIDE: StaticKeys(mint.key)})
    principal = await verifier.verify(mint.token())
    assert principal.role == "authenticated"


async def test_an_outside_issuer_makes_no_administrators(settings: TokenSettings) -> None:
    mint = TokenMint(OUTSIDE)
    verifier = JwtVerifier(settings.issuers(), keys={OUTSIDE: StaticKeys(mint.key)})
    with pytest.raises(TokenInvalid):
        await verifier.verify(mint.token(role="service_role"))


async def test_an_outside_issuer_can_not_speak_in_our_name(settings: TokenSettings) -> None:
    own, outside = TokenMint(), TokenMint(OUTSIDE)
    name = "http://issuer.test/auth/v1"
    keys = {name: StaticKeys(own.key), OUTSIDE: StaticKeys(outside.key)}
    verifier = JwtVerifier(settings.issuers(), keys=keys)
    with pytest.raises(TokenInvalid):
        await verifier.verify(outside.token(iss=name))
    assert (await verifier.verify(own.token())).role == "authenticated"


def test_a_wrong_setting_is_named(settings: TokenSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNGATE_OUTSIDE_ISSUERS", '[{"name": "x"}]')
    with pytest.raises(SettingsError, match="SIGNGATE_OUTSIDE_ISSUERS"):
        parse(TokenSettings)


@pytest.mark.parametrize(
    "url",
    [
        "http://project.example/jwks.json", "https://127.0.0.1/jwks.json", "https://[64:ff9b::a00:1]/jwks.json",
        "https://[fec0::1]/", "https://[::7f00:1]/", "https://10.0.0.1/", "https://2130706433/", "https://127.1/",
    ],
)  # fmt: skip
def test_keys_of_an_outside_issuer_come_from_the_internet_unless_it_is_said_to_be_inside(
    settings: TokenSettings, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    outside = {"name": OUTSIDE, "jwks_url": url}
    monkeypatch.setenv("SIGNGATE_OUTSIDE_ISSUERS", json.dumps([outside]))
    with pytest.raises(SettingsError, match="internal"):
        parse(TokenSettings)
    monkeypatch.setenv("SIGNGATE_OUTSIDE_ISSUERS", json.dumps([outside | {"internal": True}]))
    assert [issuer.internal for issuer in parse(TokenSettings).issuers()] == [True, True]


def test_our_own_issuer_is_inside_and_others_are_not(settings: TokenSettings) -> None:
    assert [issuer.internal for issuer in settings.issuers()] == [True, False]
