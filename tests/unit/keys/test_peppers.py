from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.config import SettingsError, parse
from servicekit.testing.identity import shared
from services.keys.config import KeysSettings
from services.keys.peppers import Keyring, Peppers, hmac_sha256

ONE, TWO = base64.b64encode(b"\x01" * 32).decode(), base64.b64encode(b"\xfb\xff" * 16).decode()


@given(st.binary(min_size=1, max_size=200), st.binary(max_size=300))
def test_it_is_hmac_sha256(secret: bytes, message: bytes) -> None:
    assert hmac_sha256(secret)(message) == hmac.new(secret, message, hashlib.sha256).digest()


def test_the_highest_version_hashes_and_all_can_check() -> None:
    peppers = Peppers(Keyring.parse(f"2:{TWO}\n1:{ONE},"))
    assert peppers.current == 2
    assert peppers.versions == (1, 2)
    second = peppers.under(2)
    assert second is not None
    assert peppers.digest("key") == second(b"key") == hmac.digest(b"\xfb\xff" * 16, b"key", "sha256")
    assert peppers.under(3) is None


def test_url_safe_and_unpadded_base64_is_the_same() -> None:
    other = TWO.replace("+", "-").replace("/", "_").rstrip("=")
    assert Keyring.parse(f"1:{other}").secrets == Keyring.parse(f"1:{TWO}").secrets


@pytest.mark.parametrize(
    "text",
    ["", " , ", "1", f"0:{ONE}", f"x:{ONE}", f"1:{ONE},1:{TWO}", "1:c2hvcnQ=", f"-1:{ONE}", "1:*", "1:a"],
)
def test_a_wrong_keyring_is_refused_and_no_value_is_told(text: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # its text is looked at below
        Keyring.parse(text)
    assert ONE not in str(caught.value)
    assert "c2hvcnQ" not in str(caught.value)


def test_repr_tells_versions_only() -> None:
    assert repr(Keyring.parse(f"1:{ONE},7:{TWO}")) == "Keyring(versions=[1, 7])"


def settings(**changes: object) -> KeysSettings:
    given_: dict[str, object] = {
        "grpc_listen": "127.0.0.1:0", "postgres_dsn": "postgresql://x", "redis_url": "redis://x",
        "jwks_url": "http://x", "jwt_issuer": "http://x", "key_pepper": ONE,
        "plaintext_stores": "x", **shared().settings("keys"),
    }  # fmt: skip
    return parse(KeysSettings, **(given_ | changes))


def test_a_bare_pepper_is_version_one() -> None:
    assert settings().keyring().secrets == {1: b"\x01" * 32}
    assert settings(key_pepper=f"1:{ONE},2:{TWO}").keyring().current == 2


def test_wrong_settings_are_refused_without_telling_a_secret() -> None:
    for changes in ({"key_pepper": "topsecret"}, {"soft_age": 0.5, "hard_age": 0.2}, {"soft_age": 0}):
        with pytest.raises(SettingsError) as caught:
            settings(**changes)
        assert "topsecret" not in str(caught.value)
    assert ONE not in repr(settings())
