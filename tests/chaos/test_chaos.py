"""A short run in every test run; and that broken builds do not pass it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.chaos.checks import used_up
from tests.chaos.faults import QUICK
from tests.chaos.run import USERS, Outcome, Plan, run
from tests.chaos.stage import Stage

SEED = 20261123


def short(plan: Plan[Stage]) -> Outcome:
    said: list[str] = []
    return run(replace(plan, signatures=0, run=".run-chaos-test", shift=8000), said.append)


def of_broken(build: str) -> Outcome:
    (fault,) = (fault for fault in QUICK if "between commit" in fault.name)
    users = tuple(user for user in USERS if user.steady)
    return short(Plan(SEED, (fault,), broken=build, users=users, settled=1.0))


@pytest.mark.timeout(600)
def test_whatever_dies_nothing_is_lost_doubled_or_over_admitted() -> None:
    outcome = short(Plan(SEED, QUICK))
    assert outcome.verdict.good, outcome.verdict
    assert outcome.record.signed > 500
    assert used_up(outcome.record), "nobody came to a limit: nothing was shown of limits"
    assert len(outcome.timeline) == len(QUICK)


@pytest.mark.timeout(600)
def test_a_build_that_acknowledges_before_it_commits_loses_rows() -> None:
    outcome = of_broken("ack-first")
    assert outcome.verdict.lost, outcome.verdict
    assert any("lost" in text for text in outcome.verdict.books), outcome.verdict.books
    assert not outcome.verdict.good


@pytest.mark.timeout(600)
def test_a_build_without_idempotency_doubles_rows() -> None:
    outcome = of_broken("no-idempotency")
    assert outcome.verdict.duplicate, outcome.verdict
    assert any("unpublished" in text for text in outcome.verdict.books), outcome.verdict.books
    assert not outcome.verdict.good
