"""Assurance and freshness on the running product: every method and every route, through the edge.

One account has a second factor, and a session by its password alone: what a thief of the password has. Each
method's policy says whether that is enough; here it is tried, on every face that the method has.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import Mock
from uuid import uuid4

import asyncpg
import grpc
import httpx
import jwt
import pyotp
import pytest
from google.api import annotations_pb2
from google.protobuf import json_format
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from servicekit.edge import Edge
from services.auth.http.app import routes
from signgate.auth.v1 import auth_pb2, user_pb2
from signgate.common.v1 import policy_pb2
from signgate.keys.v1 import keys_pb2
from signgate.usage.v1 import alerts_pb2
from signgate_client import Signgate, SigngateError
from tests.conftest import Running
from tests.decisions import DECISIONS, FULL, asks_users, methods, name_of, policy_of
from tests.e2e.conftest import Account, make_account

REVOKE = "keys.v1.KeysService/RevokeKey"
REVOKE_ALL = "keys.v1.KeysService/RevokeAllKeys"
CREATE = "keys.v1.KeysService/CreateKey"
MANAGER = ["keys:manage", "sign"]
NEW_PASSWORD = "quite another 7 bottles"
ALL = {name_of(method): method for method in methods()}
USERS = {name: method for name, method in ALL.items() if asks_users(method)}
PROTECTED = sorted(name for name, decision in DECISIONS.items() if decision.assurance == FULL)

# Each route of /auth/v1 with the method whose policy it has, read from the application itself.
ROUTES = [
    (next(iter((route.methods or set()) - {"HEAD"})), route.path, route.name.removeprefix("signgate."))
    for route in routes(Mock(), Mock(), Edge())
    if route.name.startswith("signgate.")
]


@dataclass
class Person:
    """An account, one of its sessions, and the account's things."""

    running: Running
    email: str
    password: str
    session: user_pb2.Session
    key_id: str
    secrets: dict[str, str]
    """TOTP secrets by factor."""

    @property
    def factor_id(self) -> str:
        return next(iter(self.secrets), str(uuid4()))

    def call(self, name: str, request: Message | None = None) -> Any:
        return call(self.running, name, request, self.session.access_token)

    def prove(self, factor_id: str, step: int = 0) -> auth_pb2.VerifyFactorResponse:
        """Raise the session by a code of now, or of the next step: the service takes both."""
        asked = auth_pb2.ChallengeFactorRequest(factor_id=factor_id)
        challenge = self.call("auth.v1.AuthService/ChallengeFactor", asked)
        code = pyotp.TOTP(self.secrets[factor_id]).at(int(time.time()) + 30 * step)
        request = auth_pb2.VerifyFactorRequest(
            factor_id=factor_id, challenge_id=challenge.challenge_id, code=code
        )
        done: auth_pb2.VerifyFactorResponse = self.call("auth.v1.AuthService/VerifyFactor", request)
        self.session = done.session
        return done

    def enroll(self) -> str:
        """One more factor, proved."""
        request = auth_pb2.EnrollFactorRequest(factor_type="totp", friendly_name=f"f{len(self.secrets)}")
        made = self.call("auth.v1.AuthService/EnrollFactor", request)
        self.secrets[made.factor.id] = made.secret
        self.prove(made.factor.id)
        found: str = made.factor.id
        return found

    def sign_in(self) -> Person:
        """The same person, with a new session by the password alone."""
        request = auth_pb2.SignInRequest(email=self.email, password=self.password)
        session = call(self.running, "auth.v1.AuthService/SignIn", request).session
        return Person(self.running, self.email, self.password, session, self.key_id, self.secrets)

    def refresh(self) -> None:
        request = auth_pb2.RefreshSessionRequest(refresh_token=self.session.refresh_token)
        self.session = call(self.running, "auth.v1.AuthService/RefreshSession", request).session

    def age(self, seconds: int) -> None:
        """Make the session's proofs of identity so much older, and its tokens say so."""
        session_id = jwt.decode(self.session.access_token, options={"verify_signature": False})["session_id"]
        execute(
            self.running,
            "UPDATE auth.sessions SET amr = (SELECT jsonb_agg(jsonb_set(proof, '{timestamp}',"
            " to_jsonb((proof ->> 'timestamp')::bigint - $2))) FROM jsonb_array_elements(amr) proof)"
            " WHERE id = $1::uuid",
            session_id,
            seconds,
        )
        self.refresh()

    def confirm(self) -> None:
        request = auth_pb2.ConfirmIdentityRequest(password=self.password)
        self.session = self.call("auth.v1.AuthService/ConfirmIdentity", request).session


