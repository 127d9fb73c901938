"""The HTTP face, as Supabase's clients call it."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pyotp
import pytest

from services.auth import admin as tool
from tests.integration.auth.world import PASSWORD, World

NEW = {"X-Supabase-Api-Version": "2024-01-01"}


async def post(world: World, path: str, body: Any = None, token: str = "", **more: Any) -> httpx.Response:
    headers = {**NEW, **({"Authorization": f"Bearer {token}"} if token else {})}
    return await world.auth.http.post(path, json=body if body is not None else {}, headers=headers, **more)


async def get(world: World, path: str, token: str = "") -> httpx.Response:
    return await world.auth.http.get(path, headers={**NEW, "Authorization": f"Bearer {token}"})


async def session(world: World) -> dict[str, Any]:
    email = world.address()
    await post(world, "/signup", {"email": email, "password": PASSWORD})
    code = await world.mailbox.code(email)
    done = await post(world, "/verify", {"type": "signup", "email": email, "token": code})
    assert done.status_code == 200
    found: dict[str, Any] = done.json()
    return found


def code_of(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["x-sb-error-code"] == answer.json()["code"]
    return answer.status_code, answer.json()["code"]


async def test_a_session_has_all_that_clients_read(world: World) -> None:
    found = await session(world)
    assert found["token_type"] == "bearer"
    assert isinstance(found["expires_at"], int)
    assert found["expires_in"] == 3600
    user = found["user"]
    for name in ("id", "aud", "role", "email", "app_metadata", "user_metadata", "created_at"):
        assert user[name] is not None
    assert user["email_confirmed_at"].endswith("Z")
    assert user["is_anonymous"] is False
    (identity,) = user["identities"]
    assert identity["provider"] == "email"
    assert identity["id"] == identity["user_id"] == user["id"]
    again = await post(world, "/token?grant_type=refresh_token", {"refresh_token": found["refresh_token"]})
    assert again.json()["user"]["id"] == user["id"]
    assert again.headers["x-supabase-api-version"] == "2024-01-01"


async def test_both_styles_of_errors(world: World) -> None:
    body = {"email": world.address(), "password": "wrong"}
    new = await post(world, "/token?grant_type=password", body)
    assert code_of(new) == (400, "invalid_credentials")
    assert set(new.json()) == {"code", "message"}
    assert new.headers["x-supabase-api-version"] == "2024-01-01"
    old = await world.auth.http.post("/token?grant_type=password", json=body)
    assert old.json()["code"] == 400
    assert old.json()["error_code"] == "invalid_credentials"
    assert old.json()["msg"]
    assert "x-supabase-api-version" not in old.headers


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/signup", {"email": "x@example.com", "password": "short"}, (422, "weak_password")),
        ("/signup", {"email": "nobody", "password": PASSWORD}, (400, "validation_failed")),
        ("/signup", {"email": 1, "password": PASSWORD}, (400, "validation_failed")),
        ("/signup", [], (400, "bad_json")),
        ("/token?grant_type=password", {"email": "a@b.co", "password": "x"}, (400, "invalid_credentials")),
        ("/token?grant_type=refresh_token", {"refresh_token": "x"}, (400, "refresh_token_not_found")),
        ("/token?grant_type=pkce", {"auth_code": "x", "code_verifier": "y"}, (404, "flow_state_not_found")),
        ("/token?grant_type=magic", {}, (400, "unsupported_grant_type")),
        ("/verify", {"type": "signup", "email": "a@b.co", "token": "123456"}, (403, "otp_expired")),
        ("/verify", {"type": "magiclink", "token_hash": "x"}, (403, "otp_expired")),
        ("/verify", {"type": "sms", "token": "1"}, (400, "validation_failed")),
        ("/logout", {}, (401, "no_authorization")),
        ("/factors", {"factor_type": "totp"}, (401, "no_authorization")),
        ("/nowhere", {}, (404, "no_such_path")),
        ("/user", {}, (405, "method_not_allowed")),
    ],
)
async def test_a_refusal_has_the_status_and_code_that_clients_switch_on(
    world: World, path: str, body: Any, expected: tuple[int, str]
) -> None:
    assert code_of(await post(world, path, body)) == expected


async def test_a_weak_password_says_why(world: World) -> None:
    answer = await post(world, "/signup", {"email": world.address(), "password": "iloveyou"})
    assert answer.json()["weak_password"] == {"reasons": ["pwned"]}


async def test_a_public_path_looks_at_no_bearer(world: World) -> None:
    """Supabase's umbrella client sends its anon key along with every call."""
    answer = await post(world, "/otp", {"email": world.address()}, token="an-anon-key")
    assert (answer.status_code, answer.json()) == (200, {})


