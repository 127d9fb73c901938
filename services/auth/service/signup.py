"""New accounts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from services.auth.domain import Client, Issued, Json, Pkce, User, normal_email
from services.auth.errors import EmailExists, SignupDisabled
from services.auth.mail.letters import Letter
from services.auth.passwords import check_new_password
from services.auth.service.even import EvenAnswers
from services.auth.service.issuing import Issuing
from services.auth.service.kit import Kit, metadata

if TYPE_CHECKING:
    from services.auth.store import Unit


@dataclass(frozen=True, slots=True)
class SignedUp:
    """The account, or what looks like one; a session only where accounts confirm themselves."""

    user: User
    issued: Issued | None = None


class SignUp:
    """Sign-up by address and password. Known and unknown addresses get like answers, in like time."""

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
        """Make an account and mail its code. An unconfirmed one is made anew: the latest password counts,
        for nobody has proved that the one before came from the address's owner.
        """
        kit = self._kit
        if not kit.rules.signup_enabled:
            raise SignupDisabled
        address, data = normal_email(email), metadata(data)
        await kit.limits.hit("sign_up", client)  # before the look at 30,000 breached passwords
        check_new_password(password, kit.rules.password_min_length)
        await kit.limits.hit_address("mail", client)
        async with self._even.always():
            await kit.limits.hit_account("mail", client, address)
            hashed = await kit.passwords.hash(password, client.ip)
            letter = Letter("account_exists", address)
            async with kit.store.unit() as unit:
                user = await self._account(unit, address, hashed, data)
                if user is not None and kit.rules.auto_confirm:
                    return SignedUp(user, await self._issuing.open(unit, user, "password", client))
                if user is not None:
                    flow = await self._issuing.flow(unit, user, pkce, "otp", redirect_to)
                    mailable = await self._issuing.code(
                        unit, user, "signup", redirect_to=redirect_to, flow=flow
                    )
                    letter = mailable.letter
                    await unit.audit.add("signed_up", user.id, client)
            if user is None and kit.rules.auto_confirm:
                # Here nothing is hidden: a new address would have been signed in.
                raise EmailExists(reason="USER_ALREADY_EXISTS")
            kit.post([letter])
            return SignedUp(user or self._plausible(address, data))

    async def _account(self, unit: Unit, address: str, hashed: str, data: Json) -> User | None:
        """The new or renewed account; `None` when the address has a confirmed one."""
        kit, now = self._kit, self._kit.clock.now()
        confirmed = now if kit.rules.auto_confirm else None
        values = {
            "password_hash": hashed,
            "password_changed_at": now,
            "user_metadata": data,
            "confirmation_sent_at": now,
            "email_confirmed_at": confirmed,
        }
        known = await unit.accounts.by_email(address, lock=True)
        if known is None:
            try:
                return await unit.accounts.add(kit.ids.uuid7(), address, kit.ids.uuid7(), **values)
            except EmailExists:  # in this very moment
                known = await unit.accounts.by_email(address, lock=True)
        if known is None or known.confirmed:
            return None
        await unit.accounts.change(known.id, **values)
        return await unit.accounts.get(known.id)

    def _plausible(self, address: str, data: Json) -> User:
        now = self._kit.clock.now()
        return User(
            id=self._kit.ids.uuid7(),
            email=address,
            created_at=now,
            updated_at=now,
            confirmation_sent_at=now,
            user_metadata=data,
        )
