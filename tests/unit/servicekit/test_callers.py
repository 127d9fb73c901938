"""Service credentials: which hold, for whom, and how they are rotated."""

import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from jwt.utils import base64url_decode

from servicekit import keyset
from servicekit.errors import PermissionDenied, SigngateError
from servicekit.identity import ALGORITHM, HEADER, LIFE, TYPE, Identity, IdentityUnavailable
from servicekit.keyset import KeySetError
from servicekit.rpc.callers import LEEWAY, LONGEST, Callers
from servicekit.testing.clock import ManualClock
from servicekit.testing.identity import Identities
from servicekit.testing.tokens import TokenMint
from servicekit.watched import FileError

SIGNERS = frozenset({"signer"})


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def identities(tmp_path: Path, clock: ManualClock) -> Identities:
    return Identities(tmp_path, clock)


@pytest.fixture
def quota(identities: Identities) -> Callers:
    return identities.callers("quota")


def made(identities: Identities, clock: ManualClock, **changes: Any) -> str:
    """A signer's credential for quota, with other claims, header or key; `None` leaves a claim out."""
    signing = keyset.load(identities.key(changes.pop("signed_by", "signer"))).active(ALGORITHM, clock.time())
    headers = {"kid": changes.pop("kid", signing.kid), "typ": changes.pop("typ", TYPE)}
    now = int(clock.time())
    claims = {"iss": "signer", "aud": "quota", "iat": now, "exp": now + LIFE} | changes
    key: Any = signing.key
    return jwt.encode({k: v for k, v in claims.items() if v is not None}, key, ALGORITHM, headers=headers)


def refusal(callers: Callers, *values: str | bytes) -> str:
    with pytest.raises(SigngateError) as caught:
        callers.require([(HEADER, value) for value in values], SIGNERS)
    return caught.value.reason


def test_a_service_proves_who_it_is(identities: Identities, quota: Callers) -> None:
    signer = identities.identity("signer")
    assert quota.require((signer.pair("quota"),), SIGNERS) == "signer"
    assert quota.require((("x", "y"), signer.pair("quota")), SIGNERS) == "signer"  # from memory


def test_without_a_credential_nothing_is_called(quota: Callers) -> None:
    assert refusal(quota) == "SERVICE_CREDENTIAL_MISSING"
    assert refusal(quota, "") == "SERVICE_CREDENTIAL_MISSING"


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "keys"},
        {"aud": ["quota", "keys"]},
        {"aud": None},
        {"iss": "logger"},
        {"iss": None},
        {"signed_by": "logger"},
        {"kid": "eddsa-000000000000"},
        {"typ": "JWT"},
        {"exp": None},
        {"iat": None},
        {"exp": True},
        {"exp": 1e400},
        {"exp": "99999999999"},
    ],
    ids=str,
)
def test_a_credential_that_is_wrong_in_one_thing_is_refused(
    identities: Identities, quota: Callers, clock: ManualClock, changes: dict[str, Any]
) -> None:
    assert quota.require([(HEADER, made(identities, clock))], SIGNERS) == "signer"
    assert refusal(quota, made(identities, clock, **changes)) == "SERVICE_CREDENTIAL_INVALID"


@pytest.mark.parametrize(
    ("issued", "ends", "good"),
    [
        (0, LIFE, True),
        (LEEWAY, LIFE, True),
        (LEEWAY + 1, LIFE, False),
        (-LIFE, -LEEWAY + 1, True),
        (-LIFE, -LEEWAY, False),
        (0, LONGEST, True),
        (0, LONGEST + 1, False),
        (-10, -10, False),
    ],
)
def test_clocks_may_differ_by_the_leeway_and_no_credential_lives_long(
    identities: Identities, quota: Callers, clock: ManualClock, *, issued: int, ends: int, good: bool
) -> None:
    now = int(clock.time())
    token = made(identities, clock, iat=now + issued, exp=now + ends)
    if good:
        assert quota.require([(HEADER, token)], SIGNERS) == "signer"
    else:
        assert refusal(quota, token) == "SERVICE_CREDENTIAL_INVALID"


def test_a_remembered_credential_ends_when_it_says(
    identities: Identities, quota: Callers, clock: ManualClock
) -> None:
    token = made(identities, clock)
    assert quota.require([(HEADER, token)], SIGNERS) == "signer"
    clock.advance(LIFE + LEEWAY - 1)
    assert quota.require([(HEADER, token)], SIGNERS) == "signer"
    clock.advance(1)
    assert refusal(quota, token) == "SERVICE_CREDENTIAL_INVALID"


@pytest.mark.parametrize(
    "value", ["x", "a.b.c", "ü" * 40, b"\xff" * 40, "e" * 5000, "..", "eyJhbGciOiJub25lIn0.e30."]
)
def test_garbage_is_refused(quota: Callers, value: str | bytes) -> None:
    assert refusal(quota, value) == "SERVICE_CREDENTIAL_INVALID"


def test_two_credentials_are_ambiguous(identities: Identities, quota: Callers, clock: ManualClock) -> None:
    assert refusal(quota, made(identities, clock), "other") == "SERVICE_CREDENTIAL_INVALID"


def test_a_users_token_is_no_service(quota: Callers, clock: ManualClock) -> None:
    mint = TokenMint(clock=clock)
    for token in (mint.token(), mint.token(iss="signer", aud="quota")):
        assert refusal(quota, token) == "SERVICE_CREDENTIAL_INVALID"


