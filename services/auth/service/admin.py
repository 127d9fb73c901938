"""Accounts in administrators' hands. Every change is in the audit log, with who and when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from servicekit.principal import Principal
from servicekit.tokens import NOBODY
from services.auth.addresses import normal_email
from services.auth.domain import AccountState, Client, Json, Purpose, User, duration, merged
from services.auth.errors import EmailExists, FactorNotFound, UserDeleted, UserNotFound, ValidationFailed
from services.auth.hash_formats import checked
from services.auth.mail.letters import Letter
from services.auth.service.assurance import lower_sessions
from services.auth.service.factors.guesses import Guesses
from services.auth.service.issuing import Issuing
from services.auth.service.kit import Kit, metadata, storable
from services.auth.service.pending import administered, adopted, drop_email_change
from services.auth.service.sessions import end_sessions

if TYPE_CHECKING:
    from services.auth.store import Unit

MAX_PAGE: Final = 1000
DEFAULT_PAGE: Final = 50
_deepest: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class NewUser:
    """An account to make. `ban` is a duration such as `24h`, or nothing."""

    email: str = field(repr=False)
    password: str | None = field(default=None, repr=False)
    password_hash: str | None = field(default=None, repr=False)
    confirmed: bool = False
    user_metadata: Mapping[str, Any] | None = field(default=None, repr=False)
    app_metadata: Mapping[str, Any] | None = field(default=None, repr=False)
    role: str = ""
    id: UUID | None = None
    ban: str = ""


@dataclass(frozen=True, slots=True)
class UserChange:
    """What to change of an account; `None` stays as it is."""

    email: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    password_hash: str | None = field(default=None, repr=False)
    confirmed: bool | None = None
    user_metadata: Mapping[str, Any] | None = field(default=None, repr=False)
    app_metadata: Mapping[str, Any] | None = field(default=None, repr=False)
    role: str | None = None
    ban: str | None = None
    is_active: bool | None = None
    tier: str | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """What a mail would carry."""

    action_link: str = field(repr=False)
    code: str = field(repr=False)
    token: str = field(repr=False)
    redirect_to: str
    expires_at: datetime
    user: User


class Admin:
    """Use cases of the service role; the policy has been enforced before they are called."""

    def __init__(self, kit: Kit) -> None:
        self._kit, self._issuing = kit, Issuing(kit)

    async def create(self, principal: Principal, new: NewUser, client: Client) -> User:
        """Make an account; mails nothing. Raises `EmailExists`, `WeakPassword`, `ValidationFailed`."""
        kit = self._kit
        values: Json = {
            "user_metadata": metadata(new.user_metadata, "user_metadata"),
            "app_metadata": metadata(new.app_metadata, "app_metadata"),
            "role": _role(new.role or "authenticated"),
            "email_confirmed_at": kit.clock.now() if new.confirmed else None,
            "banned_until": self._until(new.ban),
        }
        address = normal_email(new.email)
        values |= await self._new_password(new, address)
        async with kit.store.unit() as unit:
            user_id = new.id or kit.ids.uuid7()
            if new.id is not None and await unit.accounts.by_id(new.id) is not None:
                raise ValidationFailed("id", "another account has this id")
            user = await unit.accounts.add(user_id, address, kit.ids.uuid7(), **values)
            await self._note(unit, principal, "created", user.id, client)
        return user

    async def page(
        self, number: int, size: int, part: str, state: AccountState | None = None
    ) -> tuple[list[User], int]:
        """One page, newest first, and how many there are in all: in this state, or in all but `deleted`."""
        size = min(size, MAX_PAGE) if size > 0 else DEFAULT_PAGE
        if not storable(part):
            raise ValidationFailed("filter", "must not contain U+0000")
        offset = min((max(number, 1) - 1) * size, _deepest)
        async with self._kit.store.unit() as unit:
            return await unit.accounts.page(offset, size, part.strip(), state)

    async def by_id(self, user_id: UUID) -> User:
        """Raises `UserNotFound`."""
        async with self._kit.store.unit() as unit:
            return _there(await unit.accounts.by_id(user_id))

    async def by_email(self, email: str) -> User:
        """Raises `UserNotFound`."""
        async with self._kit.store.unit() as unit:
            return _there(await unit.accounts.by_email(normal_email(email)))

    async def modify(self, principal: Principal, user_id: UUID, change: UserChange, client: Client) -> User:
        """Change what is given. Sessions end with a new password or role, and when the account may not act.

        Raises `UserNotFound`, `UserDeleted`, `EmailExists`, `WeakPassword`, `ValidationFailed`.
        """
        kit = self._kit
        values = _plain_values(change, kit.clock.now())
        if change.ban is not None:
            values["banned_until"] = self._until(change.ban)
        values |= await self._new_password(change, values.get("email", ""))
        ended: list[UUID] = []
        async with kit.store.unit() as unit:
            user = _there(await unit.accounts.by_id(user_id, lock=True))
            if user.deleted_at is not None:
                raise UserDeleted
            if change.password is not None:
                kit.rules.check_password(change.password, values.get("email", user.email))
            user = await adopted(kit, unit, user)
            for name in ("user_metadata", "app_metadata"):
                given = getattr(change, name)
                if given is not None:
                    values[name] = metadata(merged(getattr(user, name), given), name)
            await unit.accounts.change(user_id, **values)
            await administered(unit, user, values)
            if "password_hash" in values:
                await unit.clients.forget(user_id)
            changed = await unit.accounts.get(user_id)
            now = kit.clock.now()
            if _ends_sessions(change, user) or (user.may_act(now) and not changed.may_act(now)):
                ended = await end_sessions(kit, unit, user_id)
            await self._note(unit, principal, "modified", user_id, client, members=sorted(values))
        await kit.deny(ended)
        if "password_hash" in values:
            await Guesses(kit).forget(user_id)
        return changed

    async def remove(
        self, principal: Principal, user_id: UUID, client: Client, *, soft: bool = False
    ) -> None:
        """Delete an account with its keys and sessions; softly, its id, audit trail and usage stay.

        Softly twice does nothing more. Raises `UserNotFound`.
        """
        kit = self._kit
        async with kit.store.unit() as unit:
            user = _there(await unit.accounts.by_id(user_id, lock=True))
            ended = await end_sessions(kit, unit, user_id)
            if not soft:
                await unit.accounts.remove(user_id)
                await self._note(unit, principal, "removed", user_id, client)
            elif user.deleted_at is None:
                await unit.accounts.forget(user_id, f"deleted-{kit.ids.uuid7()}@users.invalid")
                await self._note(unit, principal, "soft_deleted", user_id, client)
            # Before the commit: if it fails, the sessions are still there when the call is repeated.
            await kit.deny(ended)

    async def remove_factor(
        self, principal: Principal, user_id: UUID, factor_id: UUID, client: Client
    ) -> None:
        """Remove a second factor of somebody who lost it, and end their sessions. Raises `FactorNotFound`."""
        kit = self._kit
        async with kit.store.unit() as unit:
            user = _there(await unit.accounts.by_id(user_id, lock=True))
            factor = await unit.factors.get(factor_id, user_id)
            if factor is None:
                raise FactorNotFound
            await unit.factors.remove(factor_id, user_id)
            await lower_sessions(kit, unit, factor)
            if not (await unit.accounts.get(user_id)).has_factor:
                await unit.factors.drop_recovery_codes(user_id)
            ended = await end_sessions(kit, unit, user_id)
            await self._note(unit, principal, "factor_removed", user_id, client, factor_id=str(factor_id))
            await kit.deny(ended)  # before it is committed: a second try would find no factor
        kit.post([Letter("factor_changed", user.email)])

    async def invite(
        self,
        principal: Principal,
        email: str,
        client: Client,
        *,
        data: Mapping[str, Any] | None = None,
        redirect_to: str = "",
    ) -> User:
        """Make an account (or take an unconfirmed one) and mail an invitation. Raises `EmailExists`."""
        async with self._kit.store.unit() as unit:
            user = await self._invited(unit, normal_email(email), metadata(data))
            mailable = await self._issuing.code(unit, user, "invite", redirect_to=redirect_to)
            await self._note(unit, principal, "invited", user.id, client)
        self._kit.post([mailable.letter])
        return user

    async def link(
        self,
        principal: Principal,
        purpose: Purpose,
        email: str,
        client: Client,
        *,
        password: str = "",
        new_email: str = "",
        data: Mapping[str, Any] | None = None,
        redirect_to: str = "",
    ) -> Link:
        """Make a code and a link, and mail nothing. For a sign-up or an invitation the account is made too.

        Raises `EmailExists`, `UserNotFound`, `WeakPassword`, `ValidationFailed`.
        """
        address, data = normal_email(email), metadata(data)
        hashed = await self._password(password, address) if purpose == "signup" else {}
        async with self._kit.store.unit() as unit:
            to = None
            if purpose == "signup":
                user = await self._unconfirmed(unit, address, {**hashed, "user_metadata": data})
            elif purpose == "invite":
                user = await self._invited(unit, address, data)
            else:
                user = _there(await unit.accounts.by_email(address, lock=True))
            if purpose in ("email_change_current", "email_change_new"):
                changed = normal_email(new_email, "new_email")
                if await unit.accounts.by_email(changed) is not None:
                    raise EmailExists
                if changed != user.new_email:
                    # A half that was confirmed, or is still to be, was for the address before.
                    await drop_email_change(unit, user)
                    await unit.accounts.change(user.id, new_email=changed)
                    user = await unit.accounts.get(user.id)
                to = changed if purpose == "email_change_new" else None
            made = await self._issuing.code(unit, user, purpose, to=to, redirect_to=redirect_to)
            await self._note(unit, principal, "link_made", user.id, client, purpose=purpose)
        letter = made.letter
        return Link(letter.link, letter.code, made.link_token, made.redirect_to, made.expires_at, user)

    async def _invited(self, unit: Unit, address: str, data: Json) -> User:
        values: Json = {"invited_at": self._kit.clock.now()}
        return await self._unconfirmed(unit, address, values | ({"user_metadata": data} if data else {}))

    async def _unconfirmed(self, unit: Unit, address: str, values: Json) -> User:
        known = await unit.accounts.by_email(address, lock=True)
        if known is None:
            return await unit.accounts.add(self._kit.ids.uuid7(), address, self._kit.ids.uuid7(), **values)
        if known.confirmed:
            raise EmailExists
        known = await adopted(self._kit, unit, known)
        await unit.accounts.change(known.id, **values)
        return await unit.accounts.get(known.id)

    async def _password(self, password: str, email: str) -> Json:
        self._kit.rules.check_password(password, email)
        hashed = await self._kit.passwords.hash(password)
        return {"password_hash": hashed, "password_changed_at": self._kit.clock.now()}

    async def _new_password(self, given: NewUser | UserChange, email: str) -> Json:
        """What sets the password, or the hash that was brought; nothing where neither is given."""
        if given.password_hash is None:
            return {} if given.password is None else await self._password(given.password, email)
        if given.password is not None:
            raise ValidationFailed("password_hash", "give either password or password_hash")
        hashed = checked(given.password_hash, self._kit.rules.imported_hashes)
        return {"password_hash": hashed, "password_changed_at": self._kit.clock.now()}

    def _until(self, ban: str) -> datetime | None:
        span = duration(ban, "ban_duration")
        return None if span is None else self._kit.clock.now() + span

    async def _note(
        self, unit: Unit, principal: Principal, action: str, user_id: UUID, client: Client, **details: Any
    ) -> None:
        actor = None if principal.user_id == NOBODY else principal.user_id
        await unit.audit.add(
            f"admin_{action}", user_id, client, actor="service_role", actor_id=actor, **details
        )


def _plain_values(change: UserChange, now: datetime) -> Json:
    values: Json = {}
    if change.email is not None:
        values["email"] = normal_email(change.email)
        values |= {"new_email": None, "email_half": None}
    if change.confirmed is not None:
        values["email_confirmed_at"] = now if change.confirmed else None
    if change.role is not None:
        values["role"] = _role(change.role)
    if change.is_active is not None:
        values["is_active"] = change.is_active
    if change.tier is not None:
        if change.tier not in ("free", "api_key"):
            raise ValidationFailed("tier", "must be free or api_key")
        values["tier"] = change.tier
    return values


def _ends_sessions(change: UserChange, user: User) -> bool:
    """Whether tokens that are out say what is no longer so, in a way that matters at once."""
    new_role = change.role is not None and change.role != user.role
    return change.password is not None or change.password_hash is not None or new_role


def _role(role: str) -> str:
    if role not in ("authenticated", "service_role"):
        raise ValidationFailed("role", "must be authenticated or service_role")
    return role


def _there(user: User | None) -> User:
    if user is None:
        raise UserNotFound
    return user
