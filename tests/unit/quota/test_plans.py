from __future__ import annotations

import pytest

from servicekit.errors import Unavailable
from servicekit.testing.clock import ManualClock
from services.quota.domain import Override, Plan, Pool
from services.quota.errors import PlansUnknown
from services.quota.plans import Plans, Shadow

ANN, BOB = "ann", "bob"


class Tables:
    """The two tables, in memory."""

    def __init__(self) -> None:
        self.tiers = {"free": Plan(100, 20, 10), "api_key": Plan(1000, 600, 100)}
        self.own: dict[str, dict[Pool, Override]] = {}
        self.version = 0
        self.away = False
        self.reads = 0

    async def plans(self) -> dict[str, Plan]:
        if self.away:
            raise Unavailable
        return dict(self.tiers)

    async def overrides_fingerprint(self) -> object:
        return self.version

    async def overrides(self) -> dict[str, dict[Pool, Override]]:
        self.reads += 1
        return dict(self.own)

    def override(self, user: str, own: Override) -> None:
        self.own[user] = {Pool.FREE: own}
        self.version += 1


def plans_of(tables: Tables, shadow: Shadow = "") -> Plans:
    return Plans(tables, ManualClock(), shadow=shadow)


async def test_nothing_is_granted_before_plans_are_known() -> None:
    plans = plans_of(Tables())
    with pytest.raises(PlansUnknown):
        plans.of(ANN)
    with pytest.raises(PlansUnknown):
        plans.packed(ANN)


async def test_a_missing_plan_is_no_plan() -> None:
    """Rather none than a guess: an empty table must not mean "no limits"."""
    tables = Tables()
    del tables.tiers["api_key"]
    with pytest.raises(PlansUnknown):
        await plans_of(tables).refresh()


async def test_changes_count_at_the_next_look() -> None:
    tables = Tables()
    plans = plans_of(tables)
    await plans.refresh()
    packed = plans.packed(ANN)
    tables.tiers["free"] = Plan(7, 20, 10)
    tables.override(ANN, Override(daily=9))
    assert plans.of(ANN).free.daily == 100
    await plans.refresh()
    assert (plans.of(ANN).free.daily, plans.of(BOB).free.daily) == (9, 7)
    assert plans.packed(ANN) not in (packed, plans.packed(BOB))
    del tables.own[ANN]
    tables.version += 1
    await plans.refresh()
    assert plans.of(ANN) == plans.of(BOB)


async def test_overrides_are_read_only_when_they_changed() -> None:
    tables = Tables()
    tables.override(ANN, Override(daily=9))
    plans = plans_of(tables)
    for _ in range(3):
        await plans.refresh()
    assert tables.reads == 1
    tables.tiers["free"] = Plan(100, 5, 10)
    await plans.refresh()
    assert plans.of(ANN).free == Plan(9, 5, 10)


async def test_while_postgres_is_away_the_last_plans_hold() -> None:
    tables = Tables()
    plans = plans_of(tables)
    await plans.refresh()
    tables.away = True
    with pytest.raises(Unavailable):
        await plans.refresh()
    assert plans.of(ANN).free.daily == 100


@pytest.mark.parametrize(
    ("shadow", "expected"),
    [("", (False, False)), ("free", (True, False)), ("api_key", (False, True)), ("all", (True, True))],
)
async def test_shadow_mode_is_chosen_by_pool(shadow: Shadow, expected: tuple[bool, bool]) -> None:
    tables = Tables()
    tables.override(ANN, Override(daily=9))
    plans = plans_of(tables, shadow)
    await plans.refresh()
    for user in (ANN, BOB):
        assert (plans.of(user).free.shadow, plans.of(user).api_key.shadow) == expected