def test_unsigned_and_confused_algorithms_are_refused(
    identities: Identities, quota: Callers, clock: ManualClock
) -> None:
    now = int(clock.time())
    public = json.loads(identities.public.read_text())["signer"]["keys"][0]
    claims = {"iss": "signer", "aud": "quota", "iat": now, "exp": now + LIFE}
    headers = {"kid": public["kid"], "typ": TYPE}
    unsigned = jwt.encode(claims, "", "none", headers=headers)
    confused = jwt.encode(claims, base64url_decode(public["x"]), "HS256", headers=headers)
    assert refusal(quota, unsigned) == refusal(quota, confused) == "SERVICE_CREDENTIAL_INVALID"


def test_a_proven_service_calls_only_what_the_policy_lets_it(identities: Identities, quota: Callers) -> None:
    with pytest.raises(PermissionDenied) as caught:
        quota.require((identities.identity("keys").pair("quota"),), SIGNERS)
    assert caught.value.reason == "SERVICE_NOT_ALLOWED"
    with pytest.raises(PermissionDenied):
        quota.require((identities.identity("signer").pair("quota"),), frozenset())


def test_one_token_serves_for_half_of_its_life(identities: Identities, clock: ManualClock) -> None:
    signer = identities.identity("signer")
    first = signer.pair("quota")
    clock.advance(LIFE / 2 - 1)
    assert signer.pair("quota") is first
    assert signer.pair("keys") != first
    clock.advance(1)
    assert signer.pair("quota") != first


def test_a_key_is_rotated_without_a_refused_call(
    identities: Identities, quota: Callers, clock: ManualClock
) -> None:
    """At each second from before the rotation until the old key is retired."""
    signer = identities.identity("signer")
    kids = set()
    for second in range(300):
        if second == 10:
            keys = keyset.load(identities.key("signer")).rotated(
                ALGORITHM, clock.time(), lead=20, overlap=200
            )
            keyset.save(identities.key("signer"), keys.keys)
        if second == 12:
            identities.publish()
        pair = signer.pair("quota")
        assert quota.require((pair,), SIGNERS) == "signer", second
        kids.add(jwt.get_unverified_header(pair[1])["kid"])
        clock.advance(1)
    assert len(kids) == 2


def test_a_key_that_is_removed_or_retired_counts_no_more(
    identities: Identities, quota: Callers, clock: ManualClock
) -> None:
    """Also for a credential that was good, and is remembered."""
    old = made(identities, clock)
    assert quota.require([(HEADER, old)], SIGNERS) == "signer"
    keys = keyset.load(identities.key("signer")).rotated(ALGORITHM, clock.time(), lead=0, overlap=5)
    keyset.save(identities.key("signer"), keys.keys)
    identities.publish()
    clock.advance(2)
    assert quota.require([(HEADER, old)], SIGNERS) == "signer"
    clock.advance(4)
    assert refusal(quota, old) == "SERVICE_CREDENTIAL_INVALID"
    document = json.loads(identities.public.read_text())
    new = identities.identity("signer").pair("quota")[1]
    assert quota.require([(HEADER, new)], SIGNERS) == "signer"
    identities.public.write_text(json.dumps(document | {"signer": {"keys": []}}))
    clock.advance(2)
    assert refusal(quota, new) == "SERVICE_CREDENTIAL_INVALID"


def test_a_broken_file_of_keys_leaves_the_good_ones_in_use(
    identities: Identities, quota: Callers, clock: ManualClock, capsys: pytest.CaptureFixture[str]
) -> None:
    identities.public.write_text("{")
    clock.advance(2)
    assert quota.require((identities.identity("signer").pair("quota"),), SIGNERS) == "signer"
    assert "last good contents stay in use" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "[]", '{"signer": 1}', '{"signer": {"keys": [{"kid": "a"}]}}'])
def test_a_wrong_file_of_keys_stops_the_start(tmp_path: Path, content: str) -> None:
    path = tmp_path / "service_keys.json"
    path.write_text(content)
    with pytest.raises(FileError):
        Callers("quota", path)


def test_private_keys_in_the_public_file_stop_the_start(identities: Identities) -> None:
    private = json.loads(identities.key("signer").read_text())
    identities.public.write_text(json.dumps({"signer": private}))
    with pytest.raises(FileError) as caught:
        Callers("quota", identities.public)
    assert private["keys"][0]["d"] not in str(caught.value)


def test_a_service_without_a_key_says_so(identities: Identities, clock: ManualClock) -> None:
    signer = identities.identity("signer")
    keys = keyset.load(identities.key("signer")).rotated(ALGORITHM, clock.time(), lead=10, overlap=0)
    keyset.save(identities.key("signer"), keys.keys[:1])
    clock.advance(60)
    with pytest.raises(IdentityUnavailable):
        signer.pair("quota")
    with pytest.raises(KeySetError):
        Identity("signer", identities.key("signer"), clock)


def test_no_credential_shows_in_a_repr(identities: Identities) -> None:
    signer, peer = identities.identity("signer"), identities.peer("signer", "quota")
    token = signer.pair("quota")[1]
    shown = repr([signer, peer, vars(signer)])
    assert token.rpartition(".")[2] not in shown
