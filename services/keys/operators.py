"""What operators may do to the keys of a user: see them and end them.

A transaction has the claims of the user whose keys they are, so that row level security shows no others, and
the operator's id and reason, which the audit trail records. No database privilege is added for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from servicekit.clock import Clock
from servicekit.errors import FieldViolation
from servicekit.principal import Principal
from servicekit.texts import checked_name
from services.keys.domain import Key
from services.keys.errors import UserNotFound, UserUnknown, ValidationFailed
from services.keys.ports import Invalidator, Notices, Units
from services.keys.search import Paging, Search
from services.keys.service import revoke

REASON_LENGTH: Final = 200


class KeyOperators:
    """The use cases. The owner is told of a revocation, without the operator's address."""

    def __init__(self, units: Units, invalidator: Invalidator, notices: Notices, clock: Clock) -> None:
        self._units = units
        self._invalidator = invalidator
        self._notices = notices
        self._clock = clock

    async def list(
        self, operator: Principal, user_id: UUID, search: Search, size: int, token: str
    ) -> tuple[Sequence[Key], str]:
        """A page of a user's keys, newest first, and the next page's token.

        Raises `UserNotFound`, `PageTokenInvalid`.
        """
        page = Paging.of(search, size, token)
        async with self._units.as_operator(operator, user_id, "") as unit:
            if not await unit.user_exists():
                raise UserNotFound
            return await page.read(unit, search, self._clock.now())

    async def revoke(self, operator: Principal, user_id: UUID, key_id: UUID, reason: str) -> Key:
        """End one key of a user for good. Raises `KeyNotFound`, `ValidationFailed`."""
        async with self._units.as_operator(operator, user_id, checked_reason(reason)) as unit:
            key, ended = await revoke(unit, key_id)
        await self._invalidator.invalidate(key_id)
        if ended:
            self._notices.key_changed("revoked", user_id, [key], "")
        return key

    async def revoke_all(self, operator: Principal, user_id: UUID, reason: str) -> Sequence[UUID]:
        """End all working keys of a user; their ids. Raises `UserNotFound`, `ValidationFailed`."""
        async with self._units.as_operator(operator, user_id, checked_reason(reason)) as unit:
            try:
                keys = await unit.get_all(await unit.revoke_all(None))
            except UserUnknown:
                raise UserNotFound from None
        await self._invalidator.invalidate(*(key.id for key in keys))
        if keys:
            self._notices.key_changed("revoked", user_id, keys, "")
        return [key.id for key in keys]


def checked_reason(reason: str) -> str:
    """The reason in canonical form. The user can read it. Raises `ValidationFailed`."""
    try:
        return checked_name(reason, REASON_LENGTH)
    except ValueError as error:
        raise ValidationFailed([FieldViolation("reason", str(error))]) from None
