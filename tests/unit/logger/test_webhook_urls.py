"""Saving a webhook: what does not lead to the internet is refused at once, however it is written."""

from __future__ import annotations

import asyncio
from ipaddress import IPv6Address, ip_network
from typing import Any
from uuid import uuid4

import pytest

from servicekit.addresses import ALSO, RANGES, is_public
from servicekit.errors import InvalidArgument
from servicekit.outbound import NoPublicAddressError
from servicekit.principal import Principal
from services.logger.alerts import service as module
from services.logger.alerts.model import Wishes
from services.logger.alerts.service import AlertService

CALLER = Principal(uuid4())


class Store:
    """Wishes in memory."""

    def __init__(self) -> None:
        self.kept = Wishes()

    async def wishes(self, caller: Principal) -> Wishes:
        return self.kept

    async def wish(self, caller: Principal, wishes: Wishes, secret: str | None) -> None:
        self.kept = wishes

    async def latest(self, caller: Principal) -> list[Any]:
        return []


class Names:
    """A resolver: names to addresses. Judges as the real one does."""

    def __init__(self, **known: list[str]) -> None:
        self.known = known
        self.slow = False

    async def addresses(self, host: str, port: int, *, internal: bool = False) -> list[str]:
        if self.slow:
            await asyncio.Event().wait()
        found = self.known.get(host.partition(".")[0])
        if found is None:
            raise OSError("no such name")
        if not all(map(is_public, found)):
            raise NoPublicAddressError
        return found


async def saved(url: str, names: Any = None) -> bool:
    """Whether it is taken. What is refused changes nothing."""
    store = Store()
    try:
        await AlertService(store, resolver=names).wish(CALLER, Wishes(webhook_url=url), rotate_secret=False)
    except InvalidArgument:
        assert store.kept == Wishes()
        return False
    assert store.kept.webhook_url == url
    return True


@pytest.mark.parametrize("text", [*RANGES, *ALSO])
async def test_an_address_of_a_special_range_is_refused(text: str) -> None:
    network = ip_network(text)
    for address in (network[0], network[network.num_addresses // 2], network[-1]):
        hosts = [f"[{address}]"] if isinstance(address, IPv6Address) else [
            str(address), f"{address}.", str(int(address)), hex(int(address)), f"0{int(address):o}",
            f"[::ffff:{address}]", f"[::{address}]", f"[64:ff9b::{address}]",
        ]  # fmt: skip
        for host in hosts:
            assert not await saved(f"https://{host}/hook"), host
            assert not await saved(f"https://{host}:8443/hook"), host


@pytest.mark.parametrize(
    "host",
    [
        "[64:ff9b::a00:1]", "[::7f00:1]", "[fec0::1]", "127.1", "0x7f.1", "0", "[fe80::1%25eth0]",
        "[fe80::1%eth0]", "[2606:4700::1111%25eth0]", "%31%32%37.0.0.1", "127.0.0.1\\@hooks.example",
        "1.2.3.999", "[::1", "[v1.x]",
        "hooks.example%00.internal", "hooks_example,x",
    ],
)  # fmt: skip
async def test_other_ways_to_write_one_and_what_parsers_disagree_on_are_refused(host: str) -> None:
    assert not await saved(f"https://{host}/hook")


@pytest.mark.parametrize(
    "host", ["8.8.8.8", "[2606:4700::1111]", "hooks.example", "hooks-1.ex_ample.com:8443", "[::ffff:8.8.8.8]"]
)
async def test_public_ones_are_taken(host: str) -> None:
    assert await saved(f"https://{host}/hook", Names(hooks=["8.8.8.8", "2606:4700::1111"]))


@pytest.mark.parametrize("addresses", [["10.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["8.8.8.8", "64:ff9b::a00:1"]])
async def test_a_name_that_leads_inside_is_refused_already_when_it_is_saved(addresses: list[str]) -> None:
    assert not await saved("https://hooks.example/", Names(hooks=addresses))


async def test_a_name_that_nobody_knows_yet_is_taken_and_judged_when_it_is_called() -> None:
    assert await saved("https://soon.example/", Names())


async def test_a_slow_name_server_does_not_hold_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK", 0.05)
    names = Names()
    names.slow = True
    async with asyncio.timeout(10):
        assert await saved("https://hooks.example/", names)
