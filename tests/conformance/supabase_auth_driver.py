# ruff: noqa: PT017, T201, PLW0108 - a program, not a test: pytest is not in its environment
# mypy: ignore-errors
"""Runs in an environment of its own, with the unmodified `supabase-auth` client and nothing of ours.

`python supabase_auth_driver.py URL MAIL_FOLDER SERVICE_ROLE_TOKEN`: each flow in turn, a JSON line each:
{"flow": name, "error": "" or what went wrong}. A flow's name is its function's.
"""

from __future__ import annotations

import base64
import concurrent.futures
import email
import email.policy
import hashlib
import hmac
import itertools
import json
import re
import secrets
import struct
import sys
import time
import traceback
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import httpx
from supabase_auth import SyncGoTrueClient
from supabase_auth.errors import AuthApiError, AuthError, AuthWeakPasswordError

URL, MAILS, SERVICE_ROLE = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
PASSWORD, OTHER, THIRD = "ten green bottles", "eleven green bottles", "twelve green bottles"
HASHED = "$2b$04$Up1q9P8K.VDmcvFa/SjqEu9feApjySEdc3TE.2td3RnBTQW0vnkJq"  # PASSWORD, by bcrypt
RUN = secrets.token_hex(4)
numbers = itertools.count(1)


def client(token: str = "", flow_type: str = "implicit") -> SyncGoTrueClient:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return SyncGoTrueClient(url=URL, headers=headers, auto_refresh_token=False, flow_type=flow_type)


def address() -> str:
    return f"conformance-{RUN}-{next(numbers)}@example.com"


def text_of(to: str, number: int = 1) -> str:
    """The text of the numbered mail to an address, once it is there."""
    for _ in range(400):
        found = sorted(MAILS.glob(f"*-{to}.eml"))
        if len(found) >= number:
            message = email.message_from_bytes(found[number - 1].read_bytes(), policy=email.policy.default)
            return message.get_body(("plain",)).get_content()
        time.sleep(0.05)
    raise AssertionError(f"mail {number} did not come")


def mail(to: str, number: int = 1) -> tuple[str, str]:
    """The code and the link's hash of the numbered mail to an address."""
    text = text_of(to, number)
    code = re.search(r"^\s+(\d{6})\s*$", text, re.MULTILINE)
    link = re.search(r"token=([^&\s]+)", text)
    return code[1] if code else "", link[1] if link else ""


def pressed(to: str, number: int = 1) -> str:
    """Where the button behind the mailed link leads. Looking at its page first burns nothing."""
    link = urlsplit(re.search(r"http\S+/verify\?\S+", text_of(to, number))[0])
    assert httpx.get(link.geturl()).status_code == 200
    page = link._replace(query="").geturl()
    return httpx.post(page, data=dict(parse_qsl(link.query))).headers["location"]


def signed_up(password: str = PASSWORD) -> tuple[SyncGoTrueClient, str]:
    """A client with a session, and the address."""
    one, to = client(), address()
    answer = one.sign_up({"email": to, "password": password, "options": {"data": {"x": 1}}})
    assert answer.session is None
    assert answer.user.email == to
    assert one.verify_otp({"type": "signup", "email": to, "token": mail(to)[0]}).session
    return one, to


def refused(code: str, attempt: object) -> None:
    """The attempt is refused with this code."""
    try:
        attempt()
    except AuthApiError as error:
        assert error.code == code, error.code
    else:
        raise AssertionError(f"not refused, expected {code}")


