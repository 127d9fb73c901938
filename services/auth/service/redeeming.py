"""The one place where mailed codes, links and PKCE flows become proofs, and proofs become sessions.

It knows what was proved: an address, or half of an e-mail change. Half a change opens no session, whichever
way it was proved. What was pending for the account is applied or ended here: see
`services.auth.service.pending`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.auth.domain import CHANGE_PURPOSES, Client, FlowState, Issued, OneTimeToken, User
from services.auth.errors import FlowStateNotFound, OtpExpired
from services.auth.mail.letters import Letter
from services.auth.service.issuing import Issuing
from services.auth.service.kit import Kit
from services.auth.service.pending import adopted, applied, drop_outstanding

if TYPE_CHECKING:
    from services.auth.store import Unit


@dataclass(frozen=True, slots=True)
class Redeemed:
    """The account as it is now, and a session unless an e-mail change waits for the other address."""

    user: User
    issued: Issued | None


@dataclass(frozen=True, slots=True)
class Spent:
    """A code that was spent. `letters` are posted once that is committed.

    `half`: it proved half of an e-mail change, which waits for the other half.
    """

    user: User
    letters: Sequence[Letter] = ()
    half: bool = False


class Redeeming:
    """Spends codes and flows inside the caller's unit, which holds the account's lock."""

    def __init__(self, kit: Kit) -> None:
        self._kit, self._issuing = kit, Issuing(kit)

    async def spend(self, unit: Unit, code: OneTimeToken, client: Client, *, for_flow: bool = False) -> Spent:
        """Spend a live code and do what it stands for. Raises `OtpExpired`, and as
        `User.require_sign_in`.

        `for_flow`: the session is left to the code's PKCE flow.
        """
        now = self._kit.clock.now()
        user = await unit.accounts.by_id(code.user_id, lock=True)
        if user is None or code.email != _expected(user, code):
            raise OtpExpired
        user.require_sign_in(now)
        if user.unproved:
            user = await adopted(self._kit, unit, user)
            code = await unit.codes.of_user(user.id, code.purpose) or code
        await unit.codes.use(code.id, now)
        await unit.audit.add("verified", user.id, client, purpose=code.purpose)
        if code.purpose in CHANGE_PURPOSES:
            return await self._confirm_change(unit, user, code)
        if not user.confirmed:
            await self._confirm(unit, user, code, for_flow=for_flow)
        elif code.pending is not None:  # proved meanwhile, by the version before
            await unit.codes.end_pending(user.id)
        return Spent(await unit.accounts.get(user.id))

    async def session(self, unit: Unit, spent: Spent, client: Client) -> Issued | None:
        """The session that a spent code opens, if it opens one."""
        return None if spent.half else await self._issuing.open(unit, spent.user, "otp", client)

    async def exchange(self, unit: Unit, flow: FlowState, client: Client) -> Redeemed:
        """What a PKCE flow gives whose link was followed and whose client has proved itself.

        Raises `FlowStateNotFound` when the address that the link went to is no longer the account's.
        """
        user = await unit.accounts.get(flow.user_id)
        codes = await unit.codes.of_flow(flow.id)
        changes = [code for code in codes if code.purpose in CHANGE_PURPOSES]
        if any(code.email != user.email for code in codes if code not in changes):
            raise FlowStateNotFound
        # A link to half a change leads to no exchange, but the version before let it; there the flow's
        # codes may have been replaced since.
        if user.new_email and (changes or not codes):
            return Redeemed(user, None)
        kept = next((code.pending for code in codes if code.purpose == "signup" and code.pending), None)
        if kept is not None:
            # The client that signed up is the one whose user read the mail, although others signed up too.
            await unit.accounts.change(user.id, **applied(user, kept, self._kit.clock.now()))
            await drop_outstanding(unit, user)
            user = await unit.accounts.get(user.id)
        issued = await self._issuing.open(unit, user, flow.method, client)
        return Redeemed(issued.user, issued)

    async def _confirm(self, unit: Unit, user: User, code: OneTimeToken, *, for_flow: bool) -> None:
        """The address's first proof: the code's own sign-up counts, all others end."""
        now, pending = self._kit.clock.now(), code.pending
        values = {"email_confirmed_at": now}
        contested = pending is not None and (pending.contested or await self._signed_up(unit, user, code))
        if pending is not None and not contested:
            values |= applied(user, pending, now)
        await unit.accounts.change(user.id, **values)
        waits = contested and for_flow and code.purpose == "signup"
        await unit.codes.end_pending(user.id, but=code.id if waits else None)

    async def _signed_up(self, unit: Unit, user: User, code: OneTimeToken) -> bool:
        """Whether somebody signed up besides, so that a sign-in code's metadata may be another's."""
        if code.purpose == "signup":
            return False
        other = await unit.codes.of_user(user.id, "signup")
        return other is not None and other.pending is not None

    async def _confirm_change(self, unit: Unit, user: User, code: OneTimeToken) -> Spent:
        """One half, named by the address that confirmed it: the same half twice is one half."""
        proved = {code.purpose, user.email_half}
        needed = CHANGE_PURPOSES if self._kit.rules.secure_email_change else ("email_change_new",)
        if not proved.issuperset(needed):
            await unit.accounts.change(user.id, email_half=code.purpose)
            return Spent(await unit.accounts.get(user.id), half=True)
        await unit.accounts.change(
            user.id,
            email=user.new_email,
            email_confirmed_at=self._kit.clock.now(),
            new_email=None,
            email_half=None,
        )
        # All that was mailed before went to the old address, or was pending for it.
        await unit.codes.drop_all(user.id)
        await unit.flows.drop(user.id, but=code.flow_state_id)
        return Spent(await unit.accounts.get(user.id), [Letter("email_changed", user.email)])


def _expected(user: User, code: OneTimeToken) -> str | None:
    """The address that proves something. A mail to one that is no longer the user's does not."""
    if code.purpose in CHANGE_PURPOSES and not user.new_email:
        return None
    return user.new_email if code.purpose == "email_change_new" else user.email
