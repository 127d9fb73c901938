"""No text of a stranger's costs more than in proportion to its length, wherever it enters.

Every field of every public RPC and every part of every HTTP route is filled with what parsers take long
over, at a length and at twice that length, up to the longest that is let in. Held is the CPU time that it
costs the service: its growth, and so a bound for all that share the service's loop; a neighbour who asks for
something cheap all the while is timed too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import grpc
import httpx
import pytest

from tests.attack.inputs import TEXTS, Make
from tests.attack.meter import Meter, Neighbour
from tests.attack.surface import NEIGHBOURS, Credentials, Place, grpc_places, http_places
from tests.conftest import Running
from tests.e2e.conftest import Account

LONG: Final = (4096, 65_536, 131_072)
"""Characters beyond a bound; the two larger are n and 2n. Some are beyond the message's limit too."""
UNSAID: Final = 1024
"""Characters where the contract says no bound: parts of HTTP requests."""
SMALL: Final = 64
"""A bound up to which only the time that doubles with each letter could be seen."""
SHORT: Final = ("letters", "digits", "addresses", "durations")
"""The texts that are tried there, besides those below."""
RAW: Final = ("percent escapes", "brackets", "backslashes", "NULs", "spaces")
"""The texts for parts of HTTP requests, besides: their members are the contract's fields, which get all."""
BEYOND: Final = ("distinct letters", "a domain of distinct letters", "a JWT's parts", "users in URLs")
"""The texts that are tried beyond a bound, where all are refused for their length alone or none is."""
DEEP: Final = ("distinct letters", "combining characters", "percent escapes")
"""The texts that are tried where each request takes a password's hash or waits for an even answer."""
TOP: Final = 1_300_000
"""Characters of three bytes each: near the four megabytes that one message has at most."""
FLOOR: Final = 0.1
"""Seconds of CPU below which nothing grows: a busy machine alone makes milliseconds of difference."""
RATIO: Final = 3.0
"""Twice the length may cost twice as much, and half as much again by chance; the square costs four times."""
MOST: Final = 0.5
"""Seconds of CPU that one request may cost at all. A password's hash takes some tenths of it."""
FAILURES: Final = ("INTERNAL", "UNKNOWN", "500")
"""What no request of a caller's is answered with."""
WAIT: Final = 1.0
"""Seconds that a neighbour may wait; counted when it is so three times, and not without the request."""


