"""Domain to protobuf, and back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from services.auth import domain
from services.auth.domain import AccountState, Issued, OtpType, SignOutScope, User
from services.auth.errors import ValidationFailed
from services.auth.second_factors import PasskeyAnswer
from services.auth.tokens import app_metadata
from signgate.auth.v1 import auth_pb2, user_pb2

OTP_TYPES: Final[Mapping[int, OtpType]] = {
    auth_pb2.OTP_TYPE_SIGNUP: "signup",
    auth_pb2.OTP_TYPE_MAGICLINK: "magiclink",
    auth_pb2.OTP_TYPE_EMAIL: "email",
    auth_pb2.OTP_TYPE_RECOVERY: "recovery",
    auth_pb2.OTP_TYPE_EMAIL_CHANGE: "email_change",
    auth_pb2.OTP_TYPE_INVITE: "invite",
}
SCOPES: Final[Mapping[int, SignOutScope]] = {
    auth_pb2.SIGN_OUT_SCOPE_UNSPECIFIED: "global",
    auth_pb2.SIGN_OUT_SCOPE_GLOBAL: "global",
    auth_pb2.SIGN_OUT_SCOPE_LOCAL: "local",
    auth_pb2.SIGN_OUT_SCOPE_OTHERS: "others",
}
STATES: Final[Mapping[AccountState, user_pb2.UserState.ValueType]] = {
    "active": user_pb2.USER_STATE_ACTIVE,
    "unconfirmed": user_pb2.USER_STATE_UNCONFIRMED,
    "deactivated": user_pb2.USER_STATE_DEACTIVATED,
    "banned": user_pb2.USER_STATE_BANNED,
    "deleted": user_pb2.USER_STATE_DELETED,
}
STATUS: Final = {
    "unverified": user_pb2.FACTOR_STATUS_UNVERIFIED,
    "verified": user_pb2.FACTOR_STATUS_VERIFIED,
}

CEREMONIES: Final = {
    None: auth_pb2.CEREMONY_UNSPECIFIED,
    "create": auth_pb2.CEREMONY_CREATE,
    "request": auth_pb2.CEREMONY_REQUEST,
}


def otp_type(number: int) -> OtpType:
    """Raises `ValidationFailed` for none and for one this version does not know."""
    if number not in OTP_TYPES:
        raise ValidationFailed("type", "say what the code is for")
    return OTP_TYPES[number]


def scope(number: int) -> SignOutScope:
    """Raises `ValidationFailed` for one this version does not know."""
    if number not in SCOPES:
        raise ValidationFailed("scope", "must be global, local or others")
    return SCOPES[number]


def state(number: int) -> AccountState | None:
    """`None` for none. Raises `ValidationFailed` for one this version does not know."""
    if number == user_pb2.USER_STATE_UNSPECIFIED:
        return None
    for name, known in STATES.items():
        if known == number:
            return name
    raise ValidationFailed("state", "must be a state of an account")


def uuid(text: str, name: str) -> UUID:
    """Raises `ValidationFailed`."""
    try:
        return UUID(text)
    except ValueError:
        raise ValidationFailed(name, "must be a UUID") from None


def passkey(given: auth_pb2.PasskeyResponse) -> PasskeyAnswer:
    """What the browser gave; an unknown ceremony is "", which no factor waits for."""
    names = {number: name or "" for name, number in CEREMONIES.items()}
    return PasskeyAnswer(
        ceremony=names.get(given.ceremony, ""),
        credential_id=given.credential_id,
        client_data=given.client_data,
        attestation=given.attestation_object,
        authenticator_data=given.authenticator_data,
        signature=given.signature,
        user_handle=given.user_handle,
        transports=tuple(given.transports),
        rp_id=given.relying_party.rp_id,
        origins=tuple(given.relying_party.origins),
    )


def struct(message: Any, name: str) -> dict[str, Any] | None:
    """A Struct member as a dictionary, `None` when it is absent. Whole numbers come out as integers."""
    if not message.HasField(name):
        return None
    found = _whole(MessageToDict(getattr(message, name)))
    if not isinstance(found, dict):
        raise ValidationFailed(name, "must be an object")
    return found


def pkce(message: Any) -> domain.Pkce | None:
    """The PKCE binding. Raises `ValidationFailed`."""
    if not message.HasField("pkce"):
        return None
    return domain.pkce(message.pkce.code_challenge, message.pkce.code_challenge_method)


def stamp(moment: datetime | int | None) -> Timestamp | None:
    """A moment, or epoch seconds; absent stays absent."""
    if moment is None:
        return None
    if isinstance(moment, int):
        return Timestamp(seconds=moment)
    found = Timestamp()
    found.FromDatetime(moment.astimezone(UTC))
    return found


def user(found: User) -> user_pb2.User:
    """As its owner sees it."""
    return user_pb2.User(
        id=str(found.id),
        email=found.email,
        new_email=found.new_email,
        role=found.role,
        tier=found.tier,
        is_active=found.is_active,
        created_at=stamp(found.created_at),
        updated_at=stamp(found.updated_at),
        email_confirmed_at=stamp(found.email_confirmed_at),
        last_login=stamp(found.last_login),
        banned_until=stamp(found.banned_until),
        user_metadata=_struct(found.user_metadata),
        app_metadata=_struct(app_metadata(found)),
        identities=[
            user_pb2.Identity(
                id=str(identity.id),
                provider=identity.provider,
                provider_id=identity.provider_id,
                identity_data=_struct(identity.identity_data),
                created_at=stamp(identity.created_at),
                last_sign_in_at=stamp(identity.last_sign_in_at),
                updated_at=stamp(identity.updated_at),
            )
            for identity in found.identities
        ],
        factors=[factor(each) for each in found.factors],
        invited_at=stamp(found.invited_at),
        state=STATES[found.state_read],
        deleted_at=stamp(found.deleted_at),
    )


def factor(found: domain.Factor) -> user_pb2.Factor:
    """Without its secret."""
    return user_pb2.Factor(
        id=str(found.id),
        friendly_name=found.friendly_name,
        factor_type=found.factor_type,
        status=STATUS[found.status],
        created_at=stamp(found.created_at),
        updated_at=stamp(found.updated_at),
    )


def session(issued: Issued | None) -> user_pb2.Session | None:
    """With both tokens; absent stays absent."""
    if issued is None:
        return None
    return user_pb2.Session(
        access_token=issued.access_token,
        token_type="bearer",  # noqa: S106  # RFC 6750's word
        expires_in=issued.expires_in,
        expires_at=stamp(issued.expires_at),
        refresh_token=issued.refresh_token,
        user=user(issued.user),
    )


def session_info(found: domain.Session, current: UUID | None) -> user_pb2.SessionInfo:
    """Without any secret."""
    return user_pb2.SessionInfo(
        id=str(found.id),
        created_at=stamp(found.created_at),
        refreshed_at=stamp(found.refreshed_at),
        user_agent=found.user_agent,
        ip=found.ip,
        aal=found.aal,
        current=found.id == current,
    )


def _struct(value: dict[str, Any]) -> Struct:
    return ParseDict(value, Struct())


def _whole(value: Any) -> Any:
    """Struct knows only floating numbers; JSON from elsewhere says 1, not 1.0."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, dict):
        return {name: _whole(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_whole(each) for each in value]
    return value
