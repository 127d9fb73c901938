"""The caller's own account: read, changed, deleted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from servicekit.principal import Principal
from services.auth.domain import Client, Pkce, User, merged, normal_email
from services.auth.errors import (
    InsufficientAal,
    InvalidCredentials,
    ReauthenticationNeeded,
    SamePassword,
    UserNotFound,
)
from services.auth.mail.letters import Letter
from services.auth.passwords import check_new_password
from services.auth.service.issuing import Issuing
from services.auth.service.kit import Kit, metadata
from services.auth.service.sessions import end_sessions
from services.auth.service.verify import Verify


@dataclass(frozen=True, slots=True)
class Change:
    """What to change of an account; `None` stays as it is."""

    email: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    data: Mapping[str, Any] | None = field(default=None, repr=False)
    nonce: str = field(default="", repr=False)
    current_password: str = field(default="", repr=False)
    redirect_to: str = ""
    pkce: Pkce | None = None


class Profile:
    """Use cases about the caller's own account."""

    def __init__(self, kit: Kit) -> None:
        self._kit, self._issuing, self._verify = kit, Issuing(kit), Verify(kit)

    async def get(self, principal: Principal) -> User:
        """The caller's account. Raises `UserNotFound` once it was deleted, and as `User.require_active`."""
        async with self._kit.store.unit() as unit:
            user = await unit.accounts.by_id(principal.user_id)
        if user is None:
            raise UserNotFound
        user.require_active(self._kit.clock.now())
        return user

    async def update(self, principal: Principal, change: Change, client: Client) -> User:
        """Change what is given. A new address waits for its codes; a new password ends other sessions."""
        user = await self.get(principal)
        if (change.email is not None or change.password is not None) and user.has_factor:
            self._require_aal2(principal)
        if change.password is not None:
            await self._change_password(principal, user, change.password, change, client)
        if change.data is not None:
            await self._change_data(user.id, change.data, client)
        if change.email is not None:
            await self._begin_email_change(user, change.email, change, client)
        return await self.get(principal)

    async def delete(self, principal: Principal, password: str, nonce: str, client: Client) -> None:
        """Delete the account. Raises `InvalidCredentials` unless password or nonce proves the owner."""
        kit = self._kit
        user = await self.get(principal)
        if user.has_factor:
            self._require_aal2(principal)
        await kit.limits.hit("sign_in", client, str(user.id))
        proved = (
            await self._verify.nonce(user.id, nonce)
            if nonce
            else await kit.passwords.matches(user.password_hash, password, client.ip)
        )
        if not proved:
            raise InvalidCredentials("The password or the nonce is wrong.")
        async with kit.store.unit() as unit:
            ended = await end_sessions(kit, unit, user.id)
            await unit.audit.add("deleted", user.id, client)
            await unit.accounts.remove(user.id)
            # Before the commit: if it fails, the sessions are still there when the call is repeated.
            await kit.deny(ended)

    async def reauthenticate(self, principal: Principal, client: Client) -> None:
        """Mail the nonce that `update` and `delete` take as proof."""
        user = await self.get(principal)
        await self._kit.limits.hit("mail", client, user.email)
        async with self._kit.store.unit() as unit:
            mailable = await self._issuing.code(unit, user, "reauthentication")
            await unit.accounts.change(user.id, reauthentication_sent_at=self._kit.clock.now())
        self._kit.post([mailable.letter])

    async def _change_password(
        self, principal: Principal, user: User, password: str, change: Change, client: Client
    ) -> None:
        kit, stored, ip = self._kit, user.password_hash, client.ip
        # A change costs up to three hashes, so it is counted before the first.
        await kit.limits.hit("sign_in", client, str(user.id))
        check_new_password(password, kit.rules.password_min_length)
        await self._prove_owner(principal, user, change, client)
        if stored is not None and await kit.passwords.matches(stored, password, ip):
            raise SamePassword
        hashed = await kit.passwords.hash(password, ip)
        async with kit.store.unit() as unit:
            await unit.accounts.change(user.id, password_hash=hashed, password_changed_at=kit.clock.now())
            # Whoever got in by the old password, or a recovery mail, is out.
            ended = await end_sessions(kit, unit, user.id, but=principal.session_id)
            await unit.codes.drop(user.id, ["recovery", "magiclink"])
            await unit.audit.add("password_changed", user.id, client)
        await kit.deny(ended)
        kit.post([Letter("password_changed", user.email)])

    async def _prove_owner(self, principal: Principal, user: User, change: Change, client: Client) -> None:
        """A session may be stolen; a new password asks for more than having one, if so configured."""
        kit = self._kit
        if change.nonce:
            await kit.limits.hit("verify", client, str(user.id))
            if not await self._verify.nonce(user.id, change.nonce):
                raise ReauthenticationNeeded("The nonce is wrong, was used, or has expired.")
            return
        if change.current_password:
            current = change.current_password
            if not await kit.passwords.matches(user.password_hash, current, client.ip):
                raise InvalidCredentials("The current password is wrong.")
            return
        if kit.rules.secure_password_change and not await self._fresh(principal):
            raise ReauthenticationNeeded

    async def _fresh(self, principal: Principal) -> bool:
        if principal.session_id is None:
            return False
        async with self._kit.store.unit() as unit:
            session = await unit.sessions.get(principal.session_id)
        age = self._kit.clock.time() - (session.proved_at() if session else 0)
        return age <= self._kit.rules.fresh_sign_in.total_seconds()

    async def _change_data(self, user_id: UUID, data: Mapping[str, Any], client: Client) -> None:
        async with self._kit.store.unit() as unit:
            user = await unit.accounts.by_id(user_id, lock=True)
            if user is None:
                raise UserNotFound
            await unit.accounts.change(user_id, user_metadata=metadata(merged(user.user_metadata, data)))
            await unit.audit.add("profile_changed", user_id, client)

    async def _begin_email_change(self, user: User, email: str, change: Change, client: Client) -> None:
        """Ask both addresses, or only the new one. One that has an account is told so, and nobody else."""
        kit, now = self._kit, self._kit.clock.now()
        address = normal_email(email)
        if address == user.email:
            return
        await kit.limits.hit("mail", client, address)
        await kit.limits.hit("mail", client, user.email)
        letters = []
        async with kit.store.unit() as unit:
            taken = await unit.accounts.by_email(address) is not None
            await unit.accounts.change(
                user.id, new_email=address, email_change_status=0, email_change_sent_at=now
            )
            asked = await unit.accounts.get(user.id)
            flow = await self._issuing.flow(unit, user, change.pkce, "otp", change.redirect_to)
            if kit.rules.secure_email_change:
                mailable = await self._issuing.code(
                    unit, asked, "email_change_current", redirect_to=change.redirect_to
                )
                letters.append(mailable.letter)
            if taken:
                await unit.codes.drop(user.id, ["email_change_new"])
                letters.append(Letter("address_taken", address))
            else:
                mailable = await self._issuing.code(
                    unit,
                    asked,
                    "email_change_new",
                    to=address,
                    redirect_to=change.redirect_to,
                    flow=flow,
                )
                letters.append(mailable.letter)
            await unit.audit.add("email_change_asked", user.id, client)
        kit.post(letters)

    @staticmethod
    def _require_aal2(principal: Principal) -> None:
        if principal.aal != "aal2":
            raise InsufficientAal
