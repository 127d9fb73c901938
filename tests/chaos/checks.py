"""What must be true afterwards, from the clients' record, the tables and the counters."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from signgate_client import Signgate, SigngateError
from signgate_client.aio import AsyncSigngate
from tests.chaos.load import OVER_DAY, Account, Record, sign
from tests.chaos.system import System

_rows: Final = """
SELECT user_id::text AS user, id::text AS id, count(*) AS rows, bool_and(success) AS good
FROM usage_logs WHERE user_id = ANY($1::uuid[]) GROUP BY 1, 2
"""
_days: Final = """
SELECT user_id::text AS user, charged_day AS day, sum(charged) AS charged
FROM usage_logs WHERE user_id = ANY($1::uuid[]) AND success GROUP BY 1, 2
"""
_counted: Final = """
SELECT user_id::text AS user, date AS day, request_count AS charged
FROM quota_usage WHERE user_id = ANY($1::uuid[]) AND request_count <> 0
"""


@dataclass
class Verdict:
    """What was found; each finding says what it is."""

    lost: list[str] = field(default_factory=list)
    duplicate: list[str] = field(default_factory=list)
    over_admitted: list[str] = field(default_factory=list)
    wrongly_refused: list[str] = field(default_factory=list)
    books: list[str] = field(default_factory=list)
    """What the system's own reconciliation says differs."""
    over_admitted_units: int = 0
    unanswered: int = 0
    """Signatures that are recorded and charged, whose answer never reached its client."""
    rows: int = 0
    longest_gap: float = 0.0

    @property
    def good(self) -> bool:
        """Whether there is nothing in any of the lists."""
        return not (self.lost or self.duplicate or self.over_admitted or self.wrongly_refused or self.books)

    def line(self) -> str:
        """The closing line, which others read: its form is fixed. The books have a line of their own."""
        return (
            f"lost {len(self.lost)}, duplicate {len(self.duplicate)}, "
            f"over-admitted {self.over_admitted_units}, "
            f"wrongly refused {len(self.wrongly_refused)}, longest gap {self.longest_gap:.1f} s"
        )


async def use_up(system: System, record: Record, seconds: float) -> None:
    """Let limited users sign until they are refused; meanwhile reservations of the dead are taken back."""
    for account in record.accounts.values():
        if account.user.limited:
            async with AsyncSigngate(system.edge, api_key=account.user.key) as client:
                await _use_up(client, account, record, seconds)


