"""What the contract asks of a credential that signs: the policy of the methods that the pipeline authorises.

The pipeline validates credentials by the list. It checks the kind of credential and the scopes, and looks up
whether a session was revoked; nothing else. So it must not serve a policy that asks for more: then this
module fails, and the signer does not start.
"""

from __future__ import annotations

from typing import Final

from servicekit.errors import PermissionDenied
from servicekit.principal import Principal
from servicekit.rpc.policy import PolicyMissingError, enforce, guards
from signgate.common.v1 import policy_pb2 as pb

# Imported for its descriptors, which `guards` looks up.
from signgate.signer.v1 import signer_pb2

SERVICE: Final = signer_pb2.DESCRIPTOR.services_by_name["SignerService"].full_name
METHODS: Final = ("Sign", "SignBatch", "SignStream")
DEFERRED: Final = frozenset(f"{SERVICE}/{method}" for method in METHODS)
"""Methods whose credential is validated, and whose policy is enforced, by the pipeline."""


def _policy() -> pb.Policy:
    found = guards(SERVICE)
    scopes = found[METHODS[0]].policy.scopes
    held = pb.Policy(access=pb.ACCESS_CALLER, scopes=scopes, assurance=pb.ASSURANCE_ANY)
    for method in METHODS:
        if found[method].reads_request or found[method].policy != held:
            raise PolicyMissingError(f"{SERVICE}/{method}: the pipeline cannot enforce this policy")
    return held


POLICY: Final = _policy()
SCOPES: Final = frozenset(POLICY.scopes)


def require_user(principal: Principal) -> None:
    """Raise `PermissionDenied` unless the policy lets a verified token's principal sign."""
    enforce(POLICY, principal)


def scope_missing() -> PermissionDenied:
    """The refusal of a good credential that lacks one of `SCOPES`."""
    names = " ".join(sorted(SCOPES))
    return PermissionDenied(
        f"This credential lacks the scope: {names}.",
        reason="SCOPE_MISSING",
        metadata={"missing_scopes": names},
    )