def call(running: Running, name: str, request: Message | None = None, token: str = "") -> Any:
    """A method by its name, through the edge; of a stream the first answer. Raises `SigngateError`."""
    method = ALL[name]
    kind, answer = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    message = kind() if request is None else request
    metadata = [("authorization", f"Bearer {token}")] if token else []
    with grpc.insecure_channel(running.edge) as channel:
        shape = {
            (False, False): channel.unary_unary,
            (False, True): channel.unary_stream,
            (True, True): channel.stream_stream,
        }[method.client_streaming, method.server_streaming]
        rpc: Any = shape(
            f"/signgate.{name}",
            request_serializer=kind.SerializeToString,
            response_deserializer=answer.FromString,
        )
        try:
            found = rpc(
                iter([message]) if method.client_streaming else message, timeout=20, metadata=metadata
            )
            return next(found) if method.server_streaming else found
        except grpc.RpcError as failure:
            raise SigngateError.of(failure) from None


def reason(act: Callable[[], object]) -> str:
    """What it is refused with, "" if it is let through."""
    try:
        act()
    except SigngateError as error:
        return error.reason
    except StopIteration:
        pass
    return ""


def execute(running: Running, sql: str, *values: object) -> list[Any]:
    async def run() -> list[Any]:
        connection = await asyncpg.connect(running.dsn())
        try:
            return list(await connection.fetch(sql, *values))
        finally:
            await connection.close()

    return asyncio.run(run())


def state(person: Person) -> list[tuple[Any, ...]]:
    """All that a method could change of an account. Not what any signing or looking changes."""
    user_id = person.session.user.id
    rows = []
    for table, but in (
        ("auth.users", ("reauthentication_sent_at", "updated_at")),
        ("auth.identities", ("updated_at",)),
        ("auth.mfa_factors", ("updated_at", "last_challenged_at")),
        ("auth.one_time_tokens", ()),
        ("public.api_keys", ("last_used",)),
        ("public.key_audit", ()),
        ("public.alert_settings", ()),
    ):
        column = "id" if table == "auth.users" else "user_id"
        sql = f"SELECT to_jsonb(t) - $2::text[] AS row FROM {table} t WHERE {column} = $1::uuid ORDER BY 1"
        rows += [(table, row["row"]) for row in execute(person.running, sql, user_id, list(but))]
    return rows


def request_of(name: str, person: Person) -> Message:
    """A request that succeeds for who may make it."""
    key, factor = person.key_id, person.factor_id
    made: dict[str, Callable[[], Message]] = {
        "keys.v1.KeysService/CreateKey": lambda: keys_pb2.CreateKeyRequest(name="made by a thief"),
        "keys.v1.KeysService/UpdateKey": lambda: keys_pb2.UpdateKeyRequest(key_id=key, name="renamed"),
        "keys.v1.KeysService/RotateKey": lambda: keys_pb2.RotateKeyRequest(key_id=key),
        "keys.v1.KeysService/RevokeKey": lambda: keys_pb2.RevokeKeyRequest(key_id=key),
        "keys.v1.KeysService/GetKey": lambda: keys_pb2.GetKeyRequest(key_id=key),
        "keys.v1.KeysService/ListKeyEvents": lambda: keys_pb2.ListKeyEventsRequest(key_id=key),
        "usage.v1.AlertService/UpdateAlertSettings": lambda: alerts_pb2.UpdateAlertSettingsRequest(
            mail=False
        ),
        "auth.v1.AuthService/UpdateUser": lambda: auth_pb2.UpdateUserRequest(password=NEW_PASSWORD),
        "auth.v1.AuthService/EnrollFactor": lambda: auth_pb2.EnrollFactorRequest(factor_type="totp"),
        "auth.v1.AuthService/UnenrollFactor": lambda: auth_pb2.UnenrollFactorRequest(factor_id=factor),
        "auth.v1.AuthService/DeleteUser": lambda: auth_pb2.DeleteUserRequest(password=person.password),
        "auth.v1.AuthService/SignOut": lambda: auth_pb2.SignOutRequest(scope=auth_pb2.SIGN_OUT_SCOPE_OTHERS),
        "auth.v1.AuthService/ChallengeFactor": lambda: auth_pb2.ChallengeFactorRequest(factor_id=factor),
    }
    return made[name]() if name in made else GetMessageClass(ALL[name].input_type)()


