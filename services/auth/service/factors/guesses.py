"""The end of guessing a second factor.

Wrong answers are counted for an account over all its factors and recovery codes, all challenges and replicas.
Once a day's are used up (`rate_factor_account_day`), TOTP codes are refused: six digits can be guessed.
Passkeys and recovery codes can't be, so the owner can still use them.

Sessions that began with a mailed code have counts of their own, of tries and of wrong answers. Someone who
knows only the password opens no such session, so they can't use up the owner's tries: the owner signs in by a
mailed code and proves the second factor there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from uuid import UUID

from servicekit.principal import Principal
from services.auth.domain import Client, Session, User
from services.auth.mail.letters import Letter
from services.auth.service.kit import Kit

if TYPE_CHECKING:
    from services.auth.store import Unit

WARN_AFTER: Final = 10
"""Wrong answers in a day after which the owner gets a mail, at most one a day."""


class Guesses:
    """Counts tries and wrong answers. A caller holds the account's lock from `check` to `wrong`."""

    def __init__(self, kit: Kit) -> None:
        self._kit = kit

    async def hit(self, principal: Principal, client: Client) -> str:
        """Count a try, right or wrong, and return whose it is. Raises `RequestRateLimit`."""
        async with self._kit.store.unit() as unit:
            session = await unit.sessions.get(principal.session_id) if principal.session_id else None
        account = counted(principal.user_id, session)
        await self._kit.limits.hit("factor", client, account)
        return account

    async def check(self, account: str) -> None:
        """Raise `RequestRateLimit` if no further code may be tried today."""
        await self._kit.limits.check("factor_wrong", account)

    async def wrong(
        self, unit: Unit, user: User, account: str, client: Client, why: str, factor_id: str = ""
    ) -> list[Letter]:
        """Count a wrong answer. Returns the mail that it gives reason for."""
        limits = self._kit.limits
        await unit.audit.add("factor_failed", user.id, client, why=why, factor_id=factor_id)
        many = await limits.count("factor_wrong", account, WARN_AFTER)
        if many and await limits.once("factor_guessed", str(user.id)):
            return [Letter("factor_guessed", user.email)]
        return []

    async def forget(self, user_id: UUID) -> None:
        """The password has changed: who guessed with the old one is out."""
        for account in (str(user_id), _mailed(user_id)):
            await self._kit.limits.clear("factor_wrong", account)


def counted(user_id: UUID, session: Session | None) -> str:
    """For whom a session's tries count."""
    by_mail = session is not None and any(method == "otp" for method, _ in session.amr)
    return _mailed(user_id) if by_mail else str(user_id)


def _mailed(user_id: UUID) -> str:
    return f"{user_id}|mailed"
