from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.quota.domain import MINUTE, Override, Plan, Pool, UserPlans, interval


@given(st.integers(1, 10_000_000))
def test_a_rate_never_admits_more_than_it_says(per_minute: int) -> None:
    every = interval(per_minute)
    assert per_minute * every >= MINUTE
    assert (every - 1) * per_minute < MINUTE


@given(st.integers(1, 600_000))
def test_rounding_costs_at_most_one_per_cent(per_minute: int) -> None:
    assert MINUTE / interval(per_minute) >= per_minute * 0.99


def test_no_rate_is_no_limit() -> None:
    assert interval(0) == 0


def test_an_override_changes_only_what_it_names() -> None:
    plan = Plan(100, 60, 10, shadow=True)
    assert Override(daily=5).applied_to(plan) == Plan(5, 60, 10, shadow=True)
    assert Override(per_minute=1, burst=2).applied_to(plan) == Plan(100, 1, 2, shadow=True)
    assert Override(daily=0).applied_to(plan).daily == 0


@pytest.mark.parametrize(("pool", "name"), [(Pool.FREE, "free"), (Pool.API_KEY, "api_key")])
def test_a_pool_has_the_plan_of_its_name(pool: Pool, name: str) -> None:
    plans = UserPlans(free=Plan(1, 1, 1), api_key=Plan(2, 2, 2))
    assert pool.plan == name
    assert plans.of(pool) is getattr(plans, name)
