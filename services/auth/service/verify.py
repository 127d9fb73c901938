"""Codes and links redeemed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from services.auth.domain import (
    PURPOSES,
    Client,
    Issued,
    OneTimeToken,
    OtpType,
    Purpose,
    User,
    normal_email,
)
from services.auth.errors import OtpExpired
from services.auth.mail.letters import Letter
from services.auth.secrets import same
from services.auth.service.even import EvenAnswers
from services.auth.service.issuing import Issuing
from services.auth.service.kit import Kit

if TYPE_CHECKING:
    from services.auth.store import Unit


@dataclass(frozen=True, slots=True)
class Followed:
    """What a mailed link's button gave: a session, a PKCE code for the client, or (an e-mail change
    that waits for the other address) neither. `redirect_to` is where it leads.
    """

    redirect_to: str
    issued: Issued | None = None
    auth_code: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Redeemed:
    """The account as it is now, and a session unless an e-mail change waits for the other address."""

    user: User
    issued: Issued | None


class Verify:
    """Redeems what was mailed: once, in time, and within five tries."""

    def __init__(self, kit: Kit) -> None:
        self._kit, self._issuing = kit, Issuing(kit)
        self._even = EvenAnswers(kit.clock, kit.rules.even_answer)

    async def by_code(self, kind: OtpType, email: str, code: str, client: Client) -> Redeemed:
        """Redeem the digits that a mail showed.

        Raises `OtpExpired`. A wrong try counts against every live code that it could have meant.
        """
        address, typed = normal_email(email), "".join(code.split())[:64]
        await self._kit.limits.hit("verify", client, address)
        letters: Sequence[Letter] = ()
        done: Redeemed | None = None
        async with self._even.on_failure():
            async with self._kit.store.unit() as unit:
                found = await self._right(unit, await unit.codes.sent_to(address, PURPOSES[kind]), typed)
                if found is not None:
                    user, letters = await self._redeem(unit, found, client)
                    done = Redeemed(user, await self._session(unit, found, user, client))
            if done is None:
                raise OtpExpired
        self._kit.post(letters)
        return done

    async def by_link(self, kind: OtpType, token: str, client: Client) -> Redeemed:
        """As `by_code`, by the token of the mailed link."""
        await self._kit.limits.hit("verify", client)
        async with self._kit.store.unit() as unit:
            found = await self._of_link(unit, kind, token)
            user, letters = await self._redeem(unit, found, client)
            done = Redeemed(user, await self._session(unit, found, user, client))
        self._kit.post(letters)
        return done

    async def follow(self, kind: OtpType, token: str, client: Client) -> Followed:
        """As `by_link`, for the page behind the link: in a PKCE flow it gives a code, and no session,
        for the page's address bar is no place for one.
        """
        kit, now = self._kit, self._kit.clock.now()
        await kit.limits.hit("verify", client)
        async with kit.store.unit() as unit:
            found = await self._of_link(unit, kind, token)
            user, letters = await self._redeem(unit, found, client)
            if found.flow_state_id is None:
                followed = Followed(found.redirect_to, await self._session(unit, found, user, client))
            else:
                code = kit.secrets.token()
                await unit.flows.followed(
                    found.flow_state_id, kit.secrets.flow_hash(code), now, now + kit.rules.flow_ttl
                )
                followed = Followed(found.redirect_to, auth_code=code)
        kit.post(letters)
        return followed

    async def nonce(self, user_id: UUID, nonce: str) -> bool:
        """Whether it is the user's re-authentication nonce; a right one is spent, a wrong one counts."""
        async with self._kit.store.unit() as unit:
            kept = await unit.codes.of_user(user_id, "reauthentication")
            found = await self._right(unit, [kept] if kept else [], "".join(nonce.split())[:64])
            if found is not None:
                await unit.codes.use(found.id, self._kit.clock.now())
        return found is not None

    async def _right(self, unit: Unit, codes: Sequence[OneTimeToken], typed: str) -> OneTimeToken | None:
        """The live code that was typed; when none was, a try is counted and is to be committed."""
        live = [code for code in codes if code.live(self._kit.clock.now())]
        right = [
            code
            for code in live
            if same(code.code_hash, self._kit.secrets.code_hash(code.user_id, code.purpose, typed))
        ]
        if right:
            return right[0]
        await unit.codes.missed([code.id for code in live])
        return None

    async def _of_link(self, unit: Unit, kind: OtpType, token: str) -> OneTimeToken:
        found = await unit.codes.by_link(self._kit.secrets.link_hash(token))
        if found is None or found.purpose not in PURPOSES[kind] or not found.live(self._kit.clock.now()):
            raise OtpExpired
        return found

    async def _redeem(self, unit: Unit, code: OneTimeToken, client: Client) -> tuple[User, Sequence[Letter]]:
        """Spend the code and do what it stands for. Returns the account as it is then."""
        now = self._kit.clock.now()
        user = await unit.accounts.by_id(code.user_id, lock=True)
        # A mail to an address that is no longer the user's proves nothing about them.
        expected = user and (user.new_email if code.purpose == "email_change_new" else user.email)
        if user is None or code.email != expected:
            raise OtpExpired
        user.require_sign_in(now)
        await unit.codes.use(code.id, now)
        letters: Sequence[Letter] = ()
        if code.purpose in ("email_change_current", "email_change_new"):
            letters = await self._change_email(unit, user, code.purpose)
        elif not user.confirmed:
            changes = {"email_confirmed_at": now}
            if code.purpose in ("magiclink", "recovery"):
                # The password came from somebody who had not proved the address; now its owner has come.
                await unit.accounts.change(user.id, password_hash=None)
            await unit.accounts.change(user.id, **changes)
        await unit.audit.add("verified", user.id, client, purpose=code.purpose)
        return await unit.accounts.get(user.id), letters

    async def _change_email(self, unit: Unit, user: User, purpose: Purpose) -> Sequence[Letter]:
        if self._kit.rules.secure_email_change and user.email_change_status == 0:
            await unit.accounts.change(user.id, email_change_status=1)
            return ()
        await unit.accounts.change(
            user.id,
            email=user.new_email,
            email_confirmed_at=self._kit.clock.now(),
            new_email=None,
            email_change_status=0,
        )
        await unit.codes.drop(user.id, ["email_change_current", "email_change_new"])
        return [Letter("email_changed", user.email)]

    async def _session(self, unit: Unit, code: OneTimeToken, user: User, client: Client) -> Issued | None:
        if user.new_email and code.purpose in ("email_change_current", "email_change_new"):
            return None
        return await self._issuing.open(unit, user, "otp", client)
