"""Where passkeys may be used, from the settings."""

import pytest

from services.auth.errors import ValidationFailed, WebAuthnDisabled
from services.auth.party import RelyingParty, relying_party

APP = "android:apk-key-hash:" + "A" * 43


@pytest.mark.parametrize(
    ("site", "rp_id", "origins", "expected"),
    [
        ("https://sign.example.com", "", (), ("sign.example.com", "https://sign.example.com")),
        ("https://sign.example.com:443", "", (), ("sign.example.com", "https://sign.example.com")),
        ("https://sign.example.com:8443/app", "", (), ("sign.example.com", "https://sign.example.com:8443")),
        ("https://sign.example.com", "example.com", (), ("example.com", "https://sign.example.com")),
        ("http://127.0.0.1:8080", "", (), ("localhost", "http://localhost:8080")),
        ("http://[::1]:8080", "", (), ("localhost", "http://localhost:8080")),
        ("http://localhost:8080", "", (), ("localhost", "http://localhost:8080")),
    ],
)
def test_the_site_s_own(site: str, rp_id: str, origins: tuple[str, ...], expected: tuple[str, ...]) -> None:
    found = relying_party(site, rp_id, origins)
    assert (found.id, *found.origins) == expected


def test_listed_origins_come_beside_the_site_s() -> None:
    found = relying_party(
        "https://sign.example.com",
        "example.com",
        ("https://app.example.com/", APP, "https://sign.example.com"),
    )
    assert found.origins == ("https://sign.example.com", "https://app.example.com", APP)


@pytest.mark.parametrize("site", ["http://sign.example.com", "https://10.0.0.7", "http://10.0.0.7:8080"])
def test_a_site_that_no_browser_binds_a_passkey_to_has_none(site: str) -> None:
    party = relying_party(site)
    assert party == RelyingParty()
    with pytest.raises(WebAuthnDisabled):
        party.check("", ())


@pytest.mark.parametrize(
    ("site", "rp_id", "origins"),
    [
        ("https://sign.example.com", "10.0.0.7", ()),
        ("https://sign.example.com", "Example.com", ()),
        ("https://sign.example.com", "com", ()),
        ("https://sign.example.com", "other.com", ()),
        ("https://10.0.0.7", "", ("https://example.com",)),
        ("https://sign.example.com", "", ("https://evil.com",)),
        ("https://sign.example.com", "", ("https://notsign.example.com.evil.com",)),
        ("https://sign.example.com", "", ("https://evilsign.example.com",)),
        ("https://sign.example.com", "", ("http://sign.example.com",)),
        ("https://sign.example.com", "", ("https://sign.example.com/path",)),
        ("https://sign.example.com", "", ("https://x@sign.example.com",)),
        ("https://sign.example.com", "", ("https://sign.example.com:99999",)),
        ("https://sign.example.com", "", ("android:apk-key-hash:short",)),
        ("https://sign.example.com", "", ("*",)),
    ],
)
def test_settings_that_can_not_hold_are_refused_at_start(
    site: str, rp_id: str, origins: tuple[str, ...]
) -> None:
    with pytest.raises(ValueError, match=r"webauthn_|Port"):
        relying_party(site, rp_id, origins)


def test_what_a_client_wants_is_only_compared() -> None:
    party = relying_party("https://sign.example.com")
    party.check("", ())
    party.check("sign.example.com", ["https://sign.example.com"])
    for rp_id, origins in (
        ("example.com", []),
        ("sign.example.com", ["https://sign.example.com", "https://evil.com"]),
        ("", ["https://sign.example.com."]),
    ):
        with pytest.raises(ValidationFailed):
            party.check(rp_id, origins)
