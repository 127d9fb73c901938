"""What validation answers, and every reason that it refuses for."""

from __future__ import annotations

import asyncio
import zlib
from datetime import UTC, datetime, timedelta

import pytest

from servicekit import apikey
from servicekit.clock import SystemEntropy, uuid7
from servicekit.errors import InvalidArgument
from services.keys.pepper_report import report
from signgate.keys.v1 import keys_pb2 as pb
from signgate.keys.v1 import validation_pb2
from tests.integration.keys.test_lifecycle import stamp
from tests.integration.keys.world import PEPPER_1, PEPPER_2, Replica, User, World, create, refused, with_key


def another_secret(secret: str) -> str:
    """A well-formed key with the id of a real one and a secret of its own."""
    key_id = apikey.id_of(apikey.id_text(secret))
    return apikey.mint(apikey.mode_of(secret), key_id, SystemEntropy())


async def test_answers_come_in_order_each_with_its_own_reason(keys: Replica, ann: User) -> None:
    good = (await create(keys, ann)).secret
    revoked = await create(keys, ann)
    await keys.owner.RevokeKey(pb.RevokeKeyRequest(key_id=revoked.key.id), metadata=ann.auth)
    stranger = apikey.mint("live", uuid7(), SystemEntropy())
    list_ = ["", good, stranger, revoked.secret, good[:-1] + "!", good, another_secret(good)]
    assert await keys.validate_all(list_) == [
        "KEY_MALFORMED", "OK", "KEY_UNKNOWN", "KEY_REVOKED", "KEY_MALFORMED", "OK", "KEY_UNKNOWN",
    ]  # fmt: skip


async def test_a_wrong_secret_of_a_known_id_names_nobody(keys: Replica, ann: User) -> None:
    """Else whoever knows a key's id could write refusals into its owner's usage."""
    made = await create(keys, ann)
    (result,) = await keys.results([another_secret(made.secret)])
    assert result.refusal.reason == "KEY_UNKNOWN"
    assert (result.refusal.user_id, result.refusal.key_id) == ("", "")


async def test_a_live_key_is_not_taken_as_a_test_key(keys: Replica, ann: User) -> None:
    """The mode is part of what is hashed, so it can't be rewritten, checksum and all."""
    made = await create(keys, ann)
    body = "sgk_test_" + made.secret[9:58]
    forged = body + apikey.encode(zlib.crc32(body.encode()), 6)
    apikey.check(forged)
    assert await keys.validate(forged) == "KEY_UNKNOWN"


async def test_an_expired_key(keys: Replica, world: World, ann: User) -> None:
    made = await create(keys, ann, expires_at=stamp(datetime.now(UTC) + timedelta(hours=1)))
    assert await keys.validate(made.secret) == "OK"
    await world.sql.execute("UPDATE public.api_keys SET expires_at = now()")
    async with world.replica() as fresh:
        assert await fresh.validate(made.secret) == "KEY_EXPIRED"


async def test_a_key_of_an_inactive_account(keys: Replica, world: World, ann: User) -> None:
    made = await create(keys, ann)
    await world.sql.execute("UPDATE public.users SET is_active = false WHERE id = $1", ann.id)
    assert await keys.validate(made.secret) == "USER_INACTIVE"


@pytest.mark.parametrize(
    ("client_ip", "outcome"),
    [
        ("203.0.113.7", "OK"),
        ("::ffff:203.0.113.7", "OK"),
        ("2001:db8::1", "OK"),
        ("198.51.100.5", "OK"),
        ("198.51.100.6", "KEY_NETWORK"),
        ("203.0.114.7", "KEY_NETWORK"),
        ("2001:db9::1", "KEY_NETWORK"),
        ("", "KEY_NETWORK"),
        ("unknown", "KEY_NETWORK"),
        ("203.0.113.7:443", "KEY_NETWORK"),
    ],
)
async def test_networks(keys: Replica, ann: User, client_ip: str, outcome: str) -> None:
    made = await create(keys, ann, allowed_cidrs=["203.0.113.0/24", "2001:db8::/32", "198.51.100.5"])
    assert await keys.validate(made.secret, client_ip) == outcome


async def test_a_list_may_have_a_thousand_members_and_no_more(keys: Replica, ann: User) -> None:
    made = await create(keys, ann)
    strangers = [apikey.mint("live", uuid7(), SystemEntropy()) for _ in range(998)]
    answers = await keys.validate_all([made.secret, *strangers, made.secret])
    assert answers == ["OK", *["KEY_UNKNOWN"] * 998, "OK"]
    request = validation_pb2.ValidateKeysRequest(credentials=[validation_pb2.KeyCredential()] * 1001)
    with pytest.raises(InvalidArgument):
        await keys.internal.ValidateKeys(request)


