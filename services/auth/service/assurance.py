"""The assurance of sessions: raised by a proof, lowered when the factor behind it is removed.

Access tokens carry a session's assurance and the version of it. Each change is written to Redis before it is
committed, under the account's lock: from then on no service believes an older token, and while Redis is away
nothing changes. Should the commit fail, older tokens count for less than they could until they expire.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Final
from uuid import UUID

from servicekit.principal import Principal
from services.auth.domain import Session, User
from services.auth.errors import InsufficientAal, SessionExpired
from services.auth.second_factors import SecretFactor
from services.auth.service.kit import Kit

if TYPE_CHECKING:
    from services.auth.store import Unit

SECOND_FACTORS: Final = ("totp", "webauthn", "recovery_code")
"""Methods by which a second factor, or what stands in for one, is proved."""


async def raise_session(kit: Kit, unit: Unit, session: Session, method: str, factor: UUID | None) -> Session:
    """The session at aal2, proved by this method now. The caller has locked the account and the session."""
    raised = proved(session, method, int(kit.clock.time()))
    version = await unit.sessions.raise_to(session.id, "aal2", raised.amr, factor)
    raised = replace(raised, aal="aal2", assurance_version=version)
    await _tell(kit, [raised], has_factor=True)
    return raised


async def lower_sessions(kit: Kit, unit: Unit, factor: SecretFactor) -> None:
    """Take back what a factor had raised that has just been removed, everywhere and at once.

    Its proofs make no session fresh either: it may be a thief who has it. Was it the last one, also what
    recovery codes had raised: they stood in for a factor. Tokens then count as those of an account without
    one. The caller holds the account's lock.
    """
    has_factor = (await unit.accounts.get(factor.user_id)).has_factor
    removed, methods = (factor.id, (factor.kind,)) if has_factor else (None, SECOND_FACTORS)
    await _tell(kit, await unit.sessions.lower(factor.user_id, removed, methods), has_factor=has_factor)


async def require_rows(unit: Unit, principal: Principal, user: User) -> None:
    """What was asked of the token, by the rows: since then the session may have ended, and a factor may have
    been added or removed.

    Raises `SessionExpired`, `InsufficientAal`. The caller holds the account's lock, as every use case
    that ends the account's other sessions does.
    """
    session = await unit.sessions.get(principal.session_id) if principal.session_id else None
    if session is None or session.revoked_at is not None:
        raise SessionExpired
    if user.has_factor and session.aal != "aal2":
        raise InsufficientAal


def proved(session: Session, method: str, now: int) -> Session:
    """The session with a proof of identity by this method at this moment, in epoch seconds."""
    older = ((each, at) for each, at in session.amr if each != method)
    return replace(session, amr=((method, now), *older))


async def _tell(kit: Kit, sessions: Iterable[Session], *, has_factor: bool) -> None:
    life = kit.tokens.ttl + 60  # a minute more: verifiers grant clocks some leeway
    for session in sessions:
        version, newest = session.assurance_version, max((at for _, at in session.amr), default=0)
        await kit.denials.lower(str(session.id), version, life, has_factor=has_factor, proved_at=newest)
