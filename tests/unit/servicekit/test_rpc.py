"""Errors on the wire, access policies and RateLimit metadata, without a socket."""

from dataclasses import replace
from uuid import UUID, uuid4

import pytest
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool
from google.rpc import error_details_pb2 as details
from google.rpc import status_pb2
from hypothesis import given
from hypothesis import strategies as st

from deploy.settings import table
from servicekit.errors import (
    BY_STATUS,
    FieldViolation,
    Internal,
    PermissionDenied,
    QuotaFacts,
    ResourceExhausted,
    SigngateError,
)
from servicekit.principal import Principal
from servicekit.rpc import create_server, from_status, to_status
from servicekit.rpc.callers import callers_of
from servicekit.rpc.client import target
from servicekit.rpc.limits import error_metadata, rate_limit_metadata
from servicekit.rpc.policy import PolicyMissingError, enforce, policies
from signgate.common.v1 import policy_pb2 as pb
from signgate.keys.v1 import keys_pb2_grpc, validation_pb2_grpc

USER = Principal(UUID(int=1), session_id=UUID(int=9))
KEY = Principal(UUID(int=1), api_key_id=UUID(int=2), scopes=frozenset({"sign"}))
ADMIN = Principal(UUID(int=0), role="service_role")

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)


@given(
    kind=st.sampled_from(list(BY_STATUS.values())),
    message=TEXT.filter(bool),
    reason=st.from_regex(r"[A-Z][A-Z_]{0,20}", fullmatch=True),
    metadata=st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), TEXT, max_size=3),
    violations=st.lists(st.builds(FieldViolation, TEXT, TEXT, TEXT), max_size=3),
    retry_after=st.none() | st.integers(0, 10_000).map(lambda ms: ms / 1000),
    quota=st.none()
    | st.builds(
        QuotaFacts, TEXT, st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 86400).map(float)
    ),
)
def test_an_error_comes_back_as_it_went(
    kind: type[SigngateError],
    message: str,
    reason: str,
    metadata: dict[str, str],
    violations: list[FieldViolation],
    retry_after: float | None,
    quota: QuotaFacts | None,
) -> None:
    sent = kind(
        message,
        reason=reason,
        metadata=metadata,
        violations=violations,
        retry_after=retry_after,
        quota=quota,
    )
    status = status_pb2.Status.FromString(to_status(sent, "request-1").SerializeToString())
    came = from_status(status)
    assert type(came) is kind
    assert (came.message, came.reason, came.metadata) == (sent.message, sent.reason, sent.metadata)
    assert came.violations == tuple(replace(v, reason=v.reason or sent.reason) for v in sent.violations)
    assert came.quota == sent.quota
    assert came.retry_after == pytest.approx(sent.retry_after, abs=1e-6)


def test_the_request_id_travels_for_the_caller_to_quote() -> None:
    status = to_status(Internal(), "request-1")
    info = details.RequestInfo()
    assert any(packed.Unpack(info) for packed in status.details)
    assert info.request_id == "request-1"


def test_details_of_others_and_broken_ones_are_passed_over() -> None:
    status = status_pb2.Status(code=8, message="m")
    status.details.add().Pack(details.ErrorInfo(reason="THEIRS", domain="googleapis.com"))
    status.details.append(any_pb2.Any(type_url="type.googleapis.com/google.rpc.BadRequest", value=b"\xff"))
    status.details.append(any_pb2.Any(type_url="type.example/unknown", value=b"x"))
    error = from_status(status)
    assert isinstance(error, ResourceExhausted)
    assert error.reason == "RESOURCE_EXHAUSTED"


def test_a_code_that_nobody_knows_is_internal_and_ok_is_no_error() -> None:
    assert isinstance(from_status(status_pb2.Status(code=99)), Internal)
    with pytest.raises(ValueError, match="OK"):
        from_status(status_pb2.Status())


def test_rate_limit_metadata_rounds_waiting_up() -> None:
    """A client that waits for the whole seconds it was told must not come too early."""
    quota = QuotaFacts("day", 1000, 0, reset_after=12.1, reset_at=1_800_000_000.2)
    assert rate_limit_metadata(quota) == (
        ("ratelimit-limit", "1000"),
        ("ratelimit-remaining", "0"),
        ("ratelimit-reset", "13"),
        ("x-ratelimit-reset", "1800000001"),
    )
    assert error_metadata(ResourceExhausted(retry_after=0.2)) == (("retry-after", "1"),)
    assert error_metadata(Internal()) == ()


