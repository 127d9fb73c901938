"""Sessions and codes as they are made: what several use cases share."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode
from uuid import UUID

from services.auth.domain import (
    Client,
    FlowState,
    Issued,
    NewCode,
    OtpType,
    Pending,
    Pkce,
    Purpose,
    Session,
    User,
)
from services.auth.errors import EmailRateLimit, RequestRateLimit
from services.auth.mail.letters import Letter
from services.auth.programs import program
from services.auth.service.assurance import raise_session
from services.auth.service.familiar import Familiar
from services.auth.service.kit import Kit

if TYPE_CHECKING:
    from services.auth.store import Unit

LINK_TYPES: Final[dict[Purpose, OtpType]] = {
    "signup": "signup",
    "magiclink": "magiclink",
    "recovery": "recovery",
    "invite": "invite",
    "email_change_current": "email_change",
    "email_change_new": "email_change",
}
"""What a link of each purpose says it is. A re-authentication nonce has no link."""


@dataclass(frozen=True, slots=True)
class Mailable:
    """A code that was made: the letter that carries it, and its parts for whoever mails it otherwise."""

    letter: Letter
    link_token: str = field(repr=False)
    redirect_to: str
    expires_at: datetime


class Issuing:
    """Opens sessions and makes codes, inside the unit of the use case."""

    def __init__(self, kit: Kit) -> None:
        self._kit = kit
        self._familiar = Familiar(kit.store, kit.secrets, kit.clock)

    async def open(self, unit: Unit, user: User, method: str, client: Client) -> Issued:
        """Sign a user in: a new session, the login recorded. Raises as `User.require_active`.

        The account knows the client from now on; of one that is new to it, the user gets a mail.
        """
        kit, now, before = self._kit, self._kit.clock.now(), user
        await unit.accounts.signed_in(user.id)
        # Read after that write, which locks the profile: until this is committed the state stays what it is.
        user = await unit.accounts.get(user.id)
        user.require_active(now)
        timebox = kit.rules.session_timebox
        session = Session(
            id=kit.ids.uuid7(),
            user_id=user.id,
            created_at=now,
            amr=((method, int(now.timestamp())),),
            not_after=now + timebox if timebox else None,
            user_agent=client.user_agent,
            ip=client.ip,
        )
        await unit.sessions.add(session)
        if await self._familiar.is_new(unit, before, client):
            await self._tell(unit, user, client)
        await self._familiar.remember(unit, user, client, proved=False)
        await unit.audit.add("signed_in", user.id, client, method=method, session_id=str(session.id))
        return await self.tokens(unit, user, session)

    async def tokens(self, unit: Unit, user: User, session: Session, parent: UUID | None = None) -> Issued:
        """A new pair of tokens of a session; `parent` is the refresh token it was exchanged for."""
        kit = self._kit
        refresh = kit.secrets.token()
        await unit.sessions.add_token(
            kit.ids.uuid7(), kit.secrets.refresh_hash(refresh), session, parent, kit.clock.now()
        )
        access, ends = kit.tokens.for_session(user, session)
        return Issued(access, refresh, ends, kit.tokens.ttl, user, session)

    async def raised(
        self, unit: Unit, user: User, session: Session, method: str, factor: UUID | None
    ) -> Issued:
        """Raise a session to aal2, proved by this method now, with new tokens that say so."""
        raised = await raise_session(self._kit, unit, session, method, factor)
        signed_in_from = Client(ip=session.ip, user_agent=session.user_agent)
        await self._familiar.remember(unit, user, signed_in_from, proved=True)
        return await self.tokens(unit, user, raised)

    async def _tell(self, unit: Unit, user: User, client: Client) -> None:
        """Mail that somebody signed in from elsewhere, unless that was mailed several times today."""
        try:
            await self._kit.limits.hit("notice", client, str(user.id))
        except RequestRateLimit:
            return
        letter = Letter(
            "new_sign_in",
            user.email,
            at=self._kit.clock.now().strftime("%Y-%m-%d %H:%M UTC"),
            ip=client.ip or "unknown",
            program=program(client.user_agent),
        )

        def post() -> None:
            # Mail is far behind: the session stands all the same.
            with contextlib.suppress(EmailRateLimit):
                self._kit.post([letter])

        unit.after.append(post)

    async def flow(
        self, unit: Unit, user: User, pkce: Pkce | None, method: str, redirect: str
    ) -> UUID | None:
        """Begin a PKCE flow, if one was asked for."""
        if pkce is None:
            return None
        # It waits as long as the mailed link does; once that was followed, only for `flow_ttl`.
        ends = self._kit.clock.now() + self._kit.rules.code_ttl
        flow = FlowState(self._kit.ids.uuid7(), user.id, pkce, method, ends, None)
        await unit.flows.add(flow, self._kit.rules.redirect(redirect))
        return flow.id

    async def code(
        self,
        unit: Unit,
        user: User,
        purpose: Purpose,
        *,
        to: str | None = None,
        redirect_to: str = "",
        flow: UUID | None = None,
        pending: Pending | None = None,
    ) -> Mailable:
        """Make a code and a link in place of those before, to be mailed to the user (or `to`).

        `pending` is kept with it, in place of what was pending with the one before.
        """
        kit, now = self._kit, self._kit.clock.now()
        code, token = kit.secrets.code(), kit.secrets.token()
        redirect = kit.rules.redirect(redirect_to)
        life = kit.rules.invite_ttl if purpose == "invite" else kit.rules.code_ttl
        address = to or user.email
        await unit.codes.put(
            NewCode(
                id=kit.ids.uuid7(),
                user_id=user.id,
                purpose=purpose,
                email=address,
                code_hash=kit.secrets.code_hash(user.id, purpose, code),
                link_hash=kit.secrets.link_hash(token) if purpose in LINK_TYPES else None,
                redirect_to=redirect,
                flow_state_id=flow,
                created_at=now,
                expires_at=now + life,
                pending=pending,
            )
        )
        letter = Letter(
            kind=purpose,
            to=address,
            code=code,
            link=self.link(purpose, token, redirect),
            minutes=int(life.total_seconds() // 60),
            new_email=user.new_email,
            contested=pending is not None and pending.contested,
        )
        return Mailable(letter, token, redirect, now + life)

    def link(self, purpose: Purpose, token: str, redirect: str) -> str:
        """The address that a mail carries: a page whose button redeems the token."""
        if purpose not in LINK_TYPES:
            return ""
        query = {"token": token, "type": LINK_TYPES[purpose], "redirect_to": redirect}
        return f"{self._kit.rules.link_base}/verify?{urlencode(query)}"
