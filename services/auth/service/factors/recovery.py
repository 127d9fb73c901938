"""Recovery codes: for the day the phone is lost."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final
from uuid import UUID

from servicekit.principal import Principal
from services.auth.domain import Client
from services.auth.errors import FactorNotFound, UserNotFound
from services.auth.mail.letters import Letter
from services.auth.service.assurance import require_rows
from services.auth.service.kit import Kit

if TYPE_CHECKING:
    from services.auth.store import Unit

RECOVERY_CODES: Final = 10


@dataclass(frozen=True, slots=True)
class RecoveryState:
    """How many codes are left of how many, and when they were made."""

    left: int = 0
    total: int = 0
    created_at: datetime | None = None


class RecoveryCodes:
    """The caller's recovery codes, counted and made again."""

    def __init__(self, kit: Kit) -> None:
        self._kit = kit

    async def state(self, principal: Principal) -> RecoveryState:
        """How many are left; all zero without a verified factor."""
        async with self._kit.store.unit() as unit:
            return RecoveryState(*await unit.factors.recovery_state(principal.user_id))

    async def regenerate(self, principal: Principal, client: Client) -> tuple[str, ...]:
        """New codes in place of all before, and a mail. Raises `FactorNotFound` without a verified factor."""
        kit = self._kit
        await kit.limits.hit("factor", client, str(principal.user_id))
        async with kit.store.unit() as unit:
            user = await unit.accounts.by_id(principal.user_id, lock=True)
            if user is None:
                raise UserNotFound
            if not user.has_factor:
                raise FactorNotFound("Recovery codes stand in for a second factor: set one up first.")
            await require_rows(unit, principal, user)
            codes = await new_codes(kit, unit, user.id)
            await unit.audit.add("recovery_codes_made", user.id, client)
        kit.post([Letter("recovery_codes_made", user.email)])
        return codes


async def new_codes(kit: Kit, unit: Unit, user_id: UUID) -> tuple[str, ...]:
    """Make a user's codes, in place of those before."""
    codes = tuple(kit.secrets.recovery_code() for _ in range(RECOVERY_CODES))
    hashes = [kit.secrets.recovery_hash(user_id, code) for code in codes]
    await unit.factors.set_recovery_codes(user_id, [kit.ids.uuid7() for _ in codes], hashes)
    return codes
