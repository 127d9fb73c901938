"""The harness can fail: what was recorded before the cures does not pass."""

from __future__ import annotations

import pytest

from tests.attack.attacks.base import Attack, Attacker
from tests.attack.report import Report
from tests.attack.run import Outcome, Pace, Told
from tests.attack.victim import DEADLINE, Sample


async def nothing(attacker: Attacker) -> None:
    """An attack for a report alone."""


ATTACK = Attack("recorded", "S2", nothing)


def samples(kind: str, *seconds: float, refusal: str = "") -> list[Sample]:
    return [Sample(kind, float(number), each, refusal) for number, each in enumerate(seconds)]


def calm() -> list[Sample]:
    return samples("sign", *[0.01] * 99, 0.08) + samples("sign in", *[0.1] * 10)


def outcome(under: list[Sample], after: list[Sample] | None = None) -> Outcome:
    return Outcome(ATTACK, [Told(calm(), under, after or [])])


def held(found: Outcome) -> bool:
    return Report([found]).held(found)


def test_what_users_do_not_notice_holds_the_floors() -> None:
    quiet = [outcome(samples("sign", *[0.02] * 100) + samples("sign in", 0.2, 0.3))]
    assert Report(quiet).line() == "attack: all floors held"


def test_one_refusal_in_a_thousand_is_a_refusal() -> None:
    under = samples("sign", *[0.02] * 999) + samples("sign", 0.02, refusal="503 OVERLOADED")
    assert Report([outcome(under)]).line() == "attack: floors not held: S2 recorded"


def test_a_refusal_after_the_attack_has_ended_counts() -> None:
    """Twenty seconds of 503 began when the attacker had already gone."""
    after = samples("sign", DEADLINE, refusal="no answer in time")
    assert not held(outcome(samples("sign", *[0.02] * 100), after))


@pytest.mark.parametrize("kind", ["sign", "sign in", "usage"])
def test_a_stall_without_a_refusal_is_a_failure(kind: str) -> None:
    """One address of 12 KB kept sign-ins waiting for 1.6 s; all of them succeeded."""
    assert not held(outcome(samples(kind, *[0.02] * 50, 1.6)))


def test_kinds_are_judged_apart() -> None:
    """A thousand quick signatures do not hide that every sign-in waits."""
    under = samples("sign", *[0.01] * 1000) + samples("sign in", *[2.0] * 5)
    found = {finding.kind: finding.held for finding in Report([outcome(under)]).findings(outcome(under))}
    assert found == {"sign": True, "sign in": False}


def test_no_request_is_no_proof() -> None:
    """Victims that ended, or never came to ask, have shown nothing."""
    assert not held(outcome([]))
    assert Report([]).line() == "attack: floors not held: nothing was tried"


def test_services_that_had_to_be_restarted_fail() -> None:
    found = outcome(samples("sign", *[0.02] * 100))
    found.restarted = True
    assert not held(found)


def test_a_process_that_died_fails_even_if_users_did_not_notice() -> None:
    found = outcome(samples("sign", *[0.02] * 100))
    found.died.add("logger")
    assert not held(found)


def test_refusals_in_calm_are_no_floor_that_held() -> None:
    """A stack that refuses its users without an attack shows nothing about attacks."""
    broken = Outcome(ATTACK, [Told(samples("sign", 0.1, refusal="503"), samples("sign", *[0.02] * 100), [])])
    assert not held(broken)


def test_a_run_takes_its_time_from_the_minutes_it_is_given() -> None:
    assert Pace.within(10, attacks=20).round(20) <= 600
