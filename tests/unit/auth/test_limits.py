"""The table of rate limits."""

from typing import get_args

import pytest

from services.auth.config import AuthSettings
from services.auth.limits import LIMITS, Action


@pytest.mark.parametrize("action", get_args(Action))
def test_an_address_that_is_used_up_counts_against_no_account(action: str) -> None:
    """They are counted in the table's order: after a refusal by address nothing more is."""
    kinds = [by for limited, by, _ in LIMITS.values() if limited == action]
    assert kinds
    assert not {"ip", "net"} & set(kinds[kinds.count("ip") + kinds.count("net") :])


@pytest.mark.parametrize("action", ["sign_in", "sign_up", "verify", "mail"])
def test_what_an_address_can_do_a_network_of_many_can_do_a_few_times(action: str) -> None:
    """S16: a looser limit for a /48 has four to ten times the number of an address, over the same time."""
    fields = AuthSettings.model_fields
    one, time = str(fields[f"rate_{action}_ip"].default).split(" per ")
    many, same = str(fields[f"rate_{action}_net"].default).split(" per ")
    assert time == same
    assert 4 * int(one) <= int(many) <= 10 * int(one)


@pytest.mark.parametrize("action", get_args(Action))
def test_no_public_name_alone_stops_who_the_account_knows(action: str) -> None:
    """S14: what is counted by an account's address from anywhere, strangers can use up. A nonce and a notice
    are counted by the id of the account, for calls that its session or its password has proved.
    """
    kinds = {by for limited, by, _ in LIMITS.values() if limited == action}
    proved = ("nonce", "notice", "key_notice", "factor_wrong")
    assert "account" not in kinds or action in proved