def rest_routes(method: MethodDescriptor) -> list[tuple[str, str, str]]:
    """A method's REST routes: verb, path and body."""
    rule = method.GetOptions().Extensions[annotations_pb2.http]
    rules = [rule, *rule.additional_bindings] if rule.WhichOneof("pattern") else []
    return [
        (one.WhichOneof("pattern").upper(), getattr(one, one.WhichOneof("pattern")), one.body)
        for one in rules
    ]


REST = [(name, *route) for name, method in USERS.items() for route in rest_routes(method)]


def by_rest(person: Person, name: str, verb: str, path: str, request: Message) -> str:
    """What the REST route is refused with, "" if it is let through."""
    members = json_format.MessageToDict(request, preserving_proto_field_name=True)
    for field in [part.split("}")[0] for part in path.split("{")[1:]]:
        path = path.replace(f"{{{field}}}", members.pop(field, "") or str(uuid4()))
    return by_http(person, verb, path, members)


def by_http(person: Person, verb: str, path: str, members: dict[str, Any]) -> str:
    headers = {"authorization": f"Bearer {person.session.access_token}"}
    body = members if verb != "GET" and (members or verb != "DELETE") else None
    with httpx.Client(base_url=person.running.edge_url, headers=headers, timeout=20) as http:
        answer = http.request(verb, path, json=body)
    if answer.is_success:
        return ""
    code = answer.headers.get("x-sb-error-code")
    return code.upper() if code else str(answer.json()["reason"])


def body_of(name: str, person: Person) -> dict[str, Any]:
    return json_format.MessageToDict(request_of(name, person), preserving_proto_field_name=True)


def in_path(path: str, person: Person) -> str:
    """A path of /auth/v1 about the person's own things."""
    own = {"factor_id": person.factor_id, "session_id": str(uuid4()), "user_id": person.session.user.id}
    for part, value in own.items():
        path = path.replace(f"{{{part}}}", value)
    return f"/auth/v1{path}"


@pytest.fixture(scope="module")
def owner(running: Running) -> Person:
    """With a second factor, and a session raised by it."""
    return protected(running)


def protected(running: Running) -> Person:
    found = person(running)
    found.enroll()
    return found


def person(running: Running) -> Person:
    account: Account = make_account(running)
    return Person(running, account.email, account.password, account.session, account.key_id, {})


@pytest.fixture(scope="module")
def thief(owner: Person) -> Person:
    """Has the owner's password, and nothing else."""
    return owner.sign_in()


@pytest.fixture
def unchanged(owner: Person) -> Iterator[None]:
    before = state(owner)
    assert before
    yield
    assert state(owner) == before


def test_every_method_for_users_is_decided() -> None:
    assert USERS.keys() == DECISIONS.keys()
    assert {name for _, _, name in ROUTES} <= ALL.keys()


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("name", PROTECTED)
def test_with_one_factor_of_two_a_protected_method_is_refused(thief: Person, name: str) -> None:
    """S7."""
    assert reason(lambda: thief.call(name, request_of(name, thief))) == "INSUFFICIENT_AAL"


@pytest.mark.parametrize("name", sorted(ALL.keys() - set(PROTECTED)))
def test_no_other_method_asks_for_two(thief: Person, name: str) -> None:
    """Reading, giving up access and the way to the second factor stay open; or another credential is due."""
    refused = reason(lambda: thief.call(name, request_of(name, thief)))
    assert refused not in {"INSUFFICIENT_AAL", "REAUTHENTICATION_NEEDED"}
    access = policy_of(ALL[name]).access
    if access == policy_pb2.ACCESS_SERVICE_ROLE:
        assert refused == "SERVICE_ROLE_REQUIRED"
    if access == policy_pb2.ACCESS_API_KEY:
        assert refused == "API_KEY_REQUIRED"
    if access == policy_pb2.ACCESS_INTERNAL:
        assert refused == "UNIMPLEMENTED"


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(("name", "verb", "path", "body"), [r for r in REST if r[0] in PROTECTED])
def test_nor_by_rest(thief: Person, name: str, verb: str, path: str, body: str) -> None:
    """S7."""
    assert body == ("*" if verb != "DELETE" else "")
    assert by_rest(thief, name, verb, path, request_of(name, thief)) == "INSUFFICIENT_AAL"


