"""What may be done to API keys, for their owner. Row level security stands behind every step.

Each change is one transaction, whose trigger writes the audit trail; once it has committed, the
record is dropped here and everywhere (`Invalidator`), which is what makes a revocation count at
once. Should that message be lost, the records' soft age bounds the delay.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from servicekit import apikey
from servicekit.clock import Clock, Entropy, Ids
from servicekit.context import client_ip
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
    grace_period,
    token_scopes,
    token_ttl,
)
from services.keys.errors import KeyNotFound
from services.keys.freshness import require_fresh_scopes
from services.keys.narrowing import KeyPrincipal, Powers, held
from services.keys.once import Answer, Repeatable, Slot
from services.keys.peppers import Keyring, Peppers
from services.keys.ports import Hashed, Invalidator, Notices, Unit, Units
from services.keys.search import Paging, Search


@dataclass(frozen=True, slots=True)
class Made:
    """A new key and its secret, which is nowhere else."""

    key: Key
    secret: str

    def __repr__(self) -> str:
        return f"Made({self.key.id})"


@dataclass(frozen=True, slots=True)
class Minting:
    """All that a new secret is made with, and kept with while its request may be repeated."""

    keyring: Keyring
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

    def slot(self, principal: Principal, request: Repeatable | None) -> Slot | None:
        """Where the answer to a request that may be repeated is kept."""
        return None if request is None else Slot(self.keyring, self.entropy, principal, request)


class KeysService:
    """The use cases. `key_limit`: how many working keys a user may have."""

    def __init__(
        self,
        units: Units,
        invalidator: Invalidator,
        minting: Minting,
        *,
        notices: Notices,
        engines: Collection[str],
        key_limit: int,
    ) -> None:
        self._units = units
        self._invalidator = invalidator
        self._notices = notices
        self._minting = minting
        self._clock = minting.clock
        self._engines = engines
        self._key_limit = key_limit

    async def create(self, principal: Principal, draft: Draft, request: Repeatable | None = None) -> Made:
        """A new key, or the one that the same request made before.

        Raises `ValidationFailed`, `ScopeMissing`, `WiderThanCaller`, `KeyLimit`, `IdempotencyKeyReused`, and
        `ReauthenticationNeeded` where a key that was made before manages keys by now.
        """
        slot = self._minting.slot(principal, request)
        async with self._units.as_user(principal) as unit:
            again = await repeated(unit, slot)
            now, plan = self._clock.now(), await unit.plan()
            giver, _ = await held(unit, principal, now)
            if again is not None:
                self._require_again(giver, principal, again.key)
                return again
            draft = giver.filled(draft, plan).checked(now, plan, self._engines)
            giver.require(Powers.of(draft))
            hashed, secret = self._minting.key(draft.mode or "live")
            made = Made(await unit.create(hashed, draft, self._key_limit), secret)
            await keep(unit, slot, made)
        self._notices.key_changed("created", principal.user_id, [made.key], client_ip())
        return made

    async def list(
        self, principal: Principal, search: Search, size: int, token: str
    ) -> tuple[Sequence[Key], str]:
        """A page of keys, newest first, and the next page's token. Raises `PageTokenInvalid`."""
        page = Paging.of(search, size, token)
        async with self._units.as_user(principal) as unit:
            return await page.read(unit, search, self._clock.now())

    async def get(self, principal: Principal, key_id: UUID) -> Key:
        """One key. Raises `KeyNotFound`."""
        async with self._units.as_user(principal) as unit:
            return found(await unit.get(key_id))

    async def update(self, principal: Principal, key_id: UUID, changes: Changes) -> Key:
        """The key with its changes made. Raises `KeyNotFound`, `KeyIsRevoked`, `KeyIsExpired`,
        `ValidationFailed`, and where something is added `ScopeMissing`, `WiderThanCaller` or, for a key that
        manages keys, `ReauthenticationNeeded`.
        """
        async with self._units.as_user(principal) as unit:
            now = self._clock.now()
            giver, target = await held(unit, principal, now, key_id)
            old = found(target)
            new = changes.applied(old, now, await unit.plan(), self._engines)
            before, after = Powers.of(old), Powers.of(new)
            giver.require_change(before, after)
            if not before.hold(after):
                require_fresh_scopes(principal, new.scopes, self._clock.time())
            if new == old:
                return old
            new = await unit.save(new)
        await self._invalidator.invalidate(key_id)
        return new

    async def rotate(
        self,
        principal: Principal,
        key_id: UUID,
        grace: timedelta | None,
        request: Repeatable | None = None,
    ) -> tuple[Made, Key]:
        """A successor, or the one that the same request made before, and the old key as it is now.

        Raises `KeyNotFound`, `KeyIsRevoked`, `KeyIsExpired`, `KeyIsRotated`, `ValidationFailed`,
        `IdempotencyKeyReused`, `ReauthenticationNeeded`, and `ScopeMissing` or `WiderThanCaller` where the
        successor could do what the caller can't.
        """
        now = self._clock.now()
        wait = grace_period(grace)
        slot = self._minting.slot(principal, request)
        async with self._units.as_user(principal) as unit:
            again = await repeated(unit, slot)
            giver, target = await held(unit, principal, now, key_id)
            old = found(target)
            require_fresh_scopes(principal, old.scopes, self._clock.time())
            if again is not None:
                self._require_again(giver, principal, again.key, old)
                return again, old
            old.require_rotatable(now)
            giver.require(Powers.of(old))
            hashed, secret = self._minting.key(old.mode)
            made = Made(await unit.rotate(key_id, hashed, now + wait), secret)
            await keep(unit, slot, made)
            previous = found(await unit.get(key_id))
        await self._invalidator.invalidate(key_id)
        self._notices.key_changed("rotated", principal.user_id, [made.key], client_ip())
        return made, previous

    async def revoke(self, principal: Principal, key_id: UUID) -> Key:
        """End a key for good; one that has ended already stays as it is. Raises `KeyNotFound`."""
        async with self._units.as_user(principal) as unit:
            key, ended = await revoke(unit, key_id)
        await self._invalidator.invalidate(key_id)
        if ended:
            self._notices.key_changed("revoked", principal.user_id, [key], client_ip())
        return key

    async def revoke_all(self, principal: Principal, but: UUID | None) -> Sequence[UUID]:
        """End all working keys but one, if one is named; their ids, that of the presented key last.

        Raises `KeyNotFound` when `but` is no key of the caller's, `KeyIsRevoked` when it has ended.
        """
        async with self._units.as_user(principal) as unit:
            if but is not None:
                found(await unit.get(but)).require_changeable()
            keys = await unit.get_all(await unit.revoke_all(but))
        ended = sorted((key.id for key in keys), key=lambda key_id: key_id == principal.api_key_id)
        await self._invalidator.invalidate(*ended)
        if keys:
            self._notices.key_changed("revoked", principal.user_id, keys, client_ip())
        return ended

    async def revoke_self(self, principal: Principal) -> Key:
        """Revoke the key that was presented, or the one that minted the token that was."""
        return await self.revoke(principal, presented_key(principal))

    async def mint_token(
        self, principal: Principal, scopes: Sequence[str], ttl: timedelta | None
    ) -> tuple[str, datetime, Sequence[str]]:
        """A token of the presented key, its end (at most the key's) and its scopes. Reads no database.

        Raises `ScopeMissing`, `ValidationFailed`. The caller has made sure that the credential is
        the key itself and not a token.
        """
        given = token_scopes(principal.scopes, scopes)
        # To the millisecond, which a JWT may have: whole seconds would cut a short life by up to one.
        end = round(self._clock.time() + token_ttl(ttl).total_seconds(), 3)
        if isinstance(principal, KeyPrincipal) and principal.ends_at is not None:
            end = min(end, principal.ends_at.timestamp())
        key_id = presented_key(principal)
        token = self._minting.tokens.mint(key_id, given, end, self._minting.ids.uuid7())
        return token, datetime.fromtimestamp(end, UTC), given

    def _require_again(
        self, giver: Powers, principal: Principal, key: Key, rotated: Key | None = None
    ) -> None:
        """As for making the key as it is now, which its owner may have widened since."""
        require_fresh_scopes(principal, key.scopes, self._clock.time())
        giver.require_again(principal, key, rotated)

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


