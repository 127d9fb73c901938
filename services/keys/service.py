"""What may be done to API keys, for their owner. Row level security stands behind every step.

Each change is one transaction, whose trigger writes the audit trail; once it has committed, the
record is dropped here and everywhere (`Invalidator`), which is what makes a revocation count at
once. Should that message be lost, the records' soft age bounds the delay.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, Protocol
from uuid import UUID

from servicekit import apikey, context
from servicekit.clock import Clock, Entropy, Ids
from servicekit.errors import PermissionDenied
from servicekit.principal import Principal
from services.keys import paging
from services.keys.derived import DerivedTokens
from services.keys.domain import (
    Changes,
    Draft,
    Event,
    Key,
    Mode,
    Page,
    PlanLimits,
    grace_period,
    require_giveable,
    token_scopes,
    token_ttl,
)
from services.keys.errors import KeyNotFound
from services.keys.peppers import Peppers


@dataclass(frozen=True, slots=True)
class Hashed:
    """What is stored of a new key's secret: its keyed hash, and its two ends for showing."""

    id: UUID
    key_hash: bytes
    pepper_version: int
    prefix: str
    last4: str


class Unit(Protocol):
    """One transaction as one user, who sees and changes only what is their own."""

    async def plan(self) -> PlanLimits:
        """What a key's own limits may be at most."""
        ...

    async def get(self, key_id: UUID, *, for_change: bool = False) -> Key | None:
        """A key of the user's, locked until the end when it shall be changed."""
        ...

    async def list(self, after: Page | None, size: int, working_at: datetime | None) -> Sequence[Key]:
        """Keys, newest first; with `working_at` only those that work at that moment."""
        ...

    async def create(self, hashed: Hashed, draft: Draft, key_limit: int) -> Key:
        """A new key; also raises the user's tier. Raises `KeyLimit`, exactly, however many run at once."""
        ...

    async def rotate(self, old: UUID, hashed: Hashed, grace_until: datetime) -> Key:
        """A successor with the old key's members; the old one ends at `grace_until`."""
        ...

    async def save(self, key: Key) -> Key:
        """Write the members that an owner may change."""
        ...

    async def revoke(self, key_id: UUID) -> Key:
        """End a key that has not ended yet."""
        ...

    async def events(self, key_id: UUID, after: Page | None, size: int) -> Sequence[Event]:
        """A key's history, newest first."""
        ...


class Units(Protocol):
    """Where transactions come from."""

    def as_user(self, principal: Principal) -> AbstractAsyncContextManager[Unit]:
        """Commits at the end, rolls back on any exception. Raises `Unavailable`."""
        ...


class Invalidator(Protocol):
    """Tells everyone that a key changed."""

    async def invalidate(self, key_id: UUID) -> None:
        """Drop the record here at once, elsewhere as soon as the message arrives. Never raises."""
        ...


class Notices(Protocol):
    """Tells owners what happened to their keys."""

    def key_changed(
        self,
        kind: Literal["created", "rotated", "revoked"],
        user_id: UUID,
        keys: Sequence[Key],
        client_ip: str,
    ) -> None:
        """Have it mailed. Returns at once, and never raises."""
        ...


@dataclass(frozen=True, slots=True)
class Made:
    """A new key and its secret, which is nowhere else."""

    key: Key
    secret: str

    def __repr__(self) -> str:
        return f"Made({self.key.id})"


@dataclass(frozen=True, slots=True)
class Minting:
    """All that a new secret is made with."""

    peppers: Peppers
    tokens: DerivedTokens
    clock: Clock
    ids: Ids
    entropy: Entropy

    def key(self, mode: Mode) -> tuple[Hashed, str]:
        """A new key: what is stored of it, and the key itself."""
        key_id = self.ids.uuid7()
        secret = apikey.mint(mode, key_id, self.entropy)
        prefix, last4 = apikey.ends(secret)
        return Hashed(key_id, self.peppers.digest(secret), self.peppers.current, prefix, last4), secret


