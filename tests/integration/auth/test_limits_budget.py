"""What strangers can make grow in Redis: bounded a counter, an address, and in all; and worth forgetting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from redis.asyncio import Redis

from deploy.local.layout import ROOT
from servicekit.addresses import bucket, site
from servicekit.clock import SystemClock
from servicekit.errors import ResourceExhausted
from servicekit.redis import CONNECTIONS
from servicekit.testing.network import RedisProcess, redis_server
from services.auth.config import AuthSettings
from services.auth.domain import Client
from services.auth.limits import LIMITS, RateLimits
from tests.redis_users import USERS, login

RATES = {name: str(AuthSettings.model_fields[name].default) for name in LIMITS}
ROOM = 2_500_000
"""Bytes: of which Redis itself takes one million. The 64 MB of a deployment would take a test too long."""


def as_deployed() -> Iterator[str]:
    """deploy/redis/limits.conf as options, with less room."""
    for line in (ROOT / "deploy/redis/limits.conf").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, value = line.split(maxsplit=1)
            yield from (f"--{name}", str(ROOM) if name == "maxmemory" else value.strip('"'))


@pytest.fixture
def store() -> Iterator[RedisProcess]:
    with redis_server(*as_deployed(), always=USERS) as found:
        yield found


@pytest.fixture
async def operator(store: RedisProcess) -> AsyncIterator[Any]:
    async with Redis.from_url(store.url) as found:
        yield found


@pytest.fixture
async def limits(store: RedisProcess) -> AsyncIterator[RateLimits]:
    found = RateLimits(login(store.url, "limits"), RATES, "pepper", SystemClock(), **CONNECTIONS)
    yield found
    await found.close()


def at(number: int) -> Client:
    """One of many addresses that have nothing in common, not even a /48."""
    return Client(ip=f"2001:db8:{number:x}::1")


async def let_in(limits: RateLimits, client: Client, account: str) -> bool:
    try:
        await limits.hit("sign_in", client, account)
    except ResourceExhausted:
        return False
    return True


async def flood(limits: RateLimits, accounts: int) -> None:
    """Sign-ins to as many accounts that do not exist, each from an address of its own."""
    for first in range(0, accounts, 16):  # as many as there are connections: none has to wait
        await asyncio.gather(
            *(let_in(limits, at(n), f"made-up-{n}@x.test") for n in range(first, first + 16))
        )


async def test_a_flood_of_made_up_accounts_neither_fills_the_store_nor_forgets_who_is_limited(
    limits: RateLimits, operator: Any
) -> None:
    """Nothing is refused for want of memory, and what goes is what was counted once."""
    thief, victim = Client(ip="192.0.2.66"), "victim@x.test"
    for _ in range(10):
        assert await let_in(limits, thief, victim)
    assert not await let_in(limits, thief, victim)
    await flood(limits, 4_000)
    info = await operator.info()
    assert info["evicted_keys"] > 1_000
    assert info["used_memory"] < ROOM * 1.1
    assert not await let_in(limits, thief, victim)
    assert await let_in(limits, Client(ip="198.51.100.7"), victim)
    assert await let_in(limits, Client(ip="198.51.100.8"), "somebody-new@x.test")


async def test_an_address_that_is_used_up_makes_no_more_counters(limits: RateLimits, operator: Any) -> None:
    """Whichever address of its /64 it takes."""
    most = int(RATES["rate_sign_in_ip"].split()[0])
    for number in range(most):
        assert await let_in(limits, Client(ip=f"2001:db8::{number:x}"), f"made-up-{number}@x.test")
    counters = await operator.dbsize()
    for number in range(most, most + 100):
        assert not await let_in(limits, Client(ip=f"2001:db8::{number:x}"), f"made-up-{number}@x.test")
    assert await operator.dbsize() == counters
    assert await let_in(limits, Client(ip="2001:db8:0:1::1"), "made-up-0@x.test")


async def test_a_counter_takes_the_same_memory_however_much_it_counts(
    limits: RateLimits, operator: Any
) -> None:
    client = Client(ip="192.0.2.1")

    async def taken() -> int:
        return sum([await operator.memory_usage(key) for key in await operator.keys("*")])

    await limits.hit("refresh", client)
    once = await taken()
    for _ in range(1_000):
        await limits.hit("refresh", client)
    assert await taken() <= once + 16


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("unknown", ""),
    ],
)
def test_an_ipv6_address_counts_as_its_network(address: str, counted: str) -> None:
    assert bucket(address) == counted


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.1", ""),
        ("::ffff:192.0.2.1", ""),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1::/48"),
        ("2001:db8:1:ffff::", "2001:db8:1::/48"),
        ("fe80::1%eth0", "fe80::/48"),
        ("", ""),
        ("unknown", ""),
    ],
)
def test_and_by_a_looser_limit_as_the_customer_s_network(address: str, counted: str) -> None:
    assert site(address) == counted
