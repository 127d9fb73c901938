"""The caller's identity proved once more, so that the session is fresh."""

from __future__ import annotations

from servicekit.principal import Principal
from services.auth.domain import Client, Issued
from services.auth.errors import (
    InvalidCredentials,
    SessionExpired,
    UserNotFound,
    ValidationFailed,
)
from services.auth.service.assurance import proved
from services.auth.service.issuing import Issuing
from services.auth.service.kit import Kit
from services.auth.service.verify import Verify


class Confirm:
    """Proves the first factor again; never raises the assurance."""

    def __init__(self, kit: Kit) -> None:
        self._kit, self._issuing, self._verify = kit, Issuing(kit), Verify(kit)

    async def confirm(self, principal: Principal, nonce: str, password: str, client: Client) -> Issued:
        """New tokens of the session, fresh from now on, for the mailed nonce or the current password.

        Raises `InvalidCredentials`, `SessionExpired`, `ValidationFailed`, and as `User.require_active`.
        """
        kit, user_id = self._kit, principal.user_id
        if bool(nonce) == bool(password):
            raise ValidationFailed("nonce", "give either the nonce or the password")
        # Counted before any hash.
        await kit.limits.hit("verify" if nonce else "sign_in", client, str(user_id))
        if not await self._right(principal, nonce, password, client):
            raise InvalidCredentials("The password or the nonce is wrong.")
        method = "otp" if nonce else "password"
        async with kit.store.unit() as unit:
            user = await unit.accounts.by_id(user_id, lock=True)
            session = (
                await unit.sessions.get(principal.session_id, lock=True) if principal.session_id else None
            )
            if user is None or session is None:
                raise SessionExpired
            if session.ended(kit.clock.now(), kit.rules.session_inactivity):
                raise SessionExpired
            user.require_active(kit.clock.now())
            session = proved(session, method, int(kit.clock.time()))
            await unit.sessions.prove(session.id, session.amr)
            await unit.audit.add("identity_confirmed", user_id, client, method=method)
            return await self._issuing.tokens(unit, user, session)

    async def _right(self, principal: Principal, nonce: str, password: str, client: Client) -> bool:
        if nonce:
            return await self._verify.nonce(principal.user_id, nonce)
        async with self._kit.store.unit() as unit:
            user = await unit.accounts.by_id(principal.user_id)
        if user is None:
            raise UserNotFound
        return await self._kit.passwords.matches(user.password_hash, password, client.ip)
