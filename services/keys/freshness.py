"""The contract's freshness for scopes that a request does not show: those of the key that it names."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from servicekit.principal import Principal
from servicekit.rpc.policy import fresh_of, require_fresh_for
from signgate.keys.v1 import keys_pb2

_scopes: Final = keys_pb2.CreateKeyRequest.DESCRIPTOR.fields_by_name["scopes"]
fresh_of(_scopes)  # raises, at start, if the contract no longer says it


def require_fresh_scopes(principal: Principal, scopes: Collection[str], now: float) -> None:
    """Raise `ReauthenticationNeeded` if making a key with these scopes needs a newer sign-in."""
    require_fresh_for(_scopes, scopes, principal, now)
