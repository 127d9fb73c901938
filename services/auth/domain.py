"""Accounts as plain data, and the rules that need nothing else.

Nothing here shows an address, a hash or a secret in its `repr`, so every object may be logged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Literal
from uuid import UUID

from services.auth.errors import EmailNotConfirmed, UserBanned, UserDeleted, ValidationFailed

Json = dict[str, Any]
Aal = Literal["aal1", "aal2"]
Purpose = Literal[
    "signup",
    "magiclink",
    "recovery",
    "invite",
    "email_change_current",
    "email_change_new",
    "reauthentication",
]
OtpType = Literal["signup", "magiclink", "email", "recovery", "email_change", "invite"]
SignOutScope = Literal["global", "local", "others"]
AccountState = Literal["active", "unconfirmed", "deactivated", "banned", "deleted"]

PURPOSES: Final[Mapping[OtpType, tuple[Purpose, ...]]] = {
    "signup": ("signup",),
    "magiclink": ("magiclink",),
    # Clients say `email` for whatever six digits a sign-in mail showed.
    "email": ("magiclink", "signup"),
    "recovery": ("recovery",),
    "email_change": ("email_change_current", "email_change_new"),
    "invite": ("invite",),
}
"""Which codes each type of verification takes."""

MAX_TRIES: Final = 5
"""Wrong tries after which a code's digits are dead."""
CHANGE_PURPOSES: Final[tuple[Purpose, ...]] = ("email_change_current", "email_change_new")
"""The two halves of an e-mail change."""
REMEMBERED_DAYS: Final = 90
"""For which an account knows an address, a device or a program that it was not signed in from again."""
METADATA_LIMIT: Final = 16 * 1024
"""Bytes of a user's metadata as JSON."""


@dataclass(slots=True)
class Device:
    """What a browser keeps to be known again: the proof that it showed, and one that it is given now."""

    shown: str = field(default="", repr=False)
    given: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Client:
    """Where a call comes from, for limits, sessions and the audit log. Empty where unknown.

    `device` is `None` for callers that keep nothing.
    """

    ip: str = ""
    user_agent: str = ""
    request_id: str = ""
    device: Device | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Identity:
    """One way in which a user can prove who they are."""

    id: UUID
    provider: str
    provider_id: str
    identity_data: Json = field(repr=False)
    created_at: datetime
    updated_at: datetime
    last_sign_in_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Factor:
    """A second factor as its owner sees it: no secret."""

    id: UUID
    friendly_name: str
    factor_type: str
    status: Literal["unverified", "verified"]
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class User:
    """An account. `password_hash` is for this service alone and leaves through no face.

    `read_at`: when this was so, by the database's clock.
    """

    id: UUID
    email: str = field(repr=False)
    created_at: datetime
    updated_at: datetime
    role: str = "authenticated"
    tier: str = "free"
    is_active: bool = True
    new_email: str = field(default="", repr=False)
    email_half: Purpose | None = None  # the half of the e-mail change that has been confirmed
    email_confirmed_at: datetime | None = None
    confirmation_sent_at: datetime | None = None
    recovery_sent_at: datetime | None = None
    email_change_sent_at: datetime | None = None
    invited_at: datetime | None = None
    last_login: datetime | None = None
    banned_until: datetime | None = None
    deleted_at: datetime | None = None
    read_at: datetime | None = None
    user_metadata: Json = field(default_factory=dict, repr=False)
    app_metadata: Json = field(default_factory=dict, repr=False)
    identities: tuple[Identity, ...] = field(default=(), repr=False)
    factors: tuple[Factor, ...] = ()
    password_hash: str | None = field(default=None, repr=False)
    unproved: bool = False
    """The version before wrote a sign-up's password and metadata here before the address was proved."""

    @property
    def confirmed(self) -> bool:
        """True once the address has been proved."""
        return self.email_confirmed_at is not None

    @property
    def has_factor(self) -> bool:
        """True when a proved second factor protects the account."""
        return any(factor.status == "verified" for factor in self.factors)

    def state(self, now: datetime) -> AccountState:
        """`active`, or why the account may not act; of several reasons the one that lasts longest.

        The same rule as the function `account_state` of the database, which API keys are held to.
        """
        if self.deleted_at is not None:
            return "deleted"
        if not self.is_active:
            return "deactivated"
        if self.banned_until is not None and self.banned_until > now:
            return "banned"
        return "active" if self.confirmed else "unconfirmed"

    @property
    def state_read(self) -> AccountState:
        """The state when it was read: what answers show."""
        return self.state(self.read_at or self.updated_at)

    def may_act(self, now: datetime) -> bool:
        """Whether any credential of the account may be used, its password and its codes among them."""
        return self.state(now) == "active"

    def may_sign_in(self, now: datetime) -> bool:
        """Whether it may act now, or once it proves its address."""
        return self.state(now) in ("active", "unconfirmed")

    def require_sign_in(self, now: datetime) -> None:
        """Raise `UserBanned` or `UserDeleted` unless `may_sign_in`. Only who proved a secret is told why."""
        match self.state(now):
            case "deleted":
                raise UserDeleted
            case "deactivated":
                raise UserBanned
            case "banned":
                raise UserBanned(until=self.banned_until)

    def require_active(self, now: datetime) -> None:
        """Raise as `require_sign_in`, or `EmailNotConfirmed`, unless `may_act`."""
        self.require_sign_in(now)
        if not self.confirmed:
            raise EmailNotConfirmed


