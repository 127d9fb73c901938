"""What our own services ask of each other: at their own ports, past the edge, where an intruder would be."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import grpc
import httpx
import jwt
import pytest
from google.protobuf import descriptor_pool
from google.rpc import status_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from deploy.local import secrets as local
from deploy.settings import table
from servicekit import keyset
from servicekit.identity import ALGORITHM, HEADER, LIFE, TYPE
from servicekit.rpc.callers import LEEWAY, callers_of
from servicekit.rpc.status import DETAILS_KEY, from_status
from signgate.auth.v1 import auth_pb2, notices_pb2  # noqa: F401  # its descriptors
from signgate.common.v1 import policy_pb2, quota_pb2
from signgate.keys.v1 import keys_pb2
from signgate.quota.v1 import enforcement_pb2
from signgate.signer.v1 import signer_pb2
from signgate_client import Signgate
from tests.conftest import Running
from tests.e2e.conftest import Account

ROOM = "https://www.tiktok.com/@inside/live"
SERVICES = tuple(table().services)
CONSUME = "/signgate.quota.v1.QuotaEnforcementService/Consume"
Metadata = tuple[tuple[str, str], ...]


class Internal(NamedTuple):
    """An internal method, the service that serves it, and the services that may call it."""

    path: str
    server: str
    callers: frozenset[str]


@pytest.fixture(scope="module")
def channels(running: Running) -> Iterator[dict[str, grpc.Channel]]:
    """To every service's own port."""
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(grpc.insecure_channel(running.address(name, "grpc")))
            for name in SERVICES
        }


@pytest.fixture(scope="module")
def internal(channels: dict[str, grpc.Channel]) -> list[Internal]:
    """Every internal method that the running services tell of by reflection."""
    found = []
    for server, channel in channels.items():
        told: Any = ProtoReflectionDescriptorDatabase(channel)
        for name in told.get_services():
            if name.startswith("grpc."):
                continue
            for method in descriptor_pool.Default().FindServiceByName(name).methods:
                policy = method.GetOptions().Extensions[policy_pb2.policy]
                if policy.access == policy_pb2.ACCESS_INTERNAL:
                    found.append(Internal(f"/{name}/{method.name}", server, callers_of(policy)))
    return found


def outcome(channel: grpc.Channel, path: str, metadata: Metadata, request: bytes = b"") -> str:
    """The reason of a refusal by who calls; "LET IN" for whatever the method itself says."""
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path, bytes, bytes)
    try:
        call(request, timeout=10, metadata=metadata)
    except grpc.RpcError as error:
        call_ended: Any = error
        packed = dict(call_ended.trailing_metadata())[DETAILS_KEY]
        told = from_status(status_pb2.Status.FromString(packed))
        if told.reason.startswith("SERVICE_") or told.status in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
            return told.reason
    return "LET IN"


def forged(
    running: Running, caller: str, called: str, *, signed_by: str | None = None, **changes: Any
) -> str:
    """A credential made with a service's real key, and something wrong in it."""
    file = running.layout.secrets / f"service_key_{signed_by or caller}"
    key = keyset.load(file).active(ALGORITHM, time.time())
    claimed = keyset.load(running.layout.secrets / f"service_key_{caller}").active(ALGORITHM, time.time())
    now = int(time.time())
    claims = {"iss": caller, "aud": called, "iat": now, "exp": now + LIFE} | changes
    private: Any = key.key
    return jwt.encode(claims, private, ALGORITHM, headers={"kid": claimed.kid, "typ": TYPE})


def test_there_are_internal_methods_and_each_names_who_may_call(internal: list[Internal]) -> None:
    """Or else the tests below would pass for an empty list."""
    assert CONSUME in {method.path for method in internal}
    assert len({method.server for method in internal}) >= 2
    for method in internal:
        assert method.callers, method.path
        assert method.callers < set(SERVICES), method.path


def test_every_internal_method_lets_in_the_services_of_its_policy_and_no_other(
    running: Running, channels: dict[str, grpc.Channel], internal: list[Internal]
) -> None:
    for method in internal:
        for caller in SERVICES:
            credential = running.credential(caller, method.server)
            wanted = "LET IN" if caller in method.callers else "SERVICE_NOT_ALLOWED"
            assert outcome(channels[method.server], method.path, (credential,)) == wanted, (method, caller)


def test_no_internal_method_takes_a_credential_that_is_wrong_in_anything(
    running: Running, channels: dict[str, grpc.Channel], internal: list[Internal], account: Account
) -> None:
    user = account.session.access_token
    for method in internal:
        channel = channels[method.server]
        caller = min(method.callers)
        other = next(name for name in SERVICES if name not in {caller, method.server})
        now = int(time.time())

        def sends(value: str, channel: grpc.Channel = channel, path: str = method.path) -> str:
            return outcome(channel, path, ((HEADER, value),))

        assert sends(forged(running, caller, method.server)) == "LET IN", method
        wrong = {
            "another audience": forged(running, caller, other),
            "expired": forged(running, caller, method.server, iat=now - LIFE - LEEWAY, exp=now - LEEWAY - 1),
            "another's key": forged(running, caller, method.server, signed_by=other),
            "an access token": user,
            "an API key": account.key,
            "nothing signed": jwt.encode(
                {"iss": caller, "aud": method.server, "iat": now, "exp": now + LIFE}, "", "none"
            ),
        }
        for what, value in wrong.items():
            assert sends(value) == "SERVICE_CREDENTIAL_INVALID", (method.path, what)
        for metadata in (
            (),
            (("authorization", f"Bearer {user}"),),
            (("x-api-key", account.key),),
            (("authorization", f"Bearer {forged(running, caller, method.server)}"),),
        ):
            assert outcome(channel, method.path, metadata) == "SERVICE_CREDENTIAL_MISSING", method


