"""The pool and its queue, over pages without a browser."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from servicekit.clock import SystemClock
from services.signer.domain import Signed, SignRequest
from services.signer.engines.websdk import Call, WebSdkConfig, WebSdkEngine
from services.signer.engines.websdk import browser as browser_module
from services.signer.engines.websdk import page as page_module
from services.signer.engines.websdk.errors import Misconfigured, PageLost
from services.signer.engines.websdk.tickets import Ticket, Waiting
from services.signer.errors import EngineFailure, EngineUnavailable, SignDeadlineExceeded
from services.signer.room_url import parse

ROOM = parse("https://webcast.tiktok.com/webcast/im/fetch/?room_id=7300000000000000000")
CLOCK = SystemClock()


class FakeBrowser:
    version = "140.0.1.2"

    def __init__(self, driver: FakeDriver) -> None:
        self.lost = asyncio.Event()
        self.driver = driver

    async def close(self, *, driver: bool = True) -> None:
        self.lost.set()
        if driver:
            await self.driver.stop()


class FakeDriver:
    def __init__(self) -> None:
        self.stopped = False

    async def stop(self) -> None:
        self.stopped = True


class FakePage:
    """Signs by itself. `does` is asked before each list, and may raise or wait."""

    def __init__(self, world: FakeWorld, browser: FakeBrowser) -> None:
        self._world = world
        self.browser = browser
        self.opened = asyncio.get_running_loop().time()
        self.signed = 0
        self.held = 0
        self.lost = asyncio.Event()
        self.closed = False

    async def call(self, requests: str, timeout: float) -> str:
        asked = json.loads(requests)
        self._world.calls.append((self, len(asked)))
        try:
            async with asyncio.timeout(timeout):
                await self._world.does(self, asked)
        except BaseException as error:
            self.lost.set()
            raise PageLost from error
        return json.dumps([{"v": {"X-Bogus": "x"}} for _ in asked])

    async def heap(self) -> int:
        return self.held

    async def close(self) -> None:
        self.lost.set()
        self.closed = True


class FakeWorld:
    """All browsers and pages that were opened. `fails`: what the next openings of pages raise."""

    def __init__(self) -> None:
        self.browsers: list[FakeBrowser] = []
        self.pages: list[FakePage] = []
        self.calls: list[tuple[FakePage, int]] = []
        self.fails: list[Exception] = []
        self.launch_fails: list[Exception] = []
        self.does: Callable[[FakePage, list[dict[str, Any]]], Any] = self.nothing

    async def nothing(self, page: FakePage, asked: list[dict[str, Any]]) -> None:
        await asyncio.sleep(0)

    async def launch(self, config: WebSdkConfig, driver: FakeDriver | None = None) -> FakeBrowser:
        if self.launch_fails:
            if driver is not None:
                await driver.stop()
            raise self.launch_fails.pop(0)
        self.browsers.append(FakeBrowser(driver or FakeDriver()))
        return self.browsers[-1]

    async def open(self, browser: FakeBrowser, *_: object) -> FakePage:
        if self.fails:
            raise self.fails.pop(0)
        self.pages.append(FakePage(self, browser))
        return self.pages[-1]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> FakeWorld:
    made = FakeWorld()
    monkeypatch.setattr(browser_module.Chromium, "launch", made.launch)
    monkeypatch.setattr(page_module.Page, "open", made.open)
    monkeypatch.setattr("services.signer.engines.websdk.pool._look_around", 0.02)
    monkeypatch.setattr("services.signer.engines.websdk.pool._first_pause", 0.01)
    monkeypatch.setattr("services.signer.engines.websdk.pool._served_for", 0.0)
    return made


@pytest.fixture
def make(world: FakeWorld, tmp_path: Path) -> Callable[..., WebSdkEngine]:
    script = tmp_path / "script.js"
    script.write_text("x")
    digest = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"

    def made(**changes: Any) -> WebSdkEngine:
        told = {"pages": 1, "call_timeout": 0.3, "member_timeout": 0.1, **changes}
        return WebSdkEngine(WebSdkConfig(script, digest, Call("window.sign"), **told), CLOCK)

    return made


@pytest.fixture
async def engine(make: Callable[..., WebSdkEngine]) -> AsyncIterator[WebSdkEngine]:
    made = make()
    await made.start()
    await made.canary()
    yield made
    await made.stop()


def ask(seconds: float | None = 60.0, mark: str = "") -> SignRequest:
    deadline = None if seconds is None else CLOCK.monotonic() + seconds
    return SignRequest(ROOM, "0", deadline=deadline, payload=mark)


async def until(look: Callable[[], object]) -> None:
    async with asyncio.timeout(30.0):
        while not look():
            await asyncio.sleep(0.005)


async def signs(engine: WebSdkEngine) -> bool:
    return isinstance((await engine.sign([ask()]))[0], Signed)


@pytest.mark.parametrize("why", ["count", "age", "heap"])
async def test_a_page_that_is_due_signs_on_until_its_successor_is_warm(
    make: Callable[..., WebSdkEngine], world: FakeWorld, why: str
) -> None:
    changes = {"count": ("recycle_count", 64), "age": ("recycle_age", 0.1), "heap": ("recycle_heap", 10)}
    engine = make(**dict([changes[why]]))
    await engine.start()
    await engine.canary()
    first = world.pages[0]
    begun_at: list[int] = []
    signed_on = asyncio.Event()
    slow = world.open

    async def open_slowly(browser: FakeBrowser, *more: object) -> FakePage:
        begun_at.append(len(world.calls))
        await signed_on.wait()
        return await slow(browser, *more)

    page_module.Page.open = open_slowly  # type: ignore[assignment,method-assign]  # monkeypatch restores it
    if why == "heap":
        first.held = 11
    while not first.closed:
        requests = [ask() for _ in range(8)]
        assert all(isinstance(result, Signed) for result in await engine.sign(requests))
        assert engine.describe().ready
        if begun_at and len(world.calls) > begun_at[0] + 4:
            signed_on.set()
        await asyncio.sleep(0.002)
    second = world.pages[1]
    in_between = [page for page, _ in world.calls[begun_at[0] :]]
    assert in_between.index(second) > 3, "the first page signed on while the second one was opened"
    assert next(n for page, n in world.calls if page is second) == 1, "a canary before anything else"
    await engine.stop()
    assert all(page.closed or page.browser.lost.is_set() for page in world.pages)
    assert world.browsers[0].driver.stopped


async def test_a_lost_list_is_tried_again_each_by_itself_and_its_cause_is_found(
    engine: WebSdkEngine, world: FakeWorld
) -> None:
    async def die_of_poison(page: FakePage, asked: list[dict[str, Any]]) -> None:
        await asyncio.sleep(0)
        if any(one["payload"] == "poison" for one in asked):
            raise RuntimeError("crash")

    world.does = die_of_poison
    requests = [ask(), ask(mark="poison"), ask()]
    results = await engine.sign(requests)
    assert [type(result) for result in results] == [Signed, EngineFailure, Signed]
    assert len([n for _, n in world.calls if n == 3]) == 1
    await until(lambda: engine.describe().ready)
    assert await signs(engine)


async def test_a_page_that_hangs_is_given_up_in_time(engine: WebSdkEngine, world: FakeWorld) -> None:
    async def hang_once(page: FakePage, asked: list[dict[str, Any]]) -> None:
        if page is world.pages[0]:
            await asyncio.sleep(60)

    world.does = hang_once
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await signs(engine), "tried again in another page, inside its deadline"
    assert 0.25 < loop.time() - began < 30.0  # the page would take 60
    assert world.pages[0].closed


async def test_a_browser_that_is_gone_is_replaced_and_its_requests_tried_again(
    engine: WebSdkEngine, world: FakeWorld
) -> None:
    begun = asyncio.Event()

    async def wait(page: FakePage, asked: list[dict[str, Any]]) -> None:
        if page.browser is world.browsers[0]:
            begun.set()
            await asyncio.sleep(60)

    world.does = wait
    asking = asyncio.create_task(engine.sign([ask()]))
    await begun.wait()
    world.browsers[0].lost.set()
    assert isinstance((await asking)[0], Signed)
    assert len(world.browsers) == 2
    assert world.browsers[1].driver is world.browsers[0].driver, "which takes a while to start"
    assert engine.describe().ready


async def test_a_browser_that_does_not_start_again_is_tried_until_it_does(
    engine: WebSdkEngine, world: FakeWorld
) -> None:
    world.launch_fails = [PageLost("Chromium does not start."), Misconfigured("/some/path is gone")]
    world.browsers[0].lost.set()
    await until(lambda: not engine.describe().ready)
    refused = (await engine.sign([ask()]))[0]
    assert isinstance(refused, EngineUnavailable)
    assert refused.retry_after
    await until(lambda: engine.describe().ready)
    assert "/some/path" not in engine.describe().not_ready_reason
    assert await signs(engine)


async def test_a_browser_in_which_every_page_is_lost_counts_as_gone(
    engine: WebSdkEngine, world: FakeWorld
) -> None:
    """As when the driver between us and it has died, which nobody is told."""
    world.fails = [PageLost() for _ in range(4)]
    world.pages[0].lost.set()
    await until(lambda: len(world.browsers) == 2)
    assert world.browsers[0].driver.stopped
    assert world.browsers[1].driver is not world.browsers[0].driver
    await until(lambda: engine.describe().ready)
    assert await signs(engine)


async def test_a_browser_that_is_slow_to_come_does_not_fail_the_start(
    make: Callable[..., WebSdkEngine], world: FakeWorld
) -> None:
    world.launch_fails = [PageLost("Chromium does not start.")]
    engine = make()
    await engine.start()
    assert not (await engine.canary()).ready
    await until(lambda: world.pages)
    await until(lambda: engine._pool is not None and engine._pool.serving)
    assert (await engine.canary()).ready
    assert await signs(engine)
    await engine.stop()


async def test_a_canary_that_fails_is_seen_and_so_is_its_recovery(
    engine: WebSdkEngine, world: FakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = FakePage.call

    async def rubbish(self: FakePage, requests: str, timeout: float) -> str:
        return "[]"

    monkeypatch.setattr(FakePage, "call", rubbish)
    status = await engine.canary()
    assert not status.ready
    assert "canary" in status.not_ready_reason
    assert status.canary_at is not None
    assert isinstance((await engine.sign([ask()]))[0], EngineUnavailable)
    monkeypatch.setattr(FakePage, "call", good)
    assert (await engine.canary()).ready


async def test_stopping_finishes_what_was_begun(make: Callable[..., WebSdkEngine], world: FakeWorld) -> None:
    engine = make()
    await engine.start()
    await engine.canary()

    async def slowly(page: FakePage, asked: list[dict[str, Any]]) -> None:
        await asyncio.sleep(0.1)

    world.does = slowly
    asking = asyncio.create_task(engine.sign([ask()]))
    await asyncio.sleep(0.02)
    await engine.stop()
    assert isinstance((await asking)[0], Signed)
    assert world.browsers[0].lost.is_set()


async def test_a_caller_that_stops_waiting_is_not_signed_for(engine: WebSdkEngine, world: FakeWorld) -> None:
    hold = asyncio.Event()

    async def held(page: FakePage, asked: list[dict[str, Any]]) -> None:
        await hold.wait()

    world.does = held
    first = asyncio.create_task(engine.sign([ask()]))
    await asyncio.sleep(0.02)
    many = [ask() for _ in range(5)]
    leaving = asyncio.create_task(engine.sign(many))
    await asyncio.sleep(0.02)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    hold.set()
    await first
    before = sum(n for _, n in world.calls)
    assert await signs(engine)
    assert sum(n for _, n in world.calls) == before + 1


class TestTickets:
    async def test_each_member_expires_at_its_own_deadline(self) -> None:
        requests = [ask(0.03), ask(-1.0), ask(None), ask(1.5)]
        ticket = Ticket(requests, [""] * 4, CLOCK)
        asking = asyncio.create_task(ticket.results())
        await until(lambda: ticket.entries[0].result is not None)
        late = [isinstance(entry.result, SignDeadlineExceeded) for entry in ticket.entries]
        assert late == [True, True, False, False]
        failure = EngineFailure()
        ticket.entries[2].settle(failure)
        ticket.entries[2].settle(EngineUnavailable())
        results = await asking
        assert results[2] is failure
        assert isinstance(results[3], SignDeadlineExceeded)

    async def test_room_is_made_of_what_nobody_waits_for(self) -> None:
        waiting = Waiting(4)
        gone = Ticket([ask(None)] * 4, [""] * 4, CLOCK)
        assert waiting.put(gone.entries) == []
        fresh = Ticket([ask(None)] * 3, [""] * 3, CLOCK)
        assert list(waiting.put(fresh.entries)) == fresh.entries
        gone.abandon()
        assert waiting.put(fresh.entries) == []
        assert waiting.take(10) == fresh.entries

    async def test_what_is_put_back_comes_first_and_alone(self) -> None:
        waiting = Waiting(10)
        ticket = Ticket([ask(None)] * 4, [""] * 4, CLOCK)
        one, two, three, four = ticket.entries
        waiting.put([three, four])
        one.alone = two.alone = True
        waiting.put_back([one, two])
        assert [waiting.take(10) for _ in range(4)] == [[one], [two], [three, four], []]
