"""Charges from reservation to commit, with everything dying: what is committed never exceeds a limit,
nobody is told "over quota" who is not, and in the end the counters are what is committed.

The scripts, the rebuilding and the sentinels are the real ones on a real Redis; signers, the stream, the
database and the logger are played by the test, by the rules that the real ones keep.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

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
from servicekit.testing.clock import ManualClock
from servicekit.testing.network import RedisProcess
from services.quota import wire
from services.quota.counters import Counters, CounterSettings
from services.quota.domain import (
    DAY,
    NO_KEY,
    Charge,
    ChargeRef,
    Committed,
    Limit,
    Plan,
    Pool,
    Query,
    UserPlans,
)
from services.quota.epochs import Epochs
from services.quota.errors import CountersRebuilding
from services.quota.rebuild import Rebuilder
from services.quota.service import QuotaService

LEASE = 5_000_000
DAILY = 12
KEY_DAILY = 7
KEY = bytes([7]) * 16


class Book:
    """A plan without rates: here only days count."""

    def __init__(self) -> None:
        self._plans = UserPlans(Plan(DAILY, 0, 1), Plan(DAILY, 0, 1))

    def of(self, user_id: str) -> UserPlans:
        return self._plans

    def packed(self, user_id: str) -> bytes:
        return wire.pack_pools(self._plans)


@dataclass
class Life:
    """One charge, as the test knows it."""

    user: str
    charge: Charge
    granted: int
    day: int
    lease: int
    refunded: bool = False
    published_at: int = 0
    committed: bool = False
    settled: bool = False

    @property
    def ref(self) -> ChargeRef:
        return ChargeRef(self.charge.id, self.granted)


class Lives(RuleBasedStateMachine):
    """One replica of quota; the URL is set by the test."""

    url = ""
    lives = Bundle("lives")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.Runner()
        self.redis = open_redis(self.url, timeout=10)
        self.client = self.run(self.redis.__aenter__())
        self.run(self.client.flushall())
        self.now = 20_000 * DAY - 40_000_000
        self.lost_at = 0
        self.users = [str(uuid7()), str(uuid7())]
        self.all: list[Life] = []
        epochs = Epochs(self.client, 10, now=lambda: self.now)
        self.counters = Counters(
            self.client, epochs, CounterSettings(lease=LEASE / 1e6, timeout=10), now=lambda: self.now
        )
        self.service = QuotaService(
            self.counters, Book(), Rebuilder(self.counters, epochs, self, timeout=10), ManualClock()
        )

    # What the service asks of the database.

    async def committed(self, day: int, users: Collection[str]) -> Mapping[str, Committed]:
        found: dict[str, Committed] = {}
        for life in self.all:
            if life.committed and life.day == day and life.user in users:
                user = found.setdefault(life.user, Committed())
                if life.charge.api_key:
                    user.api_key += life.granted
                    user.by_key[KEY] = user.by_key.get(KEY, 0) + life.granted
                else:
                    user.free += life.granted
        return found

    async def ever_used(self) -> bool:
        return any(life.published_at for life in self.all) or self.lost_at > 0

    def run(self, work: Any) -> Any:
        return self.loop.run(work)

    def teardown(self) -> None:
        try:
            self.all_comes_to_rest()
        finally:
            self.run(self.redis.__aexit__(None, None, None))
            self.loop.close()

    @initialize(before_midnight=st.sampled_from([40, 40_000, 40_000]))
    def begin(self, before_midnight: int) -> None:
        """Seldom over a day's end, where nothing that went before counts any more."""
        self.now = 20_000 * DAY - before_midnight * 1_000_000
        for user in self.users:
            self.run(self.service.inspect(Query(user, Pool.FREE)))

    @rule(
        target=lives,
        user=st.integers(0, 1),
        keyed=st.booleans(),
        cost=st.sampled_from([1, 2, 5, 99]),
        count=st.integers(1, 2),
    )
    def consume(self, *, user: int, keyed: bool, cost: int, count: int) -> Any:
        """A signer charges a list, and may die at any moment afterwards."""
        partial = cost > DAILY  # all that is left
        charges = [
            Charge(uuid7().bytes, keyed, KEY if keyed else NO_KEY, cost, partial, KEY_DAILY if keyed else 0)
            for _ in range(count)
        ]
        user_id = self.users[user]
        held = self.held(user_id, keyed=keyed)
        decisions, lease = self.run(self.service.consume([(user_id, charge) for charge in charges]))
        made = []
        for charge, decision in zip(charges, decisions, strict=True):
            if decision.undecided:
                continue
            if decision.denied_by:
                limit = KEY_DAILY if decision.denied_by == Limit.KEY_DAY else DAILY
                need = decision.granted + 1 if partial else cost
                assert held + need > limit, "told over quota, and is not"
            held += decision.granted
            if decision.granted:
                made.append(Life(user_id, charge, decision.granted, decision.day, lease))
                self.all.append(made[-1])
        return multiple(*made)

    @rule(life=lives)
    def publish(self, life: Life) -> None:
        """The signer publishes its event, unless the fence stops it."""
        if self.now < life.lease and not life.refunded and not life.published_at:
            life.published_at = self.now

    @rule(life=lives)
    def refund(self, life: Life) -> None:
        """What failed is not published, now or later."""
        if not life.published_at:
            life.refunded = True
            self.run(self.service.refund([(life.user, ChargeRef(life.charge.id, 0))]))

    @rule(life=lives)
    def repeat(self, life: Life) -> None:
        """The signer did not hear the answer and asks again."""
        if not life.refunded and not life.published_at and self.now < life.lease:
            (decision,), lease = self.run(self.service.consume([(life.user, life.charge)]))
            if decision.granted:
                life.granted, life.day, life.lease = decision.granted, decision.day, lease

    @rule()
    def log(self) -> None:
        """The logger does all its work at once."""
        self.commit(count=len(self.all))
        self.settle(watermark=True, again=False)

    @rule(count=st.integers(1, 4))
    def commit(self, count: int) -> None:
        """The logger commits, in the order of the stream, and does not come to settling."""
        waiting = sorted(
            (life for life in self.all if life.published_at and not life.committed),
            key=lambda life: life.published_at,
        )
        for life in waiting[:count]:
            life.committed = True

    @rule(watermark=st.booleans(), again=st.booleans())
    def settle(self, *, watermark: bool, again: bool) -> None:
        """It settles all that is committed; perhaps what was settled before, too."""
        todo = [life for life in self.all if life.committed and (again or not life.settled)]
        moment = min(
            (life.published_at for life in self.all if life.published_at and not life.committed),
            default=self.now,
        )
        self.run(self.service.settle([(life.user, life.ref) for life in todo], moment if watermark else 0))
        for life in todo:
            life.settled = True

    @rule(seconds=st.sampled_from([0.2, 1, 3, 6]))
    def wait(self, seconds: float) -> None:
        self.now += round(seconds * 1e6)

    @rule()
    def lose_redis(self) -> None:
        """All counters and reservations are gone. The stream is played here, and survives."""
        self.lost_at = self.now
        self.run(self.client.flushall())

    @invariant()
    def nobody_gets_more_than_the_limit(self) -> None:
        for user in self.users:
            for day in (self.now // DAY, self.now // DAY - 1):
                got = [
                    life for life in self.all if life.user == user and life.day == day and life.published_at
                ]
                free = sum(life.granted for life in got if not life.charge.api_key)
                keyed = sum(life.granted for life in got if life.charge.api_key)
                assert free <= DAILY
                assert keyed <= min(DAILY, KEY_DAILY)

    def held(self, user: str, *, keyed: bool) -> int:
        """What may rightly stand against a user today: published, or reserved and not known to be dead."""
        return sum(
            life.granted
            for life in self.all
            if life.user == user
            and life.charge.api_key == keyed
            and life.day == self.now // DAY
            and (
                life.published_at
                or (not life.refunded and life.lease > min(self.now, self.counters.watermark))
            )
        )

    def all_comes_to_rest(self) -> None:
        """Then the counters are what is committed, and the rest of the limit can be had to the last."""
        for life in self.all:
            life.committed = life.committed or bool(life.published_at)
        self.settle(watermark=True, again=False)
        # Past every lease, and past a loss of Redis just now: its sentinel is made by whoever looks.
        for _ in range(2):
            self.now += LEASE + 1
            for user in self.users:
                try:
                    self.run(self.service.inspect(Query(user, Pool.FREE)))
                except CountersRebuilding:
                    assert self.lost_at
            self.settle(watermark=True, again=False)
        for user in self.users:
            for keyed, limit in ((False, DAILY), (True, KEY_DAILY)):
                query = Query(user, Pool.API_KEY if keyed else Pool.FREE)
                used = self.run(self.service.inspect(query)).used
                assert used == self.held(user, keyed=keyed)
                rest = Charge(uuid7().bytes, keyed, KEY if keyed else NO_KEY, 99, True, limit)
                ((decision,), _) = self.run(self.service.consume([(user, rest)]))
                assert used + decision.granted == limit
                assert not decision.undecided


class RolledBack(Lives):
    """Redis now and then comes back as it was some time ago, as from an append-only file that lacks its
    end, a snapshot, or a replica that lagged. What it forgot may be had once more: how much that can be is
    told in docs/quotas.md. But it is no more than that, and all is right again once it has settled.
    """

    snapshot: dict[bytes, bytes] | None = None

    @rule()
    def save(self) -> None:
        keys = self.run(self.client.keys("*"))
        self.snapshot = {key: self.run(self.client.dump(key)) for key in keys}

    @rule()
    def come_back(self) -> None:
        if self.snapshot is None:
            return
        self.run(self.client.flushall())
        for key, value in self.snapshot.items():
            self.run(self.client.restore(key, 3_600_000, value))
        # What a server finds that was started anew: no scripts, and another's run id.
        self.run(self.client.script_flush())
        epoch = self.run(self.client.get("q:epoch"))
        if epoch is not None:
            began, generation, _ = epoch.split()
            self.run(self.client.set("q:epoch", b" ".join([began, generation, b"0" * 40])))

    @invariant()
    def nobody_gets_more_than_the_limit(self) -> None:
        """Not to be had here."""

    def all_comes_to_rest(self) -> None:
        self.log()
        for _ in range(3):
            self.now += LEASE + 1
            for user in self.users:
                for keyed in (False, True):
                    with contextlib.suppress(CountersRebuilding):
                        self.run(self.service.inspect(Query(user, Pool.API_KEY if keyed else Pool.FREE)))
            self.log()
        for user in self.users:
            for keyed, limit in ((False, DAILY), (True, KEY_DAILY)):
                committed = self.held(user, keyed=keyed)
                rest = Charge(
                    uuid7().bytes, keyed, KEY if keyed else NO_KEY, 99, partial=True, key_daily=limit
                )
                ((decision,), _) = self.run(self.service.consume([(user, rest)]))
                assert not decision.undecided
                assert decision.granted == max(0, limit - committed)


def _run(machine: type[Lives], url: str, examples: int) -> None:
    run_state_machine_as_test(
        type("OnThisServer", (machine,), {"url": url}),
        settings=settings(
            max_examples=examples, stateful_step_count=50, deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip


def test_whatever_dies_the_counts_are_exact(one_redis: RedisProcess) -> None:
    """On one server: a cluster that loses a node is test_rebuild's."""
    _run(Lives, one_redis.url, 200)


def test_a_redis_that_comes_back_older_ends_exact_too(one_redis: RedisProcess) -> None:
    _run(RolledBack, one_redis.url, 150)
