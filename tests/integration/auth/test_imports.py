"""What administrators bring from elsewhere: password hashes, and members that are not supported."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import bcrypt
import pytest
from argon2 import PasswordHasher, Type

from servicekit.errors import InvalidArgument, SigngateError
from services.auth.http.openapi import OPERATIONS
from services.auth.http.unsupported import UNSUPPORTED
from signgate.auth.v1 import admin_pb2 as pb
from signgate.auth.v1 import auth_pb2
from tests.integration.auth.world import PASSWORD, World, bearer

NEW = {"X-Supabase-Api-Version": "2024-01-01"}
BCRYPT = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
ARGON2I = PasswordHasher(time_cost=2, memory_cost=1024, parallelism=1, type=Type.I).hash(PASSWORD)


async def stored(world: World, user_id: str) -> str:
    found = await world.sql.fetchval("SELECT encrypted_password FROM auth.users WHERE id = $1", UUID(user_id))
    return str(found)


@pytest.mark.parametrize("imported", [BCRYPT, BCRYPT.replace("$2b$", "$2y$"), ARGON2I])
async def test_an_imported_hash_lets_its_owner_in_and_is_renewed(world: World, imported: str) -> None:
    """Over both faces, on create and on modify; a wrong password renews nothing."""
    operator, email = bearer(world.operator()), world.address()
    request = pb.CreateUserRequest(email=email, email_confirm=True, password_hash=imported)
    made = (await world.auth.admin.CreateUser(request, metadata=operator)).user
    with pytest.raises(SigngateError):
        await world.sign_in(email, PASSWORD + "!")
    assert await stored(world, made.id) == imported
    session = await world.sign_in(email)
    assert (await stored(world, made.id)).startswith("$argon2id$v=19$m=8192,t=1,p=1$")
    await world.sign_in(email)

    answer = await world.auth.http.put(
        f"/admin/users/{made.id}", json={"password_hash": imported}, headers={**NEW, **dict(operator)}
    )
    assert answer.status_code == 200
    assert imported not in answer.text
    assert await stored(world, made.id) == imported
    with pytest.raises(SigngateError) as ended:  # a new password ends the sessions
        await world.rpc.GetUser(auth_pb2.GetUserRequest(), metadata=bearer(session))
    assert ended.value.reason == "SESSION_REVOKED"
    await world.sign_in(email)


async def test_a_hash_of_a_long_password_is_renewed_with_the_whole_of_it(world: World) -> None:
    """Until then bcrypt's 72 bytes are enough; from then on they are not."""
    operator, email, long = bearer(world.operator()), world.address(), "seventy-two bytes and more " * 4
    hashed = bcrypt.hashpw(long.encode()[:72], bcrypt.gensalt(4)).decode()
    request = pb.CreateUserRequest(email=email, email_confirm=True, password_hash=hashed)
    await world.auth.admin.CreateUser(request, metadata=operator)
    await world.sign_in(email, long)
    with pytest.raises(SigngateError):
        await world.sign_in(email, long[:72])
    await world.sign_in(email, long)


@pytest.mark.parametrize(
    "members",
    [
        {"password_hash": BCRYPT.replace("$04$", "$20$")},
        {"password_hash": "$fbscrypt$v=1,n=14,r=8,p=1,ss=Bw==,sk=x$salt$hash"},
        {"password_hash": "$argon2id$v=19$m=1048576,t=99,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA"},
        {"password_hash": ""},
        {"password_hash": "x" * 600},
        {"password_hash": BCRYPT, "password": PASSWORD},
    ],
)
async def test_a_hash_that_is_not_taken_makes_no_account(world: World, members: dict[str, str]) -> None:
    operator, email = bearer(world.operator()), world.address()
    with pytest.raises(InvalidArgument) as refused:
        request = pb.CreateUserRequest(email=email)
        for name, value in members.items():
            setattr(request, name, value)
        await world.auth.admin.CreateUser(request, metadata=operator)
    assert refused.value.reason == "VALIDATION_FAILED"
    headers = {**NEW, **dict(operator)}
    answer = await world.auth.http.post("/admin/users", json={"email": email, **members}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "validation_failed")
    assert members["password_hash"] not in answer.text or not members["password_hash"]
    assert await world.sql.fetchval("SELECT count(*) FROM auth.users WHERE email = $1", email) == 0


