"""The upstream engine against sign servers that behave and that don't."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.clock import SystemClock
from servicekit.errors import SigngateError
from services.signer.domain import Cookie, Signed, SignRequest
from services.signer.engines.upstream import Upstream, UpstreamConfig
from services.signer.engines.upstream.answers import Answer, BadAnswer, read
from services.signer.engines.upstream.engine import UpstreamEngine
from services.signer.errors import EngineUnavailable, SignDeadlineExceeded, SignRequestError
from services.signer.room_url import parse

URL = "https://webcast.tiktok.com/webcast/im/fetch/?aid=1988&room_id=7300000000000000000"
CLOCK = SystemClock()
Handler = Callable[[httpx.Request], httpx.Response]


def answer(url: str = f"{URL}&X-Bogus=abc&msToken=m", **more: Any) -> dict[str, Any]:
    response = {"signedUrl": url, "userAgent": "UA/9", "tokens": {"X-Bogus": "abc", "msToken": "m"}}
    return {"code": 200, "message": "ok", "response": response | more}


def ok(_: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json=answer())


class World:
    """Hosts by name, each with its handler; `asked` holds all requests in order."""

    def __init__(self) -> None:
        self.hosts: dict[str, Any] = {}
        self.asked: list[httpx.Request] = []

    async def handle(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        made = self.hosts[request.url.host](request)
        found: httpx.Response = await made if asyncio.iscoroutine(made) else made
        return found

    def count(self, host: str) -> int:
        return sum(request.url.host == host for request in self.asked)

    def engine(self, *upstreams: Upstream, **changes: Any) -> UpstreamEngine:
        found = upstreams or (Upstream("one", "https://one.test", api_key="key-of-ours"),)
        config = UpstreamConfig(
            found, frozenset(upstream.host for upstream in found), **{"timeout": 0.2, **changes}
        )
        transport = httpx.MockTransport(self.handle)
        return UpstreamEngine(config, CLOCK, transport=transport, chance=random.Random(7))  # noqa: S311  # told, so that weights can be seen

    async def ready(self, *upstreams: Upstream, **changes: Any) -> UpstreamEngine:
        """An engine whose canary held; nothing of that is counted."""
        hosts = dict(self.hosts)
        self.hosts = dict.fromkeys(hosts, ok)
        engine = self.engine(*upstreams, **changes)
        await engine.start()
        self.hosts = dict.fromkeys(hosts, lambda r: httpx.Response(200, json=answer(_asked_url(r))))
        assert (await engine.canary()).ready
        self.hosts = hosts
        self.asked.clear()
        return engine


def _asked_url(request: httpx.Request) -> str:
    return f"{json.loads(request.content)['url']}&X-Bogus=abc"


def ask(url: str = URL, seconds: float | None = 60.0, **more: Any) -> SignRequest:
    deadline = None if seconds is None else CLOCK.monotonic() + seconds
    return SignRequest(parse(url), "019b7c5e-4d88-7000-8000-0123456789ab", deadline=deadline, **more)


async def one(engine: UpstreamEngine, request: SignRequest | None = None) -> Signed | SigngateError:
    (result,) = await engine.sign([request or ask()])
    return result


@pytest.fixture
def world() -> World:
    made = World()
    made.hosts["one.test"] = ok
    return made


TWO = (Upstream("one", "https://one.test/base/", 3.0), Upstream("two", "https://two.test"))


class TestAsking:
    async def test_what_is_sent_and_what_comes_of_it(self, world: World) -> None:
        cookies = [{"name": "a", "value": "b", "domain": ".tiktok.com"}]
        world.hosts["one.test"] = lambda _: httpx.Response(
            200, json=answer(requestHeaders={"x-a": "b"}, cookies=cookies)
        )
        engine = await world.ready()
        signed = await one(engine, ask(user_agent="UA/1", method="POST", payload="p=1"))
        (request,) = world.asked
        assert str(request.url) == "https://one.test/webcast/sign_url?client=signgate"
        assert request.headers["x-api-key"] == "key-of-ours"
        assert json.loads(request.content) == {
            "url": URL, "method": "POST", "type": "fetch", "userAgent": "UA/1", "payload": "p=1",
        }  # fmt: skip
        assert isinstance(signed, Signed)
        assert signed.signed_url == f"{URL}&X-Bogus=abc&msToken=m"
        assert (signed.engine.name, signed.engine.version) == ("upstream", "one")
        assert (signed.user_agent, signed.request_headers) == ("UA/9", {"x-a": "b"})
        assert signed.cookies == (Cookie("a", "b", ".tiktok.com"),)
        await engine.stop()

    async def test_a_base_with_a_path(self, world: World) -> None:
        engine = await world.ready(TWO[0])
        await one(engine)
        assert world.asked[0].url.path == "/base/webcast/sign_url"

    async def test_what_callers_libraries_look_for_is_there(self, world: World) -> None:
        world.hosts["one.test"] = lambda _: httpx.Response(
            200, json=answer(f"{URL}&X-Bogus=abc", tokens=None)
        )
        signed = await one(await world.ready(), ask(platform_tokens=True))
        assert isinstance(signed, Signed)
        assert "msToken=signgate-" in signed.signed_url
        assert signed.tokens["msToken"]

    async def test_upstreams_are_chosen_by_weight(self, world: World) -> None:
        world.hosts["two.test"] = ok
        engine = await world.ready(*TWO)
        await engine.sign([ask() for _ in range(400)])
        assert 0.68 < world.count("one.test") / 400 < 0.82


class TestFailing:
    @pytest.mark.parametrize("status", [500, 502, 503, 401, 402, 403, 429])
    async def test_another_upstream_does_what_one_can_not(self, world: World, status: int) -> None:
        world.hosts = {"one.test": lambda _: httpx.Response(status), "two.test": ok}
        engine = await world.ready(*TWO)
        assert all(isinstance(result, Signed) for result in await engine.sign([ask() for _ in range(20)]))
        assert world.count("two.test") == 20

    @pytest.mark.parametrize("code", [401, 403])
    async def test_a_refusal_inside_a_200(self, world: World, code: int) -> None:
        world.hosts = {"one.test": lambda _: httpx.Response(200, json={"code": code, "message": "no"})}
        result = await one(await world.ready())
        assert isinstance(result, EngineUnavailable)
        assert result.retry_after

    async def test_our_own_credentials_refusal_is_no_refusal_of_the_callers(self, world: World) -> None:
        world.hosts["one.test"] = lambda _: httpx.Response(401)
        result = await one(await world.ready())
        assert isinstance(result, EngineUnavailable)
        assert "key-of-ours" not in f"{result} {result!r} {result.__cause__!r}"

    async def test_a_request_that_is_wrong_is_asked_once(self, world: World) -> None:
        world.hosts["one.test"] = lambda _: httpx.Response(400)
        result = await one(await world.ready())
        assert isinstance(result, SignRequestError)
        assert result.reason == "UPSTREAM_REFUSED"
        assert world.count("one.test") == 1

    async def test_no_more_tries_than_said(self, world: World) -> None:
        world.hosts["one.test"] = lambda _: httpx.Response(500)
        assert isinstance(await one(await world.ready(attempts=4, failures=100)), EngineUnavailable)
        assert world.count("one.test") == 4

    async def test_a_limit_is_respected(self, world: World) -> None:
        world.hosts["one.test"] = lambda _: httpx.Response(429, headers={"retry-after": "7"})
        engine = await world.ready()
        results = [await one(engine) for _ in range(5)]
        assert world.count("one.test") == 1, "nobody asks again before its time"
        for result in results:
            assert isinstance(result, EngineUnavailable)
            assert result.retry_after is not None
            assert 1.0 < result.retry_after <= 7.0, "what is left of the seven seconds"

    async def test_a_circuit_opens_and_closes(self, world: World) -> None:
        world.hosts["one.test"] = lambda _: httpx.Response(500)
        engine = await world.ready(attempts=1, failures=3, open_for=1.0)
        for _ in range(10):
            assert isinstance(await one(engine), EngineUnavailable)
        assert world.count("one.test") == 3
        world.hosts["one.test"] = ok
        await asyncio.sleep(1.05)
        assert isinstance(await one(engine), Signed)
        assert isinstance(await one(engine), Signed)

    async def test_wrong_requests_open_no_circuit(self, world: World) -> None:
        world.hosts["one.test"] = lambda _: httpx.Response(400)
        engine = await world.ready(failures=2)
        for _ in range(5):
            assert isinstance(await one(engine), SignRequestError)

    async def test_one_that_never_answers(self, world: World) -> None:
        async def never(_: httpx.Request) -> httpx.Response:
            await asyncio.sleep(60)
            raise AssertionError

        world.hosts = {"one.test": never, "two.test": ok}
        engine = await world.ready(Upstream("one", "https://one.test", 1000.0), TWO[1], timeout=1.0)
        assert isinstance(await one(engine), Signed)

    async def test_a_deadline_holds_over_all_tries(self, world: World) -> None:
        async def never(_: httpx.Request) -> httpx.Response:
            await asyncio.sleep(60)
            raise AssertionError

        world.hosts["one.test"] = never
        engine = await world.ready(timeout=5.0)
        loop = asyncio.get_running_loop()
        began = loop.time()
        results = await engine.sign([ask(seconds=0.1), ask(seconds=-1.0)])
        assert loop.time() - began < 4.0  # one try may take five
        assert all(isinstance(result, SignDeadlineExceeded) for result in results)

    async def test_more_at_once_than_are_allowed_wait_their_turn(self, world: World) -> None:
        at_once, most = 0, 0

        async def slow(_: httpx.Request) -> httpx.Response:
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            await asyncio.sleep(0.01)
            at_once -= 1
            return httpx.Response(200, json=answer())

        world.hosts["one.test"] = slow
        engine = await world.ready(max_concurrent=4)
        assert all(isinstance(result, Signed) for result in await engine.sign([ask() for _ in range(20)]))
        assert most == 4


class TestWhereItConnects:
    async def test_no_redirect_is_followed(self, world: World) -> None:
        world.hosts["one.test"] = lambda _: httpx.Response(
            307, headers={"location": "https://evil.test/webcast/sign_url"}
        )
        world.hosts["evil.test"] = ok
        assert isinstance(await one(await world.ready()), EngineUnavailable)
        assert world.count("evil.test") == 0

    async def test_the_last_wall(self, world: World) -> None:
        """Whatever a bug above it does: no other host is connected to."""
        engine = await world.ready()
        assert engine._http is not None
        world.hosts["evil.test"] = ok
        for url in ("https://evil.test/", "https://one.test.evil.test/", "https://169.254.169.254/"):
            with pytest.raises(httpx.UnsupportedProtocol):
                await engine._http.get(url)
        assert world.asked == []

    @given(st.text(max_size=60))
    def test_no_text_of_a_caller_is_part_of_the_address(self, text: str) -> None:
        world = World()
        world.hosts["one.test"] = ok

        async def run() -> None:
            engine = await world.ready()
            request = ask(user_agent=text, payload=text, method="GET")
            await one(engine, request)
            await engine.stop()

        asyncio.run(run())
        assert {str(request.url) for request in world.asked} == {
            "https://one.test/webcast/sign_url?client=signgate"
        }

    @pytest.mark.parametrize(
        ("upstream", "message"),
        [
            (("a", "ftp://one.test"), "https://host"),
            (("a", "https://"), "https://host"),
            (("a", "http://one.test"), "http is for this machine alone"),
            (("a", "https://user:secret@one.test"), "no user info"),
            (("a", "https://one.test/?x=1"), "no user info"),
            (("a b", "https://one.test"), "name"),
            (("a", "https://one.test", 0.0), "weight"),
        ],
    )
    def test_an_upstream_that_is_none(self, upstream: tuple[Any, ...], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Upstream(*upstream)

    def test_every_upstream_is_on_the_list(self) -> None:
        with pytest.raises(ValueError, match="none of the allowed hosts"):
            UpstreamConfig((Upstream("a", "https://one.test.evil.test"),), frozenset({"one.test"}))
        with pytest.raises(ValueError, match="no two of one name"):
            UpstreamConfig((Upstream("a", "https://one.test"),) * 2, frozenset({"one.test"}))

    def test_keys_stand_in_no_repr(self) -> None:
        assert "key-of-ours" not in repr(Upstream("a", "https://one.test", api_key="key-of-ours"))


class TestAnswers:
    @pytest.mark.parametrize(
        "url",
        [
            None, "", 7, "https://evil.test/webcast/im/fetch/?aid=1988&room_id=7300000000000000000&X-Bogus=a",
            "http" + URL[5:], URL.replace("room_id=7300000000000000000", "room_id=7300000000000000001"),
            URL.replace("&room_id=7300000000000000000", ""), URL.replace("/im/fetch/", "/room/info/"),
            URL + "&X-Bogus=a b", URL + "&X-Bogus=a#b", URL + "&X-Bogus=\u00e9", URL + "&x=" + "x" * 9000,
            URL.replace("webcast.tiktok.com", "webcast.tiktok.com@evil.test"),
        ],
    )  # fmt: skip
    async def test_a_url_that_is_not_the_one_that_was_asked_for(self, world: World, url: Any) -> None:
        world.hosts["one.test"] = lambda _: httpx.Response(200, json=answer(url))
        assert isinstance(await one(await world.ready(attempts=1)), EngineUnavailable)

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"[" * 50_000, b"\xff", b"x" * 300_000])
    async def test_a_body_that_is_none(self, world: World, content: bytes) -> None:
        world.hosts["one.test"] = lambda _: httpx.Response(200, content=content)
        assert isinstance(await one(await world.ready(attempts=1)), EngineUnavailable)

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text() | st.just(URL),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(
                        ["response", "signedUrl", "tokens", "cookies", "requestHeaders", "userAgent"]
                    ),
                    inner,
                )
            ),
        )
    )
    def test_whatever_it_is_it_is_an_answer_or_a_bad_one(self, body: Any) -> None:
        try:
            found = read(body, URL)
        except BadAnswer:
            return
        assert isinstance(found, Answer)
        assert found.signed_url.startswith(URL)


class TestReadiness:
    async def test_before_start_and_after_stop(self, world: World) -> None:
        engine = world.engine()
        assert isinstance(await one(engine), EngineUnavailable)
        assert not (await engine.canary()).ready
        await engine.stop()

    async def test_a_canary_that_fails_and_holds_again(self, world: World) -> None:
        world.hosts["one.test"] = lambda _: httpx.Response(500)
        engine = world.engine(failures=100)
        await engine.start()
        status = await engine.canary()
        assert not status.ready
        assert "canary" in status.not_ready_reason
        assert isinstance(await one(engine), EngineUnavailable)
        world.hosts["one.test"] = lambda r: httpx.Response(200, json=answer(_asked_url(r)))
        assert (await engine.canary()).ready

    async def test_canaries_are_bought_only_when_nothing_else_proves_it(self, world: World) -> None:
        engine = await world.ready(proof_age=1.0)
        for _ in range(5):
            assert (await engine.canary()).ready
        assert world.asked == []
        await asyncio.sleep(1.05)
        world.hosts["one.test"] = lambda _: httpx.Response(500)
        assert not (await engine.canary()).ready
