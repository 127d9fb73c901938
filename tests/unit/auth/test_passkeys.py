"""Passkeys' responses, made by an authenticator in software, verified without any store."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, get_args
from uuid import UUID

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from services.auth.domain import User
from services.auth.errors import ValidationFailed
from services.auth.http import passkeys
from services.auth.party import RelyingParty
from services.auth.second_factors import Passkey, PasskeyAnswer
from services.auth.service.factors import webauthn
from services.auth.service.factors.webauthn import PasskeyCopied, PasskeyRefused
from tests.authenticator import PRESENT, VERIFIED, Algorithm, Authenticator, from_url64, url64

PARTY = RelyingParty("signgate.test", ("https://signgate.test", "https://app.signgate.test"))
NOW = datetime(2026, 12, 1, tzinfo=UTC)
ANN = User(UUID(int=7), "ann@example.com", NOW, NOW)
CHALLENGE = bytes(range(32))


def key(**more: Any) -> Authenticator:
    return Authenticator("https://signgate.test", **more)


def answer(ceremony: str, credential: Any) -> PasskeyAnswer:
    return passkeys.answer({"type": ceremony, "credential_response": credential})


def creation(known: Any = ()) -> dict[str, Any]:
    return webauthn.creation(PARTY, "Signgate", ANN, CHALLENGE, 300_000, known)


def registered(device: Authenticator, **more: Any) -> Passkey:
    return webauthn.created(PARTY, answer("create", device.create(creation(), **more)), CHALLENGE)


def sign(device: Authenticator, passkey: Passkey, challenge: bytes = CHALLENGE) -> PasskeyAnswer:
    return answer("request", device.get(webauthn.request(PARTY, passkey, challenge, 300_000)))


def test_the_options_of_a_creation() -> None:
    known = Passkey(b"known", b"", 0, ("usb",))
    options = creation([known])
    assert options["rp"] == {"id": "signgate.test", "name": "Signgate"}
    assert from_url64(options["user"]["id"]) == ANN.id.bytes
    assert options["user"]["name"] == options["user"]["displayName"] == "ann@example.com"
    assert from_url64(options["challenge"]) == CHALLENGE
    assert [each["alg"] for each in options["pubKeyCredParams"]] == [-7, -8, -257]
    assert options["attestation"] == "none"
    assert options["authenticatorSelection"]["userVerification"] == "preferred"
    assert options["excludeCredentials"] == [
        {"id": url64(b"known"), "type": "public-key", "transports": ["usb"]}
    ]
    assert options["timeout"] == 300_000


@pytest.mark.parametrize("algorithm", get_args(Algorithm))
def test_an_authenticator_of_each_algorithm(algorithm: Algorithm) -> None:
    device = key(algorithm=algorithm)
    passkey = registered(device)
    assert passkey.credential_id == device.id
    assert passkey.transports == ("internal", "usb")
    assert webauthn.signed(PARTY, sign(device, passkey), CHALLENGE, passkey, ANN.id) == 2
    assert webauthn.request(PARTY, passkey, CHALLENGE, 1)["rpId"] == "signgate.test"


def test_self_attestation_is_taken_and_other_formats_are_not() -> None:
    registered(key(), fmt="packed")
    with pytest.raises(PasskeyRefused):
        registered(key(), fmt="tpm")


def test_the_user_need_not_be_verified_but_present() -> None:
    registered(key(flags=PRESENT | VERIFIED))
    with pytest.raises(PasskeyRefused):
        registered(key(flags=VERIFIED))
    device = key()
    passkey = registered(device)
    device.flags = VERIFIED
    with pytest.raises(PasskeyRefused):
        webauthn.signed(PARTY, sign(device, passkey), CHALLENGE, passkey, ANN.id)


def test_an_authenticator_that_does_not_count_may_stay_at_zero() -> None:
    device = key(counts=False)
    passkey = registered(device)
    for _ in range(2):
        assert webauthn.signed(PARTY, sign(device, passkey), CHALLENGE, passkey, ANN.id) == 0


@pytest.mark.parametrize(("stored", "shown"), [(5, 5), (5, 4), (5, 0), (1, 1)])
def test_a_counter_that_is_not_ahead_is_told_apart(stored: int, shown: int) -> None:
    device = key(counts=False)
    passkey = replace(registered(device), sign_count=stored)
    device.count = shown
    with pytest.raises(PasskeyCopied):
        webauthn.signed(PARTY, sign(device, passkey), CHALLENGE, passkey, ANN.id)
    broken = replace(sign(device, passkey), signature=b"\x30\x06\x02\x01\x01\x02\x01\x01")
    with pytest.raises(PasskeyRefused) as refused:
        webauthn.signed(PARTY, broken, CHALLENGE, passkey, ANN.id)
    assert not isinstance(refused.value, PasskeyCopied), "who can't sign must not look like a copy"


def wrong_client_data(**members: Any) -> Callable[[Authenticator], None]:
    return lambda device: device.client_data.update(members)


def other_rp(device: Authenticator) -> None:
    device.get = lambda options: Authenticator.get(device, {**options, "rpId": "evil.test"})  # type: ignore[method-assign]


def other_key(device: Authenticator) -> None:
    device.key = ec.generate_private_key(ec.SECP256R1())


def other_id(device: Authenticator) -> None:
    device.id = b"another credential"


def other_user(device: Authenticator) -> None:
    device.user = UUID(int=8).bytes


@pytest.mark.parametrize(
    "change",
    [
        wrong_client_data(origin="https://evil.test"),
        wrong_client_data(origin="https://signgate.test.evil.test"),
        wrong_client_data(origin="http://signgate.test"),
        wrong_client_data(origin=["https://signgate.test"]),
        wrong_client_data(crossOrigin=True),
        wrong_client_data(type="webauthn.create"),
        wrong_client_data(challenge=url64(bytes(32))),
        wrong_client_data(challenge=""),
        wrong_client_data(challenge=None),
        other_rp,
        other_key,
        other_id,
        other_user,
    ],
)
def test_a_signature_for_something_else_is_refused(change: Callable[[Authenticator], None]) -> None:
    device = key()
    passkey = registered(device)
    change(device)
    with pytest.raises(PasskeyRefused):
        webauthn.signed(PARTY, sign(device, passkey), CHALLENGE, passkey, ANN.id)


@pytest.mark.parametrize(
    "change",
    [
        wrong_client_data(origin="https://evil.test"),
        wrong_client_data(crossOrigin=True),
        wrong_client_data(type="webauthn.get"),
        wrong_client_data(challenge=url64(bytes(32))),
    ],
)
def test_a_creation_for_something_else_is_refused(change: Callable[[Authenticator], None]) -> None:
    device = key()
    change(device)
    with pytest.raises(PasskeyRefused):
        registered(device)


def test_a_credential_of_another_relying_party_is_refused() -> None:
    device = key()
    made = device.create(creation() | {"rp": {"id": "evil.test"}})
    with pytest.raises(PasskeyRefused):
        webauthn.created(PARTY, answer("create", made), CHALLENGE)


def test_the_id_is_the_attested_one() -> None:
    made = key().create(creation())
    with pytest.raises(PasskeyRefused):
        webauthn.created(PARTY, replace(answer("create", made), credential_id=b"a stranger's"), CHALLENGE)


@pytest.mark.parametrize(
    "public",
    [
        pytest.param({1: 2, 3: -7, -1: 2, -2: b"x" * 48, -3: b"y" * 48}, id="P-384"),
        pytest.param({1: 2, 3: -7, -1: 1, -2: b"x" * 32, -3: b"y" * 32}, id="no point of the curve"),
        pytest.param({1: 1, 3: -8, -1: 6, -2: b"x" * 31}, id="Ed25519, short"),
        pytest.param({1: 3, 3: -257, -1: b"\xff" * 128, -2: b"\1\0\1"}, id="RSA, 1024 bits"),
        pytest.param({1: 3, 3: -257, -1: b"\xff" * 1024, -2: b"\1\0\1"}, id="RSA, 8192 bits"),
        pytest.param({1: 3, 3: -257, -1: b"\xff" * 256, -2: b"\xff" * 255}, id="RSA, a large exponent"),
        pytest.param({1: 3, 3: -37, -1: b"\xff" * 256, -2: b"\1\0\1"}, id="PS256"),
        pytest.param({1: 2, 3: -257, -1: 1, -2: b"x" * 32, -3: b"y" * 32}, id="an algorithm of another kind"),
        pytest.param({}, id="nothing"),
        pytest.param([], id="no map"),
    ],
)
def test_keys_that_were_not_asked_for_are_refused(public: Any) -> None:
    device = key()
    device.public_key = lambda: public  # type: ignore[method-assign]
    with pytest.raises(PasskeyRefused):
        registered(device)


def test_a_key_of_another_kind_than_it_says_is_refused() -> None:
    device = key()
    numbers = rsa.generate_private_key(65537, 2048).public_key().public_numbers()
    device.public_key = lambda: {1: 3, 3: -7, -1: numbers.n.to_bytes(256, "big"), -2: b"\1\0\1"}  # type: ignore[method-assign]
    with pytest.raises(PasskeyRefused):
        registered(device)


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_no_bytes_make_anything_but_a_refusal(one: bytes, other: bytes) -> None:
    given_ = PasskeyAnswer("create", b"id", one, attestation=other, authenticator_data=other, signature=one)
    passkey = Passkey(b"id", cbor2.dumps(key().public_key()), 0)
    for attempt in (
        lambda: webauthn.created(PARTY, given_, CHALLENGE),
        lambda: webauthn.signed(PARTY, given_, CHALLENGE, passkey, ANN.id),
    ):
        with pytest.raises(PasskeyRefused):
            attempt()


@pytest.mark.parametrize(
    "credential",
    [
        {"rawId": "!" * 8, "response": {}},
        {"rawId": "a+/b", "response": {}},
        {"rawId": "aä", "response": {}},
        {"rawId": "A" * 1400, "response": {}},
        {"rawId": 1, "response": {}},
        {"rawId": "AA", "response": []},
        {"rawId": "AA", "response": {"clientDataJSON": "A" * 6000}},
        {"rawId": "AA", "response": {"attestationObject": url64(os.urandom(8193))}},
        {"rawId": "AA", "response": {"authenticatorData": url64(os.urandom(2049))}},
        {"rawId": "AA", "response": {"signature": url64(os.urandom(1025))}},
        {"rawId": "AA", "response": {"userHandle": url64(os.urandom(65))}},
        {"rawId": "AA", "response": {"transports": "usb"}},
        {"rawId": "AA", "response": {"transports": ["usb"] * 11}},
        {"rawId": "AA", "response": {"transports": ["u" * 33]}},
        {"rawId": "AA", "type": "password", "response": {}},
    ],
)
def test_members_are_held_to_the_contract_s_bounds_before_they_are_decoded(credential: Any) -> None:
    with pytest.raises(ValidationFailed):
        answer("create", credential)


@pytest.mark.parametrize(
    "wish",
    [
        {"rpId": 1},
        {"rpId": "a" * 254},
        {"rpOrigins": "https://signgate.test"},
        {"rpOrigins": [1]},
        {"rpOrigins": ["https://signgate.test"] * 11},
        {"rpOrigins": ["a" * 513]},
    ],
)
def test_a_wish_for_a_relying_party_is_bounded(wish: Any) -> None:
    with pytest.raises(ValidationFailed):
        passkeys.party(wish)
