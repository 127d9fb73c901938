"""The batcher: own result or own error, at most once, never for who has gone; bounded waiting."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from servicekit import context
from servicekit.batching import Batcher, Closed, Overloaded, ShareUsed
from servicekit.errors import DeadlineExceeded, Internal, InvalidArgument, Unavailable


class Line:
    """Answers every item with its double, in lists that a test holds back and lets go."""

    def __init__(self) -> None:
        self.lists: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.running = self.most = 0

    async def __call__(self, items: list[int]) -> Sequence[int | Exception]:
        self.lists.append(items)
        self.running += 1
        self.most = max(self.most, self.running)
        await self.gate.wait()
        self.running -= 1
        return [InvalidArgument(str(item)) if item < 0 else item * 2 for item in items]


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_an_item_alone_leaves_at_once() -> None:
    line = Line()
    batcher = Batcher(line, name="t")
    assert await batcher.submit(3) == 6
    assert line.lists == [[3]]


async def test_what_arrives_together_leaves_together_in_order() -> None:
    line = Line()
    batcher = Batcher(line, name="t")
    assert await asyncio.gather(*(batcher.submit(n) for n in range(10))) == [n * 2 for n in range(10)]
    assert line.lists == [list(range(10))]


async def test_what_arrives_during_a_run_is_the_next_list() -> None:
    line = Line()
    batcher = Batcher(line, name="t")
    line.gate.clear()
    first = asyncio.create_task(batcher.submit(1))
    await settle()
    rest = [asyncio.create_task(batcher.submit(n)) for n in (2, 3, 4)]
    await settle()
    assert line.lists == [[1]]
    assert batcher.waiting == 3
    line.gate.set()
    await asyncio.gather(first, *rest)
    assert line.lists == [[1], [2, 3, 4]]
    assert line.most == 1


async def test_as_many_lists_are_in_flight_as_configured() -> None:
    line = Line()
    batcher = Batcher(line, name="t", in_flight=2, max_batch=1)
    line.gate.clear()
    tasks = [asyncio.create_task(batcher.submit(n)) for n in range(6)]
    await settle()
    line.gate.set()
    await asyncio.gather(*tasks)
    assert line.most == 2


async def test_each_member_gets_its_own_error() -> None:
    batcher = Batcher(Line(), name="t")
    answers = await asyncio.gather(*(batcher.submit(n) for n in (1, -2, 3)), return_exceptions=True)
    assert answers[0] == 2
    assert isinstance(answers[1], InvalidArgument)
    assert answers[1].message == "-2"
    assert answers[2] == 6


async def test_a_run_that_fails_with_a_known_error_fails_every_member_with_its_own_copy() -> None:
    async def down(items: list[int]) -> Sequence[int]:
        raise Unavailable(reason="PEER_UNAVAILABLE", retry_after=1.0)

    batcher = Batcher(down, name="t")
    one, two = await asyncio.gather(batcher.submit(1), batcher.submit(2), return_exceptions=True)
    assert isinstance(one, Unavailable)
    assert isinstance(two, Unavailable)
    assert one is not two
    assert one.reason == two.reason == "PEER_UNAVAILABLE"


@pytest.mark.parametrize("answers", [None, [1], [1, 2, 3]])
async def test_a_run_that_breaks_is_logged_once_and_tells_members_nothing(
    answers: list[int] | None,
) -> None:
    async def broken(items: list[int]) -> Sequence[int]:
        if answers is None:
            raise KeyError("hunter2")
        return answers

    batcher = Batcher(broken, name="t")
    with capture_logs() as logged:
        failures = await asyncio.gather(batcher.submit(1), batcher.submit(2), return_exceptions=True)
    assert all(isinstance(failure, Internal) for failure in failures)
    assert "hunter2" not in repr(failures)
    assert [line["event"] for line in logged] == ["a list failed"]


async def test_the_batcher_goes_on_after_a_failure() -> None:
    fail = True

    async def once(items: list[int]) -> Sequence[int]:
        if fail:
            raise Unavailable
        return items

    batcher = Batcher(once, name="t")
    with pytest.raises(Unavailable):
        await batcher.submit(1)
    fail = False
    assert await batcher.submit(2) == 2


async def test_a_caller_that_goes_away_while_waiting_is_never_run() -> None:
    """A cancelled request must not be charged."""
    line = Line()
    batcher = Batcher(line, name="t")
    line.gate.clear()
    first = asyncio.create_task(batcher.submit(1))
    await settle()
    gone, stays = asyncio.create_task(batcher.submit(2)), asyncio.create_task(batcher.submit(3))
    await settle()
    gone.cancel()
    await settle()
    line.gate.set()
    assert [await first, await stays] == [2, 6]
    assert line.lists == [[1], [3]]


async def test_a_caller_that_goes_away_during_the_run_harms_no_other() -> None:
    line = Line()
    batcher = Batcher(line, name="t")
    line.gate.clear()
    gone, stays = asyncio.create_task(batcher.submit(1)), asyncio.create_task(batcher.submit(2))
    await settle()
    gone.cancel()
    line.gate.set()
    assert await stays == 4
    assert gone.cancelled() or gone.cancelling()


async def test_a_deadline_that_passes_while_waiting_is_told_and_the_item_not_run() -> None:
    line = Line()
    batcher = Batcher(line, name="t")
    line.gate.clear()
    first = asyncio.create_task(batcher.submit(1))
    await settle()
    now = asyncio.get_running_loop().time()
    late, timely = (
        asyncio.create_task(batcher.submit(2, deadline=now)),
        asyncio.create_task(batcher.submit(3, deadline=now + 60)),
    )
    await settle()
    line.gate.set()
    with pytest.raises(DeadlineExceeded):
        await late
    assert [await first, await timely] == [2, 6]
    assert line.lists == [[1], [3]]


async def test_beyond_max_waiting_items_are_refused_at_once_with_a_hint() -> None:
    line = Line()
    batcher = Batcher(line, name="t", max_batch=2, max_waiting=2)
    line.gate.clear()
    first = asyncio.create_task(batcher.submit(1))
    await settle()
    rest = [asyncio.create_task(batcher.submit(n)) for n in (2, 3)]
    await settle()
    with pytest.raises(Overloaded) as caught:
        await batcher.submit(4)
    assert caught.value.reason == "OVERLOADED"
    assert caught.value.retry_after is not None
    line.gate.set()
    await asyncio.gather(first, *rest)


async def test_those_who_went_away_make_room() -> None:
    """Otherwise impatient callers alone could keep the queue full."""
    line = Line()
    batcher = Batcher(line, name="t", max_batch=2, max_waiting=2)
    line.gate.clear()
    first = asyncio.create_task(batcher.submit(1))
    await settle()
    gone = [asyncio.create_task(batcher.submit(n)) for n in (2, 3)]
    await settle()
    for task in gone:
        task.cancel()
    await settle()
    fresh = asyncio.create_task(batcher.submit(4))
    await settle()
    line.gate.set()
    assert [await first, await fresh] == [2, 8]


async def test_a_list_keeps_its_order_and_leaves_in_parts() -> None:
    line = Line()
    batcher = Batcher(line, name="t", max_batch=4)
    answers = await batcher.submit_many([1, 2, -3, 4, 5, 6])
    assert [answer for answer in answers if isinstance(answer, int)] == [2, 4, 8, 10, 12]
    assert isinstance(answers[2], InvalidArgument)
    assert line.lists == [[1, 2, -3, 4], [5, 6]]
    assert await batcher.submit_many([]) == []


async def test_a_list_that_finds_no_room_is_refused_whole() -> None:
    line = Line()
    batcher = Batcher(line, name="t", max_batch=2, max_waiting=3)
    with pytest.raises(Overloaded):
        await batcher.submit_many([1, 2, 3, 4])
    assert line.lists == []


async def test_a_failed_run_is_the_answer_of_a_lists_members() -> None:
    async def down(items: list[int]) -> Sequence[int]:
        raise Unavailable(reason="PEER_UNAVAILABLE")

    answers = await Batcher(down, name="t").submit_many([1, 2])
    assert [type(answer) for answer in answers] == [Unavailable, Unavailable]


async def test_a_cancelled_list_is_not_run() -> None:
    line = Line()
    batcher = Batcher(line, name="t", max_batch=2)
    line.gate.clear()
    first = asyncio.create_task(batcher.submit(1))
    await settle()
    gone = asyncio.create_task(batcher.submit_many([2, 3, 4]))
    await settle()
    gone.cancel()
    await settle()
    line.gate.set()
    await first
    await batcher.close()
    assert line.lists == [[1]]


async def test_close_runs_what_waits_and_refuses_what_is_new() -> None:
    line = Line()
    batcher = Batcher(line, name="t")
    line.gate.clear()
    tasks = [asyncio.create_task(batcher.submit(1))]
    await settle()
    tasks.append(asyncio.create_task(batcher.submit(2)))
    await settle()
    closing = asyncio.create_task(batcher.close())
    await settle()
    with pytest.raises(Closed):
        await batcher.submit(3)
    assert not closing.done()
    line.gate.set()
    await closing
    assert await asyncio.gather(*tasks) == [2, 4]


async def test_a_list_runs_in_no_single_callers_context() -> None:
    """One member's request id must not be passed on, or logged, for all of them."""
    seen: list[object] = []

    async def look(items: list[int]) -> Sequence[int]:
        seen.append(context.current())
        return items

    batcher = Batcher(look, name="t")

    async def call() -> None:
        context.enter(context.CallContext("request-1"))
        await batcher.submit(1)

    await asyncio.create_task(call())
    assert seen == [None]


