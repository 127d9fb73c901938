"""What a method's policy asks of a user's sign-in: how much of it, and how long ago."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

from servicekit.errors import SigngateError, Unauthenticated
from servicekit.principal import Principal
from servicekit.rpc.policy import Guard, PolicyMissingError, enforce, guards, require_fresh_for
from signgate.auth.v1 import auth_pb2
from signgate.common.v1 import policy_pb2 as pb
from signgate.keys.v1 import keys_pb2

NOW = 1_000_000.0
DAY = 86_400
USER = Principal(UUID(int=1), session_id=UUID(int=9), proved_at=int(NOW))
PROTECTED = replace(USER, has_factor=True)
RAISED = replace(PROTECTED, aal="aal2")
KEY = Principal(UUID(int=1), api_key_id=UUID(int=2), has_factor=True)
ADMIN = Principal(UUID(int=0), role="service_role", has_factor=True)

AUTH = guards("signgate.auth.v1.AuthService")
KEYS = guards("signgate.keys.v1.KeysService")


def old(seconds: float) -> Principal:
    return replace(USER, proved_at=int(NOW - seconds))


def reason(guard: Guard, principal: Principal, request: Any = None) -> str:
    """What it is refused with, "" if it is let through."""
    try:
        guard.enforce(principal, request, NOW)
    except SigngateError as error:
        return error.reason
    return ""


@pytest.mark.parametrize(
    ("assurance", "principal", "refused"),
    [
        (pb.ASSURANCE_FULL, USER, False),
        (pb.ASSURANCE_FULL, PROTECTED, True),
        (pb.ASSURANCE_FULL, RAISED, False),
        (pb.ASSURANCE_FULL, KEY, False),
        (pb.ASSURANCE_ANY, PROTECTED, False),
        (pb.ASSURANCE_UNSPECIFIED, PROTECTED, True),
        (pb.ASSURANCE_UNSPECIFIED, USER, False),
    ],
)
def test_both_factors_where_there_are_two(
    assurance: pb.Assurance.ValueType, principal: Principal, *, refused: bool
) -> None:
    """A policy that does not say, which a server refuses to start with, counts as the strictest."""
    policy = pb.Policy(access=pb.ACCESS_CALLER, assurance=assurance)
    if not refused:
        enforce(policy, principal)
        return
    with pytest.raises(Unauthenticated) as caught:
        enforce(policy, principal)
    assert caught.value.reason == "INSUFFICIENT_AAL"
    assert caught.value.metadata == {"required_aal": "aal2"}


def test_an_operators_token_is_asked_for_neither() -> None:
    enforce(pb.Policy(access=pb.ACCESS_SERVICE_ROLE), ADMIN)


def test_an_administrators_session_is_asked_for_both_factors_and_may_prove_them() -> None:
    """S7. It is a login, and its account may have a second factor."""
    admin = replace(PROTECTED, role="service_role")
    policy = pb.Policy(access=pb.ACCESS_SERVICE_ROLE)
    with pytest.raises(Unauthenticated) as caught:
        enforce(policy, admin)
    assert caught.value.reason == "INSUFFICIENT_AAL"
    enforce(policy, replace(admin, aal="aal2"))
    enforce(policy, replace(admin, has_factor=False))
    of_session = {name for name in AUTH if reason(AUTH[name], admin, auth_pb2.UpdateUserRequest()) == ""}
    public = {name for name, guard in AUTH.items() if guard.policy.access == pb.ACCESS_PUBLIC}
    assert of_session - public == {
        "SignOut",
        "Reauthenticate",
        "ConfirmIdentity",
        "ListSessions",
        "RevokeSession",
        "ChallengeFactor",
        "VerifyFactor",
        "UseRecoveryCode",
        "GetRecoveryCodes",
    }
    assert {reason(AUTH[name], ADMIN) for name in of_session - public} == {"USER_REQUIRED"}


@pytest.mark.parametrize(("age", "refused"), [(0, ""), (3600, ""), (3601, "REAUTHENTICATION_NEEDED")])
def test_a_method_asks_for_a_fresh_sign_in(age: float, refused: str) -> None:
    assert reason(AUTH["EnrollFactor"], old(age)) == refused


def test_a_token_that_does_not_say_when_is_never_fresh() -> None:
    assert reason(AUTH["EnrollFactor"], replace(USER, proved_at=0)) == "REAUTHENTICATION_NEEDED"


def test_the_second_factor_is_asked_for_first() -> None:
    stale = replace(PROTECTED, proved_at=0)
    assert reason(AUTH["EnrollFactor"], stale) == "INSUFFICIENT_AAL"


def test_what_a_stale_session_is_told() -> None:
    with pytest.raises(Unauthenticated, match="Confirm your identity") as caught:
        AUTH["EnrollFactor"].enforce(old(DAY), None, NOW)
    assert caught.value.metadata == {"max_age_seconds": "3600"}


Update = auth_pb2.UpdateUserRequest


@pytest.mark.parametrize(
    ("message", "members", "refused"),
    [
        (Update(email="a@b.c"), {"email": "a@b.c"}, True),
        (Update(email=""), {"email": ""}, True),
        (Update(password="x"), {"password": "x"}, True),
        (Update(redirect_to="x"), {"data": {}}, False),
        (Update(), {"email": None, "password": None}, False),
        (Update(email="a", nonce="1"), {"email": "a", "nonce": "1"}, False),
        (Update(password="x", current_password="y"), {"password": "x", "current_password": "y"}, False),
        (Update(email="a", nonce=""), {"email": "a", "nonce": ""}, True),
        (Update(email="a"), {"email": "a", "nonce": None, "other": "1"}, True),
        (Update(email="a"), {"email": ["a"], "nonce": []}, True),
    ],
)
def test_fields_ask_for_it_in_a_message_and_in_json(
    message: Update, members: dict[str, Any], *, refused: bool
) -> None:
    """The two faces decide alike. A proof stands in; the method checks it."""
    expected = "REAUTHENTICATION_NEEDED" if refused else ""
    for request in (message, members):
        assert reason(AUTH["UpdateUser"], old(DAY + 1), request) == expected
        assert reason(AUTH["UpdateUser"], old(DAY), request) == ""
        assert reason(AUTH["UpdateUser"], PROTECTED, request) == "INSUFFICIENT_AAL"


@pytest.mark.parametrize(
    ("method", "make"),
    [
        ("CreateKey", lambda scopes: keys_pb2.CreateKeyRequest(scopes=scopes)),
        ("UpdateKey", lambda scopes: keys_pb2.UpdateKeyRequest(scopes=keys_pb2.Scopes(scopes=scopes))),
    ],
)
def test_values_ask_for_it_also_inside_of_a_message(
    method: str, make: Callable[[Sequence[str]], Any]
) -> None:
    """A key that manages keys."""
    guard, stale = KEYS[method], old(3601)
    assert reason(guard, stale, make(["sign", "keys:manage"])) == "REAUTHENTICATION_NEEDED"
    assert reason(guard, stale, make(["sign"])) == ""
    assert reason(guard, stale, make([])) == ""
    assert reason(guard, old(3600), make(["keys:manage"])) == ""
    assert reason(guard, replace(KEY, proved_at=0), make(["keys:manage"])) == ""
    assert reason(KEYS["UpdateKey"], stale, keys_pb2.UpdateKeyRequest(name="x")) == ""


def test_a_guard_that_reads_the_request_can_not_do_without() -> None:
    with pytest.raises(TypeError, match="CreateKey"):
        KEYS["CreateKey"].enforce(USER, None, NOW)


def test_values_that_a_method_finds_out_by_itself() -> None:
    field = keys_pb2.CreateKeyRequest.DESCRIPTOR.fields_by_name["scopes"]
    require_fresh_for(field, ["sign"], old(DAY), NOW)
    require_fresh_for(field, ["keys:manage"], old(3600), NOW)
    with pytest.raises(Unauthenticated) as caught:
        require_fresh_for(field, ["sign", "keys:manage"], old(3601), NOW)
    assert caught.value.reason == "REAUTHENTICATION_NEEDED"
    with pytest.raises(PolicyMissingError, match="max_age"):
        require_fresh_for(keys_pb2.CreateKeyRequest.DESCRIPTOR.fields_by_name["name"], [], USER, NOW)


FULL: dict[str, Any] = {"access": pb.ACCESS_USER, "assurance": pb.ASSURANCE_FULL}


@pytest.mark.parametrize(
    ("policy", "fresh", "streamed", "problem"),
    [
        (FULL, None, False, None),
        ({**FULL, "max_age": 60, "proofs": ["name"]}, None, False, None),
        ({**FULL, "proofs": ["name"]}, pb.Fresh(max_age=60, values=["x"]), False, None),
        ({"access": pb.ACCESS_USER}, None, False, "assurance"),
        ({"access": pb.ACCESS_CALLER}, None, False, "assurance"),
        ({"access": pb.ACCESS_PUBLIC, "assurance": pb.ASSURANCE_FULL}, None, False, "only methods for users"),
        ({"access": pb.ACCESS_API_KEY, "max_age": 60}, None, False, "only methods for users"),
        ({"access": pb.ACCESS_SERVICE_ROLE}, pb.Fresh(max_age=60), False, "only methods for users"),
        ({**FULL, "max_age": 60, "proofs": ["nonce"]}, None, False, "nonce"),
        ({**FULL, "max_age": 60, "proofs": ["number"]}, None, False, "number"),
        ({**FULL, "proofs": ["name"]}, None, False, "stand in"),
        (FULL, pb.Fresh(values=["x"]), False, "max_age"),
        (FULL, pb.Fresh(), False, "max_age"),
        (FULL, pb.Fresh(max_age=60), True, "streamed"),
    ],
)
def test_a_policy_that_makes_no_sense_stops_the_server_from_starting(
    policy: dict[str, Any], fresh: pb.Fresh | None, problem: str | None, *, streamed: bool
) -> None:
    name = f"Q{uuid4().hex}"
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package="test")
    message = file.message_type.add(name=f"{name}Request")
    field = message.field.add(name="name", number=1, label=1, type=9)
    message.field.add(name="number", number=2, label=1, type=3)
    if fresh is not None:
        field.options.Extensions[pb.fresh].CopyFrom(fresh)
    method = file.service.add(name=name).method.add(
        name="Do",
        input_type=f".test.{name}Request",
        output_type=f".test.{name}Request",
        client_streaming=streamed,
    )
    method.options.Extensions[pb.policy].CopyFrom(pb.Policy(**policy))
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
    if problem is None:
        assert list(guards(f"test.{name}")) == ["Do"]
        return
    with pytest.raises(PolicyMissingError, match=problem):
        guards(f"test.{name}")


def test_freshness_by_value_is_for_strings() -> None:
    name = f"Q{uuid4().hex}"
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package="test")
    field = file.message_type.add(name=name).field.add(name="number", number=1, label=1, type=3)
    field.options.Extensions[pb.fresh].CopyFrom(pb.Fresh(max_age=1, values=["1"]))
    method = file.service.add(name=f"{name}Service").method.add(
        name="Do", input_type=f".test.{name}", output_type=f".test.{name}"
    )
    method.options.Extensions[pb.policy].CopyFrom(pb.Policy(**FULL))
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
    with pytest.raises(PolicyMissingError, match="only strings"):
        guards(f"test.{name}Service")