class KeysService:
    """The use cases. `key_limit`: how many working keys a user may have."""

    def __init__(
        self,
        units: Units,
        invalidator: Invalidator,
        minting: Minting,
        *,
        notices: Notices | None = None,
        engines: Collection[str],
        key_limit: int,
    ) -> None:
        self._notices = notices
        self._units = units
        self._invalidator = invalidator
        self._minting = minting
        self._clock = minting.clock
        self._engines = engines
        self._key_limit = key_limit

    async def create(self, principal: Principal, draft: Draft) -> Made:
        """A new key. Raises `ValidationFailed`, `ScopeMissing`, `KeyLimit`."""
        async with self._units.as_user(principal) as unit:
            draft = draft.checked(self._clock.now(), await unit.plan(), self._engines)
            require_giveable(principal.scopes, draft.scopes)
            hashed, secret = self._minting.key(draft.mode)
            made = Made(await unit.create(hashed, draft, self._key_limit), secret)
        self._tell("created", principal, made.key)
        return made

    async def list(
        self, principal: Principal, size: int, token: str, *, include_inactive: bool
    ) -> tuple[Sequence[Key], str]:
        """A page of keys, newest first, and the next page's token."""
        size, after = paging.page_size(size), paging.decode(token)
        working_at = None if include_inactive else self._clock.now()
        async with self._units.as_user(principal) as unit:
            keys = await unit.list(after, size + 1, working_at)
        more = len(keys) > size
        keys = keys[:size]
        return keys, paging.encode(Page(keys[-1].created_at, keys[-1].id)) if more else ""

    async def get(self, principal: Principal, key_id: UUID) -> Key:
        """One key. Raises `KeyNotFound`."""
        async with self._units.as_user(principal) as unit:
            return found(await unit.get(key_id))

    async def update(self, principal: Principal, key_id: UUID, changes: Changes) -> Key:
        """The key with its changes made. Raises `KeyNotFound`, `KeyIsRevoked`, `ValidationFailed`,
        `ScopeMissing` (for scopes that are added; any may be taken away).
        """
        async with self._units.as_user(principal) as unit:
            old = found(await unit.get(key_id, for_change=True))
            new = changes.applied(old, self._clock.now(), await unit.plan(), self._engines)
            require_giveable(principal.scopes, set(new.scopes).difference(old.scopes))
            if new == old:
                return old
            new = await unit.save(new)
        await self._invalidator.invalidate(key_id)
        return new

    async def rotate(self, principal: Principal, key_id: UUID, grace: timedelta | None) -> tuple[Made, Key]:
        """A successor, and the old key as it is now.

        Raises `KeyNotFound`, `KeyIsRevoked`, `KeyIsExpired`, `KeyIsRotated`, `ValidationFailed`, and
        `ScopeMissing` where the successor could do what the caller can't.
        """
        now = self._clock.now()
        wait = grace_period(grace)
        async with self._units.as_user(principal) as unit:
            old = found(await unit.get(key_id, for_change=True))
            old.require_rotatable(now)
            require_giveable(principal.scopes, old.scopes)
            hashed, secret = self._minting.key(old.mode)
            made = Made(await unit.rotate(key_id, hashed, now + wait), secret)
            previous = found(await unit.get(key_id))
        await self._invalidator.invalidate(key_id)
        self._tell("rotated", principal, made.key)
        return made, previous

    async def revoke(self, principal: Principal, key_id: UUID) -> Key:
        """End a key for good; one that has ended already stays as it is. Raises `KeyNotFound`."""
        async with self._units.as_user(principal) as unit:
            key = found(await unit.get(key_id, for_change=True))
            ended = key.revoked_at is None
            if ended:
                key = await unit.revoke(key_id)
        await self._invalidator.invalidate(key_id)
        if ended:
            self._tell("revoked", principal, key)
        return key

    def _tell(self, kind: Literal["created", "rotated", "revoked"], principal: Principal, key: Key) -> None:
        if self._notices is not None:
            self._notices.key_changed(kind, principal.user_id, [key], context.client_ip())

    async def revoke_self(self, principal: Principal) -> Key:
        """Revoke the key that was presented, or the one that minted the token that was."""
        return await self.revoke(principal, presented_key(principal))

    async def mint_token(
        self, principal: Principal, scopes: Sequence[str], ttl: timedelta | None
    ) -> tuple[str, datetime, Sequence[str]]:
        """A token of the presented key, its end and its scopes. Reads no database.

        Raises `ScopeMissing`, `ValidationFailed`. The caller has made sure that the credential is
        the key itself and not a token.
        """
        given = token_scopes(principal.scopes, scopes)
        # To the millisecond, which a JWT may have: whole seconds would cut a short life by up to one.
        end = round(self._clock.time() + token_ttl(ttl).total_seconds(), 3)
        key_id = presented_key(principal)
        token = self._minting.tokens.mint(key_id, given, end, self._minting.ids.uuid7())
        return token, datetime.fromtimestamp(end, UTC), given

    async def events(
        self, principal: Principal, key_id: UUID, size: int, token: str
    ) -> tuple[Sequence[Event], str]:
        """A page of a key's history, newest first, and the next page's token. Raises `KeyNotFound`."""
        size, after = paging.page_size(size), paging.decode(token)
        async with self._units.as_user(principal) as unit:
            found(await unit.get(key_id))
            events = await unit.events(key_id, after, size + 1)
        more = len(events) > size
        events = events[:size]
        return events, paging.encode(Page(events[-1].created_at, events[-1].id)) if more else ""


def found(key: Key | None) -> Key:
    """The key. Raises `KeyNotFound` when there is none that the user may see."""
    if key is None:
        raise KeyNotFound
    return key


def presented_key(principal: Principal) -> UUID:
    """The key that the caller presented. The contract's policy has made sure that there is one."""
    if principal.api_key_id is None:
        raise PermissionDenied("This needs an API key, not a login.", reason="API_KEY_REQUIRED")
    return principal.api_key_id