def test_limits_that_make_no_sense_are_refused() -> None:
    for limits in ({"max_batch": 0}, {"max_batch": 5, "max_waiting": 4}, {"in_flight": 0}):
        with pytest.raises(ValueError, match="max_batch"):
            Batcher(Line(), name="t", **limits)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("one"), st.integers(-3, 50)),
        st.tuples(st.just("many"), st.lists(st.integers(-3, 50), max_size=7)),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("turn"), st.integers(1, 3)),
        st.tuples(st.just("hold"), st.booleans()),
    ),
    max_size=40,
)


@given(STEPS, st.integers(1, 5), st.integers(1, 3))
def test_whatever_happens_every_caller_is_answered_rightly(
    steps: list[tuple[str, Any]], max_batch: int, in_flight: int
) -> None:
    """Any order of arrivals, cancellations, failures and delays: own answer, once, none left over."""

    async def play() -> None:
        line = Line()
        batcher = Batcher(line, name="t", max_batch=max_batch, max_waiting=20, in_flight=in_flight)
        calls: list[tuple[Any, asyncio.Task[Any]]] = []
        for action, value in steps:
            if action == "one":
                calls.append((value, asyncio.create_task(batcher.submit(value))))
            elif action == "many":
                calls.append((value, asyncio.create_task(batcher.submit_many(value))))
            elif action == "cancel" and calls:
                calls[value % len(calls)][1].cancel()
            elif action == "hold":
                line.gate.clear() if value else line.gate.set()
            else:
                await settle()
            assert batcher.waiting <= 20
        line.gate.set()
        done: list[Any] = await asyncio.gather(*(task for _, task in calls), return_exceptions=True)
        await batcher.close()
        assert batcher.waiting == 0
        ran = sum(len(items) for items in line.lists)
        assert all(len(items) <= max_batch for items in line.lists)
        assert line.most <= in_flight
        answered = 0
        for (asked, _), answer in zip(calls, done, strict=True):
            if isinstance(answer, (asyncio.CancelledError, Overloaded)):
                continue
            each = zip(asked, answer, strict=True) if isinstance(asked, list) else [(asked, answer)]
            for item, reply in each:
                answered += 1
                if item < 0:
                    assert isinstance(reply, InvalidArgument)
                    assert reply.message == str(item)
                else:
                    assert reply == item * 2
        submitted = sum(len(asked) if isinstance(asked, list) else 1 for asked, _ in calls)
        assert answered <= ran <= submitted

    asyncio.run(play())