def totp(secret: str) -> str:
    digest = hmac.new(
        base64.b32decode(secret), struct.pack(">Q", int(time.time() // 30)), hashlib.sha1
    ).digest()
    offset = digest[-1] & 15
    return str((struct.unpack(">I", digest[offset : offset + 4])[0] & 0x7FFFFFFF) % 10**6).zfill(6)


def sign_up_and_confirm() -> None:
    signed_up()


def sign_in() -> None:
    _, to = signed_up()
    assert client().sign_in_with_password({"email": to, "password": PASSWORD}).session


def wrong_password() -> None:
    _, to = signed_up()
    refused("invalid_credentials", lambda: client().sign_in_with_password({"email": to, "password": "x"}))


def unconfirmed() -> None:
    to = address()
    client().sign_up({"email": to, "password": PASSWORD})
    refused(
        "email_not_confirmed", lambda: client().sign_in_with_password({"email": to, "password": PASSWORD})
    )


def second_sign_up_of_a_confirmed_address() -> None:
    _, to = signed_up()
    assert client().sign_up({"email": to, "password": PASSWORD}).user.identities == []


def weak_password() -> None:
    try:
        client().sign_up({"email": address(), "password": "abc"})
    except AuthWeakPasswordError as error:
        assert error.reasons == ["length"], error.reasons
    else:
        raise AssertionError("taken")


def get_and_update_user() -> None:
    one, to = signed_up()
    assert one.get_user().user.email == to
    assert one.update_user({"data": {"y": 2}}).user.user_metadata == {"x": 1, "y": 2}
    one.update_user({"password": OTHER})
    assert client().sign_in_with_password({"email": to, "password": OTHER}).session


def refresh() -> None:
    one, _ = signed_up()
    before = one.get_session()
    assert one.refresh_session().session.refresh_token != before.refresh_token
    assert one.refresh_session(before.refresh_token).session  # one step behind: its answer was lost


def concurrent_refresh() -> None:
    one, _ = signed_up()
    token = one.get_session().refresh_token
    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(lambda _: client().refresh_session(token), range(5)))
    assert all(answer.session for answer in answers)


def get_claims() -> None:
    one, to = signed_up()
    assert one.get_claims()["claims"]["email"] == to


def one_time_code_and_magic_link() -> None:
    to = address()
    client().sign_in_with_otp({"email": to})
    assert client().verify_otp({"type": "email", "email": to, "token": mail(to)[0]}).session
    client().sign_in_with_otp({"email": to})
    assert client().verify_otp({"type": "magiclink", "token_hash": mail(to, 2)[1]}).session


def resend() -> None:
    to = address()
    client().sign_up({"email": to, "password": PASSWORD})
    client().resend({"type": "signup", "email": to})
    assert client().verify_otp({"type": "signup", "email": to, "token": mail(to, 2)[0]}).session


def recover() -> None:
    _, to = signed_up()
    client().reset_password_for_email(to)
    assert client().verify_otp({"type": "recovery", "email": to, "token": mail(to, 2)[0]}).session


def reauthenticate() -> None:
    one, to = signed_up()
    one.reauthenticate()
    one.update_user({"password": THIRD, "nonce": mail(to, 2)[0]})
    assert client().sign_in_with_password({"email": to, "password": THIRD}).session


def email_change() -> None:
    one, old = signed_up()
    new = address()
    assert one.update_user({"email": new}).user.new_email == new
    first = one.verify_otp({"type": "email_change", "email": new, "token": mail(new)[0]})
    assert first.session is None
    second = one.verify_otp({"type": "email_change", "email": old, "token": mail(old, 2)[0]})
    assert second.user.email == new


def link_with_tokens() -> None:
    """What the redirect carries after its # makes a session, and `set_session` takes it as well."""
    to, one = address(), client()
    one.sign_up({"email": to, "password": PASSWORD})
    brought = dict(parse_qsl(urlsplit(pressed(to)).fragment))
    session = one.set_session(brought["access_token"], brought["refresh_token"]).session
    assert session.user.email == to
    assert one.get_user().user.email_confirmed_at


def pkce() -> None:
    """A link's code becomes a session only with the verifier that never left the client."""
    to, one, stranger = address(), client(flow_type="pkce"), client(flow_type="pkce")
    one.sign_in_with_otp({"email": to})
    code = dict(parse_qsl(urlsplit(pressed(to)).query))["code"]
    stranger.sign_in_with_otp({"email": address()})  # so that it has a verifier, of another flow
    refused("bad_code_verifier", lambda: stranger.exchange_code_for_session({"auth_code": code}))
    assert one.exchange_code_for_session({"auth_code": code}).session.user.email == to
    one.reset_password_for_email(to)
    code = dict(parse_qsl(urlsplit(pressed(to, 2)).query))["code"]
    assert one.exchange_code_for_session({"auth_code": code}).session


def identities() -> None:
    one, to = signed_up()
    (identity,) = one.get_user_identities().identities
    assert (identity.provider, identity.identity_data["email"]) == ("email", to)


def second_factor() -> None:
    one, _ = signed_up()
    factor = one.mfa.enroll({"factor_type": "totp", "friendly_name": "phone"})
    assert factor.totp.qr_code.startswith("data:image/svg+xml")
    challenge = one.mfa.challenge({"factor_id": factor.id})
    answer = {"factor_id": factor.id, "challenge_id": challenge.id, "code": totp(factor.totp.secret)}
    assert one.mfa.verify(answer).access_token
    assert len(one.mfa.list_factors().totp) == 1
    assert one.mfa.get_authenticator_assurance_level().current_level == "aal2"
    assert one.mfa.unenroll({"factor_id": factor.id}).id == factor.id
    again = one.mfa.enroll({"factor_type": "totp", "friendly_name": "other phone"})
    one.mfa.challenge_and_verify({"factor_id": again.id, "code": totp(again.totp.secret)})


def passkey_is_read() -> None:
    """The client sets none up; it reads an account that has one."""
    one, _ = signed_up()
    headers = {"Authorization": f"Bearer {one.get_session().access_token}"}
    body = {"factor_type": "webauthn", "friendly_name": "key"}
    made = httpx.post(f"{URL}/factors", json=body, headers=headers).json()
    assert made["type"] == "webauthn"
    (listed,) = one.mfa.list_factors().all
    assert (listed.id, listed.factor_type, listed.status) == (made["id"], "webauthn", "unverified")
    assert one.mfa.unenroll({"factor_id": made["id"]}).id == made["id"]


def sign_out(scope: str, *, other_lives: bool) -> None:
    """Another session of the same user lives on or not, as the scope says."""
    one, to = signed_up()
    other = client()
    other.sign_in_with_password({"email": to, "password": PASSWORD})
    token = other.get_session().access_token
    one.sign_out({"scope": scope})
    try:
        other.get_user(token)
    except AuthError:
        assert not other_lives, "ended"
    else:
        assert other_lives, "lives"


def sign_out_global() -> None:
    sign_out("global", other_lives=False)


def sign_out_local() -> None:
    sign_out("local", other_lives=True)


def sign_out_others() -> None:
    sign_out("others", other_lives=False)


def administration() -> None:
    admin, to = client(SERVICE_ROLE).admin, address()
    user = admin.create_user({"email": to, "password": PASSWORD, "email_confirm": True}).user
    assert admin.get_user_by_id(user.id).user.email == to
    assert any(one.email == to for one in admin.list_users())
    assert admin.list_users(page=1, per_page=5)
    changed = admin.update_user_by_id(user.id, {"user_metadata": {"k": 1}})
    assert changed.user.user_metadata == {"k": 1}
    for kind in ("magiclink", "recovery"):
        link = admin.generate_link({"type": kind, "email": to})
        assert link.user.email == to
        assert client().verify_otp({"type": kind, "token_hash": link.properties.hashed_token}).session
    assert admin.generate_link({"type": "signup", "email": address(), "password": PASSWORD}).user
    assert admin.generate_link({"type": "invite", "email": address()}).user
    assert admin.invite_user_by_email(address()).user.invited_at
    admin.sign_out(client().sign_in_with_password({"email": to, "password": PASSWORD}).session.access_token)
    admin.delete_user(user.id)
    refused("user_not_found", lambda: admin.get_user_by_id(user.id))


def administration_of_factors() -> None:
    """An administrator removes the second factor of somebody who lost it."""
    one, to = signed_up()
    factor = one.mfa.enroll({"factor_type": "totp", "friendly_name": "lost"})
    one.mfa.challenge_and_verify({"factor_id": factor.id, "code": totp(factor.totp.secret)})
    user = one.get_user().user
    admin = client(SERVICE_ROLE).admin
    (listed,) = admin.mfa.list_factors({"user_id": user.id})
    assert listed.id == factor.id
    assert admin.mfa.delete_factor({"user_id": user.id, "id": factor.id}).id == factor.id
    other = client()
    other.sign_in_with_password({"email": to, "password": PASSWORD})
    assert other.get_user().user.factors == []


def administration_of_addresses() -> None:
    """Both links of an e-mail change, made by an administrator, change the address."""
    _, old = signed_up()
    admin, new = client(SERVICE_ROLE).admin, address()
    for kind in ("email_change_current", "email_change_new"):
        link = admin.generate_link({"type": kind, "email": old, "new_email": new}).properties
        answer = client().verify_otp({"type": "email_change", "token_hash": link.hashed_token})
    assert answer.user.email == new
    assert client().sign_in_with_password({"email": new, "password": PASSWORD}).session


def administration_of_states() -> None:
    """A hash from elsewhere, a ban that is lifted, and a soft deletion that frees the address."""
    admin, to = client(SERVICE_ROLE).admin, address()
    user = admin.create_user({"email": to, "password_hash": HASHED, "email_confirm": True}).user
    one, password = client(), {"email": to, "password": PASSWORD}
    one.sign_in_with_password(password)
    assert admin.update_user_by_id(user.id, {"ban_duration": "24h"}).user.id == user.id
    refused("user_banned", lambda: client().sign_in_with_password(password))
    refused("session_not_found", lambda: one.get_user(one.get_session().access_token))
    admin.update_user_by_id(user.id, {"ban_duration": "none"})
    client().sign_in_with_password(password)
    refused("validation_failed", lambda: admin.update_user_by_id(user.id, {"phone": "+4915112345678"}))
    admin.delete_user(user.id, should_soft_delete=True)
    refused("invalid_credentials", lambda: client().sign_in_with_password(password))
    assert admin.get_user_by_id(user.id).user.email != to
    assert admin.create_user(password).user.id != user.id
    admin.delete_user(user.id)
    refused("user_not_found", lambda: admin.get_user_by_id(user.id))


def administration_is_not_for_users() -> None:
    one, _ = signed_up()
    refused("not_admin", lambda: client(one.get_session().access_token).admin.list_users())


FLOWS = (
    sign_up_and_confirm,
    sign_in,
    wrong_password,
    unconfirmed,
    second_sign_up_of_a_confirmed_address,
    weak_password,
    get_and_update_user,
    refresh,
    concurrent_refresh,
    get_claims,
    one_time_code_and_magic_link,
    resend,
    recover,
    reauthenticate,
    email_change,
    link_with_tokens,
    pkce,
    identities,
    second_factor,
    passkey_is_read,
    sign_out_global,
    sign_out_local,
    sign_out_others,
    administration,
    administration_of_factors,
    administration_of_addresses,
    administration_of_states,
    administration_is_not_for_users,
)

if __name__ == "__main__":
    for flow in FLOWS:
        wrong = ""
        try:
            flow()
        except Exception:  # noqa: BLE001 - whatever it is, the flow failed; the next one runs
            wrong = traceback.format_exc(limit=-4)
        print(json.dumps({"flow": flow.__name__, "error": wrong}), flush=True)
