"""Keys are held to the state of their account, as they are to their own revocation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from signgate.keys.v1 import keys_pb2 as pb
from signgate.keys.v1.validation_pb2 import KeyValidation as Result
from tests.integration.keys.test_validation import another_secret
from tests.integration.keys.world import Replica, User, World, create, with_key

BAN = "UPDATE auth.users SET banned_until = now() + interval '1 day' WHERE id = $1"
WAYS = {
    "is banned until 2": (BAN, "UPDATE auth.users SET banned_until = NULL WHERE id = $1"),
    "is deactivated": (
        "UPDATE public.users SET is_active = false WHERE id = $1",
        "UPDATE public.users SET is_active = true WHERE id = $1",
    ),
    "has not confirmed": (
        "UPDATE auth.users SET email_confirmed_at = NULL WHERE id = $1",
        "UPDATE auth.users SET email_confirmed_at = now() WHERE id = $1",
    ),
}


async def after_bound(
    keys: Replica, secrets: list[str], changed: Callable[[Sequence[Result]], bool]
) -> Sequence[Result]:
    """The first answers that show the change; `make bench ONLY=revocation` measures the bound."""
    async with asyncio.timeout(20):
        while not changed(found := await keys.results(secrets)):
            await asyncio.sleep(0.01)
    return found


def refused(found: Sequence[Result]) -> bool:
    return all(result.HasField("refusal") for result in found)


def accepted(found: Sequence[Result]) -> bool:
    return all(result.HasField("key") for result in found)


@pytest.fixture
async def eve(world: World) -> User:
    """An account of our own, in auth.users."""
    user = await world.user()
    await world.sql.execute("DELETE FROM public.users WHERE id = $1", user.id)
    await world.sql.execute(
        "INSERT INTO auth.users (id, email, email_confirmed_at) VALUES ($1, $2, now())",
        user.id,
        f"{user.id}@example.com",
    )
    return user


@pytest.mark.parametrize("why", WAYS)
async def test_a_key_and_its_tokens_stop_with_the_account_and_start_with_it(
    keys: Replica, world: World, eve: User, why: str
) -> None:
    """S12. By the age of records alone: no message tells of these changes."""
    stop, start = WAYS[why]
    made = await create(keys, eve)
    minted = await keys.owner.MintToken(pb.MintTokenRequest(), metadata=with_key(made.secret))
    both = [made.secret, minted.token]
    assert await keys.validate_all(both) == ["OK", "OK"]
    await world.sql.execute(stop, eve.id)
    for result in await after_bound(keys, both, refused):
        assert result.refusal.reason == "USER_INACTIVE"
        assert f"account of this API key {why}" in result.refusal.message
        assert result.refusal.user_id == str(eve.id)
    await world.sql.execute(start, eve.id)
    await after_bound(keys, both, accepted)


async def test_a_ban_ends_by_time_without_an_event(keys: Replica, world: World, eve: User) -> None:
    made = await create(keys, eve)
    await world.sql.execute(BAN, eve.id)
    (result,) = await after_bound(keys, [made.secret], refused)
    assert result.refusal.reason == "USER_INACTIVE"
    # Only the clock is moved: the row stays as it is, but for how far away the end is.
    await world.sql.execute("UPDATE public.users SET banned_until = now() - interval '1 second'")
    await after_bound(keys, [made.secret], accepted)


async def test_a_ban_without_an_end_is_told_as_one(keys: Replica, world: World, eve: User) -> None:
    made = await create(keys, eve)
    await world.sql.execute("UPDATE auth.users SET banned_until = 'infinity' WHERE id = $1", eve.id)
    (result,) = await after_bound(keys, [made.secret], refused)
    assert result.refusal.message == "The account of this API key is banned."


async def test_a_soft_deletion_revokes_keys_for_good(keys: Replica, world: World, eve: User) -> None:
    made = await create(keys, eve)
    minted = await keys.owner.MintToken(pb.MintTokenRequest(), metadata=with_key(made.secret))
    await world.sql.execute("SELECT auth.forget_user($1, 'gone@users.invalid')", eve.id)
    for result in await after_bound(keys, [made.secret, minted.token], refused):
        assert result.refusal.reason == "KEY_REVOKED"
    await world.sql.execute("UPDATE auth.users SET deleted_at = NULL WHERE id = $1", eve.id)
    for result in await keys.results([made.secret, minted.token]):
        assert result.refusal.reason == "KEY_REVOKED"


async def test_a_wrong_secret_does_not_tell_of_a_ban(keys: Replica, world: World, eve: User) -> None:
    made = await create(keys, eve)
    await world.sql.execute(BAN, eve.id)
    (result,) = await after_bound(keys, [another_secret(made.secret)], refused)
    assert (result.refusal.reason, result.refusal.user_id) == ("KEY_UNKNOWN", "")
