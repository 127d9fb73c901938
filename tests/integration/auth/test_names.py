"""Names of second factors, over both faces."""

from __future__ import annotations

import pytest

from servicekit.errors import InvalidArgument
from signgate.auth.v1 import auth_pb2
from tests.integration.auth.test_http import post
from tests.integration.auth.world import World, bearer

INVISIBLE = "\u3164\u2060\u00ad\u2800\u200d\u034f\ufe0f\u0007\u00a0"


@pytest.mark.parametrize("field", ["friendly_name", "issuer"])
async def test_a_name_has_no_invisible_characters(world: World, field: str) -> None:
    """S26."""
    session = await world.user()
    names = [*INVISIBLE, *(f"a{char}b" for char in INVISIBLE)]
    for name in names:
        request = auth_pb2.EnrollFactorRequest(**{"factor_type": "totp", field: name})
        with pytest.raises(InvalidArgument) as caught:
            await world.rpc.EnrollFactor(request, metadata=bearer(session))
        assert [violation.field for violation in caught.value.violations] == [field]
    answer = await post(world, "/factors", {"factor_type": "totp", field: names[-1]}, session.access_token)
    assert (answer.status_code, answer.json()["code"]) == (400, "validation_failed")
    user = (await world.rpc.GetUser(auth_pb2.GetUserRequest(), metadata=bearer(session))).user
    assert not user.factors


async def test_a_name_is_kept_in_one_form(world: World) -> None:
    """S26."""
    session = await world.user()
    request = auth_pb2.EnrollFactorRequest(factor_type="totp", friendly_name=" te\u0301le\u0301phone ")
    made = await world.rpc.EnrollFactor(request, metadata=bearer(session))
    assert made.factor.friendly_name == "t\u00e9l\u00e9phone"
