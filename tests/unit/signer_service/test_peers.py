"""Refunds that nobody waits for, and a cluster's shards that fail apart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from servicekit.errors import Unavailable
from services.signer.jobs import API_KEY, Caller, Charge, Decision, Job, Part, Refund, Wish
from services.signer.peers import RefundQueue
from services.signer.ports import StreamUnknown
from services.signer.publisher import ClusterPublisher

PAUSE = 0.001


class Books:
    """Takes refunds, after failing as often as told."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.calls: list[list[Refund]] = []
        self.taken: list[Refund] = []

    async def consume(self, charges: Sequence[Charge]) -> tuple[Sequence[Decision], float]:
        raise AssertionError("nothing is charged here")

    async def refund(self, refunds: Sequence[Refund]) -> None:
        self.calls.append(list(refunds))
        if self.failures:
            self.failures -= 1
            raise Unavailable
        self.taken += refunds


def refunds(count: int) -> list[Refund]:
    return [Refund(f"charge-{n}", "user", 1) for n in range(count)]


@pytest.fixture
async def books() -> Books:
    return Books()


@pytest.fixture
async def queue(books: Books) -> AsyncIterator[RefundQueue]:
    made = RefundQueue(books, tries=3, pause=PAUSE, bound=2500)
    work = asyncio.ensure_future(made.run())
    yield made
    work.cancel()


async def until(done: Any) -> None:
    for _ in range(500):
        if done():
            return
        await asyncio.sleep(0.002)
    raise AssertionError("never happened")


async def test_refunds_go_out_in_lists_of_what_a_call_may_hold(books: Books, queue: RefundQueue) -> None:
    queue.later(refunds(2500))
    await until(lambda: len(books.taken) == 2500)
    assert [len(call) for call in books.calls] == [1000, 1000, 500]
    assert books.taken == refunds(2500)


async def test_a_failed_call_is_tried_again(books: Books, queue: RefundQueue) -> None:
    books.failures = 2
    queue.later(refunds(1))
    await until(lambda: books.taken)
    assert len(books.calls) == 3


async def test_it_gives_up_and_goes_on_with_the_next(books: Books, queue: RefundQueue) -> None:
    """The lease takes back what is given up; those behind must not wait for ever."""
    books.failures = 3
    queue.later([Refund("lost", "user", 1)])
    await until(lambda: len(books.calls) == 3)
    queue.later([Refund("next", "user", 1)])
    await until(lambda: books.taken)
    assert [refund.charge_id for refund in books.taken] == ["next"]


async def test_the_queue_is_bounded_and_drops_its_oldest(books: Books) -> None:
    queue = RefundQueue(books, bound=10)
    queue.later(refunds(25))
    await queue.flush()
    assert books.taken == refunds(25)[15:]


async def test_the_end_of_the_process_sends_what_waits_once(books: Books) -> None:
    queue = RefundQueue(books, pause=PAUSE)
    books.failures = 1
    queue.later(refunds(2))
    await queue.flush()
    assert len(books.calls) == 1


class HalfCluster:
    """Fails the script for one stream."""

    async def evalsha(self, sha: str, count: int, key: str, *arguments: Any) -> int:
        if key == "usage:{1}":
            raise RedisConnectionError("gone")
        return 1


async def test_a_lost_master_fails_its_shards_and_no_others() -> None:
    """And nobody knows how far the call got, so nothing of it is refunded."""
    publisher = ClusterPublisher(HalfCluster())  # type: ignore[arg-type]  # as far as it is used
    part = Part("0198a2b4-0000-7000-8000-000000000001", Wish("nope"), None, None)
    job = Job([part], arrived=0.0, started=0.0, deadline=None, partial=False)
    job.caller = Caller("11111111-1111-4111-8111-111111111111", "", API_KEY, frozenset())
    failures = await publisher.publish({0: [(job, part)], 1: [(job, part)]}, None)
    assert {shard: type(error) for shard, error in failures.items()} == {1: StreamUnknown}