async def test_a_settling_list_takes_along_what_is_half_read() -> None:
    """Under load an item that becomes ready a few turns of the loop later leaves with the others."""
    lists: list[list[int]] = []

    async def run(items: list[int]) -> list[int | Exception]:
        lists.append(items)
        await asyncio.sleep(0)
        return list(items)

    async def after(turns: int, item: int) -> int:
        for _ in range(turns):
            await asyncio.sleep(0)
        return await batcher.submit(item)

    for settle in (0, 5):
        lists.clear()
        batcher: Batcher[int, int] = Batcher(run, name=f"settle{settle}", settle=settle)
        assert await asyncio.gather(*(after(n, n) for n in (0, 0, 3, 6))) == [0, 0, 3, 6]
        assert (len(lists) == 1) == (settle == 5)


async def test_a_settling_list_leaves_when_it_is_full() -> None:
    """However fast more arrives, nothing waits for a silence that never comes."""
    sizes: list[int] = []

    async def run(items: list[int]) -> list[int | Exception]:
        sizes.append(len(items))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return list(items)

    batcher: Batcher[int, int] = Batcher(run, name="settle-full", settle=50, max_batch=4)

    async def after(turns: int) -> int:
        for _ in range(turns):
            await asyncio.sleep(0)
        return await batcher.submit(turns)

    assert await asyncio.gather(*(after(n) for n in range(40))) == list(range(40))
    assert sizes[1:-1] == [4] * len(sizes[1:-1])