@pytest.mark.parametrize(("name", "verb", "path", "body"), [r for r in REST if r[0] not in PROTECTED])
def test_rest_asks_for_no_more(thief: Person, name: str, verb: str, path: str, body: str) -> None:
    refused = by_rest(thief, name, verb, path, request_of(name, thief))
    assert refused not in {"INSUFFICIENT_AAL", "REAUTHENTICATION_NEEDED"}


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(("verb", "path", "name"), [r for r in ROUTES if r[2] in PROTECTED])
def test_nor_by_the_accounts_http_face(thief: Person, verb: str, path: str, name: str) -> None:
    members = {} if "{" in path else body_of(name, thief)
    assert by_http(thief, verb, in_path(path, thief), members) == "INSUFFICIENT_AAL"


@pytest.mark.parametrize(("verb", "path", "name"), [r for r in ROUTES if r[2] not in PROTECTED])
def test_the_accounts_http_face_asks_for_no_more(owner: Person, verb: str, path: str, name: str) -> None:
    thief = owner.sign_in()  # one of these routes ends it
    path = in_path(path, thief) + ("?scope=local" if path == "/logout" else "")
    refused = by_http(thief, verb, path, {})
    assert refused not in {"INSUFFICIENT_AAL", "REAUTHENTICATION_NEEDED"}
    if policy_of(ALL[name]).access == policy_pb2.ACCESS_SERVICE_ROLE:
        assert refused == "NOT_ADMIN"


def test_with_both_factors_each_of_them_is_let_through(running: Running) -> None:
    """Or else the refusals above would prove nothing."""
    one = protected(running)
    last = [
        REVOKE,
        REVOKE_ALL,
        "auth.v1.AuthService/UnenrollFactor",
        "auth.v1.AuthService/DeleteUser",
    ]
    for name in [*(name for name in PROTECTED if name not in last), *last]:
        request = request_of(name, one)
        assert reason(lambda: one.call(name, request)) == "", name  # noqa: B023  # called at once
        if name.endswith("UpdateUser"):
            one.password = NEW_PASSWORD
        if name.endswith("UnenrollFactor"):
            one.refresh()


def stale_calls(one: Person, manager: str) -> dict[str, Callable[[], str]]:
    """All that asks for a fresh sign-in, by every face; each refused with what it says."""
    made: dict[str, tuple[Message, ...]] = {
        "keys.v1.KeysService/CreateKey": (keys_pb2.CreateKeyRequest(name="x", scopes=MANAGER),),
        "keys.v1.KeysService/UpdateKey": (
            keys_pb2.UpdateKeyRequest(key_id=one.key_id, scopes=keys_pb2.Scopes(scopes=MANAGER)),
        ),
        "keys.v1.KeysService/RotateKey": (keys_pb2.RotateKeyRequest(key_id=manager),),
        "auth.v1.AuthService/EnrollFactor": (
            auth_pb2.EnrollFactorRequest(factor_type="totp", friendly_name="x"),
        ),
        "auth.v1.AuthService/RegenerateRecoveryCodes": (auth_pb2.RegenerateRecoveryCodesRequest(),),
        "auth.v1.AuthService/UpdateUser": (
            auth_pb2.UpdateUserRequest(email="new@example.com"),
            auth_pb2.UpdateUserRequest(password=NEW_PASSWORD),
        ),
        "auth.v1.AuthService/UnenrollFactor": (auth_pb2.UnenrollFactorRequest(factor_id=one.factor_id),),
    }
    asking = {name for name, decision in DECISIONS.items() if decision.max_age or decision.fresh}
    assert made.keys() == asking | {"keys.v1.KeysService/RotateKey"}
    found: dict[str, Callable[[], str]] = {}
    for name, requests in made.items():
        for at, request in enumerate(requests):
            found |= {f"{name} {at}{how}": act for how, act in faces(one, name, request).items()}
    return found


