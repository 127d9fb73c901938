"""What the scripts must do, written down a second time: plain, slow, and without Redis.

A rate is modelled as a bucket that drains, in whole microseconds; days and leases as in domain.py. The
property tests hold the scripts against it after every step.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from services.quota.domain import DAY, NO_KEY, Charge, Limit, Plan, UserPlans, interval


@dataclass
class Bucket:
    """A rate: `level` microseconds of work are waiting at `at`, and drain one a microsecond."""

    level: int = 0
    at: int = 0

    def drained(self, now: int) -> int:
        return max(0, self.level - (now - self.at))

    def room(self, every: int, burst: int, now: int) -> int:
        return max(0, (burst * every - self.drained(now)) // every)

    def pour(self, amount: int, now: int) -> None:
        self.level, self.at = self.drained(now) + amount, now

    def wait(self, units: int, every: int, burst: int, now: int) -> int:
        """Until so many units have room."""
        return max(0, self.drained(now) + units * every - burst * every)


@dataclass
class Held:
    """A charge that was granted."""

    charge: Charge
    granted: int
    day: int
    at: int
    lease: int
    every: int
    key_every: int
    left: int
    settled: int = 0
    refunded: bool = False
    final: bool = False


@dataclass
class User:
    """One user's counters."""

    day: int = 0
    counts: dict[object, int] = field(default_factory=dict)
    buckets: dict[object, Bucket] = field(default_factory=dict)
    held: dict[bytes, Held] = field(default_factory=dict)

    def count(self, what: object) -> int:
        return self.counts.get(what, 0)

    def bucket(self, what: object) -> Bucket:
        return self.buckets.setdefault(what, Bucket())


Answer = tuple[int, int, int, int]
"""Granted, day, denied by, wait."""


class Model:
    """Users, a clock, a watermark."""

    def __init__(self, now: int, lease: int) -> None:
        self.now = now
        self.lease = lease
        self.watermark = 0
        self.users: dict[str, User] = {}

    def user(self, user_id: str) -> User:
        """A user's state at this moment: a new day begun, abandoned charges taken back."""
        user = self.users.setdefault(user_id, User())
        if self.now // DAY > user.day:
            user.day = self.now // DAY
            user.counts.clear()
        for id_, held in list(user.held.items()):
            if held.lease <= min(self.watermark, self.now):
                if not held.final:
                    self._give_back(user, held, held.left - held.settled)
                del user.held[id_]
        return user

    def consume(self, user_id: str, charge: Charge, plans: UserPlans) -> Answer:
        user = self.user(user_id)
        known = user.held.get(charge.id)
        if known is not None:
            if not known.final:
                known.lease = self.now + self.lease
            return known.granted, known.day, 0, 0
        plan = plans.api_key if charge.api_key else plans.free
        every, key_every = interval(plan.per_minute), interval(charge.key_per_minute)
        pool: object = "k" if charge.api_key else "f"
        rooms = self._rooms(user, charge, plan, pool)
        least = min((room for room, _, _ in rooms.values()), default=charge.cost)
        granted = charge.cost if least >= charge.cost else (least if charge.partial else 0)
        denied = wait = 0
        if granted < charge.cost:
            need = granted + 1 if charge.partial else charge.cost
            for kind, (room, rate, burst) in rooms.items():
                if room >= need:
                    continue
                this = (user.day + 1) * DAY - self.now
                if rate:
                    what = pool if kind is Limit.USER_MINUTE else charge.key_id
                    want = min(need, granted + burst)
                    this = user.bucket(what).wait(want, rate, burst, self.now)
                if not denied or this > wait:
                    denied, wait = kind.value, this
        if granted:
            self._count(user, pool, granted, every)
            if charge.key_id != NO_KEY:
                self._count(user, charge.key_id, granted, key_every)
            user.held[charge.id] = Held(
                charge, granted, user.day, self.now, self.now + self.lease, every, key_every, granted
            )
        return granted, user.day if granted else 0, denied, wait

    def refund(self, user_id: str, id_: bytes, units: int) -> int:
        user = self.user(user_id)
        held = user.held.get(id_)
        if held is None or held.final or held.refunded:
            return 0
        back = held.left - held.settled
        if units:
            back = min(back, units)
        self._give_back(user, held, back)
        held.left -= back
        held.refunded = True
        if not held.left:
            del user.held[id_]
        return back

    def settle(self, user_id: str, id_: bytes, units: int) -> bool:
        """False when nobody knows the charge."""
        user = self.user(user_id)
        held = user.held.get(id_)
        if held is None:
            return False
        if not held.final:
            committed = units or held.left
            if committed > held.left:
                self._give_back(user, held, held.left - committed)
                held.left = committed
            held.settled = max(held.settled, committed)
            held.final = held.settled == held.left
        return True

    def _rooms(
        self, user: User, charge: Charge, plan: Plan, pool: object
    ) -> dict[Limit, tuple[int, int, int]]:
        """Room, interval, burst of each limit that applies."""
        rooms = {}
        if plan.daily >= 0:
            rooms[Limit.USER_DAY] = (max(0, plan.daily - user.count(pool)), 0, 0)
        if plan.per_minute:
            every = interval(plan.per_minute)
            rooms[Limit.USER_MINUTE] = (
                user.bucket(pool).room(every, plan.burst, self.now), every, plan.burst,
            )  # fmt: skip
        if charge.key_id != NO_KEY and charge.key_daily:
            rooms[Limit.KEY_DAY] = (max(0, charge.key_daily - user.count(charge.key_id)), 0, 0)
        if charge.key_id != NO_KEY and charge.key_per_minute:
            every, burst = interval(charge.key_per_minute), charge.key_per_minute
            room = user.bucket(charge.key_id).room(every, burst, self.now)
            rooms[Limit.KEY_MINUTE] = (room, every, burst)
        return rooms

    def _count(self, user: User, what: object, n: int, every: int) -> None:
        user.counts[what] = user.count(what) + n
        if every:
            user.bucket(what).pour(n * every, self.now)

    def _give_back(self, user: User, held: Held, n: int) -> None:
        pool: object = "k" if held.charge.api_key else "f"
        targets = [(pool, held.every)]
        if held.charge.key_id != NO_KEY:
            targets.append((held.charge.key_id, held.key_every))
        for what, every in targets:
            if held.day == user.day:
                user.counts[what] = user.count(what) - n
            bucket = user.bucket(what)
            credit = max(0, n * every - (self.now - held.at))
            bucket.pour(-min(credit, bucket.drained(self.now)), self.now)
