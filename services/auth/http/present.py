"""The domain as Supabase's JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from services.auth.domain import Factor, Identity, Issued, Session, User
from services.auth.service import Redeemed
from services.auth.service.admin import Link
from services.auth.tokens import app_metadata

Json = dict[str, Any]


def moment(at: datetime | None) -> str | None:
    """RFC 3339 in UTC."""
    return None if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def user(found: User) -> Json:
    """An account as its owner and administrators see it."""
    return {
        "id": str(found.id),
        "aud": "authenticated",
        "role": found.role,
        "email": found.email,
        "phone": "",
        "email_confirmed_at": moment(found.email_confirmed_at),
        "confirmed_at": moment(found.email_confirmed_at),
        "confirmation_sent_at": moment(found.confirmation_sent_at),
        "recovery_sent_at": moment(found.recovery_sent_at),
        "email_change_sent_at": moment(found.email_change_sent_at),
        "new_email": found.new_email or None,
        "invited_at": moment(found.invited_at),
        "last_sign_in_at": moment(found.last_login),
        "banned_until": moment(found.banned_until),
        "deleted_at": moment(found.deleted_at),
        "state": found.state_read,
        "app_metadata": app_metadata(found),
        "user_metadata": found.user_metadata,
        "identities": [_identity(found, identity) for identity in found.identities],
        "factors": [factor(each) for each in found.factors],
        "created_at": moment(found.created_at),
        "updated_at": moment(found.updated_at),
        "is_anonymous": False,
    }


def factor(found: Factor) -> Json:
    """Without its secret."""
    return {
        "id": str(found.id),
        "friendly_name": found.friendly_name,
        "factor_type": found.factor_type,
        "status": found.status,
        "created_at": moment(found.created_at),
        "updated_at": moment(found.updated_at),
    }


def session(issued: Issued) -> Json:
    """With both tokens."""
    return {
        "access_token": issued.access_token,
        "token_type": "bearer",
        "expires_in": issued.expires_in,
        "expires_at": issued.expires_at,
        "refresh_token": issued.refresh_token,
        "user": user(issued.user),
    }


def redeemed(done: Redeemed) -> Json:
    """The session; the bare account while an e-mail change waits for the other address."""
    return user(done.user) if done.issued is None else session(done.issued)


def session_info(found: Session, current: object) -> Json:
    """One session in a list."""
    return {
        "id": str(found.id),
        "created_at": moment(found.created_at),
        "refreshed_at": moment(found.refreshed_at),
        "user_agent": found.user_agent,
        "ip": found.ip,
        "aal": found.aal,
        "current": found.id == current,
    }


def link(made: Link, kind: str) -> Json:
    """An account with the parts of a mail."""
    return {
        **user(made.user),
        "action_link": made.action_link,
        "email_otp": made.code,
        "hashed_token": made.token,
        "redirect_to": made.redirect_to,
        "verification_type": kind,
    }


def _identity(owner: User, found: Identity) -> Json:
    return {
        "identity_id": str(found.id),
        "id": found.provider_id,
        "user_id": str(owner.id),
        "identity_data": found.identity_data,
        "provider": found.provider,
        "email": found.identity_data.get("email"),
        "last_sign_in_at": moment(found.last_sign_in_at),
        "created_at": moment(found.created_at),
        "updated_at": moment(found.updated_at),
    }