def test_an_operators_token_is_no_service(
    channels: dict[str, grpc.Channel], internal: list[Internal], service_role: str
) -> None:
    for method in internal:
        bearer = (("authorization", f"Bearer {service_role}"),)
        assert outcome(channels[method.server], method.path, bearer) == "SERVICE_CREDENTIAL_MISSING"


def test_a_charge_without_a_credential_is_refused_and_charges_nothing(
    running: Running, channels: dict[str, grpc.Channel], account: Account
) -> None:
    """S32: anyone inside could use up another user's minute."""
    with Signgate(running.edge, access_token=account.session.access_token) as user:
        user_id = user.call(user.auth.GetUser, auth_pb2.GetUserRequest()).user.id
        before = [pool.used_today for pool in user.quota().pools]
        request = enforcement_pb2.ConsumeRequest(
            charges=[
                enforcement_pb2.Charge(
                    charge_id="019b7c5e-4d88-7000-8000-0123456789ab",
                    user_id=user_id,
                    pool=quota_pb2.POOL_FREE,
                    cost=5,
                )
            ]
        ).SerializeToString()
        for metadata in ((), (running.credential("logger", "quota"),)):
            assert outcome(channels["quota"], CONSUME, metadata, request).startswith("SERVICE_")
        assert [pool.used_today for pool in user.quota().pools] == before
        assert outcome(channels["quota"], CONSUME, (running.credential("signer", "quota"),), request) == (
            "LET IN"
        )
        assert [pool.used_today for pool in user.quota().pools] != before


def test_an_address_is_believed_from_the_edge_alone(
    running: Running, channels: dict[str, grpc.Channel], account: Account
) -> None:
    """S35: a key that is bound to a network is good there, and not for a caller who only says so."""
    with Signgate(running.edge, access_token=account.session.access_token) as user:
        elsewhere, here = (
            user.call(
                user.keys.CreateKey, keys_pb2.CreateKeyRequest(name="bound", allowed_cidrs=[network])
            ).secret
            for network in ("203.0.113.0/24", "127.0.0.0/8")
        )
    request = signer_pb2.SignRequest(room_url=ROOM).SerializeToString()
    sign = "/signgate.signer.v1.SignerService/Sign"
    face = f"http://{running.address('signer', 'http')}/webcast/rate_limits"
    secret = local.read(running.layout, "edge_secret")
    said = (("x-envoy-external-address", "203.0.113.9"), ("x-forwarded-for", "203.0.113.9"))
    for proof, key, wanted in (
        ((), elsewhere, "KEY_NETWORK"),
        ((("x-signgate-edge", secret[:-1]),), elsewhere, "KEY_NETWORK"),
        ((("x-signgate-edge", secret),), elsewhere, "LET IN"),
        ((), here, "LET IN"),
        ((("x-signgate-edge", secret),), here, "KEY_NETWORK"),
    ):
        metadata = (*said, *proof, ("x-api-key", key))
        assert outcome(channels["signer"], sign, metadata, request) == wanted, (proof != (), wanted)
        answer = httpx.get(face, headers=dict(metadata))
        assert (answer.status_code == 401) == (wanted != "LET IN"), answer.text
    # Through the edge a caller's own headers say nothing, its proof included.
    with Signgate(running.edge, api_key=here) as caller:
        assert caller.sign(ROOM).signed_url
    own = httpx.get(
        f"{running.edge_url}/webcast/rate_limits",
        headers={**dict(said), "x-signgate-edge": secret, "x-api-key": elsewhere},
    )
    assert own.status_code == 401


def test_a_services_key_is_rotated_under_load_without_a_refused_call(
    running: Running, account: Account
) -> None:
    """The signer's, on which every signature rests; at the end its first key counts no more."""
    file = running.layout.secrets / "service_key_signer"
    old = {key.kid for key in keyset.load(file).keys}
    done, outcomes = threading.Event(), Counter[str]()

    def load() -> None:
        # Each of them is one call to keys and one to quota, and charges nothing.
        with httpx.Client(base_url=running.edge_url, headers={"x-api-key": account.key}, timeout=20) as face:
            while not done.is_set():
                outcomes[str(face.get("/webcast/rate_limits").status_code)] += 1
                time.sleep(0.02)

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        local.rotate_service(running.layout, "signer", lead=5, overlap=3)
        running.eventually(
            lambda: all(key.kid not in old or key.retired(time.time()) for key in keyset.load(file).keys),
            60,
            "the end of the old key",
        )
        time.sleep(3)  # services have looked at their files again
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert outcomes.keys() == {"200"}, outcomes
    assert outcomes["200"] > 50
