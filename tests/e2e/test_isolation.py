"""User A can, by no RPC, see or change anything of B's. The methods are listed by reflection.

For every method that a credential opens, a request is made by reflection: each field that can name
something is filled with B's. A new method is tested the day it is written, without a line here. The
other half of the promise, by SQL as A, stands in `db/tests/test_isolation.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import asyncpg
import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor

from deploy.local.layout import ROOT
from deploy.settings import table
from signgate.auth.v1 import auth_pb2
from signgate.common.v1 import policy_pb2
from signgate.keys.v1 import keys_pb2
from signgate.usage.v1 import usage_pb2
from signgate_client import Signgate
from tests.conftest import Running
from tests.e2e.conftest import Account

POOL = descriptor_pool.DescriptorPool()
for _file in descriptor_pb2.FileDescriptorSet.FromString((ROOT / "gen/signgate.binpb").read_bytes()).file:
    POOL.Add(_file)

MARK = "@marked.by.b"
"""A room that only B signs."""

# What A says in every request besides names: never a value that B's things are found by.
HARMLESS = {"password": "a password of A's own, long enough", "code": "000000", "name": "renamed by A"}


@dataclass(frozen=True)
class Method:
    """A public method of the contract."""

    path: str
    access: int
    request: Any
    response: Any
    client_streaming: bool
    server_streaming: bool


def public_methods() -> Iterator[Method]:
    """Every method of every service that the edge routes."""
    for service in table().services.values():
        for name in service.public:
            for method in POOL.FindServiceByName(name).methods:
                options = descriptor_pb2.MethodOptions.FromString(method.GetOptions().SerializeToString())
                # Parsed again by the generated extension, which knows its own number.
                policy = policy_pb2.Policy.FromString(_extension(options))
                yield Method(
                    f"/{name}/{method.name}",
                    policy.access,
                    message_factory.GetMessageClass(method.input_type),
                    message_factory.GetMessageClass(method.output_type),
                    method.client_streaming,
                    method.server_streaming,
                )


def _extension(options: descriptor_pb2.MethodOptions) -> bytes:
    return options.Extensions[policy_pb2.policy].SerializeToString()


METHODS = {method.path: method for method in public_methods()}
OPEN = [m for m in METHODS.values() if m.access == policy_pb2.ACCESS_PUBLIC]
CREDENTIALED = [
    m
    for m in METHODS.values()
    if m.access in {policy_pb2.ACCESS_CALLER, policy_pb2.ACCESS_USER, policy_pb2.ACCESS_API_KEY}
]
NAMING = [
    m
    for m in CREDENTIALED
    if {"key_id", "session_id", "factor_id", "challenge_id"}
    & {field.name for field in m.request.DESCRIPTOR.fields}
]
ADMINISTRATIVE = [m for m in METHODS.values() if m.access == policy_pb2.ACCESS_SERVICE_ROLE]


@dataclass(frozen=True)
class Pair:
    """A, who tries, and B, whose things they are."""

    a: Account
    b: Account
    names: dict[str, str]


@pytest.fixture
def pair(running: Running, new_account: Callable[[], Account]) -> Pair:
    """B has a key, a session, a factor and a usage row; A knows the id of each, as an attacker might."""
    a, b = new_account(), new_account()
    with Signgate(running.edge, access_token=b.session.access_token) as owner:
        enroll = auth_pb2.EnrollFactorRequest(factor_type="totp")
        factor_id = owner.call(owner.auth.EnrollFactor, enroll).factor.id
        ask = auth_pb2.ChallengeFactorRequest(factor_id=factor_id)
        challenge_id = owner.call(owner.auth.ChallengeFactor, ask).challenge_id
        external_id = f"of-b-{b.key_id[-12:]}"
        note = keys_pb2.UpdateKeyRequest(key_id=b.key_id, external_id=external_id)
        owner.call(owner.keys.UpdateKey, note)
    with Signgate(running.edge, api_key=b.key) as owner:
        request_id = owner.call(owner.signer.Sign, owner_sign_request()).request_id
        running.eventually(
            lambda: owner.call(owner.usage.ListUsage, usage_pb2.ListUsageRequest()).records, 10, "B's row"
        )
    return Pair(
        a,
        b,
        {
            "id": b.session.user.id,
            "user_id": b.session.user.id,
            "key_id": b.key_id,
            "api_key_id": b.key_id,
            "session_id": _session_id(b),
            "factor_id": factor_id,
            "challenge_id": challenge_id,
            "request_id": request_id,
            "external_id": external_id,
            "email": b.email,
        },
    )


def owner_sign_request() -> Any:
    from signgate.signer.v1 import signer_pb2  # noqa: PLC0415 - one use

    return signer_pb2.SignRequest(room_url=MARK)


def _session_id(account: Account) -> str:
    import jwt  # noqa: PLC0415 - one use

    claims = jwt.decode(account.session.access_token, options={"verify_signature": False})
    return str(claims["session_id"])


def fill(message: Any, names: dict[str, str]) -> Any:
    """Every field that can name something names B's; everything else is harmless or left out."""
    for field in message.DESCRIPTOR.fields:
        if field.type == FieldDescriptor.TYPE_STRING:
            value = names.get(field.name) or HARMLESS.get(field.name)
            if value is None and field.name.endswith("_id"):
                value = names["id"]
            if value is None:
                continue
            if field.is_repeated:
                getattr(message, field.name).append(value)
            else:
                setattr(message, field.name, value)
        elif field.type == FieldDescriptor.TYPE_MESSAGE and field.message_type.full_name.startswith(
            "signgate."
        ):
            if field.message_type.GetOptions().map_entry:
                continue  # A's own words
            inner = getattr(message, field.name)
            fill(inner.add() if field.is_repeated else inner, names)
    return message


