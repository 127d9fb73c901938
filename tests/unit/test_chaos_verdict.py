"""What `make chaos` says of a run can be read by others, and can't be kinder than the record."""

from __future__ import annotations

import pytest

from tests.chaos.checks import Verdict, gaps


def test_the_closing_line_has_the_form_that_others_read() -> None:
    verdict = Verdict(longest_gap=3.24)
    assert verdict.line() == "lost 0, duplicate 0, over-admitted 0, wrongly refused 0, longest gap 3.2 s"
    verdict = Verdict(["a"], ["b", "c"], ["d"], ["e", "f", "g"], ["h"], over_admitted_units=7)
    assert verdict.line() == "lost 1, duplicate 2, over-admitted 7, wrongly refused 3, longest gap 0.0 s"


@pytest.mark.parametrize("kind", ["lost", "duplicate", "over_admitted", "wrongly_refused", "books"])
def test_one_finding_of_any_kind_is_enough_to_fail(kind: str) -> None:
    verdict = Verdict()
    assert verdict.good
    getattr(verdict, kind).append("something")
    assert not verdict.good


def test_a_gap_that_outlasts_the_next_fault_counts_whole() -> None:
    assert gaps([1.0, 2.0, 9.0, 9.5], [1.5, 4.0], 10.0) == [7.0, 5.0]


def test_no_success_at_all_is_a_gap_until_the_end() -> None:
    assert gaps([], [1.0, 4.0], 10.0) == [9.0, 6.0]
