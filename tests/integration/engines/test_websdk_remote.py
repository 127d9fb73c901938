"""The websdk engine with a browser that the signer did not start, as in a container of its own."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from servicekit.clock import SystemClock
from services.signer.domain import Signed
from services.signer.engines.websdk import WebSdkConfig, WebSdkEngine
from services.signer.errors import EngineUnavailable
from tests.integration.engines.remote import RemoteBrowser
from tests.integration.engines.standin import ask, config, held, websdk
from tests.integration.engines.test_websdk import Listener, listener, ready_again

__all__ = ["listener"]


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[RemoteBrowser]:
    made = RemoteBrowser(tmp_path)
    made.start()
    yield made
    made.stop()


def away(browser: RemoteBrowser, **changes: Any) -> WebSdkConfig:
    """The signer's side: no Chromium where it runs."""
    return config(browser_url=browser.url, chromium=Path("/no/such/chromium"), sandbox=True, **changes)


async def signs(engine: WebSdkEngine) -> bool:
    request = ask()
    return held((await engine.sign([request]))[0], request)


async def test_two_signers_share_a_browser_and_neither_takes_the_others_pages(browser: RemoteBrowser) -> None:
    async with websdk(away(browser)) as one:
        async with websdk(away(browser)) as other:
            requests = [ask() for _ in range(40)]
            answers = await asyncio.gather(one.sign(requests), other.sign(requests))
            for results in answers:
                assert all(held(*pair) for pair in zip(results, requests, strict=True))
        assert await signs(one), "the other's leaving closes none of its pages"
        assert isinstance((await one.sign([ask()]))[0], Signed)
        assert one.describe().ready
    assert browser.process is not None
    assert browser.process.poll() is None, "the browser outlives its signers"


async def test_it_is_killed_and_started_again_and_the_engine_signs_again(browser: RemoteBrowser) -> None:
    async with websdk(away(browser)) as engine:
        browser.chromium().send_signal(signal.SIGKILL)
        assert await asyncio.to_thread(browser.ended, 60), "the container ends with it, and is started again"
        while engine.describe().ready:
            await asyncio.sleep(0.01)
        result = (await engine.sign([ask()]))[0]
        assert isinstance(result, EngineUnavailable)
        assert result.retry_after
        assert browser.url not in engine.describe().not_ready_reason
        await asyncio.to_thread(browser.start)
        await ready_again(engine, 60.0)


async def test_it_is_killed_under_load_and_nothing_is_answered_wrongly(browser: RemoteBrowser) -> None:
    async with websdk(away(browser, pages=2)) as engine:
        answers: list[tuple[object, Any]] = []
        stop = asyncio.Event()

        async def caller() -> None:
            while not stop.is_set():
                request = ask()
                (result,) = await engine.sign([request])
                answers.append((result, request))
                await asyncio.sleep(0 if isinstance(result, Signed) else 0.02)

        callers = [asyncio.create_task(caller()) for _ in range(8)]
        while len(answers) < 50:
            await asyncio.sleep(0.01)
        browser.chromium().kill()
        await asyncio.to_thread(browser.ended, 60)
        await asyncio.to_thread(browser.start)
        await ready_again(engine, 60.0)
        stop.set()
        await asyncio.gather(*callers)
    signed = [(result, request) for result, request in answers if isinstance(result, Signed)]
    assert all(held(result, request) for result, request in signed)


async def test_a_signer_that_comes_first_waits_for_it(tmp_path: Path) -> None:
    """In compose and on Kubernetes neither waits for the other."""
    browser = RemoteBrowser(tmp_path)
    engine = WebSdkEngine(away(browser), SystemClock())
    await engine.start()
    try:
        assert not (await engine.canary()).ready
        await asyncio.to_thread(browser.start)
        while not (await engine.canary()).ready:
            await asyncio.sleep(0.05)
        assert await signs(engine)
    finally:
        await engine.stop()
        await asyncio.to_thread(browser.stop)


async def test_a_browser_that_stands_still_ends_so_that_another_is_started(browser: RemoteBrowser) -> None:
    """Alive and of no use: only a request for a page can tell."""
    process = browser.chromium()
    process.suspend()
    try:
        assert await asyncio.to_thread(browser.ended, 120)
    finally:
        if process.is_running():
            process.kill()
    assert "opens no page" in browser.said()


async def test_nothing_leaves_a_browser_that_runs_elsewhere(
    browser: RemoteBrowser, listener: Listener
) -> None:
    """Nor does a page reach the server by which its own browser is driven."""
    async with websdk(away(browser)) as engine:
        for port in (listener.port, browser.port):
            request = ask(f"reach:{port}", seconds=10.0)
            result = (await engine.sign([request]))[0]
            assert held(result, request)
        connected: set[Any] = set()
        for _ in range(10):
            for process in browser.family():
                with suppress(psutil.NoSuchProcess):  # a renderer that has ended
                    connected |= {one.raddr for one in process.net_connections("inet")} - {()}
            await asyncio.sleep(0.1)
        assert listener.heard == []
        assert connected <= {("127.0.0.1", 1)}, "the proxy where nothing listens"


async def test_neither_the_browser_nor_its_server_is_told_anything(browser: RemoteBrowser) -> None:
    assert browser.process is not None
    for process in (psutil.Process(browser.process.pid), *browser.family()):
        try:
            told = process.environ()
        except psutil.Error:
            continue
        assert not [name for name in told if name.startswith("SIGNGATE_")]
