"""What the pipeline enforces by itself is what the contract asks."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from servicekit.errors import PermissionDenied
from servicekit.principal import Principal
from servicekit.rpc.policy import PolicyMissingError, guards
from services.signer import access
from signgate.common.v1 import policy_pb2 as pb


def test_scopes_come_from_the_contract() -> None:
    assert {"sign"} == access.SCOPES
    assert access.scope_missing().metadata == {"missing_scopes": "sign"}


@pytest.mark.parametrize(
    "change",
    [
        {"assurance": pb.ASSURANCE_FULL},
        {"max_age": 60},
        {"access": pb.ACCESS_USER},
        {"scopes": ["sign", "usage:read"]},
    ],
)
@pytest.mark.parametrize("method", access.METHODS[1:])
def test_a_policy_that_the_pipeline_cannot_enforce_stops_the_signer_from_starting(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], method: str
) -> None:
    found = guards(access.SERVICE)
    own = found[method].policy
    same: dict[str, Any] = {"access": own.access, "scopes": own.scopes, "assurance": own.assurance}
    policy = pb.Policy(**same | change)
    monkeypatch.setattr(found[method], "policy", policy)
    monkeypatch.setattr(access, "guards", lambda _: found)
    with pytest.raises(PolicyMissingError, match=method):
        access._policy()


def test_an_administrators_token_signs_for_no_account() -> None:
    access.require_user(Principal(uuid4(), session_id=uuid4(), has_factor=True))
    with pytest.raises(PermissionDenied) as refused:
        access.require_user(Principal(uuid4(), role="service_role"))
    assert refused.value.reason == "USER_REQUIRED"
