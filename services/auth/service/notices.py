"""Mails that other services ask for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from services.auth.domain import Client
from services.auth.errors import UserNotFound
from services.auth.mail.letters import Letter
from services.auth.service.kit import Kit

KeyEvent = Literal["key_created", "key_rotated", "key_revoked"]

_longest: Final = 100
"""Characters of a key's name that are mailed."""


@dataclass(frozen=True, slots=True)
class KeyNotice:
    """What happened to keys of an account. `name` and `masked` are of the one key, "" for several."""

    user_id: UUID
    kind: KeyEvent
    name: str
    masked: str
    ip: str
    at: datetime
    count: int


class Notices:
    """To the owner of an account, wherever that account signs in."""

    def __init__(self, kit: Kit) -> None:
        self._kit = kit

    async def key_changed(self, notice: KeyNotice) -> None:
        """Mail it. Raises `UserNotFound`, or `EmailRateLimit` when that account has had many of this kind.

        Kinds are counted apart: who rotates keys all day must still hear of a key that is new.
        """
        kit = self._kit
        async with kit.store.unit() as unit:
            user = await unit.accounts.by_id(notice.user_id)
        if user is None:
            raise UserNotFound
        await kit.limits.hit("key_notice", Client(), f"{user.id}|{notice.kind}")
        kit.post(
            [
                Letter(
                    notice.kind,
                    user.email,
                    at=f"{notice.at:%Y-%m-%d %H:%M} UTC",
                    ip=_plain(notice.ip),
                    key=_plain(notice.name)[:_longest],
                    masked=_plain(notice.masked),
                    count=notice.count,
                )
            ]
        )


def _plain(text: str) -> str:
    """One line of letters that can be seen."""
    return "".join(char for char in text if char.isprintable()).strip()
