"""What the use cases do when counters must be loaded, are loaded, or can't be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from servicekit.testing.clock import ManualClock
from services.quota.domain import (
    NO_KEY,
    Charge,
    ChargeRef,
    Decision,
    Inspection,
    Missing,
    Outcome,
    Plan,
    Pool,
    Query,
    UserPlans,
)
from services.quota.errors import CountersRebuilding
from services.quota.service import QuotaService

GRANTED = Decision(1, 5, 0, 0, 0, 0, 1, 10, 9, 0)
UNSURE = Decision(0, 0, 0, 0, 1, 0, 1, 10, 0, 0)


class FakeCounters:
    """Knows which users have counters; `provisional` ones have some that are not believed."""

    def __init__(self, *known: str) -> None:
        self.known = set(known)
        self.provisional: set[str] = set()
        self.away: set[str] = set()
        self.versions: dict[str, int] = {}
        self.calls: list[list[str]] = []
        self.watermarks: list[int] = []

    async def consume(self, groups: Sequence[tuple[str, bytes, Sequence[Charge]]]) -> Outcome:
        self.calls.append([user for user, _, _ in groups])
        outcome = Outcome(100, {}, [])
        for user, _, charges in groups:
            if user in self.away:
                continue
            sure = user not in self.provisional
            outcome.decisions[user] = (
                [GRANTED if sure else UNSURE for _ in charges] if user in self.known else None
            )
            if user not in self.known or not sure:
                outcome.missing.append(Missing(user, 5, self.versions.get(user, 0)))
        return outcome

    async def refund(self, groups: Mapping[str, Sequence[ChargeRef]]) -> dict[str, list[int]]:
        return {user: [ref.units for ref in refs] for user, refs in groups.items() if user not in self.away}

    async def settle(
        self, groups: Mapping[str, Sequence[ChargeRef]], watermark: int
    ) -> tuple[int, int, list[str]]:
        self.calls.append([f"settle {sum(map(len, groups.values()))}"])
        self.watermarks.append(watermark)
        return sum(map(len, groups.values())), 0, [user for user in groups if user not in self.known]

    async def inspect(self, query: Query, plan: Plan) -> Inspection | Missing:
        if query.user_id in self.known:
            return Inspection(0, 3, [])
        return Missing(query.user_id, 5, 0)


class FakeLoader:
    """Loads users into the counters, unless they are beyond it."""

    def __init__(self, counters: FakeCounters) -> None:
        self.counters = counters
        self.beyond: set[str] = set()
        self.loaded: list[str] = []
        self.watermark = 0
        self.log: list[str] = []

    async def load(self, users: Sequence[Missing]) -> None:
        for user in users:
            self.loaded.append(user.user_id)
            if user.user_id not in self.beyond:
                self.counters.known.add(user.user_id)
                self.counters.provisional.discard(user.user_id)

    async def raise_watermark(self, moment: int = 0) -> None:
        self.counters.calls.append(["watermark"])
        self.watermark = max(self.watermark, moment)


class Book:
    def of(self, user_id: str) -> UserPlans:
        return UserPlans(Plan(10, 0, 1), Plan(10, 0, 1))

    def packed(self, user_id: str) -> bytes:
        return b""


def charge(user: str, n: int = 1) -> tuple[str, Charge]:
    return user, Charge(bytes([n]) * 16, False, NO_KEY, 1, False)


def service_of(counters: FakeCounters) -> tuple[QuotaService, FakeLoader]:
    loader = FakeLoader(counters)
    return QuotaService(counters, Book(), loader, ManualClock()), loader


async def test_a_list_of_known_users_is_one_call() -> None:
    counters = FakeCounters("ann", "bob")
    service, _ = service_of(counters)
    decisions, lease = await service.consume([charge("ann"), charge("bob"), charge("ann", 2)])
    assert decisions == [GRANTED] * 3
    assert lease == 100
    assert counters.calls == [["ann", "bob"]]


async def test_only_those_who_were_loaded_are_decided_again() -> None:
    counters = FakeCounters("ann")
    service, loader = service_of(counters)
    decisions, _ = await service.consume([charge("ann"), charge("bob")])
    assert decisions == [GRANTED] * 2
    assert loader.loaded == ["bob"]
    assert counters.calls == [["ann", "bob"], ["bob"]]


async def test_who_cannot_be_loaded_is_undecided_and_nobody_else() -> None:
    """And it is not tried for ever."""
    counters = FakeCounters("ann")
    service, loader = service_of(counters)
    loader.beyond = {"bob"}
    (ann, bob), _ = await service.consume([charge("ann"), charge("bob")])
    assert ann == GRANTED
    assert bob.undecided
    assert not bob.granted
    assert not bob.denied_by
    assert bob.wait > 0
    assert len(loader.loaded) == 1


async def test_a_denial_that_is_not_believed_is_looked_at_again() -> None:
    counters = FakeCounters("ann")
    counters.provisional = {"ann"}
    service, loader = service_of(counters)
    assert (await service.consume([charge("ann")]))[0] == [GRANTED]
    assert loader.loaded == ["ann"]


async def test_users_of_a_node_that_is_away_are_undecided() -> None:
    counters = FakeCounters("ann")
    counters.away = {"bob"}
    service, _ = service_of(counters)
    (ann, bob), _ = await service.consume([charge("ann"), charge("bob")])
    assert (ann.granted, bob.granted, bob.undecided) == (1, 0, 1)
    assert await service.refund([("ann", ChargeRef(b"", 2)), ("bob", ChargeRef(b"", 3))]) == [2, 0]


async def test_a_watermark_counts_only_after_its_charges_are_settled() -> None:
    """Before, it would have reservations taken back whose events are committed."""
    counters = FakeCounters("ann")
    service, loader = service_of(counters)
    refs = [("ann", ChargeRef(bytes([n % 256, n // 256]) * 8, 1)) for n in range(2500)]
    assert await service.settle(refs, 77) == (2500, 0)
    assert counters.calls == [["settle 1000"], ["settle 1000"], ["settle 500"], ["watermark"]]
    assert counters.watermarks == [0, 0, 0]
    assert loader.watermark == 77


async def test_counters_in_doubt_are_loaded_while_the_database_is_there() -> None:
    counters = FakeCounters("ann")
    service, loader = service_of(counters)
    await service.settle([("ann", ChargeRef(b"", 1)), ("bob", ChargeRef(b"", 1))], 0)
    assert loader.loaded == ["bob"]


async def test_limits_that_cannot_be_loaded_are_unavailable() -> None:
    counters = FakeCounters()
    service, loader = service_of(counters)
    assert (await service.inspect(Query("ann", Pool.FREE))).used == 3
    loader.beyond = {"bob"}
    with pytest.raises(CountersRebuilding):
        await service.inspect(Query("bob", Pool.FREE))
