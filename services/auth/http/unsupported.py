"""Members of bodies that Supabase Auth knows and this service does not, where passing them over would change
what the call means. A request that has one is refused with what to do instead; null, false and empty values
ask for nothing and are passed over, as are members that only tell of the client (`gotrue_meta_security`).

gRPC has no such members: protobuf passes fields over that it does not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from services.auth.errors import ValidationFailed

_phone: Final = {
    "phone": "phone numbers are not supported: use an e-mail address",
    "channel": "nothing is sent to phones: leave it out, and give an e-mail address",
}
_elsewhere: Final = {
    "provider": "other providers are not supported: use an e-mail address and a password or a code",
    "id_token": "tokens of other providers are not supported: use an e-mail address and a password or a code",
}
_public: Final = _phone | _elsewhere
_own: Final = _public | {
    "app_metadata": "only administrators set it: PUT /admin/users/{id}",
    "user_metadata": "a user's metadata is given as data",
    "role": "only administrators set it: PUT /admin/users/{id}",
    "password_hash": "only administrators set it: PUT /admin/users/{id}",
}
_by_code: Final = "give email_confirm, or confirm it by a code: the time of it can't be set"
_admin: Final = _phone | {
    "phone_confirm": "phone numbers are not supported: use email and email_confirm",
    "phone_confirmed_at": "phone numbers are not supported: use email and email_confirm",
    "email_confirmed_at": _by_code,
    "confirmed_at": _by_code,
    "confirmation_token": "tokens can't be set: POST /admin/generate_link makes one",
    "recovery_token": "tokens can't be set: POST /admin/generate_link makes one",
    "banned_until": "give ban_duration, such as 24h",
    "deleted_at": "use DELETE /admin/users/{id}, with should_soft_delete",
    "should_soft_delete": "it belongs to DELETE /admin/users/{id}",
    "data": "a user's metadata is given as user_metadata",
    "raw_user_meta_data": "a user's metadata is given as user_metadata",
    "raw_app_meta_data": "give app_metadata",
    "encrypted_password": "give password_hash",
    "identities": "identities can't be set: only the provider email is supported",
    "factors": "factors can't be set: their owner enrols them",
    "is_anonymous": "anonymous accounts are not supported",
    "is_sso_user": "single sign-on is not supported",
    "is_super_admin": "give role service_role",
}
_mailed: Final = _phone | {
    "user_metadata": "a user's metadata is given as data",
    "app_metadata": "set it by PUT /admin/users/{id}",
    "role": "set it by PUT /admin/users/{id}",
    "password_hash": "set it by PUT /admin/users/{id}",
}

UNSUPPORTED: Final[Mapping[tuple[str, str], Mapping[str, str]]] = {
    ("POST", "/signup"): _own,
    ("POST", "/token"): _public,
    ("POST", "/otp"): _public,
    ("POST", "/resend"): _public,
    ("POST", "/recover"): _public,
    ("POST", "/verify"): _phone,
    ("PUT", "/user"): _own,
    ("DELETE", "/user"): {"should_soft_delete": "for administrators only: DELETE /admin/users/{id}"},
    ("POST", "/factors"): _phone,
    ("POST", "/invite"): _mailed,
    ("POST", "/admin/generate_link"): _mailed,
    ("POST", "/admin/users"): _admin | {
        "is_active": "make the account first, then use PUT /admin/users/{id}",
        "tier": "make the account first, then use PUT /admin/users/{id}",
    },
    ("DELETE", "/admin/users/{user_id}"): dict.fromkeys(
        ("soft_delete", "softDelete", "shouldSoftDelete", "soft"), "give should_soft_delete"
    ),
    ("PUT", "/admin/users/{user_id}"): _admin | {"id": "an account's id can't be changed"},
}  # fmt: skip
"""By method and path: members, and what to do instead."""


def check(members: Mapping[str, Any], unsupported: Mapping[str, str]) -> None:
    """Raise `ValidationFailed` for a member that asks for what is not supported."""
    for name in members.keys() & unsupported.keys():
        if members[name]:
            raise ValidationFailed(name, unsupported[name])
    # Supabase's own audience is the only one.
    if members.get("aud") not in (None, "", "authenticated"):
        raise ValidationFailed("aud", "must be authenticated: there is no other audience")
