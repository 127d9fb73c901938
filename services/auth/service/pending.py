"""What an unproved party wrote of an account, and what ends when an account's owner acts (ADR 17).

A sign-up for an address proves nothing, so it writes nothing into the account: what it wants stays with the
code that is mailed for it (`Pending`), and that code alone applies it. Every other proof of the address
ends it. Callers hold the account's lock.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from services.auth.domain import CHANGE_PURPOSES, Json, Pending, Purpose, User
from services.auth.errors import ValidationFailed
from services.auth.service.kit import Kit, metadata

if TYPE_CHECKING:
    from services.auth.store import Unit


def applied(user: User, pending: Pending, now: datetime) -> Json:
    """The members of the account to set for it. What an operator wrote into the metadata stays."""
    values: Json = {}
    if pending.password_hash is not None:
        values |= {"password_hash": pending.password_hash, "password_changed_at": now}
    with contextlib.suppress(ValidationFailed):  # too long together
        values["user_metadata"] = metadata({**pending.metadata, **user.user_metadata})
    return values


async def adopted(kit: Kit, unit: Unit, user: User) -> User:
    """The account, with the sign-up that the version before wrote into it made a pending one."""
    if not user.unproved:
        return user
    wanted = Pending(user.password_hash, user.user_metadata)
    await unit.codes.adopt(kit.ids.uuid7(), user.id, user.email, wanted, kit.clock.now())
    await unit.accounts.change(user.id, password_hash=None, password_changed_at=None, user_metadata={})
    return await unit.accounts.get(user.id)


async def drop_outstanding(unit: Unit, user: User, *, but: Sequence[Purpose] = ()) -> None:
    """End what was mailed or begun for the account: codes, links, PKCE flows, an e-mail change, and factors
    that were never proved, whose secrets are known to who began them.

    For a new password, a new address, and an owner who ends other sessions: it may have been a thief who
    asked. `but` keeps the codes for some purposes.
    """
    await unit.codes.drop_all(user.id, but=but)
    await unit.flows.drop(user.id)
    await unit.factors.drop_unverified(user.id)
    if user.new_email:
        await unit.accounts.change(user.id, new_email=None, email_half=None)


async def drop_email_change(unit: Unit, user: User) -> None:
    """End a pending e-mail change with its codes, links and flows."""
    await unit.codes.drop(user.id, CHANGE_PURPOSES)
    await unit.flows.drop(user.id)
    await unit.accounts.change(user.id, new_email=None, email_half=None)


async def administered(unit: Unit, before: User, values: Json) -> None:
    """After an operator has set these members of the account.

    A new password or address ends what was mailed before. An operator who confirms the address has not
    seen whose sign-up is pending, so it ends as well.
    """
    if "password_hash" in values or values.get("email", before.email) != before.email:
        await drop_outstanding(unit, before)
    elif values.get("email_confirmed_at") is not None and not before.confirmed:
        await unit.codes.end_pending(before.id)
