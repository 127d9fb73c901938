"""The scripts against a model of them, after every step of random histories, on real servers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from servicekit.clock import uuid7
from servicekit.redis import open_redis
from services.quota import wire
from services.quota.counters import Counters, CounterSettings
from services.quota.domain import (
    DAY,
    NO_KEY,
    NO_LIMIT,
    Charge,
    ChargeRef,
    Inspection,
    Plan,
    Pool,
    Query,
    UserPlans,
)
from services.quota.epochs import Epochs
from tests.integration.quota.model import Model

KEYS = [bytes([n]) * 16 for n in (1, 2)]
LEASE = 5_000_000

plans = st.builds(
    Plan,
    daily=st.sampled_from([NO_LIMIT, 0, 5, 12, 30]),
    per_minute=st.sampled_from([0, 7, 60, 600]),
    burst=st.integers(1, 15),
)


class Histories(RuleBasedStateMachine):
    """Two users, two keys each, on days' ends; the URL is set by the test."""

    url = ""
    charges = Bundle("charges")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.Runner()
        self.redis = open_redis(self.url, timeout=10)
        client = self.run(self.redis.__aenter__())
        self.users = [str(uuid7()), str(uuid7())]
        self.granted = dict.fromkeys(self.users, 0)
        self.counters = Counters(
            client,
            Epochs(client, 10, now=lambda: self.model.now),
            CounterSettings(lease=LEASE / 1e6, timeout=10),
            now=lambda: self.model.now,
        )

    def run(self, work: Any) -> Any:
        return self.loop.run(work)

    def teardown(self) -> None:
        self.run(self.redis.__aexit__(None, None, None))
        self.loop.close()

    @initialize(before_midnight=st.integers(1, 120), free=plans, api_key=plans)
    def begin(self, before_midnight: int, free: Plan, api_key: Plan) -> None:
        self.model = Model(20_000 * DAY - before_midnight * 1_000_000, LEASE)
        self.plans = UserPlans(free, api_key)
        missing = self.run(
            self.counters.consume([(user, wire.pack_pools(self.plans), []) for user in self.users])
        ).missing
        assert self.run(self.counters.load(missing, {})) == []

    @rule(
        target=charges,
        user=st.integers(0, 1),
        key=st.sampled_from([NO_KEY, *KEYS]),
        cost=st.integers(1, 8),
        partial=st.booleans(),
        key_daily=st.sampled_from([0, 3, 10]),
        key_per_minute=st.sampled_from([0, 3, 60]),
        more=st.integers(0, 3),
    )
    def consume(
        self,
        *,
        user: int,
        key: bytes,
        cost: int,
        partial: bool,
        key_daily: int,
        key_per_minute: int,
        more: int,
    ) -> Any:
        """A list of one user's charges, alike but for their ids."""
        made = [
            (
                self.users[user],
                Charge(uuid7().bytes, key != NO_KEY, key, cost, partial, key_daily, key_per_minute),
            )
            for _ in range(more + 1)
        ]
        self.check(made)
        return multiple(*made)

    @rule(first=charges, second=charges)
    def repeat(self, first: tuple[str, Charge], second: tuple[str, Charge]) -> None:
        """Charges of the past once more, of both users in one list perhaps, perhaps one twice."""
        self.check([first, second])

    @rule(charge=charges, units=st.integers(0, 3))
    def refund(self, charge: tuple[str, Charge], units: int) -> None:
        user_id, one = charge
        done = self.run(self.counters.refund({user_id: [ChargeRef(one.id, units)]}))
        expected = self.model.refund(user_id, one.id, units)
        assert done == {user_id: [expected]}

    @rule(charge=charges, part=st.booleans())
    def settle(self, charge: tuple[str, Charge], *, part: bool) -> None:
        """Only known ones: what becomes of others is rebuilding, and tested there."""
        user_id, one = charge
        held = self.model.user(user_id).held.get(one.id)
        if held is not None:
            units = 1 if part else 0
            assert self.model.settle(user_id, one.id, units)
            refs = {user_id: [ChargeRef(one.id, units)]}
            settled, _, stale = self.run(self.counters.settle(refs, self.model.watermark))
            assert stale == []
            assert settled in (0, 1)

    @rule(seconds=st.sampled_from([0.000001, 0.1, 1, 3, 6, 61, 86_400]))
    def wait(self, seconds: float) -> None:
        self.model.now += round(seconds * 1e6)

    @rule(behind=st.sampled_from([0, 1_000_000, 4_000_000, -5_000_000]))
    def commit(self, behind: int) -> None:
        """The logger has committed all up to some moment; one in the future is not believed."""
        self.model.watermark = max(self.model.watermark, self.model.now - behind)
        self.counters.watermark = self.model.watermark

    @rule(free=plans, api_key=plans)
    def change_plans(self, free: Plan, api_key: Plan) -> None:
        self.plans = UserPlans(free, api_key)

    @invariant()
    def counters_are_the_models(self) -> None:
        if not hasattr(self, "model"):
            return
        for user_id in self.users:
            user = self.model.user(user_id)
            for pool, key in ((Pool.FREE, NO_KEY), (Pool.API_KEY, KEYS[0]), (Pool.API_KEY, KEYS[1])):
                plan = self.plans.of(pool)
                found = self.run(self.counters.inspect(Query(user_id, pool, key, 10, 60), plan))
                assert isinstance(found, Inspection)
                name = "f" if pool is Pool.FREE else "k"
                assert found.used == user.count(name) >= 0
                for state in found.limits:
                    if state.kind == 1:
                        assert state.remaining == max(0, plan.daily - user.count(name))
                    elif state.kind == 2:
                        level = user.bucket(name).drained(self.model.now)
                        assert state.reset == self.model.now + level
                    elif state.kind == 3:
                        assert state.remaining == max(0, 10 - user.count(key))
                    else:
                        assert state.reset == self.model.now + user.bucket(key).drained(self.model.now)

    def check(self, made: list[tuple[str, Charge]]) -> None:
        groups: dict[str, list[Charge]] = {}
        for user_id, charge in made:
            groups.setdefault(user_id, []).append(charge)
        packed = wire.pack_pools(self.plans)
        outcome = self.run(self.counters.consume([(user, packed, group) for user, group in groups.items()]))
        for user_id, group in groups.items():
            for charge, decision in zip(group, outcome.decisions[user_id], strict=True):
                before = self.used(user_id, charge)
                granted, day, denied, wait = self.model.consume(user_id, charge, self.plans)
                assert (decision.granted, decision.day) == (granted, day)
                assert (decision.denied_by, decision.wait) == (denied, wait)
                daily = self.plans.of(Pool.API_KEY if charge.api_key else Pool.FREE).daily
                if daily >= 0 and self.used(user_id, charge) > before:
                    assert self.used(user_id, charge) <= daily  # never more than the limit of the moment

    def used(self, user_id: str, charge: Charge) -> int:
        return self.model.user(user_id).count("k" if charge.api_key else "f")


@pytest.mark.parametrize("examples", [60])
def test_any_history_ends_as_in_the_model(redis_url: str, examples: int) -> None:
    """Charges, repeats, refunds, settlements, time, midnight, watermarks and changes of plan in any order."""
    machine = type("OnThisServer", (Histories,), {"url": redis_url})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples if "cluster" not in redis_url else examples // 4,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
