"""Slow downloads of one key: others page and get statistics all the while, and nothing is held for them."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import grpc
import httpx
import pytest

from deploy.local.layout import HOST
from signgate.usage.v1 import usage_pb2, usage_pb2_grpc
from tests.conftest import Running
from tests.e2e.conftest import Account

ROWS = 150_000
DOWNLOADS = 10
KEY_LIMIT, USER_LIMIT = 2, 4
SECONDS = 8.0
VICTIMS = 4
RATE = 20_000
"""Bytes a second."""

FILL = """
INSERT INTO usage_logs (id, user_id, api_key_id, room_url, success, response_time_ms, created_at, engine)
SELECT gen_random_uuid(), k.user_id, k.id, 'https://www.tiktok.com/@someone' || n || '/live', true, 5,
       now() - make_interval(secs => n), 'native'
FROM api_keys k, generate_series(1, $2) n WHERE k.id = $1
"""
LOOK = """
SELECT application_name AS pool, extract(epoch FROM now() - xact_start)::float AS age
FROM pg_stat_activity WHERE application_name LIKE 'signgate-logger%'
"""
POOLS = {
    "signgate-logger": 6,
    "signgate-logger-upkeep": 3,
    "signgate-logger-pages": 4,
    "signgate-logger-statistics": 3,
    "signgate-logger-exports": 3,
    "signgate-logger-books": 2,
}
"""The most connections of each; their sum is in docs/operations.md."""


@dataclass
class Seen:
    """What victims were answered and how fast, and what the database was busy with."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    oldest: float = 0.0
    pools: dict[str, int] = field(default_factory=dict)

    @property
    def p99(self) -> float:
        return sorted(self.seconds)[int(len(self.seconds) * 0.99)]

    def __str__(self) -> str:
        return (
            f"{dict(self.statuses)}, p99 {self.p99 * 1000:.0f} ms,"
            f" oldest transaction {self.oldest:.2f} s, connections {self.pools}"
        )


@pytest.fixture(scope="module")
def exporter(running: Running, new_account: Callable[[], Account]) -> Account:
    """An account with more usage than any buffer on the way holds."""
    account = new_account()
    asyncio.run(_fill(running, account))
    return account


@pytest.fixture(scope="module")
def victims(new_account: Callable[[], Account]) -> list[Account]:
    return [new_account() for _ in range(VICTIMS)]


async def _fill(running: Running, account: Account) -> None:
    database: Any = await asyncpg.connect(running.dsn(), command_timeout=120)
    await database.execute(FILL, account.key_id, ROWS)
    await database.close()


