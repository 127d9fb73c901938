"""Sessions: refreshed, listed, ended."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

from servicekit.principal import Principal
from services.auth.domain import Client, Issued, RefreshToken, Session, SignOutScope
from services.auth.errors import (
    RefreshTokenAlreadyUsed,
    RefreshTokenNotFound,
    SessionExpired,
    SessionNotFound,
)
from services.auth.service.familiar import Familiar
from services.auth.service.issuing import Issuing
from services.auth.service.kit import Kit
from services.auth.service.pending import drop_outstanding

if TYPE_CHECKING:
    from services.auth.store import Unit


_longest_token: Final = 256
"""Characters; ours have 43."""


class Sessions:
    """The life of sessions after sign-in."""

    def __init__(self, kit: Kit) -> None:
        self._kit, self._issuing = kit, Issuing(kit)
        self._familiar = Familiar(kit.store, kit.secrets, kit.clock)

    async def refresh(self, refresh_token: str, client: Client) -> Issued:
        """Give the next pair of tokens. Each token is exchanged once, with two exceptions.

        - the one before the newest, while nobody has used what it was exchanged for: an answer was lost.
          What it was exchanged for is void then;
        - the same within `reuse_window` of its first exchange: several tabs refresh at once. Then all
          they got is good.

        Any other token that was exchanged before has been copied: its session ends.
        """
        kit = self._kit
        if len(refresh_token) > _longest_token:
            raise RefreshTokenNotFound
        await kit.limits.hit("refresh", client)
        hashed = kit.secrets.refresh_hash(refresh_token)
        stolen: Session | None = None
        async with kit.store.unit() as unit:
            session_id = await unit.sessions.session_of_token(hashed)
            # The lock comes first, so that tabs take turns and each sees what the one before did.
            session = await unit.sessions.get(session_id, lock=True) if session_id else None
            token = await unit.sessions.token(hashed)
            if session is None or token is None:
                raise RefreshTokenNotFound
            if session.ended(kit.clock.now(), kit.rules.session_inactivity):
                raise SessionExpired
            if await self._acceptable(unit, token):
                return await self._exchange(unit, session, token, client)
            stolen = session
            await self._end(unit, session.user_id, only=session.id)
            await unit.audit.add(
                "refresh_token_reused", session.user_id, client, actor="system", session_id=str(session.id)
            )
        await kit.deny([stolen.id])
        raise RefreshTokenAlreadyUsed

    async def _acceptable(self, unit: Unit, token: RefreshToken) -> bool:
        if token.revoked_at is not None:
            return False
        if token.used_at is None:
            return True
        if await unit.sessions.successor_used(token.id):
            return False
        now = self._kit.clock.now()
        if now - token.used_at > self._kit.rules.reuse_window:
            await unit.sessions.revoke_successors(token.id, now)
        return True

    async def _exchange(self, unit: Unit, session: Session, token: RefreshToken, client: Client) -> Issued:
        now = self._kit.clock.now()
        user = await unit.accounts.get(session.user_id)
        user.require_active(now)
        await unit.sessions.use_token(token.id, now)
        await unit.sessions.refreshed(session.id, now)
        issued = await self._issuing.tokens(unit, user, session, token.id)
        # Last: sign-ins that wait for these rows are waited for no more.
        await self._familiar.remember(unit, user, client, proved=session.aal == "aal2")
        return issued

    async def of_caller(self, principal: Principal) -> list[Session]:
        """The caller's sessions that can still be refreshed, newest first, at most 100."""
        async with self._kit.store.unit() as unit:
            found = await unit.sessions.of_user(principal.user_id)
        now = self._kit.clock.now()
        return [session for session in found if not session.ended(now, self._kit.rules.session_inactivity)]

    async def revoke(self, principal: Principal, session_id: UUID, client: Client) -> None:
        """End one of the caller's sessions. Raises `SessionNotFound`. May be repeated.

        Another one than the call's own takes with it what it may have asked for, as in `end_sessions`.
        """
        async with self._kit.store.unit() as unit:
            user = await unit.accounts.by_id(principal.user_id, lock=True)
            if user is not None and session_id != principal.session_id:
                await drop_outstanding(unit, user)
            ended = await self._end(unit, principal.user_id, only=session_id)
            if not ended:
                raise SessionNotFound
            await unit.audit.add("session_revoked", principal.user_id, client, session_id=str(session_id))
        await self._kit.deny(ended)

    async def sign_out(self, principal: Principal, scope: SignOutScope, client: Client) -> None:
        """End the caller's sessions: this one, all others, or all. Their access tokens end with them."""
        async with self._kit.store.unit() as unit:
            ended = await self._end(
                unit,
                principal.user_id,
                only=principal.session_id if scope == "local" else None,
                but=principal.session_id if scope == "others" else None,
            )
            await unit.audit.add("signed_out", principal.user_id, client, scope=scope)
        await self._kit.deny(ended)

    async def _end(
        self, unit: Unit, user_id: UUID, *, only: UUID | None = None, but: UUID | None = None
    ) -> list[UUID]:
        return await end_sessions(self._kit, unit, user_id, only=only, but=but)


async def end_sessions(
    kit: Kit, unit: Unit, user_id: UUID, *, only: UUID | None = None, but: UUID | None = None
) -> list[UUID]:
    """End sessions in the table; the caller denies what comes back once that is committed.

    To end all (`but` one) is to say that others may have had them. So what they may have asked for ends as
    well: codes, links, PKCE flows, a pending e-mail change. Sign-ups and invitations that wait stay.
    """
    if only is None and (user := await unit.accounts.by_id(user_id, lock=True)) is not None:
        await drop_outstanding(unit, user, but=() if user.confirmed else ("signup", "invite"))
    life = timedelta(seconds=kit.tokens.ttl)
    return await unit.sessions.revoke(user_id, kit.clock.now(), life, only=only, but=but)
