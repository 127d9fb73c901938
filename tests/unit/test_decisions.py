"""The contract's policies for users are those that were decided."""

from __future__ import annotations

import pytest
from google.protobuf.descriptor import MethodDescriptor

from tests.decisions import DECISIONS, asks_users, decision_of, methods, name_of

USERS = [method for method in methods() if asks_users(method)]


@pytest.mark.parametrize("method", USERS, ids=name_of)
def test_what_a_method_asks_is_what_was_decided(method: MethodDescriptor) -> None:
    """Changed on purpose? Then change tests/decisions.py, and the reason beside the policy."""
    assert decision_of(method) == DECISIONS.get(name_of(method))


def test_no_decision_is_about_nothing() -> None:
    assert DECISIONS.keys() == {name_of(method) for method in USERS}