ASKING: list[Any] = [True, "+4915112345678", [{"provider": "google"}]]
NOTHING: list[Any] = [None, False, "", {}]


@pytest.mark.parametrize("route", UNSUPPORTED, ids=" ".join)
async def test_a_member_that_changes_the_call_s_meaning_is_refused_by_name(
    world: World, route: tuple[str, str]
) -> None:
    """S31. Nothing is done, whatever else the body asks for; and what asks for nothing is passed over."""
    method, path = route
    session, operator = await world.user(), world.operator()
    needs = next(o.needs for o in OPERATIONS if (o.method, o.path) == route)
    token = {"public": "", "user": session.access_token, "admin": operator}[needs]
    headers = {**NEW, **({"Authorization": f"Bearer {token}"} if token else {})}
    url = path.replace("{user_id}", session.user.id)
    query = {"grant_type": "password"} if path == "/token" else {}
    accounts = "SELECT md5(string_agg(u::text, '|' ORDER BY id)) FROM auth.users u"
    before = await world.sql.fetchval(accounts)
    fresh = {"email": world.address(), "password": PASSWORD}

    async def send(body: dict[str, Any]) -> tuple[int, str, str]:
        answer = await world.auth.http.request(method, url, params=query, json=body, headers=headers)
        given = answer.json() if answer.content else {}
        return answer.status_code, given.get("code", ""), given.get("message", "")

    for member in UNSUPPORTED[route]:
        for value in ASKING:
            status, code, message = await send({**fresh, member: value})
            assert (status, code) == (400, "validation_failed"), (member, value)
            assert message.startswith(f"{member}: ")
    assert await world.sql.fetchval(accounts) == before
    for value in NOTHING:
        for member in UNSUPPORTED[route]:
            *_, message = await send({member: value, "email": "no address"})
            assert not message.startswith(f"{member}: "), (member, value)
            if path.startswith("/token"):
                break  # its limit is for passwords


async def test_what_clients_send_besides_is_passed_over(world: World) -> None:
    """As Supabase's own do: a captcha's token, null and empty members, the audience, a client's extras."""
    harmless = {
        "gotrue_meta_security": {"captcha_token": "x"},
        "phone": None,
        "phone_confirm": False,
        "aud": "authenticated",
        "go_back": True,
    }
    headers = {**NEW, **dict(bearer(world.operator()))}
    body = {"email": world.address(), "password": PASSWORD, "email_confirm": True, **harmless}
    made = await world.auth.http.post("/admin/users", json=body, headers=headers)
    assert made.status_code == 200
    session = {"email": body["email"], "password": PASSWORD, **harmless}
    answer = await world.auth.http.post("/token", params={"grant_type": "password"}, json=session)
    assert answer.status_code == 200
    other = await world.auth.http.post("/admin/users", json={**body, "aud": "robots"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (400, "validation_failed")
    path = f"/admin/users/{made.json()['id']}"
    wrong = await world.auth.http.request("DELETE", path, json={"should_soft_delete": "yes"}, headers=headers)
    assert (wrong.status_code, wrong.json()["code"]) == (400, "validation_failed")
    assert (await world.auth.http.get(path, headers=headers)).json()["state"] == "active"


async def test_a_soft_deletion_asked_for_by_the_query_is_no_deletion_for_good(world: World) -> None:
    """S31."""
    session, operator = await world.user(), {**NEW, **dict(bearer(world.operator()))}
    path = f"/admin/users/{session.user.id}"
    answer = await world.auth.http.delete(path, params={"should_soft_delete": "true"}, headers=operator)
    assert (answer.status_code, answer.json()["code"]) == (400, "validation_failed")
    assert (await world.auth.http.get(path, headers=operator)).status_code == 200
