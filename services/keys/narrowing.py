"""A credential gives at most what it has, in every attribute, and never raises itself.

A caller gives powers when it creates a key, rotates one (whose new secret it then holds) and changes one:

- a key that is created or rotated lies inside the caller's powers in every attribute;
- a change either takes away only, or the whole changed key lies inside the caller's powers. A mix is refused:
  a scope that only the key has, in a network that only the caller has, is more than either may do.

A login gives all that is the account's. A key gives what its row says now; the row is locked, so that a
change or a revocation of it comes before this transaction or after it. A token gives what its key gives, with
the token's scopes, and nothing that outlives the token: a short life would mean nothing otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol
from uuid import UUID

from servicekit.errors import FieldViolation, Unauthenticated
from servicekit.principal import KEYS_MANAGE, Principal, require_scopes
from services.keys.domain import Draft, Key, Mode, PlanLimits, Status, require_giveable
from services.keys.errors import WiderThanCaller
from services.keys.networks import Network, inside, stored


@dataclass(frozen=True, slots=True)
class KeyPrincipal(Principal):
    """A caller with an API key, or with a token of one (`derived`). `ends_at`: when what it showed ends."""

    ends_at: datetime | None = None
    derived: bool = False


class Locking(Protocol):
    """Where keys are read. See `ports.Unit`."""

    async def lock_user(self) -> None:
        """Lock the user, as the creation of a key does. Raises `UserUnknown`."""
        ...

    async def get(self, key_id: UUID, *, for_change: bool = False) -> Key | None:
        """A key of the user's, locked until the end when it shall be changed."""
        ...


@dataclass(frozen=True, slots=True)
class Powers:
    """What a credential may do. The defaults bound nothing: no end, any network, the plan's limits."""

    scopes: frozenset[str]
    ends_at: datetime | None = None
    networks: tuple[Network, ...] = ()
    daily_limit: int | None = None
    per_minute: int | None = None
    mode: Mode = "live"
    engine: str = ""

    @classmethod
    def of(cls, key: Key | Draft) -> Powers:
        """Those of a key, or of a checked draft of one."""
        return cls(
            scopes=frozenset(key.scopes),
            ends_at=key.ends_at if isinstance(key, Key) else key.expires_at,
            networks=stored(key.allowed_cidrs),
            daily_limit=key.daily_limit,
            per_minute=key.per_minute,
            mode=key.mode or "live",
            engine=key.engine,
        )

    def filled(self, draft: Draft, plan: PlanLimits) -> Draft:
        """The draft, with the bounds of these powers where it names none. Its scopes are not touched."""
        return replace(
            draft,
            mode=draft.mode or self.mode,
            expires_at=self.ends_at if draft.expires_at is None else draft.expires_at,
            allowed_cidrs=draft.allowed_cidrs or tuple(map(str, self.networks)),
            daily_limit=_limit(draft.daily_limit, self.daily_limit, plan.daily_limit),
            per_minute=_limit(draft.per_minute, self.per_minute, plan.per_minute),
            engine=draft.engine or self.engine,
        )

    def require(self, given: Powers) -> None:
        """Raise `ScopeMissing` or `WiderThanCaller` (which names each attribute) unless `given` is inside."""
        require_giveable(self.scopes, given.scopes)
        if violations := tuple(self.exceeded(given)):
            raise WiderThanCaller.at(violations)

    def require_again(self, principal: Principal, key: Key, rotated: Key | None = None) -> None:
        """As `require`, for the answer to a repeated request, which made this key before.

        If the caller is the key that was `rotated` into it, its own end counts, not that of its grace period:
        else an answer that was lost on the way could not be asked for again.
        """
        powers = self
        itself = isinstance(principal, KeyPrincipal) and not principal.derived
        if rotated is not None and itself and rotated.id == principal.api_key_id:
            powers = replace(self, ends_at=rotated.expires_at)
        powers.require(Powers.of(key))

    def require_change(self, before: Powers, after: Powers) -> None:
        """Raise as `require` unless the change takes away only, or the changed key lies inside."""
        if not before.hold(after):
            self.require(after)

    def hold(self, given: Powers) -> bool:
        """Whether `given` is inside these powers."""
        return given.scopes <= self.scopes and not any(self.exceeded(given))

    def exceeded(self, given: Powers) -> Iterator[FieldViolation]:
        """Every attribute but the scopes in which `given` is not inside these powers."""
        if self.ends_at is not None and (given.ends_at is None or given.ends_at > self.ends_at):
            yield FieldViolation("expires_at", "must not be later than the end of the calling credential")
        if not inside(given.networks, self.networks):
            yield FieldViolation(
                "allowed_cidrs", "must name networks, each inside the calling key's own networks"
            )
        if _beyond(given.daily_limit, self.daily_limit):
            yield FieldViolation("daily_limit", f"must be at most {self.daily_limit}, the calling key's own")
        if _beyond(given.per_minute, self.per_minute):
            yield FieldViolation("per_minute", f"must be at most {self.per_minute}, the calling key's own")
        if self.mode == "test" and given.mode != "test":
            yield FieldViolation("mode", "must be test, as the calling key's is")
        if self.engine and given.engine != self.engine:
            yield FieldViolation("engine", f"must be {self.engine}, as the calling key's is")


async def held(
    unit: Locking, principal: Principal, now: datetime, key_id: UUID | None = None
) -> tuple[Powers, Key | None]:
    """The caller's powers, and the key with that id: the rows of both locked until the end of `unit`.

    Raises `Unauthenticated` (KEY_UNKNOWN, KEY_REVOKED, KEY_EXPIRED) or `PermissionDenied` (SCOPE_MISSING) if
    the calling key has just stopped to hold or to manage keys.
    """
    own = principal.api_key_id
    # The user, then keys by id: every transaction locks in this order, so that none wait in a circle.
    if own is not None:
        await unit.lock_user()
    wanted = sorted({found for found in (own, key_id) if found is not None})
    rows = {found: await unit.get(found, for_change=True) for found in wanted}
    target = None if key_id is None else rows[key_id]
    if own is None:
        return Powers(principal.scopes), target
    if not isinstance(principal, KeyPrincipal):
        raise TypeError("the principal of a key says when the credential ends")
    caller = rows[own]
    if caller is None:
        raise Unauthenticated("There is no such API key.", reason="KEY_UNKNOWN")
    match caller.status(now):
        case Status.REVOKED:
            raise Unauthenticated("This API key has been revoked.", reason="KEY_REVOKED")
        case Status.EXPIRED:
            raise Unauthenticated("This API key has expired.", reason="KEY_EXPIRED")
        case _:
            powers = Powers.of(caller)
    powers = replace(powers, scopes=powers.scopes & principal.scopes)
    require_scopes(replace(principal, scopes=powers.scopes), [KEYS_MANAGE])
    ends_at = principal.ends_at if principal.derived else None
    if ends_at is not None and (powers.ends_at is None or ends_at < powers.ends_at):
        powers = replace(powers, ends_at=ends_at)
    return powers, target


def _limit(wished: int | None, own: int | None, highest: int) -> int | None:
    """A new key's limit: as wished, or the caller's own, which may stand above a plan that was lowered."""
    return min(own, highest) if wished is None and own is not None else wished


def _beyond(given: int | None, own: int | None) -> bool:
    return own is not None and (given is None or given > own)