@dataclass(frozen=True, slots=True)
class Session:
    """A login, as stored."""

    id: UUID
    user_id: UUID
    created_at: datetime
    aal: Aal = "aal1"
    assurance_version: int = 0
    amr: tuple[tuple[str, int], ...] = ()  # method, epoch seconds; the newest first
    refreshed_at: datetime | None = None
    not_after: datetime | None = None
    revoked_at: datetime | None = None
    user_agent: str = ""
    ip: str = field(default="", repr=False)

    def ended(self, now: datetime, inactivity: timedelta) -> bool:
        """True when it may not be refreshed any more."""
        last = self.refreshed_at or self.created_at
        over = self.not_after is not None and self.not_after <= now
        return self.revoked_at is not None or over or last + inactivity <= now


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """One link of a session's chain of refresh tokens, as stored."""

    id: UUID
    session_id: UUID
    used_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class Issued:
    """What a sign-in gives. Times are epoch seconds and seconds."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_at: int
    expires_in: int
    user: User
    session: Session


@dataclass(frozen=True, slots=True)
class Pending:
    """What a party that has not proved the address wants of the account; kept with the code mailed for it.

    `contested`: several parties have signed up, so the code does not tell whose sign-up its reader wants.
    """

    password_hash: str | None = field(default=None, repr=False)
    metadata: Json = field(default_factory=dict, repr=False)
    contested: bool = False


@dataclass(frozen=True, slots=True)
class OneTimeToken:
    """A mailed code and link, as stored: hashes only."""

    id: UUID
    user_id: UUID
    purpose: Purpose
    email: str = field(repr=False)
    code_hash: str = field(repr=False)
    attempts: int
    expires_at: datetime
    used_at: datetime | None
    redirect_to: str = ""
    flow_state_id: UUID | None = None
    pending: Pending | None = None
    known_attempts: int = 0

    def live(self, now: datetime) -> bool:
        """True while its link can still be redeemed."""
        return self.used_at is None and self.expires_at > now

    def takes_digits(self, now: datetime, *, known: bool = False) -> bool:
        """True while its digits can still be redeemed. Wrong tries count against the digits alone; those of
        strangers (`attempts`) and of clients that the account knows are counted apart.
        """
        return self.live(now) and (self.known_attempts if known else self.attempts) < MAX_TRIES


@dataclass(frozen=True, slots=True)
class Pkce:
    """What binds a mailed link to the client that asked for it (RFC 7636)."""

    challenge: str
    method: Literal["s256", "plain"]


@dataclass(frozen=True, slots=True)
class FlowState:
    """A PKCE flow, as stored."""

    id: UUID
    user_id: UUID
    pkce: Pkce
    method: str
    expires_at: datetime
    used_at: datetime | None


@dataclass(frozen=True, slots=True)
class NewCode:
    """What is kept of a code that is about to be mailed."""

    id: UUID
    user_id: UUID
    purpose: Purpose
    email: str = field(repr=False)
    code_hash: str = field(repr=False)
    link_hash: str | None = field(repr=False)
    redirect_to: str
    flow_state_id: UUID | None
    created_at: datetime
    expires_at: datetime
    pending: Pending | None = None


def pkce(challenge: str, method: str) -> Pkce | None:
    """The PKCE binding, `None` when no challenge was given. Raises `ValidationFailed`."""
    if not challenge:
        return None
    wanted = (method or "s256").lower()
    if not re.fullmatch(r"[A-Za-z0-9._~-]{43,128}", challenge):
        raise ValidationFailed("code_challenge", "must have 43 to 128 characters of A-Z a-z 0-9 - . _ ~")
    if wanted == "s256":
        return Pkce(challenge, "s256")
    if wanted == "plain":
        return Pkce(challenge, "plain")
    raise ValidationFailed("code_challenge_method", "must be s256 or plain")


_units: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def duration(text: str, name: str) -> timedelta | None:
    """Such as `24h` or `1h30m`; `None` for `none` and for nothing. Raises `ValidationFailed`."""
    if text in ("", "none"):
        return None
    if not re.fullmatch(r"(?:\d{1,9}(?:\.\d{1,9})?[smhd]){1,4}", text):
        raise ValidationFailed(name, "must be a duration such as 24h, or none")
    parts = re.findall(r"([\d.]+)([smhd])", text)
    seconds = sum(float(amount) * _units[unit] for amount, unit in parts)
    return timedelta(seconds=min(seconds, 100 * 366 * 86400.0))


def merged(old: Json, change: Mapping[str, Any]) -> Json:
    """Metadata with a change laid over it: a null removes a member, all else replaces one."""
    together = {**old, **change}
    return {name: value for name, value in together.items() if value is not None}


def identity_data(user_id: UUID, email: str, *, verified: bool) -> Json:
    """What an e-mail identity tells of its user."""
    return {"sub": str(user_id), "email": email, "email_verified": verified, "phone_verified": False}