async def revoke(unit: Unit, key_id: UUID) -> tuple[Key, bool]:
    """The key, ended, and whether it was this that ended it. Raises `KeyNotFound`."""
    key = found(await unit.get(key_id, for_change=True))
    return (key, False) if key.revoked_at is not None else (await unit.revoke(key_id), True)


async def repeated(unit: Unit, slot: Slot | None) -> Made | None:
    """What the same request made before, as it is now; `None`: it was not made before.

    Raises `IdempotencyKeyReused`. The caller may have lost what it gave then: see `Powers.require_again`.
    """
    if slot is None or (kept := await unit.answer(slot.lookups)) is None:
        return None
    answer = slot.open(*kept)
    return Made(found(await unit.get(answer.key_id)), answer.secret)


async def keep(unit: Unit, slot: Slot | None, made: Made) -> None:
    """Keep what is to be answered to a repeat, in the same transaction."""
    if slot is not None:
        await unit.keep_answer(*slot.seal(Answer(made.key.id, made.secret)))


def presented_key(principal: Principal) -> UUID:
    """The key that the caller presented. The contract's policy has made sure that there is one."""
    if principal.api_key_id is None:
        raise PermissionDenied("This needs an API key, not a login.", reason="API_KEY_REQUIRED")
    return principal.api_key_id