async def test_bad_tokens_are_told_apart_from_none(world: World) -> None:
    found = await session(world)
    for bad in (found["access_token"] + "x", "an-anon-key"):
        assert code_of(await get(world, "/user", bad)) == (403, "bad_jwt")
    bare = await world.auth.http.get("/user", headers=NEW)
    assert code_of(bare) == (401, "no_authorization")
    await post(world, "/logout?scope=global", token=found["access_token"])
    assert code_of(await get(world, "/user", found["access_token"])) == (403, "session_not_found")


async def test_optional_members_may_be_null(world: World) -> None:
    body = {
        "email": world.address(),
        "password": PASSWORD,
        "data": None,
        "gotrue_meta_security": {"captcha_token": None},
        "code_challenge": None,
        "code_challenge_method": None,
    }
    answer = await post(world, "/signup", body)
    assert answer.status_code == 200
    assert answer.json()["email"] == body["email"]
    assert "access_token" not in answer.json()


async def test_looking_at_a_link_burns_nothing_and_its_button_works_once(world: World) -> None:
    """Mail scanners fetch every link, several times, before its reader does."""
    email = world.address()
    await post(world, "/signup?redirect_to=http://app.test/in", {"email": email, "password": PASSWORD})
    link = await world.mailbox.link(email)
    path = link["link"].removeprefix("http://signgate.test/auth/v1")
    page = await world.auth.http.get(path)
    for _ in range(2):
        page = await world.auth.http.get(path)
        assert page.status_code == 200
        assert page.headers["cache-control"] == "no-store"
        assert page.headers["referrer-policy"] == "no-referrer"
    form = dict(re.findall(r'name="(\w+)" value="([^"]*)"', page.text))
    assert form == {"token": link["token"], "type": "signup", "redirect_to": "http://app.test/in"}
    done = await world.auth.http.post("/verify", data=form)
    assert done.status_code == 303
    where = httpx.URL(done.headers["location"])
    assert str(where).startswith("http://app.test/in#")
    tokens = dict(httpx.QueryParams(where.fragment))
    assert (await get(world, "/user", tokens["access_token"])).json()["email"] == email
    again = await world.auth.http.post("/verify", data=form)
    assert again.status_code == 303
    assert "error_code=otp_expired" in again.headers["location"]


async def test_the_page_is_no_door_for_scripts_or_strangers(world: World) -> None:
    evil = '"><script>alert(1)</script>'
    page = await world.auth.http.get("/verify", params={"type": "signup", "token": evil})
    assert "<script" not in page.text
    form = {"type": "signup", "token": "x", "redirect_to": "http://evil.test/"}
    lead = await world.auth.http.post("/verify", data=form)
    assert lead.headers["location"].startswith("http://signgate.test#error=access_denied")


async def test_a_second_factor_over_http(world: World) -> None:
    found = await session(world)
    token = found["access_token"]
    made = (await post(world, "/factors", {"factor_type": "totp", "friendly_name": "p"}, token)).json()
    assert made["type"] == "totp"
    assert made["totp"]["qr_code"].startswith("<svg")
    path = f"/factors/{made['id']}"
    challenge = (await post(world, f"{path}/challenge", {}, token)).json()
    assert isinstance(challenge["expires_at"], int)
    body = {"challenge_id": challenge["id"], "code": pyotp.TOTP(made["totp"]["secret"]).now()}
    proved = (await post(world, f"{path}/verify", body, token)).json()
    assert len(proved["recovery_codes"]) == 10
    refused = await world.auth.http.delete(path, headers={**NEW, "Authorization": f"Bearer {token}"})
    assert code_of(refused) == (401, "insufficient_aal")
    headers = {**NEW, "Authorization": f"Bearer {proved['access_token']}"}
    gone = await world.auth.http.delete(path, headers=headers)
    assert (gone.status_code, gone.json()) == (200, {"id": made["id"]})


