"""Rows to domain objects."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from services.auth.domain import (
    Factor,
    FlowState,
    Identity,
    OneTimeToken,
    Pending,
    Pkce,
    Purpose,
    RefreshToken,
    Session,
    User,
)

Row = Any
"""An asyncpg record: values by column name."""

HALVES: Final[Mapping[Purpose, int]] = {"email_change_current": 2, "email_change_new": 3}
"""How auth.users notes which half of an e-mail change has been confirmed.

1 is the version before's "one of them": it counts as none here. That version counts any of these as one.
"""
_half: Final = {number: purpose for purpose, number in HALVES.items()}

USER_COLUMNS = """
    u.id, u.email, u.role, u.encrypted_password, u.email_confirmed_at, u.confirmation_sent_at,
    u.recovery_sent_at, u.invited_at, coalesce(u.email_change, '') AS email_change,
    u.email_change_confirm_status,
    u.email_change_sent_at, p.banned_until, p.deleted_at, now() AS read_at,
    u.raw_app_meta_data, u.raw_user_meta_data, u.created_at,
    u.updated_at, p.tier, p.is_active, p.last_login,
    u.email_confirmed_at IS NULL AND u.encrypted_password IS NOT NULL
        AND coalesce(u.password_changed_at = u.confirmation_sent_at, false)
        AND u.last_sign_in_at IS NULL AS unproved,
    (SELECT coalesce(json_agg(i ORDER BY i.created_at), '[]') FROM auth.identities i
      WHERE i.user_id = u.id) AS identities,
    (SELECT coalesce(json_agg(json_build_object(
        'id', f.id, 'friendly_name', f.friendly_name, 'factor_type', f.factor_type, 'status', f.status,
        'created_at', f.created_at, 'updated_at', f.updated_at) ORDER BY f.created_at), '[]')
       FROM auth.mfa_factors f WHERE f.user_id = u.id) AS factors
"""
"""What `user` reads, from `auth.users u JOIN public.users p`. A factor's secret is not in it.

`unproved`: only a sign-up of the version before gives a password and asks for a confirmation in one moment;
operators' passwords have a moment of their own. An account that was signed in to has been proved since.
"""


def user(row: Row) -> User:
    """From a row of `USER_COLUMNS`."""
    return User(
        id=row["id"],
        email=row["email"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        role=row["role"],
        tier=row["tier"],
        is_active=row["is_active"],
        new_email=row["email_change"],
        email_half=_half.get(row["email_change_confirm_status"]),
        email_confirmed_at=row["email_confirmed_at"],
        confirmation_sent_at=row["confirmation_sent_at"],
        recovery_sent_at=row["recovery_sent_at"],
        email_change_sent_at=row["email_change_sent_at"],
        invited_at=row["invited_at"],
        last_login=row["last_login"],
        banned_until=row["banned_until"],
        deleted_at=row["deleted_at"],
        read_at=row["read_at"],
        user_metadata=json.loads(row["raw_user_meta_data"]),
        app_metadata=json.loads(row["raw_app_meta_data"]),
        identities=tuple(_identity(found) for found in json.loads(row["identities"])),
        factors=tuple(_factor(found) for found in json.loads(row["factors"])),
        password_hash=row["encrypted_password"],
        unproved=row["unproved"],
    )


def session(row: Row) -> Session:
    """From a row of auth.sessions."""
    return Session(
        id=row["id"],
        user_id=row["user_id"],
        created_at=row["created_at"],
        aal=row["aal"],
        assurance_version=row["assurance_version"],
        amr=tuple((entry["method"], entry["timestamp"]) for entry in json.loads(row["amr"])),
        refreshed_at=row["refreshed_at"],
        not_after=row["not_after"],
        revoked_at=row["revoked_at"],
        user_agent=row["user_agent"] or "",
        ip=str(row["ip"]) if row["ip"] else "",
    )


def refresh_token(row: Row) -> RefreshToken:
    """From a row of auth.refresh_tokens."""
    return RefreshToken(row["id"], row["session_id"], row["used_at"], row["revoked_at"])


def one_time_token(row: Row) -> OneTimeToken:
    """From a row of auth.one_time_tokens."""
    return OneTimeToken(
        id=row["id"],
        user_id=row["user_id"],
        purpose=row["purpose"],
        email=row["email"],
        code_hash=row["code_hash"],
        attempts=row["attempts"],
        expires_at=row["expires_at"],
        used_at=row["used_at"],
        redirect_to=row["redirect_to"] or "",
        flow_state_id=row["flow_state_id"],
        pending=_pending(row),
        known_attempts=row["known_attempts"],
    )


def flow_state(row: Row) -> FlowState:
    """From a row of auth.flow_state."""
    return FlowState(
        id=row["id"],
        user_id=row["user_id"],
        pkce=Pkce(row["code_challenge"], row["code_challenge_method"]),
        method=row["authentication_method"],
        expires_at=row["expires_at"],
        used_at=row["used_at"],
    )


def _pending(row: Row) -> Pending | None:
    if row["pending_of"] is None:
        return None
    return Pending(
        password_hash=row["pending_password"],
        metadata=json.loads(row["pending_metadata"] or "{}"),
        # The version before replaces a code, and leaves what was pending with the code before.
        contested=row["contested"] or row["pending_of"] != row["id"],
    )


def _identity(found: dict[str, Any]) -> Identity:
    last = found["last_sign_in_at"]
    return Identity(
        id=UUID(found["id"]),
        provider=found["provider"],
        provider_id=found["provider_id"],
        identity_data=found["identity_data"],
        created_at=datetime.fromisoformat(found["created_at"]),
        updated_at=datetime.fromisoformat(found["updated_at"]),
        last_sign_in_at=datetime.fromisoformat(last) if last else None,
    )


def _factor(found: dict[str, Any]) -> Factor:
    return Factor(
        id=UUID(found["id"]),
        friendly_name=found["friendly_name"],
        factor_type=found["factor_type"],
        status=found["status"],
        created_at=datetime.fromisoformat(found["created_at"]),
        updated_at=datetime.fromisoformat(found["updated_at"]),
    )
