"""Codes and links asked for: sign-in without a password, recovery, once more."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Literal

from services.auth.addresses import normal_email
from services.auth.domain import Client, Json, Pending, Pkce, Purpose, User
from services.auth.errors import EmailExists, EmailRateLimit
from services.auth.mail.letters import Letter
from services.auth.service.even import EvenAnswers
from services.auth.service.issuing import Issuing
from services.auth.service.kit import Kit, metadata
from services.auth.service.pending import adopted

if TYPE_CHECKING:
    from services.auth.store import Unit


Work = Callable[[], Coroutine[Any, Any, None]]


class Otp:
    """Calls that mail. None of them tells, by answer or time, whether the address is known.

    What is done for a known address is done behind the answer, so that it takes no part of the answer's
    time, however loaded the machine is. Before it comes only what both need: the limits, and one
    statement that fails if the database is away.
    """

    def __init__(self, kit: Kit) -> None:
        self._kit, self._issuing = kit, Issuing(kit)
        self._even = EvenAnswers(kit.clock, kit.rules.even_answer)

    async def send(
        self,
        email: str,
        client: Client,
        *,
        create_user: bool = True,
        data: Mapping[str, Any] | None = None,
        pkce: Pkce | None = None,
        redirect_to: str = "",
    ) -> None:
        """Mail a code and a link to sign in with; a new address first gets an account, if asked for.

        `data` is for a new account, and stays with the code until that is redeemed.
        """
        address, data = normal_email(email), metadata(data)

        async def work() -> None:
            async with self._kit.store.unit() as unit:
                user = await unit.accounts.by_email(address, lock=True)
                pending: Pending | None = None
                if user is not None:
                    pending = await self._asked_again(unit, user, data)
                elif create_user and self._kit.rules.signup_enabled:
                    user, pending = await self._new(unit, address, data)
                if user is None or not user.may_sign_in(self._kit.clock.now()):
                    return
                letter = await self._letter(unit, user, "magiclink", pkce, redirect_to, pending)
            self._kit.post([letter])

        await self._behind(address, client, work)

    async def recover(
        self, email: str, client: Client, *, pkce: Pkce | None = None, redirect_to: str = ""
    ) -> None:
        """Mail a code and a link to come in without the password."""
        address = normal_email(email)

        async def work() -> None:
            async with self._kit.store.unit() as unit:
                user = await unit.accounts.by_email(address, lock=True)
                if user is None or not user.may_sign_in(self._kit.clock.now()):
                    return
                letter = await self._letter(unit, user, "recovery", pkce, redirect_to)
                await unit.accounts.change(user.id, recovery_sent_at=self._kit.clock.now())
            self._kit.post([letter])

        await self._behind(address, client, work)

    async def resend(
        self, kind: Literal["signup", "email_change"], email: str, client: Client, *, redirect_to: str = ""
    ) -> None:
        """Mail the pending code of a sign-up or an e-mail change once more, as a new code."""
        address = normal_email(email)

        async def work() -> None:
            if kind == "email_change" and not await self._counted(address, client):
                return  # what was mailed before stays good
            async with self._kit.store.unit() as unit:
                letters = await self._again(unit, kind, address, redirect_to)
            self._kit.post(letters)

        await self._behind(address, client, work)

    async def _counted(self, address: str, client: Client) -> bool:
        """Count the mail to the address that an account is to have: only the one it has was counted so far,
        and many accounts may be about to have the same. False when its limit is used up.
        """
        async with self._kit.store.unit() as unit:
            user = await unit.accounts.by_email(address)
        if user is not None and user.new_email:
            try:
                await self._kit.limits.hit_account("mail", client, user.new_email)
            except EmailRateLimit:
                return False
        return True

    async def _behind(self, address: str, client: Client, work: Work) -> None:
        await self._kit.limits.hit_address("mail", client)
        async with self._even.always():
            await self._kit.limits.hit_account("mail", client, address)
            await self._kit.store.ping()
            # Once the answer has left: the machine being busy with it would show in the answer's time.
            self._kit.background.do(work, after=2 * self._kit.rules.even_answer)

    async def _letter(
        self,
        unit: Unit,
        user: User,
        purpose: Purpose,
        pkce: Pkce | None,
        redirect_to: str,
        pending: Pending | None = None,
    ) -> Letter:
        flow = await self._issuing.flow(unit, user, pkce, "otp", redirect_to)
        mailable = await self._issuing.code(
            unit, user, purpose, redirect_to=redirect_to, flow=flow, pending=pending
        )
        return mailable.letter

    async def _new(self, unit: Unit, address: str, data: Json) -> tuple[User | None, Pending | None]:
        ids = self._kit.ids
        try:
            user = await unit.accounts.add(ids.uuid7(), address, ids.uuid7())
        except EmailExists:  # in this very moment
            there = await unit.accounts.by_email(address, lock=True)
            return there, await self._asked_again(unit, there, data) if there else None
        return user, Pending(metadata=data)

    @staticmethod
    async def _asked_again(unit: Unit, user: User, data: Json) -> Pending | None:
        """What stays pending of a new account's metadata: it, if the same is asked for once more.

        Anything else comes from another party, or from one that does not know what it wants.
        """
        kept = None if user.confirmed else await unit.codes.of_user(user.id, "magiclink")
        same_again = kept is not None and kept.pending is not None and kept.pending.metadata == data
        return kept.pending if kept is not None and same_again else None

    async def _again(
        self, unit: Unit, kind: Literal["signup", "email_change"], address: str, redirect_to: str
    ) -> list[Letter]:
        user = await unit.accounts.by_email(address, lock=True)
        if user is None or not user.may_sign_in(self._kit.clock.now()):
            return []
        if kind == "signup":
            return [] if user.confirmed else [await self._sign_up_again(unit, user, redirect_to)]
        return await self._change_again(unit, user, redirect_to) if user.new_email else []

    async def _sign_up_again(self, unit: Unit, user: User, redirect_to: str) -> Letter:
        user = await adopted(self._kit, unit, user)
        kept = await unit.codes.of_user(user.id, "signup")
        mailable = await self._issuing.code(
            unit,
            user,
            "signup",
            redirect_to=redirect_to,
            flow=kept.flow_state_id if kept else None,  # its client still waits
            pending=kept.pending if kept else None,
        )
        return mailable.letter

    async def _change_again(self, unit: Unit, user: User, redirect_to: str) -> list[Letter]:
        """To both addresses: a half that has been confirmed stays so, and counts once however often."""
        wanted: dict[Purpose, str] = {}
        if self._kit.rules.secure_email_change:
            wanted["email_change_current"] = user.email
        if await unit.accounts.by_email(user.new_email) is None:
            wanted["email_change_new"] = user.new_email
        letters = []
        for purpose, to in wanted.items():
            kept = await unit.codes.of_user(user.id, purpose)
            flow = kept.flow_state_id if kept else None
            mailable = await self._issuing.code(
                unit, user, purpose, to=to, redirect_to=redirect_to, flow=flow
            )
            letters.append(mailable.letter)
        return letters
