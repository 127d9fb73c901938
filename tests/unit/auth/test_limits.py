"""The table of rate limits."""

from typing import get_args

import pytest

from services.auth.limits import LIMITS, Action


@pytest.mark.parametrize("action", get_args(Action))
def test_an_address_that_is_used_up_counts_against_no_account(action: str) -> None:
    """They are counted in the table's order: after a refusal by address nothing more is."""
    kinds = [by for limited, by, _ in LIMITS.values() if limited == action]
    assert kinds
    assert "ip" not in kinds[1:]
