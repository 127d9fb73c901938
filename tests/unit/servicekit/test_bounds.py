"""Bounds of requests: every field has one, and they are held before anything else."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from servicekit.errors import InvalidArgument
from servicekit.rpc import bounds
from servicekit.rpc.bounds import MAX_MESSAGE, MessageMalformed, MessageTooLarge, limit_of, readers
from servicekit.rpc.contract import UnboundedFieldError
from signgate.auth.v1 import auth_pb2
from signgate.common.v1 import policy_pb2
from signgate.keys.v1 import keys_pb2, validation_pb2
from signgate.quota.v1 import admin_pb2
from signgate.signer.v1 import signer_pb2

GEN = Path(__file__).resolve().parents[3] / "gen"


def methods() -> Iterator[MethodDescriptor]:
    """Every method of the contract."""
    files = descriptor_pb2.FileDescriptorSet.FromString((GEN / "signgate.binpb").read_bytes())
    for file in files.file:
        if not file.name.startswith("signgate/"):
            continue
        importlib.import_module(file.name.removesuffix(".proto").replace("/", ".") + "_pb2")
        for service in file.service:
            found = descriptor_pool.Default().FindServiceByName(f"{file.package}.{service.name}")
            yield from found.methods


@pytest.mark.parametrize("method", list(methods()), ids=lambda method: method.full_name)
def test_every_field_of_every_request_has_a_bound(method: MethodDescriptor) -> None:
    assert method.name in readers(method.containing_service.full_name)
    access = method.GetOptions().Extensions[policy_pb2.policy].access
    # A stranger's message is far below what the runtime takes.
    most = MAX_MESSAGE // 2 if access == policy_pb2.ACCESS_INTERNAL else 1024 * 1024
    assert limit_of(method) <= most


def reader(kind: Any, service: str, method: str) -> bounds.Read:
    return readers(service)[method](kind.FromString)


AUTH, KEYS = "signgate.auth.v1.AuthService", "signgate.keys.v1.KeysService"


def deep(levels: int) -> Struct:
    top = Struct()
    here = top
    for _ in range(levels - 1):
        here = here.fields["a"].struct_value
    here.fields["a"].bool_value = True
    return top


def wide(values: int) -> Struct:
    top = Struct()
    for _ in range(values):
        top.fields["a"].list_value.values.add().number_value = 1
    return top


@pytest.mark.parametrize(
    ("service", "method", "request_", "field"),
    [
        (AUTH, "SignIn", auth_pb2.SignInRequest(email="a" * 255), "email"),
        (AUTH, "SignIn", auth_pb2.SignInRequest(password="é" * 513), "password"),
        (AUTH, "SendOtp", auth_pb2.SendOtpRequest(data=deep(33)), "data"),
        (AUTH, "SendOtp", auth_pb2.SendOtpRequest(data=wide(9_100)), "data"),
        (
            AUTH,
            "Recover",
            auth_pb2.RecoverRequest(pkce=auth_pb2.Pkce(code_challenge="x" * 129)),
            "pkce.code_challenge",
        ),
        (AUTH, "UpdateUser", auth_pb2.UpdateUserRequest(email="a" * 255), "email"),
        (AUTH, "Verify", auth_pb2.VerifyRequest(token_hash="a" * 257), "token_hash"),
        (KEYS, "CreateKey", keys_pb2.CreateKeyRequest(scopes=["x"] * 33), "scopes"),
        (KEYS, "CreateKey", keys_pb2.CreateKeyRequest(allowed_cidrs=["x", "x" * 65]), "allowed_cidrs[1]"),
        (KEYS, "CreateKey", keys_pb2.CreateKeyRequest(daily_limit=-1), "daily_limit"),
        (KEYS, "CreateKey", keys_pb2.CreateKeyRequest(expires_at=Timestamp(seconds=2**60)), "expires_at"),
        (KEYS, "CreateKey", keys_pb2.CreateKeyRequest(expires_at=Timestamp(nanos=2**30)), "expires_at"),
        (
            KEYS,
            "UpdateKey",
            keys_pb2.UpdateKeyRequest(scopes=keys_pb2.Scopes(scopes=["x"] * 33)),
            "scopes.scopes",
        ),
        (KEYS, "MintToken", keys_pb2.MintTokenRequest(ttl=Duration(nanos=1)), "ttl"),
        (KEYS, "MintToken", keys_pb2.MintTokenRequest(ttl=Duration(seconds=3600, nanos=1)), "ttl"),
        (KEYS, "ListKeys", keys_pb2.ListKeysRequest(page_size=-1), "page_size"),
        ("signgate.quota.v1.QuotaAdminService", "UpdatePlan", admin_pb2.UpdatePlanRequest(burst=0), "burst"),
        (
            "signgate.signer.v1.SignerService",
            "SignBatch",
            signer_pb2.SignBatchRequest(requests=[signer_pb2.SignRequest()] * 101),
            "requests",
        ),
    ],
)
def test_what_is_over_a_bound_is_refused_by_its_path(
    service: str, method: str, request_: Any, field: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        reader(type(request_), service, method)(request_.SerializeToString())
    assert refused.value.reason == "VALIDATION_FAILED"
    assert [violation.field for violation in refused.value.violations] == [field]
    assert "aaa" not in str(refused.value)


def test_what_is_within_its_bounds_comes_through_whole() -> None:
    for request in (
        auth_pb2.SendOtpRequest(email="é" * 254, data=deep(32)),
        auth_pb2.SendOtpRequest(data=wide(8000)),
        auth_pb2.SignInRequest(password="é" * 512),
    ):
        method = type(request).__name__.removesuffix("Request")
        assert reader(type(request), AUTH, method)(request.SerializeToString()) == request


def test_the_largest_request_that_the_bounds_allow_is_not_too_large() -> None:
    """The limit of a message is derived: it must leave room for every field at its bound, all at once."""
    for method in methods():
        largest = message_factory.GetMessageClass(method.input_type)()
        fill(largest)
        assert largest.ByteSize() <= limit_of(method), method.full_name


def fill(message: Any) -> None:
    for field in message.DESCRIPTOR.fields:
        bound = field.GetOptions().Extensions[policy_pb2.bound]
        nested = field.message_type
        text = "\U0001f989" * bound.max_chars if bound.max_chars else "x" * bound.max_bytes
        if field.type == field.TYPE_STRING and field.is_repeated:
            getattr(message, field.name).extend([text] * bound.max_items)
        elif field.type == field.TYPE_STRING:
            setattr(message, field.name, text)
        elif nested is not None and nested.GetOptions().map_entry:
            getattr(message, field.name).update({f"{i:02}{text[2:]}": text for i in range(bound.max_items)})
        elif nested is not None and nested.full_name == "google.protobuf.Struct":
            getattr(message, field.name).fields[""].string_value = "x" * (bound.max_bytes - 16)
        elif nested is not None and nested.full_name.startswith("google.protobuf."):
            getattr(message, field.name).seconds = bound.max
            getattr(message, field.name).nanos = 999_999_999
        elif nested is not None and field.is_repeated:
            for _ in range(bound.max_items):
                fill(getattr(message, field.name).add())
        elif nested is not None:
            fill(getattr(message, field.name))
        else:
            setattr(message, field.name, largest_scalar(field, bound))


def largest_scalar(field: FieldDescriptor, bound: policy_pb2.Bound) -> object:
    if field.type == field.TYPE_BYTES:
        return bytes(bound.max_bytes)
    if field.type == field.TYPE_BOOL:
        return True
    if field.type == field.TYPE_ENUM:
        assert field.enum_type is not None
        return field.enum_type.values[-1].number
    return bound.max or 2**63


def test_a_message_over_the_limit_is_refused_before_it_is_parsed() -> None:
    parsed: list[bytes] = []
    for method in methods():
        read = readers(method.containing_service.full_name)[method.name](parsed.append)
        limit = limit_of(method)
        with pytest.raises(MessageTooLarge) as refused:
            read(bytes(limit + 1))
        assert str(limit) in refused.value.message
        assert refused.value.metadata == {"limit_bytes": str(limit)}
    assert parsed == []


@pytest.mark.parametrize("raw", [b"\xff", b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x01\xff", b"\x0b" * 200])
def test_what_is_no_protobuf_is_the_caller_s_error(raw: bytes) -> None:
    with pytest.raises(MessageMalformed) as refused:
        reader(auth_pb2.SignInRequest, AUTH, "SignIn")(raw)
    assert (refused.value.status, refused.value.reason) == ("INVALID_ARGUMENT", "MESSAGE_MALFORMED")


def test_fields_that_a_method_holds_to_their_bounds_itself_are_left_to_it() -> None:
    """One wrong URL of a batch must not fail the others; a long password has an answer of its own."""
    sign = signer_pb2.SignBatchRequest(
        requests=[signer_pb2.SignRequest(room_url="x" * 5000, user_agent="x" * 600)]
    )
    assert reader(type(sign), "signgate.signer.v1.SignerService", "SignBatch")(sign.SerializeToString())
    keys = validation_pb2.ValidateKeysRequest(credentials=[validation_pb2.KeyCredential(secret="x" * 1025)])
    assert reader(type(keys), "signgate.keys.v1.KeyValidationService", "ValidateKeys")(
        keys.SerializeToString()
    )


def test_at_most_twenty_violations_are_told() -> None:
    request = keys_pb2.CreateKeyRequest(scopes=["x" * 65] * 32, allowed_cidrs=["x" * 65] * 32)
    with pytest.raises(InvalidArgument) as refused:
        reader(type(request), KEYS, "CreateKey")(request.SerializeToString())
    assert len(refused.value.violations) == bounds.MAX_VIOLATIONS


F = descriptor_pb2.FieldDescriptorProto


def served(name: str, field: descriptor_pb2.FieldDescriptorProto, bound: policy_pb2.Bound | None) -> str:
    """A service of one method whose request has this field; its name."""
    file = descriptor_pb2.FileDescriptorProto(
        name=f"bounds/{name}.proto",
        package=f"bounds.{name}",
        syntax="proto3",
        dependency=[
            "signgate/common/v1/policy.proto", "google/protobuf/struct.proto", "google/protobuf/any.proto",
            "google/protobuf/timestamp.proto",
        ],
    )  # fmt: skip
    if bound is not None:
        field.options.Extensions[policy_pb2.bound].CopyFrom(bound)
    file.message_type.add(name="Asked", field=[field])
    method = file.service.add(name="Service").method.add(
        name="Ask", input_type=f".bounds.{name}.Asked", output_type=f".bounds.{name}.Asked"
    )
    method.options.Extensions[policy_pb2.policy].access = policy_pb2.ACCESS_PUBLIC
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
    return f"bounds.{name}.Service"


def field_of(kind: Any, *, many: bool = False, name: str = "") -> descriptor_pb2.FieldDescriptorProto:
    label = F.LABEL_REPEATED if many else F.LABEL_OPTIONAL
    return F(name="held", number=1, type=kind, label=label, type_name=name or None)


@pytest.mark.parametrize(
    ("name", "field", "bound"),
    [
        ("text", field_of(F.TYPE_STRING), None),
        ("octets", field_of(F.TYPE_BYTES), policy_pb2.Bound(max_chars=1)),
        ("whole", field_of(F.TYPE_INT64), policy_pb2.Bound(max=1)),
        ("real", field_of(F.TYPE_DOUBLE), None),
        ("texts", field_of(F.TYPE_STRING, many=True), policy_pb2.Bound(max_items=1)),
        ("flags", field_of(F.TYPE_BOOL, many=True), None),
        ("moment", field_of(F.TYPE_MESSAGE, name=".google.protobuf.Timestamp"), None),
        ("struct", field_of(F.TYPE_MESSAGE, name=".google.protobuf.Struct"), policy_pb2.Bound(max_bytes=9)),
        ("any", field_of(F.TYPE_MESSAGE, name=".google.protobuf.Any"), policy_pb2.Bound(max_bytes=9)),
        ("itself", field_of(F.TYPE_MESSAGE, name=".bounds.itself.Asked"), None),
    ],
)
def test_a_server_with_a_field_without_a_bound_does_not_start(
    name: str, field: descriptor_pb2.FieldDescriptorProto, bound: policy_pb2.Bound | None
) -> None:
    service = served(name, field, bound)
    with pytest.raises(UnboundedFieldError, match="Asked"):
        readers(service)
