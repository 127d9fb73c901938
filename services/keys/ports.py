"""What the use cases need of the world around them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol
from uuid import UUID

from servicekit.principal import Principal
from services.keys.domain import Draft, Event, Key, Page, PlanLimits
from services.keys.search import Search

KeyChange = Literal["created", "rotated", "revoked"]


@dataclass(frozen=True, slots=True)
class Hashed:
    """What is stored of a new key's secret: its keyed hash, and its two ends for showing."""

    id: UUID
    key_hash: bytes
    pepper_version: int
    prefix: str
    last4: str


class Unit(Protocol):
    """One transaction about the keys of one user; no other user's are seen or changed."""

    async def user_exists(self) -> bool:
        """Whether there is such a user at all."""
        ...

    async def plan(self) -> PlanLimits:
        """What a key's own limits may be at most."""
        ...

    async def lock_user(self) -> None:
        """Lock the user, as `create` does: before keys are locked. Raises `UserUnknown`."""
        ...

    async def get(self, key_id: UUID, *, for_change: bool = False) -> Key | None:
        """A key of the user's, locked until the end when it shall be changed."""
        ...

    async def get_all(self, key_ids: Sequence[UUID]) -> Sequence[Key]:
        """Those of the user's keys, in the order of the ids; ids of no key are left out."""
        ...

    async def list(
        self, search: Search, after: Page | None, size: int, working_at: datetime | None
    ) -> Sequence[Key]:
        """Keys that match, newest first; with `working_at` only those that work at that moment."""
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

    async def revoke_all(self, but: UUID | None) -> Sequence[UUID]:
        """End every working key but one; the ids of those that it ended. Raises `UserUnknown`."""
        ...

    async def events(self, key_id: UUID, after: Page | None, size: int) -> Sequence[Event]:
        """A key's history, newest first."""
        ...

    async def answer(self, lookups: Sequence[bytes]) -> tuple[bytes, bytes] | None:
        """The answer kept under one of the look-ups, with it. Waits for such a request under way."""
        ...

    async def keep_answer(self, lookup: bytes, sealed: bytes) -> None:
        """Keep an answer for 24 hours."""
        ...


class Units(Protocol):
    """Where transactions come from. They commit at the end, and roll back on any exception."""

    def as_user(self, principal: Principal) -> AbstractAsyncContextManager[Unit]:
        """As the user themselves. Raises `Unavailable`, `CallerBusy`."""
        ...

    def as_operator(
        self, operator: Principal, user_id: UUID, reason: str
    ) -> AbstractAsyncContextManager[Unit]:
        """For an operator, whose id and reason go into the history. Raises `Unavailable`."""
        ...


class Invalidator(Protocol):
    """Tells everyone that keys changed."""

    async def invalidate(self, *key_ids: UUID) -> None:
        """Drop the records here at once, elsewhere as soon as the messages arrive. Never raises."""
        ...


class Notices(Protocol):
    """Tells the owner by mail what was done to their keys."""

    def key_changed(self, kind: KeyChange, user_id: UUID, keys: Sequence[Key], client_ip: str) -> None:
        """Called once a change is committed. Returns at once and never raises: a mail is best effort.

        `keys`: the keys that were made (with "rotated": the successor) or revoked, at least one.
        `client_ip`: the address of the owner's call; "" when it is not known, or an operator did it.
        """
        ...


class NoNotices:
    """Sends nothing."""

    def key_changed(self, kind: KeyChange, user_id: UUID, keys: Sequence[Key], client_ip: str) -> None:
        """See `Notices.key_changed`."""