def lengths(place: Place, name: str) -> list[int]:
    """How long the texts of this name are that are tried at a place, shortest first."""
    bound = place.bound or UNSAID
    if name in BEYOND:
        if place.counted and name != BEYOND[0]:
            return []
        near = [bound // 2, bound] if place.bound else [bound]
        return [*near, *(length for length in LONG if length > bound)]
    if not place.bound and name not in (*SHORT, *RAW):
        return []
    if place.counted or (place.bound and place.bound <= SMALL and name not in SHORT):
        return []
    return [bound, LONG[1]] if place.by_method else [bound]


class Found:
    """What is over a limit, each once."""

    def __init__(self, meter: Meter, neighbour: Neighbour, edge: str) -> None:
        self._meter, self._neighbour, self._edge = meter, neighbour, edge
        self.faults: list[str] = []
        self.sent = 0

    def look(self, place: Place, name: str, make: Make) -> None:
        """One place with one kind of text, longer and longer until it is refused for its length alone."""
        self._ladder(place, name, make, lengths(place, name))

    def deep(self, place: Place) -> None:
        """The same where the rest of the request is good, with a few texts of lengths that are let in."""
        if place.deep is not None:
            inside = place._replace(send=place.deep, name=f"{place.name}, in a good request")
            most = place.bound or UNSAID
            for name in DEEP:
                self._ladder(inside, name, TEXTS[name], [most // 2, most])

    def _ladder(self, place: Place, name: str, make: Make, lengths: list[int]) -> None:
        costs: dict[int, float] = {}
        for length in lengths:
            cost, wait, refused = self._measured(place, make, length)
            if cost > MOST or wait > WAIT:
                cost, wait = self._again(place, make, length, cost, wait)
            costs[length] = cost
            if cost > MOST or wait > WAIT:
                self._fault(place, name, length, f"costs {cost:.2f} s of CPU, a neighbour waits {wait:.2f} s")
                return
            half = costs.get(length // 2)
            if half is not None and cost > FLOOR and cost > RATIO * half and self._grows(place, make, length):
                self._fault(place, name, length, f"costs {cost:.3f} s, half of it {half:.3f} s")
                return
            if refused in FAILURES:
                self._fault(place, name, length, f"is answered with {refused}")
                return
            if refused == "MESSAGE_TOO_LARGE":
                return

    def top(self, place: Place) -> None:
        """The longest that one message can be at all."""
        make = TEXTS["distinct letters"]
        cost, wait, _ = self._measured(place, make, TOP)
        if cost > MOST or wait > WAIT:
            cost, wait = self._again(place, make, TOP, cost, wait)
        if cost > MOST or wait > WAIT:
            self._fault(place, "the longest", TOP, f"costs {cost:.2f} s, a neighbour waits {wait:.2f} s")

    def _again(self, place: Place, make: Make, length: int, cost: float, wait: float) -> tuple[float, float]:
        """The least of three tries. A wait that is as long while nothing is sent is the machine's."""
        tries = [(cost, wait), *(self._measured(place, make, length)[:2] for _ in range(2))]
        cost, wait = (min(values) for values in zip(*tries, strict=True))
        if wait > WAIT:
            self._neighbour.longest()
            time.sleep(2 * WAIT)
            if self._neighbour.longest() > WAIT / 2:
                wait = 0.0
        return cost, wait

    def _measured(self, place: Place, make: Make, length: int) -> tuple[float, float, str]:
        text, answers = make(length), []
        neighbour = self._neighbour
        neighbour.url = self._edge + NEIGHBOURS[place.service]
        neighbour.longest()
        cost = self._meter.cost(place.service, lambda: answers.append(place.send(text)))
        self.sent += 1
        return cost, neighbour.longest(), answers[0]

    def _grows(self, place: Place, make: Make, length: int) -> bool:
        """Whether it is so when the least of several tries is taken."""
        short = min(self._measured(place, make, length // 2)[0] for _ in range(3))
        long = min(self._measured(place, make, length)[0] for _ in range(3))
        return long > FLOOR and long > RATIO * short

    def _fault(self, place: Place, name: str, length: int, what: str) -> None:
        self.faults.append(f"{place.name}, {name}, {length} characters: {what}")


@pytest.fixture(scope="module")
def credentials(new_account: Callable[[], Account], service_role: str) -> Credentials:
    return Credentials(new_account(), service_role)


@pytest.fixture
def found(running: Running, credentials: Credentials) -> Iterator[Found]:
    signed_in = {"authorization": f"Bearer {credentials.account.session.access_token}"}
    neighbour = Neighbour(signed_in)
    neighbour.url = running.edge_url + NEIGHBOURS["auth"]
    with neighbour.asking():
        yield Found(Meter(running), neighbour, running.edge_url)


def _all(found: Found, places: Iterable[Place]) -> list[Place]:
    looked = []
    for place in places:
        looked.append(place)
        for name, make in TEXTS.items():
            before = len(found.faults)
            found.look(place, name, make)
            if len(found.faults) > before:
                break  # one kind tells enough of a place, and each costs seconds
        found.deep(place)
        if len(found.faults) > 5:  # so does a handful of places
            break
    return looked


@pytest.mark.timeout(900)
def test_no_field_of_a_public_method_costs_more_than_its_length(
    running: Running,
    credentials: Credentials,
    found: Found,
) -> None:
    """S1: an address of 4,000 distinct letters kept the accounts' service from answering for 4 to 14 s."""
    with grpc.insecure_channel(running.edge) as channel:
        places = _all(found, grpc_places(channel, credentials))
        for place in {place.name.partition(" ")[0]: place for place in places}.values():
            found.top(place)
    assert found.faults == [], "\n".join(found.faults)
    assert len(places) > 80
    assert found.sent > 10 * len(places)


@pytest.mark.timeout(900)
def test_no_part_of_an_http_request_costs_more_than_its_length(
    running: Running,
    credentials: Credentials,
    found: Found,
) -> None:
    """S1 by HTTP, and its kind: queries, paths, bodies, forms and headers."""
    with httpx.Client(base_url=running.edge_url, timeout=60) as http:
        places = _all(found, http_places(running, http, credentials))
    assert found.faults == [], "\n".join(found.faults)
    assert len(places) > 100
    assert found.sent > 10 * len(places)