@pytest.mark.parametrize(
    ("access", "principal", "reason"),
    [
        (pb.ACCESS_CALLER, USER, None),
        (pb.ACCESS_CALLER, KEY, None),
        (pb.ACCESS_CALLER, ADMIN, "USER_REQUIRED"),
        (pb.ACCESS_USER, USER, None),
        (pb.ACCESS_USER, KEY, "ACCESS_TOKEN_REQUIRED"),
        (pb.ACCESS_USER, ADMIN, "USER_REQUIRED"),
        (pb.ACCESS_SERVICE_ROLE, USER, "SERVICE_ROLE_REQUIRED"),
        (pb.ACCESS_SERVICE_ROLE, KEY, "SERVICE_ROLE_REQUIRED"),
        (pb.ACCESS_SERVICE_ROLE, ADMIN, None),
        (pb.ACCESS_API_KEY, KEY, None),
        (pb.ACCESS_API_KEY, USER, "API_KEY_REQUIRED"),
    ],
)
def test_who_may_call_what(access: pb.Access.ValueType, principal: Principal, reason: str | None) -> None:
    policy = pb.Policy(access=access, scopes=["sign"])
    if reason is None:
        enforce(policy, principal)
        return
    with pytest.raises(PermissionDenied) as caught:
        enforce(policy, principal)
    assert caught.value.reason == reason


def test_scopes_of_the_policy_are_asked_for() -> None:
    with pytest.raises(PermissionDenied) as caught:
        enforce(pb.Policy(access=pb.ACCESS_CALLER, scopes=["sign", "usage:read"]), KEY)
    assert caught.value.reason == "SCOPE_MISSING"


def test_every_access_of_the_contract_is_decided() -> None:
    """A kind of access added to the contract must not open its methods to every principal."""
    for access in pb.Access.values():
        if access in (pb.ACCESS_UNSPECIFIED, pb.ACCESS_PUBLIC, pb.ACCESS_INTERNAL):
            continue
        refused = 0
        for principal in (USER, KEY, ADMIN):
            try:
                enforce(pb.Policy(access=access), principal)
            except PermissionDenied:
                refused += 1
        assert refused > 0, pb.Access.Name(access)


def test_a_method_without_a_policy_stops_the_server_from_starting() -> None:
    with pytest.raises(PolicyMissingError, match="Check"):
        policies("grpc.health.v1.Health")


@pytest.mark.parametrize(
    ("policy", "served"),
    [
        (pb.Policy(access=pb.ACCESS_INTERNAL), False),
        (pb.Policy(access=pb.ACCESS_INTERNAL, callers=[pb.SERVICE_UNSPECIFIED]), False),
        (pb.Policy(access=pb.ACCESS_PUBLIC, callers=[pb.SERVICE_AUTH]), False),
        (pb.Policy(access=pb.ACCESS_INTERNAL, callers=[pb.SERVICE_AUTH]), True),
    ],
)
def test_an_internal_method_and_no_other_names_its_callers(policy: pb.Policy, *, served: bool) -> None:
    name = f"P{uuid4().hex}"
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package="test")
    file.dependency.append("google/protobuf/descriptor.proto")
    method = file.service.add(name=name).method.add(
        name="Do",
        input_type=".google.protobuf.FileDescriptorSet",
        output_type=".google.protobuf.FileDescriptorSet",
    )
    method.options.Extensions[pb.policy].CopyFrom(policy)
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
    if served:
        assert callers_of(policies(f"test.{name}")["Do"]) == {"auth"}
    else:
        with pytest.raises(PolicyMissingError, match="callers"):
            policies(f"test.{name}")


def test_every_service_of_the_table_has_a_name_in_the_contract() -> None:
    named = callers_of(pb.Policy(callers=pb.Service.values()))
    assert named == set(table().services)


async def test_a_server_that_can_not_tell_services_apart_serves_no_internal_method() -> None:
    servicer = _complete(validation_pb2_grpc.KeyValidationServiceServicer)
    with pytest.raises(ValueError, match="internal"):
        create_server().add(servicer, validation_pb2_grpc.add_KeyValidationServiceServicer_to_server)


async def test_a_server_without_authenticator_can_not_serve_guarded_methods() -> None:
    servicer = _complete(keys_pb2_grpc.KeysServiceServicer)
    with pytest.raises(ValueError, match="authenticator"):
        create_server().add(servicer, keys_pb2_grpc.add_KeysServiceServicer_to_server)


async def test_naming_a_deferred_method_that_is_not_served_fails_at_start() -> None:
    """A typing error there would otherwise leave a method authenticated twice, or not as meant."""
    with pytest.raises(ValueError, match="Sgin"):
        await create_server(deferred=["signgate.signer.v1.SignerService/Sgin"]).start()


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("127.0.0.1:7102", "ipv4:127.0.0.1:7102"),
        ("10.0.0.1:1, 10.0.0.2:1", "ipv4:10.0.0.1:1,10.0.0.2:1"),
        ("keys:7102", "dns:///keys:7102"),
        ("dns:///keys.ns.svc:7102", "dns:///keys.ns.svc:7102"),
        ("unix:/run/keys.sock", "unix:/run/keys.sock"),
    ],
)
def test_targets(setting: str, expected: str) -> None:
    assert target(setting) == expected


def _complete(base: type) -> object:
    async def never(self: object, request: object, context: object) -> None:
        raise AssertionError

    names = [name for name in vars(base) if not name.startswith("_")]
    return type("Complete", (base,), dict.fromkeys(names, never))()
