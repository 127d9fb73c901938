"""A credential gives at most what it has, in every attribute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.errors import PermissionDenied, Unauthenticated
from servicekit.principal import ALL_SCOPES, KEYS_MANAGE, Principal
from services.keys.domain import Draft, Key, PlanLimits
from services.keys.errors import ScopeMissing, WiderThanCaller
from services.keys.narrowing import KeyPrincipal, Powers, held
from services.keys.networks import admits, stored

NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)
PLAN = PlanLimits(daily_limit=1000, per_minute=60)
USER = UUID(int=7)
ENDS = [None, NOW + timedelta(hours=1), NOW + timedelta(days=1)]
NETWORKS = [(), ("10.0.0.0/8",), ("10.0.0.0/9",), ("10.128.0.0/9", "10.0.0.0/9"), ("2001:db8::/32",)]
LIMITS = [None, 1, 2]
ENGINES = ["", "native", "browser"]
SCOPES = ["sign", "usage:read", KEYS_MANAGE]
CALLERS = ["10.0.0.1", "10.200.0.1", "192.0.2.1", "2001:db8::1", "2001:db9::1", ""]

powers = st.builds(
    Powers,
    scopes=st.frozensets(st.sampled_from(SCOPES), min_size=1),
    ends_at=st.sampled_from(ENDS),
    networks=st.sampled_from([stored(networks) for networks in NETWORKS]),
    daily_limit=st.sampled_from(LIMITS),
    per_minute=st.sampled_from(LIMITS),
    mode=st.sampled_from(["live", "test"]),
    engine=st.sampled_from(ENGINES),
)


def uses(found: Powers) -> set[tuple[object, ...]]:
    """Every single thing that a credential may do: a scope, from an address, at a time, by an engine, in a
    mode, as the first, second … signature of a day and of a minute.
    """
    callers = [at for at in CALLERS if not found.networks or admits(found.networks, at)]
    times = [at for at in (NOW, *ENDS) if at is not None and (found.ends_at is None or at < found.ends_at)]
    engines = [found.engine] if found.engine else ENGINES[1:]
    modes = ["live", "test"] if found.mode == "live" else ["test"]
    days, minutes = (range(3 if limit is None else limit) for limit in (found.daily_limit, found.per_minute))
    return set(product(found.scopes, callers, times, engines, modes, days, minutes))


def allowed(check: Any, *args: Any) -> bool:
    try:
        check(*args)
    except (ScopeMissing, WiderThanCaller):
        return False
    return True


@given(powers, powers)
def test_what_is_given_is_a_part_of_what_the_giver_has(giver: Powers, given_: Powers) -> None:
    """S20: and whatever is a part of it can be given."""
    assert allowed(giver.require, given_) == (uses(given_) <= uses(giver))


@given(powers, powers, powers)
def test_a_change_adds_nothing_that_the_giver_has_not(giver: Powers, before: Powers, after: Powers) -> None:
    """S21: for the key itself and for every other."""
    if allowed(giver.require_change, before, after):
        assert uses(after) - uses(before) <= uses(giver)
    if uses(after) <= uses(before):
        assert allowed(giver.require_change, before, after)


@given(powers, powers)
def test_no_change_of_its_own_raises_a_key(before: Powers, after: Powers) -> None:
    """S21."""
    assert allowed(before.require_change, before, after) == (uses(after) <= uses(before))


@given(powers)
def test_what_a_draft_does_not_name_it_has_from_the_giver(giver: Powers) -> None:
    draft = giver.filled(Draft("x", scopes=tuple(sorted(giver.scopes))), PLAN).checked(NOW, PLAN, ENGINES[1:])
    assert allowed(giver.require, Powers.of(draft))
    assert uses(Powers.of(draft)) == uses(giver)


def test_inherited_limits_are_within_a_plan_that_was_lowered() -> None:
    lowered = PlanLimits(daily_limit=3, per_minute=2)
    draft = Powers(ALL_SCOPES, daily_limit=500, per_minute=50).filled(Draft("x"), lowered)
    assert (draft.daily_limit, draft.per_minute) == (3, 2)


def test_every_wider_attribute_is_named() -> None:
    """S20."""
    giver = Powers(ALL_SCOPES, NOW, stored(["10.0.0.0/8"]), 5, 3, "test", "native")
    with pytest.raises(WiderThanCaller) as caught:
        giver.require(Powers(ALL_SCOPES))
    named = {violation.field for violation in caught.value.violations}
    assert named == {"expires_at", "allowed_cidrs", "daily_limit", "per_minute", "mode", "engine"}
    assert set(caught.value.metadata["fields"].split()) == named
    assert caught.value.reason == "KEY_WIDER_THAN_CALLER"
    # Whatever powers may get besides these has to be judged as well.
    assert len(fields(Powers)) == len(named) + len({"scopes"})


def test_a_live_key_gives_test_keys() -> None:
    Powers(ALL_SCOPES).require(Powers(ALL_SCOPES, mode="test"))


class Rows:
    """Keys by id. Notes in which order they are locked."""

    def __init__(self, *keys: Key) -> None:
        self.keys: Mapping[UUID, Key] = {key.id: key for key in keys}
        self.locked: list[UUID] = []
        self.user_locked = False

    async def lock_user(self) -> None:
        assert not self.locked
        self.user_locked = True

    async def get(self, key_id: UUID, *, for_change: bool = False) -> Key | None:
        assert for_change
        self.locked.append(key_id)
        return self.keys.get(key_id)


def key(number: int, **changes: Any) -> Key:
    members: dict[str, Any] = {
        "id": UUID(int=number), "user_id": USER, "name": "k", "mode": "live", "masked": "…",
        "scopes": ("keys:manage", "sign"), "created_at": NOW, "updated_at": NOW,
    }  # fmt: skip
    return Key(**(members | changes))


def caller(number: int, **changes: Any) -> KeyPrincipal:
    return replace(
        KeyPrincipal(USER, scopes=frozenset({"keys:manage", "sign"}), api_key_id=UUID(int=number)), **changes
    )


async def test_a_login_gives_all_and_locks_only_the_key_that_it_changes() -> None:
    rows = Rows(key(1))
    found, target = await held(rows, Principal(USER), NOW, UUID(int=1))
    assert (found, target) == (Powers(ALL_SCOPES), key(1))
    assert (await held(rows, Principal(USER), NOW))[1] is None
    assert rows.locked == [UUID(int=1)]


async def test_a_key_gives_what_its_row_says_now() -> None:
    row = key(
        1, scopes=("keys:manage",), allowed_cidrs=("10.0.0.0/8",), grace_until=NOW + timedelta(1), engine="x"
    )
    found, _ = await held(Rows(row), caller(1), NOW)
    assert found == Powers(frozenset({"keys:manage"}), NOW + timedelta(1), stored(["10.0.0.0/8"]), engine="x")


@pytest.mark.parametrize("own", [1, 3])
async def test_rows_are_locked_in_one_order(own: int) -> None:
    """Else two keys that change each other at once would wait for each other."""
    rows = Rows(key(1), key(3))
    _, target = await held(rows, caller(own), NOW, UUID(int=4 - own))
    assert target == key(4 - own)
    assert rows.locked == [UUID(int=1), UUID(int=3)]
    assert rows.user_locked  # before them, as where a key is made


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (Rows(), "KEY_UNKNOWN"),
        (Rows(key(1, revoked_at=NOW)), "KEY_REVOKED"),
        (Rows(key(1, expires_at=NOW)), "KEY_EXPIRED"),
        (Rows(key(1, grace_until=NOW)), "KEY_EXPIRED"),
        (Rows(key(1, scopes=("sign",))), "SCOPE_MISSING"),
    ],
)
async def test_a_key_that_has_just_ended_gives_nothing(rows: Rows, reason: str) -> None:
    with pytest.raises((Unauthenticated, PermissionDenied)) as caught:
        await held(rows, caller(1), NOW)
    assert caught.value.reason == reason


async def test_a_token_gives_nothing_that_outlives_it_and_its_own_scopes() -> None:
    end = NOW + timedelta(minutes=5)
    token = caller(1, scopes=frozenset({"keys:manage"}), ends_at=end, derived=True)
    found, _ = await held(Rows(key(1)), token, NOW)
    assert found == Powers(frozenset({"keys:manage"}), end)
    sooner, _ = await held(Rows(key(1, expires_at=NOW + timedelta(minutes=1))), token, NOW)
    assert sooner.ends_at == NOW + timedelta(minutes=1)


async def test_a_keys_principal_that_does_not_say_its_end_gives_nothing() -> None:
    with pytest.raises(TypeError):
        await held(Rows(key(1)), Principal(USER, api_key_id=UUID(int=1)), NOW)