def faces(one: Person, name: str, request: Message) -> dict[str, Callable[[], str]]:
    """A request by each face that the method has; "" is gRPC."""
    members = json_format.MessageToDict(request, preserving_proto_field_name=True)
    found: dict[str, Callable[[], str]] = {"": lambda: reason(lambda: one.call(name, request))}
    for verb, path, _ in rest_routes(ALL[name]):
        found[f" {verb} {path}"] = partial(by_rest, one, name, verb, path, request)
    for verb, path, behind in ROUTES:
        if behind == name:
            found[f" {verb} {path}"] = partial(by_http, one, verb, in_path(path, one), members)
    return found


def test_what_asks_for_a_fresh_sign_in_is_refused_until_the_identity_is_confirmed(running: Running) -> None:
    one = protected(running)
    manager = one.call(
        "keys.v1.KeysService/CreateKey", keys_pb2.CreateKeyRequest(name="manager", scopes=MANAGER)
    ).key.id
    one.age(2 * 86_400)
    before = state(one)
    calls = stale_calls(one, manager)
    for what, act in calls.items():
        assert act() == "REAUTHENTICATION_NEEDED", what
    assert state(one) == before
    # Of a key that is not there: the others are needed below.
    missing: dict[str, Message] = {
        REVOKE: keys_pb2.RevokeKeyRequest(key_id=str(uuid4())),
        REVOKE_ALL: keys_pb2.RevokeAllKeysRequest(except_key_id=str(uuid4())),
    }
    for name in sorted(DECISIONS):
        if name.startswith("auth.v1.AuthService/") or f"{name} 0" in calls:
            continue
        # Nothing else asks how old the sign-in is.
        request = missing.get(name) or request_of(name, one)
        assert reason(lambda: one.call(name, request)) != "REAUTHENTICATION_NEEDED", name  # noqa: B023
    for proof, refused in (("wrong", "INVALID_CREDENTIALS"), (one.password, "")):
        assert by_http(one, "POST", "/auth/v1/reauthenticate", {"password": proof}) == refused
    one.confirm()
    for what, act in calls.items():
        if what.split(" ", 1)[1] in ("0", "1"):
            assert act() == "", what
    for name in (REVOKE, REVOKE_ALL):
        assert reason(lambda: one.call(name, request_of(name, one))) == "", name  # noqa: B023  # called at once


def test_a_key_may_manage_keys_without_any_sign_in(running: Running) -> None:
    one = protected(running)
    made = one.call("keys.v1.KeysService/CreateKey", keys_pb2.CreateKeyRequest(name="m", scopes=MANAGER))
    with Signgate(running.edge, api_key=made.secret) as program:
        again = program.call(program.keys.CreateKey, keys_pb2.CreateKeyRequest(name="n", scopes=["sign"]))
    assert again.secret


def test_a_removed_factor_takes_what_it_raised_along(running: Running) -> None:
    """S11. The thief's token of both factors changes nothing from that moment on, in any service."""
    owner = protected(running)
    stolen = owner.factor_id
    kept = owner.enroll()
    thief = owner.sign_in()
    thief.prove(stolen, step=1)
    claims = jwt.decode(thief.session.access_token, options={"verify_signature": False})
    assert (claims["aal"], claims["mfa"]) == ("aal2", True)
    assert reason(lambda: thief.call(CREATE, keys_pb2.CreateKeyRequest(name="x"))) == ""
    owner.call("auth.v1.AuthService/UnenrollFactor", auth_pb2.UnenrollFactorRequest(factor_id=stolen))
    thief.secrets = {kept: ""}  # what it goes for next
    before = state(owner)
    for name in PROTECTED:
        request = request_of(name, thief)
        assert reason(lambda: thief.call(name, request)) == "INSUFFICIENT_AAL", name  # noqa: B023  # called at once
    thief.refresh()
    for name in PROTECTED:
        request = request_of(name, thief)
        assert reason(lambda: thief.call(name, request)) == "INSUFFICIENT_AAL", name  # noqa: B023  # called at once
    assert state(owner) == before
    # The owner, whose session the other factor raised, goes on.
    assert reason(lambda: owner.call(CREATE, keys_pb2.CreateKeyRequest(name="y"))) == ""
