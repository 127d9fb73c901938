"""Published keys over real HTTP: rotation is found, garbage costs the issuer nothing."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from servicekit.errors import Unavailable
from servicekit.keyset import KeySet
from servicekit.testing.clock import ManualClock
from servicekit.testing.network import free_port
from servicekit.testing.tokens import TokenMint
from servicekit.tokens import Issuer, JwtVerifier, KeyCache, TokenInvalid


class Publisher:
    """Serves a JWK Set, or fails, and counts who asks."""

    def __init__(self) -> None:
        self.keys = KeySet(())
        self.asked = 0
        self.broken = False
        publisher = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                publisher.asked += 1
                body = b"oops" if publisher.broken else json.dumps(publisher.keys.public_jwks(0)).encode()
                self.send_response(500 if publisher.broken else 200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/jwks.json"


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    publisher = Publisher()
    thread = Thread(target=publisher.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield publisher
    publisher.server.shutdown()
    publisher.server.server_close()
    thread.join()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def cache(publisher: Publisher, clock: ManualClock) -> KeyCache:
    return KeyCache(publisher.url, clock)


def published(clock: ManualClock, publisher: Publisher) -> TokenMint:
    mint = TokenMint(clock=clock)
    publisher.keys = KeySet((*publisher.keys.keys, mint.key))
    return mint


async def test_a_token_is_verified_by_its_issuers_published_key(
    publisher: Publisher, clock: ManualClock
) -> None:
    mint = published(clock, publisher)
    verifier = JwtVerifier([Issuer(mint.issuer.name, publisher.url)], clock=clock)
    for _ in range(5):
        await verifier.verify(mint.token())
    assert publisher.asked == 1


async def test_a_new_key_is_found_at_its_first_token(
    publisher: Publisher, clock: ManualClock, cache: KeyCache
) -> None:
    await cache.get(published(clock, publisher).key.kid)
    new = published(clock, publisher)
    clock.advance(5)
    assert (await cache.get(new.key.kid)).key_id == new.key.kid


async def test_made_up_key_ids_do_not_hammer_the_issuer(
    publisher: Publisher, clock: ManualClock, cache: KeyCache
) -> None:
    published(clock, publisher)
    for number in range(100):
        with pytest.raises(TokenInvalid):
            await cache.get(f"made-up-{number}")
    assert publisher.asked == 1


async def test_a_key_that_is_no_longer_published_stops_counting(
    publisher: Publisher, clock: ManualClock, cache: KeyCache
) -> None:
    old = published(clock, publisher)
    await cache.get(old.key.kid)
    publisher.keys = KeySet(())
    published(clock, publisher)
    clock.advance(299)
    await cache.get(old.key.kid)
    clock.advance(2)
    with pytest.raises(TokenInvalid):
        await cache.get(old.key.kid)


async def test_known_keys_outlast_a_broken_issuer_but_not_for_ever(
    publisher: Publisher, clock: ManualClock, cache: KeyCache
) -> None:
    kid = published(clock, publisher).key.kid
    await cache.get(kid)
    publisher.broken = True
    clock.advance(3599)
    await cache.get(kid)
    clock.advance(10)
    with pytest.raises(Unavailable):
        await cache.get(kid)


async def test_an_issuer_that_was_never_there_is_unavailable_not_a_bad_token(clock: ManualClock) -> None:
    cache = KeyCache(f"http://127.0.0.1:{free_port()}/", clock, timeout=0.5)
    with pytest.raises(Unavailable):
        await cache.get("any")
