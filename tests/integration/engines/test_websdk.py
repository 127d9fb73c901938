"""The websdk engine in a real Chromium, with the stand-in script."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from servicekit.clock import SystemClock
from servicekit.errors import SigngateError
from services.signer.domain import Signed
from services.signer.engines.websdk import PRESETS, WebSdkEngine
from services.signer.engines.websdk.browser import Chromium
from services.signer.engines.websdk.errors import Misconfigured
from services.signer.engines.websdk.page import Page
from services.signer.engines.websdk.profiles import PROFILES
from services.signer.engines.websdk.script import Script
from services.signer.errors import EngineBusy, EngineFailure, EngineUnavailable, SignDeadlineExceeded
from tests.integration.engines.standin import CALL, SCRIPT, ask, config, digest, held, sha256, websdk


def chromium_processes() -> list[psutil.Process]:
    """Those that this test started: they come of the driver, a child of this process itself.

    A signer that other tests keep running has a browser too, which is none of ours.
    """
    found = []
    drivers = [child for child in psutil.Process().children() if "node" in child.name()]
    for driver in drivers:
        with suppress(psutil.NoSuchProcess):
            for process in driver.children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    if "chromium" in process.name() and process.status() != psutil.STATUS_ZOMBIE:
                        found.append(process)
    return found


def the_browser() -> psutil.Process:
    """The one that the driver started: parent of all others."""
    found = {process.pid: process for process in chromium_processes()}
    for process in found.values():
        if process.ppid() not in found and process.children():
            return process
    raise LookupError("no browser runs")


def connections() -> set[Any]:
    """Where all of Chromium's processes have sockets to."""
    found: set[Any] = set()
    for process in chromium_processes():
        with suppress(psutil.NoSuchProcess):
            found.update(connection.raddr for connection in process.net_connections("inet"))
    return found - {()}


async def ready_again(engine: WebSdkEngine, seconds: float) -> float:
    """How long it takes until the engine signs again."""
    clock = SystemClock()
    began = clock.monotonic()
    while clock.monotonic() - began < seconds:
        if engine.describe().ready:
            request = ask(seconds=seconds)
            if held((await engine.sign([request]))[0], request):
                return clock.monotonic() - began
        await asyncio.sleep(0.02)
    pytest.fail(f"no signature within {seconds} s: {engine.describe().not_ready_reason}")


class TestSigning:
    async def test_one_browser_through_a_days_work(self) -> None:
        """Many cases in one browser, for starting one costs more than all of them."""
        async with websdk() as engine:
            await self.every_member_gets_its_own_answer(engine)
            await self.what_the_answer_says(engine)
            await self.a_promise_is_waited_for_but_not_for_ever(engine)
            await self.callers_arrive_together_and_leave_in_few_calls(engine)
            family = chromium_processes()

        assert engine.describe().not_ready_reason == "The engine has been stopped."
        assert family, "there was a browser"
        assert psutil.wait_procs(family, timeout=30)[1] == []

    async def every_member_gets_its_own_answer(self, engine: WebSdkEngine) -> None:
        bad = [
            "throw", "rubbish", "empty", "number", "long", "newline", "taken", "name", "nothing", "cyclic",
        ]  # fmt: skip
        requests = [ask(what) for what in bad for _ in (0,)] + [ask() for _ in range(20)]
        results = await engine.sign(requests)
        for request, result, what in zip(requests, results, bad + [""] * 20, strict=True):
            if what:
                assert isinstance(result, EngineFailure), what
                assert "secret" not in f"{result!r} {result.__cause__!r}"
            else:
                assert held(result, request)

    async def what_the_answer_says(self, engine: WebSdkEngine) -> None:
        request = ask(platform_tokens=True, user_agent="somebody's own")
        (signed,) = await engine.sign([request])
        assert isinstance(signed, Signed)
        assert f"msToken=signgate-{request.request_id}" in signed.signed_url
        unsigned = signed.signed_url.rpartition("&X-Bogus=")[0]
        assert signed.tokens["X-Bogus"] == digest(unsigned.partition("?")[2]), "msToken is signed along"
        assert signed.tokens["msToken"] == f"signgate-{request.request_id}"
        assert signed.engine.name == "websdk"
        assert signed.engine.script_hash == sha256(SCRIPT)
        assert signed.engine.script_hash.startswith(signed.engine.version)
        version = signed.engine.browser_version
        assert int(version.partition(".")[0]) > 100
        assert f"Chrome/{version.partition('.')[0]}." in signed.user_agent, "the one that was signed for"
        assert (await engine.sign([ask()]))[0].engine is signed.engine  # type: ignore[union-attr]

    async def a_promise_is_waited_for_but_not_for_ever(self, engine: WebSdkEngine) -> None:
        requests = [ask("promise"), ask("late"), ask()]
        results = await engine.sign(requests)
        assert held(results[0], requests[0])
        assert isinstance(results[1], EngineFailure)
        assert held(results[2], requests[2])

    async def callers_arrive_together_and_leave_in_few_calls(self, engine: WebSdkEngine) -> None:
        calls: list[int] = []
        (page,) = engine._pool._pages  # type: ignore[union-attr]
        call = page.call

        async def counted(requests: str, timeout: float) -> str:
            calls.append(requests.count('"url"'))
            return await call(requests, timeout)

        page.call = counted  # type: ignore[method-assign]
        requests = [ask() for _ in range(128)]
        results = await asyncio.gather(*(engine.sign([request]) for request in requests))
        assert all(held(result, request) for (result,), request in zip(results, requests, strict=True))
        assert sum(calls) == 128
        assert len(calls) <= 4

    @pytest.mark.parametrize("name", ["phone-android"])
    async def test_a_page_sees_the_profile(self, name: str) -> None:
        profile = PROFILES[name]
        async with websdk(config(profile=profile)) as engine:
            (signed,) = await engine.sign([ask("device")])
        assert isinstance(signed, Signed)
        seen = signed.tokens
        assert seen["agent"] == profile.agent(signed.engine.browser_version) == signed.user_agent
        assert (seen["platform"], seen["hint"]) == (profile.platform, profile.system)
        assert (seen["language"], seen["zone"]) == (profile.locale, profile.time_zone)
        assert seen["screen"] == f"{profile.width}x{profile.height}"
        assert seen["where"] == "https://www.tiktok.com/"
        assert (seen["visible"], seen["session"]) == ("visible", "none")

    async def test_the_preset_is_a_way_of_calling_and_no_more(self, tmp_path: Path) -> None:
        script = tmp_path / "script.js"
        alias = "\nwindow.byted_acrawler = { frontierSign: window.signgateStandIn.sign };\n"
        script.write_text(SCRIPT.read_text() + alias)
        settings = config(script, call=PRESETS["frontier-sign"], required=("X-Bogus",))
        async with websdk(settings) as engine:
            request = ask()
            assert held((await engine.sign([request]))[0], request)


