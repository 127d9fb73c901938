from __future__ import annotations

import contextlib
import math
from datetime import timedelta

import pytest

from servicekit.testing.clock import ManualClock
from services.auth.errors import ValidationFailed
from services.auth.redirects import Redirects
from services.auth.service.even import EvenAnswers
from services.auth.service.kit import Rules, metadata

SITE = "https://signgate.test"
RULES = Rules(
    site_url=SITE,
    link_base=f"{SITE}/auth/v1",
    redirects=Redirects(SITE, ("https://app.test/*", "myapp://login")),
    signup_enabled=True,
    signup_tells_existing=True,
    auto_confirm=False,
    secure_email_change=True,
    password_min_length=8,
    names=("Signgate",),
    reuse_window=timedelta(seconds=30),
    session_inactivity=timedelta(days=30),
    session_timebox=None,
    code_ttl=timedelta(hours=1),
    invite_ttl=timedelta(days=7),
    flow_ttl=timedelta(minutes=5),
    challenge_ttl=timedelta(minutes=5),
    totp_issuer="Signgate",
    even_answer=0.25,
)


@pytest.mark.parametrize(
    "value",
    [
        {"x": "\0"},
        {"\0": 1},
        {"x": "\ud800"},
        {"x": math.inf},
        {"x": math.nan},
        {"x": 10**400},
        {"x": "a" * 20_000},
    ],
)
def test_metadata_that_no_store_could_hold_is_refused(value: dict[str, object]) -> None:
    with pytest.raises(ValidationFailed):
        metadata(value)


def test_metadata_has_a_depth() -> None:
    deep: object = 1
    for _ in range(40):
        deep = [deep]
    with pytest.raises(ValidationFailed):
        metadata({"x": deep})
    assert metadata({"x": {"y": [1, "é", None, True]}}) == {"x": {"y": [1, "é", None, True]}}


async def taken(work: float, *, quantum: float = 0.25, fail: bool = False, always: bool = True) -> float:
    clock = ManualClock()

    async def sleep(seconds: float) -> None:
        clock.advance(seconds)

    even = EvenAnswers(clock, quantum, sleep)
    began = clock.monotonic()
    with contextlib.suppress(LookupError):
        async with even.always() if always else even.on_failure():
            clock.advance(work)
            if fail:
                raise LookupError
    return round(clock.monotonic() - began, 6)


async def test_short_and_longer_work_take_the_same_time() -> None:
    for work in (0.001, 0.01, 0.2):
        assert await taken(work) == 0.25
        assert await taken(work, fail=True) == 0.25
        assert await taken(work, fail=True, always=False) == 0.25


async def test_work_beyond_the_quantum_takes_the_next_multiple() -> None:
    assert await taken(0.26) == 0.5
    assert await taken(0.74) == 0.75


async def test_success_that_tells_everything_anyway_waits_for_nothing() -> None:
    assert await taken(0.01, always=False) == 0.01


async def test_without_a_quantum_nothing_waits() -> None:
    assert await taken(0.01, quantum=0) == 0.01