def call(running: Running, method: Method, request: Any, metadata: tuple[tuple[str, str], ...]) -> bytes:
    """All that comes back: messages, or the words of the error."""
    with grpc.insecure_channel(running.edge) as channel:
        kind = {
            (False, False): channel.unary_unary,
            (False, True): channel.unary_stream,
            (True, False): channel.stream_unary,
            (True, True): channel.stream_stream,
        }[(method.client_streaming, method.server_streaming)]
        stub: Any = kind(method.path, method.request.SerializeToString, bytes)
        try:
            answer = stub(
                iter([request]) if method.client_streaming else request, metadata=metadata, timeout=15
            )
            return b"".join(answer) if method.server_streaming else bytes(answer)
        except grpc.RpcError as failure:
            error: Any = failure
            return str(error.details()).encode() + b"".join(
                value if isinstance(value, bytes) else value.encode()
                for _, value in error.trailing_metadata() or ()
            )


async def everything_of(running: Running, owner: Account) -> dict[str, list[str]]:
    """Every row of every table that B's id stands in."""
    connection = await asyncpg.connect(running.dsn())
    try:
        tables = await connection.fetch(
            "SELECT c.oid::regclass::text AS name"
            " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname IN ('public', 'auth', 'signgate') AND c.relkind = 'r'"
        )
        found = {}
        for name in (row["name"] for row in tables):
            rows = await connection.fetch(
                f"SELECT t::text AS row FROM {name} t WHERE t::text LIKE '%' || $1 || '%'",
                owner.session.user.id,
            )
            found[name] = sorted(row["row"] for row in rows)
    finally:
        await connection.close()
    return found


def credentials(account: Account) -> list[tuple[tuple[str, str], ...]]:
    return [
        (("authorization", f"Bearer {account.session.access_token}"),),
        (("x-api-key", account.key),),
    ]


@pytest.mark.parametrize("which", [0, 1], ids=["login", "key"])
async def test_no_method_shows_or_changes_what_is_anothers(running: Running, pair: Pair, which: int) -> None:
    before = await everything_of(running, pair.b)
    assert before["users"]
    assert before["api_keys"]
    assert shown(running, pair, credentials(pair.a)[which], CREDENTIALED) == {}
    after = await everything_of(running, pair.b)
    assert {name for name in before if before[name] != after[name]} == set()


def test_the_owner_is_shown_them_by_the_same_calls(running: Running, pair: Pair) -> None:
    """The control: what the test above looks for is there to be seen."""
    reads = [m for m in CREDENTIALED if m.path.rpartition("/")[2] in {"ListKeys", "ListUsage", "GetUser"}]
    found = shown(running, pair, credentials(pair.b)[0], reads)
    assert set(found) == {method.path for method in reads}


def test_what_a_stranger_is_told_is_not_there_its_owner_reaches_by_the_same_call(
    running: Running, pair: Pair
) -> None:
    """The other control: requests that name a thing are good ones, and only whose it is decides."""
    for method in sorted(NAMING, key=_last):
        request = fill(method.request(), pair.names)
        assert b"_NOT_FOUND" in call(running, method, request, credentials(pair.a)[0]), method.path
        assert b"_NOT_FOUND" not in call(running, method, request, credentials(pair.b)[0]), method.path


def shown(
    running: Running, pair: Pair, metadata: tuple[tuple[str, str], ...], methods: list[Method]
) -> dict[str, str]:
    """Which methods answer with a fact of B's that was not in the request, and one such fact."""
    facts = [pair.b.key, MARK.lstrip("@"), pair.b.session.refresh_token, pair.b.email, pair.b.key_id]
    found: dict[str, str] = {}
    for method in sorted(methods, key=_last):
        request = fill(method.request(), pair.names)
        answer = call(running, method, request, metadata)
        said = request.SerializeToString()
        for fact in facts:
            # What was said may come back; what was not said must not.
            if fact.encode() not in said and fact.encode() in answer:
                found.setdefault(method.path, fact)
    return found


def _last(method: Method) -> tuple[bool, str]:
    """What ends A's own credential or account comes last, so that it can't hide what comes after it."""
    endings = (
        *("SignOut", "DeleteUser", "RevokeSelf", "RevokeAllKeys", "UpdateUser", "UnenrollFactor"),
        "RevokeSession",
    )
    return method.path.endswith(endings), method.path


@pytest.mark.parametrize("method", ADMINISTRATIVE, ids=lambda m: m.path)
async def test_administration_is_refused_to_users_and_keys(
    running: Running, account: Account, method: Method
) -> None:
    for metadata in (*credentials(account), ()):
        answer = call(running, method, method.request(), metadata)
        assert any(reason in answer for reason in (b"SERVICE_ROLE_REQUIRED", b"CREDENTIAL_MISSING"))


@pytest.mark.parametrize("method", [*CREDENTIALED, *ADMINISTRATIVE], ids=lambda m: m.path)
def test_nothing_but_what_is_public_answers_without_a_credential(running: Running, method: Method) -> None:
    answer = call(running, method, method.request(), ())
    assert b"CREDENTIAL_MISSING" in answer


def test_the_list_is_the_contracts() -> None:
    """A guard for the lists above: they are not empty, and nothing is in none of them."""
    assert len(OPEN) + len(CREDENTIALED) + len(ADMINISTRATIVE) == len(METHODS)
    assert min(len(OPEN), len(CREDENTIALED), len(ADMINISTRATIVE), len(NAMING)) > 5