async def _use_up(client: AsyncSigngate, account: Account, record: Record, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and len(account.acknowledged) < account.user.daily:
        if not await sign(client, account, record, 1, 0):
            await asyncio.sleep(1.0)
    for _ in range(5):  # and not one more
        await sign(client, account, record, 1, 0)


async def examine(system: System, record: Record, seconds: float) -> Verdict:
    """Compare the record with everything that the system says. The streams must be drained.

    `seconds`: how long counters have to come to rest.
    """
    verdict = Verdict()
    sql = await system.sql()
    ids = [account.user.user_id for account in record.accounts.values()]
    try:
        rows = await sql.fetch(_rows, ids)
        days = await sql.fetch(_days, ids)
        counted = await sql.fetch(_counted, ids)
    finally:
        await sql.close()
    names = {account.user.user_id: account.user.name for account in record.accounts.values()}
    good = {(row["user"], row["id"]) for row in rows if row["good"]}
    for row in rows:
        verdict.rows += row["rows"]
        if row["rows"] > 1:
            verdict.duplicate.append(f"{names[row['user']]}: {row['id']} has {row['rows']} rows")
    verdict.duplicate += [f"request id {one} was given twice" for one in record.twice]
    for account in record.accounts.values():
        user_id = account.user.user_id
        verdict.lost += [
            f"{account.user.name}: {one} has no row"
            for one in account.acknowledged
            if (user_id, one) not in good
        ]
        signed = sum(1 for user, _ in good if user == user_id)
        verdict.unanswered += signed - len(account.acknowledged)
    if dead := system.dead_letters():
        verdict.lost.append(f"{dead} entries were set aside as dead letters")
    _limits(verdict, record, days)
    _counts(verdict, names, days, counted)
    await asyncio.to_thread(_counters, system, record, verdict, days, seconds)
    verdict.wrongly_refused += record.wrongly_refused
    verdict.books += await asyncio.to_thread(system.reconcile)
    return verdict


def _limits(verdict: Verdict, record: Record, days: Sequence[Any]) -> None:
    """Nobody got more than the plan; and whoever was refused had all of it."""
    for account in record.accounts.values():
        user = account.user
        of_user = [int(row["charged"]) for row in days if row["user"] == user.user_id]
        for charged in of_user:
            if charged > user.daily:
                verdict.over_admitted_units += charged - user.daily
                verdict.over_admitted.append(f"{user.name}: {charged} of {user.daily}")
        if user.limited and len(of_user) == 1 and of_user[0] < user.daily:
            verdict.wrongly_refused.append(
                f"{user.name}: refused for good after {of_user[0]} of {user.daily}"
            )


def _counts(verdict: Verdict, names: dict[str, str], days: Sequence[Any], counted: Sequence[Any]) -> None:
    """`quota_usage` says what the rows say."""
    rows = {(row["user"], row["day"]): int(row["charged"]) for row in days if row["charged"]}
    counts = {(row["user"], row["day"]): int(row["charged"]) for row in counted}
    for key in rows.keys() | counts.keys():
        there, told = rows.get(key, 0), counts.get(key, 0)
        text = f"{names[key[0]]}, {key[1]}: {there} in rows, {told} in quota_usage"
        if told > there:
            verdict.duplicate.append(text)
        elif told < there:
            verdict.over_admitted_units += there - told
            verdict.over_admitted.append(text)


def _counters(system: System, record: Record, verdict: Verdict, days: Sequence[Any], seconds: float) -> None:
    """Redis counts what the rows say, once reservations that nobody published are taken back."""
    today = time.gmtime().tm_yday
    end = time.monotonic() + seconds
    for account in record.accounts.values():
        user = account.user
        of_user = [row for row in days if row["user"] == user.user_id]
        charged = sum(int(row["charged"]) for row in of_user if row["day"].timetuple().tm_yday == today)
        with Signgate(system.edge, api_key=user.key) as client:
            while (used := _used(client, end)) != charged and time.monotonic() < end:
                time.sleep(0.5)
        text = f"{user.name}: {charged} in rows, {used} in Redis"
        if used > charged:
            verdict.wrongly_refused.append(text)
        elif used < charged:
            verdict.over_admitted_units += charged - used
            verdict.over_admitted.append(text)


def _used(client: Signgate, end: float) -> int:
    """What Redis counts. A machine that is too busy to say so in time is asked again until `end`."""
    while True:
        try:
            return max((int(pool.used_today) for pool in client.quota().pools), default=0)
        except SigngateError:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)


def gaps(times: Sequence[float], marks: Sequence[float], end: float) -> list[float]:
    """For each mark: the longest time without a success that began after it and before the next, in seconds.

    One that goes on past the next mark counts whole, with the mark after which it began. `times` ascend.
    """
    found = []
    for begin, until in zip(marks, [*marks[1:], end], strict=True):
        first, last = bisect_left(times, begin), bisect_left(times, until)
        after = times[last] if last < len(times) else end
        edges = [begin, *times[first:last], after]
        found.append(max(later - earlier for earlier, later in pairwise(edges)))
    return found


def used_up(record: Record) -> bool:
    """Whether some limited user was refused: otherwise the run has shown nothing about limits."""
    return any(account.refused for account in record.accounts.values() if account.user.limited) and bool(
        record.reasons[OVER_DAY]
    )
