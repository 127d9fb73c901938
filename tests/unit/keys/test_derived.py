"""Tokens that keys mint: only ours hold, and any other text is refused by one error."""

from __future__ import annotations

from uuid import UUID

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit import apikey
from servicekit.apikey import KeyMalformed
from servicekit.testing.clock import ManualClock
from services.keys.derived import ISSUER, DerivedTokens, token_keyring
from services.keys.peppers import Keyring

KEY, TOKEN_ID = UUID(int=5), UUID(int=6)
OLD, BOTH = Keyring({1: b"1" * 32}), Keyring({1: b"1" * 32, 2: b"2" * 32})


def tokens(keyring: Keyring = OLD) -> DerivedTokens:
    return DerivedTokens(keyring, ManualClock(), size=3)


def mint(by: DerivedTokens, end: int = 2_000_000_000) -> str:
    return by.mint(KEY, ("sign", "usage:read"), end, TOKEN_ID)


def test_a_token_says_what_was_minted() -> None:
    token = tokens().verify(mint(tokens()))
    assert token.key == apikey.text_of(KEY)
    assert token.scopes == {"sign", "usage:read"}
    assert token.expires_at == 2_000_000_000


def test_a_token_under_an_older_secret_holds_while_that_is_configured() -> None:
    assert tokens(BOTH).verify(mint(tokens(OLD))).key == apikey.text_of(KEY)
    with pytest.raises(KeyMalformed):
        tokens(OLD).verify(mint(tokens(BOTH)))


def test_tokens_are_not_signed_with_the_pepper_itself() -> None:
    derived = token_keyring(OLD)
    assert derived.secrets.keys() == OLD.secrets.keys()
    assert derived.secrets[1] != OLD.secrets[1]


@pytest.mark.parametrize(
    ("claims", "algorithm", "headers"),
    [
        ({"iss": "other"}, "HS256", {"kid": "1"}),
        ({"sub": "nobody"}, "HS256", {"kid": "1"}),
        ({"scope": None}, "HS256", {"kid": "1"}),
        ({"exp": None}, "HS256", {"kid": "1"}),
        ({}, "HS512", {"kid": "1"}),
        ({}, "HS256", {"kid": "9"}),
        ({}, "HS256", {}),
    ],
)
def test_whatever_else_is_wrong_it_is_malformed(
    claims: dict[str, object], algorithm: str, headers: dict[str, str]
) -> None:
    good: dict[str, object] = {"iss": ISSUER, "sub": str(KEY), "scope": "sign", "exp": 2_000_000_000}
    payload = {name: value for name, value in (good | claims).items() if value is not None}
    secret = b"1" * 32 if algorithm == "HS256" else b"1" * 64
    with pytest.raises(KeyMalformed):
        tokens().verify("sgt_" + jwt.encode(payload, secret, algorithm, headers))


def test_an_unsigned_token_is_refused() -> None:
    payload = {"iss": ISSUER, "sub": str(KEY), "scope": "sign", "exp": 2_000_000_000}
    unsigned = jwt.encode(payload, "", "none", {"kid": "1"})
    with pytest.raises(KeyMalformed):
        tokens().verify("sgt_" + unsigned + "AAAA")


@given(
    st.one_of(st.text(), st.text(alphabet="eyJhbGciOi.-_", max_size=60).map(lambda t: f"sgt_eyJ{t}.{t}.{t}"))
)
def test_any_text_is_refused_by_one_error(text: str) -> None:
    with pytest.raises(KeyMalformed):
        tokens().verify(text)


def test_one_changed_character_spoils_the_signature() -> None:
    good = mint(tokens())
    body, _, signature = good.rpartition(".")
    for place in range(0, len(signature) - 1, 5):
        wrong = "A" if signature[place] != "A" else "B"
        with pytest.raises(KeyMalformed):
            tokens().verify(f"{body}.{signature[:place]}{wrong}{signature[place + 1 :]}")


def test_verified_tokens_are_kept_by_hash_alone_and_only_so_many() -> None:
    by = tokens()
    minted = [mint(by, 2_000_000_000 + i) for i in range(5)]
    for token in minted:
        by.verify(token)
    assert len(by._good) == 3
    assert not any(token in repr(by._good) for token in minted)
    assert by.verify(minted[4]) is by.verify(minted[4])
