"""New accounts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from services.auth.addresses import normal_email
from services.auth.domain import Client, Identity, Issued, Json, Pending, Pkce, User, identity_data
from services.auth.errors import EmailExists, SignupDisabled
from services.auth.mail.letters import Letter
from services.auth.service.even import EvenAnswers
from services.auth.service.issuing import Issuing
from services.auth.service.kit import Kit, metadata
from services.auth.service.pending import adopted, drop_outstanding

if TYPE_CHECKING:
    from services.auth.store import Unit

_looks: Final = 3
"""At the password of a sign-up before; more than one if another sign-up comes between look and lock."""


@dataclass(frozen=True, slots=True)
class SignedUp:
    """The account, or what looks like one; a session only where accounts confirm themselves."""

    user: User
    issued: Issued | None = None


class SignUp:
    """Sign-up by address and password. It proves nothing, so it writes nothing into an account: what it
    wants stays with the mailed code (`services.auth.service.pending`).

    Known and unknown addresses take the same time. Whether they get the same answer is
    `Rules.signup_tells_existing`.
    """

    def __init__(self, kit: Kit) -> None:
        self._kit, self._issuing = kit, Issuing(kit)
        self._even = EvenAnswers(kit.clock, kit.rules.even_answer)

    async def sign_up(
        self,
        email: str,
        password: str,
        client: Client,
        *,
        data: Mapping[str, Any] | None = None,
        pkce: Pkce | None = None,
        redirect_to: str = "",
    ) -> SignedUp:
        """Make an account, or take an unconfirmed one, and mail a code that applies what is given here.

        When sign-ups with different passwords come for an address, its code applies none of them: see ADR 17.
        """
        kit = self._kit
        if not kit.rules.signup_enabled:
            raise SignupDisabled
        address, data = normal_email(email), metadata(data)
        await kit.limits.hit("sign_up", client)  # before the look at 30,000 breached passwords
        kit.rules.check_password(password, address)
        await kit.limits.hit_address("mail", client)
        async with self._even.always():
            await kit.limits.hit_account("mail", client, address)
            wanted = Pending(await kit.passwords.hash(password, client.ip), data)
            if kit.rules.auto_confirm:
                return await self._at_once(address, wanted, client)
            user, letter = await self._ask(address, password, wanted, client, pkce, redirect_to)
            kit.post([letter])
            return SignedUp(self._shown(address, data, user))

    async def _ask(
        self,
        address: str,
        password: str,
        wanted: Pending,
        client: Client,
        pkce: Pkce | None,
        redirect_to: str,
    ) -> tuple[User | None, Letter]:
        """The account that waits for its code (`None`: the address has a confirmed one), and the letter."""
        kit, looks = self._kit, 0
        while True:
            looks += 1
            async with kit.store.unit() as unit:
                claim = await unit.codes.claim(address)
            # Known and unknown addresses cost the same two hashes.
            same = await kit.passwords.matches(claim, password, client.ip, remember=False)
            async with kit.store.unit() as unit:
                user = await self._unconfirmed(unit, address)
                if user is None:
                    return None, Letter("account_exists", address)
                now_claimed = await unit.codes.claim(address)
                if now_claimed != claim and looks < _looks:
                    continue
                contested = now_claimed is not None and not (same and now_claimed == claim)
                return user, await self._code(unit, user, wanted, contested, client, pkce, redirect_to)

    async def _code(
        self,
        unit: Unit,
        user: User,
        wanted: Pending,
        contested: bool,  # noqa: FBT001
        client: Client,
        pkce: Pkce | None,
        redirect_to: str,
    ) -> Letter:
        before = await unit.codes.of_user(user.id, "signup")
        contested = contested or bool(before and before.pending and before.pending.contested)
        pending = Pending(wanted.password_hash, wanted.metadata, contested)
        flow = await self._issuing.flow(unit, user, pkce, "otp", redirect_to)
        mailable = await self._issuing.code(
            unit, user, "signup", redirect_to=redirect_to, flow=flow, pending=pending
        )
        await unit.accounts.change(user.id, confirmation_sent_at=self._kit.clock.now())
        await unit.audit.add("signed_up", user.id, client)
        return mailable.letter

    async def _unconfirmed(self, unit: Unit, address: str) -> User | None:
        """The new or waiting account, locked; `None` when the address has a confirmed one."""
        user = await unit.accounts.by_email(address, lock=True)
        if user is None:
            try:
                return await self._add(unit, address, self._kit.clock.now())
            except EmailExists:  # in this very moment
                user = await unit.accounts.by_email(address, lock=True)
        if user is None or user.confirmed:
            return None
        return await adopted(self._kit, unit, user)

    async def _add(self, unit: Unit, address: str, now: datetime, **values: Any) -> User:
        kit = self._kit
        user_id = kit.ids.uuid7()
        if not kit.rules.signup_tells_existing:
            shown = kit.secrets.stable_id("user", address)
            # Another's already, if its account had this address when it was made.
            user_id = user_id if await unit.accounts.by_id(shown) else shown
        return await unit.accounts.add(user_id, address, kit.ids.uuid7(), created_at=now, **values)

    async def _at_once(self, address: str, wanted: Pending, client: Client) -> SignedUp:
        """Where accounts confirm themselves: a session. Nothing is hidden, a known address is told."""
        now = self._kit.clock.now()
        values: Json = {
            "password_hash": wanted.password_hash,
            "password_changed_at": now,
            "user_metadata": wanted.metadata,
            "confirmation_sent_at": now,
            "email_confirmed_at": now,
        }
        async with self._kit.store.unit() as unit:
            user = await unit.accounts.by_email(address, lock=True)
            if user is None:
                user = await self._add(unit, address, now, **values)
            elif user.confirmed:
                raise EmailExists(reason="USER_ALREADY_EXISTS")
            else:
                await unit.accounts.change(user.id, **values)
                await drop_outstanding(unit, user)
                user = await unit.accounts.get(user.id)
            return SignedUp(user, await self._issuing.open(unit, user, "password", client))

    def _shown(self, address: str, data: Json, user: User | None) -> User:
        """The answer: never more of an account than its id and times, for the caller has proved nothing."""
        now, secrets = self._kit.clock.now(), self._kit.secrets
        shown = User(
            id=secrets.stable_id("user", address),
            email=address,
            created_at=now,
            updated_at=now,
            confirmation_sent_at=now,
            user_metadata=data,
        )
        if not self._kit.rules.signup_tells_existing:
            return replace(shown, identities=(_identity(shown, secrets.stable_id("identity", address)),))
        if user is None:
            return shown
        return replace(shown, id=user.id, created_at=user.created_at, identities=user.identities)


def _identity(user: User, identity_id: UUID) -> Identity:
    """As a new account has it."""
    return Identity(
        id=identity_id,
        provider="email",
        provider_id=str(user.id),
        identity_data=identity_data(user.id, user.email, verified=False),
        created_at=user.created_at,
        updated_at=user.updated_at,
    )