async def test_a_lone_item_does_not_settle() -> None:
    turns = 0

    async def run(items: list[int]) -> list[int | Exception]:
        return list(items)

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    batcher: Batcher[int, int] = Batcher(run, name="settle-lone", settle=1000)
    counting = asyncio.ensure_future(count())
    await batcher.submit(1)
    counting.cancel()
    assert turns < 20


async def test_one_owner_s_flood_leaves_room_for_others() -> None:
    """An account with many calls must not have others' calls refused."""
    go = asyncio.Event()

    async def run(items: list[int]) -> list[int]:
        await go.wait()
        return items

    batcher = Batcher(run, name="t", max_batch=4, max_waiting=32)
    first = asyncio.create_task(batcher.submit(0, None, "greedy"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    flood = [asyncio.create_task(batcher.submit(n, None, "greedy")) for n in range(100)]
    await asyncio.sleep(0)
    refused = [task for task in flood if task.done()]
    assert {type(task.exception()) for task in refused} == {ShareUsed}
    assert 8 <= batcher.waiting <= 16
    assert [getattr(task.exception(), "retry_after", None) for task in refused[:1]] == [0.2]
    others = [asyncio.create_task(batcher.submit(n, None, f"owner {n}")) for n in range(8)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in others)
    go.set()
    assert await asyncio.gather(*others) == list(range(8))
    await asyncio.wait(flood)
    await first
    assert batcher._shares._held == {}


async def test_what_its_callers_left_counts_for_no_owner() -> None:
    go = asyncio.Event()

    async def run(items: list[int]) -> list[int]:
        await go.wait()
        return items

    batcher = Batcher(run, name="t", max_batch=1, max_waiting=8)
    first = asyncio.create_task(batcher.submit(0, None, "first"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for _ in range(20):
        gone = [asyncio.create_task(batcher.submit(n, None, "client")) for n in range(4)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in gone)
        for task in gone:
            task.cancel()
        await asyncio.wait(gone)
    kept = asyncio.create_task(batcher.submit_many([1, 2, 3], None, "client"))
    await asyncio.sleep(0)
    go.set()
    assert await kept == [1, 2, 3]
    await first
    assert batcher._shares._held == {}
