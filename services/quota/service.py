"""The use cases of quota: consume, refund, settle, inspect.

A list is decided in one step when all counters are there. Users whose counters are not are loaded and
decided again, a few times at most; whoever is still without is answered `undecided`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from servicekit.clock import Clock
from services.quota import metrics
from services.quota.domain import (
    Charge,
    ChargeRef,
    Decision,
    Inspection,
    Limit,
    Missing,
    Outcome,
    Plan,
    Pool,
    Query,
    UserPlans,
    undecided,
)
from services.quota.errors import CountersRebuilding

ROUNDS: Final = 3
"""How often a list is decided again after loading. Each round lost means a settlement in between."""

SETTLE_LIST: Final = 1000

RETRY: Final = 1_000_000
"""Microseconds that an undecided caller is asked to wait."""


class CounterStore(Protocol):
    """See `counters.Counters`."""

    async def consume(self, groups: Sequence[tuple[str, bytes, Sequence[Charge]]]) -> Outcome:
        """Decide the charges of each user."""
        ...

    async def refund(self, groups: Mapping[str, Sequence[ChargeRef]]) -> dict[str, list[int]]:
        """Take charges back."""
        ...

    async def settle(
        self, groups: Mapping[str, Sequence[ChargeRef]], watermark: int
    ) -> tuple[int, int, list[str]]:
        """Make charges final."""
        ...

    async def inspect(self, query: Query, plan: Plan) -> Inspection | Missing:
        """One caller's limits."""
        ...


class PlanBook(Protocol):
    """See `plans.Plans`."""

    def of(self, user_id: str) -> UserPlans:
        """A user's limits."""
        ...

    def packed(self, user_id: str) -> bytes:
        """As the scripts read them."""
        ...


class Loader(Protocol):
    """See `rebuild.Rebuilder`."""

    @property
    def watermark(self) -> int:
        """The watermark that counts."""
        ...

    async def load(self, users: Sequence[Missing]) -> None:
        """Load counters of users, as far as possible now."""
        ...

    async def raise_watermark(self, moment: int = 0) -> None:
        """Share a watermark."""
        ...


class QuotaService:
    """Decides and counts. Raises `CountersUnavailable` when Redis gives no answer in time."""

    def __init__(self, counters: CounterStore, plans: PlanBook, loader: Loader, clock: Clock) -> None:
        self._counters = counters
        self._plans = plans
        self._loader = loader
        self._clock = clock

    async def consume(self, charges: Sequence[tuple[str, Charge]]) -> tuple[list[Decision], int]:
        """Decide pairs of user and charge, in order; the decisions, and until when they are held.

        The moment is 0 when nothing could be decided.
        """
        groups: dict[str, list[Charge]] = {}
        places = []
        for user_id, charge in charges:
            group = groups.get(user_id)
            if group is None:
                group = groups[user_id] = []
            places.append((user_id, len(group)))
            group.append(charge)
        packed = self._plans.packed
        todo = [(user_id, packed(user_id), group) for user_id, group in groups.items()]
        outcome = await self._counters.consume(todo)
        lease_end = outcome.lease_end
        for _ in range(ROUNDS):
            if not outcome.missing:
                break
            await self._loader.load(outcome.missing)
            again = {user.user_id for user in outcome.missing}
            repeated = await self._counters.consume([group for group in todo if group[0] in again])
            outcome.decisions.update(repeated.decisions)
            lease_end = min(lease_end, repeated.lease_end or lease_end)
            if len(repeated.missing) == len(outcome.missing) and not any(
                new.version != old.version for new, old in zip(repeated.missing, outcome.missing, strict=True)
            ):
                break  # nothing changed: they can't be loaded now
            outcome.missing = repeated.missing
        metrics.RELEASED.inc(outcome.released)
        nothing = undecided(RETRY)
        answers = []
        for user_id, place in places:
            decided = outcome.decisions.get(user_id)
            answers.append(nothing if decided is None else decided[place])
        _count(charges, answers)
        return answers, lease_end

    async def refund(self, refs: Sequence[tuple[str, ChargeRef]]) -> list[int]:
        """Take charges back; the units taken back, in order."""
        groups, places = _grouped(refs)
        done = await self._counters.refund(groups)
        units = [done[user_id][place] if user_id in done else 0 for user_id, place in places]
        metrics.REFUNDED.inc(sum(units))
        return units

    async def settle(self, refs: Sequence[tuple[str, ChargeRef]], watermark: int) -> tuple[int, int]:
        """Make charges final, then let the watermark count: charges settled, units taken back.

        `watermark` is in epoch microseconds; 0: nothing is known.
        """
        settled = released = 0
        stale: set[str] = set()
        # In lists that neither hold up Redis nor overflow the stack of Lua's unpack.
        for start in range(0, len(refs), SETTLE_LIST):
            groups, _ = _grouped(refs[start : start + SETTLE_LIST])
            done = await self._counters.settle(groups, self._loader.watermark)
            settled, released = settled + done[0], released + done[1]
            stale.update(done[2])
        if watermark:
            # Only now: before, it would not have been true of these charges.
            await self._loader.raise_watermark(watermark)
            metrics.WATERMARK.set(watermark / 1e6)
        for user_id in stale:
            await self._look(Query(user_id, Pool.FREE), tries=1)
        metrics.SETTLED.inc(settled)
        metrics.RELEASED.inc(released)
        return settled, released

    async def inspect(self, query: Query) -> Inspection:
        """One caller's limits. Raises `CountersRebuilding` while their counters can't be loaded."""
        found = await self._look(query, tries=ROUNDS)
        if found is None:
            raise CountersRebuilding(retry_after=RETRY / 1e6)
        return found

    def plan_of(self, query: Query) -> Plan:
        """The limits that a caller's pool has."""
        return self._plans.of(query.user_id).of(query.pool)

    async def _look(self, query: Query, tries: int) -> Inspection | None:
        for _ in range(tries):
            found = await self._counters.inspect(query, self.plan_of(query))
            if isinstance(found, Inspection):
                return found
            await self._loader.load([found])
        found = await self._counters.inspect(query, self.plan_of(query))
        return found if isinstance(found, Inspection) else None


def _grouped(
    refs: Sequence[tuple[str, ChargeRef]],
) -> tuple[dict[str, list[ChargeRef]], list[tuple[str, int]]]:
    groups: dict[str, list[ChargeRef]] = {}
    places = []
    for user_id, ref in refs:
        group = groups.setdefault(user_id, [])
        places.append((user_id, len(group)))
        group.append(ref)
    return groups, places


_limit_names: Final = {limit.value: limit.name.lower() for limit in Limit}


def _count(charges: Sequence[tuple[str, Charge]], answers: Sequence[Decision]) -> None:
    """Add a list to the metrics, once a result and not once a charge."""
    results: Counter[str] = Counter()
    for (_, charge), answer in zip(charges, answers, strict=True):
        if answer.granted == charge.cost:
            results["granted"] += 1
        elif answer.undecided:
            results["undecided"] += 1
        else:
            results["partial" if answer.granted else _limit_names[answer.denied_by]] += 1
        if answer.shadow_denied_by:
            metrics.SHADOW.labels(_limit_names[answer.shadow_denied_by]).inc()
    for result, count in results.items():
        metrics.DECISIONS.labels(result).inc(count)