class Listener:
    """Whatever reaches this port, by TCP or UDP, is noted."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self._tcp = socket.create_server(("127.0.0.1", 0))
        self.port = self._tcp.getsockname()[1]
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(("127.0.0.1", self.port))
        for listen in (self._accept, self._receive):
            threading.Thread(target=listen, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._tcp.accept()
            except OSError:
                return
            self.heard.append("tcp")
            connection.close()

    def _receive(self) -> None:
        while True:
            try:
                self._udp.recvfrom(2048)
            except OSError:
                return
            self.heard.append("udp")

    def close(self) -> None:
        for held_open in (self._tcp, self._udp):
            held_open.shutdown(socket.SHUT_RDWR) if held_open is self._tcp else None
            held_open.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.close()


class TestNothingLeaves:
    async def test_a_script_that_tries_every_way_out(self, listener: Listener) -> None:
        """Nothing reaches a listener on this very machine, and no process has a connection anywhere."""
        with socket.create_connection(("127.0.0.1", listener.port)):
            pass
        while listener.heard != ["tcp"]:  # so that silence below means something
            await asyncio.sleep(0.01)
        listener.heard.clear()
        async with websdk() as engine:
            request = ask(f"reach:{listener.port}", seconds=10.0)
            result = (await engine.sign([request]))[0]
            connected: set[Any] = set()
            for _ in range(20):
                connected |= connections()
                await asyncio.sleep(0.1)
            assert held(result, request)
            assert listener.heard == []
            assert connected <= {("127.0.0.1", 1)}, "the proxy where nobody listens"
            again = ask()
            assert held((await engine.sign([again]))[0], again), "and it signs on"


class TestReplacing:
    async def test_a_page_that_hangs_or_crashes_takes_nobody_with_it(self) -> None:
        async with websdk(config(pages=2, call_timeout=3.0, member_timeout=1.5)) as engine:
            requests = [ask(), ask("hang"), ask(), ask()]
            results = await engine.sign(requests)
            assert [held(*pair) for pair in zip(results, requests, strict=True)] == [True, False, True, True]
            assert isinstance(results[1], (EngineFailure, SignDeadlineExceeded))
            await ready_again(engine, 60.0)

    @pytest.mark.parametrize("victim", ["browser", "driver"])
    async def test_it_is_killed_under_load(self, victim: str) -> None:
        """What was begun is tried again; nothing is answered that is not signed; it signs again soon."""
        async with websdk(config(pages=2)) as engine:
            answers: list[tuple[object, Any]] = []
            stop = asyncio.Event()

            async def caller() -> None:
                while not stop.is_set():
                    request = ask()
                    (result,) = await engine.sign([request])
                    answers.append((result, request))
                    await asyncio.sleep(0 if isinstance(result, Signed) else 0.02)

            callers = [asyncio.create_task(caller()) for _ in range(16)]
            while len(answers) < 50:
                await asyncio.sleep(0.01)
            browser = the_browser()
            os.kill(browser.pid if victim == "browser" else browser.ppid(), signal.SIGKILL)
            await asyncio.sleep(0.1)
            await ready_again(engine, 60.0)
            await asyncio.sleep(0.2)
            stop.set()
            await asyncio.gather(*callers)
        signed = [(result, request) for result, request in answers if isinstance(result, Signed)]
        assert all(held(result, request) for result, request in signed)
        refused = [result for result, _ in answers if isinstance(result, SigngateError)]
        wrong = [
            error for error in refused if not isinstance(error, (EngineUnavailable, SignDeadlineExceeded))
        ]
        assert wrong == [], "tried once more inside its deadline, or told to come back"
        assert all(error.retry_after for error in refused if isinstance(error, EngineUnavailable))

    async def test_a_page_that_leaks_is_replaced_by_a_warm_one(self) -> None:
        """Not one request has to wait for a new page, or is lost."""
        async with websdk(config(recycle_heap=24 * 1024 * 1024)) as engine:
            assert engine._pool is not None
            first = set(engine._pool._pages)
            for _ in range(1000):
                requests = [ask("leak"), *(ask() for _ in range(8))]
                results = await engine.sign(requests)
                assert all(held(*pair) for pair in zip(results, requests, strict=True))
                assert engine.describe().ready
                if not first & engine._pool._pages:
                    break
                await asyncio.sleep(0.02)
            else:
                pytest.fail("never replaced")


class TestBounds:
    async def test_a_full_queue_and_late_requests(self) -> None:
        async with websdk(config(max_waiting=64, call_timeout=0.8, member_timeout=0.5)) as engine:
            hanging = asyncio.create_task(engine.sign([ask("hang", seconds=1.5)]))
            await asyncio.sleep(0.05)
            requests = [ask(seconds=0.2) for _ in range(80)]
            loop = asyncio.get_running_loop()
            began = loop.time()
            results = await engine.sign(requests)
            took = loop.time() - began
            busy = [result for result in results if isinstance(result, EngineBusy)]
            assert len(busy) == 80 - 64
            assert all(error.retry_after and error.retry_after > 0 for error in busy)
            assert sum(isinstance(result, SignDeadlineExceeded) for result in results) == 64
            assert 0.15 < took < 5.0, "answered at their deadline, while the page still hung"
            await hanging

    async def test_before_start_and_after_stop(self) -> None:
        engine = WebSdkEngine(config(), SystemClock())
        for _ in range(2):
            assert isinstance((await engine.sign([ask()]))[0], EngineUnavailable)
            assert not (await engine.canary()).ready
            await engine.stop()


class TestBadConfiguration:
    @pytest.mark.parametrize(
        ("script", "changes", "message"),
        [
            ("window.signgateStandIn = {", {}, "The script fails as it loads: SyntaxError"),
            ("window.x = 1", {"sha256": "0" * 64}, "The script is not the one that the configuration names"),
            ("window.x = 1", {"chromium": Path("/no/such/chromium")}, "There is no Chromium at /no/such"),
            ("window.x = 1", {"chromium": SCRIPT}, "standin.js can't be executed"),
            (None, {}, "The script can't be read: No such file"),
        ],
    )
    async def test_it_is_said_clearly_at_start_and_nothing_is_left_running(
        self, tmp_path: Path, script: str | None, changes: dict[str, Any], message: str
    ) -> None:
        path = tmp_path / "script.js"
        path.write_text(script or "")
        settings = config(path, call=CALL, **changes)
        if script is None:
            path.unlink()
        engine = WebSdkEngine(settings, SystemClock())
        with pytest.raises(Misconfigured) as wrong:
            await engine.start()
        assert message in wrong.value.message
        status = engine.describe()
        assert not status.ready
        assert str(tmp_path) not in status.not_ready_reason
        assert isinstance((await engine.sign([ask()]))[0], EngineUnavailable)
        assert chromium_processes() == []
        await engine.stop()

    async def test_scripts_that_can_not_sign(self) -> None:
        """One browser for all of them: what is wrong is found in the page, before it signs."""
        cases = {
            "throw new TypeError('early')": "The script fails as it loads: TypeError: early",
            "window.other = 1": "The script defines no function window.signgateStandIn.sign",
            "window.signgateStandIn = {sign: 7}": "window.signgateStandIn.sign: that is number",
            "window.signgateStandIn = {sign: () => 7}": "The script's function does not sign",
            "window.signgateStandIn = {sign: () => { throw 1 }}": "the script failed: number",
        }
        settings = config()
        engine = WebSdkEngine(settings, SystemClock())
        browser = await Chromium.launch(settings)
        try:
            for text, message in cases.items():
                with pytest.raises(Misconfigured) as wrong:
                    page = await Page.open(browser, settings, Script(text.encode(), ""))
                    await engine._prove(page)
                assert message in wrong.value.message
        finally:
            await browser.close()
