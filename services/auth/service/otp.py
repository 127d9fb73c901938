"""Codes and links asked for: sign-in without a password, recovery, once more; and the end of PKCE flows."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Literal

from services.auth.domain import Client, Issued, Json, Pkce, Purpose, User, normal_email
from services.auth.errors import BadCodeVerifier, EmailExists, FlowStateExpired, FlowStateNotFound
from services.auth.mail.letters import Letter
from services.auth.secrets import s256, same
from services.auth.service.even import EvenAnswers
from services.auth.service.issuing import Issuing
from services.auth.service.kit import Kit, metadata

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
        """Mail a code and a link to sign in with; a new address first gets an account, if asked for."""
        address, data = normal_email(email), metadata(data)

        async def work() -> None:
            async with self._kit.store.unit() as unit:
                user = await unit.accounts.by_email(address, lock=True)
                if user is None and create_user and self._kit.rules.signup_enabled:
                    user = await self._new(unit, address, data)
                if user is None or not user.may_sign_in(self._kit.clock.now()):
                    return
                letter = await self._letter(unit, user, "magiclink", pkce, redirect_to)
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
            async with self._kit.store.unit() as unit:
                letters = await self._again(unit, kind, address, redirect_to)
            self._kit.post(letters)

        await self._behind(address, client, work)

    async def exchange(self, auth_code: str, verifier: str, client: Client) -> Issued:
        """End a PKCE flow. Raises `FlowStateNotFound`, `FlowStateExpired`, `BadCodeVerifier`."""
        kit, now = self._kit, self._kit.clock.now()
        await kit.limits.hit("verify", client)
        async with kit.store.unit() as unit:
            flow = await unit.flows.by_code(kit.secrets.flow_hash(auth_code))
            if flow is None or flow.used_at is not None:
                raise FlowStateNotFound
            if flow.expires_at <= now:
                raise FlowStateExpired
            proof = s256(verifier) if flow.pkce.method == "s256" else verifier
            if not same(proof, flow.pkce.challenge):
                raise BadCodeVerifier
            await unit.flows.use(flow.id, now)
            return await self._issuing.open(unit, await unit.accounts.get(flow.user_id), flow.method, client)

    async def _behind(self, address: str, client: Client, work: Work) -> None:
        await self._kit.limits.hit_address("mail", client)
        async with self._even.always():
            await self._kit.limits.hit_account("mail", client, address)
            await self._kit.store.ping()
            # Once the answer has left: the machine being busy with it would show in the answer's time.
            self._kit.background.do(work, after=2 * self._kit.rules.even_answer)

    async def _letter(
        self, unit: Unit, user: User, purpose: Purpose, pkce: Pkce | None, redirect_to: str
    ) -> Letter:
        flow = await self._issuing.flow(unit, user, pkce, "otp", redirect_to)
        mailable = await self._issuing.code(unit, user, purpose, redirect_to=redirect_to, flow=flow)
        return mailable.letter

    async def _new(self, unit: Unit, address: str, data: Json) -> User | None:
        ids = self._kit.ids
        try:
            return await unit.accounts.add(ids.uuid7(), address, ids.uuid7(), user_metadata=data)
        except EmailExists:  # in this very moment
            return await unit.accounts.by_email(address, lock=True)

    async def _again(
        self, unit: Unit, kind: Literal["signup", "email_change"], address: str, redirect_to: str
    ) -> list[Letter]:
        user = await unit.accounts.by_email(address, lock=True)
        if user is None:
            return []
        if kind == "signup":
            if user.confirmed:
                return []
            pending = await unit.codes.of_user(user.id, "signup")
            flow = pending.flow_state_id if pending else None  # its client still waits
            mailable = await self._issuing.code(unit, user, "signup", redirect_to=redirect_to, flow=flow)
            return [mailable.letter]
        if not user.new_email:
            return []
        # Both start again: a half that is confirmed would otherwise be counted with a stranger's half.
        await unit.accounts.change(user.id, email_change_status=0)
        letters = []
        if self._kit.rules.secure_email_change:
            mailable = await self._issuing.code(unit, user, "email_change_current", redirect_to=redirect_to)
            letters.append(mailable.letter)
        if await unit.accounts.by_email(user.new_email) is None:
            mailable = await self._issuing.code(
                unit, user, "email_change_new", to=user.new_email, redirect_to=redirect_to
            )
            letters.append(mailable.letter)
        return letters
