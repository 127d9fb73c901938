"""The coalescing batcher: what waits leaves as one list, what arrives meanwhile is the next list.

    batcher = Batcher(sign_all, name="sign")
    signature = await batcher.submit(request)

Under no load an item leaves at once, alone. Under load lists grow by themselves to what arrives
during one run, and the cost of a run's hops is shared by all of its members. One list is in flight
by default: with more of them the lists shrink, and measured throughput falls.

Guarantees, for every member:
- it gets its own result or its own exception, or the run's exception when the whole run failed;
- it runs at most once; it never runs if its caller went away, or its deadline passed, before its
  list left. Once the list has left it runs to the end, whoever still waits;
- order within a list is order of arrival.

At most `max_waiting` items wait; the next one is refused at once (`Overloaded`), so that delay stays
bounded by the time of `max_waiting / max_batch` runs. Where callers name an `owner`, one owner's items take
at most as many places as are still free: a greedy one is refused (`ShareUsed`) while others find room.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Any, Generic, TypeVar, cast

from servicekit import log
from servicekit.errors import DeadlineExceeded, Internal, ResourceExhausted, SigngateError, Unavailable
from servicekit.slots import Shares
from servicekit.telemetry import BATCH_REFUSED, BATCH_SIZE, BATCH_WAITING

T = TypeVar("T")
R = TypeVar("R")

_log = log.get("batching")

# Of one waiting entry: (items, future, deadline, single, owner). A tuple, for it is made on every request.
_Entry = tuple[Sequence[Any], "asyncio.Future[Any]", float | None, bool, str]


class Overloaded(Unavailable):
    """Too many wait already; refused before anything was done."""

    reason = "OVERLOADED"
    message = "Too many requests are waiting. Try again shortly."


class ShareUsed(ResourceExhausted):
    """An owner has all the waiting places that one may have; refused before anything was done."""

    reason = "ACCOUNT_BUSY"
    message = "Too many of your requests are waiting. Send fewer at once, or try again shortly."


class Closed(Unavailable):
    """The process is stopping; refused before anything was done."""

    reason = "SHUTTING_DOWN"
    message = "This server is stopping. Try again; another will answer."


class Batcher(Generic[T, R]):
    """Runs lists of items through `run`, which answers each in order with a result or an exception.

    `run` gets 1 to `max_batch` items and runs outside any call's context. Its list of answers must
    have as many members as it was given; an `Exception` among them is raised to that member.

    With `settle`, a list under load leaves only after so many turns of the event loop in which nothing
    more arrived: requests that were half read then go along. An idle loop makes those turns at once,
    a busy one uses them for the requests, so nothing waits for a clock; a lone item never waits.
    """

    def __init__(
        self,
        run: Callable[[list[T]], Awaitable[Sequence[R | Exception]]],
        *,
        name: str,
        max_batch: int = 256,
        max_waiting: int = 4096,
        in_flight: int = 1,
        retry_after: float = 0.2,
        settle: int = 0,
    ) -> None:
        if not (0 < max_batch <= max_waiting and in_flight > 0):
            raise ValueError("0 < max_batch <= max_waiting, and at least one in flight")
        self._run = run
        self._name = name
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._in_flight = in_flight
        self._retry_after = retry_after
        self._settle = settle
        self._queue: deque[_Entry] = deque()
        self._waiting = 0  # items in the queue, also those whose callers went away
        self._shares = Shares(max_waiting)  # of the items whose callers name an owner
        self._gone = 0  # callers that went away, an upper bound for entries that can be purged
        self._workers: set[asyncio.Task[None]] = set()
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._observe_size = BATCH_SIZE.series(name).observe
        BATCH_WAITING.labels(name).set_function(lambda: self._waiting)

    @property
    def waiting(self) -> int:
        """Items that wait for the next list."""
        return self._waiting

    async def submit(self, item: T, deadline: float | None = None, owner: str = "") -> R:
        """The item's result. `deadline` is on the loop's (monotonic) scale.

        Raises the item's or the run's exception, `Overloaded`, `ShareUsed`, `Closed`, or
        `DeadlineExceeded` when the deadline had passed by the time its list left.
        """
        future = self._enqueue((item,), deadline, owner, single=True)
        try:
            return cast("R", await future)
        except asyncio.CancelledError:
            self._gone += 1
            raise

    async def submit_many(
        self, items: Sequence[T], deadline: float | None = None, owner: str = ""
    ) -> list[R | Exception]:
        """The answers to a whole list, in order: results and exceptions, none raised for one member.

        Longer lists than `max_batch` leave in parts. Raises `Overloaded`, `ShareUsed` or `Closed` before
        any of them is run. Failures of a run stand as the answers of that part.
        """
        parts = [items[at : at + self._max_batch] for at in range(0, len(items), self._max_batch)]
        self._admit(len(items), owner)
        futures = [self._enqueue(part, deadline, owner, single=False, admitted=True) for part in parts]
        answers: list[R | Exception] = []
        try:
            for part, future in zip(parts, futures, strict=True):
                try:
                    answers += await future
                except Exception as error:  # noqa: BLE001  # whatever it was is those members' answer
                    answers += [error] * len(part)
        except asyncio.CancelledError:
            for future in futures:
                future.cancel()
            self._gone += len(futures)
            raise
        return answers

    async def close(self) -> None:
        """Take nothing new, run what waits, and return when the last list is done."""
        self._closed = True
        while self._workers:
            await asyncio.wait(self._workers)

    def _enqueue(
        self, items: Sequence[T], deadline: float | None, owner: str, *, single: bool, admitted: bool = False
    ) -> asyncio.Future[Any]:
        if self._closed:
            BATCH_REFUSED.labels(self._name, "closed").inc()
            raise Closed(retry_after=self._retry_after)
        if not admitted:
            self._admit(len(items), owner)
        if owner:
            self._shares.take(owner, len(items))
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._queue.append((items, future, deadline, single, owner))
        self._waiting += len(items)
        if len(self._workers) < self._in_flight:
            # The worker's first step comes after all that is ready to run in this turn of the loop,
            # so requests that arrived together leave together. It runs in no call's context: the
            # list belongs to no single one of its members.
            worker = loop.create_task(self._work(), name=f"batcher-{self._name}", context=Context())
            self._workers.add(worker)
        return future

    def _admit(self, wanted: int, owner: str) -> None:
        """Raises `Overloaded` when there is no room, `ShareUsed` when the owner's share is used."""
        if self._has_room(wanted, owner):
            return
        self._purge()
        if self._waiting + wanted > self._max_waiting:
            BATCH_REFUSED.labels(self._name, "full").inc(wanted)
            raise Overloaded(retry_after=self._retry_after)
        if not self._has_room(wanted, owner):
            BATCH_REFUSED.labels(self._name, "share").inc(wanted)
            raise ShareUsed(retry_after=self._retry_after)

    def _has_room(self, wanted: int, owner: str) -> bool:
        if self._waiting + wanted > self._max_waiting:
            return False
        return not owner or self._shares.has_room(owner, wanted)

    def _purge(self) -> None:
        """Drop entries whose callers went away."""
        if not self._gone:
            return
        self._gone = 0
        left: deque[_Entry] = deque()
        for entry in self._queue:
            if entry[1].cancelled():
                self._left(entry)
            else:
                left.append(entry)
        self._queue = left

    def _left(self, entry: _Entry) -> None:
        """An entry has left the queue."""
        count, owner = len(entry[0]), entry[4]
        self._waiting -= count
        if owner:
            self._shares.give_back(owner, count)

    async def _work(self) -> None:
        try:
            under_load = False
            while True:
                if self._settle and (under_load or self._waiting > 1):
                    await self._settled()
                entries = self._take()
                if not entries:
                    return
                under_load = len(entries) > 1
                await self._run_list(entries)
        finally:
            worker = asyncio.current_task()
            if worker is not None:
                self._workers.discard(worker)

    async def _settled(self) -> None:
        """Return when nothing has arrived for `settle` turns of the loop, or a list is full."""
        still, seen = 0, self._waiting
        while still < self._settle and seen < self._max_batch:
            await asyncio.sleep(0)
            still = still + 1 if self._waiting == seen else 0
            seen = self._waiting

    def _take(self) -> list[_Entry]:
        queue, loop = self._queue, asyncio.get_running_loop()
        taken: list[_Entry] = []
        room = self._max_batch
        now = None
        while queue and len(queue[0][0]) <= room:
            entry = queue.popleft()
            items, future, deadline, _, _ = entry
            self._left(entry)
            if future.done():
                continue
            if deadline is not None:
                now = now or loop.time()
                if now >= deadline:
                    BATCH_REFUSED.labels(self._name, "late").inc(len(items))
                    future.set_exception(DeadlineExceeded())
                    continue
            room -= len(items)
            taken.append(entry)
        return taken

    async def _run_list(self, entries: list[_Entry]) -> None:
        items = [item for entry in entries for item in entry[0]]
        self._observe_size(len(items))
        try:
            answers = await self._run(items)
            if len(answers) != len(items):
                raise RuntimeError(f"{len(answers)} answers to {len(items)} items")
        except SigngateError as error:
            _fail(entries, error)
        except Exception:  # noqa: BLE001  # whatever it was, its members must hear of it
            # Logged once here, not once a member.
            _log.exception("a list failed", batcher=self._name, size=len(items))
            _fail(entries, Internal())
        except BaseException:
            # Cancelled from outside: nobody may be left waiting for ever.
            _fail(entries, Closed(retry_after=self._retry_after))
            raise
        else:
            _deliver(entries, answers)


def _deliver(entries: list[_Entry], answers: Sequence[Any]) -> None:
    at = 0
    for items, future, _, single, _ in entries:
        if future.done():
            at += len(items)
        elif single:
            answer = answers[at]
            at += 1
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
        else:
            future.set_result(list(answers[at : at + len(items)]))
            at += len(items)


def _fail(entries: list[_Entry], error: SigngateError) -> None:
    for _, future, _, _, _ in entries:
        if not future.done():
            future.set_exception(error.again())
