"""Refresh families, and sessions ended by their owner."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from servicekit.errors import NotFound, SigngateError, Unauthenticated
from signgate.auth.v1 import auth_pb2
from tests.integration.auth.world import World, bearer, claims


async def alive(world: World, access: str) -> bool:
    try:
        await world.rpc.GetUser(auth_pb2.GetUserRequest(), metadata=bearer(access))
    except Unauthenticated as refused:
        assert refused.reason == "SESSION_REVOKED"  # noqa: PT017
        return False
    return True


async def later(world: World, session_id: str) -> None:
    """Let the reuse window pass, for this session."""
    await world.sql.execute(
        "UPDATE auth.refresh_tokens SET used_at = used_at - interval '1 hour' WHERE session_id = $1",
        UUID(session_id),
    )


async def test_a_lost_answer_costs_nobody_their_login(world: World) -> None:
    """The client never saw the first exchange's answer and comes again an hour later."""
    first = await world.user()
    lost = await world.refresh(first.refresh_token)
    await later(world, claims(first)["session_id"])
    second = await world.refresh(first.refresh_token)
    third = await world.refresh(second.refresh_token)
    assert await alive(world, third.access_token)
    assert lost.refresh_token not in (second.refresh_token, third.refresh_token)


async def test_a_token_two_steps_behind_ends_the_session(world: World) -> None:
    first = await world.user()
    second = await world.refresh(first.refresh_token)
    third = await world.refresh(second.refresh_token)
    with pytest.raises(Unauthenticated) as reused:
        await world.refresh(first.refresh_token)
    assert reused.value.reason == "REFRESH_TOKEN_ALREADY_USED"
    for token in (third.refresh_token, second.refresh_token):
        with pytest.raises(Unauthenticated) as ended:
            await world.refresh(token)
        assert ended.value.reason == "SESSION_EXPIRED"
    assert not await alive(world, third.access_token)


async def test_a_thief_who_copies_a_used_token_is_found_out(world: World) -> None:
    """The thief exchanges the old token late; then the owner's newest one tells that there are two."""
    owner = await world.user()
    owners = await world.refresh(owner.refresh_token)
    await later(world, claims(owner)["session_id"])
    thief = await world.refresh(owner.refresh_token)
    with pytest.raises(Unauthenticated) as reused:
        await world.refresh(owners.refresh_token)
    assert reused.value.reason == "REFRESH_TOKEN_ALREADY_USED"
    assert not await alive(world, thief.access_token)


async def test_many_tabs_refresh_at_once_and_all_stay_signed_in(world: World) -> None:
    session = await world.user()
    tabs = await asyncio.gather(*(world.refresh(session.refresh_token) for _ in range(8)))
    assert len({tab.refresh_token for tab in tabs}) == 8
    again = [await world.refresh(tab.refresh_token) for tab in tabs]
    for tab in again:
        assert await alive(world, tab.access_token)


async def test_an_unknown_refresh_token_is_refused(world: World) -> None:
    for token in ("", "x", "é" * 5000):
        with pytest.raises(Unauthenticated) as refused:
            await world.refresh(token)
        assert refused.value.reason == "REFRESH_TOKEN_NOT_FOUND"


async def test_sessions_are_listed_and_one_is_revoked(world: World) -> None:
    first = await world.user()
    second = await world.sign_in(first.user.email)
    stranger = await world.user()
    listed = (await world.rpc.ListSessions(auth_pb2.ListSessionsRequest(), metadata=bearer(second))).sessions
    assert [session.id for session in listed] == [
        claims(second)["session_id"],
        claims(first)["session_id"],
    ]
    assert [session.current for session in listed] == [True, False]
    assert "grpc-python" in listed[0].user_agent

    revoke = auth_pb2.RevokeSessionRequest(session_id=claims(first)["session_id"])
    with pytest.raises(NotFound):
        await world.rpc.RevokeSession(revoke, metadata=bearer(stranger))
    assert await alive(world, first.access_token)
    await world.rpc.RevokeSession(revoke, metadata=bearer(second))
    assert not await alive(world, first.access_token)
    assert await alive(world, second.access_token)


@pytest.mark.parametrize(
    ("scope", "left"),
    [
        (auth_pb2.SIGN_OUT_SCOPE_LOCAL, [False, True]),
        (auth_pb2.SIGN_OUT_SCOPE_OTHERS, [True, False]),
        (auth_pb2.SIGN_OUT_SCOPE_GLOBAL, [False, False]),
    ],
)
async def test_signing_out_ends_exactly_the_sessions_of_the_scope(
    world: World, scope: auth_pb2.SignOutScope.ValueType, left: list[bool]
) -> None:
    """The access tokens themselves are refused, not only the next refresh."""
    here = await world.user()
    there = await world.sign_in(here.user.email)
    stranger = await world.user()
    await world.rpc.SignOut(auth_pb2.SignOutRequest(scope=scope), metadata=bearer(here))
    assert [await alive(world, s.access_token) for s in (here, there)] == left
    assert await alive(world, stranger.access_token)


async def test_an_idle_session_ends(world: World) -> None:
    session = await world.user()
    await world.sql.execute(
        "UPDATE auth.sessions SET created_at = now() - interval '31 days' WHERE id = $1",
        UUID(claims(session)["session_id"]),
    )
    with pytest.raises(SigngateError) as ended:
        await world.refresh(session.refresh_token)
    assert ended.value.reason == "SESSION_EXPIRED"
