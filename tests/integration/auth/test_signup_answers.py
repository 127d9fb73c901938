"""What the answer to a sign-up tells of an address, by `signup_tells_existing`."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from services.auth.hashing import HashLine
from signgate.auth.v1 import admin_pb2, auth_pb2
from tests.integration.auth.world import PASSWORD, Auth, World, bearer, struct

DATA = {"name": "Ann"}
STATES = ["unknown", "unconfirmed", "invited", "made by an operator", "confirmed"]
EMAIL, ID, TIME = "<email>", "<id>", "<time>"


async def prepared(world: World, auth: Auth, state: str) -> str:
    """An address in this state."""
    email, operator = world.address(), bearer(world.operator())
    if state == "unconfirmed":
        await auth.accounts.SignUp(auth_pb2.SignUpRequest(email=email, password="somebody's own words"))
    elif state == "invited":
        await auth.admin.InviteUser(admin_pb2.InviteUserRequest(email=email), metadata=operator)
    elif state != "unknown":
        request = admin_pb2.CreateUserRequest(
            email=email,
            password=PASSWORD,
            email_confirm=state == "confirmed",
            user_metadata=struct(secret="of the owner"),
            app_metadata=struct(secret="of the operator"),
        )
        await auth.admin.CreateUser(request, metadata=operator)
    return email


async def by_http(auth: Auth, email: str) -> dict[str, Any]:
    answer = await auth.http.post("/signup", json={"email": email, "password": PASSWORD, "data": DATA})
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


async def by_grpc(auth: Auth, email: str) -> dict[str, Any]:
    request = auth_pb2.SignUpRequest(email=email, password=PASSWORD, data=struct(**DATA))
    return MessageToDict(await auth.accounts.SignUp(request))["user"]  # type: ignore[no-any-return]  # its JSON


def shape(value: Any, email: str) -> Any:
    """An answer without what differs between any two addresses: the address, ids, the very moment."""
    if isinstance(value, dict):
        return {name: shape(each, email) for name, each in value.items()}
    if isinstance(value, list):
        return [shape(each, email) for each in value]
    if value == email:
        return EMAIL
    if isinstance(value, str) and len(value) == 36:
        assert value[14] == "8"  # the version: nothing tells derived ids from made ones
        return ID
    if isinstance(value, str) and value.startswith("2") and value.endswith("Z"):
        return TIME
    return value


@pytest.mark.parametrize("call", [by_http, by_grpc])
async def test_all_sign_ups_are_answered_alike_where_nothing_is_told(world: World, call: Any) -> None:
    """S18: the same members with values of the same kind, whatever the address's state; ids are stable."""
    async with world.replica(signup_tells_existing=False) as auth:
        answers = {}
        for state in STATES:
            email = await prepared(world, auth, state)
            first, second = await call(auth, email), await call(auth, email)
            answers[state] = shape(first, email)
            assert shape(second, email) == answers[state], state
            assert len(set(times(first))) == 1  # the moment of the call, and no account's
            for path in (("id",), ("identities", 0, "id"), ("identities", 0, "identity_id")):
                assert part(first, path) == part(second, path), (state, path)
        assert all(answer == answers["unknown"] for answer in answers.values())
        assert len(answers["unknown"]["identities"]) == 1


def times(value: Any) -> list[str]:
    if isinstance(value, (dict, list)):
        parts = value.values() if isinstance(value, dict) else value
        return [each for part in parts for each in times(part)]
    return [value] if isinstance(value, str) and value.startswith("2") and value.endswith("Z") else []


def part(value: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        value = value.get(step) if isinstance(value, dict) else value[step]
    return value


async def test_where_nothing_is_told_the_answer_stays_the_same_over_the_proof(world: World) -> None:
    """S18: and the id is the account's own."""
    async with world.replica(signup_tells_existing=False) as auth:
        email = world.address()
        first = await by_http(auth, email)
        session = await world.verify(email, await world.mailbox.code(email))
        assert session.user.id == first["id"]
        again = await by_http(auth, email)
        assert again["id"] == first["id"]
        assert again["identities"][0]["identity_id"] == first["identities"][0]["identity_id"]
        assert shape(again, email) == shape(first, email)
        assert "already have an account" in (await world.mailbox.wait(email, 2))["Subject"]


async def test_an_id_that_another_account_took_along_is_not_given_twice(world: World) -> None:
    async with world.replica(signup_tells_existing=False) as auth:
        email = world.address()
        await by_http(auth, email)
        first = await world.verify(email, await world.mailbox.code(email))
        moved = admin_pb2.ModifyUserRequest(id=first.user.id, email=world.address())
        await auth.admin.ModifyUser(moved, metadata=bearer(world.operator()))
        shown = await by_http(auth, email)
        second = await world.verify(email, await world.mailbox.code(email, 2))
        assert shown["id"] == first.user.id != second.user.id


async def test_by_default_a_confirmed_address_is_told_by_its_missing_identity_alone(world: World) -> None:
    """S18: as Supabase's clients expect; the rest of the answer is that of any address."""
    answers = {}
    for state in STATES:
        email = await prepared(world, world.auth, state)
        first, second = await by_http(world.auth, email), await by_http(world.auth, email)
        assert first["id"] == second["id"], state
        answers[state] = first
    assert [len(answers[state]["identities"]) for state in STATES] == [1, 1, 1, 1, 0]
    for answer in answers.values():
        assert set(answer) == set(answers["unknown"])
        assert answer["user_metadata"] == DATA
        assert "secret" not in str(answer)
        for name in ("invited_at", "email_confirmed_at", "last_sign_in_at", "banned_until", "new_email"):
            assert answer[name] is None
        assert answer["app_metadata"] == answers["unknown"]["app_metadata"]


@pytest.mark.parametrize("told", [True, False])
async def test_every_sign_up_costs_the_same_hashes(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    told: bool,  # noqa: FBT001
) -> None:
    """S18: hashes are what takes time, and no state of an address may take one more."""
    counted = 0
    original = HashLine.run

    async def counting(line: HashLine, work: Any, address: str) -> Any:
        nonlocal counted
        counted += 1
        return await original(line, work, address)

    async with world.replica(signup_tells_existing=told) as auth:
        costs = {}
        for state in STATES:
            email = await prepared(world, auth, state)
            with monkeypatch.context() as patched:
                patched.setattr(HashLine, "run", counting)
                counted = 0
                await by_http(auth, email)
                costs[state] = counted
        assert costs == dict.fromkeys(STATES, 2)


async def test_where_nothing_is_told_a_sign_in_tells_no_more_than_the_sign_up(world: World) -> None:
    """S18: a stranger signs up for an address, and then in with that very password."""
    async with world.replica(signup_tells_existing=False) as auth:
        answers = {}
        for state in STATES:
            email = await prepared(world, auth, state)
            await by_http(auth, email)
            own = {"email": email, "password": PASSWORD if state != "confirmed" else "a stranger's own words"}
            answer = await auth.http.post("/token", params={"grant_type": "password"}, json=own)
            answers[state] = (answer.status_code, answer.json())
        assert all(answer == answers["confirmed"] for answer in answers.values())
        assert answers["confirmed"][1]["error_code"] == "invalid_credentials"
