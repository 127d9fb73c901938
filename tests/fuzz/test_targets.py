"""The fuzz targets in every test run, by hypothesis: fewer inputs than `make fuzz`, shaped to go deep."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.fuzz import targets

SEEDS = targets.seeds()
MEMBERS = sorted({name for operation in targets.WITH_BODY for name in operation.body})
MANY = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])

values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def mutated(name: str) -> st.SearchStrategy[bytes]:
    """A seed with a stretch of it replaced."""
    return st.builds(
        lambda seed, at, length, new: (
            seed[: at % (len(seed) + 1)] + new + seed[at % (len(seed) + 1) + length :]
        ),
        st.sampled_from(SEEDS[name]),
        st.integers(0, 4096),
        st.integers(0, 8),
        st.binary(max_size=12),
    )


@pytest.mark.parametrize("name", targets.TARGETS)
def test_every_seed_is_good_or_refused(name: str) -> None:
    assert all(targets.TARGETS[name](seed) for seed in SEEDS[name])


@pytest.mark.parametrize("name", targets.TARGETS)
def test_no_bytes_do_what_is_not_declared(name: str) -> None:
    @MANY
    @given(mutated(name) | st.binary(max_size=200))
    def check(data: bytes) -> None:
        assert targets.TARGETS[name](data)

    check()


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


heads = st.fixed_dictionaries(
    {},
    optional={
        "alg": st.sampled_from(["ES256", "none", "HS256", "RS256", "EdDSA"]) | values,
        "kid": st.just(targets.MINT.key.kid) | values,
        "typ": values,
        "crit": values,
        "b64": values,
        "jwk": values,
        "zip": values,
    },
)
some_claims = st.builds(
    lambda changes: {**targets.MINT.claims(targets.USER), **changes},
    st.dictionaries(
        st.sampled_from(
            [
                *("iss", "aud", "sub", "role", "session_id", "iat", "exp", "nbf", "jti", "app_metadata"),
                *("aal", "mfa", "amr", "assurance_version", "auth_time"),
            ]
        ),
        values,
        max_size=3,
    ),
)


@MANY
@given(heads, some_claims, st.binary(max_size=70))
def test_no_header_and_claims_are_a_token_without_the_key(head: Any, payload: Any, signature: bytes) -> None:
    signed = base64.urlsafe_b64encode(signature).rstrip(b"=").decode()
    text = f"{part(head)}.{part(payload)}.{signed}".encode()
    assert targets.token(text).startswith("TOKEN_")
    targets.token(b"sgt_" + text)


@MANY
@given(some_claims)
@example({**targets.MINT.claims(targets.USER), "role": ["authenticated"]})
@example({**targets.MINT.claims(targets.USER), "role": {}})
@example({**targets.MINT.claims(targets.USER), "exp": 10**400})
@example({**targets.MINT.claims(targets.USER), "iat": float("nan")})
@example({**targets.MINT.claims(targets.USER), "exp": float("nan")})
@example({**targets.MINT.claims(targets.USER), "exp": float("inf")})
def test_claims_that_are_nonsense_are_refused_though_signed(payload: Any) -> None:
    outcome = targets.claims(json.dumps(payload).encode())
    assert outcome in {"authenticated", "service_role"} or outcome.startswith("TOKEN_")


@MANY
@given(
    st.integers(0, len(targets.WITH_BODY) - 1),
    st.dictionaries(
        st.sampled_from(sorted({name for each in targets.WITH_BODY for name in each.body})),
        values,
        max_size=6,
    ),
)
def test_no_members_of_a_body_make_a_server_error(operation: int, members: dict[str, Any]) -> None:
    assert targets.body(bytes([operation, 0]) + json.dumps(members).encode())


def test_the_use_cases_are_reached() -> None:
    """Else the tests above would look at refusals alone."""
    outcomes = {targets.body(seed) for seed in SEEDS["body"]}
    assert {"reached", "redirected"} <= outcomes
    assert targets.claims(SEEDS["claims"][0]) == "authenticated"
    assert targets.key(SEEDS["key"][0]) == "live"


def test_a_form_of_many_fields_is_refused() -> None:
    assert targets.form(b"a=1&" * 30) == "validation_failed"
