"""Scopes: all of them, or a refusal that names what is missing."""

from uuid import UUID

import pytest

from servicekit.errors import PermissionDenied
from servicekit.principal import DEFAULT_KEY_SCOPES, KEYS_MANAGE, SIGN, Principal, require_scopes

KEY = Principal(UUID(int=1), scopes=DEFAULT_KEY_SCOPES, api_key_id=UUID(int=2))


def test_scopes_that_are_held_pass() -> None:
    require_scopes(KEY, [SIGN])
    require_scopes(KEY, [])


def test_one_missing_scope_is_enough_to_refuse_and_is_named() -> None:
    with pytest.raises(PermissionDenied) as caught:
        require_scopes(KEY, [SIGN, KEYS_MANAGE])
    assert caught.value.reason == "SCOPE_MISSING"
    assert caught.value.metadata == {"missing_scopes": "keys:manage"}


def test_a_default_key_can_not_manage_keys() -> None:
    """Otherwise a leaked key could make others that outlive it."""
    assert KEYS_MANAGE not in DEFAULT_KEY_SCOPES
