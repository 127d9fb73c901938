"""What an API key is, what may be asked of one, and when one holds. Pure types and rules."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Literal
from uuid import UUID

from servicekit.errors import FieldViolation
from servicekit.principal import ALL_SCOPES, DEFAULT_KEY_SCOPES, KEYS_MANAGE
from servicekit.texts import checked_name as checked_text
from services.keys import metadata as notes
from services.keys.errors import (
    KeyIsExpired,
    KeyIsRevoked,
    KeyIsRotated,
    ScopeMissing,
    ValidationFailed,
)
from services.keys.networks import Network, parse

Mode = Literal["live", "test"]

NAME_LENGTH: Final = 100
MAX_NETWORKS: Final = 32
MAX_GRACE: Final = timedelta(days=30)
DEFAULT_GRACE: Final = timedelta(days=1)
TOKEN_TTL: Final = timedelta(minutes=5)
TOKEN_TTL_MAX: Final = timedelta(hours=1)


class Status(StrEnum):
    """What a key is worth now."""

    ACTIVE = "active"
    REVOKED = "revoked"
    EXPIRED = "expired"
    ROTATING = "rotating"


@dataclass(frozen=True, slots=True)
class Key:
    """A key as its owner sees it: everything but the secret. `masked` tells it from others."""

    id: UUID
    user_id: UUID
    name: str
    mode: Mode
    masked: str
    scopes: tuple[str, ...]
    created_at: datetime
    updated_at: datetime
    last_used: datetime | None = None
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    allowed_cidrs: tuple[str, ...] = ()
    daily_limit: int | None = None
    per_minute: int | None = None
    rotated_from: UUID | None = None
    engine: str = ""
    grace_until: datetime | None = None
    metadata: notes.Pairs = ()
    external_id: str = ""

    @property
    def ends_at(self) -> datetime | None:
        """When it stops to work: its own end or, once it has a successor, that of the grace period."""
        ends = [end for end in (self.expires_at, self.grace_until) if end is not None]
        return min(ends, default=None)

    def status(self, now: datetime) -> Status:
        """Revoked beats expired beats rotating."""
        if self.revoked_at is not None:
            return Status.REVOKED
        ends_at = self.ends_at
        if ends_at is not None and ends_at <= now:
            return Status.EXPIRED
        return Status.ACTIVE if self.grace_until is None else Status.ROTATING

    def require_changeable(self) -> None:
        """Raise `KeyIsRevoked` for a key that was revoked."""
        if self.revoked_at is not None:
            raise KeyIsRevoked

    def require_unexpired(self, now: datetime) -> None:
        """Raise `KeyIsExpired` for a key whose time is over: no other end brings it back."""
        if self.status(now) is Status.EXPIRED:
            raise KeyIsExpired

    def require_rotatable(self, now: datetime) -> None:
        """Raise `KeyIsRevoked`, `KeyIsExpired` or `KeyIsRotated` unless a successor may be made."""
        match self.status(now):
            case Status.REVOKED:
                raise KeyIsRevoked
            case Status.EXPIRED:
                raise KeyIsExpired
            case Status.ROTATING:
                raise KeyIsRotated
            case Status.ACTIVE:
                return


@dataclass(frozen=True, slots=True)
class PlanLimits:
    """What the user's plan allows; a key's own limits are at most that."""

    daily_limit: int
    per_minute: int


@dataclass(frozen=True, slots=True)
class Draft:
    """The members of a key that its owner chooses. No mode: live, or that of the key that makes it."""

    name: str
    scopes: tuple[str, ...] = ()
    mode: Mode | None = None
    expires_at: datetime | None = None
    allowed_cidrs: tuple[str, ...] = ()
    daily_limit: int | None = None
    per_minute: int | None = None
    engine: str = ""
    metadata: notes.Pairs = ()
    external_id: str = ""

    def checked(self, now: datetime, plan: PlanLimits, engines: Collection[str]) -> Draft:
        """The draft in canonical form. Raises `ValidationFailed` naming all that is wrong."""
        problems: list[FieldViolation] = []
        networks = canonical_networks(self.allowed_cidrs, problems)
        checked = replace(
            self,
            name=checked_name(self.name, problems),
            scopes=checked_scopes(self.scopes or sorted(DEFAULT_KEY_SCOPES), problems),
            mode=self.mode or "live",
            allowed_cidrs=networks,
            metadata=notes.checked_metadata(self.metadata, problems),
        )
        notes.check_external_id(self.external_id, problems)
        check_expiry(self.expires_at, now, problems)
        check_limit("daily_limit", self.daily_limit, plan.daily_limit, problems)
        check_limit("per_minute", self.per_minute, plan.per_minute, problems)
        check_engine(self.engine, engines, problems)
        if problems:
            raise ValidationFailed(problems)
        return checked


@dataclass(frozen=True, slots=True)
class Changes:
    """Members to change; `None` leaves one as it is. A limit of 0 and an empty engine or external id take it
    away. Of metadata, named pairs are set, and those with an empty value are taken away.
    """

    name: str | None = None
    scopes: tuple[str, ...] | None = None
    expires_at: datetime | None = None
    clear_expires_at: bool = False
    allowed_cidrs: tuple[str, ...] | None = None
    daily_limit: int | None = None
    per_minute: int | None = None
    engine: str | None = None
    metadata: notes.Pairs = ()
    external_id: str | None = None

    def applied(self, key: Key, now: datetime, plan: PlanLimits, engines: Collection[str]) -> Key:
        """The key with the changes made. Raises `KeyIsRevoked`, `KeyIsExpired` or `ValidationFailed`."""
        self._require_state(key, now)
        problems: list[FieldViolation] = []
        new: dict[str, Any] = {}
        if self.name is not None:
            new["name"] = checked_name(self.name, problems)
        if self.scopes is not None:
            new["scopes"] = checked_scopes(self.scopes, problems)
        if self.allowed_cidrs is not None:
            new["allowed_cidrs"] = canonical_networks(self.allowed_cidrs, problems)
        if self.clear_expires_at and self.expires_at is not None:
            problems.append(FieldViolation("clear_expires_at", "not together with expires_at"))
        if self.clear_expires_at or self.expires_at is not None:
            check_expiry(self.expires_at, now, problems)
            new["expires_at"] = self.expires_at
        if self.daily_limit is not None:
            new["daily_limit"] = self.daily_limit or None
            check_limit("daily_limit", new["daily_limit"], plan.daily_limit, problems)
        if self.per_minute is not None:
            new["per_minute"] = self.per_minute or None
            check_limit("per_minute", new["per_minute"], plan.per_minute, problems)
        if self.engine is not None:
            check_engine(self.engine, engines, problems)
            new["engine"] = self.engine
        if self.metadata:
            new["metadata"] = notes.merged_metadata(key.metadata, self.metadata, problems)
        if self.external_id is not None:
            notes.check_external_id(self.external_id, problems)
            new["external_id"] = self.external_id
        if problems:
            raise ValidationFailed(problems)
        return replace(key, **new)

    def _require_state(self, key: Key, now: datetime) -> None:
        key.require_changeable()
        if self.clear_expires_at or self.expires_at is not None:
            key.require_unexpired(now)


def checked_name(name: str, problems: list[FieldViolation]) -> str:
    """The name in canonical form."""
    try:
        return checked_text(name, NAME_LENGTH)
    except ValueError as error:
        problems.append(FieldViolation("name", str(error)))
        return name


def checked_scopes(scopes: Iterable[str], problems: list[FieldViolation]) -> tuple[str, ...]:
    """The scopes, sorted, each once."""
    found = sorted(set(scopes))
    if not found:
        problems.append(FieldViolation("scopes", "must name at least one"))
    elif not ALL_SCOPES.issuperset(found):
        problems.append(FieldViolation("scopes", f"known scopes are {', '.join(sorted(ALL_SCOPES))}"))
    return tuple(found)


def canonical_networks(cidrs: Sequence[str], problems: list[FieldViolation]) -> tuple[str, ...]:
    """The networks in canonical form, each once; a bare address is a network of one."""
    if len(cidrs) > MAX_NETWORKS:
        problems.append(FieldViolation("allowed_cidrs", f"at most {MAX_NETWORKS} networks"))
        return ()
    found: dict[str, None] = {}
    for index, cidr in enumerate(cidrs):
        try:
            found[str(parse(cidr))] = None
        except ValueError as error:
            problems.append(FieldViolation(f"allowed_cidrs[{index}]", str(error)))
    return tuple(found)


def check_expiry(expires_at: datetime | None, now: datetime, problems: list[FieldViolation]) -> None:
    if expires_at is not None and expires_at <= now:
        problems.append(FieldViolation("expires_at", "must lie ahead"))


def check_limit(name: str, limit: int | None, highest: int, problems: list[FieldViolation]) -> None:
    if limit is not None and not 1 <= limit <= highest:
        problems.append(FieldViolation(name, f"must be from 1 to the plan's {highest}"))


def check_engine(engine: str, engines: Collection[str], problems: list[FieldViolation]) -> None:
    if engine and engine not in engines:
        problems.append(FieldViolation("engine", f"enabled engines are {', '.join(sorted(engines))}"))


def require_giveable(holder: Collection[str], given: Iterable[str]) -> None:
    """Raise `ScopeMissing` unless the holder has every scope that is to be given."""
    missing = set(given).difference(holder)
    if missing:
        raise ScopeMissing.of(missing)


def token_scopes(key_scopes: Collection[str], wished: Collection[str]) -> tuple[str, ...]:
    """The scopes of a token to mint. With no wish: the key's, but never those that manage keys."""
    require_giveable(key_scopes, wished)
    return tuple(sorted(set(wished) or set(key_scopes) - {KEYS_MANAGE}))


