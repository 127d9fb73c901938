from __future__ import annotations

from uuid import UUID

import pytest

from servicekit.clock import SystemEntropy
from services.auth.secrets import Secrets, s256, same

ANN, BOB = UUID(int=1), UUID(int=2)


@pytest.fixture
def secrets() -> Secrets:
    return Secrets("p" * 44, SystemEntropy())


def test_a_code_s_hash_is_bound_to_its_user_its_purpose_and_the_pepper(secrets: Secrets) -> None:
    """A table of a million plain hashes would undo any of them; this one needs the pepper and the row."""
    hashes = {
        secrets.code_hash(ANN, "signup", "123456"),
        secrets.code_hash(BOB, "signup", "123456"),
        secrets.code_hash(ANN, "recovery", "123456"),
        Secrets("q" * 44, SystemEntropy()).code_hash(ANN, "signup", "123456"),
    }
    assert len(hashes) == 4


def test_codes_have_six_digits_and_spread(secrets: Secrets) -> None:
    codes = [secrets.code() for _ in range(2000)]
    assert all(len(code) == 6 and code.isdigit() for code in codes)
    assert len(set(codes)) > 1980
    assert {code[0] for code in codes} == set("0123456789")


def test_uses_of_the_pepper_do_not_meet(secrets: Secrets) -> None:
    assert len({secrets.link_hash("x"), secrets.refresh_hash("x"), secrets.flow_hash("x")}) == 3


def test_a_factor_s_secret_opens_for_its_own_factor_only(secrets: Secrets) -> None:
    sealed = secrets.seal(ANN, "JBSWY3DPEHPK3PXP")
    assert b"JBSWY3DP" not in sealed
    assert secrets.unseal(ANN, sealed) == "JBSWY3DPEHPK3PXP"
    assert secrets.unseal(BOB, sealed) is None
    assert Secrets("q" * 44, SystemEntropy()).unseal(ANN, sealed) is None
    assert sealed != secrets.seal(ANN, "JBSWY3DPEHPK3PXP")


def test_a_recovery_code_may_be_typed_as_people_do(secrets: Secrets) -> None:
    code = secrets.recovery_code()
    typed = f" {code.upper().replace('-', ' ')} "
    assert secrets.recovery_hash(ANN, typed) == secrets.recovery_hash(ANN, code)
    assert secrets.recovery_hash(BOB, code) != secrets.recovery_hash(ANN, code)


def test_the_challenge_is_the_rfc_s() -> None:
    """The example of RFC 7636, appendix B."""
    assert (
        s256("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk") == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
    )


def test_comparison_takes_any_text() -> None:
    assert same("ü", "ü")
    assert not same("ü", "u")


def test_an_address_s_id_is_stable_and_takes_the_pepper_to_know(secrets: Secrets) -> None:
    """S18."""
    one = secrets.stable_id("user", "ann@example.com")
    assert one == secrets.stable_id("user", "ann@example.com")
    assert (one.version, one.variant) == (8, "specified in RFC 4122")
    others = {
        secrets.stable_id("identity", "ann@example.com"),
        secrets.stable_id("user", "bob@example.com"),
        Secrets("q" * 44, SystemEntropy()).stable_id("user", "ann@example.com"),
    }
    assert len(others | {one}) == 4
