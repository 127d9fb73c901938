"""What each method for users asks of the sign-in, decided by hand.

The contract says the same, and a test compares the two. A change of a policy, and a new method, change this
list too; the reason is a comment in the contract.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Final, NamedTuple

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, MethodDescriptor

from deploy.local.layout import ROOT
from signgate.common.v1 import policy_pb2 as pb

HOUR: Final = 3_600
DAY: Final = 86_400
ANY: Final = pb.ASSURANCE_ANY
FULL: Final = pb.ASSURANCE_FULL


class Fresh(NamedTuple):
    """What a field asks for; `values`: only if it has one of these."""

    max_age: int
    values: tuple[str, ...] = ()


class Decision(NamedTuple):
    """`fresh` by the path of a field in the request."""

    assurance: pb.Assurance.ValueType
    max_age: int = 0
    proofs: tuple[str, ...] = ()
    fresh: Mapping[str, Fresh] = {}


MANAGING: Final = Fresh(HOUR, ("keys:manage",))

DECISIONS: Final[Mapping[str, Decision]] = {
    "auth.v1.AuthService/SignOut": Decision(ANY),
    "auth.v1.AuthService/GetUser": Decision(ANY),
    "auth.v1.AuthService/UpdateUser": Decision(
        FULL,
        proofs=("nonce", "current_password"),
        fresh={"email": Fresh(DAY), "password": Fresh(DAY)},
    ),
    "auth.v1.AuthService/DeleteUser": Decision(FULL),
    "auth.v1.AuthService/Reauthenticate": Decision(ANY),
    "auth.v1.AuthService/ConfirmIdentity": Decision(ANY),
    "auth.v1.AuthService/ListSessions": Decision(ANY),
    "auth.v1.AuthService/RevokeSession": Decision(ANY),
    "auth.v1.AuthService/EnrollFactor": Decision(FULL, max_age=HOUR),
    "auth.v1.AuthService/ChallengeFactor": Decision(ANY),
    "auth.v1.AuthService/VerifyFactor": Decision(ANY),
    "auth.v1.AuthService/UseRecoveryCode": Decision(ANY),
    "auth.v1.AuthService/UnenrollFactor": Decision(FULL, max_age=HOUR),
    "auth.v1.AuthService/GetRecoveryCodes": Decision(ANY),
    "auth.v1.AuthService/RegenerateRecoveryCodes": Decision(FULL, max_age=HOUR),
    "keys.v1.KeysService/CreateKey": Decision(FULL, fresh={"scopes": MANAGING}),
    "keys.v1.KeysService/ListKeys": Decision(ANY),
    "keys.v1.KeysService/GetKey": Decision(ANY),
    "keys.v1.KeysService/UpdateKey": Decision(FULL, fresh={"scopes.scopes": MANAGING}),
    # And as CreateKey where the key has the scope, which the request does not show.
    "keys.v1.KeysService/RotateKey": Decision(FULL),
    "keys.v1.KeysService/RevokeKey": Decision(FULL),
    "keys.v1.KeysService/RevokeAllKeys": Decision(FULL),
    "keys.v1.KeysService/ListKeyEvents": Decision(ANY),
    "quota.v1.QuotaService/GetQuota": Decision(ANY),
    "signer.v1.SignerService/Sign": Decision(ANY),
    "signer.v1.SignerService/SignBatch": Decision(ANY),
    "signer.v1.SignerService/SignStream": Decision(ANY),
    "usage.v1.AlertService/GetAlertSettings": Decision(ANY),
    "usage.v1.AlertService/UpdateAlertSettings": Decision(FULL),
    "usage.v1.AlertService/ListAlerts": Decision(ANY),
    "usage.v1.UsageService/ExportUsage": Decision(ANY),
    "usage.v1.UsageService/GetUsageStats": Decision(ANY),
    "usage.v1.UsageService/ListUsage": Decision(ANY),
}
"""By package, service and method, without `signgate.`."""


def methods() -> Iterator[MethodDescriptor]:
    """Every method of every service of the contract."""
    files = descriptor_pb2.FileDescriptorSet.FromString((ROOT / "gen" / "signgate.binpb").read_bytes())
    for file in files.file:
        if file.service and file.package.startswith("signgate."):
            module = import_module(f"{file.name.removesuffix('.proto').replace('/', '.')}_pb2")
            for service in module.DESCRIPTOR.services_by_name.values():
                yield from service.methods


def name_of(method: MethodDescriptor) -> str:
    """As in `DECISIONS`."""
    return f"{method.containing_service.full_name}/{method.name}".removeprefix("signgate.")


def policy_of(method: MethodDescriptor) -> pb.Policy:
    found: pb.Policy = method.GetOptions().Extensions[pb.policy]
    return found


def asks_users(method: MethodDescriptor) -> bool:
    """Whether it takes users' access tokens."""
    return policy_of(method).access in (pb.ACCESS_CALLER, pb.ACCESS_USER)


def decision_of(method: MethodDescriptor) -> Decision:
    """What the contract says."""
    policy = policy_of(method)
    return Decision(
        policy.assurance, policy.max_age, tuple(policy.proofs), dict(_fresh(method.input_type, ""))
    )


def _fresh(message: Descriptor, above: str) -> Iterator[tuple[str, Fresh]]:
    for field in message.fields:
        option = field.GetOptions().Extensions[pb.fresh]
        if option != pb.Fresh():
            yield f"{above}{field.name}", Fresh(option.max_age, tuple(option.values))
        inner = field.message_type
        if inner is not None and not inner.full_name.startswith("google."):
            yield from _fresh(inner, f"{above}{field.name}.")