async def test_sessions_are_listed_and_revoked_over_http(world: World) -> None:
    found = await session(world)
    email = found["user"]["email"]
    other = (await post(world, "/token?grant_type=password", {"email": email, "password": PASSWORD})).json()
    listed = (await get(world, "/sessions", found["access_token"])).json()["sessions"]
    assert [each["current"] for each in listed] == [False, True]
    headers = {"Authorization": f"Bearer {found['access_token']}"}
    gone = await world.auth.http.delete(f"/sessions/{listed[0]['id']}", headers=headers)
    assert gone.status_code == 204
    assert (await get(world, "/user", other["access_token"])).status_code == 403


async def test_administrators_over_http(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SIGNGATE_JWT_KEYSET_FILE", str(world.auth.settings.jwt_keyset_file))
    monkeypatch.setenv("SIGNGATE_JWT_ISSUER", world.auth.settings.jwt_issuer)
    tool.main(["token"])
    token = capsys.readouterr().out.strip()
    user = await session(world)
    assert code_of(await get(world, "/admin/users", user["access_token"])) == (403, "not_admin")

    email = world.address()
    made = await post(
        world, "/admin/users", {"email": email, "password": PASSWORD, "email_confirm": True}, token
    )
    path = f"/admin/users/{made.json()['id']}"
    assert code_of(await post(world, "/admin/users", {"email": email}, token)) == (422, "email_exists")
    listed = await get(world, "/admin/users?page=&per_page=", token)
    assert email in [each["email"] for each in listed.json()["users"]]
    assert listed.json()["aud"] == "authenticated"
    assert int(listed.headers["x-total-count"]) >= 2
    assert 'rel="last"' in listed.headers["link"]
    found = await get(world, f"/admin/users?email={email}", token)
    assert [each["id"] for each in found.json()["users"]] == [made.json()["id"]]
    headers = {**NEW, "Authorization": f"Bearer {token}"}
    put = await world.auth.http.put(path, json={"user_metadata": {"a": 1}}, headers=headers)
    assert put.json()["user_metadata"] == {"a": 1}
    link = await post(world, "/admin/generate_link", {"type": "magiclink", "email": email}, token)
    verify = {"type": "magiclink", "token_hash": link.json()["hashed_token"]}
    assert (await post(world, "/verify", verify)).json()["user"]["email"] == email
    invited = await post(world, "/invite", {"email": world.address()}, token)
    assert invited.json()["invited_at"]
    assert (await world.auth.http.delete(path, headers=headers)).json() == {}
    assert code_of(await get(world, path, token)) == (404, "user_not_found")


async def test_limits_say_when_to_come_again(world: World) -> None:
    body = {"email": world.address()}
    answers = [await post(world, "/recover", body) for _ in range(7)]
    last = answers[-1]
    assert code_of(last) == (429, "over_email_send_rate_limit")
    assert int(last.headers["retry-after"]) > 0
    assert "Try again at" in last.json()["message"]


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"email": "\\ud800@example.com"}',
        b'{"data": {"x": 1e999}, "email": "a@example.com", "password": "ten green bottles"}',
        b'{"data": {"x": "\\u0000"}, "email": "a@example.com", "password": "ten green bottles"}',
        b'{"data": {"\\ud800": 1}, "email": "a@example.com", "password": "ten green bottles"}',
        b'{"data": {"x": NaN}, "email": "a@example.com", "password": "ten green bottles"}',
        b'{"data": ' + b'{"x":' * 500 + b"1" + b"}" * 500 + b', "email": "a@example.com"}',
        b'{"data": {"x": 1' + b"0" * 400 + b'}, "email": "a@example.com", "password": "ten green bottles"}',
        b'{"x": "' + b"x" * 70_000 + b'"}',
    ],
)
async def test_no_body_makes_a_server_error(world: World, content: bytes) -> None:
    answer = await world.auth.http.post("/signup", content=content, headers=NEW)
    assert 400 <= answer.status_code < 500
    assert answer.json()["code"]
