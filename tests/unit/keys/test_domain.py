"""Rules of keys, without a database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.errors import FieldViolation
from servicekit.principal import ALL_SCOPES
from services.keys import paging
from services.keys.domain import (
    Changes,
    Draft,
    Key,
    Page,
    PlanLimits,
    Status,
    canonical_networks,
    grace_period,
    require_giveable,
    token_scopes,
    token_ttl,
)
from services.keys.errors import (
    KeyIsExpired,
    KeyIsRevoked,
    KeyIsRotated,
    PageTokenInvalid,
    ScopeMissing,
    ValidationFailed,
)
from services.keys.networks import admits

NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)
PLAN = PlanLimits(daily_limit=1000, per_minute=60)
ENGINES = frozenset({"native", "browser"})


def key(**changes: Any) -> Key:
    members: dict[str, Any] = {
        "id": UUID(int=1), "user_id": UUID(int=2), "name": "k", "mode": "live", "masked": "…",
        "scopes": ("sign",), "created_at": NOW, "updated_at": NOW,
    }  # fmt: skip
    return Key(**(members | changes))


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, Status.ACTIVE),
        ({"expires_at": NOW + timedelta(1)}, Status.ACTIVE),
        ({"expires_at": NOW}, Status.EXPIRED),
        ({"grace_until": NOW + timedelta(1)}, Status.ROTATING),
        ({"grace_until": NOW}, Status.EXPIRED),
        ({"grace_until": NOW + timedelta(1), "expires_at": NOW}, Status.EXPIRED),
        ({"revoked_at": NOW, "expires_at": NOW, "grace_until": NOW}, Status.REVOKED),
    ],
)
def test_status(changes: dict[str, Any], status: Status) -> None:
    assert key(**changes).status(NOW) is status


def test_a_rotated_key_ends_at_the_earlier_of_its_end_and_its_grace() -> None:
    near, far = NOW + timedelta(1), NOW + timedelta(2)
    assert key().ends_at is None
    assert key(expires_at=far, grace_until=near).ends_at == near
    assert key(expires_at=near, grace_until=far).ends_at == near


def test_only_an_active_key_is_rotated() -> None:
    key().require_rotatable(NOW)
    for changes, error in (
        ({"revoked_at": NOW}, KeyIsRevoked),
        ({"expires_at": NOW}, KeyIsExpired),
        ({"grace_until": NOW + timedelta(1)}, KeyIsRotated),
    ):
        with pytest.raises(error):
            key(**changes).require_rotatable(NOW)


def test_a_draft_is_put_into_canonical_form() -> None:
    draft = Draft(
        name=" a ", scopes=("sign", "keys:read", "sign"), allowed_cidrs=("10.0.0.0/8", "10.0.0.0/8", "::1")
    )
    checked = draft.checked(NOW, PLAN, ENGINES)
    assert checked.name == "a"
    assert checked.scopes == ("keys:read", "sign")
    assert checked.allowed_cidrs == ("10.0.0.0/8", "::1/128")


def test_all_that_is_wrong_is_named_at_once() -> None:
    draft = Draft(
        name="", scopes=("root",), expires_at=NOW, allowed_cidrs=("10.0.0.1/8",), daily_limit=1001,
        per_minute=0, engine="none",
    )  # fmt: skip
    with pytest.raises(ValidationFailed) as caught:
        draft.checked(NOW, PLAN, ENGINES)
    assert [v.field for v in caught.value.violations] == [
        "allowed_cidrs[0]", "name", "scopes", "expires_at", "daily_limit", "per_minute", "engine",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["a\tb", "a\x00", "a\x1b[2J", "safe\u202egnp.exe", "zero\u200bwidth"])
def test_a_name_hides_nothing(name: str) -> None:
    with pytest.raises(ValidationFailed):
        Draft(name=name).checked(NOW, PLAN, ENGINES)


def test_changes_leave_out_what_they_do_not_name() -> None:
    old = key(
        daily_limit=5,
        per_minute=5,
        engine="native",
        allowed_cidrs=("10.0.0.0/8",),
        expires_at=NOW + timedelta(1),
    )
    assert Changes().applied(old, NOW, PLAN, ENGINES) == old
    cleared = Changes(
        clear_expires_at=True, allowed_cidrs=(), daily_limit=0, per_minute=0, engine=""
    ).applied(old, NOW, PLAN, ENGINES)
    assert cleared == key()
    with pytest.raises(KeyIsRevoked):
        Changes(name="x").applied(key(revoked_at=NOW), NOW, PLAN, ENGINES)


@given(st.sets(st.sampled_from(sorted(ALL_SCOPES))), st.sets(st.sampled_from(sorted(ALL_SCOPES))))
def test_scopes_are_never_given_by_who_lacks_them(has: set[str], wished: set[str]) -> None:
    if wished <= has:
        require_giveable(has, wished)
        given_scopes = set(token_scopes(has, wished))
        assert given_scopes == (wished or has - {"keys:manage"})
    else:
        for give in (require_giveable, token_scopes):
            with pytest.raises(ScopeMissing) as caught:
                give(has, wished)
            assert caught.value.metadata["missing_scopes"].split() == sorted(wished - has)


def test_spans_have_bounds() -> None:
    assert token_ttl(None) == timedelta(minutes=5)
    assert grace_period(None) == timedelta(days=1)
    assert grace_period(timedelta(0)) == timedelta(0)
    for bad in (timedelta(0), timedelta(hours=1, microseconds=1), timedelta(seconds=-1)):
        with pytest.raises(ValidationFailed):
            token_ttl(bad)
    for bad in (timedelta(days=30, microseconds=1), timedelta(microseconds=-1)):
        with pytest.raises(ValidationFailed):
            grace_period(bad)


@given(st.lists(st.text(max_size=20), max_size=40))
def test_any_text_is_a_network_or_a_named_problem(cidrs: list[str]) -> None:
    problems: list[FieldViolation] = []
    found = canonical_networks(cidrs, problems)
    assert problems or len(found) == len(set(found)) <= 32
    assert all(ip_network(cidr) for cidr in found)


@given(st.text(max_size=50))
def test_any_text_is_an_address_or_lies_nowhere(client_ip: str) -> None:
    assert admits([ip_network("0.0.0.0/0"), ip_network("::/0")], client_ip) in {True, False}
    assert not admits([], client_ip)


@given(st.datetimes(timezones=st.just(UTC)), st.uuids())
def test_page_tokens_come_back_exact(at: datetime, item: UUID) -> None:
    assert paging.decode(paging.encode(Page(at, item))) == Page(at, item)


@given(st.text(min_size=1))
def test_any_other_text_is_no_page_token(token: str) -> None:
    try:
        page = paging.decode(token)
    except PageTokenInvalid:
        return
    assert page is not None
