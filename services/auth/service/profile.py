"""The caller's own account: read, changed, deleted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from servicekit.principal import Principal
from services.auth.addresses import normal_email
from services.auth.domain import Client, Pkce, User, merged
from services.auth.errors import (
    InvalidCredentials,
    ReauthenticationNeeded,
    SamePassword,
    UserNotFound,
)
from services.auth.mail.letters import Letter
from services.auth.service.assurance import require_rows
from services.auth.service.even import EvenAnswers
from services.auth.service.factors.guesses import Guesses
from services.auth.service.familiar import Familiar
from services.auth.service.issuing import Issuing
from services.auth.service.kit import Kit, metadata
from services.auth.service.pending import drop_email_change
from services.auth.service.sessions import end_sessions
from services.auth.service.verify import Verify

if TYPE_CHECKING:
    from services.auth.store import Unit


@dataclass(frozen=True, slots=True)
class Change:
    """What to change of an account; `None` stays as it is.

    `cancel_email` ends an e-mail change that waits; so does the account's own address as `email`.
    """

    email: str | None = field(default=None, repr=False)
    cancel_email: bool = False
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
        self._familiar = Familiar(kit.store, kit.secrets, kit.clock)
        self._even = EvenAnswers(kit.clock, kit.rules.even_answer)

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
        kit, user = self._kit, await self.get(principal)
        # A change costs up to three hashes, so it is counted before the first.
        if change.password is not None or change.current_password:
            await kit.limits.hit("sign_in", client, str(user.id))
        # All that can be refused for what it says, or for a limit, is refused before anything is changed.
        asked = change.email is not None and not change.cancel_email
        wanted = normal_email(change.email or "") if asked else ""
        if change.password is not None:
            kit.rules.check_password(change.password, user.email, wanted or user.new_email)
        if change.data is not None:
            metadata(merged(user.user_metadata, change.data))
        if wanted and wanted != user.email:
            await kit.limits.hit("mail", client, wanted)
            # Apart from the mails to the current address that strangers ask for.
            await kit.limits.hit("nonce", client, str(user.id))
        if change.email is not None or change.password is not None:
            await self._check_proofs(user, change, client)
        if change.password is not None:
            await self._change_password(principal, user, change.password, client)
        if change.data is not None:
            await self._change_data(principal, change.data, client)
        if change.cancel_email:
            await self._cancel_email_change(principal, client)
        elif wanted:
            await self._begin_email_change(principal, user, wanted, change, client)
        return await self.get(principal)

    async def delete(self, principal: Principal, password: str, nonce: str, client: Client) -> None:
        """Delete the account. Raises `InvalidCredentials` unless password or nonce proves the owner."""
        kit = self._kit
        user = await self.get(principal)
        await kit.limits.hit("sign_in", client, str(user.id))
        proved = (
            await self._verify.nonce(user.id, nonce)
            if nonce
            else await kit.passwords.matches(user.password_hash, password, client.ip)
        )
        if not proved:
            raise InvalidCredentials("The password or the nonce is wrong.")
        async with kit.store.unit() as unit:
            await self._require_rows(unit, principal)
            ended = await end_sessions(kit, unit, user.id)
            await unit.audit.add("deleted", user.id, client)
            await unit.accounts.remove(user.id)
            # Before the commit: if it fails, the sessions are still there when the call is repeated.
            await kit.deny(ended)

    async def reauthenticate(self, principal: Principal, client: Client) -> None:
        """Mail the nonce that `confirm`, `update` and `delete` take as proof."""
        user = await self.get(principal)
        await self._kit.limits.hit("nonce", client, str(user.id))
        async with self._kit.store.unit() as unit:
            await unit.accounts.lock([user.id])
            mailable = await self._issuing.code(unit, user, "reauthentication")
            await unit.accounts.change(user.id, reauthentication_sent_at=self._kit.clock.now())
        self._kit.post([mailable.letter])

    async def _change_password(self, principal: Principal, user: User, password: str, client: Client) -> None:
        kit, stored, ip = self._kit, user.password_hash, client.ip
        if stored is not None and await kit.passwords.matches(stored, password, ip):
            raise SamePassword
        hashed = await kit.passwords.hash(password, ip)
        async with kit.store.unit() as unit:
            await self._require_rows(unit, principal)
            await unit.accounts.change(user.id, password_hash=hashed, password_changed_at=kit.clock.now())
            # Others who got in by the old password or a mail are out, with all that they have asked for.
            ended = await end_sessions(kit, unit, user.id, but=principal.session_id)
            await self._familiar.forget_others(unit, user, client)
            await unit.audit.add("password_changed", user.id, client)
        await kit.deny(ended)
        kit.post([Letter("password_changed", user.email)])
        await Guesses(kit).forget(user.id)

    async def _check_proofs(self, user: User, change: Change, client: Client) -> None:
        """The policy lets an old session pass that gives a proof, so whatever is given must be right."""
        kit = self._kit
        if change.nonce:
            await kit.limits.hit("verify", client, str(user.id))
            if not await self._verify.nonce(user.id, change.nonce):
                raise ReauthenticationNeeded("The nonce is wrong, was used, or has expired.")
        if change.current_password:
            current = change.current_password
            if not await kit.passwords.matches(user.password_hash, current, client.ip):
                raise InvalidCredentials("The current password is wrong.")

    @staticmethod
    async def _require_rows(unit: Unit, principal: Principal) -> User:
        """The account, locked. Raises as `require_rows`."""
        user = await unit.accounts.by_id(principal.user_id, lock=True)
        if user is None:
            raise UserNotFound
        await require_rows(unit, principal, user)
        return user

    async def _change_data(self, principal: Principal, data: Mapping[str, Any], client: Client) -> None:
        async with self._kit.store.unit() as unit:
            user = await self._require_rows(unit, principal)
            await unit.accounts.change(user.id, user_metadata=metadata(merged(user.user_metadata, data)))
            await unit.audit.add("profile_changed", user.id, client)

    async def _begin_email_change(
        self, principal: Principal, user: User, address: str, change: Change, client: Client
    ) -> None:
        """Ask both addresses, or only the new one. One that has an account is told so, and only there.

        Another address than the one that waits starts both halves again. The same keeps what is confirmed.
        """
        kit = self._kit
        if address == user.email:
            await self._cancel_email_change(principal, client)
            return
        async with self._even.always(), kit.store.unit() as unit:
            asked = await self._asked(unit, await self._require_rows(unit, principal), address)
            redirect_to = change.redirect_to
            flow = await self._issuing.flow(unit, asked, change.pkce, "otp", redirect_to)
            letters = []
            if kit.rules.secure_email_change:
                mailable = await self._issuing.code(
                    unit, asked, "email_change_current", redirect_to=redirect_to, flow=flow
                )
                letters.append(mailable.letter)
            if await unit.accounts.by_email(address) is not None:
                await unit.codes.drop(user.id, ["email_change_new"])
                letters.append(Letter("address_taken", address))
            else:
                mailable = await self._issuing.code(
                    unit, asked, "email_change_new", to=address, redirect_to=redirect_to, flow=flow
                )
                letters.append(mailable.letter)
            await unit.flows.drop(user.id, but=flow)
            await unit.audit.add("email_change_asked", user.id, client)
        kit.post(letters)

    async def _asked(self, unit: Unit, user: User, address: str) -> User:
        """The account, which is locked, with the address that it is to have."""
        if user.new_email != address:
            await drop_email_change(unit, user)
        await unit.accounts.change(user.id, new_email=address, email_change_sent_at=self._kit.clock.now())
        return await unit.accounts.get(user.id)

    async def _cancel_email_change(self, principal: Principal, client: Client) -> None:
        """End an e-mail change that waits, if one does."""
        async with self._kit.store.unit() as unit:
            user = await self._require_rows(unit, principal)
            if user.new_email:
                await drop_email_change(unit, user)
                await unit.audit.add("email_change_cancelled", user.id, client)
