"""An account works with all the metadata that it may have, by every way in which that gets there."""

from __future__ import annotations

import json
from typing import Any

import pytest

from servicekit import headers
from services.auth.domain import METADATA_LIMIT
from signgate.auth.v1 import admin_pb2, auth_pb2, user_pb2
from tests.integration.auth.world import PASSWORD, World, bearer, claims

FULL = METADATA_LIMIT - len('{"x": ""}')


def full(letter: str) -> dict[str, str]:
    """As much of it as an account may have."""
    return {"x": letter * (FULL // len(letter.encode()))}


async def works(world: World, email: str, session: user_pb2.Session, wrote: dict[str, Any]) -> None:
    """Sign in, read and change the account by each face with the token that comes of it."""
    for one in (session, await world.sign_in(email), await world.refresh(session.refresh_token)):
        assert len(one.access_token) <= headers.TOKEN
        auth = bearer(one)
        assert (await world.rpc.GetUser(auth_pb2.GetUserRequest(), metadata=auth)).user.email == email
        by_http = await world.auth.http.get("/user", headers=dict(auth))
        assert by_http.status_code == 200, by_http.text
        assert by_http.json()["user_metadata"] == wrote
    auth = bearer(session)
    undo = await world.auth.http.put("/user", headers=dict(auth), json={"data": dict.fromkeys(wrote)})
    assert undo.status_code == 200, undo.text
    assert undo.json()["user_metadata"] == {}
    assert "metadata_omitted" not in claims(await world.sign_in(email))


@pytest.mark.parametrize("letter", ["a", "é", "д", "語", "😀"])
@pytest.mark.parametrize("escaped", [False, True])
async def test_what_put_user_accepts_leaves_an_account_that_works(
    world: World, letter: str, *, escaped: bool
) -> None:
    """S13."""
    email, wrote = world.address(), full(letter)
    session = await world.user(email)
    put = await world.auth.http.put(
        "/user",
        headers={**dict(bearer(session)), "content-type": "application/json"},
        content=json.dumps({"data": wrote}, ensure_ascii=escaped).encode(),
    )
    assert put.status_code == 200, put.text
    fresh = await world.sign_in(email)
    assert claims(fresh)["metadata_omitted"] == ["user_metadata"]
    assert claims(fresh)["user_metadata"] == {}
    await works(world, email, fresh, wrote)


async def test_so_does_sign_up(world: World) -> None:
    email, wrote = world.address(), full("語")
    body = {"email": email, "password": PASSWORD, "data": wrote}
    assert (await world.auth.http.post("/signup", json=body)).status_code == 200
    session = await world.verify(email, await world.mailbox.code(email))
    await works(world, email, session, wrote)


async def test_so_do_a_one_time_code_and_an_invitation(world: World) -> None:
    wrote = full("д")
    operator = dict(bearer(world.operator()))
    for path, auth, kind in (
        ("/otp", {}, auth_pb2.OTP_TYPE_EMAIL),
        ("/invite", operator, auth_pb2.OTP_TYPE_INVITE),
    ):
        email = world.address()
        body = {"email": email, "data": wrote} | ({"create_user": True} if path == "/otp" else {})
        asked = await world.auth.http.post(path, json=body, headers=auth)
        assert asked.status_code == 200, asked.text
        session = await world.verify(email, await world.mailbox.code(email), kind)
        assert claims(session)["metadata_omitted"] == ["user_metadata"]
        password = {"password": PASSWORD}
        put = await world.auth.http.put("/user", headers=dict(bearer(session)), json=password)
        assert put.status_code == 200, put.text
        await works(world, email, session, wrote)


async def test_so_does_what_an_operator_writes(world: World) -> None:
    """S13."""
    operator = dict(bearer(world.operator()))
    email, wrote = world.address(), full("語")
    session = await world.user(email)
    path = f"/admin/users/{session.user.id}"
    body = {"user_metadata": wrote, "app_metadata": wrote}
    put = await world.auth.http.put(path, headers=operator, json=body)
    assert put.status_code == 200, put.text
    fresh = await world.sign_in(email)
    told = claims(fresh)
    assert told["metadata_omitted"] == ["app_metadata", "user_metadata"]
    assert told["app_metadata"] == {"provider": "email", "providers": ["email"], "tier": "free"}
    mine = await world.auth.http.get("/user", headers=dict(bearer(fresh)))
    assert mine.json()["app_metadata"]["x"] == wrote["x"]
    found = await world.auth.admin.LookupUser(
        admin_pb2.LookupUserRequest(id=session.user.id), metadata=bearer(world.operator())
    )
    assert found.user.app_metadata["x"] == wrote["x"]
    small = await world.auth.http.put(
        path, headers=operator, json={"app_metadata": {"x": None, "team": "blue"}}
    )
    assert small.status_code == 200, small.text
    assert claims(await world.sign_in(email))["app_metadata"]["team"] == "blue"
    await world.auth.http.put(path, headers=operator, json={"app_metadata": wrote})
    await works(world, email, await world.sign_in(email), wrote)