class SlowHttp:
    """A download over HTTP/1.1 that takes 20 kB a second, as `curl --limit-rate 20k` does."""

    def __init__(self, running: Running, credential: tuple[str, str]) -> None:
        self.answer = ""
        self._ended = threading.Event()
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        self._socket.settimeout(30)
        self._socket.connect((HOST, running.layout.port("edge")))
        head = ("GET /v1/usage:export HTTP/1.1", f"host: {HOST}", "connection: close", ": ".join(credential))
        self._socket.sendall("\r\n".join((*head, "", "")).encode())
        got = self._socket.recv(4096)
        self.answer = got.split()[1].decode()
        if self.answer != "200":
            while part := self._socket.recv(4096):
                got += part
            limited = b"EXPORT_LIMIT" in got and b"\r\nretry-after: 30\r\n" in got
            self.answer = "EXPORT_LIMIT" if limited and self.answer == "429" else got.decode()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with suppress(OSError):
            while not self._ended.wait(0.1) and self._socket.recv(RATE // 10):
                pass

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self._socket.close()


class SlowGrpc:
    """The same over HTTP/2: one message now and then."""

    def __init__(self, running: Running, credential: tuple[str, str]) -> None:
        self._channel = grpc.insecure_channel(running.edge, options=(("grpc.use_local_subchannel_pool", 1),))
        stub = usage_pb2_grpc.UsageServiceStub(self._channel)
        self._call: Any = stub.ExportUsage(usage_pb2.ExportUsageRequest(), metadata=(credential,))
        try:
            next(self._call)
            self.answer = "200"
        except grpc.RpcError as error:
            known: Any = error
            limited = known.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and any(
                b"EXPORT_LIMIT" in bytes(value)
                for key, value in known.trailing_metadata()
                if key.endswith("-bin")
            )
            self.answer = "EXPORT_LIMIT" if limited else repr(known.code())

    def close(self) -> None:
        self._call.cancel()
        self._channel.close()


@contextmanager
def slow_downloads(
    running: Running, credential: tuple[str, str], kind: type[SlowHttp | SlowGrpc]
) -> Iterator[Counter[str]]:
    with ExitStack() as stack:
        opened = []
        for _ in range(DOWNLOADS):
            one = kind(running, credential)
            stack.callback(one.close)
            opened.append(one)
        yield Counter(one.answer for one in opened)


def look_on(running: Running, victims: list[Account], seconds: float) -> Seen:
    """What other users see of their usage for so long, and what the database is busy with meanwhile."""
    seen, end = Seen(), time.monotonic() + seconds

    def use(account: Account) -> None:
        headers = {"authorization": f"Bearer {account.session.access_token}"}
        with httpx.Client(base_url=running.edge_url, headers=headers, timeout=30) as http:
            while time.monotonic() < end:
                for path in ("/v1/usage", "/v1/usage/stats?granularity=GRANULARITY_DAY", "/v1/alerts"):
                    began = time.monotonic()
                    seen.statuses[http.get(path).status_code] += 1
                    seen.seconds.append(time.monotonic() - began)

    threads = [threading.Thread(target=use, args=(one,)) for one in victims]
    for thread in threads:
        thread.start()
    asyncio.run(_watch(running, seen, end))
    for thread in threads:
        thread.join()
    return seen


async def _watch(running: Running, seen: Seen, end: float) -> None:
    database: Any = await asyncpg.connect(running.dsn())
    while time.monotonic() < end:
        rows = await database.fetch(LOOK)
        seen.oldest = max([seen.oldest, *(row["age"] for row in rows if row["age"] is not None)])
        for pool, count in Counter(row["pool"] for row in rows).items():
            seen.pools[pool] = max(seen.pools.get(pool, 0), count)
        await asyncio.sleep(0.05)
    await database.close()


@pytest.mark.parametrize("kind", [SlowHttp, SlowGrpc])
def test_slow_downloads_of_one_key_hold_up_nobody(
    running: Running, exporter: Account, victims: list[Account], kind: type[SlowHttp | SlowGrpc]
) -> None:
    """Other users are served, no transaction waits for a reader, and the key is told its limit."""
    before = look_on(running, victims, SECONDS / 2)
    with slow_downloads(running, ("x-api-key", exporter.key), kind) as answers:
        under = look_on(running, victims, SECONDS)
    sys.stdout.write(f"\nS6 by {kind.__name__}: {dict(answers)}\n  without: {before}\n  under:   {under}")
    assert set(under.statuses) == {200}
    assert under.oldest < 3.0
    assert answers == {"200": KEY_LIMIT, "EXPORT_LIMIT": DOWNLOADS - KEY_LIMIT}
    for pool, count in under.pools.items():
        assert count <= POOLS[pool], pool


@pytest.mark.parametrize("kind", [SlowHttp, SlowGrpc])
def test_slow_downloads_fill_no_connection_that_others_share(
    running: Running, exporter: Account, victims: list[Account], kind: type[SlowHttp | SlowGrpc]
) -> None:
    """As many as a user may have: all answers of a service come over one connection of the edge's."""
    login = ("authorization", f"Bearer {exporter.session.access_token}")
    with (
        slow_downloads(running, ("x-api-key", exporter.key), kind) as first,
        slow_downloads(running, login, kind) as more,
    ):
        time.sleep(SECONDS / 2)  # until nothing more fits on the way
        under = look_on(running, victims, SECONDS / 2)
    sys.stdout.write(f"\nS6 by {kind.__name__} twice: {dict(first + more)}\n  under:   {under}")
    assert (first + more)["200"] == USER_LIMIT
    assert set(under.statuses) == {200}


def test_a_download_that_ends_or_is_dropped_gives_its_place_back(running: Running, exporter: Account) -> None:
    """Also one whose reader vanished in the middle: places are not lost."""
    for kind in (SlowHttp, SlowGrpc):
        with slow_downloads(running, ("x-api-key", exporter.key), kind) as answers:
            assert answers["200"] <= KEY_LIMIT

        def whole() -> bool:
            answer = httpx.get(
                f"{running.edge_url}/v1/usage:export", headers={"x-api-key": exporter.key}, timeout=60
            )
            return answer.status_code == 200 and len(answer.content.splitlines()) == ROWS + 1

        running.eventually(whole, 60, "a whole file")