def token_ttl(wished: timedelta | None) -> timedelta:
    """How long a token to mint shall live. Raises `ValidationFailed`."""
    ttl = TOKEN_TTL if wished is None else wished
    if not timedelta(seconds=1) <= ttl <= TOKEN_TTL_MAX:
        raise ValidationFailed([FieldViolation("ttl", "must be from one second to an hour")])
    return ttl


def grace_period(wished: timedelta | None) -> timedelta:
    """How long a rotated key works on. Raises `ValidationFailed`."""
    grace = DEFAULT_GRACE if wished is None else wished
    if not timedelta(0) <= grace <= MAX_GRACE:
        raise ValidationFailed([FieldViolation("grace_period", "must be from 0 to 30 days")])
    return grace


@dataclass(frozen=True, slots=True)
class Event:
    """One thing done to a key."""

    id: UUID
    action: str
    created_at: datetime
    actor_kind: str
    actor_id: UUID | None
    changes: str
    request_id: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """Where a page ends: the last item's time and id. Lists run newest first."""

    at: datetime
    id: UUID


@dataclass(frozen=True, slots=True, eq=False)
class Validated:
    """A credential that holds. The same record gives the same object until the record changes, so
    what is derived of it may be kept by identity. `expires_at` is epoch seconds.
    """

    key_id: str
    user_id: str
    tier: str
    scopes: tuple[str, ...]
    daily_limit: int = 0
    per_minute: int = 0
    engine: str = ""
    expires_at: float | None = None
    derived: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """A credential that does not hold, and why. Ids only where the secret was proven."""

    reason: str
    message: str
    user_id: str = ""
    key_id: str = ""


MALFORMED: Final = Refused("KEY_MALFORMED", "That is not an API key. Check that it was copied whole.")
UNKNOWN: Final = Refused("KEY_UNKNOWN", "There is no such API key.")
UNAVAILABLE: Final = Refused("KEYS_UNAVAILABLE", "This API key can't be checked right now. Try again.")
TOKEN_EXPIRED: Final = Refused("KEY_EXPIRED", "This token has expired.")


@dataclass(frozen=True, slots=True)
class Record:
    """What is kept in memory to validate a key with. Holds its keyed hash, never the key."""

    key_id: UUID
    user_id: UUID
    digest: bytes = field(repr=False)
    pepper_version: int
    revoked: bool
    user_active: bool
    """Whether the account may act; if not, `user_state` says why, in the words of `public.account_state`."""
    tier: str
    scopes: tuple[str, ...]
    expires_at: float | None = None
    networks: tuple[Network, ...] = ()
    daily_limit: int = 0
    per_minute: int = 0
    engine: str = ""
    user_state: str = ""
    banned_until: float | None = None
