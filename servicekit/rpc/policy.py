"""The access policy of a method, read from its contract and applied to a principal."""

from __future__ import annotations

from typing import Final

from google.protobuf import descriptor_pool

from servicekit.errors import PermissionDenied
from servicekit.principal import Principal, require_scopes
from signgate.common.v1 import policy_pb2 as pb

OPEN: Final = frozenset({pb.ACCESS_PUBLIC, pb.ACCESS_INTERNAL})
"""Kinds of access that check no caller's credential; internal ones check a service's (`rpc.callers`)."""


class PolicyMissingError(Exception):
    """A method has no access policy, or an incomplete one: the server must not start."""


def policies(service: str) -> dict[str, pb.Policy]:
    """The policy of each method of a service, by method name, from its descriptor.

    Raises `PolicyMissingError` when one has none, when an internal one names no callers, or another one
    some: forgetting a policy must never open a method.
    """
    found = {}
    for method in descriptor_pool.Default().FindServiceByName(service).methods:
        policy = method.GetOptions().Extensions[pb.policy]
        if policy.access == pb.ACCESS_UNSPECIFIED:
            raise PolicyMissingError(f"{method.full_name} has no (signgate.common.v1.policy)")
        named = [caller for caller in policy.callers if caller != pb.SERVICE_UNSPECIFIED]
        if bool(named) != (policy.access == pb.ACCESS_INTERNAL):
            raise PolicyMissingError(
                f"{method.full_name}: an internal method must list callers, and no other method may"
            )
        found[method.name] = policy
    return found


def enforce(policy: pb.Policy, principal: Principal) -> None:
    """Raise `PermissionDenied` unless an authenticated principal may call a method of this policy.

    Reasons: `ACCESS_TOKEN_REQUIRED`, `API_KEY_REQUIRED`, `SERVICE_ROLE_REQUIRED`, `USER_REQUIRED`
    (a service-role token is nobody's login), `SCOPE_MISSING`.
    """
    access = policy.access
    if access in OPEN:
        return
    if access == pb.ACCESS_SERVICE_ROLE:
        if not principal.is_service_role:
            raise PermissionDenied("Administrators only.", reason="SERVICE_ROLE_REQUIRED")
    elif principal.is_service_role:
        raise PermissionDenied("This acts on a user's own things; sign in.", reason="USER_REQUIRED")
    elif access == pb.ACCESS_USER and principal.is_api_key:
        raise PermissionDenied("This needs a login, not an API key.", reason="ACCESS_TOKEN_REQUIRED")
    elif access == pb.ACCESS_API_KEY and not principal.is_api_key:
        raise PermissionDenied("This needs an API key, not a login.", reason="API_KEY_REQUIRED")
    require_scopes(principal, policy.scopes)