async def test_an_older_pepper_still_checks_and_the_hash_moves_to_the_newest(world: World, ann: User) -> None:
    async with world.replica(key_pepper=f"1:{PEPPER_1}") as old:
        made = await create(old, ann)
    before = await world.sql.fetchval("SELECT key_hash FROM public.api_keys")
    async with world.replica(key_pepper=f"1:{PEPPER_1},2:{PEPPER_2}") as both:
        assert await both.validate(another_secret(made.secret)) == "KEY_UNKNOWN"
        assert await world.sql.fetchval("SELECT pepper_version FROM public.api_keys") == 1
        assert await both.validate(made.secret) == "OK"
        await moved(world)
        assert await both.validate(made.secret) == "OK"
    assert await world.sql.fetchval("SELECT key_hash FROM public.api_keys") != before
    assert (
        await world.sql.fetchval("SELECT count(*) FROM public.key_audit WHERE action <> 'key.created'") == 0
    )
    async with world.replica(key_pepper=f"2:{PEPPER_2}") as new:
        assert await new.validate(made.secret) == "OK"
    # Whoever forgets a pepper that is needed can't tell good keys from bad ones.
    async with world.replica(key_pepper=f"1:{PEPPER_1}") as wrong:
        assert await refused(wrong.results([made.secret])) == "KEYS_UNAVAILABLE"


async def test_the_report_tells_which_pepper_may_go(
    keys: Replica, world: World, ann: User, capsys: pytest.CaptureFixture[str]
) -> None:
    made = await create(keys, ann)
    assert await report(world.settings(key_pepper=f"1:{PEPPER_1},2:{PEPPER_2}")) == 0
    assert "1         1         1  moves as keys are used" in capsys.readouterr().out
    assert await report(world.settings(key_pepper=f"2:{PEPPER_2}")) == 1
    assert "NOT CONFIGURED" in capsys.readouterr().out
    await keys.owner.RevokeKey(pb.RevokeKeyRequest(key_id=made.key.id), metadata=ann.auth)
    assert await report(world.settings(key_pepper=f"1:{PEPPER_1},2:{PEPPER_2}")) == 0
    assert "no working key is left: may be removed" in capsys.readouterr().out


async def moved(world: World) -> None:
    """Wait until the key is under pepper 2."""
    for _ in range(100):
        if await world.sql.fetchval("SELECT pepper_version FROM public.api_keys") == 2:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("the hash did not move")


async def test_a_key_is_a_credential_here_too(keys: Replica, world: World, ann: User) -> None:
    made = await create(keys, ann, scopes=["keys:read"])
    listed = await keys.owner.ListKeys(pb.ListKeysRequest(), metadata=with_key(made.secret))
    assert [key.id for key in listed.keys] == [made.key.id]
    bearer = (("authorization", f"Bearer {made.secret}"),)
    assert (await keys.owner.ListKeys(pb.ListKeysRequest(), metadata=bearer)).keys
    manage = keys.owner.CreateKey(pb.CreateKeyRequest(name="x"), metadata=with_key(made.secret))
    assert await refused(manage) == "SCOPE_MISSING"
    assert await refused(keys.owner.ListKeys(pb.ListKeysRequest())) == "CREDENTIAL_MISSING"
    unknown = with_key(apikey.mint("live", uuid7(), SystemEntropy()))
    assert await refused(keys.owner.ListKeys(pb.ListKeysRequest(), metadata=unknown)) == "KEY_UNKNOWN"
    broken = with_key(made.secret[:-1])
    assert await refused(keys.owner.ListKeys(pb.ListKeysRequest(), metadata=broken)) == "KEY_MALFORMED"


async def test_access_tokens_are_checked(keys: Replica, world: World, ann: User) -> None:
    for changes, reason in (
        ({"exp": 1}, "TOKEN_EXPIRED"),
        ({"aud": "somebody"}, "TOKEN_AUDIENCE"),
        ({"iss": "https://other.test"}, "TOKEN_INVALID"),
        ({"role": "service_role", "session_id": None}, "USER_REQUIRED"),
    ):
        bearer = (("authorization", f"Bearer {world.mint.token(ann.id, **changes)}"),)
        assert await refused(keys.owner.ListKeys(pb.ListKeysRequest(), metadata=bearer)) == reason
