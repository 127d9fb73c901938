"""Filters of usage, from the wire to the domain."""

from __future__ import annotations

import pytest

from servicekit.errors import InvalidArgument
from services.logger.servicer import where
from signgate.usage.v1 import usage_pb2


@pytest.mark.parametrize("name", ["error_reason", "engine"])
def test_what_postgresql_can_not_hold_is_the_caller_s_error(name: str) -> None:
    message = usage_pb2.UsageFilter()
    setattr(message, name, "a\0b")
    with pytest.raises(InvalidArgument) as refused:
        where(message)
    assert [violation.field for violation in refused.value.violations] == [f"filter.{name}"]
